/* What is done to a text before it is cut into words. Internal to data/. */
#ifndef TRIDENT_DATA_NORMAL_H
#define TRIDENT_DATA_NORMAL_H

#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Bytes that are made anew again and again; tri_free(data). */
struct tri_bytes {
    unsigned char *data;
    size_t bytes, room;
};
/* The old content stays. */
void tri_bytes_append(struct tri_bytes *text, const void *data, size_t bytes);

enum tri_normal { TRI_NORMAL_FORM, TRI_NORMAL_PREPEND, TRI_NORMAL_REPLACE };
enum tri_form { TRI_NFC, TRI_NFD, TRI_NFKC, TRI_NFKD };

struct tri_normal_step {
    enum tri_normal kind;
    enum tri_form form;
    char *from, *to; /* owned; replaced, and by what; what is prepended is `to` */
};

enum { TRI_NORMAL_STEPS = 16 };

struct tri_normalizer {
    int count;
    struct tri_normal_step step[TRI_NORMAL_STEPS];
};
void tri_normalizer_fini(struct tri_normalizer *normalizer);

/* Scratch of one thread, {0} before. */
struct tri_normal_scratch {
    struct tri_bytes text[2];
    int32_t *points, *sorted;
    size_t points_room, sorted_room;
};
void tri_normal_scratch_fini(struct tri_normal_scratch *scratch);

enum { TRI_NORMAL_TIMES = 32, TRI_NORMAL_SPARE = 1 << 20, TRI_NORMAL_SPARE_TOKEN = 1 << 10 };
/* *result[*bytes], valid until the next call, <- what valid UTF-8 becomes; it may be the text
 * itself. begins: of what lies between two added tokens this is the beginning. false: a step would
 * make more than TRI_NORMAL_TIMES its bytes and `spare` of it. */
bool tri_normalize(const struct tri_normalizer *normalizer, struct tri_normal_scratch *scratch,
                   const unsigned char *text, size_t *bytes, size_t spare, bool begins,
                   const unsigned char **result) TRI_NODISCARD;

#endif
