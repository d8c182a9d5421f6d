/* DeepSpeed's top-k gate (deepspeed/moe/sharded_moe.py, 0.19.8): weights are renormalised over the
 * choices that found a place. */
#include "moe/router_kind.h"
#include "moe/strategies.h"

#include <float.h>

static void set_rules(const struct tri_config_moe *moe, struct tri_router_rules *rules)
{
    (void)moe;
    rules->share = TRI_SHARE_OF_KEPT;
    rules->share_floor = FLT_EPSILON;
}

static const struct tri_router_ops ops = {
    .set_rules = set_rules,
    .share = tri_router_share_deepspeed,
    .choose = tri_router_choose_best,
    .measure = tri_router_measure_balance,
    .fill = tri_router_fill_queues,
    .weigh = tri_router_weigh_shares,
    .backward = tri_router_backward_shares,
};

static const char *const keys[] = {"moe.drop_policy", NULL};

const struct tri_router_kind tri_router_deepspeed_topk = {
    .strategy = {"deepspeed_topk", "as DeepSpeed's topkgating chooses and drops", keys},
    .layer_scope = true,
    .imposed = TRI_IMPOSE_CHOICE | TRI_IMPOSE_DROPS,
    .rehearsed = &tri_router_rehearsed,
    .ops = &ops,
};
