#include "plan/search.h"

#include "base/memory.h"
#include "base/meter.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Layouts whose options are all tried, and values of an option. */
enum { BEST_LAYOUTS = 6, MICRO_BATCHES = 12, RECOMPUTES = 3, CHUNKS_MOST = 16 };

struct search {
    const struct tri_config *config;
    int ranks;
    const struct tri_search *open;
    tri_time_rank rehearse;
    const struct tri_cluster *cluster;
    struct tri_way_plan *ways;
    int count, room;
};

void tri_way_apply(const struct tri_way_plan *way, struct tri_config *config)
{
    const struct tri_layout *layout = &way->plan.layout;
    config->parallel = tri_layout_parallel(*layout);
    config->train.recompute = way->recompute;
    config->train.micro_batch = way->micro_batch;
    if (way->schedule) {
        config->moe.schedule = way->schedule;
    }
    if (way->chunks > 0) {
        config->moe.chunks = way->chunks;
        config->moe.chunks_backward = way->chunks_backward;
    }
}

bool tri_schedule_has_chunks(const struct tri_schedule_kind *schedule)
{
    const char *const *key = schedule->strategy.keys;
    while (key && *key && strcmp(*key, "moe.chunks") != 0) {
        key++;
    }
    return key && *key;
}

static void take_chunks(const struct tri_config *config, struct tri_way_plan *way)
{
    bool any = way->schedule && tri_schedule_has_chunks(way->schedule);
    way->chunks = any ? config->moe.chunks : 0;
    way->chunks_backward = any ? config->moe.chunks_backward : 0;
}

static struct tri_way_plan way_of_config(const struct search *s, struct tri_layout layout)
{
    const struct tri_config *config = s->config;
    struct tri_way_plan way = {
        .plan.layout = layout,
        .schedule = config->moe.num_experts > 0 ? config->moe.schedule : NULL,
        .recompute = config->train.recompute,
        .micro_batch = config->train.micro_batch,
    };
    take_chunks(config, &way);
    return way;
}

static bool is_same_layout(const struct tri_way_plan *a, const struct tri_way_plan *b)
{
    return memcmp(&a->plan.layout, &b->plan.layout, sizeof(struct tri_layout)) == 0;
}

/* The index of the same way; -1 when it was not tried. */
static int find(const struct search *s, const struct tri_way_plan *way)
{
    for (int i = 0; i < s->count; i++) {
        const struct tri_way_plan *other = &s->ways[i];
        if (is_same_layout(other, way) && other->schedule == way->schedule &&
            other->chunks == way->chunks && other->chunks_backward == way->chunks_backward &&
            other->recompute == way->recompute && other->micro_batch == way->micro_batch) {
            return i;
        }
    }
    return -1;
}

static void keep(struct search *s, const struct tri_way_plan *way)
{
    if (s->count == s->room) {
        int room = 2 * s->room + 64;
        struct tri_way_plan *more = tri_alloc(TRI_MEMORY_OTHER, (size_t)room * sizeof(*more));
        for (int i = 0; i < s->count; i++) {
            more[i] = s->ways[i];
        }
        tri_free(s->ways);
        s->ways = more;
        s->room = room;
    }
    s->ways[s->count] = *way;
    s->ways[s->count].order = s->count;
    s->count++;
}

/* Plans it, unless it is there. Returns its index. */
static int try_way(struct search *s, struct tri_way_plan way)
{
    int there = find(s, &way);
    if (there >= 0) {
        return there;
    }
    struct tri_config *config = tri_alloc(TRI_MEMORY_OTHER, sizeof(*config));
    *config = *s->config;
    tri_way_apply(&way, config);
    struct tri_error error;
    if (tri_config_finish(config, &error) == TRI_OK) {
        way.plan = tri_layout_plan_timed(config, way.plan.layout, s->rehearse, s->cluster);
    } else {
        way.plan.refused = true;
        (void)snprintf(way.plan.reason, sizeof(way.plan.reason), "%s", error.message);
    }
    way.fits = s->cluster->memory == 0 || way.plan.memory.total <= s->cluster->memory;
    tri_free(config);
    keep(s, &way);
    return s->count - 1;
}

