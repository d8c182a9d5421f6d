#include "plan/search.h"

#include "base/memory.h"
#include "base/meter.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Layouts whose options are all tried, and values of an option. */
enum { BEST_LAYOUTS = 6, MICRO_BATCHES = 12, RECOMPUTES = 3, CHUNKS_MOST = 8 };

struct search {
    const struct tri_config *config;
    int ranks;
    tri_time_rank rehearse;
    const struct tri_cluster *cluster;
    struct tri_way_plan *ways;
    int count, room;
    bool only_counts; /* options, and plans none */
    int64_t options;
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
        config->moe.chunks = config->moe.chunks_backward = way->chunks;
    }
}

static bool has_chunks(const struct tri_schedule_kind *schedule)
{
    const char *const *key = schedule->strategy.keys;
    while (key && *key && strcmp(*key, "moe.chunks") != 0) {
        key++;
    }
    return key && *key;
}

static struct tri_way_plan way_of_config(const struct tri_config *config, struct tri_layout layout)
{
    return (struct tri_way_plan){
        .plan.layout = layout,
        .schedule = config->moe.num_experts > 0 ? config->moe.schedule : NULL,
        .recompute = config->train.recompute,
        .micro_batch = config->train.micro_batch,
    };
}

static bool is_there(const struct search *s, const struct tri_way_plan *way)
{
    bool found = false;
    for (int i = 0; i < s->count; i++) {
        const struct tri_way_plan *other = &s->ways[i];
        found = found ||
                (memcmp(&other->plan.layout, &way->plan.layout, sizeof(struct tri_layout)) == 0 &&
                 other->schedule == way->schedule && other->chunks == way->chunks &&
                 other->recompute == way->recompute && other->micro_batch == way->micro_batch);
    }
    return found;
}

/* Plans it, unless it is there. */
static void try_way(struct search *s, struct tri_way_plan way)
{
    if (is_there(s, &way)) {
        return;
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
    s->ways[s->count++] = way;
}

static void try_layout(struct search *s, struct tri_layout layout)
{
    struct tri_way_plan way = way_of_config(s->config, layout);
    try_way(s, way);
    const struct tri_way_plan *last = &s->ways[s->count - 1];
    if (!last->plan.refused && !last->fits) {
        way.recompute = -1;
        way.micro_batch = 1;
        try_way(s, way);
    }
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
    if (x->plan.time.step != y->plan.time.step) {
        return x->plan.time.step < y->plan.time.step ? -1 : 1;
    }
    if (x->plan.memory.total != y->plan.memory.total) {
        return x->plan.memory.total < y->plan.memory.total ? -1 : 1;
    }
    int layouts = memcmp(&x->plan.layout, &y->plan.layout, sizeof(struct tri_layout));
    return layouts != 0 ? layouts : x->micro_batch < y->micro_batch ? -1 : 1;
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

static void try_rest(struct search *s, struct tri_way_plan way)
{
    const int64_t recomputes[RECOMPUTES] = {s->config->train.recompute, 0, -1};
    int64_t micro[MICRO_BATCHES];
    int micros = micro_batches(s, way.plan.layout, micro);
    for (int i = 0; i < RECOMPUTES; i++) {
        for (int j = 0; j < micros; j++) {
            way.recompute = recomputes[i];
            way.micro_batch = micro[j];
            if (s->only_counts) {
                s->options++;
                continue;
            }
            try_way(s, way);
            tri_meter_add(TRI_METER_OPTIONS, 1);
        }
    }
}

static void try_options(struct search *s, struct tri_layout layout)
{
    const struct tri_strategy *const *list = s->config->known->schedules;
    struct tri_way_plan way = way_of_config(s->config, layout);
    if (!way.schedule) {
        try_rest(s, way);
        return;
    }
    for (; *list; list++) {
        const struct tri_schedule_kind *kind = (const struct tri_schedule_kind *)*list;
        if (kind->dense != s->config->moe.schedule->dense) {
            continue;
        }
        way.schedule = kind;
        way.chunks = 0;
        try_rest(s, way);
        for (way.chunks = 2; has_chunks(kind) && way.chunks <= CHUNKS_MOST; way.chunks *= 2) {
            try_rest(s, way);
        }
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

struct tri_way_plan *tri_plan_ways(const struct tri_config *config, int ranks,
                                   tri_time_rank rehearse, const struct tri_cluster *cluster,
                                   int *count)
{
    struct search s = {.config = config, .ranks = ranks, .rehearse = rehearse, .cluster = cluster};
    tri_meter_begin(TRI_METER_LAYOUTS, count_layouts(ranks), "planning");
    for (int tensor = 1; tensor <= ranks; tensor++) {
        for (int expert = 1; expert <= ranks / tensor; expert++) {
            if (ranks % (tensor * expert) != 0) {
                continue;
            }
            struct tri_layout layout = {tensor, expert, ranks / (tensor * expert), tensor, 1, 1};
            try_layout(&s, layout);
            layout.expert_tensor = 1;
            if (tensor > 1 && config->moe.num_experts > 0) {
                try_layout(&s, layout);
            }
            tri_meter_add(TRI_METER_LAYOUTS, 1);
        }
    }
    tri_meter_end();
    qsort(s.ways, (size_t)s.count, sizeof(*s.ways), compare);
    struct tri_layout best[BEST_LAYOUTS];
    int layouts = 0;
    for (int i = 0; i < s.count && layouts < BEST_LAYOUTS && !s.ways[i].plan.refused; i++) {
        bool seen = false;
        for (int j = 0; j < layouts; j++) {
            seen = seen || memcmp(&best[j], &s.ways[i].plan.layout, sizeof(best[j])) == 0;
        }
        if (!seen) {
            best[layouts++] = s.ways[i].plan.layout;
        }
    }
    for (int i = 0; i < 2 * layouts; i++) {
        s.only_counts = i < layouts;
        if (i == layouts) {
            tri_meter_begin(TRI_METER_OPTIONS, s.options, "planning with other options");
        }
        try_options(&s, best[i % layouts]);
    }
    if (layouts > 0) {
        tri_meter_end();
    }
    qsort(s.ways, (size_t)s.count, sizeof(*s.ways), compare);
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
