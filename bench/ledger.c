/* ledger [key=value …], on 16 ranks: what one training step sends, beside the closed formulas, for
 * every T = tensor and E = expert of 1, 2 and 4 (data takes the rest). Exits 1 when they differ.
 *
 * The model is one MoE block between embedding and head, so what is booked for attention and MoE is
 * one MoE layer's. Bytes are summed over all ranks, for then they do not depend on who holds how
 * many tokens: with S tokens of H numbers of w bytes, k choices each, X of the S k choices at
 * experts of another expert rank, and for each pass (forward, recompute, backward):
 *
 *   all-reduce      T S H w for attention, and T k S H w for the experts
 *   all-to-all      2 T X H w
 * and where tensor ranks drop each other's duplicates:
 *   all-reduce      T S H w
 *   all-to-all      2 X H w
 *   reduce-scatter  T k S H w, in the place of the experts' all-reduce
 *   all-gather      k S H w before the experts, and S H w after the combine (not in a recompute)
 *
 * Groups of one rank send nothing; with one expert rank there are no duplicates to drop; a
 * recompute with stashed results sends nothing. */
#include "base/log.h"
#include "base/memory.h"
#include "cli/command.h"
#include "moe/strategies.h"
#include "shard/rows.h"
#include "train/environment.h"
#include "train/evaluate.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { RANKS = 16, DEGREES = 3, LAYOUTS = DEGREES * DEGREES, VARIANTS = 4, PASSES = 3, FIXED = 4 };

static const char model[] =
    "model: {vocab_size: 96, num_layers: 1, hidden_size: 64, num_heads: 4}\n"
    "moe: {num_experts: 8, top_k: 2}\n"
    "data: {sequence_length: 50}\n"
    "train: {global_batch: 21, recompute: full}\n"
    "comm: {overlap: false}\n"
    "threads: 1\n";

static const enum tri_phase passes[PASSES] = {TRI_PHASE_FORWARD, TRI_PHASE_RECOMPUTE,
                                              TRI_PHASE_BACKWARD};

struct result {
    int tensor, expert;
    bool aware, dropping; /* checkpointing, duplicate tokens */
    int64_t w, hidden, tokens, k;
    int64_t elsewhere;        /* X */
    struct tri_ledger ledger; /* calls of rank 0, bytes of all ranks */
};

/* ---- a step ---------------------------------------------------------------------------------- */

static struct tri_comm *job;

static int64_t count_elsewhere(const struct tri_config *config, const struct tri_mesh *mesh,
                               const int32_t *chosen)
{
    int64_t per_rank = config->moe.num_experts / mesh->size[TRI_AXIS_EXPERT];
    int64_t row = config->data.sequence_length * config->moe.top_k;
    struct tri_range rows =
        tri_rows_share(config->train.global_batch,
                       tri_group_size(tri_mesh_group(mesh, TRI_ON_EXPERT | TRI_ON_DATA)),
                       tri_group_rank(tri_mesh_group(mesh, TRI_ON_EXPERT | TRI_ON_DATA)));
    int64_t count = 0;
    for (int64_t i = rows.begin * row; i < rows.end * row; i++) {
        count += chosen[i] / per_rank != mesh->coord[TRI_AXIS_EXPERT];
    }
    tri_all_reduce_sum(tri_mesh_group(mesh, TRI_ON_EXPERT | TRI_ON_DATA),
                       (struct tri_where){TRI_PHASE_SETUP, TRI_KIND_META}, &count, 1, TRI_I64);
    return count;
}

/* The ledger's bytes become sums over all ranks; only rank 0's are used. */
static void sum_bytes(const struct tri_mesh *mesh, struct tri_ledger *ledger)
{
    struct tri_ledger_cell *cells = &ledger->cell[0][0][0][0];
    for (size_t i = 0; i < sizeof(ledger->cell) / sizeof(*cells); i++) {
        tri_all_reduce_sum(tri_mesh_group(mesh, TRI_ON_ALL),
                           (struct tri_where){TRI_PHASE_SETUP, TRI_KIND_META}, &cells[i].bytes, 1,
                           TRI_I64);
    }
}

