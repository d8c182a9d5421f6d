/* Small JSON files, read whole; messages name the file and the key. */
#ifndef TRIDENT_BASE_JSON_H
#define TRIDENT_BASE_JSON_H

#include "base/status.h"

#include <jansson.h>
#include <stdint.h>

/* Why a text should not be parsed, found without building anything, or NULL: a tree of lists takes
 * 46 times its text. */
const char *tri_json_find_excess(const char *text, size_t bytes);
/* The root object of a file; json_decref it. BAD_INPUT for anything but one object. */
enum tri_status tri_json_load(const char *path, json_t **root,
                              struct tri_error *error) TRI_NODISCARD;

/* A key of object; absent and null are the same: value keeps what it held when required is false.
 * BAD_INPUT for another type. */
enum tri_status tri_json_get_int(const char *path, const json_t *object, const char *key,
                                 bool required, int64_t *value,
                                 struct tri_error *error) TRI_NODISCARD;
/* One that must be there and lie from least to most. */
enum tri_status tri_json_get_int_in(const char *path, const json_t *object, const char *key,
                                    int64_t least, int64_t most, int64_t *value,
                                    struct tri_error *error) TRI_NODISCARD;
enum tri_status tri_json_get_real(const char *path, const json_t *object, const char *key,
                                  bool required, double *value,
                                  struct tri_error *error) TRI_NODISCARD;
enum tri_status tri_json_get_bool(const char *path, const json_t *object, const char *key,
                                  bool required, bool *value,
                                  struct tri_error *error) TRI_NODISCARD;
/* Borrowed from object. */
enum tri_status tri_json_get_text(const char *path, const json_t *object, const char *key,
                                  bool required, const char **value,
                                  struct tri_error *error) TRI_NODISCARD;
/* An XXH3-64 as 16 hexadecimal digits. */
enum tri_status tri_json_get_hash(const char *path, const json_t *object, const char *key,
                                  uint64_t *value, struct tri_error *error) TRI_NODISCARD;

#endif
