/* The routers and schedules that there are: what a config is read with, and what help and errors
 * name. Each is a file of its own. */
#ifndef TRIDENT_MOE_STRATEGIES_H
#define TRIDENT_MOE_STRATEGIES_H

#include "config/strategy.h"

extern const struct tri_strategies tri_strategies;

extern const struct tri_router_kind tri_router_top_k, tri_router_balanced,
    tri_router_deepspeed_top1, tri_router_deepspeed_top2, tri_router_deepspeed_topk,
    tri_router_sparsemixer, tri_router_dense, tri_router_expert_choice;
extern const struct tri_schedule_kind tri_schedule_ted, tri_schedule_dense, tri_schedule_overlapped,
    tri_schedule_s1, tri_schedule_s2, tri_schedule_hierarchical;

/* No word of a config: who chooses in a plan, where there are no logits and no other ranks. */
extern const struct tri_router_kind tri_router_rehearsed, tri_router_dense_rehearsed,
    tri_router_expert_choice_rehearsed;

#endif
