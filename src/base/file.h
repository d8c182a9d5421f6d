/* Files. Every read and write of Trident's own goes through here, so that a test can make any of
 * them fail (base/file_hook.h). */
#ifndef TRIDENT_BASE_FILE_H
#define TRIDENT_BASE_FILE_H

#include "base/status.h"

#include <stddef.h>
#include <stdint.h>

/* A whole file, mapped read-only. An empty file has data == NULL and size 0. */
struct tri_mapping {
    const unsigned char *data;
    size_t size;
};

enum tri_status tri_file_map(const char *path, struct tri_mapping *mapping,
                             struct tri_error *error) TRI_NODISCARD;
void tri_file_unmap(struct tri_mapping *mapping);

/* A file being written under a temporary name, "PATH.tmp"; tri_writer_close syncs it and renames it
 * to PATH, so that PATH is whole or absent. Destroying it unclosed removes the temporary. */
struct tri_writer;
enum tri_status tri_writer_create(const char *path, struct tri_writer **writer,
                                  struct tri_error *error) TRI_NODISCARD;
enum tri_status tri_writer_write(struct tri_writer *writer, const void *data, size_t bytes,
                                 struct tri_error *error) TRI_NODISCARD;
enum tri_status tri_writer_close(struct tri_writer **writer, struct tri_error *error) TRI_NODISCARD;
void tri_writer_destroy(struct tri_writer *writer);
/* XXH3-64 of all bytes written so far, and their number. */
uint64_t tri_writer_hash(const struct tri_writer *writer);
uint64_t tri_writer_bytes(const struct tri_writer *writer);

/* Writes a whole small file atomically. */
enum tri_status tri_file_save(const char *path, const void *data, size_t bytes,
                              struct tri_error *error) TRI_NODISCARD;
/* Appends a line (the newline is added) with one write call. */
enum tri_status tri_file_append_line(const char *path, const char *line,
                                     struct tri_error *error) TRI_NODISCARD;

enum tri_status tri_file_make_dirs(const char *path, struct tri_error *error) TRI_NODISCARD;
enum tri_status tri_file_sync_dir(const char *path, struct tri_error *error) TRI_NODISCARD;
enum tri_status tri_file_rename(const char *from, const char *to,
                                struct tri_error *error) TRI_NODISCARD;
/* Removes a file or a folder with all that is in it; a path that does not exist is fine. */
enum tri_status tri_file_remove_tree(const char *path, struct tri_error *error) TRI_NODISCARD;
bool tri_file_exists(const char *path);
bool tri_file_is_dir(const char *path);

#endif
