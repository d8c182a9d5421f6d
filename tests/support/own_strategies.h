/* A router and a schedule that no file of src/ knows of, and the list that a config is read with
 * which has them beside ours:
 *
 *   router hash       a token's experts follow from its place alone; weights are sigmoids of their
 *                     logits, which no loss balances
 *   schedule gather   every rank gathers all tokens that meet at the experts, and computes its own
 *                     experts' part of all of them */
#ifndef TRIDENT_TESTS_SUPPORT_OWN_STRATEGIES_H
#define TRIDENT_TESTS_SUPPORT_OWN_STRATEGIES_H

#include "config/strategy.h"

extern const struct tri_strategies own_strategies;
extern const struct tri_router_kind own_router_hash;
extern const struct tri_schedule_kind own_schedule_gather;

#endif
