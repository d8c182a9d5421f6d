/* Kernels, timed where a plan wants to know them: in steps of small models, which each rank trains
 * by itself while the others do the same. So operands lie where they lie in a step, in a cache or
 * not, and ranks that share memory or cores share them here too. What a call is booked as is asked
 * of the dry kernels: what a rate is fitted to is what it is multiplied with. */
#include "base/clock.h"
#include "base/memory.h"
#include "base/meter.h"
#include "moe/strategies.h"
#include "train/calibrate_internal.h"
#include "train/engine.h"
#include "train/evaluate.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { WARM = 1, STEPS = 2, KEYS_MOST = 1024, TIMES_MOST = 64 };

static const struct tri_where meta = {TRI_PHASE_SETUP, TRI_KIND_META};

/* Between them every kind of work, narrow and wide, with few experts and many; widths are powers of
 * two, as most models have them, and what that does to caches counts. Each is trained on one or two
 * thousand tokens at once, and on two micro-batches of one row. */
static const struct model {
    const char *name, *yaml;
    bool quick; /* there is time for it in any case */
} models[] = {
    {"gelu",
     "model: {vocab_size: 1024, num_layers: 2, hidden_size: 1024, num_heads: 16, norm: layernorm,\n"
     "        intermediate_size: 4096, position: learned, mlp: gelu, bias: all}\n"
     "moe: {num_experts: 4, top_k: 1, every: 2, normalize_top_k: false}\n"
     "data: {sequence_length: 256}\n"
     "train: {global_batch: 4, schedule: constant}\n",
     false},
    {"gated",
     "model: {vocab_size: 4096, num_layers: 2, hidden_size: 512, num_heads: 8,\n"
     "        intermediate_size: 384, qk_norm: full}\n"
     "moe: {num_experts: 64, top_k: 6}\n"
     "data: {sequence_length: 512}\n"
     "train: {global_batch: 4, schedule: constant}\n",
     false},
    {"narrow",
     "model: {vocab_size: 512, num_layers: 2, hidden_size: 256, num_heads: 4, mlp: gelu,\n"
     "        intermediate_size: 1024}\n"
     "moe: {num_experts: 8, top_k: 2}\n"
     "data: {sequence_length: 256}\n"
     "train: {global_batch: 8, schedule: constant}\n",
     false},
    {"tiny",
     "model: {vocab_size: 64, num_layers: 2, hidden_size: 32, num_heads: 2, mlp: gelu,\n"
     "        intermediate_size: 64, bias: all}\n"
     "moe: {num_experts: 4, top_k: 2}\n"
     "data: {sequence_length: 32}\n"
     "train: {global_batch: 2, schedule: constant}\n",
     true},
    {"tiny gated",
     "model: {vocab_size: 64, num_layers: 2, hidden_size: 32, num_heads: 2, intermediate_size: "
     "64}\n"
     "moe: {num_experts: 4, top_k: 2}\n"
     "data: {sequence_length: 32}\n"
     "train: {global_batch: 2, schedule: constant}\n",
     true},
};
enum { MODELS = sizeof(models) / sizeof(*models) };

/* ---- what was heard -------------------------------------------------------------------------- */

/* Calls that are alike. */
struct key {
    struct tri_kernel_note note; /* seconds: of all the calls */
    int64_t count;
    double times[TIMES_MOST]; /* that the first had of a processor */
};

struct record {
    struct key *keys; /* [KEYS_MOST] */
    int count;
    bool hears;
};

static bool is_alike(const struct tri_kernel_note *a, const struct tri_kernel_note *b)
{
    return a->work == b->work && a->dtype == b->dtype && a->calls == b->calls &&
           a->flops == b->flops && a->bytes == b->bytes;
}

static void hear(void *state, const struct tri_kernel_note *note)
{
    struct record *record = state;
    int i = 0;
    if (!record->hears) {
        return;
    }
    while (i < record->count && !is_alike(&record->keys[i].note, note)) {
        i++;
    }
    if (i == KEYS_MOST) {
        return;
    }
    struct key *key = &record->keys[i];
    if (i == record->count) {
        record->count++;
        *key = (struct key){.note = *note};
        key->note.seconds = 0.0;
    }
    if (key->count < TIMES_MOST) {
        key->times[key->count] = note->busy;
    }
    key->count++;
    key->note.seconds += note->seconds;
}

static void ignore_head(void *state, bool begins)
{
    (void)state;
    (void)begins;
}

/* ---- steps ----------------------------------------------------------------------------------- */

static void meet(const struct tri_calibrator *calibrator)
{
    double nothing = 0.0;
    tri_all_reduce_max(tri_mesh_group(calibrator->mesh, TRI_ON_ALL), meta, &nothing, 1, TRI_F64);
}

static void train(const struct tri_calibrator *calibrator, struct tri_engine *engine,
                  const struct tri_config *config, int warm, struct record *record)
{
    const struct tri_rows_source source = tri_source_random(config);
    int steps = warm + (tri_calibrate_hurries(calibrator) ? 1 : STEPS);
    for (int i = 0; i < steps; i++) {
        struct tri_step_report report;
        struct tri_error error;
        meet(calibrator);
        record->hears = i >= warm;
        TRI_REQUIRE(tri_engine_gradients(engine, &source, i, NULL, &report, &error) == TRI_OK);
        tri_engine_update(engine, i + 1, 1e-4, &report);
        record->hears = false;
        tri_meter_add(TRI_METER_STEPS, 1);
    }
}

