#include "plan/memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

/* What a rank takes for the program's text, libraries, MPI and oneDNN's scratch; measured. */
enum { PROCESS_BYTES = 96 << 20 };

/* Elements of the activation dtype (and of f32) that stay until the backward. */
struct volume {
    double elements, floats;
};

static void add_attention(const struct tri_config *config, const struct tri_mesh *mesh,
                          double tokens, struct volume *kept)
{
    const struct tri_config_model *model = &config->model;
    struct tri_range heads =
        tri_range_part(model->num_heads, mesh->size[TRI_AXIS_TENSOR], mesh->coord[TRI_AXIS_TENSOR]);
    double q = (double)tri_range_size(heads);
    double kv =
        (double)tri_range_size(tri_range_kv_heads(heads, model->num_heads / model->num_kv_heads));
    double dim = (double)model->head_dim;
    kept->elements += tokens * ((q + 2.0 * kv) * dim + q * dim);
    kept->floats += tokens * q;
    if (model->qk_norm != TRI_QK_NORM_NONE) {
        bool full = model->qk_norm == TRI_QK_NORM_FULL;
        kept->elements += tokens * (q + kv) * dim;
        kept->floats += tokens * (full ? 2.0 : q + kv);
    }
}

static void add_network(const struct tri_config *config, double rows, double inner,
                        struct volume *kept)
{
    kept->elements += rows * inner * (config->model.mlp == TRI_MLP_SWIGLU ? 3.0 : 2.0);
}

/* Rows that arrive at this rank's experts in one layer, with headroom and at worst. */
static double expert_rows(const struct tri_config *config, const struct tri_mesh *mesh,
                          double tokens, bool *split)
{
    double tensor = mesh->size[TRI_AXIS_TENSOR];
    *split = config->parallel.expert_tensor < mesh->size[TRI_AXIS_TENSOR];
    double sent = tokens * (double)config->moe.top_k / (*split ? tensor : 1.0);
    double homes = mesh->size[TRI_AXIS_EXPERT] * (*split ? tensor : 1.0);
    double headroom = config->moe.headroom;
    return homes == 1.0 ? sent : sent * (headroom < homes ? headroom : homes);
}

static void add_moe(const struct tri_config *config, const struct tri_mesh *mesh, double tokens,
                    struct volume *kept, double *exchanged)
{
    const struct tri_config_moe *moe = &config->moe;
    double hidden = (double)config->model.hidden_size;
    double experts = (double)moe->num_experts;
    double k = (double)moe->top_k;
    double tensor = mesh->size[TRI_AXIS_TENSOR];
    bool split;
    double rows = expert_rows(config, mesh, tokens, &split);
    double slots = tokens * k / (split ? tensor : 1.0);
    double inner = (double)moe->intermediate_size / (split ? 1.0 : tensor);
    kept->elements += rows * hidden + slots * hidden;
    add_network(config, rows, inner, kept);
    kept->floats += tokens * (2.0 * experts + 4.0 * k + 3.0) + rows * 2.0 + slots * 2.0;
    if (config->precision == TRI_PRECISION_BF16) {
        kept->floats += tokens * hidden;
    }
    if (moe->shared_intermediate_size) {
        kept->elements += tokens * hidden;
        kept->floats += tokens;
        add_network(config, tokens, (double)moe->shared_intermediate_size / tensor, kept);
    }
    *exchanged = (rows > slots ? rows : slots) * hidden;
}

static void plan_activations(const struct tri_config *config, const struct tri_params *params,
                             size_t width, struct tri_memory_plan *plan)
{
    const struct tri_config_model *model = &config->model;
    const struct tri_mesh *mesh = params->mesh;
    double tensor = mesh->size[TRI_AXIS_TENSOR];
    double tokens = (double)config->train.micro_batch * (double)config->data.sequence_length;
    double hidden = (double)model->hidden_size;
    struct volume kept = {.elements = 2.0 * tokens * hidden};
    double exchanged = 0.0;
    double widest = 0.0;
    for (int64_t layer = 0; layer < model->num_layers; layer++) {
        kept.elements += 6.0 * tokens * hidden;
        kept.floats += 4.0 * tokens;
        add_attention(config, mesh, tokens, &kept);
        double before = kept.elements;
        if (tri_config_layer_is_moe(config, layer)) {
            add_moe(config, mesh, tokens, &kept, &exchanged);
        } else {
            add_network(config, tokens, (double)model->intermediate_size / tensor, &kept);
        }
        widest = kept.elements - before > widest ? kept.elements - before : widest;
    }
    /* While one layer goes backward its temporaries stand beside all that is kept. */
    double logits = (double)(1 << 23) / tensor;
    double all = tokens * (double)model->vocab_size / tensor;
    kept.floats += (logits < all ? logits : all) * 1.5;
    kept.elements += 4.0 * tokens * hidden + widest;
    plan->bytes[TRI_MEMORY_ACTIVATIONS] =
        (int64_t)(kept.elements * (double)width + kept.floats * 4.0);
    bool alone = mesh->size[TRI_AXIS_EXPERT] * mesh->size[TRI_AXIS_TENSOR] == 1;
    plan->bytes[TRI_MEMORY_BUFFERS] = alone ? 0 : (int64_t)(2.0 * exchanged * (double)width);
}

