#include "base/trace.h"

#include "base/clock.h"
#include "base/memory.h"
#include "base/runtime.h"

#include <string.h>

enum { LINE = 64 };

/* Each in lines of its own: threads write theirs at once. */
struct buffer {
    _Alignas(LINE) int64_t count;
    int64_t lost;
    struct tri_trace_event *event;
};

/* One block: this, a buffer for each thread, their events. */
struct tri_trace {
    int threads;
    int64_t events;
    uint64_t changes; /* of the runtime's memory that have been told of */
    int64_t held[TRI_MEMORY_COUNT];
    struct buffer buffer[];
};

static size_t bytes_before_events(int threads)
{
    return sizeof(struct tri_trace) + (size_t)threads * sizeof(struct buffer);
}

size_t tri_trace_bytes(int threads, int64_t events)
{
    return bytes_before_events(threads) +
           (size_t)threads * (size_t)events * sizeof(struct tri_trace_event);
}

struct tri_trace *tri_trace_create(int threads, int64_t events)
{
    size_t bytes = tri_trace_bytes(threads, events);
    struct tri_trace *trace = tri_alloc(TRI_MEMORY_TRACE, bytes);
    /* A page that is touched for the first time in a step takes longer than all that is told on
     * it. */
    memset(trace, 0, bytes);
    trace->threads = threads;
    trace->events = events;
    struct tri_trace_event *event = (void *)((char *)trace + bytes_before_events(threads));
    for (int i = 0; i < threads; i++) {
        trace->buffer[i].event = event + i * events;
    }
    return trace;
}

void tri_trace_destroy(struct tri_trace *trace)
{
    tri_free(trace);
}

struct tri_trace_event *tri_trace_events(struct tri_trace *trace, int thread, int64_t *count,
                                         int64_t *lost)
{
    const struct buffer *buffer = &trace->buffer[thread];
    *count = buffer->count;
    *lost = buffer->lost;
    return buffer->event;
}

int tri_trace_threads(const struct tri_trace *trace)
{
    return trace->threads;
}

void tri_trace_attach(struct tri_trace *trace)
{
    tri_runtime_get()->trace = trace;
}

/* ---- telling --------------------------------------------------------------------------------- */

static void add(struct tri_trace *trace, int thread, const struct tri_trace_event *event)
{
    struct buffer *buffer = &trace->buffer[thread];
    if (buffer->count == trace->events) {
        buffer->lost++;
        return;
    }
    buffer->event[buffer->count++] = *event;
}

/* The counters are behind a lock: they are asked for when something was taken or freed. */
static void tell_memory(struct tri_trace *trace, double now)
{
    const struct tri_memory_counters counters = tri_memory_get();
    for (int i = 0; i < TRI_MEMORY_COUNT; i++) {
        if (counters.current[i] != trace->held[i] || trace->changes == 0) {
            trace->held[i] = counters.current[i];
            add(trace, 0,
                &(struct tri_trace_event){.sort = TRI_TRACE_MEMORY,
                                          .began = now,
                                          .ended = now,
                                          .name = tri_memory_name((enum tri_memory)i),
                                          .value = counters.current[i],
                                          .peer = i});
        }
    }
}

static void look_at_memory(struct tri_runtime *runtime, double now)
{
    uint64_t changes = atomic_load_explicit(&runtime->memory.changes, memory_order_relaxed);
    if (changes != runtime->trace->changes) {
        tell_memory(runtime->trace, now);
        runtime->trace->changes = changes;
    }
}

bool tri_trace_is_on(void)
{
    return tri_runtime_get()->trace != NULL;
}

double tri_trace_begin(void)
{
    return tri_runtime_get()->trace ? tri_clock_now() : 0.0;
}

void tri_trace_tell(const struct tri_trace_event *event)
{
    struct tri_runtime *runtime = tri_runtime_get();
    if (runtime->trace) {
        add(runtime->trace, 0, event);
        look_at_memory(runtime, event->ended);
    }
}

void tri_trace_span(double began, double ended, const char *name, const char *key, int64_t value)
{
    struct tri_runtime *runtime = tri_runtime_get();
    if (runtime->trace) {
        add(runtime->trace, 0,
            &(struct tri_trace_event){.sort = TRI_TRACE_SPAN,
                                      .began = began,
                                      .ended = ended,
                                      .name = name,
                                      .key = key,
                                      .value = value});
        look_at_memory(runtime, ended);
    }
}

void tri_trace_end(double began, const char *name, const char *key, int64_t value)
{
    if (began > 0.0) {
        tri_trace_span(began, tri_clock_now(), name, key, value);
    }
}

void tri_trace_gauge(const char *name, int64_t value)
{
    if (tri_trace_is_on()) {
        double now = tri_clock_now();
        tri_trace_tell(&(struct tri_trace_event){
            .sort = TRI_TRACE_GAUGE, .began = now, .ended = now, .name = name, .value = value});
    }
}

void tri_trace_end_of_thread(int thread, double began, const char *name)
{
    struct tri_trace *trace = tri_runtime_get()->trace;
    if (trace && began > 0.0 && thread < trace->threads) {
        add(trace, thread,
            &(struct tri_trace_event){
                .sort = TRI_TRACE_SPAN, .began = began, .ended = tri_clock_now(), .name = name});
    }
}
