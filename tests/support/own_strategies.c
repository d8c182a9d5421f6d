#include "support/own_strategies.h"

#include "model/residency_depth.h"
#include "moe/strategies.h"

#include <stddef.h>

static const struct tri_strategy *const routers[] = {
    &tri_router_top_k.strategy,          &tri_router_balanced.strategy,
    &tri_router_deepspeed_top1.strategy, &tri_router_deepspeed_top2.strategy,
    &tri_router_deepspeed_topk.strategy, &tri_router_sparsemixer.strategy,
    &tri_router_dense.strategy,          &tri_router_expert_choice.strategy,
    &own_router_hash.strategy,           NULL,
};

static const struct tri_strategy *const schedules[] = {
    &tri_schedule_ted.strategy,          &tri_schedule_overlapped.strategy,
    &tri_schedule_s1.strategy,           &tri_schedule_s2.strategy,
    &tri_schedule_hierarchical.strategy, &tri_schedule_dense.strategy,
    &own_schedule_gather.strategy,       NULL,
};

static const struct tri_residency_kind *const residencies[] = {&tri_residency_depth, NULL};

const struct tri_strategies own_strategies = {routers, schedules, residencies};
