/* step SHAPE [--precision f32|bf16] [--steps N] [--warm N] [--threads N] [--no-ceiling] [--json]
 *      [--config] [--trace] [key=value …]
 * Whole training steps on random tokens, or on those of data.train: rows, forward, backward,
 * reduction, clip, AdamW. Alone or under mpirun with parallel.tensor and parallel.expert. With
 * --config the shape's config and nothing else. With --trace every second step is traced, into
 * trace.events events: what that costs. */
#include "base/clock.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/trace.h"
#include "ceiling.h"
#include "cli/command.h"
#include "moe/strategies.h"
#include "shapes.h"
#include "train/environment.h"
#include "train/evaluate.h"
#include "train/session.h"
#include "train/text.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

enum part { ATTENTION, ROUTER, EXCHANGE, EXPERTS, OPTIMIZER, REST, STEP, PARTS };
static const char *const part_names[PARTS] = {"attention", "router", "exchange", "experts",
                                              "optimizer", "rest",   "step"};

struct bench {
    struct tri_config config;
    const char *shape;
    int64_t steps, warm;
    bool json, with_ceiling, config_only, traced;
    struct tri_session *session;
    struct tri_text text; /* empty without data.train */
    double *times[PARTS]; /* [steps] seconds */
    double median[PARTS];
    struct {
        double *cpu;                  /* [steps] seconds of all ranks */
        double time, processor;       /* medians over pairs of a traced step and one that is not */
        double events, lost, seconds; /* a traced step; in all; an event */
    } trace;
    double cpu_seconds; /* of a step, all ranks */
    double peak_bytes;  /* of the largest rank */
    double loss;
    double ceiling[2]; /* GFLOP/s, all ranks together: before and after; or NAN */
    const char *ceiling_way;
};

/* ---- the run --------------------------------------------------------------------------------- */

static enum tri_status train_step(struct bench *bench, int64_t step, struct tri_step_report *report,
                                  struct tri_error *error)
{
    struct tri_config *config = &bench->config;
    struct tri_rows_source source = bench->text.loader
                                        ? tri_source_of_loader(bench->text.loader, config)
                                        : tri_source_random(config);
    TRI_TRY(tri_engine_gradients(bench->session->engine, &source, step, NULL, report, error));
    tri_engine_update(bench->session->engine, step + 1, config->train.learning_rate, report);
    return TRI_OK;
}

static void record(struct bench *bench, int64_t i, double seconds,
                   const struct tri_step_report *report)
{
    double parts[PARTS] = {report->seconds_attention,
                           report->seconds_router,
                           report->seconds_exchange,
                           report->seconds_experts,
                           report->seconds_optimizer,
                           seconds,
                           seconds};
    for (int part = 0; part < REST; part++) {
        parts[REST] -= parts[part];
    }
    for (int part = 0; part < PARTS; part++) {
        bench->times[part][i] = parts[part];
    }
}

static double cpu_seconds(void)
{
    struct rusage use;
    (void)getrusage(RUSAGE_SELF, &use);
    return (double)(use.ru_utime.tv_sec + use.ru_stime.tv_sec) +
           1e-6 * (double)(use.ru_utime.tv_usec + use.ru_stime.tv_usec);
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *values, int64_t n)
{
    qsort(values, (size_t)n, sizeof(*values), compare);
    return 0.5 * (values[(n - 1) / 2] + values[n / 2]);
}

/* The steps of a pair, in turn first: not traced, traced; traced, not traced. */
static bool is_traced(int64_t i)
{
    return i % 4 == 1 || i % 4 == 2;
}

static enum tri_status take_times(struct bench *bench, struct tri_trace *trace,
                                  struct tri_error *error)
{
    double cpu = 0.0;
    for (int64_t i = 0; i < bench->warm + bench->steps; i++) {
        struct tri_step_report report;
        int64_t timed = i - bench->warm;
        if (timed == 0) {
            cpu = cpu_seconds();
        }
        tri_trace_attach(timed >= 0 && is_traced(timed) ? trace : NULL);
        double start = tri_clock_now();
        double cpu_start = cpu_seconds();
        TRI_TRY(train_step(bench, i, &report, error));
        bench->loss = report.loss;
        if (timed >= 0) {
            record(bench, timed, tri_clock_now() - start, &report);
            bench->trace.cpu[timed] = cpu_seconds() - cpu_start;
        }
    }
    tri_trace_attach(NULL);
    bench->cpu_seconds = (cpu_seconds() - cpu) / (double)bench->steps;
    return TRI_OK;
}

/* ---- what a trace costs ---------------------------------------------------------------------- */

