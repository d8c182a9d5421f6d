/* Files. Every read and write of Trident's own goes through here, so that a test can make any of
 * them fail (base/file_hook.h). */
#ifndef TRIDENT_BASE_FILE_H
#define TRIDENT_BASE_FILE_H

#include "base/status.h"

#include <stddef.h>
#include <stdint.h>

/* A whole file, read-only: mapped, or read where it cannot be. An empty file has size 0, and
 * data all the same. */
struct tri_mapping {
    const unsigned char *data;
    size_t size;
    uint64_t inode; /* of the file that is mapped */
    bool owned;     /* data is memory and no mapping */
};

/* Regular files only; a folder, pipe, socket or device is refused at once. A mapped file that is
 * cut short while it is used ends the job with one line. */
enum tri_status tri_file_map(const char *path, struct tri_mapping *mapping,
                             struct tri_error *error) TRI_NODISCARD;
/* The same for at most `most` bytes, of a pipe or a character device to its end too. */
enum tri_status tri_file_read(const char *path, size_t most, struct tri_mapping *mapping,
                              struct tri_error *error) TRI_NODISCARD;
/* Whether the file has become shorter than its mapping: what is missing of its last page reads as
 * zeros. */
bool tri_file_is_cut_short(const char *path, const struct tri_mapping *mapping);
void tri_file_unmap(struct tri_mapping *mapping);

/* A file being written under a temporary name, PATH with TRI_TEMPORARY (base/path.h) behind it;
 * tri_writer_close syncs it and renames it to PATH, so that PATH is whole or absent. A link at PATH
 * stays: the file that it leads to is replaced. What is there and no file is refused. Destroying it
 * unclosed removes the temporary. */
struct tri_writer;
enum tri_status tri_writer_create(const char *path, struct tri_writer **writer,
                                  struct tri_error *error) TRI_NODISCARD;
enum tri_status tri_writer_write(struct tri_writer *writer, const void *data, size_t bytes,
                                 struct tri_error *error) TRI_NODISCARD;
/* Puts other bytes in the place of some that were written: of a header that waits for a count. */
enum tri_status tri_writer_rewrite(struct tri_writer *writer, uint64_t offset, const void *data,
                                   size_t bytes, struct tri_error *error) TRI_NODISCARD;
enum tri_status tri_writer_close(struct tri_writer **writer, struct tri_error *error) TRI_NODISCARD;
void tri_writer_destroy(struct tri_writer *writer);

/* A file that several processes write or read, each its own parts of it. Created is what is not
 * there yet by whoever comes first, under the name itself: it is whole when all have closed theirs.
 * What the system has been told to write lies on the disk after close. Reading: regular files only,
 * and BAD_INPUT where the file ends before the part does. */
struct tri_part_file;
enum tri_status tri_part_file_create(const char *path, struct tri_part_file **file,
                                     struct tri_error *error) TRI_NODISCARD;
enum tri_status tri_part_file_write(struct tri_part_file *file, uint64_t offset, const void *data,
                                    size_t bytes, struct tri_error *error) TRI_NODISCARD;
enum tri_status tri_part_file_open(const char *path, struct tri_part_file **file,
                                   struct tri_error *error) TRI_NODISCARD;
enum tri_status tri_part_file_read(struct tri_part_file *file, uint64_t offset, void *data,
                                   size_t bytes, struct tri_error *error) TRI_NODISCARD;
/* A part that will be read soon: the system may begin. */
void tri_part_file_expect(const struct tri_part_file *file, uint64_t offset, size_t bytes);
/* As it was when it was opened. */
uint64_t tri_part_file_size(const struct tri_part_file *file);
/* Syncs what was written. Frees the file, also on failure. */
enum tri_status tri_part_file_close(struct tri_part_file **file,
                                    struct tri_error *error) TRI_NODISCARD;
/* Whether what all have written and closed is here: FAILED where they do not see the same folder.
 * The file is opened, for a network's file system may remember another size until then. */
enum tri_status tri_part_file_expect_size(const char *path, uint64_t bytes,
                                          struct tri_error *error) TRI_NODISCARD;
/* Takes NULL; what was written is no longer wanted. */
void tri_part_file_destroy(struct tri_part_file *file);

/* Writes a whole small file atomically. */
enum tri_status tri_file_save(const char *path, const void *data, size_t bytes,
                              struct tri_error *error) TRI_NODISCARD;
/* Appends with one write call. */
enum tri_status tri_file_append(const char *path, const void *data, size_t bytes,
                                struct tri_error *error) TRI_NODISCARD;
/* Appends a line (the newline is added) with one write call. */
enum tri_status tri_file_append_line(const char *path, const char *line,
                                     struct tri_error *error) TRI_NODISCARD;

/* Every folder of the path that is not there; each is synced into the one above. */
enum tri_status tri_file_make_dirs(const char *path, struct tri_error *error) TRI_NODISCARD;
enum tri_status tri_file_sync_dir(const char *path, struct tri_error *error) TRI_NODISCARD;
/* The folder that holds path's last part. */
enum tri_status tri_file_sync_parent(const char *path, struct tri_error *error) TRI_NODISCARD;
enum tri_status tri_file_rename(const char *from, const char *to,
                                struct tri_error *error) TRI_NODISCARD;
/* Removes a file or a folder with all that is in it; a path that does not exist is fine. */
enum tri_status tri_file_remove_tree(const char *path, struct tri_error *error) TRI_NODISCARD;
/* The same, but a link stays and what it leads to is emptied. */
enum tri_status tri_file_clear(const char *path, struct tri_error *error) TRI_NODISCARD;
/* Before long work: whether something new can be made at path. Leaves nothing there. */
enum tri_status tri_file_check_target(const char *path, struct tri_error *error) TRI_NODISCARD;

/* Calls visit with each name in the folder until it fails; a folder that is not there has none.
 * BAD_INPUT when not all can be read: whoever takes a part for the whole overlooks something. */
typedef enum tri_status tri_file_visit(const char *name, void *data);
enum tri_status tri_file_list(const char *folder, tri_file_visit *visit, void *data,
                              struct tri_error *error) TRI_NODISCARD;

/* An exclusive lock of an open file or folder, given back when it is closed; *code is the errno of
 * all but TAKEN. Where a system has no locks nothing is printed: the caller warns. */
enum tri_lock { TRI_LOCK_TAKEN, TRI_LOCK_BUSY, TRI_LOCK_UNSUPPORTED, TRI_LOCK_FAILED };
enum tri_lock tri_file_lock(int fd, const char *path, bool folder, int *code) TRI_NODISCARD;
/* Whether somebody holds it, without keeping anybody out: TAKEN, nobody; BUSY; else not known, as
 * where nothing is at path. */
enum tri_lock tri_file_look_locked(const char *path) TRI_NODISCARD;

/* Without opening it; BAD_INPUT when it is not there. */
enum tri_status tri_file_size(const char *path, uint64_t *bytes,
                              struct tri_error *error) TRI_NODISCARD;
bool tri_file_exists(const char *path);
/* Whether the folder has this name: also where it is a link that leads nowhere. */
bool tri_file_is_named(const char *path);
bool tri_file_is_dir(const char *path);
/* BAD_INPUT, with the system's reason, where it does not say what is at path, or not what a folder
 * there holds; of what is not there the caller knows better words. */
enum tri_status tri_file_check_access(const char *path, struct tri_error *error) TRI_NODISCARD;

#endif
