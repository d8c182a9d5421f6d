#include "train/trace_text.h"

#include "base/memory.h"
#include "base/work.h"
#include "comm/listener.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Tracks of a rank: its own thread, the ways of messages that are under way at once, and the
 * threads of OpenMP. Viewers take process 0 and thread 0 for idle ones. */
enum { OWN_TRACK = 1, FIRST_LANE = 2, FIRST_TEAM = 1000, LANES = 16, SCOPES = 8 };

/* One rank's events on their way. */
struct text {
    const struct tri_trace_times *times;
    const struct tri_mesh *mesh;
    struct tri_trace_out *out;
    int64_t held[TRI_MEMORY_COUNT];
    /* By lane: when it is free again. */
    int64_t *lane;
    int lanes, lanes_most;
    /* What spans that say a layer are open, and until when. */
    struct {
        int64_t layer, end;
    } scope[SCOPES];
    int scopes;
};

/* ---- pieces ---------------------------------------------------------------------------------- */

void tri_trace_flush(struct tri_trace_out *out)
{
    if (out->used > 0) {
        out->take(out->state, out->text, out->used);
        out->used = 0;
    }
}

void tri_trace_print(struct tri_trace_out *out, const char *format, ...)
{
    for (int try = 0; try < 2; try++) {
        va_list arguments;
        va_start(arguments, format);
        size_t left = out->room - out->used;
        int bytes = vsnprintf(out->text + out->used, left, format, arguments);
        va_end(arguments);
        TRI_REQUIRE(bytes >= 0);
        if ((size_t)bytes < left) {
            out->used += (size_t)bytes;
            return;
        }
        TRI_REQUIRE(try == 0);
        tri_trace_flush(out);
    }
}

/* Nanoseconds from the file's 0: whole, so that what is inside stays inside. */
static int64_t nanoseconds(const struct text *text, double time)
{
    double from = time < text->times->start ? text->times->start : time;
    int64_t passed = llround((from - text->times->zero) * 1e9);
    return passed > 0 ? passed : 0;
}

static int process(const struct text *text)
{
    return text->mesh->rank + 1;
}

/* Behind it "name" and what it has follow. */
static void print_event(const struct text *text, const char *phase, int track, int64_t at)
{
    tri_trace_print(text->out, ",\n{\"ph\":\"%s\",\"pid\":%d,\"tid\":%d,\"ts\":%lld.%03d", phase,
                    process(text), track, (long long)(at / 1000), (int)(at % 1000));
}

/* A nanosecond shorter: what begins when another ends does not touch it, and no viewer that reckons
 * in doubles takes it for a part of that. */
static void print_slice(const struct text *text, int track, int64_t began, int64_t ended,
                        const char *category, const char *prefix, const char *name)
{
    int64_t passed = ended > began ? ended - began - 1 : 0;
    print_event(text, "X", track, began);
    tri_trace_print(text->out, ",\"dur\":%lld.%03d,\"cat\":\"%s\",\"name\":\"%s%s\"",
                    (long long)(passed / 1000), (int)(passed % 1000), category, prefix, name);
}

/* ---- layers ---------------------------------------------------------------------------------- */

/* Events come in the order of their begins, outer ones first. */
static void enter_scope(struct text *text, const struct tri_trace_event *event, int64_t began,
                        int64_t ended)
{
    while (text->scopes > 0 && text->scope[text->scopes - 1].end <= began) {
        text->scopes--;
    }
    bool says = event->key && strcmp(event->key, "layer") == 0;
    if (event->sort == TRI_TRACE_SPAN && says && text->scopes < SCOPES) {
        text->scope[text->scopes].layer = event->value;
        text->scope[text->scopes++].end = ended;
    }
}

static void print_layer(const struct text *text, const char *before)
{
    if (text->scopes > 0) {
        tri_trace_print(text->out, "%s\"layer\":%lld", before,
                        (long long)text->scope[text->scopes - 1].layer);
    }
}

/* ---- calls ----------------------------------------------------------------------------------- */

static const struct tri_group *group_of(const struct text *text,
                                        const struct tri_trace_event *event)
{
    return tri_mesh_group(text->mesh, tri_groups[event->group].axes);
}

/* The lowest lane that is free; one more where none is. */
static int take_lane(struct text *text, int64_t began, int64_t ended)
{
    int lane = 0;
    while (lane < text->lanes && text->lane[lane] > began) {
        lane++;
    }
    if (lane == text->lanes_most) {
        text->lanes_most *= 2;
        text->lane = tri_resize(text->lane, (size_t)text->lanes_most * sizeof(*text->lane));
    }
    text->lanes += lane == text->lanes;
    text->lane[lane] = ended;
    return FIRST_LANE + lane;
}

/* Both ends of a message make the same number of what they know of it. */
static unsigned long long arrow_of(const struct tri_trace_event *event, int from, int to)
{
    enum { DROPPED = 12 }; /* of 64 bits: numbers in JSON are doubles */
    const int32_t known[5] = {event->peer >= 0, event->group, from, to, (int32_t)event->number};
    return (unsigned long long)(tri_work_hash(known, sizeof(known)) >> DROPPED);
}

