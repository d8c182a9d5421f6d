/* The files of a tokenizer, as a Hugging Face folder has them beside a model: they go where the
 * tokens and the weights go. */
#ifndef TRIDENT_DATA_TOKENIZER_FILES_H
#define TRIDENT_DATA_TOKENIZER_FILES_H

#include "data/tokenizer.h"

#include <stdbool.h>

enum { TRI_TOKENIZER_FILES = 9 };
/* tokenizer.json first; the others need not be there. */
extern const char *const tri_tokenizer_files[TRI_TOKENIZER_FILES];

/* Where `given`, a folder, keeps a tokenizer.json: there, or in its folder "tokenizer", which
 * shards and runs have. folder[bytes] <- that; false: nowhere. */
bool tri_tokenizer_files_find(const char *given, char *folder, size_t bytes);
/* Copies what `from` has of them, or `from` itself where it is a tokenizer.json, into `to`, which
 * is there, each whole or not at all. */
enum tri_status tri_tokenizer_files_add(const char *from, const char *to,
                                        struct tri_error *error) TRI_NODISCARD;
/* *same <- whether the tokenizer.json of two folders has the same bytes. */
enum tri_status tri_tokenizer_files_compare(const char *left, const char *right, bool *same,
                                            struct tri_error *error) TRI_NODISCARD;
/* Makes the folder `to`/tokenizer anew with what `from` has of them; NULL: removes it. BAD_INPUT,
 * which _check says before: there is one that no such call has made, which is somebody's own. */
enum tri_status tri_tokenizer_files_put(const char *from, const char *to,
                                        struct tri_error *error) TRI_NODISCARD;
enum tri_status tri_tokenizer_files_check(const char *from, const char *to,
                                          struct tri_error *error) TRI_NODISCARD;

/* The same in steps, for what must change together with something else: prepared, the new folder is
 * `fresh`, to which files may be added; begun, the old one is out of the way; ended, the new one is
 * in its place. Where it ends there nowhere is one tokenizer beside another's tokens. */
struct tri_tokenizer_swap {
    char *folder, *fresh, *aside;
    bool filled; /* fresh is there */
    bool moved;  /* what was there is aside */
    bool stays;  /* it is somebody's own */
};
/* tri_tokenizer_swap_fini it, also when it fails. */
enum tri_status tri_tokenizer_swap_prepare(struct tri_tokenizer_swap *swap, const char *from,
                                           const char *to, struct tri_error *error) TRI_NODISCARD;
enum tri_status tri_tokenizer_swap_begin(struct tri_tokenizer_swap *swap,
                                         struct tri_error *error) TRI_NODISCARD;
enum tri_status tri_tokenizer_swap_end(struct tri_tokenizer_swap *swap,
                                       struct tri_error *error) TRI_NODISCARD;
/* As it was before. */
void tri_tokenizer_swap_undo(struct tri_tokenizer_swap *swap);
void tri_tokenizer_swap_fini(struct tri_tokenizer_swap *swap);

enum { TRI_STOPS = 16 };
/* stop[TRI_STOPS] <- the tokens that end a text: eos_token_id of folder's generation_config.json,
 * or where it names none the eos_token of tokenizer_config.json. *count <- how many, 0 where
 * nothing is said. BAD_INPUT: a file that is there and damaged. */
enum tri_status tri_tokenizer_read_stops(const char *folder, const struct tri_tokenizer *tokenizer,
                                         int32_t *stop, int *count,
                                         struct tri_error *error) TRI_NODISCARD;
/* Adds one more to them in generation_config.json, which is made where it is not there; end goes
 * before it where nothing is said, unless it is -1. */
enum tri_status tri_tokenizer_add_stop(const char *folder, const struct tri_tokenizer *tokenizer,
                                       int32_t end, int32_t token,
                                       struct tri_error *error) TRI_NODISCARD;

#endif
