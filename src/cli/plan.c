#include "base/memory.h"
#include "cli/command.h"
#include "cli/plan_times.h"
#include "comm/comm.h"
#include "train/auto.h"
#include "train/environment.h"
#include "train/rehearsal.h"

#include <stdio.h>

enum { RANKS_MOST = 1 << 20 };

static const char *const load_names[TRI_LOAD_COUNT] = {"balanced", "headroom", "worst"};

struct request {
    struct tri_config config;
    int ranks;
    bool layouts, json, timed;
    struct tri_cluster cluster; /* when timed */
    char untimed[512];          /* why the config's own cluster says no time; "" */
    int64_t process;            /* of this process; a run measures its own */
    char chosen[TRI_AUTO_TEXT]; /* of what is left to the planner, on rank 0; "": nothing is */
};

/* A cluster that somebody asks is to answer. One that the config has for its run may lack what this
 * plan's times need: then it has none, unless something is left to them. */
static enum tri_status check_times(struct request *request, bool asked, struct tri_error *error)
{
    if (!request->timed) {
        return TRI_OK;
    }
    enum tri_status status =
        tri_cluster_check(&request->cluster, &request->config, request->ranks, error);
    if (status != TRI_OK && !asked && request->config.autos == 0) {
        (void)snprintf(request->untimed, sizeof(request->untimed), "%.500s", error->message);
        request->timed = false;
        return TRI_OK;
    }
    return status;
}

static enum tri_status read_request(const struct tri_arguments *arguments, struct request *request,
                                    struct tri_error *error)
{
    int64_t ranks;
    TRI_TRY(tri_arguments_int(arguments, "--ranks", 1, RANKS_MOST, 0, &ranks, error));
    request->layouts = tri_arguments_has(arguments, "--layouts");
    request->json = tri_arguments_has(arguments, "--json");
    TRI_TRY(tri_arguments_config(arguments, false, 0, &request->config, error));
    char *file = request->config.plan.cluster;
    bool asked = tri_arguments_has(arguments, "--cluster");
    if (asked) {
        TRI_TRY(tri_arguments_path(arguments, "--cluster", file, error));
    }
    request->timed = file[0] != '\0';
    if (request->timed) {
        TRI_TRY(tri_cluster_read(file, &request->cluster, error));
        request->config.comm_ranks_per_host = request->cluster.ranks_per_host;
    }
    int threads = request->config.threads > 0 ? (int)request->config.threads : 1;
    TRI_TRY(tri_kernels_check(tri_environment_kernels(), error));
    request->process = tri_memory_process_constant(threads);
    int64_t least = request->config.parallel.tensor * request->config.parallel.expert;
    if (ranks == 0) {
        ranks = tri_comm_size(arguments->comm) > 1 ? tri_comm_size(arguments->comm) : least;
    }
    if (ranks > RANKS_MOST) {
        return tri_config_refuse(&request->config, error, "parallel.expert",
                                 "with parallel.tensor %lld ranks, expected at most %d",
                                 (long long)ranks, RANKS_MOST);
    }
    request->ranks = (int)ranks;
    TRI_TRY(tri_params_check_frozen(&request->config, error));
    TRI_TRY(check_times(request, asked, error));
    return request->layouts ? TRI_OK : tri_config_check_layout(&request->config, (int)ranks, error);
}

/* ---- JSON ------------------------------------------------------------------------------------ */

static json_t *json_of_memory(const struct tri_memory_plan *memory)
{
    json_t *bytes = json_object();
    for (int i = 0; i < TRI_MEMORY_COUNT; i++) {
        if (i != TRI_MEMORY_KERNELS) {
            (void)json_object_set_new(bytes, tri_memory_name((enum tri_memory)i),
                                      json_integer(memory->bytes[i]));
        }
    }
    (void)json_object_set_new(bytes, "total", json_integer(memory->total));
    return bytes;
}