static enum tri_status step(const struct tri_config *config, struct result *result,
                            struct tri_error *error)
{
    struct tri_mesh *mesh;
    struct tri_step_report report;
    TRI_TRY(tri_config_check_layout(config, tri_comm_size(job), error));
    TRI_TRY(tri_mesh_create(job, result->tensor, 1, 1, result->expert, &mesh, error));
    struct tri_kernels *kernels =
        tri_kernels_create(TRI_KERNELS_FAST, tri_environment_kernels(), 1);
    struct tri_engine *engine = tri_engine_create(config, mesh, kernels, true);
    struct tri_rows_source source = tri_source_random(config);
    struct tri_route_tap tap = {.tokens = source.rows * source.seq, .k = config->moe.top_k};
    tap.chosen = tri_alloc(TRI_MEMORY_OTHER, (size_t)(tap.tokens * tap.k) * sizeof(*tap.chosen));
    tri_ledger_reset(mesh->ledger);
    enum tri_status status = tri_engine_gradients(engine, &source, 0, &tap, &report, error);
    if (status == TRI_OK) {
        tri_engine_update(engine, 1, config->train.learning_rate, &report);
        result->ledger = *mesh->ledger;
        sum_bytes(mesh, &result->ledger);
        result->elsewhere = count_elsewhere(config, mesh, tap.chosen);
    }
    tri_free(tap.chosen);
    tri_engine_destroy(engine);
    tri_kernels_destroy(kernels);
    tri_mesh_destroy(mesh);
    return status;
}

static enum tri_status measure(const struct tri_arguments *arguments, struct result *result,
                               struct tri_error *error)
{
    char words[FIXED][80];
    (void)snprintf(words[0], sizeof(words[0]), "parallel.tensor=%d", result->tensor);
    (void)snprintf(words[1], sizeof(words[1]), "parallel.expert=%d", result->expert);
    (void)snprintf(words[2], sizeof(words[2]), "train.communication_aware_checkpointing=%s",
                   result->aware ? "true" : "false");
    (void)snprintf(words[3], sizeof(words[3]), "train.duplicate_token_dropping=%s",
                   result->dropping ? "true" : "false");
    int n = arguments->num_overrides;
    char **overrides = tri_alloc(TRI_MEMORY_OTHER, (size_t)(n + FIXED) * sizeof(*overrides));
    memcpy(overrides, arguments->overrides, (size_t)n * sizeof(*overrides));
    for (int i = 0; i < FIXED; i++) {
        overrides[n + i] = words[i];
    }
    struct tri_config *config = tri_alloc(TRI_MEMORY_OTHER, sizeof(*config));
    enum tri_status status = tri_config_parse(&tri_strategies, "ledger", model, strlen(model),
                                              n + FIXED, overrides, config, error);
    if (status == TRI_OK) {
        result->w = config->precision == TRI_PRECISION_BF16 ? 2 : 4;
        result->hidden = config->model.hidden_size;
        result->tokens = config->train.global_batch * config->data.sequence_length;
        result->k = config->moe.top_k;
        status = step(config, result, error);
    }
    tri_free(config);
    tri_free(overrides);
    return status;
}

/* ---- the formulas ---------------------------------------------------------------------------- */

struct count {
    int64_t calls, bytes;
};

static struct count measured(const struct result *r, enum tri_op op, enum tri_phase phase)
{
    struct count sum = {0, 0};
    const enum tri_kind kinds[] = {TRI_KIND_ATTENTION, TRI_KIND_MOE};
    for (int i = 0; i < 2; i++) {
        struct tri_ledger_cell cell =
            tri_ledger_sum(&r->ledger, (int)op, -1, (int)phase, (int)kinds[i]);
        sum.calls += cell.calls;
        sum.bytes += cell.bytes;
    }
    return sum;
}

