/* Traces (trace.steps), read back: what each rank sent in the steps is what its ledger has booked
 * meanwhile, cell by cell; a file's form (trace_file.c); memory; buffers that are too small; clocks
 * that differ; a run with and without one, and one that goes on. */
#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "data/shard_writer.h"
#include "support/small.h"
#include "train/run.h"
#include "train/run_trace.h"
#include "train/session.h"
#include "train/trace_file.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COUNT(array) ((int)(sizeof(array) / sizeof(*(array))))

enum { STEPS = 4, FIRST = 2, LAST = 3 };

static const struct traced {
    int ranks;
    enum small_style style;
    const char *words;
} cases[] = {
    {1, SMALL_LLAMA, "precision=bf16"},
    {1, SMALL_GPT, "train.recompute=full"},
    {2, SMALL_LLAMA, "parallel.expert=2"},
    {2, SMALL_GPT, "parallel.tensor=2 train.recompute=[1] comm.overlap=false"},
    {2, SMALL_LLAMA, "parallel.expert=2 moe.schedule=overlapped moe.chunks=3"},
    {2, SMALL_GPT, "parallel.tensor=2 parallel.tensor_grid=[1,1,2]"},
    {4, SMALL_LLAMA, "parallel.tensor=2 parallel.expert=2 moe.schedule=s2"},
    {4, SMALL_LLAMA, "parallel.expert=4 moe.schedule=hierarchical comm.ranks_per_host=2"},
    {4, SMALL_GPT, "parallel.tensor=2 parallel.expert=2 train.sequence_parallel=true"},
    {4, SMALL_LLAMA, "parallel.expert=2 moe.router=dense"},
    {4, SMALL_LLAMA, "parallel.tensor=4 parallel.tensor_grid=[2,2,1]"},
};

/* ---- some steps of an engine ----------------------------------------------------------------- */

/* The lines that were said. */
struct said {
    char text[4096];
};

static void listen(void *state, const char *line)
{
    struct said *said = state;
    size_t used = strlen(said->text);
    (void)snprintf(said->text + used, sizeof(said->text) - used, "%s", line);
}

static int count_of(const struct said *said, const char *what)
{
    int count = 0;
    for (const char *at = said->text; (at = strstr(at, what)) != NULL; at++) {
        count++;
    }
    return count;
}

struct trial {
    char folder[256];
    struct tri_ledger booked;            /* by this rank in the traced steps */
    struct tri_memory_counters counters; /* of all of it */
    struct said said;
    double events;      /* of this rank, where none is dropped */
    double other_clock; /* what rank 1's shows; 0: the time */
    struct trace_file file;
};

static void remove_folder(const char *folder)
{
    struct tri_error error;
    if (job_rank() == 0) {
        CHECK(!tri_file_exists(folder) || tri_file_remove_tree(folder, &error) == TRI_OK);
    }
}

static void subtract(struct tri_ledger *ledger, const struct tri_ledger *before)
{
    struct tri_ledger_cell *cell = &ledger->cell[0][0][0][0];
    const struct tri_ledger_cell *old = &before->cell[0][0][0][0];
    for (size_t i = 0; i < sizeof(ledger->cell) / sizeof(*cell); i++) {
        cell[i].calls -= old[i].calls;
        cell[i].bytes -= old[i].bytes;
    }
}

/* The traced ones are written; none of that is booked. */
static void run_steps(struct tri_session *session, struct tri_rows_source *source,
                      const struct tri_run_folder *folder, struct trial *trial)
{
    struct tri_ledger *before = tri_alloc(TRI_MEMORY_OTHER, sizeof(*before));
    struct tri_error error;
    struct tri_run_trace *trace = tri_run_trace_create(session, 0);
    CHECK(trace);
    CHECK(tri_memory_get().current[TRI_MEMORY_TRACE] == session->plan.bytes[TRI_MEMORY_TRACE]);
    for (int64_t step = 1; step <= STEPS; step++) {
        if (step == FIRST) {
            *before = *job_ledger();
        }
        tri_run_trace_begin(trace, step);
        struct tri_step_report report = small_gradients(session->engine, source, step - 1, NULL);
        tri_engine_update(session->engine, step, 1e-3, &report);
        if (step == LAST) {
            trial->booked = *job_ledger();
            subtract(&trial->booked, before);
            *before = *job_ledger();
        }
        if (tri_run_trace_end(trace, step, step == STEPS, folder, &error) != TRI_OK) {
            tri_panic(TRI_FAILED, "%s", error.message);
        }
        CHECK(step != LAST || memcmp(before, job_ledger(), sizeof(*before)) == 0);
    }
    CHECK(tri_memory_get().current[TRI_MEMORY_TRACE] == 0);
    tri_run_trace_destroy(trace);
    tri_free(before);
}

