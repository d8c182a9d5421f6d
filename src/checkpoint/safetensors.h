/* safetensors: named tensors behind a JSON header. The reader maps a file, checks all of it that
 * can be wrong before it hands out a pointer, and never looks outside it; the writer streams.
 *
 *   u64 N | N bytes of JSON, padded with spaces | data: every tensor, no holes, in order of offset
 *   {"__metadata__": {"format": "pt"},
 *    "NAME": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}, …}
 *
 * docs/formats.md has every rule. Little-endian hosts only, like the rest of Trident. */
#ifndef TRIDENT_CHECKPOINT_SAFETENSORS_H
#define TRIDENT_CHECKPOINT_SAFETENSORS_H

#include "base/file.h"
#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* MOST: tensors that we put in one file, or twice as many moments: a header stays far below the
 * 100 MB that readers take. */
enum { TRI_SAFETENSORS_DIMS = 8, TRI_SAFETENSORS_MOST = 1 << 16 };

/* Every type the format knows; Trident computes with few of them but can step over all. */
enum tri_safetensors_dtype {
    TRI_ST_BOOL,
    TRI_ST_U8,
    TRI_ST_I8,
    TRI_ST_I16,
    TRI_ST_U16,
    TRI_ST_F16,
    TRI_ST_BF16,
    TRI_ST_I32,
    TRI_ST_U32,
    TRI_ST_F32,
    TRI_ST_F64,
    TRI_ST_I64,
    TRI_ST_U64,
    TRI_ST_C64,
    TRI_ST_F8_E4M3,
    TRI_ST_F8_E5M2,
    TRI_ST_F8_E8M0,
    TRI_ST_F6_E2M3,
    TRI_ST_F6_E3M2,
    TRI_ST_F4,
    TRI_ST_DTYPE_COUNT
};

/* "F32", … */
const char *tri_safetensors_dtype_name(enum tri_safetensors_dtype dtype);
/* Bits of one element. */
int tri_safetensors_dtype_bits(enum tri_safetensors_dtype dtype);

/* One tensor of a file; all pointers belong to the file. data may have any alignment (files of
 * other writers); in files of ours it is aligned to its element. */
struct tri_safetensor {
    const char *name, *path;
    enum tri_safetensors_dtype dtype;
    int dims; /* 0: a scalar */
    int64_t shape[TRI_SAFETENSORS_DIMS];
    int64_t count;             /* elements */
    const unsigned char *data; /* NULL where the header alone was read */
    uint64_t offset;           /* of the data in the file */
    size_t bytes;
};

struct json_t;

struct tri_safetensors {
    char *path;
    uint64_t bytes; /* of the file */
    int64_t count;
    struct tri_safetensor *tensor; /* sorted by name (strcmp) */
    struct tri_mapping mapping;
    struct json_t *header;
};

/* Maps a file and checks header length, JSON, duplicate names, types, shapes (products with
 * overflow), offsets (in order, no hole, no overlap, the whole data part covered). BAD_INPUT
 * names the file, the tensor, found and expected. Local. */
enum tri_status tri_safetensors_open(const char *path, struct tri_safetensors **file,
                                     struct tri_error *error) TRI_NODISCARD;
/* The same of the header alone, which is read: the tensors have no data here. */
enum tri_status tri_safetensors_open_header(const char *path, struct tri_safetensors **file,
                                            struct tri_error *error) TRI_NODISCARD;
void tri_safetensors_close(struct tri_safetensors *file);
/* NULL when there is none of that name. */
const struct tri_safetensor *tri_safetensors_find(const struct tri_safetensors *file,
                                                  const char *name);
/* A value of "__metadata__"; NULL when absent. */
const char *tri_safetensors_metadata(const struct tri_safetensors *file, const char *key);

/* Elements [first, first + count) in C order as f32 (F32, BF16, F16, F64, I32, I64) or i64 (I32,
 * I64). The range must lie in the tensor. BAD_INPUT for other types. */
enum tri_status tri_safetensor_read_f32(const struct tri_safetensor *tensor, int64_t first,
                                        int64_t count, float *out,
                                        struct tri_error *error) TRI_NODISCARD;
enum tri_status tri_safetensor_read_i64(const struct tri_safetensor *tensor, int64_t first,
                                        int64_t count, int64_t *out,
                                        struct tri_error *error) TRI_NODISCARD;
/* values: some of the tensor's. BAD_INPUT where one is infinite or no number. */
enum tri_status tri_safetensor_expect_finite(const struct tri_safetensor *tensor,
                                             const float *values, int64_t count,
                                             struct tri_error *error) TRI_NODISCARD;
/* BAD_INPUT, with found and expected, unless the tensor has this shape. */
enum tri_status tri_safetensor_expect_shape(const struct tri_safetensor *tensor, int dims,
                                            const int64_t *shape,
                                            struct tri_error *error) TRI_NODISCARD;

/* ---- several files that together hold one model ---------------------------------------------- */

struct tri_safetensors_set {
    int files;
    struct tri_safetensors **file;
    int64_t count;
    const struct tri_safetensor **tensor; /* of all files, sorted by name */
};

/* The headers of a folder's weights, those that transformers reads: of `name`, or where that is
 * NULL of model.safetensors, or else of model.safetensors.index.json. An index (NAME.json) lists
 * files; all tensors of these count, whatever it says of each. */
enum tri_status tri_safetensors_set_open(const char *dir, const char *name,
                                         struct tri_safetensors_set **set,
                                         struct tri_error *error) TRI_NODISCARD;
/* The files named, of folder dir, mapped; or their headers. A tensor in two of them is refused. */
enum tri_status tri_safetensors_set_open_files(const char *dir, int files, const char *const *names,
                                               bool mapped, struct tri_safetensors_set **set,
                                               struct tri_error *error) TRI_NODISCARD;
void tri_safetensors_set_close(struct tri_safetensors_set *set);
/* Index of a name in set->tensor, or -1. */
int64_t tri_safetensors_set_find(const struct tri_safetensors_set *set, const char *name);

/* ---- writing --------------------------------------------------------------------------------- */

struct tri_safetensors_spec {
    const char *name; /* borrowed until the writer is closed */
    enum tri_safetensors_dtype dtype;
    int dims;
    int64_t shape[TRI_SAFETENSORS_DIMS];
};

/* Sorts specs as below and returns what comes before the data: length and JSON, padded so that the
 * data begin at a multiple of 8. tri_free it. Pure. */
char *tri_safetensors_make_header(int64_t count, struct tri_safetensors_spec *specs, size_t *bytes);

struct tri_safetensors_writer;

/* Sorts specs into the order of the format's reference (widest type first, then name) and writes
 * the header; the data then follow in that order. The file appears under path only when it is
 * whole. */
enum tri_status tri_safetensors_writer_create(const char *path, int64_t count,
                                              struct tri_safetensors_spec *specs,
                                              struct tri_safetensors_writer **writer,
                                              struct tri_error *error) TRI_NODISCARD;
/* The next tensor, whole. */
enum tri_status tri_safetensors_writer_write(struct tri_safetensors_writer *writer,
                                             const void *data, size_t bytes,
                                             struct tri_error *error) TRI_NODISCARD;
/* Every tensor must have been written. Frees the writer, also on failure. */
enum tri_status tri_safetensors_writer_close(struct tri_safetensors_writer **writer,
                                             struct tri_error *error) TRI_NODISCARD;
/* Gives up; removes what was written. */
void tri_safetensors_writer_destroy(struct tri_safetensors_writer *writer);

#endif
