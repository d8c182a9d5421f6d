/* The frame around every call: the watchdog's record, the debug check, the clock, the
 * ledger. */
#include "comm/internal.h"

#include "base/clock.h"
#include "base/trace.h"

#include <stdio.h>

const char *tri_verb_name(enum tri_verb verb)
{
    static const char *const names[TRI_VERB_COUNT] = {
        [TRI_VERB_ALL_REDUCE] = "all_reduce",
        [TRI_VERB_ALL_REDUCE_MAX] = "all_reduce_max",
        [TRI_VERB_ALL_GATHER] = "all_gather",
        [TRI_VERB_REDUCE_SCATTER] = "reduce_scatter",
        [TRI_VERB_ALL_TO_ALL] = "all_to_all",
        [TRI_VERB_COUNTS] = "all_to_all_counts",
        [TRI_VERB_BROADCAST] = "broadcast",
        [TRI_VERB_SEND] = "send",
        [TRI_VERB_RECEIVE] = "receive",
        [TRI_VERB_BARRIER] = "barrier",
        [TRI_VERB_AGREE] = "agree",
        [TRI_VERB_START] = "starting the job",
        [TRI_VERB_MESH] = "connecting the ranks",
        [TRI_VERB_FINISH] = "ending the job",
    };
    return names[verb];
}

static enum tri_op op_of(enum tri_verb verb)
{
    static const enum tri_op ops[TRI_VERB_COUNT] = {
        [TRI_VERB_ALL_REDUCE] = TRI_OP_ALL_REDUCE,
        [TRI_VERB_ALL_REDUCE_MAX] = TRI_OP_ALL_REDUCE,
        [TRI_VERB_ALL_GATHER] = TRI_OP_ALL_GATHER,
        [TRI_VERB_REDUCE_SCATTER] = TRI_OP_REDUCE_SCATTER,
        [TRI_VERB_ALL_TO_ALL] = TRI_OP_ALL_TO_ALL,
        [TRI_VERB_COUNTS] = TRI_OP_ALL_TO_ALL,
        [TRI_VERB_BROADCAST] = TRI_OP_BROADCAST,
        [TRI_VERB_SEND] = TRI_OP_SEND,
        [TRI_VERB_RECEIVE] = TRI_OP_SEND,
        [TRI_VERB_BARRIER] = TRI_OP_COUNT,
        [TRI_VERB_AGREE] = TRI_OP_ALL_REDUCE,
        [TRI_VERB_START] = TRI_OP_COUNT,
        [TRI_VERB_MESH] = TRI_OP_COUNT,
        [TRI_VERB_FINISH] = TRI_OP_COUNT,
    };
    return ops[verb];
}

struct tri_call tri_call_of_parts(struct tri_group *group, enum tri_verb verb,
                                  struct tri_where where, const int64_t *counts,
                                  enum tri_dtype dtype)
{
    int64_t n = 0;
    for (int r = 0; r < group->size; r++) {
        TRI_REQUIRE(counts[r] >= 0);
        n += counts[r];
    }
    int64_t sent = verb == TRI_VERB_ALL_GATHER ? counts[group->rank] : n;
    return (struct tri_call){
        .group = group,
        .verb = verb,
        .where = where,
        .dtype = dtype,
        .n = n,
        .parts = counts,
        .bytes = sent * (int64_t)tri_dtype_size(dtype),
    };
}

struct tri_call tri_call_of_rows(struct tri_group *group, struct tri_where where,
                                 const int64_t *send_rows, int64_t width, enum tri_dtype dtype)
{
    int64_t rows = 0, rows_between = 0, messages_between = 0;
    for (int r = 0; r < group->size; r++) {
        rows += r == group->rank ? 0 : send_rows[r];
        if (send_rows[r] > 0 && !tri_group_is_near(group, r)) {
            rows_between += send_rows[r];
            messages_between++;
        }
    }
    return (struct tri_call){
        .group = group,
        .verb = TRI_VERB_ALL_TO_ALL,
        .where = where,
        .dtype = dtype,
        .n = width,
        .bytes = rows * width * (int64_t)tri_dtype_size(dtype),
        .bytes_between = rows_between * width * (int64_t)tri_dtype_size(dtype),
        .messages_between = messages_between,
    };
}

void tri_call_note_rows(struct tri_call *call, const int64_t *send_rows, const int64_t *recv_rows)
{
    const struct tri_group *group = call->group;
    enum { MEMBERS = 64 };
    if (!tri_trace_is_on() || group->size > MEMBERS) {
        return;
    }
    for (int r = 0; r < group->size; r++) {
        uint64_t bit = r == group->rank ? 0 : (uint64_t)1 << r;
        call->to |= send_rows[r] > 0 ? bit : 0;
        call->from |= recv_rows[r] > 0 ? bit : 0;
    }
}

