/* What a rank does and when, as it goes. Whoever does something worth seeing tells it here; train/
 * writes it down afterwards (train/run_trace.h). Nobody looks unless a trace is attached to the
 * runtime of the calling thread: till then to tell is to look there, and no clock is read.
 *
 * What is told lies in buffers that were taken and touched before: one of the rank's own thread,
 * and one of each thread of OpenMP that works for it. A buffer that is full takes no more, and
 * counts what it has lost. */
#ifndef TRIDENT_BASE_TRACE_H
#define TRIDENT_BASE_TRACE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum tri_trace_sort {
    TRI_TRACE_SPAN,   /* something that the thread did; what is told inside is inside */
    TRI_TRACE_WAIT,   /* for messages of a call */
    TRI_TRACE_CALL,   /* a call of a group from begin to end */
    TRI_TRACE_BEGIN,  /* of a call that is begun and ended: what the thread spent in begin */
    TRI_TRACE_END,    /* and in end */
    TRI_TRACE_FLIGHT, /* and its messages' way, which is no thread's: told when it ends */
    TRI_TRACE_GAUGE,  /* a number at a time */
    TRI_TRACE_MEMORY  /* bytes that the runtime holds of a category, which have changed */
};

struct tri_trace_event {
    double began, ended; /* tri_clock_now */
    const char *name;    /* static, as key is */
    const char *key;     /* of a span: what value is, NULL: nothing; of calls: what they are booked
                            as, NULL: as nothing */
    int64_t value;       /* of calls: bytes, as they are booked */
    /* Of calls alone. to, from: the members of the group that rows went to and came from, a bit
     * each, where the group has no more than 64; between two ranks the other one. */
    uint64_t to, from;
    uint32_t number; /* which call of its group, or message from one member to another */
    float exposed;   /* seconds that no computation hid */
    int32_t peer;    /* member of the group, of what is between two ranks; else -1. MEMORY: which */
    uint8_t sort, group, phase, kind;
};

struct tri_trace;

/* Bytes that a trace takes: so many events of each of so many threads, the rank's own among
 * them. */
size_t tri_trace_bytes(int threads, int64_t events);
/* Counted as TRACE, with every page touched. */
struct tri_trace *tri_trace_create(int threads, int64_t events) __attribute__((returns_nonnull));
void tri_trace_destroy(struct tri_trace *trace);

/* From now on what the calling thread and those that work for its runtime do is told to the trace;
 * NULL: to nobody. Borrowed. No team of threads works meanwhile. */
void tri_trace_attach(struct tri_trace *trace);

/* The events of thread 0, the rank's own, or another, in the order of their ends; *lost: how many
 * more there were. Borrowed; the caller may sort them. */
struct tri_trace_event *tri_trace_events(struct tri_trace *trace, int thread, int64_t *count,
                                         int64_t *lost);
int tri_trace_threads(const struct tri_trace *trace);

/* Whether anybody looks. */
bool tri_trace_is_on(void);
/* The time, where anybody looks; else 0. */
double tri_trace_begin(void);
/* A span since then till now; nothing where that is 0. */
void tri_trace_end(double began, const char *name, const char *key, int64_t value);
/* The same between two times that the caller knows. */
void tri_trace_span(double began, double ended, const char *name, const char *key, int64_t value);
/* Any other event of the rank's own thread. */
void tri_trace_tell(const struct tri_trace_event *event);
void tri_trace_gauge(const char *name, int64_t value);
/* From any thread of a team: a span of this thread of it, since `began` till now. */
void tri_trace_end_of_thread(int thread, double began, const char *name);

#endif
