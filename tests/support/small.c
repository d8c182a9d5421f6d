#include "support/small.h"

#include "base/memory.h"
#include "base/random.h"
#include "support/own_strategies.h"

#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char gpt_text[] =
    "model: {vocab_size: 61, num_layers: 2, hidden_size: 32, num_heads: 8, intermediate_size: 37,\n"
    "        norm: layernorm, position: learned, mlp: gelu, bias: all, tie_embeddings: true,\n"
    "        init_std: 0.15}\n"
    "moe: {num_experts: 8, top_k: 1, every: 2, intermediate_size: 29, normalize_top_k: false}\n"
    "data: {sequence_length: 12}\n"
    "train: {global_batch: 7, micro_batch: 2, steps: 50, learning_rate: 1e-3}\n";

static const char llama_text[] =
    "model: {vocab_size: 53, num_layers: 2, hidden_size: 32, num_heads: 8, num_kv_heads: 2,\n"
    "        intermediate_size: 43, norm: rmsnorm, position: rope, mlp: swiglu, init_std: 0.15}\n"
    "moe: {num_experts: 8, top_k: 2, intermediate_size: 19, shared_intermediate_size: 21,\n"
    "      shared_gate: true}\n"
    "data: {sequence_length: 12}\n"
    "train: {global_batch: 7, micro_batch: 2, steps: 50, learning_rate: 1e-3}\n";

enum { WORDS = 32 };

const struct tri_strategies *small_strategies = &own_strategies;

/* What GPT says of it is refused with a router that does not read it. */
static bool reads_normalize(const char *words)
{
    const char *router = strstr(words, "moe.router=");
    return !router || strstr(router, "=top_k") || strstr(router, "=balanced");
}

enum tri_status small_config_try(enum small_style style, const char *words,
                                 struct tri_config *config, struct tri_error *error)
{
    const char *text = style == SMALL_GPT ? gpt_text : llama_text;
    char *copy = tri_strdup(words);
    char normalize[] = "moe.normalize_top_k=true";
    char *word[WORDS];
    char *rest = NULL;
    int count = 0;
    if (style == SMALL_GPT && !reads_normalize(words)) {
        word[count++] = normalize;
    }
    for (char *w = strtok_r(copy, " ", &rest); w; w = strtok_r(NULL, " ", &rest)) {
        CHECK(count < WORDS);
        word[count++] = w;
    }
    enum tri_status status = tri_config_parse(small_strategies, "small.yaml", text, strlen(text),
                                              count, word, config, error);
    tri_free(copy);
    return status;
}

void small_config(enum small_style style, const char *words, struct tri_config *config)
{
    struct tri_error error;
    if (small_config_try(style, words, config, &error) != TRI_OK) {
        tri_panic(TRI_FAILED, "%s: %s", words, error.message);
    }
}

int small_layouts(int ranks, int experts, struct small_layout layouts[SMALL_LAYOUTS])
{
    int count = 0;
    for (int tensor = 1; tensor <= ranks; tensor++) {
        for (int expert = 1; tensor * expert <= ranks; expert++) {
            if (ranks % (tensor * expert) != 0 || experts % expert != 0) {
                continue;
            }
            layouts[count++] = (struct small_layout){tensor, expert, tensor, 1, 1};
            if (tensor > 1 && experts % (tensor * expert) == 0) {
                layouts[count++] = (struct small_layout){tensor, expert, 1, 1, 1};
            }
        }
    }
    CHECK(count <= SMALL_LAYOUTS);
    return count;
}

int small_grids(int ranks, int experts, struct small_layout layouts[SMALL_LAYOUTS])
{
    struct small_layout flat[SMALL_LAYOUTS];
    int flats = small_layouts(ranks, experts, flat);
    int count = 0;
    for (int i = 0; i < flats; i++) {
        for (int rest = 2; rest <= flat[i].tensor; rest++) {
            for (int cross = 1; cross <= rest; cross++) {
                if (flat[i].tensor % rest == 0 && rest % cross == 0) {
                    CHECK(count < SMALL_LAYOUTS);
                    layouts[count] = flat[i];
                    layouts[count].cross = cross;
                    layouts[count++].depth = rest / cross;
                }
            }
        }
    }
    return count;
}

void small_config_lay_out(struct tri_config *config, struct small_layout layout)
{
    config->parallel = (struct tri_config_parallel){
        layout.tensor,
        layout.expert,
        layout.expert_tensor,
        {layout.tensor / layout.cross / layout.depth, layout.cross, layout.depth},
    };
}

const char *small_layout_text(struct small_layout layout)
{
    static _Thread_local char text[128];
    int n = snprintf(text, sizeof(text), "tensor %d x expert %d x data %d, expert_tensor %d",
                     layout.tensor, layout.expert, job_size() / (layout.tensor * layout.expert),
                     layout.expert_tensor);
    if (layout.depth * layout.cross > 1) {
        (void)snprintf(text + n, sizeof(text) - (size_t)n, ", cross %d, depth %d", layout.cross,
                       layout.depth);
    }
    return text;
}