/* What differs in less differs by rounding. */
static double picoseconds(const struct tri_way_plan *way)
{
    return floor(way->plan.time.step * 1e12 + 0.5);
}

static int compare(const void *a, const void *b)
{
    const struct tri_way_plan *x = a;
    const struct tri_way_plan *y = b;
    if (x->plan.refused != y->plan.refused) {
        return x->plan.refused ? 1 : -1;
    }
    if (x->fits != y->fits) {
        return x->fits ? -1 : 1;
    }
    double of_x = picoseconds(x), of_y = picoseconds(y);
    if (x->fits && of_x != of_y) {
        return of_x < of_y ? -1 : 1;
    }
    if (x->plan.memory.total != y->plan.memory.total) {
        return x->plan.memory.total < y->plan.memory.total ? -1 : 1;
    }
    return x->order - y->order;
}

/* ---- layouts --------------------------------------------------------------------------------- */

static void try_layout(struct search *s, struct tri_layout layout)
{
    struct tri_way_plan way = way_of_config(s, layout);
    int tried = try_way(s, way);
    if (s->open->memory && !s->ways[tried].plan.refused && !s->ways[tried].fits) {
        way.recompute = -1;
        way.micro_batch = 1;
        (void)try_way(s, way);
    }
}

/* Pairs of tensor and expert that divide the ranks. */
static int count_layouts(int ranks)
{
    int count = 0;
    for (int tensor = 1; tensor <= ranks; tensor++) {
        for (int expert = 1; expert <= ranks / tensor; expert++) {
            count += ranks % (tensor * expert) == 0;
        }
    }
    return count;
}

static void try_layouts(struct search *s)
{
    tri_meter_begin(TRI_METER_LAYOUTS, count_layouts(s->ranks), "planning");
    for (int tensor = 1; tensor <= s->ranks; tensor++) {
        for (int expert = 1; expert <= s->ranks / tensor; expert++) {
            if (s->ranks % (tensor * expert) != 0) {
                continue;
            }
            struct tri_layout layout = {tensor, expert, s->ranks / (tensor * expert), tensor, 1, 1};
            try_layout(s, layout);
            layout.expert_tensor = 1;
            if (tensor > 1 && s->config->moe.num_experts > 0) {
                try_layout(s, layout);
            }
            tri_meter_add(TRI_METER_LAYOUTS, 1);
        }
    }
    tri_meter_end();
}

/* Those of the best ways, each once: at most so many. Returns how many. */
static int best_layouts(const struct search *s, struct tri_way_plan best[BEST_LAYOUTS])
{
    int layouts = 0;
    qsort(s->ways, (size_t)s->count, sizeof(*s->ways), compare);
    for (int i = 0; i < s->count && layouts < BEST_LAYOUTS && !s->ways[i].plan.refused; i++) {
        bool seen = false;
        for (int j = 0; j < layouts; j++) {
            seen = seen || is_same_layout(&best[j], &s->ways[i]);
        }
        if (!seen) {
            best[layouts++] = s->ways[i];
        }
    }
    return layouts;
}

/* A way that takes a grid: its own schedule does, or is the first open one that does. False: there
 * is none. */
static bool can_be_deep(const struct search *s, struct tri_way_plan *way)
{
    const struct tri_strategy *const *list = s->config->known->schedules;
    if (!way->schedule || way->schedule->deep) {
        return true;
    }
    for (; (s->open->autos & TRI_AUTO_SCHEDULE) && *list; list++) {
        const struct tri_schedule_kind *kind = (const struct tri_schedule_kind *)*list;
        if (kind->dense == way->schedule->dense && kind->deep) {
            way->schedule = kind;
            take_chunks(s->config, way);
            return true;
        }
    }
    return false;
}