struct tri_memory_plan tri_memory_plan(const struct tri_config *config,
                                       const struct tri_params *params, bool training)
{
    struct tri_memory_plan plan = {.process = PROCESS_BYTES};
    size_t width = config->precision == TRI_PRECISION_BF16 ? 2 : 4;
    for (int i = 0; i < TRI_BUFFERS; i++) {
        const struct tri_buffer *buffer = &params->buffer[i];
        int64_t shard = buffer->shard;
        plan.bytes[TRI_MEMORY_WEIGHTS] += buffer->count * (int64_t)tri_dtype_size(buffer->dtype);
        if (training) {
            plan.bytes[TRI_MEMORY_GRADIENTS] +=
                buffer->count * (int64_t)tri_dtype_size(buffer->gradient_dtype);
            plan.bytes[TRI_MEMORY_OPTIMIZER] += shard * (buffer->dtype == TRI_F32 ? 8 : 12);
            int ranks = tri_group_size(buffer->group);
            int64_t scratch = ranks > 1 ? shard * 4 * ranks : 0;
            int64_t *buffers = &plan.bytes[TRI_MEMORY_BUFFERS];
            *buffers = scratch > *buffers ? scratch : *buffers;
        }
    }
    int64_t reduction = plan.bytes[TRI_MEMORY_BUFFERS];
    plan_activations(config, params, width, &plan);
    plan.bytes[TRI_MEMORY_BUFFERS] += reduction;
    for (int i = 0; i < TRI_MEMORY_COUNT; i++) {
        plan.total += plan.bytes[i];
    }
    return plan;
}

/* ---- what there is ---------------------------------------------------------------------------- */

/* A number from a one-line file, or -1 ("max", no such file). */
static int64_t read_number(const char *path)
{
    char text[64] = "";
    FILE *file = fopen(path, "re");
    if (!file) {
        return -1;
    }
    bool read = fgets(text, sizeof(text), file) != NULL;
    (void)fclose(file);
    char *end;
    long long value = strtoll(text, &end, 10);
    return read && end != text ? value : -1;
}

static int64_t available_on_machine(void)
{
    char line[256];
    long long kilobytes = -1;
    FILE *file = fopen("/proc/meminfo", "re");
    while (file && fgets(line, sizeof(line), file)) {
        if (strncmp(line, "MemAvailable:", 13) == 0) {
            kilobytes = strtoll(line + 13, NULL, 10);
        }
    }
    if (file) {
        (void)fclose(file);
    }
    return kilobytes < 0 ? INT64_MAX : kilobytes * 1024;
}

/* Limit less use of one cgroup folder; INT64_MAX without a limit. */
static int64_t room_in(const char *folder, const char *limit_file, const char *use_file)
{
    char path[TRI_PATH_MAX + 96];
    (void)snprintf(path, sizeof(path), "%s/%s", folder, limit_file);
    int64_t limit = read_number(path);
    (void)snprintf(path, sizeof(path), "%s/%s", folder, use_file);
    int64_t used = read_number(path);
    return limit >= 0 && used >= 0 ? limit - used : INT64_MAX;
}

/* This process's place in the version-2 hierarchy ("0::/a/b"), or "". */
static void read_cgroup_path(char path[TRI_PATH_MAX])
{
    char line[TRI_PATH_MAX];
    FILE *file = fopen("/proc/self/cgroup", "re");
    path[0] = '\0';
    while (file && fgets(line, sizeof(line), file)) {
        if (strncmp(line, "0::", 3) == 0) {
            line[strcspn(line, "\n")] = '\0';
            (void)snprintf(path, TRI_PATH_MAX, "%s", line + 3);
        }
    }
    if (file) {
        (void)fclose(file);
    }
}

/* The least room of this process's memory cgroup and all above it; version 1: the root's view of it. */
static int64_t available_in_cgroup(void)
{
    char place[TRI_PATH_MAX];
    char folder[TRI_PATH_MAX + 32];
    int64_t room =
        room_in("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes");
    read_cgroup_path(place);
    for (;;) {
        (void)snprintf(folder, sizeof(folder), "/sys/fs/cgroup%s", place);
        int64_t here = room_in(folder, "memory.max", "memory.current");
        room = here < room ? here : room;
        char *slash = strrchr(place, '/');
        if (!slash) {
            return room;
        }
        *slash = '\0';
    }
}

int64_t tri_memory_available(int local_ranks)
{
    const char *override = getenv("TRIDENT_MEMORY_LIMIT");
    if (override) {
        return strtoll(override, NULL, 10);
    }
    int64_t machine = available_on_machine();
    int64_t cgroup = available_in_cgroup();
    int64_t share = (machine < cgroup ? machine : cgroup) / local_ranks;
    struct rlimit limit;
    if (getrlimit(RLIMIT_AS, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY &&
        (int64_t)limit.rlim_cur < share) {
        share = (int64_t)limit.rlim_cur;
    }
    return share;
}

enum tri_status tri_memory_check(const struct tri_memory_plan *plan, int local_ranks,
                                 struct tri_error *error)
{
    int64_t available = tri_memory_available(local_ranks);
    int64_t needed = plan->total + plan->process;
    if (needed <= available) {
        return TRI_OK;
    }
    return tri_fail(
        error, TRI_FAILED,
        "this run plans %.2f GB a rank (weights %.2f, gradients %.2f, optimizer %.2f, activations "
        "%.2f, buffers %.2f), but %.2f GB a rank is free with %d ranks on this node",
        (double)needed / 1e9, (double)plan->bytes[TRI_MEMORY_WEIGHTS] / 1e9,
        (double)plan->bytes[TRI_MEMORY_GRADIENTS] / 1e9,
        (double)plan->bytes[TRI_MEMORY_OPTIMIZER] / 1e9,
        (double)plan->bytes[TRI_MEMORY_ACTIVATIONS] / 1e9,
        (double)plan->bytes[TRI_MEMORY_BUFFERS] / 1e9, (double)available / 1e9, local_ranks);
}
