/* The words of the patterns that most models have, found without a pattern. Internal to data/. */
#ifndef TRIDENT_DATA_WORD_SCAN_H
#define TRIDENT_DATA_WORD_SCAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* GPT-2's, Llama 3's (numbers of up to three digits) and Qwen's (of one). */
enum tri_word_style { TRI_WORDS_GPT2, TRI_WORDS_LLAMA3, TRI_WORDS_QWEN };

enum tri_character_class { TRI_OTHER, TRI_SPACE, TRI_LETTER, TRI_NUMBER };

/* What each character is. */
struct tri_character_classes {
    unsigned char of[0x110000];
};
/* What utf8proc knows, and ranges that are added: pairs of a first and a last character. */
void tri_character_classes_init(struct tri_character_classes *classes, const int32_t *letters,
                                size_t letter_ranges, const int32_t *numbers, size_t number_ranges);

/* Where the word ends that begins at `at`, a place before bytes in valid UTF-8. */
size_t tri_word_scan(const struct tri_character_classes *classes, enum tri_word_style style,
                     const unsigned char *text, size_t bytes, size_t at);

#endif