static double pair_ratio(const double *values, int64_t steps)
{
    int64_t pairs = steps / 2;
    double *ratio = tri_alloc(TRI_MEMORY_OTHER, (size_t)pairs * sizeof(*ratio));
    for (int64_t i = 0; i < pairs; i++) {
        int64_t on = is_traced(2 * i) ? 2 * i : 2 * i + 1;
        ratio[i] = values[on] / values[4 * i + 1 - on];
    }
    double middle = median(ratio, pairs);
    tri_free(ratio);
    return middle;
}

/* Seconds that one event takes where nothing else is done. */
static double event_seconds(void)
{
    enum { EVENTS = 100000 };
    struct tri_trace *trace = tri_trace_create(1, EVENTS);
    tri_trace_attach(trace);
    double start = tri_clock_now();
    for (int i = 0; i < EVENTS; i++) {
        tri_trace_end(tri_trace_begin(), "event", NULL, 0);
    }
    double seconds = tri_clock_now() - start;
    tri_trace_attach(NULL);
    tri_trace_destroy(trace);
    return seconds / EVENTS;
}

static void weigh_trace(struct bench *bench, struct tri_trace *trace)
{
    int64_t traced = 0;
    for (int64_t i = 0; i < bench->steps; i++) {
        traced += is_traced(i);
    }
    for (int thread = 0; thread < tri_trace_threads(trace); thread++) {
        int64_t count, lost;
        (void)tri_trace_events(trace, thread, &count, &lost);
        bench->trace.events += (double)(count + lost) / (double)traced;
        bench->trace.lost += (double)lost;
    }
    tri_all_reduce_sum(tri_mesh_group(bench->session->mesh, TRI_ON_ALL),
                       (struct tri_where){TRI_PHASE_SETUP, TRI_KIND_META}, bench->trace.cpu,
                       bench->steps, TRI_F64);
    bench->trace.time = pair_ratio(bench->times[STEP], bench->steps);
    bench->trace.processor = pair_ratio(bench->trace.cpu, bench->steps);
    bench->trace.seconds = event_seconds();
}

static enum tri_status time_steps(struct bench *bench, struct tri_error *error)
{
    struct tri_trace *trace = bench->traced ? tri_trace_create(bench->session->kernels->threads,
                                                               bench->config.trace_events)
                                            : NULL;
    enum tri_status status = take_times(bench, trace, error);
    if (status == TRI_OK && trace) {
        weigh_trace(bench, trace);
    }
    tri_trace_destroy(trace);
    for (int part = 0; status == TRI_OK && part < PARTS; part++) {
        bench->median[part] = median(bench->times[part], bench->steps);
    }
    return status;
}

/* ---- the numbers around it ------------------------------------------------------------------- */

static const struct tri_where meta = {TRI_PHASE_SETUP, TRI_KIND_META};

/* All ranks at once, as in a step. */
static double measure_ceiling(struct bench *bench)
{
    double gflops;
    if (!bench->with_ceiling) {
        bench->ceiling_way = "not measured";
        return (double)NAN;
    }
    const struct tri_ceiling_way *way = tri_ceiling_best(
        bench->config.precision == TRI_PRECISION_BF16, bench->session->kernels->threads, &gflops);
    bench->ceiling_way = way ? way->name : "unknown";
    tri_all_reduce_sum(tri_mesh_group(bench->session->mesh, TRI_ON_ALL), meta, &gflops, 1, TRI_F64);
    return gflops;
}

static void measure_use(struct bench *bench)
{
    struct rusage use;
    (void)getrusage(RUSAGE_SELF, &use);
    double peak = 1024.0 * (double)use.ru_maxrss;
    tri_all_reduce_max(tri_mesh_group(bench->session->mesh, TRI_ON_ALL), meta, &peak, 1, TRI_F64);
    tri_all_reduce_sum(tri_mesh_group(bench->session->mesh, TRI_ON_ALL), meta, &bench->cpu_seconds,
                       1, TRI_F64);
    bench->peak_bytes = peak;
}

/* ---- printing -------------------------------------------------------------------------------- */

struct figures {
    double tokens_per_second, gflops, ceiling, fraction;
    const char *precision;
    int ranks, threads;
};

static struct figures figures_get(const struct bench *bench)
{
    const struct tri_config *config = &bench->config;
    double tokens = (double)(config->train.global_batch * config->data.sequence_length);
    struct figures f = {.tokens_per_second = tokens / bench->median[STEP],
                        .ceiling = 0.5 * (bench->ceiling[0] + bench->ceiling[1]),
                        .precision = config->precision == TRI_PRECISION_BF16 ? "bf16" : "f32",
                        .ranks = bench->session->mesh->ranks,
                        .threads = bench->session->kernels->threads};
    f.gflops = 1e-9 * f.tokens_per_second * tri_shape_flops_per_token(config);
    f.fraction = f.gflops / f.ceiling;
    return f;
}