/* Of a layout all grids that there are; what no config may have is left out, not refused. */
static void try_grids(struct search *s, struct tri_way_plan way)
{
    struct tri_layout *layout = &way.plan.layout;
    struct tri_config *config = tri_alloc(TRI_MEMORY_OTHER, sizeof(*config));
    struct tri_error ignored;
    if (!can_be_deep(s, &way)) {
        tri_free(config);
        return;
    }
    for (int cross = 1; cross <= layout->tensor; cross++) {
        for (int depth = 1; depth <= layout->tensor / cross; depth++) {
            if (layout->tensor % (cross * depth) != 0 || cross * depth == 1) {
                continue;
            }
            layout->cross = cross;
            layout->depth = depth;
            *config = *s->config;
            tri_way_apply(&way, config);
            if (tri_config_finish(config, &ignored) == TRI_OK) {
                (void)try_way(s, way);
            }
        }
    }
    tri_free(config);
}

/* ---- options --------------------------------------------------------------------------------- */

/* The config's, powers of two below a replica's rows, and those. */
static int micro_batches(const struct search *s, struct tri_layout layout, int64_t *values)
{
    int64_t replicas = (int64_t)layout.expert * layout.data;
    int64_t rows = (s->config->train.global_batch + replicas - 1) / replicas;
    int count = 0;
    values[count++] = s->config->train.micro_batch;
    for (int64_t micro = 1; micro < rows && count < MICRO_BATCHES - 1; micro *= 2) {
        values[count++] = micro;
    }
    values[count++] = rows;
    return count;
}

/* What memory is saved with. */
static void try_memory(struct search *s, struct tri_way_plan way)
{
    const int64_t recomputes[RECOMPUTES] = {s->config->train.recompute, 0, -1};
    int64_t micro[MICRO_BATCHES];
    int micros = s->open->memory ? micro_batches(s, way.plan.layout, micro) : 0;
    (void)try_way(s, way);
    for (int i = 0; i < RECOMPUTES; i++) {
        for (int j = 0; j < micros; j++) {
            way.recompute = recomputes[i];
            way.micro_batch = micro[j];
            (void)try_way(s, way);
        }
    }
}

/* The best number of chunks of one direction, the other's as they are. */
static void try_chunks(struct search *s, struct tri_way_plan *way, bool backward)
{
    int64_t *chunks = backward ? &way->chunks_backward : &way->chunks;
    int64_t best = *chunks;
    int first = try_way(s, *way);
    for (int64_t value = 1; value <= CHUNKS_MOST; value *= 2) {
        *chunks = value;
        int other = try_way(s, *way);
        if (compare(&s->ways[other], &s->ways[first]) < 0) {
            first = other;
            best = value;
        }
    }
    *chunks = best;
}

static void try_schedule(struct search *s, struct tri_way_plan way)
{
    take_chunks(s->config, &way);
    if (way.chunks > 0 && (s->open->autos & TRI_AUTO_CHUNKS)) {
        try_chunks(s, &way, false);
    }
    if (way.chunks > 0 && (s->open->autos & TRI_AUTO_CHUNKS_BACKWARD)) {
        try_chunks(s, &way, true);
    }
    try_memory(s, way);
    tri_meter_add(TRI_METER_OPTIONS, 1);
}

/* Whether ranks that share experts, which are numbered one after another, share a host. */
static bool is_on_one_host(const struct search *s, struct tri_layout layout)
{
    int hosts = s->cluster->ranks_per_host;
    return s->ranks <= hosts || hosts % (layout.tensor * layout.expert) == 0;
}

/* Of the list the schedule number i that may be tried; NULL: it is none. */
static const struct tri_schedule_kind *open_schedule(const struct search *s,
                                                     struct tri_layout layout, int i)
{
    const struct tri_schedule_kind *kind =
        (const struct tri_schedule_kind *)s->config->known->schedules[i];
    bool tried = kind->dense == s->config->moe.schedule->dense &&
                 !(kind->by_host && is_on_one_host(s, layout));
    return tried ? kind : NULL;
}

/* How many try_options tries, the config's own first. */
static int count_schedules(const struct search *s, struct tri_layout layout)
{
    int count = 1;
    bool open = s->config->moe.num_experts > 0 && (s->open->autos & TRI_AUTO_SCHEDULE);
    for (int i = 0; open && s->config->known->schedules[i]; i++) {
        count += open_schedule(s, layout, i) ? 1 : 0;
    }
    return count;
}