/* Steps with a trace, whose file is read on every rank. */
static void try(enum small_style style, const char *words, bool whole, struct trial *trial)
{
    char all[512];
    struct tri_config config;
    struct tri_session *session;
    struct tri_run_folder *folder = NULL;
    struct tri_error error;
    remove_folder(trial->folder);
    (void)snprintf(all, sizeof(all), "trace.steps=[%d,%d] %s", FIRST, LAST, words);
    small_config(style, all, &config);
    struct tri_rows_source source = small_source(&config);
    struct tri_memory_scope scope = tri_memory_scope_begin();
    if (tri_session_create(job(), &config, true, 0, NULL, &session, &error) != TRI_OK) {
        tri_panic(TRI_FAILED, "%s: %s", words, error.message);
    }
    if (job_rank() == 0) {
        CHECK(tri_run_folder_open(trial->folder, false, &folder, &error) == TRI_OK);
    }
    tri_log_set_sink(listen, &trial->said);
    if (trial->other_clock > 0.0 && job_rank() == 1) {
        tri_clock_plan(&trial->other_clock);
    }
    run_steps(session, &source, folder, trial);
    tri_clock_plan(NULL);
    tri_log_set_sink(NULL, NULL);
    tri_run_folder_close(folder);
    tri_session_destroy(session);
    trial->counters = tri_memory_scope_end(&scope);
    (void)snprintf(all, sizeof(all), "%s/trace-%d-%d.json", trial->folder, FIRST, LAST);
    trace_file_read(all, job_size(), whole, &trial->file);
}

static void finish(struct tri_group *world, struct trial *trial)
{
    json_decref(trial->file.root);
    trial->file.root = NULL;
    trial->said.text[0] = '\0';
    tri_barrier(world);
    remove_folder(trial->folder);
}

/* ---- what is in them ------------------------------------------------------------------------- */

static void expect_same_bytes(const struct tri_ledger *sum, const struct tri_ledger *booked,
                              const char *words)
{
    const struct tri_ledger_cell *told = &sum->cell[0][0][0][0];
    const struct tri_ledger_cell *cell = &booked->cell[0][0][0][0];
    for (size_t i = 0; i < sizeof(booked->cell) / sizeof(*cell); i++) {
        if (told[i].calls != cell[i].calls || told[i].bytes != cell[i].bytes) {
            tri_panic(TRI_FAILED,
                      "%s: cell %zu: %lld calls of %lld bytes are traced, %lld of %lld booked",
                      words, i, (long long)told[i].calls, (long long)told[i].bytes,
                      (long long)cell[i].calls, (long long)cell[i].bytes);
        }
    }
}

static void expect_memory(const struct trial *trial)
{
    const struct trace_file *file = &trial->file;
    int rank = job_rank();
    for (int i = 0; i < TRI_MEMORY_COUNT; i++) {
        CHECK(trace_file_most(file, rank, (enum tri_memory)i) <= trial->counters.peak[i]);
    }
    CHECK(trace_file_most(file, rank, TRI_MEMORY_WEIGHTS) ==
          trial->counters.peak[TRI_MEMORY_WEIGHTS]);
    int64_t used = trace_file_gauge(file, rank, "activations in use");
    CHECK(used > 0 && used <= trial->counters.peak[TRI_MEMORY_ACTIVATIONS]);
}

static void expect_spans(const struct traced *traced, const struct trial *trial)
{
    static const struct {
        const char *name;
        int most; /* a step: 0, any number */
    } names[] = {{"micro-batch", 0}, {"forward", 0},   {"backward", 0}, {"layer", 0},
                 {"norm", 0},        {"attention", 0}, {"router", 0},   {"experts", 0},
                 {"head", 0},        {"optimizer", 1}, {"losses", 1},   {"gradient norm", 1},
                 {"data", 1},        {"embedding", 0}};
    int64_t steps = LAST - FIRST + 1;
    for (int i = 0; i < COUNT(names); i++) {
        int64_t count = trace_file_count(&trial->file, job_rank(), names[i].name, true);
        CHECK(names[i].most > 0 ? count == steps * names[i].most : count >= steps);
    }
    bool recomputes = strstr(traced->words, "recompute") != NULL;
    CHECK((trace_file_count(&trial->file, job_rank(), "recompute", true) > 0) == recomputes);
}