static void print_line(const struct bench *bench)
{
    struct figures f = figures_get(bench);
    char path[TRI_KERNELS_TEXT];
    tri_kernels_describe(tri_environment_kernels(), bench->config.reproducible, path);
    (void)printf("%s %s %dx%d: %.0f tokens/s, %.1f ms a step (", bench->shape, f.precision, f.ranks,
                 f.threads, f.tokens_per_second, 1e3 * bench->median[STEP]);
    for (int part = 0; part < STEP; part++) {
        (void)printf("%s%s %.1f", part ? ", " : "", part_names[part], 1e3 * bench->median[part]);
    }
    (void)printf("), %.1f ms of processor time a step, %.1f GFLOP/s, %.2f of %.0f (%s), peak "
                 "memory %.0f MB, loss %.3f, %s\n",
                 1e3 * bench->cpu_seconds, f.gflops, f.fraction, f.ceiling, bench->ceiling_way,
                 1e-6 * bench->peak_bytes, bench->loss, path);
}

static void print_trace(const struct bench *bench)
{
    (void)printf("a traced step: %.4f times as long, %.4f times the processor time (medians of "
                 "%lld pairs); %.0f events of rank 0, %.0f dropped in all; %.0f ns an event\n",
                 bench->trace.time, bench->trace.processor, (long long)bench->steps / 2,
                 bench->trace.events, bench->trace.lost, 1e9 * bench->trace.seconds);
}

static void print_json(const struct bench *bench)
{
    struct figures f = figures_get(bench);
    json_t *root = json_object();
    json_t *split = json_object();
    for (int part = 0; part < STEP; part++) {
        (void)json_object_set_new(split, part_names[part],
                                  tri_json_number(1e3 * bench->median[part]));
    }
    (void)json_object_set_new(root, "shape", json_string(bench->shape));
    (void)json_object_set_new(root, "precision", json_string(f.precision));
    (void)json_object_set_new(root, "ranks", json_integer(f.ranks));
    (void)json_object_set_new(root, "threads", json_integer(f.threads));
    (void)json_object_set_new(root, "steps", json_integer(bench->steps));
    (void)json_object_set_new(root, "tokens_per_second", tri_json_number(f.tokens_per_second));
    (void)json_object_set_new(root, "step_ms", tri_json_number(1e3 * bench->median[STEP]));
    (void)json_object_set_new(root, "step_split_ms", split);
    (void)json_object_set_new(root, "processor_ms", tri_json_number(1e3 * bench->cpu_seconds));
    (void)json_object_set_new(root, "gflops", tri_json_number(f.gflops));
    (void)json_object_set_new(root, "ceiling_gflops", tri_json_number(f.ceiling));
    (void)json_object_set_new(root, "ceiling", json_string(bench->ceiling_way));
    (void)json_object_set_new(root, "fraction", tri_json_number(f.fraction));
    (void)json_object_set_new(root, "peak_bytes", tri_json_number(bench->peak_bytes));
    (void)json_object_set_new(root, "loss", tri_json_number(bench->loss));
    char path[TRI_KERNELS_TEXT];
    tri_kernels_describe(tri_environment_kernels(), bench->config.reproducible, path);
    (void)json_object_set_new(root, "kernels", json_string(path));
    tri_print_json(root);
}

/* ---- setup ----------------------------------------------------------------------------------- */

static const struct tri_option options[] = {
    {"--precision", true}, {"--steps", true},  {"--warm", true},
    {"--threads", true},   {"--json", false},  {"--no-ceiling", false},
    {"--config", false},   {"--trace", false}, {NULL, false}};

static const struct tri_command command = {
    .name = "step",
    .help = "step SHAPE [--precision f32|bf16] [--steps N] [--warm N] [--threads N] [--no-ceiling] "
            "[--json] [--config] [--trace] [key=value …]\n",
    .options = options,
    .words = 1,
    .word_names = {"SHAPE"},
    .traits = TRI_TAKES_OVERRIDES,
};

static const struct tri_shape *find_shape(const char *name)
{
    const struct tri_shape *shape = tri_shapes;
    while (shape->name && strcmp(shape->name, name) != 0) {
        shape++;
    }
    return shape->name ? shape : NULL;
}