/* As the head of this file says. */
static struct count expected(const struct result *r, enum tri_op op, enum tri_phase phase)
{
    bool drops = r->dropping && r->tensor > 1 && r->expert > 1;
    bool again = phase == TRI_PHASE_RECOMPUTE;
    int64_t row = r->hidden * r->w;
    int64_t tokens = r->tokens * row;
    int64_t rows = r->k * tokens;
    if (again && r->aware) {
        return (struct count){0, 0};
    }
    switch (op) {
    case TRI_OP_ALL_REDUCE:
        return r->tensor == 1 ? (struct count){0, 0}
               : drops        ? (struct count){1, r->tensor * tokens}
                              : (struct count){2, r->tensor * (tokens + rows)};
    case TRI_OP_ALL_TO_ALL:
        return r->expert == 1 ? (struct count){0, 0}
                              : (struct count){2, 2 * (drops ? 1 : r->tensor) * r->elsewhere * row};
    case TRI_OP_REDUCE_SCATTER:
        return drops ? (struct count){1, r->tensor * rows} : (struct count){0, 0};
    case TRI_OP_ALL_GATHER:
        return !drops  ? (struct count){0, 0}
               : again ? (struct count){1, rows}
                       : (struct count){2, rows + tokens};
    default:
        return (struct count){0, 0};
    }
}

/* ---- the tables ------------------------------------------------------------------------------ */

static const enum tri_op shown[] = {TRI_OP_ALL_REDUCE, TRI_OP_ALL_TO_ALL, TRI_OP_ALL_GATHER,
                                    TRI_OP_REDUCE_SCATTER};
enum { SHOWN = sizeof(shown) / sizeof(*shown) };

/* A row of the first table; returns how many cells differ from their formula. */
static int print_layer(const struct result *r)
{
    int wrong = 0;
    (void)printf("| %d | %d | %s | %s |", r->tensor, r->expert, r->aware ? "yes" : "no",
                 r->dropping ? "yes" : "no");
    for (int i = 0; i < SHOWN; i++) {
        int64_t bytes = 0;
        for (int pass = 0; pass < PASSES; pass++) {
            struct count got = measured(r, shown[i], passes[pass]);
            struct count want = expected(r, shown[i], passes[pass]);
            wrong += got.calls != want.calls || got.bytes != want.bytes;
            bytes += got.bytes;
            (void)printf("%s%" PRId64, pass ? "+" : " ", got.calls);
        }
        (void)printf(" | %" PRId64 " |", bytes);
    }
    (void)printf("%s\n", wrong ? " differs" : "");
    return wrong;
}

static int print_layers(const struct result *results)
{
    int wrong = 0;
    (void)printf("One MoE layer, every block recomputed: calls of a rank in forward + recompute + "
                 "backward, bytes of the three summed over all ranks.\n\n"
                 "| T | E | CAC | DTD | all-reduce | bytes | all-to-all | bytes | all-gather | "
                 "bytes | reduce-scatter | bytes |\n|");
    for (int i = 0; i < 4 + 2 * SHOWN; i++) {
        (void)printf(" --- |");
    }
    (void)printf("\n");
    for (int i = 0; i < LAYOUTS * VARIANTS; i++) {
        wrong += print_layer(&results[i]);
    }
    (void)printf("\n%d figures, %d of them not as the formulas say.\n\n",
                 LAYOUTS * VARIANTS * SHOWN * PASSES * 2, wrong);
    return wrong;
}

/* Layout i with both. */
static const struct result *with_both(const struct result *results, int i)
{
    return &results[i * VARIANTS + VARIANTS - 1];
}