json_t *tri_json_of_layout(const struct tri_layout *layout)
{
    json_t *root = json_pack("{si si si si}", "tensor", layout->tensor, "expert", layout->expert,
                             "data", layout->data, "expert_tensor", layout->expert_tensor);
    if (layout->depth > 1) {
        (void)json_object_set_new(root, "depth", json_integer(layout->depth));
    }
    if (layout->cross > 1) {
        (void)json_object_set_new(root, "cross", json_integer(layout->cross));
    }
    return root;
}

json_t *tri_json_of_plan(const struct tri_layout_plan *plan)
{
    json_t *root = tri_json_of_layout(&plan->layout);
    json_t *sent = json_object();
    for (int group = 0; group < TRI_GROUP_COUNT; group++) {
        (void)json_object_set_new(sent, tri_groups[group].name, json_integer(plan->sent[group]));
    }
    (void)json_object_set_new(root, "rank", json_integer(plan->rank));
    (void)json_object_set_new(root, "scratch", json_integer(plan->memory.scratch));
    (void)json_object_set_new(root, "bytes", json_of_memory(&plan->memory));
    (void)json_object_set_new(root, "sent", sent);
    (void)json_object_set_new(root, "sent_between_hosts", json_integer(plan->sent_between));
    return root;
}

/* ---- one layout ------------------------------------------------------------------------------ */

static void add_untimed(json_t *root, const struct request *request)
{
    if (request->untimed[0]) {
        (void)json_object_set_new(root, "untimed", json_string(request->untimed));
    }
}

static void print_untimed(const struct request *request)
{
    if (request->untimed[0]) {
        (void)printf("no times: %s\n", request->untimed);
    }
}

static double megabytes(int64_t bytes)
{
    return (double)bytes / 1e6;
}

static void print_sent(const struct tri_layout_plan *plan)
{
    (void)printf("a step sends, MB:");
    for (int group = 0; group < TRI_GROUP_COUNT; group++) {
        if (plan->sent[group] > 0) {
            (void)printf("  %s %.3f", tri_groups[group].name, megabytes(plan->sent[group]));
        }
    }
    if (plan->sent_between > 0) {
        (void)printf("  of all-to-alls between hosts %.3f", megabytes(plan->sent_between));
    }
    (void)printf("\n");
}

static void print_one(const struct request *request, const struct tri_layout_plan *plan,
                      const struct tri_memory_plan loads[TRI_LOAD_COUNT])
{
    const struct tri_layout *layout = &plan->layout;
    (void)printf("%d rank%s = tensor %d", request->ranks, request->ranks == 1 ? "" : "s",
                 layout->tensor);
    if (layout->depth * layout->cross > 1) {
        (void)printf(" (grid %d x %d x %d)", layout->tensor / layout->cross / layout->depth,
                     layout->cross, layout->depth);
    }
    (void)printf(" x expert %d x data %d, expert_tensor %d; rank %d takes most\n", layout->expert,
                 layout->data, layout->expert_tensor, plan->rank);
    (void)printf("%-12s %12s %12s %12s   MB\n", "", load_names[TRI_LOAD_BALANCED],
                 load_names[TRI_LOAD_HEADROOM], load_names[TRI_LOAD_WORST]);
    for (int i = 0; i < TRI_MEMORY_COUNT; i++) {
        if (i != TRI_MEMORY_KERNELS && (i != TRI_MEMORY_TRACE || plan->memory.bytes[i] > 0)) {
            (void)printf("%-12s %12.3f %12.3f %12.3f\n", tri_memory_name((enum tri_memory)i),
                         megabytes(loads[TRI_LOAD_BALANCED].bytes[i]),
                         megabytes(loads[TRI_LOAD_HEADROOM].bytes[i]),
                         megabytes(loads[TRI_LOAD_WORST].bytes[i]));
        }
    }
    (void)printf("%-12s %12.3f %12.3f %12.3f\n", "total", megabytes(loads[TRI_LOAD_BALANCED].total),
                 megabytes(loads[TRI_LOAD_HEADROOM].total), megabytes(loads[TRI_LOAD_WORST].total));
    double process = megabytes(request->process + plan->memory.scratch);
    (void)printf("%-12s %12.3f %12.3f %12.3f   about: libraries, MPI, scratch\n", "process",
                 process, process, process);
    print_sent(plan);
}

