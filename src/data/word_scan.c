#include "data/word_scan.h"

#include "data/utf8.h"

#include <utf8proc.h>

void tri_character_classes_init(struct tri_character_classes *classes, const int32_t *letters,
                                size_t letter_ranges, const int32_t *numbers, size_t number_ranges)
{
    for (int32_t c = 0; c < (int32_t)sizeof(classes->of); c++) {
        utf8proc_category_t category = utf8proc_category(c);
        bool number = category >= UTF8PROC_CATEGORY_ND && category <= UTF8PROC_CATEGORY_NO;
        enum tri_character_class class = tri_is_space(c)    ? TRI_SPACE
                                         : tri_is_letter(c) ? TRI_LETTER
                                         : number           ? TRI_NUMBER
                                                            : TRI_OTHER;
        classes->of[c] = (unsigned char)class;
    }
    for (size_t i = 0; i < letter_ranges; i++) {
        for (int32_t c = letters[2 * i]; c <= letters[2 * i + 1]; c++) {
            classes->of[c] = TRI_LETTER;
        }
    }
    for (size_t i = 0; i < number_ranges; i++) {
        for (int32_t c = numbers[2 * i]; c <= numbers[2 * i + 1]; c++) {
            classes->of[c] = TRI_NUMBER;
        }
    }
}

/* ---- characters ------------------------------------------------------------------------------ */

/* Of valid text. */
static inline size_t length_at(const unsigned char *text)
{
    return text[0] < 0x80 ? 1 : text[0] < 0xE0 ? 2 : text[0] < 0xF0 ? 3 : 4;
}

static inline unsigned class_at(const struct tri_character_classes *classes,
                                const unsigned char *text)
{
    unsigned c = text[0];
    if (c >= 0xF0) {
        c = (c & 7u) << 18 | (text[1] & 63u) << 12 | (text[2] & 63u) << 6 | (text[3] & 63u);
    } else if (c >= 0xE0) {
        c = (c & 15u) << 12 | (text[1] & 63u) << 6 | (text[2] & 63u);
    } else if (c >= 0x80) {
        c = (c & 31u) << 6 | (text[1] & 63u);
    }
    return classes->of[c];
}

/* Where the characters of a class, from `at` on, end. */
static size_t run(const struct tri_character_classes *classes, unsigned class,
                  const unsigned char *text, size_t bytes, size_t at)
{
    while (at < bytes && class_at(classes, text + at) == class) {
        at += length_at(text + at);
    }
    return at;
}

/* ---- words ----------------------------------------------------------------------------------- */

/* The end of 's, 't, 're, 've, 'm, 'll or 'd; `at` where there is none. any_case: 'S as well, and
 * with the long s. */
static size_t contraction(const unsigned char *text, size_t bytes, size_t at, bool any_case)
{
    const unsigned fold = any_case ? 0x20 : 0;
    size_t left = bytes - at;
    unsigned first = left > 1 ? text[at + 1] | (text[at + 1] < 0x80 ? fold : 0) : 0;
    unsigned second = left > 2 ? text[at + 2] | (text[at + 2] < 0x80 ? fold : 0) : 0;
    if (first == 's' || first == 't' || first == 'm' || first == 'd') {
        return at + 2;
    }
    if ((first == 'r' && second == 'e') || (first == 'v' && second == 'e') ||
        (first == 'l' && second == 'l')) {
        return at + 3;
    }
    return any_case && left > 2 && text[at + 1] == 0xC5 && text[at + 2] == 0xBF ? at + 3 : at;
}

/* Of white space from `at` to end: all of it at the end of the text, else all but its last
 * character, which goes with what follows, unless it is alone. */
static size_t white_space(const unsigned char *text, size_t bytes, size_t at, size_t end)
{
    if (end == bytes) {
        return end;
    }
    size_t last = end - 1;
    while ((text[last] & 0xC0) == 0x80) {
        last--;
    }
    return last > at ? last : end;
}

static size_t scan_gpt2(const struct tri_character_classes *classes, const unsigned char *text,
                        size_t bytes, size_t at)
{
    size_t end = text[at] == '\'' ? contraction(text, bytes, at, false) : at;
    if (end > at) {
        return end;
    }
    size_t from = at + (text[at] == ' ' && at + 1 < bytes);
    unsigned class = class_at(classes, text + from);
    if (class != TRI_SPACE) {
        return run(classes, class, text, bytes, from);
    }
    return white_space(text, bytes, at, run(classes, TRI_SPACE, text, bytes, at));
}

static bool is_line(unsigned char c)
{
    return c == '\r' || c == '\n';
}

/* Behind the last line feed or return of white space; `at`: it has none. */
static size_t last_line(const unsigned char *text, size_t at, size_t end)
{
    while (end > at && !is_line(text[end - 1])) {
        end--;
    }
    return end;
}

static size_t digits(const struct tri_character_classes *classes, const unsigned char *text,
                     size_t bytes, size_t at, int most)
{
    for (int i = 0; i < most && at < bytes && class_at(classes, text + at) == TRI_NUMBER; i++) {
        at += length_at(text + at);
    }
    return at;
}

static size_t scan_lines(const struct tri_character_classes *classes, const unsigned char *text,
                         size_t bytes, size_t at, int most_digits)
{
    size_t end = text[at] == '\'' ? contraction(text, bytes, at, true) : at;
    if (end > at) {
        return end;
    }
    unsigned class = class_at(classes, text + at);
    if (class == TRI_LETTER) {
        return run(classes, TRI_LETTER, text, bytes, at);
    }
    if (class == TRI_NUMBER) {
        return digits(classes, text, bytes, at, most_digits);
    }
    size_t next = at + length_at(text + at);
    unsigned after = next < bytes ? class_at(classes, text + next) : TRI_SPACE;
    if (after == TRI_LETTER && !is_line(text[at])) {
        return run(classes, TRI_LETTER, text, bytes, next);
    }
    if (class == TRI_OTHER || (text[at] == ' ' && after == TRI_OTHER)) {
        end = run(classes, TRI_OTHER, text, bytes, class == TRI_OTHER ? at : next);
        while (end < bytes && is_line(text[end])) {
            end++;
        }
        return end;
    }
    size_t spaces = run(classes, TRI_SPACE, text, bytes, at);
    end = last_line(text, at, spaces);
    return end > at ? end : white_space(text, bytes, at, spaces);
}

size_t tri_word_scan(const struct tri_character_classes *classes, enum tri_word_style style,
                     const unsigned char *text, size_t bytes, size_t at)
{
    return style == TRI_WORDS_GPT2
               ? scan_gpt2(classes, text, bytes, at)
               : scan_lines(classes, text, bytes, at, style == TRI_WORDS_QWEN ? 1 : 3);
}