static void expect_traced(const struct traced *traced, struct trial *trial)
{
    struct tri_ledger *sum = tri_alloc(TRI_MEMORY_OTHER, sizeof(*sum));
    try(traced->style, traced->words, true, trial);
    trace_file_sum(&trial->file, job_rank(), sum);
    expect_same_bytes(sum, &trial->booked, traced->words);
    expect_memory(trial);
    expect_spans(traced, trial);
    CHECK(trial->file.dropped == 0);
    bool exchanges =
        tri_ledger_sum(&trial->booked, TRI_OP_ALL_TO_ALL, -1, -1, TRI_KIND_MOE).bytes > 0;
    CHECK(!exchanges || trial->file.arrows > 0);
    tri_free(sum);
}

/* Teams of threads have tracks where our own code deals the work out. */
static void expect_teams(struct trial *trial)
{
    const char *threads = getenv("OMP_NUM_THREADS");
    try(SMALL_LLAMA, "threads=0", true, trial);
    int64_t own = trace_file_count(&trial->file, job_rank(), "products", true);
    int64_t all = trace_file_count(&trial->file, job_rank(), "products", false);
    trial->events = trace_file_of_rank(&trial->file, job_rank(), "events");
    CHECK(threads && (strcmp(threads, "1") == 0 ? all == 0 : own > 0 && all >= 2 * own));
}

/* A thread that keeps a few events only: what is kept is whole, the rest is counted and said. */
static void expect_overflow(struct trial *trial)
{
    enum { KEPT = 40 };
    char words[64];
    (void)snprintf(words, sizeof(words), "trace.events=%d", KEPT);
    try(SMALL_LLAMA, words, false, trial);
    CHECK(trial->file.dropped > 0 && trial->file.slices > 0);
    double kept = trace_file_of_rank(&trial->file, job_rank(), "events");
    double all = kept + trace_file_of_rank(&trial->file, job_rank(), "dropped");
    const char *threads = getenv("OMP_NUM_THREADS");
    CHECK(threads && (strcmp(threads, "1") == 0 ? kept == KEPT : kept >= KEPT));
    /* Waits that were too short to be any are no events. */
    CHECK(job_size() == 1 ? all == trial->events : fabs(all - trial->events) < 0.3 * all);
    CHECK(trace_file_count(&trial->file, 0, "data", true) == 1);
    CHECK(count_of(&trial->said, "events more were dropped") == (job_rank() == 0 ? 1 : 0));
}

/* Rank 1's clock stands, hours ahead: its events are shown when rank 0's clock says that they
 * were. */
static void expect_clocks(struct trial *trial)
{
    enum { AHEAD = 10000, SURE = 100 };
    double before = tri_clock_now();
    trial->other_clock = before + AHEAD;
    try(SMALL_LLAMA, "", false, trial);
    trial->other_clock = 0.0;
    double offset = 1e-6 * trace_file_of_rank(&trial->file, 1, "clock_offset_us");
    CHECK(offset <= AHEAD && offset > AHEAD - SURE);
    CHECK(trace_file_of_rank(&trial->file, 0, "clock_offset_us") == 0.0);
    CHECK(trial->file.end_us < 1e6 * SURE);
}

/* ---- runs ------------------------------------------------------------------------------------ */

enum { TOKENS = 4000, VOCABULARY = 53 };

static void write_tokens(const char *folder)
{
    const struct tri_shard_writer_args args = {
        .folder = folder, .stem = "tokens", .vocab_size = VOCABULARY, .per_shard = TOKENS};
    struct tri_shard_writer *writer = tri_shard_writer_create(&args);
    struct tri_error error;
    for (int32_t i = 0; i < TOKENS; i++) {
        int32_t token = i % 11 * 7 % VOCABULARY;
        CHECK(tri_shard_writer_write(writer, &token, NULL, 1, &error) == TRI_OK);
    }
    CHECK(tri_shard_writer_finish(writer, &error) == TRI_OK);
    tri_shard_writer_destroy(writer);
}

