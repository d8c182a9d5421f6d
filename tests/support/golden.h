/* Reading the reference files of tests/data/golden. Anything missing fails the test. */
#ifndef TRIDENT_TESTS_SUPPORT_GOLDEN_H
#define TRIDENT_TESTS_SUPPORT_GOLDEN_H

#include "checkpoint/safetensors.h"

/* TESTDATA_DIR/golden/PATH. Close with tri_safetensors_close. */
struct tri_safetensors *golden_open(const char *path);

/* A whole tensor; its number of elements must be count, unless that is negative. Free with
 * tri_free. */
float *golden_read_f32(const struct tri_safetensors *file, const char *name, int64_t count);
int64_t *golden_read_i64(const struct tri_safetensors *file, const char *name, int64_t count);

/* One dimension of a tensor. */
int64_t golden_extent(const struct tri_safetensors *file, const char *name, int dim);

/* A number of the metadata; absent is a failure. "True" is 1, "False" 0. */
double golden_number(const struct tri_safetensors *file, const char *key);

#endif
