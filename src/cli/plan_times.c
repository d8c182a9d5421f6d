#include "cli/plan_times.h"

#include "base/memory.h"
#include "train/rehearsal.h"

#include <stdio.h>

enum { REASON = 1200, KEYS = 256 };

static double milliseconds(double seconds)
{
    return 1e3 * seconds;
}

/* ---- one layout ------------------------------------------------------------------------------ */

void tri_print_times(const struct tri_cluster *cluster, const struct tri_step_time *time)
{
    (void)printf("a step on %s, ms: %.3f =", cluster->name, milliseconds(time->step));
    for (int part = TRI_PART_REST + 1; part <= TRI_PART_COUNT; part++) {
        enum tri_part which = part < TRI_PART_COUNT ? (enum tri_part)part : TRI_PART_REST;
        (void)printf("  %s %.3f", tri_part_name(which), milliseconds(time->part[which]));
    }
    (void)printf("; communication that nothing hides %.3f\n", milliseconds(time->exposed));
}

void tri_json_add_chosen(json_t *object, const char *chosen)
{
    if (chosen[0]) {
        (void)json_object_set_new(object, "auto", json_string(chosen));
    }
}

void tri_print_chosen(const char *chosen)
{
    if (chosen[0]) {
        (void)printf("auto: %s\n", chosen);
    }
}

/* ---- all ways -------------------------------------------------------------------------------- */

static const char *recompute_of(const struct tri_way_plan *way)
{
    return way->recompute == 0 ? "none" : way->recompute < 0 ? "full" : "listed";
}

static const char *schedule_of(const struct tri_way_plan *way)
{
    return way->schedule ? way->schedule->strategy.name : "-";
}

static bool is_grid(const struct tri_layout *layout)
{
    return layout->cross * layout->depth > 1;
}

static int inner_of(const struct tri_layout *layout)
{
    return layout->tensor / layout->cross / layout->depth;
}

/* What makes a config this way, as one writes it behind it. */
static void write_keys(const struct tri_way_plan *way, char keys[KEYS])
{
    const struct tri_layout *layout = &way->plan.layout;
    const char *schedule = way->schedule ? " moe.schedule=" : "";
    char grid[64] = "", chunks[64] = "";
    if (is_grid(layout)) {
        (void)snprintf(grid, sizeof(grid), " parallel.tensor_grid=[%d,%d,%d]", inner_of(layout),
                       layout->cross, layout->depth);
    }
    if (way->chunks > 0) {
        (void)snprintf(chunks, sizeof(chunks), " moe.chunks=%d moe.chunks_backward=%d",
                       (int)way->chunks, (int)way->chunks_backward);
    }
    const char *recompute = way->recompute > 0 ? "" : " train.recompute=";
    (void)snprintf(keys, KEYS,
                   "parallel.tensor=%d%s parallel.expert=%d parallel.expert_tensor=%d%s%s%s%s%s "
                   "train.micro_batch=%lld",
                   layout->tensor, grid, layout->expert, layout->expert_tensor, schedule,
                   way->schedule ? schedule_of(way) : "", chunks, recompute,
                   way->recompute > 0 ? "" : recompute_of(way), (long long)way->micro_batch);
}

static json_t *json_of_way(const struct tri_way_plan *way, const char *why)
{
    json_t *one =
        way->plan.refused ? tri_json_of_layout(&way->plan.layout) : tri_json_of_plan(&way->plan);
    if (way->schedule) {
        (void)json_object_set_new(one, "schedule", json_string(schedule_of(way)));
        (void)json_object_set_new(one, "chunks", json_integer(way->chunks));
        (void)json_object_set_new(one, "chunks_backward", json_integer(way->chunks_backward));
    }
    (void)json_object_set_new(one, "recompute", json_string(recompute_of(way)));
    (void)json_object_set_new(one, "micro_batch", json_integer(way->micro_batch));
    (void)json_object_set_new(one, "reason", json_string(why));
    if (!way->plan.refused) {
        char keys[KEYS];
        write_keys(way, keys);
        (void)json_object_set_new(one, "keys", json_string(keys));
        (void)json_object_set_new(one, "fits", json_boolean(way->fits));
        tri_json_add_times(one, &way->plan.time);
    }
    return one;
}

