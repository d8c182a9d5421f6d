#include "train/run_folder.h"

#include "base/memory.h"

#include <jansson.h>
#include <stdlib.h>

static json_t *ledger_rows(const struct tri_ledger *ledger, const struct tri_ledger *total)
{
    json_t *rows = json_array();
    for (int op = 0; op < TRI_OP_COUNT; op++) {
        for (int group = 0; group < TRI_GROUP_COUNT; group++) {
            for (int phase = 0; phase < TRI_PHASE_COUNT; phase++) {
                for (int kind = 0; kind < TRI_KIND_COUNT; kind++) {
                    const struct tri_ledger_cell *cell = &ledger->cell[op][group][phase][kind];
                    const struct tri_ledger_cell *all = &total->cell[op][group][phase][kind];
                    if (all->calls == 0) {
                        continue;
                    }
                    json_t *row = json_pack(
                        "{ss ss ss ss sI sI sI sI sI sf sf}", "operation",
                        tri_op_name((enum tri_op)op), "group", tri_groups[group].name, "phase",
                        tri_phase_name((enum tri_phase)phase), "kind",
                        tri_kind_name((enum tri_kind)kind), "calls", (json_int_t)cell->calls,
                        "bytes", (json_int_t)cell->bytes, "bytes_all_ranks", (json_int_t)all->bytes,
                        "bytes_between_hosts", (json_int_t)cell->bytes_between,
                        "messages_between_hosts", (json_int_t)cell->messages_between, "seconds",
                        cell->seconds, "seconds_exposed", cell->seconds_exposed);
                    (void)json_array_append_new(rows, row);
                }
            }
        }
    }
    return rows;
}

/* {category: {"planned", "held", "peak"}}, bytes of this rank; held: now */
static json_t *memory_rows(const struct tri_memory_plan *plan)
{
    const struct tri_memory_counters counted = tri_memory_get();
    json_t *rows = json_object();
    for (int i = 0; i < TRI_MEMORY_COUNT; i++) {
        json_t *row =
            json_pack("{sI sI sI}", "planned", (json_int_t)plan->bytes[i], "held",
                      (json_int_t)counted.current[i], "peak", (json_int_t)counted.peak[i]);
        (void)json_object_set_new(rows, tri_memory_name((enum tri_memory)i), row);
    }
    return rows;
}

enum tri_status tri_run_folder_save_ledger(const struct tri_run_folder *folder,
                                           const struct tri_ledger *ledger,
                                           const struct tri_ledger *total, int64_t steps,
                                           const struct tri_memory_plan *plan,
                                           struct tri_error *error)
{
    json_t *root = json_pack(
        "{si sI so s{sI sI sI} so}", "rank", 0, "steps", (json_int_t)steps, "memory",
        memory_rows(plan), "process", "planned", (json_int_t)(plan->total + plan->process), "held",
        (json_int_t)tri_memory_process_share(), "peak", (json_int_t)tri_memory_process_peak(),
        "collectives", ledger_rows(ledger, total));
    char *text = json_dumps(root, JSON_INDENT(1));
    json_decref(root);
    TRI_REQUIRE(text);
    enum tri_status status = tri_run_folder_save(folder, "ledger.json", text, error);
    free(text);
    return status;
}
