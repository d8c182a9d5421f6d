#include "comm/internal.h"

/* Which failure speaks for the group: running into one while working outweighs a refused input,
 * that a check that says no, and that a stop on request. */
static int severity(int64_t status)
{
    switch (status) {
    case TRI_OK:
        return 0;
    case TRI_REQUEUE:
        return 1;
    case TRI_CHECK_FAILED:
        return 2;
    case TRI_BAD_INPUT:
        return 3;
    default:
        return 4;
    }
}

enum tri_status tri_comm_agree(struct tri_group *group, enum tri_status status,
                               struct tri_error *error)
{
    if (group->size == 1) {
        return status;
    }
    struct tri_call call = {
        .group = group,
        .verb = TRI_VERB_AGREE,
        .where = {TRI_PHASE_SETUP, TRI_KIND_META},
        .bytes = sizeof(int32_t),
    };
    tri_call_enter(&call);
    if (!group->carries) {
        tri_call_leave(&call);
        return status;
    }
    int64_t mine = status;
    int64_t *all = group->words;
    tri_end_all_gather_even(group, &mine, all, 1, TRI_I64);
    int worst = 0;
    for (int r = 1; r < group->size; r++) {
        worst = severity(all[r]) > severity(all[worst]) ? r : worst;
    }
    enum tri_status agreed = (enum tri_status)all[worst];
    if (agreed != TRI_OK) {
        struct tri_error said = {0};
        if (error && group->rank == worst) {
            said = *error;
        }
        tri_end_broadcast(group, said.message, (int64_t)sizeof(said.message), TRI_U8, worst);
        if (error) {
            said.status = agreed;
            *error = said;
        }
    }
    tri_call_leave(&call);
    return agreed;
}
