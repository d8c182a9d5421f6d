#include "comm/internal.h"

/* Which failure speaks for the group: running into one while working outweighs a refused input,
 * that a check that says no, and that a stop on request. */
static int severity(int status)
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
    if (group->mesh->planned) {
        tri_call_leave(&call);
        return status;
    }
    int mine = (int)status;
    int *all = group->mpi_counts;
    TRI_MPI(MPI_Allgather(&mine, 1, MPI_INT, all, 1, MPI_INT, group->comm));
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
        TRI_MPI(MPI_Bcast(said.message, (int)sizeof(said.message), MPI_CHAR, worst, group->comm));
        if (error) {
            said.status = agreed;
            *error = said;
        }
    }
    tri_call_leave(&call);
    return agreed;
}