static void print_call(const struct result *results, int op, int group, int phase, int kind)
{
    bool used = false;
    for (int i = 0; i < LAYOUTS; i++) {
        used = used || with_both(results, i)->ledger.cell[op][group][phase][kind].calls > 0;
    }
    if (!used) {
        return;
    }
    (void)printf("| %s | %s | %s | %s |", tri_op_name((enum tri_op)op), tri_groups[group].name,
                 tri_phase_name((enum tri_phase)phase), tri_kind_name((enum tri_kind)kind));
    for (int i = 0; i < LAYOUTS; i++) {
        struct tri_ledger_cell cell = with_both(results, i)->ledger.cell[op][group][phase][kind];
        if (cell.calls) {
            (void)printf(" %" PRId64 " of %" PRId64 " |", cell.calls, cell.bytes);
        } else {
            (void)printf(" |");
        }
    }
    (void)printf("\n");
}

static void print_calls(const struct result *results)
{
    (void)printf("All calls of a step with CAC and DTD, by layout T x E: calls of rank 0, of bytes "
                 "summed over all ranks and calls.\n\n| operation | group | phase | kind |");
    for (int i = 0; i < LAYOUTS; i++) {
        (void)printf(" %d x %d |", with_both(results, i)->tensor, with_both(results, i)->expert);
    }
    (void)printf("\n|");
    for (int i = 0; i < 4 + LAYOUTS; i++) {
        (void)printf(" --- |");
    }
    (void)printf("\n");
    for (int phase = 0; phase < TRI_PHASE_COUNT; phase++) {
        for (int kind = 0; kind < TRI_KIND_COUNT; kind++) {
            for (int op = 0; op < TRI_OP_COUNT; op++) {
                for (int group = 0; group < TRI_GROUP_COUNT; group++) {
                    print_call(results, op, group, phase, kind);
                }
            }
        }
    }
}

/* ---- the program ----------------------------------------------------------------------------- */

static enum tri_status run(const struct tri_arguments *arguments, struct tri_error *error)
{
    struct result *results = tri_alloc(TRI_MEMORY_OTHER, LAYOUTS * VARIANTS * sizeof(*results));
    enum tri_status status = TRI_OK;
    for (int i = 0; i < LAYOUTS * VARIANTS && status == TRI_OK; i++) {
        int layout = i / VARIANTS;
        results[i].tensor = 1 << layout / DEGREES;
        results[i].expert = 1 << layout % DEGREES;
        results[i].dropping = i % VARIANTS / 2 == 1;
        results[i].aware = i % 2 == 1;
        status = measure(arguments, &results[i], error);
    }
    if (status == TRI_OK && tri_comm_rank(job) == 0) {
        if (print_layers(results) > 0) {
            status = tri_fail(error, TRI_CHECK_FAILED, "the ledger differs from its formulas");
        }
        print_calls(results);
    }
    tri_free(results);
    return status;
}

static enum tri_status ledger_main(int argc, char **argv, struct tri_error *error)
{
    static const char usage[] = "mpirun -n 16 ledger [key=value …]";
    static const struct tri_option options[] = {{NULL, false}};
    static const struct tri_command command = {
        .name = "ledger", .help = usage, .options = options, .traits = TRI_TAKES_OVERRIDES};
    struct tri_arguments arguments;
    enum tri_status status = tri_arguments_parse(&command, argc, argv, &arguments, error);
    if (status == TRI_OK && arguments.help) {
        status = tri_fail(error, TRI_BAD_INPUT, "usage: %s", usage);
    }
    if (status == TRI_OK && tri_comm_size(job) != RANKS) {
        status = tri_fail(error, TRI_BAD_INPUT, "on %d ranks, please: %s", RANKS, usage);
    }
    if (status == TRI_OK) {
        status = run(&arguments, error);
    }
    tri_arguments_fini(&arguments);
    return status;
}

int main(int argc, char **argv)
{
    struct tri_error error = {0};
    job = tri_comm_start(&argc, &argv);
    enum tri_status status = ledger_main(argc - 1, argv + 1, &error);
    if (status != TRI_OK && tri_comm_rank(job) == 0) {
        tri_log_error(&error);
    }
    (void)fflush(NULL);
    tri_comm_finish(job);
    return (int)status;
}
