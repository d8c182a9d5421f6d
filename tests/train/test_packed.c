/* Rows of documents with masks so uneven that replicas, and whole batches, count nothing: every
 * layout trains as one rank does, and a row's loss is the sum of what its documents have alone. */
#include "support/small.h"

#include "base/file.h"
#include "base/memory.h"
#include "base/path.h"
#include "base/random.h"
#include "data/loader.h"
#include "train/verify.h"

#include <stdio.h>
#include <string.h>

enum { DOCUMENTS = 40, MOST_TOKENS = 1024, SEQ = 12, BATCH = 7 };

/* ---- the set --------------------------------------------------------------------------------- */

struct set {
    char folder[TRI_PATH_MAX], data[TRI_PATH_MAX];
    int64_t count, begin[DOCUMENTS + 1];
};

static void write_file(const struct set *set, const char *name, const int32_t *header,
                       const void *body, size_t bytes)
{
    char path[TRI_PATH_MAX + 32];
    (void)snprintf(path, sizeof(path), "%s/%s", set->folder, name);
    FILE *file = fopen(path, "wb");
    CHECK(file && fwrite(header, 1, 1024, file) == 1024);
    CHECK(fwrite(body, 1, bytes, file) == bytes && fclose(file) == 0);
}

/* One document in nine counts, and of that two tokens in three. */
static bool counts(int64_t document, int64_t token)
{
    return document % 9 == 4 && token % 3 != 0;
}

static void write_set(struct set *set)
{
    struct tri_error error;
    uint16_t tokens[MOST_TOKENS];
    unsigned char mask[MOST_TOKENS / 8] = {0};
    int32_t header[256] = {20240520, 1};
    set->count = 0;
    for (int64_t d = 0; d < DOCUMENTS; d++) {
        int64_t length = 1 + (int64_t)(tri_random_bits(7, 1, (uint64_t)d) % (d % 9 == 4 ? 30 : 12));
        set->begin[d] = set->count;
        for (int64_t i = 0; i < length; i++, set->count++) {
            CHECK(set->count < MOST_TOKENS);
            tokens[set->count] = (uint16_t)(tri_random_bits(7, 2, (uint64_t)set->count) % 50);
            mask[set->count / 8] =
                (unsigned char)(mask[set->count / 8] | counts(d, i) << (set->count % 8));
        }
    }
    set->begin[DOCUMENTS] = set->count;
    (void)snprintf(set->folder, sizeof(set->folder), "%s/packed_%s_%d", TEST_TMP, job_transport(),
                   job_size());
    (void)snprintf(set->data, sizeof(set->data), "%.900s/t.bin", set->folder);
    if (job_rank() == 0) {
        CHECK(tri_file_make_dirs(set->folder, &error) == TRI_OK);
        header[2] = (int32_t)set->count;
        write_file(set, "t.bin", header, tokens, (size_t)set->count * sizeof(*tokens));
        memset(header, 0, sizeof(header));
        header[0] = 20261129;
        header[1] = 1;
        header[4] = (int32_t)set->count;
        write_file(set, "t.mask", header, mask, ((size_t)set->count + 7) / 8);
        header[0] = 20261130;
        header[4] = DOCUMENTS;
        write_file(set, "t.docs", header, set->begin, DOCUMENTS * sizeof(*set->begin));
    }
}

static void wait_for_all(void)
{
    struct tri_config config;
    small_config(SMALL_LLAMA, "", &config);
    small_config_lay_out(&config, (struct small_layout){job_size(), 1, job_size(), 1, 1});
    struct tri_mesh *mesh = small_mesh(&config);
    int64_t one = 1;
    tri_all_reduce_sum(tri_mesh_group(mesh, TRI_ON_ALL),
                       (struct tri_where){TRI_PHASE_SETUP, TRI_KIND_META}, &one, 1, TRI_I64);
    CHECK(one == job_size());
    tri_mesh_destroy(mesh);
}

static struct tri_loader *open_loader(const struct set *set, const struct tri_config *config,
                                      bool evaluation, struct tri_tokens **tokens)
{
    struct tri_error error;
    struct tri_loader *loader;
    CHECK(tri_tokens_create(set->data, TRI_DATA_LLMC, 0, tokens, &error) == TRI_OK);
    const struct tri_loader_args args = {.tokens = *tokens,
                                         .seed = config->seed,
                                         .sequence_length = SEQ,
                                         .global_batch = BATCH,
                                         .separator = -1,
                                         .document_positions = true,
                                         .packs = true};
    CHECK((evaluation ? tri_loader_create_eval(&args, &loader, &error)
                      : tri_loader_create(&args, &loader, &error)) == TRI_OK);
    return loader;
}