static void print_arrow(const struct text *text, const char *phase, int track, int64_t at,
                        unsigned long long arrow)
{
    print_event(text, phase, track, at);
    tri_trace_print(text->out, "%s,\"cat\":\"message\",\"name\":\"message\",\"id\":%llu}",
                    phase[0] == 'f' ? ",\"bp\":\"e\"" : "", arrow);
}

/* From where rows were sent to where they came: an arrow begins, and ends, inside the slices of
 * both calls. */
static void print_arrows(const struct text *text, const struct tri_trace_event *event, int track,
                         int64_t began, int64_t ended)
{
    const struct tri_group *group = group_of(text, event);
    int own = text->mesh->rank;
    int64_t last = ended > began + 2 ? ended - 2 : began;
    bool sends = strcmp(event->name, "send") == 0;
    for (int m = 0; m < tri_group_size(group); m++) {
        bool pair = event->peer == m;
        uint64_t bit = m < 64 && event->peer < 0 ? (uint64_t)1 << m : 0;
        int other = tri_group_member(group, m);
        if ((event->to & bit) || (pair && sends)) {
            print_arrow(text, "s", track, began, arrow_of(event, own, other));
        }
        if ((event->from & bit) || (pair && !sends)) {
            print_arrow(text, "f", track, last, arrow_of(event, other, own));
        }
    }
}

static void print_call(struct text *text, const struct tri_trace_event *event, int64_t began,
                       int64_t ended, double waited)
{
    bool whole = event->sort == TRI_TRACE_CALL || event->sort == TRI_TRACE_FLIGHT;
    const char *prefix = event->sort == TRI_TRACE_BEGIN ? "begin "
                         : event->sort == TRI_TRACE_END ? "end "
                                                        : "";
    int track = event->sort == TRI_TRACE_FLIGHT ? take_lane(text, began, ended) : OWN_TRACK;
    print_slice(text, track, began, ended, "communication", prefix, event->name);
    tri_trace_print(text->out,
                    ",\"args\":{\"group\":\"%s\",\"phase\":\"%s\",\"kind\":\"%s\",\"number\":%u",
                    tri_groups[event->group].name, tri_phase_name((enum tri_phase)event->phase),
                    tri_kind_name((enum tri_kind)event->kind), event->number);
    if (event->key) {
        tri_trace_print(text->out, ",\"operation\":\"%s\",\"bytes\":%lld", event->key,
                        (long long)event->value);
    }
    if (event->sort != TRI_TRACE_FLIGHT) {
        tri_trace_print(text->out, ",\"wait_us\":%.3f", 1e6 * waited);
    }
    if (whole) {
        tri_trace_print(text->out, ",\"exposed_us\":%.3f", 1e6 * (double)event->exposed);
    }
    if (event->peer >= 0) {
        tri_trace_print(text->out, ",\"rank\":%d",
                        tri_group_member(group_of(text, event), event->peer));
    }
    print_layer(text, ",");
    tri_trace_print(text->out, "}}");
    if (whole && (event->to || event->from || event->peer >= 0)) {
        print_arrows(text, event, track, began, ended);
    }
}

/* ---- the rest -------------------------------------------------------------------------------- */

static void print_span(struct text *text, const struct tri_trace_event *event, int track,
                       int64_t began, int64_t ended)
{
    const char *category = event->sort == TRI_TRACE_WAIT ? "wait"
                           : track == OWN_TRACK          ? "work"
                                                         : "kernel";
    print_slice(text, track, began, ended, category, "", event->name);
    tri_trace_print(text->out, ",\"args\":{");
    bool layer = event->key && strcmp(event->key, "layer") == 0;
    if (event->key) {
        tri_trace_print(text->out, "\"%s\":%lld", event->key, (long long)event->value);
    }
    if (!layer && track == OWN_TRACK) {
        print_layer(text, event->key ? "," : "");
    }
    tri_trace_print(text->out, "}}");
}

static void print_counter(const struct text *text, int64_t at, const char *name, int64_t value)
{
    print_event(text, "C", OWN_TRACK, at);
    tri_trace_print(text->out, ",\"name\":\"%s\",\"args\":{\"bytes\":%lld}}", name,
                    (long long)value);
}

/* What is held of all categories: a viewer takes one that is left out for 0. */
static void print_memory(const struct text *text, int64_t at)
{
    int64_t total = 0;
    print_event(text, "C", OWN_TRACK, at);
    tri_trace_print(text->out, ",\"name\":\"memory\",\"args\":{");
    for (int i = 0; i < TRI_MEMORY_COUNT; i++) {
        total += text->held[i];
        tri_trace_print(text->out, "%s\"%s\":%lld", i > 0 ? "," : "",
                        tri_memory_name((enum tri_memory)i), (long long)text->held[i]);
    }
    tri_trace_print(text->out, "}}");
    print_counter(text, at, "memory, all", total);
}