const struct tri_kernels *small_kernels(const struct tri_config *config)
{
    static _Thread_local struct tri_kernels *kept[2];
    struct tri_kernels **kernels = &kept[config->reproducible];
    if (!*kernels) {
        *kernels =
            tri_kernels_create(config->reproducible ? TRI_KERNELS_REPRODUCIBLE : TRI_KERNELS_FAST,
                               getenv("TRIDENT_KERNELS"), omp_get_max_threads());
    }
    return *kernels;
}

struct tri_mesh *small_mesh(const struct tri_config *config)
{
    struct tri_mesh *mesh = NULL;
    struct tri_error error;
    const struct tri_config_parallel *parallel = &config->parallel;
    CHECK(tri_mesh_create(job(), (int)tri_config_cut(parallel), (int)tri_config_cross(parallel),
                          (int)tri_config_depth(parallel), (int)parallel->expert, &mesh,
                          &error) == TRI_OK);
    tri_mesh_set_max_message(mesh, config->comm_max_message);
    tri_mesh_set_hosts(mesh, config->comm_ranks_per_host, NULL);
    return mesh;
}

/* ---- rows ------------------------------------------------------------------------------------ */

static enum tri_status fill_random(void *state, int64_t step, int64_t first_row, int64_t rows,
                                   const struct tri_row_arrays *out, struct tri_error *error)
{
    const struct tri_config *config = state;
    int64_t seq = config->data.sequence_length;
    uint64_t vocab = (uint64_t)config->model.vocab_size;
    (void)error;
    for (int64_t i = 0; i < rows * seq; i++) {
        uint64_t place = (uint64_t)((first_row + i / seq) * (seq + 1) + i % seq);
        out->tokens[i] = (int32_t)(tri_random_bits(3, (uint64_t)step, place) % vocab);
        out->targets[i] = (int32_t)(tri_random_bits(3, (uint64_t)step, place + 1) % vocab);
        out->first_key[i] = 0;
    }
    return TRI_OK;
}

static enum tri_status fill_repetitive(void *state, int64_t step, int64_t first_row, int64_t rows,
                                       const struct tri_row_arrays *out, struct tri_error *error)
{
    const struct tri_config *config = state;
    int64_t seq = config->data.sequence_length;
    int64_t vocab = config->model.vocab_size;
    (void)error;
    for (int64_t i = 0; i < rows * seq; i++) {
        int64_t place = step + 5 * (first_row + i / seq) + i % seq;
        out->tokens[i] = (int32_t)(place % 11 * 7 % vocab);
        out->targets[i] = (int32_t)((place + 1) % 11 * 7 % vocab);
        out->first_key[i] = 0;
    }
    return TRI_OK;
}

static struct tri_rows_source source(struct tri_config *config)
{
    int64_t rows = config->train.global_batch;
    int64_t seq = config->data.sequence_length;
    return (struct tri_rows_source){.state = config,
                                    .fill = fill_random,
                                    .rows = rows,
                                    .seq = seq,
                                    .counted_tokens = rows * seq,
                                    .tokens = rows * seq};
}

struct tri_rows_source small_source(struct tri_config *config)
{
    return source(config);
}

struct tri_rows_source small_source_repetitive(struct tri_config *config)
{
    struct tri_rows_source s = source(config);
    s.fill = fill_repetitive;
    return s;
}

/* ---- engines --------------------------------------------------------------------------------- */

struct tri_step_report small_gradients(struct tri_engine *engine,
                                       const struct tri_rows_source *rows, int64_t step,
                                       struct tri_route_tap *tap)
{
    struct tri_step_report report;
    struct tri_error error;
    CHECK(tri_engine_gradients(engine, rows, step, tap, &report, &error) == TRI_OK);
    CHECK(report.finite);
    return report;
}

void small_copy_weights(const struct tri_engine *from, struct tri_engine *to)
{
    const struct tri_where where = {TRI_PHASE_SETUP, TRI_KIND_META};
    for (int p = 0; p < to->params->count; p++) {
        const struct tri_param *param = &to->params->param[p];
        int64_t n = param->shape[0] * param->shape[1];
        float *whole = tri_alloc(TRI_MEMORY_OTHER, (size_t)n * sizeof(*whole));
        if (to->mesh->rank == 0) {
            tri_param_gather(from->params, &from->params->param[p], TRI_FIELD_WEIGHT, whole);
        }
        tri_broadcast(tri_mesh_group(to->mesh, TRI_ON_ALL), where, whole, n, TRI_F32, 0);
        tri_param_scatter(to->params, param, TRI_FIELD_WEIGHT, whole);
        tri_free(whole);
    }
}

double small_distance(const float *a, const float *b, int64_t n, double least)
{
    double distance = 0.0;
    double norm = 0.0;
    for (int64_t i = 0; i < n; i++) {
        double difference = (double)a[i] - (double)b[i];
        distance += difference * difference;
        norm += (double)b[i] * (double)b[i];
    }
    return distance == 0.0 ? 0.0 : sqrt(distance) / fmax(sqrt(norm), least);
}