/* ---- layouts --------------------------------------------------------------------------------- */

/* The masks are as uneven as they are meant to be. */
static void check_uneven(const struct set *set)
{
    struct tri_config config;
    struct tri_tokens *tokens;
    small_config(SMALL_LLAMA, "", &config);
    struct tri_loader *loader = open_loader(set, &config, false, &tokens);
    int none = 0, half = 0;
    for (int64_t step = 0; step < 5; step++) {
        int32_t room[4 * SEQ * BATCH];
        const struct tri_row_arrays out = {room, room + SEQ * BATCH, room + 2 * SEQ * BATCH,
                                           room + 3 * SEQ * BATCH};
        struct tri_error error;
        int counted[2] = {0};
        CHECK(tri_loader_rows(loader, step, 0, BATCH, &out, &error) == TRI_OK);
        for (int i = 0; i < SEQ * BATCH; i++) {
            counted[i / SEQ >= (BATCH + 1) / 2] += out.targets[i] >= 0;
        }
        CHECK(tri_loader_counted(loader, step) == counted[0] + counted[1]);
        none += counted[0] + counted[1] == 0;
        half += (counted[0] == 0) != (counted[1] == 0);
    }
    CHECK(none < 5 && half > 0);
    tri_loader_destroy(loader);
    tri_tokens_destroy(tokens);
}

static void expect_equal(const struct set *set, struct small_layout layout, enum small_style style,
                         const char *words)
{
    const struct tri_verify_options options = {.compared = 6, .steps = 6, .factor = 1.0};
    struct tri_verify_result result;
    struct tri_error error;
    struct tri_config config;
    small_config(style, words, &config);
    small_config_lay_out(&config, layout);
    (void)snprintf(config.data.train, sizeof(config.data.train), "%.900s", set->data);
    if (tri_config_check_layout(&config, job_size(), &error) != TRI_OK) {
        return; /* tensor divides the heads; reproducible mode has layouts of its own */
    }
    if (tri_verify(job(), &config, &options, &result, &error) != TRI_OK) {
        tri_panic(TRI_FAILED, "%s: %s: %s", small_layout_text(layout), words, error.message);
    }
    if (!result.passed || (config.reproducible && result.worst_relative_l2 > 0)) {
        tri_panic(TRI_FAILED,
                  "%s: %s: %s: %.3g, %s changed by %.3g (loss %.3g, while training %.3g)",
                  small_layout_text(layout), words, result.worst_parameter,
                  result.worst_relative_l2, result.worst_changed, result.worst_change,
                  result.worst_loss, result.worst_training_loss);
    }
    job_note("%s: %s: %a %a %a %s", small_layout_text(layout), words, result.worst_loss,
             result.worst_relative_l2, result.worst_training_loss, result.worst_parameter);
}

static void check_layouts(const struct set *set)
{
    static const char *const flavours[] = {
        "data.packing=documents moe.aux_loss=0",
        "data.packing=documents moe.aux_loss=0.1 moe.z_loss=0.01 train.recompute=full",
        "data.packing=documents reproducible=true model.num_kv_heads=8",
        "moe.aux_loss=0.1 moe.aux_window=step data.document_positions=true data.sequence_length=24 "
        "model.max_position=24",
        "data.packing=documents train.sequence_parallel=true moe.capacity_factor=1.0",
        /* In some of its steps all that counts sees one key: queries and keys learn nothing. */
        "moe.aux_loss=0 data.document_positions=true",
        "moe.aux_loss=0.1 moe.aux_window=step train.recompute=full",
        "data.packing=documents model.sliding_window=4",
    };
    enum { FLAVOURS = sizeof(flavours) / sizeof(*flavours) };
    struct small_layout layouts[SMALL_LAYOUTS];
    int count = small_layouts(job_size(), 8, layouts);
    for (int i = 0; i < count; i++) {
        for (int j = 0; j < 3; j++) {
            int flavour = (3 * i + j) % FLAVOURS;
            expect_equal(set, layouts[i], (i + j) % 2 ? SMALL_GPT : SMALL_LLAMA, flavours[flavour]);
        }
    }
}

/* ---- documents alone ------------------------------------------------------------------------- */

static enum tri_status fill_packed(void *state, int64_t step, int64_t first_row, int64_t rows,
                                   const struct tri_row_arrays *out, struct tri_error *error)
{
    (void)step;
    return tri_loader_eval_rows(state, first_row, rows, out, error);
}