/* Trains into FOLDER/NAME; what is said goes to trial->said, what is booked begins with it. */
static enum tri_status try_train(const char *name, const char *words, bool fresh,
                                 struct trial *trial, struct tri_error *error)
{
    const struct tri_run_options options = {.fresh = fresh};
    struct tri_config config;
    char all[1024];
    (void)snprintf(all, sizeof(all),
                   "run_dir=%s/%s data.train=%s/tokens_*.bin data.valid=%s/tokens_*.bin "
                   "eval.batches=1 eval.every=2 checkpoint.every=2 train.schedule=constant "
                   "parallel.expert=%d %s",
                   trial->folder, name, trial->folder, trial->folder,
                   job_size() > 2 ? 2 : job_size(), words);
    small_config(SMALL_LLAMA, all, &config);
    trial->said.text[0] = '\0';
    tri_ledger_reset(job_ledger());
    tri_log_set_sink(listen, &trial->said);
    enum tri_status status = tri_run(job(), &config, &options, error);
    tri_log_set_sink(NULL, NULL);
    return status;
}

static void train(const char *name, const char *words, bool fresh, struct trial *trial)
{
    struct tri_error error;
    if (try_train(name, words, fresh, trial, &error) != TRI_OK) {
        tri_panic(TRI_FAILED, "%s", error.message);
    }
}

/* A file that cannot be written ends the run, on all ranks. */
static void expect_failure(struct tri_group *world, struct trial *trial)
{
    struct tri_error error = {0};
    char path[300];
    (void)snprintf(path, sizeof(path), "%s/bad/trace-1-1.json", trial->folder);
    if (job_rank() == 0) {
        CHECK(tri_file_make_dirs(path, &error) == TRI_OK);
    }
    tri_barrier(world);
    CHECK(try_train("bad", "train.steps=2 trace.steps=[1,1]", false, trial, &error) == TRI_FAILED);
    CHECK(strstr(error.message, "bad/trace-1-1.json: cannot"));
}

struct listed {
    int traces;
};

static enum tri_status see(const char *name, void *data)
{
    struct listed *listed = data;
    listed->traces += strncmp(name, TRI_TRACE_STEM, strlen(TRI_TRACE_STEM)) == 0;
    return TRI_OK;
}

static int traces_in(const struct trial *trial, const char *name)
{
    struct listed listed = {0};
    struct tri_error error;
    char path[300];
    (void)snprintf(path, sizeof(path), "%s/%s", trial->folder, name);
    CHECK(tri_file_list(path, see, &listed, &error) == TRI_OK);
    return listed.traces;
}

static void read_trace(struct trial *trial, const char *name)
{
    char path[300];
    (void)snprintf(path, sizeof(path), "%s/%s", trial->folder, name);
    trace_file_read(path, job_size(), true, &trial->file);
}

/* A cell that a run books outside of its steps too: before them, and when it adds up the ledgers of
 * its ranks. */
static bool is_aside(const char *phase, const char *kind, const char *operation)
{
    return strcmp(phase, "setup") == 0 ||
           (strcmp(phase, "checkpoint") == 0 && strcmp(kind, "meta") == 0 &&
            strcmp(operation, "all_reduce") == 0);
}

/* All steps of a run were traced: ledger.json has the same bytes. */
static void expect_ledger(const struct trial *trial)
{
    char path[300];
    size_t i;
    const json_t *row;
    int ranks = job_size();
    struct tri_ledger *sums = tri_alloc(TRI_MEMORY_OTHER, (size_t)ranks * sizeof(*sums));
    for (int r = 0; r < ranks; r++) {
        trace_file_sum(&trial->file, r, &sums[r]);
    }
    (void)snprintf(path, sizeof(path), "%s/on/ledger.json", trial->folder);
    json_t *ledger = json_load_file(path, 0, NULL);
    json_array_foreach(json_object_get(ledger, "collectives"), i, row)
    {
        const char *name[4];
        static const char *const keys[4] = {"operation", "group", "phase", "kind"};
        for (int k = 0; k < 4; k++) {
            name[k] = json_string_value(json_object_get(row, keys[k]));
        }
        if (is_aside(name[2], name[3], name[0])) {
            continue;
        }
        int64_t own = 0, all = 0;
        for (int r = 0; r < ranks; r++) {
            int64_t bytes = trace_file_cell(&sums[r], name[0], name[1], name[2], name[3])->bytes;
            own = r == 0 ? bytes : own;
            all += bytes;
        }
        CHECK(own == json_integer_value(json_object_get(row, "bytes")));
        CHECK(all == json_integer_value(json_object_get(row, "bytes_all_ranks")));
    }
    CHECK(ranks == 1 || i > 0);
    json_decref(ledger);
    tri_free(sums);
}

