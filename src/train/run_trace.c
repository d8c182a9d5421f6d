#include "train/run_trace.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/memory.h"
#include "train/ending.h"
#include "train/environment.h"
#include "train/session.h"
#include "train/trace_text.h"

#include <math.h>

static const struct tri_where where = {TRI_PHASE_SETUP, TRI_KIND_META};

enum { TEXT_BYTES = 256 << 10, ROUNDS = 16 };

struct tri_run_trace {
    struct tri_session *session;
    struct tri_trace *trace;
    char *text; /* [TEXT_BYTES] */
    bool on;
    int64_t first, last;       /* steps that are traced, as far as there are such */
    double start;              /* when the first began */
    double offset, round_trip; /* what this rank's clock shows more than rank 0's, and how sure */
};

static bool is_wanted(const struct tri_config *config)
{
    return config->trace_steps[0] > 0;
}

size_t tri_run_trace_bytes(const struct tri_config *config, int threads)
{
    return is_wanted(config) ? tri_trace_bytes(threads, config->trace_events) + TEXT_BYTES : 0;
}

struct tri_run_trace *tri_run_trace_create(struct tri_session *session, int64_t step)
{
    const struct tri_config *config = session->config;
    if (!is_wanted(config)) {
        return NULL;
    }
    if (step >= config->trace_steps[1]) {
        tri_log_info("trace.steps [%lld, %lld] are over: this start goes on from step %lld, and "
                     "traces none",
                     (long long)config->trace_steps[0], (long long)config->trace_steps[1],
                     (long long)step);
        return NULL;
    }
    struct tri_run_trace *trace = tri_alloc(TRI_MEMORY_OTHER, sizeof(*trace));
    trace->session = session;
    trace->first = config->trace_steps[0] > step ? config->trace_steps[0] : step + 1;
    trace->last = config->trace_steps[1];
    trace->trace = tri_trace_create(session->kernels->threads, config->trace_events);
    trace->text = tri_alloc(TRI_MEMORY_TRACE, TEXT_BYTES);
    return trace;
}

/* The buffers go when they are written; with them the trace is over. */
static void release(struct tri_run_trace *trace)
{
    tri_trace_attach(NULL);
    tri_trace_destroy(trace->trace);
    tri_free(trace->text);
    trace->trace = NULL;
    trace->text = NULL;
    trace->on = false;
}

void tri_run_trace_destroy(struct tri_run_trace *trace)
{
    if (trace) {
        release(trace);
        tri_free(trace);
    }
}

/* ---- clocks ---------------------------------------------------------------------------------- */

/* Messages to and fro, which rank 0 times: the fastest says best when the other clock was read. */
static void time_messages(struct tri_group *world, int other, double best[2])
{
    best[1] = (double)INFINITY;
    for (int i = 0; i < ROUNDS; i++) {
        double there = 0.0;
        double sent = tri_clock_now();
        tri_send(world, where, other, &there, 1, TRI_F64);
        tri_receive(world, where, other, &there, 1, TRI_F64);
        double back = tri_clock_now();
        if (back - sent < best[1]) {
            best[0] = there - 0.5 * (sent + back);
            best[1] = back - sent;
        }
    }
    /* No further apart than that can say: one clock. */
    best[0] = fabs(best[0]) <= 0.5 * best[1] ? 0.0 : best[0];
    tri_send(world, where, other, best, 2, TRI_F64);
}

static void answer_messages(struct tri_group *world, double best[2])
{
    for (int i = 0; i < ROUNDS; i++) {
        double now;
        tri_receive(world, where, 0, &now, 1, TRI_F64);
        now = tri_clock_now();
        tri_send(world, where, 0, &now, 1, TRI_F64);
    }
    tri_receive(world, where, 0, best, 2, TRI_F64);
}

static void compare_clocks(struct tri_run_trace *trace)
{
    const struct tri_mesh *mesh = trace->session->mesh;
    struct tri_group *world = tri_mesh_group(mesh, TRI_ON_ALL);
    for (int other = 1; other < mesh->ranks; other++) {
        double best[2] = {0.0, 0.0};
        if (mesh->rank == 0) {
            time_messages(world, other, best);
        } else if (mesh->rank == other) {
            answer_messages(world, best);
            trace->offset = best[0];
            trace->round_trip = best[1];
        }
    }
}

