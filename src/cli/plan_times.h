/* What `trident plan --cluster` prints. */
#ifndef TRIDENT_CLI_PLAN_TIMES_H
#define TRIDENT_CLI_PLAN_TIMES_H

#include "plan/search.h"
#include "train/json.h"

/* What is said of a layout, and of a plan of one without times. */
json_t *tri_json_of_layout(const struct tri_layout *layout);
json_t *tri_json_of_plan(const struct tri_layout_plan *plan);

void tri_print_times(const struct tri_cluster *cluster, const struct tri_step_time *time);

/* What was chosen of a config that leaves something to the planner; nothing where that is "". */
void tri_json_add_chosen(json_t *object, const char *chosen);
void tri_print_chosen(const char *chosen);

/* All ways to run the config on so many ranks of the cluster. process: see trident plan; chosen: as
 * above. */
void tri_print_ways(const struct tri_config *config, int ranks, const struct tri_cluster *cluster,
                    int64_t process, const char *chosen, bool json);

#endif
