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
    char out[TRI_PATH_MAX], kernels[TRI_PATH_MAX];
    struct tri_cluster old; /* of the file kernels */
    bool quick, reproducible, json;
};

static enum tri_status read_request(const struct tri_arguments *arguments, struct request *request,
                                    struct tri_error *error)
{
    enum { MOST = 4096 };
    int64_t threads;
    TRI_TRY(tri_arguments_int(arguments, "--threads", 1, MOST, 0, &threads, error));
    TRI_TRY(tri_arguments_path(arguments, "--out", request->out, error));
    TRI_TRY(tri_arguments_path(arguments, "--kernels", request->kernels, error));
    if (request->kernels[0]) {
        TRI_TRY(tri_cluster_read(request->kernels, &request->old, error));
    }
    request->threads = (int)threads;
    request->quick = tri_arguments_has(arguments, "--quick");
    request->reproducible = tri_arguments_has(arguments, "--reproducible");
    request->json = tri_arguments_has(arguments, "--json");
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

/* Whether the file can be made: asked before the minute that measuring takes. */
static enum tri_status try_file(const char *path, struct tri_error *error)
{
    struct tri_writer *writer;
    TRI_TRY(tri_writer_create(path, &writer, error));
    tri_writer_destroy(writer);
    return TRI_OK;
}

/* ---- what is printed ------------------------------------------------------------------------- */

static void add(json_t *object, const char *key, double value)
{
    (void)json_object_set_new(object, key, tri_json_number(value));
}

/* The names and numbers of the file. */
static json_t *json_of_cluster(const struct tri_cluster *cluster)
{
    static const char *const names[TRI_LINK_COUNT] = {"inside", "between"};
    json_t *kernels = json_object();
    json_t *links = json_object();
    for (int set = 0; set < TRI_CLUSTER_KERNELS; set++) {
        if (!cluster->has_kernels[set]) {
            continue;
        }
        json_t *tasks = json_object();
        for (int task = 0; task < TRI_TASK_COUNT; task++) {
            json_t *one = json_object();
            add(one, "call", cluster->rate[set][task].call);
            add(one, "flops", cluster->rate[set][task].flops);
            add(one, "bytes", cluster->rate[set][task].bytes);
            (void)json_object_set_new(tasks, tri_task_name((enum tri_task)task), one);
        }
        (void)json_object_set_new(kernels, tri_cluster_kernels_name(set), tasks);
    }
    for (int link = 0; link < TRI_LINK_COUNT; link++) {
        json_t *ops = json_object();
        for (int op = 0; op < TRI_OP_COUNT && cluster->has_link[link]; op++) {
            json_t *one = json_object();
            add(one, "message", cluster->link[link][op].message);
            add(one, "bytes", cluster->link[link][op].bytes);
            add(one, "from", cluster->link[link][op].from);
            add(one, "large", cluster->link[link][op].large);
            (void)json_object_set_new(ops, tri_op_name((enum tri_op)op), one);
        }
        if (cluster->has_link[link]) {
            add(ops, "hidden", cluster->hidden[link]);
            (void)json_object_set(links, names[link], ops);
        }
        json_decref(ops);
    }
    return json_pack("{ss si sI so so}", "name", cluster->name, "ranks_per_host",
                     cluster->ranks_per_host, "memory_per_rank", (json_int_t)cluster->memory,
                     "kernels", kernels, "links", links);
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
    }
    if (status == TRI_OK && request->json) {
        tri_print_json(json_of_cluster(cluster));
    } else if (status == TRI_OK) {
        (void)printf("%s", request->out[0] ? notes : text);
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
    if (status == TRI_OK && request.out[0] && tri_comm_rank(arguments->comm) == 0) {
        status = try_file(request.out, error);
    }
    status = tri_agree_everywhere(arguments, status, error);
    if (status != TRI_OK) {
        return status;
    }
    choose_threads(arguments, &request);
    const struct tri_calibration calibration = {
        .threads = request.threads,
        .quick = request.quick,
        .reproducible = request.reproducible,
        .kernels = request.kernels[0] ? &request.old : NULL,
    };
    TRI_TRY(tri_calibrate(arguments->comm, &calibration, &cluster, notes, error));
    if (tri_comm_rank(arguments->comm) == 0) {
        status = report(&request, &cluster, notes, error);
    }
    return tri_agree_everywhere(arguments, status, error);
}
