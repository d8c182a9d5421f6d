#include "train/run_folder.h"

#include "base/file.h"
#include "base/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

struct tri_run_folder {
    char path[TRI_PATH_MAX];
    int lock;
};

enum { MEMBER_PATH_MAX = TRI_PATH_MAX + 64 };

static void member(const struct tri_run_folder *folder, const char *name,
                   char path[MEMBER_PATH_MAX])
{
    (void)snprintf(path, MEMBER_PATH_MAX, "%s/%s", folder->path, name);
}

static enum tri_status take_lock(struct tri_run_folder *folder, struct tri_error *error)
{
    char path[MEMBER_PATH_MAX];
    member(folder, "lock", path);
    folder->lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (folder->lock < 0) {
        return tri_fail(error, TRI_FAILED, "%s: cannot open: %s", path, strerror(errno));
    }
    if (flock(folder->lock, LOCK_EX | LOCK_NB) != 0) {
        return tri_fail(error, TRI_FAILED, "%s: another job is working in this run folder",
                        folder->path);
    }
    return TRI_OK;
}

static enum tri_status remove_old(const struct tri_run_folder *folder, struct tri_error *error)
{
    static const char *const names[] = {"checkpoints", "metrics.jsonl", "config.yaml",
                                        "environment.json", "ledger.json"};
    for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
        char path[MEMBER_PATH_MAX];
        member(folder, names[i], path);
        TRI_TRY(tri_file_remove_tree(path, error));
    }
    return TRI_OK;
}

enum tri_status tri_run_folder_open(const char *path, bool fresh, struct tri_run_folder **folder,
                                    struct tri_error *error)
{
    *folder = NULL;
    TRI_TRY(tri_file_make_dirs(path, error));
    struct tri_run_folder *f = tri_alloc(TRI_MEMORY_OTHER, sizeof(*f));
    (void)snprintf(f->path, sizeof(f->path), "%s", path);
    enum tri_status status = take_lock(f, error);
    if (status == TRI_OK && fresh) {
        status = remove_old(f, error);
    }
    if (status != TRI_OK) {
        tri_run_folder_close(f);
        return status;
    }
    *folder = f;
    return TRI_OK;
}

void tri_run_folder_close(struct tri_run_folder *folder)
{
    if (!folder) {
        return;
    }
    if (folder->lock >= 0) {
        (void)close(folder->lock);
    }
    tri_free(folder);
}

enum tri_status tri_run_folder_describe(const struct tri_run_folder *folder,
                                        const struct tri_config *config, const char *environment,
                                        struct tri_error *error)
{
    char path[MEMBER_PATH_MAX];
    char *yaml = tri_config_to_yaml(config);
    member(folder, "config.yaml", path);
    enum tri_status status = tri_file_save(path, yaml, strlen(yaml), error);
    tri_free(yaml);
    TRI_TRY(status);
    member(folder, "environment.json", path);
    return tri_file_save(path, environment, strlen(environment), error);
}

/* Bytes of the whole lines up to and including those of `step`. */
static size_t kept_bytes(const char *text, size_t size, int64_t step)
{
    size_t kept = 0;
    while (kept < size) {
        const char *end = memchr(text + kept, '\n', size - kept);
        if (!end) {
            break;
        }
        json_t *line = json_loadb(text + kept, (size_t)(end - text) - kept, 0, NULL);
        json_t *number = json_object_get(line, "step");
        bool keep = json_is_integer(number) && json_integer_value(number) <= step;
        json_decref(line);
        if (!keep) {
            break;
        }
        kept = (size_t)(end - text) + 1;
    }
    return kept;
}

enum tri_status tri_run_folder_trim_metrics(const struct tri_run_folder *folder, int64_t step,
                                            struct tri_error *error)
{
    char path[MEMBER_PATH_MAX];
    struct tri_mapping mapping;
    member(folder, "metrics.jsonl", path);
    if (!tri_file_exists(path)) {
        return TRI_OK;
    }
    TRI_TRY(tri_file_map(path, &mapping, error));
    size_t kept = kept_bytes((const char *)mapping.data, mapping.size, step);
    enum tri_status status = TRI_OK;
    if (kept != mapping.size) {
        status = tri_file_save(path, mapping.data, kept, error);
    }
    tri_file_unmap(&mapping);
    return status;
}

enum tri_status tri_run_folder_add_metrics(const struct tri_run_folder *folder, const char *line,
                                           struct tri_error *error)
{
    char path[MEMBER_PATH_MAX];
    member(folder, "metrics.jsonl", path);
    return tri_file_append_line(path, line, error);
}

static json_t *ledger_rows(const struct tri_ledger *ledger, const struct tri_ledger *total)
{
    json_t *rows = json_array();
    for (int op = 0; op < TRI_OP_COUNT; op++) {
        for (int group = 0; group < TRI_GROUP_COUNT; group++) {
            for (int phase = 0; phase < TRI_PHASE_COUNT; phase++) {
                for (int kind = 0; kind < TRI_KIND_COUNT; kind++) {
                    const struct tri_ledger_cell *cell = &ledger->cell[op][group][phase][kind];
                    const struct tri_ledger_cell *all = &total->cell[op][group][phase][kind];
                    if (all->calls == 0) {
                        continue;
                    }
                    json_t *row = json_pack(
                        "{ss ss ss ss sI sI sI sf sf}", "operation", tri_op_name((enum tri_op)op),
                        "group", tri_group_id_name((enum tri_group_id)group), "phase",
                        tri_phase_name((enum tri_phase)phase), "kind",
                        tri_kind_name((enum tri_kind)kind), "calls", (json_int_t)cell->calls,
                        "bytes", (json_int_t)cell->bytes, "bytes_all_ranks", (json_int_t)all->bytes,
                        "seconds", cell->seconds, "seconds_exposed", cell->seconds_exposed);
                    (void)json_array_append_new(rows, row);
                }
            }
        }
    }
    return rows;
}

enum tri_status tri_run_folder_save_ledger(const struct tri_run_folder *folder,
                                           const struct tri_ledger *ledger,
                                           const struct tri_ledger *total, struct tri_error *error)
{
    char path[MEMBER_PATH_MAX];
    member(folder, "ledger.json", path);
    json_t *root =
        json_pack("{si so}", "rank", tri_comm_rank(), "collectives", ledger_rows(ledger, total));
    char *text = json_dumps(root, JSON_INDENT(1));
    json_decref(root);
    TRI_REQUIRE(text);
    enum tri_status status = tri_file_save(path, text, strlen(text), error);
    free(text);
    return status;
}
