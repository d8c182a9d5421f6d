/* Facts that differ are named on all ranks, with both values and the ranks that have them. */
#include "fixture.h"

#include <stdio.h>
#include <string.h>

/* Members from `odd` on have another value of fact `at`. */
static enum tri_status compare(struct tri_group *group, int at, int odd, const char *other,
                               struct tri_error *error)
{
    struct tri_fact facts[] = {{"the first", "1"}, {"the second", "2"}, {"the third", ""}};
    if (group->rank >= odd) {
        facts[at].value = other;
    }
    *error = (struct tri_error){0};
    return tri_comm_compare(group, 3, facts, error);
}

static void check_group(struct tri_group *group)
{
    struct tri_error error;
    tri_ledger_reset(job_ledger());
    CHECK(compare(group, 0, group->size, "x", &error) == TRI_OK);
    struct tri_ledger_cell meta = tri_ledger_sum(job_ledger(), TRI_OP_ALL_GATHER, (int)group->id,
                                                 TRI_PHASE_SETUP, TRI_KIND_META);
    CHECK(group->size == 1 || (meta.calls == 1 && meta.bytes == 8));
    for (int odd = 1; odd < group->size; odd++) {
        char expected[128];
        CHECK(compare(group, 1, odd, "3", &error) == TRI_BAD_INPUT);
        (void)snprintf(expected, sizeof(expected),
                       "parallel ranks differ: the second is 2 on rank%s 0", odd > 1 ? "s" : "");
        CHECK(strncmp(error.message, expected, strlen(expected)) == 0);
        (void)snprintf(expected, sizeof(expected), " and 3 on rank%s %d",
                       odd < group->size - 1 ? "s" : "", odd);
        CHECK(strstr(error.message, expected));
        CHECK(compare(group, 2, odd, "something", &error) == TRI_BAD_INPUT);
        CHECK(strstr(error.message, "the third"));
    }
    /* Long values are cut, and still differ. */
    char text[3000];
    memset(text, 'a', sizeof(text));
    text[0] = group->rank ? 'b' : 'c';
    text[sizeof(text) - 1] = '\0';
    CHECK((compare(group, 0, 0, text, &error) == TRI_OK) == (group->size == 1));
    /* Paths differ at their ends as a rule: those are shown. */
    text[0] = 'a';
    text[sizeof(text) - 2] = group->rank ? 'b' : 'c';
    CHECK((compare(group, 0, 0, text, &error) == TRI_OK) == (group->size == 1));
    CHECK(group->size == 1 ||
          (strstr(error.message, "ac on rank 0 and ") && strstr(error.message, "ab on rank")));
}

int main(int argc, char **argv)
{
    return run_on_groups(argc, argv, check_group);
}
