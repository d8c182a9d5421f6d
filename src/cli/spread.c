/* A model that is only moved, spread over the ranks there are as far as they divide it. */
#include "cli/spread.h"

#include "base/log.h"
#include "checkpoint/checkpoint.h"
#include "checkpoint/hf.h"
#include "plan/memory.h"

#include <inttypes.h>

/* Whether so many tensor and expert ranks, of `ranks`, can share the model. */
static bool fits(const struct tri_config *config, int ranks, int64_t tensor, int64_t expert)
{
    int64_t experts = config->moe.num_experts;
    return ranks % (tensor * expert) == 0 && config->model.num_heads % tensor == 0 &&
           (expert == 1 || (experts > 0 && experts % expert == 0));
}

static struct tri_config_parallel choose(const struct tri_config *config, int ranks)
{
    struct tri_config_parallel best = {1, 1, 1, {0}};
    for (int64_t tensor = 1; tensor <= ranks; tensor++) {
        for (int64_t expert = 1; tensor * expert <= ranks; expert++) {
            if (fits(config, ranks, tensor, expert) &&
                tensor * expert > best.tensor * best.expert) {
                best = (struct tri_config_parallel){tensor, expert, tensor, {0}};
            }
        }
    }
    return best;
}

static bool shares_all(const struct tri_config *config, int ranks)
{
    struct tri_config_parallel best = choose(config, ranks);
    return best.tensor * best.expert == ranks;
}

/* More ranks than can share the model hold it more than once: others would need less memory. */
static void note_copies(const struct tri_config *config, int ranks)
{
    int64_t copies = ranks / (config->parallel.tensor * config->parallel.expert);
    int fewer = ranks;
    while (!shares_all(config, fewer)) {
        fewer--; /* one rank has it all */
    }
    if (copies > 1) {
        tri_log_info("copies   %d ranks hold %" PRId64
                     " copies of the model; on %d it would be held once",
                     ranks, copies, fewer);
    }
}

static enum tri_status allocate(const char *command, struct tri_comm *comm,
                                struct tri_spread *spread, int64_t buffers, struct tri_error *error)
{
    int64_t weights = 0;
    for (int i = 0; i < TRI_BUFFERS; i++) {
        weights += spread->params->buffer[i].count * (int64_t)sizeof(float);
    }
    spread->planned = weights + buffers;
    spread->process = tri_memory_process_share();
    enum tri_status status =
        tri_memory_check_share(command, weights, buffers, tri_comm_local_size(comm), error);
    return tri_comm_agree(tri_mesh_group(spread->mesh, TRI_ON_ALL), status, error);
}

enum tri_status tri_spread_create(const char *command, struct tri_comm *comm,
                                  struct tri_config *config, struct tri_spread *spread,
                                  struct tri_error *error)
{
    *spread = (struct tri_spread){0};
    config->precision = TRI_PRECISION_F32;
    config->train.gradient_dtype = TRI_PRECISION_F32;
    config->reproducible = false;
    config->parallel = choose(config, tri_comm_size(comm));
    TRI_TRY(tri_mesh_create(comm, (int)config->parallel.tensor, 1, 1, (int)config->parallel.expert,
                            &spread->mesh, error));
    note_copies(config, tri_comm_size(comm));
    spread->params = tri_params_create(config, spread->mesh);
    /* One kind of folder is read and freed before the other is written. */
    int64_t buffers = tri_checkpoint_buffer_bytes(spread->params);
    buffers = buffers > TRI_HF_BUFFER_BYTES ? buffers : TRI_HF_BUFFER_BYTES;
    TRI_TRY(allocate(command, comm, spread, buffers, error));
    tri_params_allocate(spread->params, false);
    return TRI_OK;
}

void tri_spread_report(const struct tri_spread *spread)
{
    enum { PLANNED, COUNTED, PEAK, PROCESS, FIGURES };
    struct tri_memory_counters counters = tri_memory_get();
    double f[FIGURES] = {[PLANNED] = (double)spread->planned,
                         [PEAK] = (double)tri_memory_process_peak(),
                         [PROCESS] = (double)spread->process};
    for (int i = 0; i < TRI_MEMORY_COUNT; i++) {
        f[COUNTED] += (double)counters.peak[i];
    }
    tri_all_reduce_max(tri_mesh_group(spread->mesh, TRI_ON_ALL),
                       (struct tri_where){TRI_PHASE_SETUP, TRI_KIND_META}, f, FIGURES, TRI_F64);
    tri_log_info("memory   %.1f MB a rank planned, %.1f counted; the process took %.1f, of them "
                 "%.1f before the model (libraries, MPI)",
                 f[PLANNED] / 1e6, f[COUNTED] / 1e6, f[PEAK] / 1e6, f[PROCESS] / 1e6);
}

void tri_spread_destroy(struct tri_spread *spread)
{
    if (spread->params) {
        tri_params_destroy(spread->params);
    }
    tri_mesh_destroy(spread->mesh);
    *spread = (struct tri_spread){0};
}