static void try_options(struct search *s, struct tri_layout layout)
{
    struct tri_way_plan way = way_of_config(s, layout);
    bool open = way.schedule && (s->open->autos & TRI_AUTO_SCHEDULE);
    try_schedule(s, way);
    for (int i = 0; open && s->config->known->schedules[i]; i++) {
        way.schedule = open_schedule(s, layout, i);
        if (way.schedule) {
            try_schedule(s, way);
        }
    }
}

static struct tri_layout layout_of(const struct tri_config *config, int ranks)
{
    const struct tri_config_parallel *p = &config->parallel;
    return (struct tri_layout){
        (int)p->tensor,        (int)p->expert,           ranks / (int)(p->tensor * p->expert),
        (int)p->expert_tensor, (int)tri_config_depth(p), (int)tri_config_cross(p)};
}

/* Of ways as fast as the first, as far as a plan can tell, the one that was tried first, as the
 * nearest to the config, takes its place. */
static void prefer_near(struct search *s)
{
    int near = 0;
    for (int i = 1; i < s->count && !s->ways[i].plan.refused && s->ways[i].fits; i++) {
        if (s->ways[i].plan.time.step <= TRI_TELLS_APART * s->ways[0].plan.time.step &&
            s->ways[i].order < s->ways[near].order) {
            near = i;
        }
    }
    struct tri_way_plan first = s->ways[near];
    for (int i = near; i > 0; i--) {
        s->ways[i] = s->ways[i - 1];
    }
    s->ways[0] = first;
}

struct tri_way_plan *tri_plan_ways(const struct tri_config *config, int ranks,
                                   const struct tri_search *search, tri_time_rank rehearse,
                                   const struct tri_cluster *cluster, int *count)
{
    struct search s = {
        .config = config, .ranks = ranks, .open = search, .rehearse = rehearse, .cluster = cluster};
    struct tri_way_plan best[BEST_LAYOUTS];
    if (search->autos & TRI_AUTO_LAYOUT) {
        try_layouts(&s);
        int layouts = best_layouts(&s, best);
        for (int i = 0; i < layouts; i++) {
            try_grids(&s, best[i]);
        }
    } else {
        try_layout(&s, layout_of(config, ranks));
    }
    int layouts = best_layouts(&s, best);
    int options = 0;
    for (int i = 0; i < layouts; i++) {
        options += count_schedules(&s, best[i].plan.layout);
    }
    tri_meter_begin(TRI_METER_OPTIONS, options, "planning with other options");
    for (int i = 0; i < layouts; i++) {
        try_options(&s, best[i].plan.layout);
    }
    tri_meter_end();
    qsort(s.ways, (size_t)s.count, sizeof(*s.ways), compare);
    prefer_near(&s);
    *count = s.count;
    return s.ways;
}

/* ---- in words -------------------------------------------------------------------------------- */

void tri_way_explain(const struct tri_way_plan *way, const struct tri_way_plan *best,
                     const struct tri_cluster *cluster, char *text, size_t size)
{
    const struct tri_layout_plan *plan = &way->plan;
    if (plan->refused || way == best) {
        (void)snprintf(text, size, "%s", plan->refused ? plan->reason : "best");
        return;
    }
    if (!way->fits) {
        (void)snprintf(text, size, "takes %.2f GB, a rank has %.2f",
                       (double)plan->memory.total / 1e9, (double)cluster->memory / 1e9);
        return;
    }
    int worst = 0;
    double most = 0.0;
    for (int part = 0; part < TRI_PART_COUNT; part++) {
        double behind = plan->time.part[part] - best->plan.time.part[part];
        if (behind > most) {
            most = behind;
            worst = part;
        }
    }
    if (most > 0.0) {
        (void)snprintf(text, size, "%s +%.3f ms", tri_part_name((enum tri_part)worst), 1e3 * most);
    } else {
        (void)snprintf(text, size, "no faster, %+.1f MB",
                       (double)(plan->memory.total - best->plan.memory.total) / 1e6);
    }
}