/* words: precision, and whether it is reproducible. */
static void train_model(const struct tri_calibrator *calibrator, const struct model *model,
                        char *const words[2], const struct tri_kernels *timed,
                        struct record *record)
{
    struct tri_config *config = tri_alloc(TRI_MEMORY_OTHER, sizeof(*config));
    struct tri_mesh *mesh = tri_mesh_create_serial();
    struct tri_error error;
    TRI_REQUIRE(tri_config_parse(&tri_strategies, model->name, model->yaml, strlen(model->yaml), 2,
                                 words, config, &error) == TRI_OK);
    struct tri_engine *engine = tri_engine_create(config, mesh, timed, true);
    train(calibrator, engine, config, calibrator->quick ? 0 : WARM, record);
    /* Of the same engine, which has room for more. */
    config->train.global_batch = 2;
    config->train.micro_batch = 1;
    train(calibrator, engine, config, 0, record);
    tri_engine_destroy(engine);
    tri_mesh_destroy(mesh);
    tri_free(config);
}

/* ---- rates ----------------------------------------------------------------------------------- */

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(struct key *key)
{
    int64_t count = key->count < TIMES_MOST ? key->count : TIMES_MOST;
    qsort(key->times, (size_t)count, sizeof(*key->times), compare);
    return 0.5 * (key->times[(count - 1) / 2] + key->times[count / 2]);
}

/* Ranks that share a processor, and others on the machine, stop some calls for long and most not at
 * all, and in a step any of them alike. So a kind's time is its processor's, and this is how much
 * longer than that all calls together take. */
static double interruption(const struct record *record)
{
    double all = 0.0;
    double usual = 0.0;
    for (int i = 0; i < record->count; i++) {
        struct key *key = &record->keys[i];
        all += key->note.seconds;
        usual += (double)key->count * median(key);
    }
    return usual > 0.0 && all > usual ? all / usual : 1.0;
}

/* first: of the cluster's kinds of kernels, that which f32 is. */
static void fit(struct tri_calibrator *calibrator, int first, const struct record *record)
{
    struct tri_cluster *cluster = calibrator->cluster;
    struct tri_sample *samples = tri_alloc(TRI_MEMORY_OTHER, KEYS_MOST * sizeof(*samples));
    struct tri_group *world = tri_mesh_group(calibrator->mesh, TRI_ON_ALL);
    double stretch = interruption(record);
    double mean = stretch / (double)tri_group_size(world);
    tri_all_reduce_sum(world, meta, &mean, 1, TRI_F64);
    tri_calibrate_note(calibrator, "  calls take %.2f times their processor time\n", mean);
    for (int dtype = TRI_CLUSTER_F32; dtype <= TRI_CLUSTER_BF16; dtype++) {
        int kernels = first + dtype;
        for (int work = 0; work < TRI_TASK_COUNT; work++) {
            int count = 0;
            char name[64];
            for (int i = 0; i < record->count; i++) {
                struct key *key = &record->keys[i];
                const struct tri_kernel_note *note = &key->note;
                if ((int)note->work == work && (note->dtype == TRI_BF16) == (dtype != 0)) {
                    double seconds = stretch * median(key);
                    samples[count++] = (struct tri_sample){
                        .seconds = seconds,
                        .amount = {note->calls, note->flops, note->bytes},
                        .weight = seconds * (double)key->count,
                    };
                }
            }
            (void)snprintf(name, sizeof(name), "%s.%s", tri_cluster_kernels_name(kernels),
                           tri_task_name((enum tri_task)work));
            double costs[TRI_FIT_UNKNOWNS];
            struct tri_rate *rate = &cluster->rate[kernels][work];
            if (tri_samples_fit(calibrator, name, samples, count, costs)) {
                *rate = (struct tri_rate){costs[0], costs[1] > 0.0 ? 1.0 / costs[1] : 0.0,
                                          costs[2] > 0.0 ? 1.0 / costs[2] : 0.0};
            } else {
                *rate = cluster->rate[first][work];
            }
        }
        cluster->has_kernels[kernels] = true;
    }
    tri_free(samples);
}

void tri_calibrate_kernels(struct tri_calibrator *calibrator, const struct tri_kernels *kernels,
                           bool reproducible)
{
    char precisions[][16] = {"precision=f32", "precision=bf16"};
    char kind[2][32] = {"reproducible=false", "reproducible=true"};
    struct record record = {.keys = tri_alloc(TRI_MEMORY_OTHER, KEYS_MOST * sizeof(*record.keys))};
    const struct tri_kernel_listener listener = {hear, ignore_head, &record};
    struct tri_kernels *timed = tri_kernels_create_timed(kernels, &listener);
    int64_t count = 0;
    for (size_t i = 0; i < MODELS; i++) {
        count += models[i].quick == calibrator->quick ? TRI_CLUSTER_BF16 + 1 : 0;
    }
    tri_meter_begin(TRI_METER_STEPS, count * (calibrator->quick ? 2 : WARM + 2 * STEPS),
                    "timing kernels");
    for (size_t i = 0; i < MODELS; i++) {
        for (int precision = TRI_CLUSTER_F32; precision <= TRI_CLUSTER_BF16; precision++) {
            char *const words[] = {precisions[precision], kind[reproducible]};
            if (models[i].quick == calibrator->quick) {
                train_model(calibrator, &models[i], words, timed, &record);
            }
        }
    }
    tri_meter_end();
    fit(calibrator, reproducible ? TRI_CLUSTER_REPRODUCIBLE : TRI_CLUSTER_F32, &record);
    tri_kernels_destroy(timed);
    tri_free(record.keys);
}
