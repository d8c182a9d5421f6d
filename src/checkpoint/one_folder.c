#include "checkpoint/one_folder.h"

#include "base/file.h"
#include "base/path.h"
#include "base/random.h"

#include <inttypes.h>
#include <time.h>
#include <unistd.h>

enum { PATH_BYTES = 4096 };

/* The name of a file that only the folder which rank 0 has just made can have. */
static void mark_path(const char *folder, int64_t number, char path[PATH_BYTES])
{
    tri_path_make(path, PATH_BYTES, "%s/all-%016" PRIx64, folder, (uint64_t)number);
}

static enum tri_status make_mark(const char *folder, int64_t *number, struct tri_error *error)
{
    char path[PATH_BYTES];
    struct timespec now;
    (void)clock_gettime(CLOCK_REALTIME, &now);
    *number =
        (int64_t)tri_random_bits((uint64_t)now.tv_sec, (uint64_t)now.tv_nsec, (uint64_t)getpid());
    mark_path(folder, *number, path);
    return tri_file_save(path, "", 0, error);
}

static enum tri_status look_for_mark(const char *folder, int64_t number, int rank,
                                     struct tri_error *error)
{
    char path[PATH_BYTES], host[64] = "";
    mark_path(folder, number, path);
    if (tri_file_exists(path)) {
        return TRI_OK;
    }
    (void)gethostname(host, sizeof(host) - 1);
    return tri_fail(error, TRI_BAD_INPUT,
                    "%.600s: rank %d, on %s, does not see what rank 0 made there, and all ranks "
                    "write to it: it must be the same folder on all nodes",
                    folder, rank, host);
}

enum tri_status tri_one_folder_expect(struct tri_group *group, const char *path,
                                      struct tri_error *error)
{
    static const struct tri_where where = {TRI_PHASE_CHECKPOINT, TRI_KIND_META};
    char mark[PATH_BYTES];
    int64_t number = 0;
    int rank = tri_group_rank(group);
    if (tri_group_size(group) == 1) {
        return TRI_OK;
    }
    TRI_TRY(tri_comm_agree(group, rank == 0 ? make_mark(path, &number, error) : TRI_OK, error));
    tri_broadcast(group, where, &number, 1, TRI_I64, 0);
    TRI_TRY(tri_comm_agree(group, look_for_mark(path, number, rank, error), error));
    mark_path(path, number, mark);
    return tri_comm_agree(group, rank == 0 ? tri_file_remove_tree(mark, error) : TRI_OK, error);
}
