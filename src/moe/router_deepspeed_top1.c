/* DeepSpeed's top-1 gate (deepspeed/moe/sharded_moe.py, 0.19.8): random token selection, and
 * weights that are not renormalised. */
#include "moe/router_kind.h"
#include "moe/strategies.h"

static void set_rules(const struct tri_config_moe *moe, struct tri_router_rules *rules)
{
    rules->share = TRI_SHARE_NONE;
    rules->policy = moe->deepspeed_rts ? TRI_DROP_RANDOM : TRI_DROP_POSITION;
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

static const char *const keys[] = {"moe.deepspeed_rts", NULL};

const struct tri_router_kind tri_router_deepspeed_top1 = {
    .strategy = {"deepspeed_top1", "as DeepSpeed's top1gating chooses and drops", keys},
    .top_k = 1,
    .layer_scope = true,
    .by_place = true,
    .imposed = TRI_IMPOSE_CHOICE | TRI_IMPOSE_DROPS,
    .rehearsed = &tri_router_rehearsed,
    .ops = &ops,
};
