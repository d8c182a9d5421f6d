#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "cli/command.h"
#include "moe/strategies.h"
#include "train/calibrate.h"
#include "train/environment.h"

#include <stdio.h>
#include <stdlib.h>

struct request {
    int threads;
    char out[TRI_PATH_MAX];
};

static enum tri_status read_request(const struct tri_arguments *arguments, struct request *request,
                                    struct tri_error *error)
{
    enum { MOST = 4096 };
    int64_t threads;
    TRI_TRY(tri_arguments_int(arguments, "--threads", 1, MOST, 0, &threads, error));
    TRI_TRY(tri_arguments_path(arguments, "--out", request->out, error));
    request->threads = (int)threads;
    return tri_kernels_check(tri_environment_kernels(), error);
}

/* As a run without the key threads would have them, on the rank that has the fewest. */
static void choose_threads(const struct tri_arguments *arguments, struct request *request)
{
    struct tri_config *config = tri_alloc(TRI_MEMORY_OTHER, sizeof(*config));
    tri_config_init(&tri_strategies, config);
    config->threads = request->threads;
    double most = -(double)tri_environment_threads(config, arguments->comm);
    tri_free(config);
    tri_all_reduce_max(tri_mesh_group(arguments->everyone, TRI_ON_ALL),
                       (struct tri_where){TRI_PHASE_SETUP, TRI_KIND_META}, &most, 1, TRI_F64);
    request->threads = (int)-most;
}

static enum tri_status write_file(const char *path, const char *text, size_t length,
                                  struct tri_error *error)
{
    struct tri_writer *writer;
    TRI_TRY(tri_writer_create(path, &writer, error));
    enum tri_status status = tri_writer_write(writer, text, length, error);
    status = status == TRI_OK ? tri_writer_close(&writer, error) : status;
    tri_writer_destroy(writer);
    return status;
}

static enum tri_status report(const struct request *request, const struct tri_cluster *cluster,
                              const char *notes, struct tri_error *error)
{
    char *text = NULL;
    size_t length = 0;
    FILE *out = open_memstream(&text, &length);
    if (!out) {
        return tri_fail(error, TRI_FAILED, "out of memory for the cluster's text");
    }
    tri_cluster_print(cluster, notes, out);
    (void)fclose(out);
    enum tri_status status = TRI_OK;
    if (request->out[0]) {
        status = write_file(request->out, text, length, error);
        (void)printf("%s", notes);
    } else {
        (void)printf("%s", text);
    }
    free(text);
    return status;
}

enum tri_status tri_command_calibrate(const struct tri_arguments *arguments,
                                      struct tri_error *error)
{
    struct request request;
    struct tri_cluster cluster;
    char notes[TRI_CALIBRATION_NOTES];
    enum tri_status status = read_request(arguments, &request, error);
    status = tri_agree_everywhere(arguments, status, error);
    if (status != TRI_OK) {
        return status;
    }
    choose_threads(arguments, &request);
    TRI_TRY(tri_calibrate(arguments->comm, request.threads, &cluster, notes, error));
    if (tri_comm_rank(arguments->comm) == 0) {
        status = report(&request, &cluster, notes, error);
    }
    return tri_agree_everywhere(arguments, status, error);
}