static void name_track(const struct text *text, int track, const char *name, int number)
{
    tri_trace_print(text->out,
                    ",\n{\"ph\":\"M\",\"pid\":%d,\"tid\":%d,\"name\":\"thread_name\","
                    "\"args\":{\"name\":\"%s %d\"}}",
                    process(text), track, name, number);
    tri_trace_print(text->out,
                    ",\n{\"ph\":\"M\",\"pid\":%d,\"tid\":%d,\"name\":\"thread_sort_index\","
                    "\"args\":{\"sort_index\":%d}}",
                    process(text), track, track);
}

static void name_process(const struct text *text)
{
    char host[64] = "";
    (void)gethostname(host, sizeof(host) - 1);
    for (char *c = host; *c; c++) {
        bool plain = *c > ' ' && *c < 127 && *c != '"' && *c != '\\';
        *c = (char)(plain ? *c : '_');
    }
    const char *const metadata[][2] = {{"process_name", "name"}, {"process_labels", "labels"}};
    for (int i = 0; i < 2; i++) {
        tri_trace_print(
            text->out, ",\n{\"ph\":\"M\",\"pid\":%d,\"tid\":%d,\"name\":\"%s\",\"args\":{\"%s\":\"",
            process(text), OWN_TRACK, metadata[i][0], metadata[i][1]);
        if (i == 0) {
            tri_trace_print(text->out, "rank %d\"}}", text->mesh->rank);
        } else {
            tri_trace_print(text->out, "%s\"}}", host);
        }
    }
    tri_trace_print(text->out,
                    ",\n{\"ph\":\"M\",\"pid\":%d,\"tid\":%d,\"name\":\"process_sort_index\","
                    "\"args\":{\"sort_index\":%d}}",
                    process(text), OWN_TRACK, text->mesh->rank);
}

/* ---- the whole ------------------------------------------------------------------------------- */

/* By begin; of two that begin together the longer one, which holds the other. */
static int compare(const void *left, const void *right)
{
    const struct tri_trace_event *a = left, *b = right;
    if (a->began != b->began) {
        return a->began < b->began ? -1 : 1;
    }
    return (a->ended < b->ended) - (a->ended > b->ended);
}

/* Seconds of waits inside the call that is the first of these. */
static double waited_in(const struct tri_trace_event *event, int64_t count)
{
    double seconds = 0.0;
    for (int64_t i = 1; i < count && event[i].began < event->ended; i++) {
        seconds += event[i].sort == TRI_TRACE_WAIT ? event[i].ended - event[i].began : 0.0;
    }
    return seconds;
}

static void print_own(struct text *text, const struct tri_trace_event *event, int64_t count)
{
    int64_t began = nanoseconds(text, event->began), ended = nanoseconds(text, event->ended);
    bool memory_follows =
        count > 1 && event[1].sort == TRI_TRACE_MEMORY && event[1].began <= event->began;
    enter_scope(text, event, began, ended);
    switch ((enum tri_trace_sort)event->sort) {
    case TRI_TRACE_SPAN:
    case TRI_TRACE_WAIT:
        print_span(text, event, OWN_TRACK, began, ended);
        break;
    case TRI_TRACE_CALL:
    case TRI_TRACE_BEGIN:
    case TRI_TRACE_END:
        print_call(text, event, began, ended, waited_in(event, count));
        break;
    case TRI_TRACE_FLIGHT:
        print_call(text, event, began, ended, 0.0);
        break;
    case TRI_TRACE_GAUGE:
        print_counter(text, began, event->name, event->value);
        break;
    case TRI_TRACE_MEMORY:
        text->held[event->peer] = event->value;
        if (!memory_follows) {
            print_memory(text, began);
        }
        break;
    }
}

void tri_trace_write(struct tri_trace *trace, const struct tri_trace_times *times,
                     const struct tri_mesh *mesh, struct tri_trace_out *out)
{
    struct text text = {.times = times, .mesh = mesh, .out = out, .lanes_most = LANES};
    text.lane = tri_alloc(TRI_MEMORY_OTHER, LANES * sizeof(*text.lane));
    name_process(&text);
    name_track(&text, OWN_TRACK, "rank", mesh->rank);
    for (int thread = 0; thread < tri_trace_threads(trace); thread++) {
        int64_t count, lost;
        struct tri_trace_event *events = tri_trace_events(trace, thread, &count, &lost);
        qsort(events, (size_t)count, sizeof(*events), compare);
        if (thread > 0 && count > 0) {
            name_track(&text, FIRST_TEAM + thread, "thread", thread);
        }
        for (int64_t i = 0; i < count; i++) {
            if (thread == 0) {
                print_own(&text, &events[i], count - i);
            } else {
                print_span(&text, &events[i], FIRST_TEAM + thread,
                           nanoseconds(&text, events[i].began),
                           nanoseconds(&text, events[i].ended));
            }
            tri_work_progress();
        }
    }
    for (int lane = 0; lane < text.lanes; lane++) {
        name_track(&text, FIRST_LANE + lane, "under way", lane + 1);
    }
    tri_free(text.lane);
}
