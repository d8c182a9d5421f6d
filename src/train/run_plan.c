#include "train/run_plan.h"

#include "base/log.h"
#include "base/memory.h"
#include "base/room.h"
#include "plan/cluster.h"
#include "train/json.h"
#include "train/rehearsal.h"

#include <jansson.h>
#include <stdlib.h>

/* A step of rank 0, planned. */
struct step {
    bool counted, timed;
    struct tri_ledger ledger;
    struct tri_step_time time;
    struct tri_cluster cluster;
};

static bool read_cluster(const struct tri_config *config, int ranks, struct tri_cluster *cluster)
{
    struct tri_error error;
    if (!config->plan.cluster[0]) {
        return false;
    }
    bool read = tri_cluster_read(config->plan.cluster, cluster, &error) == TRI_OK &&
                tri_cluster_check(cluster, config, ranks, &error) == TRI_OK;
    if (!read) {
        tri_log_note("no time is planned: %s", error.message);
    }
    return read;
}

/* Where what is asked for counts, touched or not, a rehearsal takes what the run has taken once
 * more. */
static bool has_room(const struct tri_memory_plan *plan)
{
    struct tri_memory_room room = tri_room_of_addresses(1);
    if (plan->total > room.bytes) {
        tri_log_note("neither bytes nor time of a step are planned: found %.2f GB free beside the "
                     "run (limit: %s), expected %.2f GB",
                     (double)room.bytes / 1e9, room.limit, (double)plan->total / 1e9);
    }
    return plan->total <= room.bytes;
}

static void rehearse(const struct tri_session *session, struct step *step)
{
    struct tri_rehearsal rehearsal = tri_session_rehearsal(session, true);
    struct tri_memory_plan memory;
    struct tri_error error;
    if (!has_room(&session->plan)) {
        return;
    }
    rehearsal.load = TRI_LOAD_BALANCED;
    step->timed = read_cluster(session->config, session->mesh->ranks, &step->cluster);
    if (step->timed) {
        rehearsal.cluster = &step->cluster;
        rehearsal.time = &step->time;
    }
    step->counted = tri_rehearse(&rehearsal, &step->ledger, &memory, &error) == TRI_OK;
    step->timed = step->timed && step->counted;
    if (!step->counted) {
        tri_log_note("neither bytes nor time of a step are planned: %s", error.message);
    }
}

static json_t *collectives(const struct tri_ledger *ledger)
{
    json_t *rows = json_array();
    for (int op = 0; op < TRI_OP_COUNT; op++) {
        for (int group = 0; group < TRI_GROUP_COUNT; group++) {
            for (int phase = 0; phase < TRI_PHASE_COUNT; phase++) {
                for (int kind = 0; kind < TRI_KIND_COUNT; kind++) {
                    const struct tri_ledger_cell *cell = &ledger->cell[op][group][phase][kind];
                    if (cell->calls > 0) {
                        (void)json_array_append_new(
                            rows,
                            json_pack("{ss ss ss ss sI sI}", "operation",
                                      tri_op_name((enum tri_op)op), "group", tri_groups[group].name,
                                      "phase", tri_phase_name((enum tri_phase)phase), "kind",
                                      tri_kind_name((enum tri_kind)kind), "calls",
                                      (json_int_t)cell->calls, "bytes", (json_int_t)cell->bytes));
                    }
                }
            }
        }
    }
    return rows;
}

static json_t *describe(const struct tri_session *session, const struct step *step)
{
    const struct tri_memory_plan *plan = &session->plan;
    json_t *memory = json_object();
    for (int i = 0; i < TRI_MEMORY_COUNT; i++) {
        (void)json_object_set_new(memory, tri_memory_name((enum tri_memory)i),
                                  json_integer(plan->bytes[i]));
    }
    json_t *time = json_null();
    if (step->timed) {
        time = json_pack("{so}", "cluster", tri_json_text(step->cluster.name));
        tri_json_add_times(time, &step->time);
    }
    return json_pack("{si ss so sI so so}", "rank", 0, "memory_for",
                     session->load == TRI_LOAD_BALANCED ? "balanced routing" : "moe.headroom",
                     "memory", memory, "process", (json_int_t)plan->process, "collectives",
                     step->counted ? collectives(&step->ledger) : json_null(), "time", time);
}

enum tri_status tri_run_plan_save(const struct tri_session *session,
                                  const struct tri_run_folder *folder, struct tri_error *error)
{
    struct step *step = tri_alloc(TRI_MEMORY_OTHER, sizeof(*step));
    rehearse(session, step);
    json_t *root = describe(session, step);
    char *text = json_dumps(root, JSON_INDENT(1));
    json_decref(root);
    tri_free(step);
    TRI_REQUIRE(text);
    enum tri_status status = tri_run_folder_save(folder, "plan.json", text, error);
    free(text);
    return status;
}