static void print_head(const struct tri_config *config, int ranks,
                       const struct tri_cluster *cluster)
{
    (void)printf("%d rank%s of %s; a step of %lld tokens, ms, the fastest first; MB of the rank "
                 "that takes most\n",
                 ranks, ranks == 1 ? "" : "s", cluster->name,
                 (long long)(config->train.global_batch * config->data.sequence_length));
    (void)printf("%10s %6s %9s %6s %6s %4s %12s %6s %9s %5s %10s", "step", "tensor", "grid",
                 "expert", "data", "etp", "schedule", "chunks", "recompute", "micro", "MB");
    for (int part = TRI_PART_REST + 1; part <= TRI_PART_COUNT; part++) {
        enum tri_part which = part < TRI_PART_COUNT ? (enum tri_part)part : TRI_PART_REST;
        (void)printf(" %9s", tri_part_name(which));
    }
    (void)printf(" %9s  why not\n", "exposed");
}

static void print_way(const struct tri_way_plan *way, const char *why)
{
    const struct tri_layout *layout = &way->plan.layout;
    const struct tri_step_time *time = &way->plan.time;
    char chunks[32] = "-", grid[48] = "-";
    if (way->chunks > 0) {
        (void)snprintf(chunks, sizeof(chunks), "%d/%d", (int)way->chunks,
                       (int)way->chunks_backward);
    }
    if (is_grid(layout)) {
        (void)snprintf(grid, sizeof(grid), "%dx%dx%d", inner_of(layout), layout->cross,
                       layout->depth);
    }
    (void)printf("%10.3f %6d %9s %6d %6d %4d %12s %6s %9s %5lld %10.1f", milliseconds(time->step),
                 layout->tensor, grid, layout->expert, layout->data, layout->expert_tensor,
                 schedule_of(way), chunks, recompute_of(way), (long long)way->micro_batch,
                 (double)way->plan.memory.total / 1e6);
    for (int part = TRI_PART_REST + 1; part <= TRI_PART_COUNT; part++) {
        (void)printf(" %9.3f", milliseconds(time->part[part % TRI_PART_COUNT]));
    }
    (void)printf(" %9.3f  %s\n", milliseconds(time->exposed), why);
}

static void print_refused(const struct tri_way_plan *way, const char *why)
{
    const struct tri_layout *layout = &way->plan.layout;
    (void)printf("not tensor %d x expert %d x data %d, expert_tensor %d: %s\n", layout->tensor,
                 layout->expert, layout->data, layout->expert_tensor, why);
}

void tri_print_ways(const struct tri_config *config, int ranks, const struct tri_cluster *cluster,
                    int64_t process, const char *chosen, bool json)
{
    int count;
    static const struct tri_search all = {
        TRI_AUTO_LAYOUT | TRI_AUTO_SCHEDULE | TRI_AUTO_CHUNKS | TRI_AUTO_CHUNKS_BACKWARD, true};
    struct tri_way_plan *ways =
        tri_plan_ways(config, ranks, &all, tri_rehearse_timed, cluster, &count);
    json_t *layouts = json_array();
    json_t *refused = json_array();
    if (!json) {
        print_head(config, ranks, cluster);
    }
    for (int i = 0; i < count; i++) {
        char why[REASON];
        tri_way_explain(&ways[i], &ways[0], cluster, why, sizeof(why));
        if (json) {
            (void)json_array_append_new(ways[i].plan.refused ? refused : layouts,
                                        json_of_way(&ways[i], why));
        } else if (ways[i].plan.refused) {
            print_refused(&ways[i], why);
        } else {
            print_way(&ways[i], why);
        }
    }
    if (json) {
        json_t *root = json_pack("{si sI ss so so}", "ranks", ranks, "process", (json_int_t)process,
                                 "cluster", cluster->name, "layouts", layouts, "refused", refused);
        tri_json_add_chosen(root, chosen);
        tri_print_json(root);
    } else {
        char keys[KEYS];
        if (count > 0 && !ways[0].plan.refused) {
            write_keys(&ways[0], keys);
            (void)printf("the first is: %s\n", keys);
        }
        tri_print_chosen(chosen);
        json_decref(layouts);
        json_decref(refused);
    }
    tri_free(ways);
}
