#include "train/trace_file.h"

#include "support/small.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { OWN_TRACK = 1 };

struct slice {
    int64_t track; /* process and thread */
    int64_t began, ended;
};

struct arrow {
    uint64_t id;
    bool begins;
    int process;
    int64_t track, at;
};

static const json_t *events_of(const struct trace_file *file)
{
    return json_object_get(file->root, "traceEvents");
}

static const char *text_of(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    CHECK(text);
    return text;
}

static int64_t integer_of(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    CHECK(json_is_integer(value));
    return json_integer_value(value);
}

/* Microseconds with three digits. */
static int64_t nanoseconds_of(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    CHECK(json_is_number(value));
    double us = json_number_value(value);
    CHECK(us >= 0.0 && us < 1e15);
    return llround(us * 1e3);
}

static int64_t track_of(const json_t *event)
{
    return integer_of(event, "pid") << 32 | integer_of(event, "tid");
}

static bool is_phase(const json_t *event, const char *phase)
{
    return strcmp(text_of(event, "ph"), phase) == 0;
}

/* ---- slices ---------------------------------------------------------------------------------- */

static int compare_slices(const void *left, const void *right)
{
    const struct slice *a = left, *b = right;
    if (a->track != b->track) {
        return a->track < b->track ? -1 : 1;
    }
    if (a->began != b->began) {
        return a->began < b->began ? -1 : 1;
    }
    return (a->ended < b->ended) - (a->ended > b->ended);
}

/* Of a track, each is inside the ones that are open when it begins. */
static void check_nesting(const struct slice *slices, int64_t count)
{
    enum { DEEPEST = 64 };
    const struct slice *open[DEEPEST];
    int depth = 0;
    for (int64_t i = 0; i < count; i++) {
        const struct slice *slice = &slices[i];
        if (i > 0 && slice->track != slices[i - 1].track) {
            depth = 0;
        }
        while (depth > 0 && open[depth - 1]->ended <= slice->began) {
            depth--;
        }
        CHECK(depth == 0 || slice->ended <= open[depth - 1]->ended);
        CHECK(depth < DEEPEST);
        open[depth++] = slice;
    }
}

static bool is_in_slice(const struct slice *slices, int64_t count, const struct arrow *arrow)
{
    for (int64_t i = 0; i < count; i++) {
        if (slices[i].track == arrow->track && slices[i].began <= arrow->at &&
            arrow->at <= slices[i].ended) {
            return true;
        }
    }
    return false;
}

/* ---- arrows ---------------------------------------------------------------------------------- */

static int compare_arrows(const void *left, const void *right)
{
    const struct arrow *a = left, *b = right;
    if (a->id != b->id) {
        return a->id < b->id ? -1 : 1;
    }
    return b->begins - a->begins;
}

static void check_arrows(struct arrow *arrows, int64_t count, const struct slice *slices,
                         int64_t slice_count)
{
    enum { LATE_NS = 2000 }; /* threads read their clocks before they look */
    qsort(arrows, (size_t)count, sizeof(*arrows), compare_arrows);
    CHECK(count % 2 == 0);
    for (int64_t i = 0; i < count; i += 2) {
        const struct arrow *from = &arrows[i], *to = &arrows[i + 1];
        CHECK(from->id == to->id && from->begins && !to->begins);
        CHECK(i == 0 || arrows[i - 1].id != from->id);
        CHECK(from->process != to->process);
        CHECK(to->at + LATE_NS >= from->at);
        CHECK(is_in_slice(slices, slice_count, from) && is_in_slice(slices, slice_count, to));
    }
}

/* ---- the whole ------------------------------------------------------------------------------- */

enum { TRACKS = 256 };

/* The tracks that have a name. */
static int list_named(const struct trace_file *file, int64_t tracks[TRACKS])
{
    size_t i;
    const json_t *event;
    int count = 0;
    json_array_foreach((json_t *)(uintptr_t)events_of(file), i, event)
    {
        if (is_phase(event, "M") && strcmp(text_of(event, "name"), "thread_name") == 0) {
            CHECK(count < TRACKS);
            tracks[count++] = track_of(event);
        }
    }
    return count;
}

static bool is_among(const int64_t *tracks, int count, int64_t track)
{
    int i = 0;
    while (i < count && tracks[i] != track) {
        i++;
    }
    return i < count;
}

static void check_memory(const json_t *event, int64_t *total)
{
    const json_t *bytes = json_object_get(event, "args");
    if (strcmp(text_of(event, "name"), "memory") == 0) {
        *total = 0;
        for (int i = 0; i < TRI_MEMORY_COUNT; i++) {
            *total += integer_of(bytes, tri_memory_name((enum tri_memory)i));
        }
    } else if (strcmp(text_of(event, "name"), "memory, all") == 0) {
        CHECK(integer_of(bytes, "bytes") == *total);
    }
}

