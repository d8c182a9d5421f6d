/* Small models that have everything in them, and the layouts that a number of ranks can take. Made
 * for tests on several ranks: what fails ends the job, since the others would wait. */
#ifndef TRIDENT_TESTS_SUPPORT_SMALL_H
#define TRIDENT_TESTS_SUPPORT_SMALL_H

#include "config/config.h"
#include "support/job.h"
#include "train/engine.h"

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            tri_panic(TRI_FAILED, "%s:%d: not true: %s", __FILE__, __LINE__, #condition);          \
        }                                                                                          \
    } while (0)

/* GPT: layernorm, gelu, learned positions, biases everywhere, tied embeddings, every second layer
 * MoE, top 1. LLAMA: rmsnorm, swiglu, rope, 2 KV heads of 8, a gated shared expert, every layer
 * MoE, top 2. Both: hidden size 32, 8 experts, rows of 12 tokens, global batch 7, micro-batch 2;
 * vocabulary and inner sizes are odd. */
enum small_style { SMALL_GPT, SMALL_LLAMA };

/* What configs are read with; own_strategies at first. */
extern const struct tri_strategies *small_strategies;

/* The config of a style with "key=value" words, separated by spaces, on top. */
void small_config(enum small_style style, const char *words, struct tri_config *config);
/* The same of words that may be wrong. */
enum tri_status small_config_try(enum small_style style, const char *words,
                                 struct tri_config *config, struct tri_error *error);

struct small_layout {
    int tensor, expert, expert_tensor;
    int depth, cross; /* of the tensor ranks; 1 where nothing says otherwise */
};
enum { SMALL_LAYOUTS = 64 };
/* Every layout of `ranks` ranks and `experts` experts: tensor x expert x data in all ways, and with
 * tensor > 1 both expert_tensor = tensor and 1. Returns how many. */
int small_layouts(int ranks, int experts, struct small_layout layouts[SMALL_LAYOUTS]);
/* The same of those whose tensor ranks are a grid: depth or cross above 1, each that there is. */
int small_grids(int ranks, int experts, struct small_layout layouts[SMALL_LAYOUTS]);
void small_config_lay_out(struct tri_config *config, struct small_layout layout);
/* "tensor 2 x expert 2 x data 1, expert_tensor 1" */
const char *small_layout_text(struct small_layout layout);

/* Kernels for the config, on the path of TRIDENT_KERNELS, with OMP_NUM_THREADS threads: made once
 * for a thread, and kept. */
const struct tri_kernels *small_kernels(const struct tri_config *config);

struct tri_mesh *small_mesh(const struct tri_config *config);

/* Random tokens, the same for the same (seed, step, row); all targets count. config is borrowed. */
struct tri_rows_source small_source(struct tri_config *config);
/* The same few tokens over and over, so that a model learns them. */
struct tri_rows_source small_source_repetitive(struct tri_config *config);

/* Gradients of a step; the tap may be NULL. */
struct tri_step_report small_gradients(struct tri_engine *engine,
                                       const struct tri_rows_source *rows, int64_t step,
                                       struct tri_route_tap *tap);

/* Copies every weight of `from`, an engine of this rank alone on rank 0 (ignored elsewhere), into
 * `to`. Collective over to's mesh. */
void small_copy_weights(const struct tri_engine *from, struct tri_engine *to);

/* |a - b| / |b| over n numbers, with |b| taken as at least `least`; 0 when they are equal. */
double small_distance(const float *a, const float *b, int64_t n, double least);

#endif