/* ---- the file -------------------------------------------------------------------------------- */

/* What rank 0 has written so far, and what became of it. */
struct file {
    struct tri_writer *writer;
    enum tri_status status;
    struct tri_error *error;
};

static void write_text(void *state, const char *text, size_t bytes)
{
    struct file *file = state;
    if (file->status == TRI_OK) {
        file->status = tri_writer_write(file->writer, text, bytes, file->error);
    }
}

/* To rank 0, which is told how long it is; nothing is the end. */
static void send_text(void *state, const char *text, size_t bytes)
{
    int64_t length = (int64_t)bytes;
    tri_send(state, where, 0, &length, 1, TRI_I64);
    if (length > 0) {
        tri_send(state, where, 0, text, length, TRI_U8);
    }
}

/* Takes all of a rank's, whatever has become of the file. */
static void receive_text(struct tri_group *world, int from, char *text, struct file *file)
{
    int64_t length;
    for (;;) {
        tri_receive(world, where, from, &length, 1, TRI_I64);
        if (length == 0) {
            return;
        }
        TRI_REQUIRE(length <= TEXT_BYTES);
        tri_receive(world, where, from, text, length, TRI_U8);
        write_text(file, text, (size_t)length);
    }
}

/* What each rank knows of itself. */
enum { OFFSET, ROUND_TRIP, EVENTS, LOST, FIGURES };

/* [ranks, FIGURES], for tri_free. */
static double *gather_figures(const struct tri_run_trace *trace)
{
    const struct tri_mesh *mesh = trace->session->mesh;
    size_t ranks = (size_t)mesh->ranks;
    double *all = tri_alloc(TRI_MEMORY_OTHER, ranks * FIGURES * sizeof(*all));
    int64_t *counts = tri_alloc(TRI_MEMORY_OTHER, ranks * sizeof(*counts));
    double *own = all + (size_t)mesh->rank * FIGURES;
    own[OFFSET] = trace->offset;
    own[ROUND_TRIP] = trace->round_trip;
    for (int thread = 0; thread < tri_trace_threads(trace->trace); thread++) {
        int64_t count, lost;
        (void)tri_trace_events(trace->trace, thread, &count, &lost);
        own[EVENTS] += (double)count;
        own[LOST] += (double)lost;
    }
    for (size_t r = 0; r < ranks; r++) {
        counts[r] = FIGURES;
    }
    tri_all_gather_v(tri_mesh_group(mesh, TRI_ON_ALL), where, all, counts, TRI_F64);
    tri_free(counts);
    return all;
}

static void print_head(struct tri_trace_out *out, const struct tri_run_trace *trace,
                       const double *figures)
{
    tri_trace_print(out,
                    "{\"displayTimeUnit\":\"ms\",\"otherData\":{\"program\":\"%s\","
                    "\"first_step\":%lld,\"last_step\":%lld,\"ranks\":[",
                    tri_version(), (long long)trace->first, (long long)trace->last);
    for (int r = 0; r < trace->session->mesh->ranks; r++) {
        const double *f = figures + (size_t)r * FIGURES;
        tri_trace_print(out,
                        "%s\n{\"rank\":%d,\"events\":%.0f,\"dropped\":%.0f,"
                        "\"clock_offset_us\":%.3f,\"round_trip_us\":%.3f}",
                        r > 0 ? "," : "", r, f[EVENTS], f[LOST], 1e6 * f[OFFSET],
                        1e6 * f[ROUND_TRIP]);
    }
    /* All others have a comma before them. */
    tri_trace_print(out, "]},\n\"traceEvents\":[\n"
                         "{\"ph\":\"M\",\"pid\":1,\"tid\":1,\"name\":\"process_sort_index\","
                         "\"args\":{\"sort_index\":0}}");
}