struct alone {
    const struct tri_tokens *tokens;
    int64_t begin, length; /* inputs; the token behind them is the last target */
};

static enum tri_status fill_alone(void *state, int64_t step, int64_t first_row, int64_t rows,
                                  const struct tri_row_arrays *out, struct tri_error *error)
{
    const struct alone *alone = state;
    (void)step;
    CHECK(first_row == 0 && rows == 1);
    CHECK(tri_tokens_read(alone->tokens, alone->begin, alone->length, out->tokens, error) ==
          TRI_OK);
    CHECK(tri_tokens_read(alone->tokens, alone->begin + 1, alone->length, out->targets, error) ==
          TRI_OK);
    tri_tokens_mask(alone->tokens, alone->begin + 1, alone->length, out->targets);
    memset(out->first_key, 0, (size_t)alone->length * sizeof(*out->first_key));
    return TRI_OK;
}

/* Of this rank's engine; a source of one row has its loss once over all ranks. */
static double sum_alone(struct tri_engine *engine, const struct set *set,
                        const struct tri_tokens *tokens, int64_t *targets)
{
    double sum = 0.0;
    for (int64_t d = 0; d < DOCUMENTS; d++) {
        for (int64_t at = set->begin[d]; at + 1 < set->begin[d + 1]; at += SEQ) {
            int64_t left = set->begin[d + 1] - 1 - at;
            struct alone alone = {tokens, at, left < SEQ ? left : SEQ};
            struct tri_rows_source source = {.state = &alone,
                                             .fill = fill_alone,
                                             .rows = 1,
                                             .seq = alone.length,
                                             .counted_tokens = 1};
            struct tri_step_report report;
            struct tri_error error;
            CHECK(tri_engine_evaluate(engine, &source, &report, &error) == TRI_OK);
            sum += report.cross_entropy;
            *targets += report.targets;
        }
    }
    return sum;
}

static void check_sums(const struct set *set, struct small_layout layout, enum small_style style)
{
    struct tri_config config;
    struct tri_tokens *tokens;
    struct tri_error error;
    small_config(style,
                 style == SMALL_LLAMA
                     ? "data.packing=documents moe.aux_loss=0 model.sliding_window=5"
                     : "data.packing=documents moe.aux_loss=0",
                 &config);
    small_config_lay_out(&config, layout);
    struct tri_loader *loader = open_loader(set, &config, true, &tokens);
    struct tri_mesh *mesh = small_mesh(&config);
    struct tri_engine *engine = tri_engine_create(&config, mesh, small_kernels(&config), false);
    struct tri_rows_source source = {.state = loader,
                                     .fill = fill_packed,
                                     .rows = tri_loader_eval_count(loader),
                                     .seq = SEQ,
                                     .counted_tokens = 1,
                                     .documents = true};
    struct tri_step_report report;
    CHECK(tri_engine_evaluate(engine, &source, &report, &error) == TRI_OK);
    int64_t targets = 0;
    double sum = sum_alone(engine, set, tokens, &targets);
    CHECK(targets == report.targets && targets > 20);
    CHECK(targets == tri_loader_eval_counted(loader, source.rows, false));
    double difference = report.cross_entropy - sum;
    CHECK(difference <= 2e-6 * sum && difference >= -2e-6 * sum);
    tri_engine_destroy(engine);
    tri_mesh_destroy(mesh);
    tri_loader_destroy(loader);
    tri_tokens_destroy(tokens);
}

static int run_job(int argc, char **argv)
{
    struct set *set = tri_alloc(TRI_MEMORY_OTHER, sizeof(*set));
    (void)argc;
    (void)argv;
    write_set(set);
    wait_for_all();
    check_uneven(set);
    int ranks = job_size();
    for (int style = 0; style < 2; style++) {
        int expert = ranks % 2 == 0 ? ranks : 1; /* that divides the experts */
        check_sums(set, (struct small_layout){1, expert, 1, 1, 1}, style ? SMALL_GPT : SMALL_LLAMA);
        int tensor = ranks % 2 == 0 ? ranks : 1; /* that divides the heads */
        check_sums(set, (struct small_layout){tensor, 1, tensor, 1, 1},
                   style ? SMALL_LLAMA : SMALL_GPT);
    }
    check_layouts(set);
    tri_free(set);
    return 0;
}

int main(int argc, char **argv)
{
    return job_run(argc, argv, run_job);
}
