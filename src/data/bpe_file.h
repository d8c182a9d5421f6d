/* The parts of tokenizer.json, each read in a file of its own. Internal to data/. */
#ifndef TRIDENT_DATA_BPE_FILE_H
#define TRIDENT_DATA_BPE_FILE_H

#include "base/json.h"
#include "data/bpe.h"

/* The file being read. */
struct tri_bpe_file {
    const char *path;
    json_t *root;
    struct tri_bpe *bpe;
    bool bytes; /* pieces are bytes in ByteLevel's writing, else characters */
    /* Of characters, what the decoder does: U+2581 becomes a space, <0x00> a byte; whether all
     * pieces were joined so far. */
    bool spaces, names_bytes, fused;
};

/* BAD_INPUT: "path: key: found VALUE, EXPECTED". */
enum tri_status tri_bpe_refuse(const struct tri_bpe_file *file, const char *key,
                               const json_t *found, const char *expected,
                               struct tri_error *error) TRI_NODISCARD;
/* "type" of an object, "" without one. */
const char *tri_bpe_type(const json_t *object);
/* A text key that must be there. */
enum tri_status tri_bpe_get_text(const struct tri_bpe_file *file, const char *key,
                                 const json_t *object, const char *name, const char **text,
                                 struct tri_error *error) TRI_NODISCARD;
/* The flag of an object, fallback where it is absent. */
enum tri_status tri_bpe_get_flag(const struct tri_bpe_file *file, const char *key,
                                 const json_t *object, const char *name, bool fallback, bool *value,
                                 struct tri_error *error) TRI_NODISCARD;

/* normalizer, pre_tokenizer, decoder: into file->bpe, and file->bytes. */
enum tri_status tri_bpe_read_steps(struct tri_bpe_file *file,
                                   struct tri_error *error) TRI_NODISCARD;
/* model and added_tokens. */
enum tri_status tri_bpe_read_model(struct tri_bpe_file *file,
                                   struct tri_error *error) TRI_NODISCARD;

/* post_processor, once the vocabulary is there. */
enum tri_status tri_bpe_read_template(struct tri_bpe_file *file,
                                      struct tri_error *error) TRI_NODISCARD;

/* The bytes that a text in ByteLevel's writing stands for, at most as many as it has itself; false:
 * it has other characters. */
bool tri_bpe_unmap(const char *text, size_t length, unsigned char *bytes, size_t *count);
/* Each byte in that writing. */
struct tri_bytes_writing {
    char text[256][4];
};
void tri_bpe_map(struct tri_bytes_writing *writing);
/* byte[256] <- the place of each byte in the order of its writing. */
void tri_bpe_order(int32_t byte[256]);

/* How ByteLevel itself cuts words: GPT-2's pattern. */
extern const char tri_bpe_byte_level_pattern[];

#endif