static void tell(const struct tri_run_trace *trace, const char *name,
                 const struct tri_run_folder *folder, const double *figures)
{
    double events = 0.0, lost = 0.0;
    for (int r = 0; r < trace->session->mesh->ranks; r++) {
        events += figures[r * FIGURES + EVENTS];
        lost += figures[r * FIGURES + LOST];
    }
    tri_log_info("trace    steps %lld to %lld, %.0f events: %s/%s, for ui.perfetto.dev or "
                 "chrome://tracing",
                 (long long)trace->first, (long long)trace->last, events,
                 tri_run_folder_path(folder), name);
    if (lost > 0.0) {
        tri_log_warn("%s/%s: %.0f events more were dropped: a thread keeps trace.events (%lld)",
                     tri_run_folder_path(folder), name, lost,
                     (long long)trace->session->config->trace_events);
    }
}

/* The file's 0 on this rank's clock: when the first rank began. */
static double find_zero(const struct tri_run_trace *trace)
{
    double latest = -(trace->start - trace->offset);
    tri_all_reduce_max(tri_mesh_group(trace->session->mesh, TRI_ON_ALL), where, &latest, 1,
                       TRI_F64);
    return trace->offset - latest;
}

static enum tri_status write_file(struct tri_run_trace *trace, const struct tri_run_folder *folder,
                                  struct tri_error *error)
{
    char name[64];
    const struct tri_mesh *mesh = trace->session->mesh;
    struct tri_group *world = tri_mesh_group(mesh, TRI_ON_ALL);
    struct file file = {.error = error};
    bool root = mesh->rank == 0;
    double *figures = gather_figures(trace);
    struct tri_trace_times times = {trace->start, find_zero(trace)};
    struct tri_trace_out out = {.text = trace->text,
                                .room = TEXT_BYTES,
                                .take = root ? write_text : send_text,
                                .state = root ? (void *)&file : (void *)world};
    (void)snprintf(name, sizeof(name), TRI_TRACE_STEM "%lld-%lld.json", (long long)trace->first,
                   (long long)trace->last);
    if (root) {
        file.status = tri_run_folder_create_file(folder, name, &file.writer, error);
        print_head(&out, trace, figures);
    }
    tri_trace_write(trace->trace, &times, mesh, &out);
    tri_trace_flush(&out);
    if (!root) {
        send_text(world, NULL, 0);
    }
    for (int from = 1; root && from < mesh->ranks; from++) {
        receive_text(world, from, trace->text, &file);
    }
    if (root) {
        tri_trace_print(&out, "\n]}\n");
        tri_trace_flush(&out);
        file.status = tri_run_folder_close_file(folder, file.writer, file.status, error);
        file.status = tri_ending_of_own_file(file.status, error);
        if (file.status == TRI_OK) {
            tell(trace, name, folder, figures);
        }
    }
    tri_free(figures);
    return tri_comm_agree(world, file.status, error);
}

/* ---- the steps ------------------------------------------------------------------------------- */

void tri_run_trace_begin(struct tri_run_trace *trace, int64_t step)
{
    if (!trace || trace->on || step != trace->first) {
        return;
    }
    struct tri_mesh *mesh = trace->session->mesh;
    struct tri_ledger *ledger = mesh->ledger;
    mesh->ledger = NULL;
    compare_clocks(trace);
    mesh->ledger = ledger;
    trace->on = true;
    trace->start = tri_clock_now();
    tri_trace_attach(trace->trace);
}

enum tri_status tri_run_trace_end(struct tri_run_trace *trace, int64_t step, bool last,
                                  const struct tri_run_folder *folder, struct tri_error *error)
{
    if (!trace || !trace->on || (step < trace->last && !last)) {
        return TRI_OK;
    }
    struct tri_mesh *mesh = trace->session->mesh;
    struct tri_ledger *ledger = mesh->ledger;
    tri_trace_attach(NULL);
    trace->last = step;
    mesh->ledger = NULL;
    enum tri_status status = write_file(trace, folder, error);
    mesh->ledger = ledger;
    release(trace);
    return status;
}
