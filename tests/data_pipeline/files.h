/* Token files made by hand, in a scratch folder of the test's own. */
#ifndef TRIDENT_TESTS_DATA_PIPELINE_FILES_H
#define TRIDENT_TESTS_DATA_PIPELINE_FILES_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include "base/status.h"

/* Makes the folder TEST_TMP/name anew and works in it from here on. */
void files_enter(const char *name);

void files_write(const char *path, const void *data, size_t bytes);
/* The bytes of a file; tri_free them. */
unsigned char *files_read(const char *path, size_t *bytes);

/* An llm.c shard of u16 tokens: `tokens[i] = first + i * step`. */
void files_write_shard(const char *path, int64_t count, int first, int step);

/* What lies beside a shard of `count` tokens: which count as targets; where documents begin. */
void files_write_mask(const char *path, int64_t count, bool (*counts)(int64_t place));
void files_write_documents(const char *path, int64_t count, const int64_t *places);

/* One line that holds each text of the list, which ends with NULL. */
void files_expect_line(const struct tri_error *error, ...);

#endif