/* The loss of each line of a run's metrics.jsonl. */
static int read_losses(const struct trial *trial, const char *name, double losses[64])
{
    char path[300], line[1 << 14];
    int count = 0;
    (void)snprintf(path, sizeof(path), "%s/%s/metrics.jsonl", trial->folder, name);
    FILE *file = fopen(path, "r");
    CHECK(file);
    while (fgets(line, sizeof(line), file)) {
        json_t *object = json_loads(line, 0, NULL);
        const json_t *loss = json_object_get(object, "loss");
        loss = loss ? loss : json_object_get(object, "valid_loss");
        CHECK(count < 64 && json_is_real(loss));
        losses[count++] = json_real_value(loss);
        json_decref(object);
    }
    (void)fclose(file);
    return count;
}

/* A run with a trace has the digits of one without. */
static void expect_same_digits(const struct trial *trial)
{
    double off[64], on[64];
    int count = read_losses(trial, "off", off);
    CHECK(count > 3 && read_losses(trial, "on", on) == count);
    CHECK(memcmp(off, on, (size_t)count * sizeof(*off)) == 0);
}

static void expect_runs(struct tri_group *world, struct trial *trial)
{
    struct tri_error error;
    remove_folder(trial->folder);
    if (job_rank() == 0) {
        CHECK(tri_file_make_dirs(trial->folder, &error) == TRI_OK);
        write_tokens(trial->folder);
    }
    tri_barrier(world);
    train("off", "train.steps=3", false, trial);
    CHECK(traces_in(trial, "off") == 0);
    train("on", "train.steps=3 trace.steps=[1,3]", false, trial);
    expect_same_digits(trial);
    read_trace(trial, "on/trace-1-3.json");
    expect_ledger(trial);
    for (int r = 0; r < job_size(); r++) {
        CHECK(trace_file_count(&trial->file, r, "step", true) == 3);
        CHECK(trace_file_count(&trial->file, r, "evaluation", true) == 2);
        CHECK(trace_file_count(&trial->file, r, "checkpoint", true) == 2);
        CHECK(trace_file_count(&trial->file, r, "metrics", true) == (r == 0 ? 3 : 0));
    }
    CHECK(job_size() == 1 || trace_file_count(&trial->file, 0, "send", false) > 0);
    json_decref(trial->file.root);
    tri_barrier(world);
    /* A start that goes on traces what is left. */
    train("on", "train.steps=5 trace.steps=[2,5]", false, trial);
    read_trace(trial, "on/trace-4-5.json");
    CHECK(trace_file_count(&trial->file, 0, "step", true) == 2);
    json_decref(trial->file.root);
    tri_barrier(world);
    train("on", "train.steps=6 trace.steps=[2,5]", false, trial);
    CHECK(count_of(&trial->said, "trace.steps [2, 5] are over") == (job_rank() == 0 ? 1 : 0));
    CHECK(traces_in(trial, "on") == 2);
    tri_barrier(world);
    train("on", "train.steps=1", true, trial);
    CHECK(traces_in(trial, "on") == 0);
    expect_failure(world, trial);
    trial->file.root = NULL;
    finish(world, trial);
}

static int run_job(int argc, char **argv)
{
    struct trial *trial = tri_alloc(TRI_MEMORY_OTHER, sizeof(*trial));
    struct tri_mesh *mesh;
    struct tri_error error;
    (void)argc;
    (void)argv;
    CHECK(tri_mesh_create(job(), 1, 1, 1, 1, &mesh, &error) == TRI_OK);
    struct tri_group *world = tri_mesh_group(mesh, TRI_ON_ALL);
    /* Two tests run it on as many ranks at the same time, with other threads. */
    const char *threads = getenv("OMP_NUM_THREADS");
    (void)snprintf(trial->folder, sizeof(trial->folder), TEST_TMP "/trace.%s.%d.%s",
                   job_transport(), job_size(), threads ? threads : "");
    for (int i = 0; i < COUNT(cases); i++) {
        if (cases[i].ranks == job_size()) {
            expect_traced(&cases[i], trial);
            finish(world, trial);
        }
    }
    if (job_size() <= 2) {
        expect_teams(trial);
        finish(world, trial);
        expect_overflow(trial);
        finish(world, trial);
    }
    if (job_size() > 1) {
        expect_clocks(trial);
        finish(world, trial);
    }
    expect_runs(world, trial);
    tri_mesh_destroy(mesh);
    tri_free(trial);
    return 0;
}

int main(int argc, char **argv)
{
    return job_run(argc, argv, run_job);
}