static enum tri_status plan_one(const struct request *request, struct tri_error *error)
{
    const struct tri_config *config = &request->config;
    const struct tri_config_parallel *parallel = &config->parallel;
    struct tri_layout layout = {(int)parallel->tensor,
                                (int)parallel->expert,
                                request->ranks / (int)(parallel->tensor * parallel->expert),
                                (int)parallel->expert_tensor,
                                (int)tri_config_depth(parallel),
                                (int)tri_config_cross(parallel)};
    struct tri_layout_plan plan =
        request->timed
            ? tri_layout_plan_timed(config, layout, tri_rehearse_timed, &request->cluster)
            : tri_layout_plan(config, layout, tri_rehearse_layout);
    if (plan.refused) {
        return tri_fail(error, TRI_FAILED, "%s", plan.reason);
    }
    struct tri_memory_plan loads[TRI_LOAD_COUNT] = {plan.memory, plan.memory, plan.memory};
    for (int load = TRI_LOAD_HEADROOM; load < TRI_LOAD_COUNT && config->moe.num_experts; load++) {
        TRI_TRY(tri_rehearse_layout(config, layout, plan.rank, (enum tri_load)load, NULL,
                                    &loads[load], error));
    }
    if (!request->json) {
        tri_print_chosen(request->chosen);
        print_one(request, &plan, loads);
        if (request->timed) {
            tri_print_times(&request->cluster, &plan.time);
        }
        print_untimed(request);
        return TRI_OK;
    }
    json_t *root = tri_json_of_plan(&plan);
    (void)json_object_set_new(root, "ranks", json_integer(request->ranks));
    (void)json_object_set_new(root, "process",
                              json_integer(request->process + plan.memory.scratch));
    if (request->timed) {
        tri_json_add_times(root, &plan.time);
    }
    tri_json_add_chosen(root, request->chosen);
    add_untimed(root, request);
    for (int load = TRI_LOAD_HEADROOM; load < TRI_LOAD_COUNT; load++) {
        (void)json_object_set_new(root, load_names[load], json_of_memory(&loads[load]));
    }
    tri_print_json(root);
    return TRI_OK;
}

/* ---- all of them ----------------------------------------------------------------------------- */

static void print_line(const struct tri_layout_plan *plan)
{
    const struct tri_layout *layout = &plan->layout;
    const int64_t *bytes = plan->memory.bytes;
    int64_t over_experts = plan->sent[tri_group_id(TRI_ON_EXPERT)] +
                           plan->sent[tri_group_id(TRI_ON_GRID | TRI_ON_EXPERT)];
    int64_t over_replicas = plan->sent[tri_group_id(TRI_ON_DATA)] +
                            plan->sent[tri_group_id(TRI_ON_EXPERT | TRI_ON_DATA)] +
                            plan->sent[tri_group_id(TRI_ON_ALL)];
    (void)printf("%6d %6d %6d %4d %10.1f %10.1f %10.1f %10.1f %10.1f %8.1f %8.1f %8.1f %7.1f "
                 "%10.1f %10.1f %10.1f\n",
                 layout->tensor, layout->expert, layout->data, layout->expert_tensor,
                 megabytes(plan->memory.total), megabytes(bytes[TRI_MEMORY_WEIGHTS]),
                 megabytes(bytes[TRI_MEMORY_GRADIENTS]), megabytes(bytes[TRI_MEMORY_OPTIMIZER]),
                 megabytes(bytes[TRI_MEMORY_ACTIVATIONS]), megabytes(bytes[TRI_MEMORY_STASH]),
                 megabytes(bytes[TRI_MEMORY_BUFFERS]), megabytes(bytes[TRI_MEMORY_TILES]),
                 megabytes(bytes[TRI_MEMORY_OTHER] + bytes[TRI_MEMORY_TRACE]),
                 megabytes(plan->sent[tri_group_id(TRI_ON_TENSOR)]), megabytes(over_experts),
                 megabytes(over_replicas));
}