void tri_call_describe(const struct tri_call *call, char *text, size_t size)
{
    const struct tri_group *group = call->group;
    if (call->verb == TRI_VERB_BARRIER || call->verb == TRI_VERB_AGREE) {
        (void)snprintf(text, size, "%s over group %s", tri_verb_name(call->verb),
                       tri_group_name(group));
        return;
    }
    char extra[64] = "";
    if (call->verb == TRI_VERB_BROADCAST) {
        (void)snprintf(extra, sizeof(extra), " from %d", call->peer);
    } else if (tri_verb_is_pair(call->verb)) {
        (void)snprintf(extra, sizeof(extra), " %s rank %d",
                       call->verb == TRI_VERB_SEND ? "to" : "from", tri_call_peer(call));
    } else if (call->parts) {
        int used = snprintf(extra, sizeof(extra), " in parts");
        for (int r = 0; r < group->size && used < (int)sizeof(extra); r++) {
            used += snprintf(extra + used, sizeof(extra) - (size_t)used, " %lld",
                             (long long)call->parts[r]);
        }
    }
    (void)snprintf(text, size, "%s%s of %lld %s%s over group %s (%s, %s)",
                   tri_verb_name(call->verb), call->begun ? " (begun)" : "", (long long)call->n,
                   tri_dtype_name(call->dtype), extra, tri_group_name(group),
                   tri_phase_name(call->where.phase), tri_kind_name(call->where.kind));
}

int tri_call_peer(const struct tri_call *call)
{
    const struct tri_mesh *mesh = call->group->mesh;
    return tri_mesh_member(mesh->size, call->group->id, mesh->rank, call->peer);
}

void tri_call_enter(struct tri_call *call)
{
    struct tri_group *group = call->group;
    if (!group->carries) {
        call->began = call->entered = tri_clock_now();
        return;
    }
    bool pair = tri_verb_is_pair(call->verb);
    call->sequence = pair ? 0 : ++group->sequence;
    tri_call_resume(call);
    call->began = call->entered;
    if (!pair) {
        tri_check_call(call);
    }
}

void tri_call_resume(struct tri_call *call)
{
    if (call->group->carries) {
        tri_watch_enter(call);
    }
    call->entered = tri_clock_now();
}

/* A part of the call, or all of it, to who traces; bytes and messages are told once. */
static void trace(const struct tri_call *call, enum tri_trace_sort sort, double began, double ended,
                  double exposed)
{
    bool whole = sort == TRI_TRACE_CALL || sort == TRI_TRACE_FLIGHT;
    bool pair = tri_verb_is_pair(call->verb);
    bool booked = whole && op_of(call->verb) != TRI_OP_COUNT;
    tri_trace_tell(&(struct tri_trace_event){
        .sort = (uint8_t)sort,
        .began = began,
        .ended = ended,
        .name = tri_verb_name(call->verb),
        .key = booked ? tri_op_name(op_of(call->verb)) : NULL,
        .value = whole ? call->bytes : 0,
        .to = whole ? call->to : 0,
        .from = whole ? call->from : 0,
        .number = pair ? call->message : (uint32_t)call->sequence,
        .exposed = (float)exposed,
        .peer = pair ? call->peer : -1,
        .group = (uint8_t)call->group->id,
        .phase = (uint8_t)call->where.phase,
        .kind = (uint8_t)call->where.kind,
    });
}

void tri_call_pause(struct tri_call *call)
{
    bool carries = call->group->carries;
    if (carries) {
        tri_watch_leave(call->group->mesh->comm->watch);
    } else {
        tri_call_tell(call, op_of(call->verb), TRI_CALL_BEGIN);
    }
    double now = tri_clock_now();
    call->exposed += now - call->entered;
    if (carries && tri_trace_is_on()) {
        trace(call, TRI_TRACE_BEGIN, call->entered, now, 0.0);
    }
}

static void trace_end(const struct tri_call *call, double now, double exposed)
{
    if (!call->begun && !tri_verb_is_pair(call->verb)) {
        trace(call, TRI_TRACE_CALL, call->began, now, exposed);
        return;
    }
    trace(call, TRI_TRACE_END, call->entered, now, 0.0);
    trace(call, TRI_TRACE_FLIGHT, call->began, call->arrived > 0.0 ? call->arrived : now, exposed);
}

void tri_call_leave(struct tri_call *call)
{
    const struct tri_mesh *mesh = call->group->mesh;
    double seconds = 0.0;
    double exposed = 0.0;
    if (call->group->carries) {
        double now = tri_clock_now();
        double idle = call->arrived > 0.0 ? call->entered - call->arrived : 0.0;
        seconds = now - call->began - idle;
        exposed = call->exposed + now - call->entered;
        tri_watch_leave(call->group->mesh->comm->watch);
        if (tri_trace_is_on()) {
            trace_end(call, now, exposed);
        }
    } else if (call->group->end) {
        bool begun = call->begun || tri_verb_is_pair(call->verb);
        tri_call_tell(call, op_of(call->verb), begun ? TRI_CALL_END : TRI_CALL_WHOLE);
        double now = tri_clock_now();
        double until = begun && call->arrived < now ? call->arrived : now;
        seconds = until - call->began;
        exposed = call->exposed + now - call->entered;
    }
    if (call->verb != TRI_VERB_BARRIER && mesh->ledger) {
        tri_ledger_book(mesh->ledger, op_of(call->verb), call->group->id, call->where.phase,
                        call->where.kind, call->bytes, seconds, exposed);
        tri_ledger_book_between(mesh->ledger, op_of(call->verb), call->group->id, call->where.phase,
                                call->where.kind, call->bytes_between, call->messages_between);
    }
}
