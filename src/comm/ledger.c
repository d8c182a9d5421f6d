#include "comm/ledger.h"

#include <string.h>

void tri_ledger_reset(struct tri_ledger *ledger)
{
    memset(ledger, 0, sizeof(*ledger));
}

void tri_ledger_book(struct tri_ledger *ledger, enum tri_op op, int group, enum tri_phase phase,
                     enum tri_kind kind, int64_t bytes, double seconds, double seconds_exposed)
{
    struct tri_ledger_cell *cell = &ledger->cell[op][group][phase][kind];
    cell->calls++;
    cell->bytes += bytes;
    cell->seconds += seconds;
    cell->seconds_exposed += seconds_exposed;
}

void tri_ledger_book_between(struct tri_ledger *ledger, enum tri_op op, int group,
                             enum tri_phase phase, enum tri_kind kind, int64_t bytes,
                             int64_t messages)
{
    struct tri_ledger_cell *cell = &ledger->cell[op][group][phase][kind];
    cell->bytes_between += bytes;
    cell->messages_between += messages;
}

struct span {
    int begin, end;
};

static struct span span_of(int index, int count)
{
    return index < 0 ? (struct span){0, count} : (struct span){index, index + 1};
}

struct tri_ledger_cell tri_ledger_sum(const struct tri_ledger *ledger, int op, int group, int phase,
                                      int kind)
{
    struct span o = span_of(op, TRI_OP_COUNT);
    struct span g = span_of(group, TRI_GROUP_COUNT);
    struct span p = span_of(phase, TRI_PHASE_COUNT);
    struct span k = span_of(kind, TRI_KIND_COUNT);
    struct tri_ledger_cell sum = {0};
    for (int i = o.begin; ledger && i < o.end; i++) {
        for (int j = g.begin; j < g.end; j++) {
            for (int l = p.begin; l < p.end; l++) {
                for (int m = k.begin; m < k.end; m++) {
                    const struct tri_ledger_cell *cell = &ledger->cell[i][j][l][m];
                    sum.calls += cell->calls;
                    sum.bytes += cell->bytes;
                    sum.bytes_between += cell->bytes_between;
                    sum.messages_between += cell->messages_between;
                    sum.seconds += cell->seconds;
                    sum.seconds_exposed += cell->seconds_exposed;
                }
            }
        }
    }
    return sum;
}

const char *tri_op_name(enum tri_op op)
{
    static const char *const names[TRI_OP_COUNT] = {"all_reduce", "all_gather", "reduce_scatter",
                                                    "all_to_all", "broadcast",  "send"};
    return names[op];
}

const char *tri_phase_name(enum tri_phase phase)
{
    static const char *const names[TRI_PHASE_COUNT] = {
        "setup", "forward", "recompute", "backward", "optimizer", "eval", "checkpoint"};
    return names[phase];
}

const char *tri_kind_name(enum tri_kind kind)
{
    static const char *const names[TRI_KIND_COUNT] = {"embedding", "attention",     "mlp",
                                                      "moe",       "shared_expert", "head",
                                                      "gradient",  "weights",       "meta"};
    return names[kind];
}