static void print_all(const struct request *request, const struct tri_layout_plan *plans, int count)
{
    (void)printf("%d rank%s; MB of the rank that takes most, with balanced routing; MB it sends a "
                 "step over\n",
                 request->ranks, request->ranks == 1 ? "" : "s");
    (void)printf("%6s %6s %6s %4s %10s %10s %10s %10s %10s %8s %8s %8s %7s %10s %10s %10s\n",
                 "tensor", "expert", "data", "etp", "total", "weights", "gradients", "optimizer",
                 "activat.", "stash", "buffers", "tiles", "other", "tensor", "experts", "replicas");
    for (int i = 0; i < count && !plans[i].refused; i++) {
        print_line(&plans[i]);
    }
    for (int i = 0; i < count; i++) {
        const struct tri_layout *layout = &plans[i].layout;
        if (plans[i].refused) {
            (void)printf("not tensor %d x expert %d x data %d, expert_tensor %d: %s\n",
                         layout->tensor, layout->expert, layout->data, layout->expert_tensor,
                         plans[i].reason);
        }
    }
}

static void plan_all(const struct request *request)
{
    int count;
    struct tri_layout_plan *plans =
        tri_layout_plans(&request->config, request->ranks, tri_rehearse_layout, &count);
    if (!request->json) {
        print_all(request, plans, count);
        print_untimed(request);
    } else {
        json_t *layouts = json_array();
        json_t *refused = json_array();
        for (int i = 0; i < count; i++) {
            if (plans[i].refused) {
                json_t *one = tri_json_of_layout(&plans[i].layout);
                (void)json_object_set_new(one, "reason", json_string(plans[i].reason));
                (void)json_array_append_new(refused, one);
            } else {
                (void)json_array_append_new(layouts, tri_json_of_plan(&plans[i]));
            }
        }
        json_t *root =
            json_pack("{si sI so so}", "ranks", request->ranks, "process",
                      (json_int_t)request->process, "layouts", layouts, "refused", refused);
        add_untimed(root, request);
        tri_print_json(root);
    }
    tri_free(plans);
}

/* What is left to the planner; of all layouts that is only said, and without times a layout left to
 * it is any of them. Collective. */
static enum tri_status choose(const struct tri_arguments *arguments, struct request *request,
                              struct tri_error *error)
{
    if (request->layouts && !request->timed && request->config.autos == TRI_AUTO_LAYOUT) {
        return TRI_OK;
    }
    struct tri_config *config = tri_alloc(TRI_MEMORY_OTHER, sizeof(*config));
    *config = request->config;
    enum tri_status status = tri_auto_choose(tri_mesh_group(arguments->everyone, TRI_ON_ALL),
                                             request->ranks, config, request->chosen, error);
    if (!request->layouts) {
        request->config = *config;
    }
    tri_free(config);
    return status;
}

enum tri_status tri_command_plan(const struct tri_arguments *arguments, struct tri_error *error)
{
    struct request *request = tri_alloc(TRI_MEMORY_OTHER, sizeof(*request));
    enum tri_status status = read_request(arguments, request, error);
    status = tri_agree_on_config(arguments, status, &request->config, error);
    if (status == TRI_OK) {
        status = choose(arguments, request, error);
    }
    if (status == TRI_OK && tri_comm_rank(arguments->comm) == 0) {
        if (request->layouts && request->timed) {
            tri_print_ways(&request->config, request->ranks, &request->cluster, request->process,
                           request->chosen, request->json);
        } else if (request->layouts) {
            plan_all(request);
        } else {
            status = plan_one(request, error);
        }
    }
    tri_free(request);
    return tri_agree_everywhere(arguments, status, error);
}
