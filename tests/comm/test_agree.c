/* Agreement: every rank gets the worst status, with the words of the lowest rank that has it. */
#include "fixture.h"

#include <stdio.h>
#include <string.h>

static enum tri_status agree_as(struct tri_group *group, enum tri_status mine,
                                struct tri_error *error)
{
    *error = (struct tri_error){.status = mine};
    (void)snprintf(error->message, sizeof(error->message), "%d of member %d", (int)mine,
                   group->rank);
    return tri_comm_agree(group, mine, error);
}

static void check_said(const struct tri_error *error, enum tri_status status, int member)
{
    char text[64];
    (void)snprintf(text, sizeof(text), "%d of member %d", (int)status, member);
    CHECK(error->status == status);
    CHECK(strcmp(error->message, text) == 0);
}

static void check_group(struct tri_group *group)
{
    struct tri_error error;
    tri_ledger_reset(job_ledger());
    CHECK(tri_comm_agree(group, TRI_OK, &error) == TRI_OK);
    CHECK(tri_comm_agree(group, TRI_OK, NULL) == TRI_OK);
    struct tri_ledger_cell meta = tri_ledger_sum(job_ledger(), TRI_OP_ALL_REDUCE, (int)group->id,
                                                 TRI_PHASE_SETUP, TRI_KIND_META);
    CHECK(meta.calls == (group->size > 1 ? 2 : 0) && meta.bytes == 4 * meta.calls);
    int last = group->size - 1;
    for (int bad = 0; bad < group->size; bad++) {
        enum tri_status mine = group->rank >= bad ? TRI_BAD_INPUT : TRI_OK;
        CHECK(agree_as(group, mine, &error) == TRI_BAD_INPUT);
        check_said(&error, TRI_BAD_INPUT, bad);
        /* A failure outweighs refused input, and both a stop on request. */
        mine = group->rank == last ? TRI_FAILED : group->rank == 0 ? TRI_REQUEUE : TRI_BAD_INPUT;
        CHECK(agree_as(group, mine, &error) == TRI_FAILED);
        check_said(&error, TRI_FAILED, last);
    }
    enum tri_status mine = group->rank == last ? TRI_REQUEUE : TRI_OK;
    CHECK(tri_comm_agree(group, mine, NULL) == TRI_REQUEUE);
}

int main(int argc, char **argv)
{
    return run_on_groups(argc, argv, check_group);
}