static void take_events(struct trace_file *file, struct slice *slices, struct arrow *arrows,
                        int64_t *arrow_count)
{
    size_t i;
    const json_t *event;
    int64_t total = 0;
    int64_t named[TRACKS];
    int names = list_named(file, named);
    json_array_foreach((json_t *)(uintptr_t)events_of(file), i, event)
    {
        int process = (int)integer_of(event, "pid");
        CHECK(process >= 1 && process <= file->ranks && integer_of(event, "tid") >= OWN_TRACK);
        if (is_phase(event, "M")) {
            continue;
        }
        int64_t at = nanoseconds_of(event, "ts");
        file->end_us = fmax(file->end_us, (double)at / 1e3);
        if (is_phase(event, "X")) {
            slices[file->slices++] =
                (struct slice){track_of(event), at, at + nanoseconds_of(event, "dur")};
            CHECK(is_among(named, names, track_of(event)));
        } else if (is_phase(event, "C")) {
            check_memory(event, &total);
        } else {
            CHECK(is_phase(event, "s") || is_phase(event, "f"));
            arrows[(*arrow_count)++] =
                (struct arrow){(uint64_t)integer_of(event, "id"), is_phase(event, "s"), process,
                               track_of(event), at};
        }
    }
}

void trace_file_read(const char *path, int ranks, bool whole, struct trace_file *file)
{
    json_error_t why;
    *file = (struct trace_file){.root = json_load_file(path, JSON_REJECT_DUPLICATES, &why),
                                .ranks = ranks};
    if (!file->root) {
        tri_panic(TRI_FAILED, "%s: line %d: %s", path, why.line, why.text);
    }
    size_t events = json_array_size(events_of(file));
    struct slice *slices = calloc(events, sizeof(*slices));
    struct arrow *arrows = calloc(events, sizeof(*arrows));
    CHECK(events > 0 && slices && arrows);
    int64_t arrow_count = 0;
    take_events(file, slices, arrows, &arrow_count);
    qsort(slices, (size_t)file->slices, sizeof(*slices), compare_slices);
    check_nesting(slices, file->slices);
    if (whole) {
        check_arrows(arrows, arrow_count, slices, file->slices);
    }
    file->arrows = arrow_count / 2;
    for (int rank = 0; rank < ranks; rank++) {
        file->dropped += (int64_t)trace_file_of_rank(file, rank, "dropped");
    }
    free(slices);
    free(arrows);
}

/* ---- what it says ---------------------------------------------------------------------------- */

double trace_file_of_rank(const struct trace_file *file, int rank, const char *key)
{
    const json_t *other = json_object_get(file->root, "otherData");
    const json_t *ranks = json_object_get(other, "ranks");
    CHECK((int)json_array_size(ranks) == file->ranks);
    const json_t *entry = json_array_get(ranks, (size_t)rank);
    CHECK(integer_of(entry, "rank") == rank && json_is_number(json_object_get(entry, key)));
    return json_number_value(json_object_get(entry, key));
}

static int find_name(const char *name, int count, const char *(*name_of)(int i))
{
    int i = 0;
    while (i < count && strcmp(name_of(i), name) != 0) {
        i++;
    }
    CHECK(i < count);
    return i;
}

static const char *op_name(int i)
{
    return tri_op_name((enum tri_op)i);
}

static const char *group_name(int i)
{
    return tri_groups[i].name;
}

static const char *phase_name(int i)
{
    return tri_phase_name((enum tri_phase)i);
}

static const char *kind_name(int i)
{
    return tri_kind_name((enum tri_kind)i);
}

struct tri_ledger_cell *trace_file_cell(struct tri_ledger *ledger, const char *operation,
                                        const char *group, const char *phase, const char *kind)
{
    return &ledger->cell[find_name(operation, TRI_OP_COUNT, op_name)][find_name(
        group, TRI_GROUP_COUNT, group_name)][find_name(phase, TRI_PHASE_COUNT, phase_name)]
                        [find_name(kind, TRI_KIND_COUNT, kind_name)];
}

void trace_file_sum(const struct trace_file *file, int rank, struct tri_ledger *sum)
{
    size_t i;
    const json_t *event;
    tri_ledger_reset(sum);
    json_array_foreach((json_t *)(uintptr_t)events_of(file), i, event)
    {
        const json_t *call = json_object_get(event, "args");
        if (integer_of(event, "pid") != rank + 1 || !is_phase(event, "X") ||
            !json_object_get(call, "operation")) {
            continue;
        }
        struct tri_ledger_cell *cell =
            trace_file_cell(sum, text_of(call, "operation"), text_of(call, "group"),
                            text_of(call, "phase"), text_of(call, "kind"));
        cell->calls++;
        cell->bytes += integer_of(call, "bytes");
    }
}

int64_t trace_file_count(const struct trace_file *file, int rank, const char *name, bool own)
{
    size_t i;
    const json_t *event;
    int64_t count = 0;
    json_array_foreach((json_t *)(uintptr_t)events_of(file), i, event)
    {
        count += is_phase(event, "X") && integer_of(event, "pid") == rank + 1 &&
                 (!own || integer_of(event, "tid") == OWN_TRACK) &&
                 strcmp(text_of(event, "name"), name) == 0;
    }
    return count;
}

static int64_t most_of(const struct trace_file *file, int rank, const char *name, const char *key)
{
    size_t i;
    const json_t *event;
    int64_t most = -1;
    json_array_foreach((json_t *)(uintptr_t)events_of(file), i, event)
    {
        if (is_phase(event, "C") && integer_of(event, "pid") == rank + 1 &&
            strcmp(text_of(event, "name"), name) == 0) {
            int64_t value = integer_of(json_object_get(event, "args"), key);
            most = value > most ? value : most;
        }
    }
    return most;
}

int64_t trace_file_most(const struct trace_file *file, int rank, enum tri_memory category)
{
    return most_of(file, rank, "memory", tri_memory_name(category));
}

int64_t trace_file_gauge(const struct trace_file *file, int rank, const char *name)
{
    return most_of(file, rank, name, "bytes");
}