/* The shape's config with the options as further overrides; the command line's own win. */
static enum tri_status configure(struct bench *bench, const struct tri_arguments *arguments,
                                 struct tri_error *error)
{
    char precision[32];
    char threads[32];
    const char *given = tri_arguments_get(arguments, "--precision");
    int64_t count;
    TRI_TRY(tri_arguments_int(arguments, "--steps", 1, 1000000, 10, &bench->steps, error));
    TRI_TRY(tri_arguments_int(arguments, "--warm", 0, 1000000, 2, &bench->warm, error));
    TRI_TRY(tri_arguments_int(arguments, "--threads", 0, 4096, 0, &count, error));
    bench->json = tri_arguments_has(arguments, "--json");
    bench->config_only = tri_arguments_has(arguments, "--config");
    bench->traced = tri_arguments_has(arguments, "--trace");
    bench->with_ceiling = !tri_arguments_has(arguments, "--no-ceiling");
    if (bench->traced && bench->steps < 2) {
        return tri_fail(error, TRI_BAD_INPUT,
                        "command line: --steps: found %lld, expected two or more with --trace",
                        (long long)bench->steps);
    }
    const struct tri_shape *shape = find_shape(arguments->words[0]);
    if (!shape) {
        return tri_fail(error, TRI_BAD_INPUT, "no shape is called '%s'; usage: %s",
                        arguments->words[0], command.help);
    }
    bench->shape = shape->name;
    (void)snprintf(precision, sizeof(precision), "precision=%s", given ? given : "f32");
    (void)snprintf(threads, sizeof(threads), "threads=%lld", (long long)count);
    int n = arguments->num_overrides;
    char **overrides = tri_alloc(TRI_MEMORY_OTHER, (size_t)(n + 2) * sizeof(*overrides));
    overrides[0] = precision;
    overrides[1] = threads;
    memcpy(overrides + 2, arguments->overrides, (size_t)n * sizeof(*overrides));
    enum tri_status status =
        tri_config_parse(&tri_strategies, shape->name, shape->yaml, strlen(shape->yaml), n + 2,
                         overrides, &bench->config, error);
    tri_free(overrides);
    return status;
}

static void print_config(const struct bench *bench, const struct tri_comm *comm)
{
    char *yaml = tri_config_to_yaml(&bench->config);
    if (tri_comm_rank(comm) == 0) {
        (void)fputs(yaml, stdout);
    }
    tri_free(yaml);
}

static enum tri_status run(struct bench *bench, struct tri_comm *comm, struct tri_error *error)
{
    if (bench->config_only) {
        print_config(bench, comm);
        return TRI_OK;
    }
    TRI_TRY(tri_session_create(comm, &bench->config, true, 0, NULL, &bench->session, error));
    if (bench->config.data.train[0]) {
        TRI_TRY(tri_text_open_training(bench->session, &bench->text, error));
    }
    for (int part = 0; part < PARTS; part++) {
        bench->times[part] =
            tri_alloc(TRI_MEMORY_OTHER, (size_t)bench->steps * sizeof(*bench->times[part]));
    }
    bench->trace.cpu =
        tri_alloc(TRI_MEMORY_OTHER, (size_t)bench->steps * sizeof(*bench->trace.cpu));
    bench->ceiling[0] = measure_ceiling(bench);
    TRI_TRY(time_steps(bench, error));
    bench->ceiling[1] = measure_ceiling(bench);
    measure_use(bench);
    tri_session_print_memory(bench->session);
    if (tri_comm_rank(comm) == 0) {
        (bench->json ? print_json : print_line)(bench);
        if (bench->traced && !bench->json) {
            print_trace(bench);
        }
    }
    return TRI_OK;
}

static enum tri_status bench_main(int argc, char **argv, struct tri_comm *comm,
                                  struct tri_error *error)
{
    struct tri_arguments arguments;
    struct bench *bench = tri_alloc(TRI_MEMORY_OTHER, sizeof(*bench));
    enum tri_status status = tri_arguments_parse(&command, argc, argv, &arguments, error);
    if (status == TRI_OK && arguments.help) {
        status = tri_fail(error, TRI_BAD_INPUT, "usage: %s", command.help);
    }
    if (status == TRI_OK) {
        status = configure(bench, &arguments, error);
    }
    tri_arguments_fini(&arguments);
    if (status == TRI_OK) {
        status = run(bench, comm, error);
    }
    for (int part = 0; part < PARTS; part++) {
        tri_free(bench->times[part]);
    }
    tri_free(bench->trace.cpu);
    tri_text_close(&bench->text);
    tri_session_destroy(bench->session);
    tri_free(bench);
    return status;
}

int main(int argc, char **argv)
{
    struct tri_error error = {0};
    struct tri_comm *comm = tri_comm_start(&argc, &argv);
    enum tri_status status = bench_main(argc - 1, argv + 1, comm, &error);
    if (status != TRI_OK && tri_comm_rank(comm) == 0) {
        tri_log_error(&error);
    }
    (void)fflush(NULL);
    tri_comm_finish(comm);
    return (int)status;
}
