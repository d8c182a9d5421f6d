/* Between the launcher and MPI_Init: what the environment says about where the ranks are. */
#include "comm/mpi_internal.h"

#include "base/log.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static bool is_set(const char *name)
{
    return getenv(name) != NULL;
}

static int number(const char *name)
{
    const char *text = getenv(name);
    long value = text ? strtol(text, NULL, 10) : 0;
    return value > 0 && value <= INT_MAX ? (int)value : 0;
}

/* Whether this process is the member of a job: it is told so by way of one of the process
 * management interfaces, whose variables all begin like this; without one it is alone. */
static bool is_member(void)
{
    for (char **variable = environ; *variable; variable++) {
        if (strncmp(*variable, "PMI", 3) == 0) {
            return true;
        }
    }
    return false;
}

/* Whether all ranks share this node, as Open MPI's own launcher tells them. */
static bool share_node(void)
{
    int all = number("OMPI_COMM_WORLD_SIZE");
    return all > 0 && all == number("OMPI_COMM_WORLD_LOCAL_SIZE");
}

/* Open MPI probes every network layer before it settles on shared memory (230 ms; 20 with ob1
 * named), and a program started alone starts a daemon it does not need (60 ms; a member never
 * does). The variables are for this process's MPI_Init only: children may be launched elsewhere. */
void tri_launcher_init(int *argc, char ***argv)
{
    bool alone = !is_member();
    bool chosen = is_set("OMPI_MCA_pml") || is_set("OMPI_MCA_btl") || is_set("OMPI_MCA_mtl");
    bool set_pml = !chosen && (alone || share_node());
    bool set_isolated = !is_set("OMPI_MCA_ess_singleton_isolated");
    if (set_pml) {
        (void)setenv("OMPI_MCA_pml", "ob1", 0);
    }
    if (set_isolated) {
        (void)setenv("OMPI_MCA_ess_singleton_isolated", "1", 0);
    }
    int provided = MPI_THREAD_SINGLE;
    TRI_MPI(MPI_Init_thread(argc, argv, MPI_THREAD_FUNNELED, &provided));
    TRI_REQUIRE(provided >= MPI_THREAD_FUNNELED);
    if (set_pml) {
        (void)unsetenv("OMPI_MCA_pml");
    }
    if (set_isolated) {
        (void)unsetenv("OMPI_MCA_ess_singleton_isolated");
    }
    int rank = 0;
    int size = 1;
    TRI_MPI(MPI_Comm_rank(MPI_COMM_WORLD, &rank));
    TRI_MPI(MPI_Comm_size(MPI_COMM_WORLD, &size));
    if (set_pml && alone && size > 1 && rank == 0) {
        tri_log_warn("%d ranks of a launcher that says nothing in the environment: their messages "
                     "take no fast network; set OMPI_MCA_pml to what it needs",
                     size);
    }
}

/* What launchers say: how many, and which of them. Slurm comes last: others start their ranks
 * through a step of one task a node, so its one says nothing against their many. Its batch script
 * and salloc's shell are no steps. */
static const char *const names[][2] = {{"OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"},
                                       {"PMI_SIZE", "PMI_RANK"},
                                       {"SLURM_STEP_NUM_TASKS", "SLURM_PROCID"}};
enum { LAUNCHERS = sizeof(names) / sizeof(*names), SLURM = LAUNCHERS - 1 };

bool tri_comm_launchers(char *text, size_t size)
{
    size_t used = 0;
    for (int i = 0; i < LAUNCHERS && used < size; i++) {
        if (is_set(names[i][0])) {
            used +=
                (size_t)snprintf(text + used, size - used, "%s%s", used ? ", " : "", names[i][0]);
        }
    }
    return used > 0;
}

const char *tri_comm_strangers(const struct tri_comm *comm, int *count, int *place)
{
    const char *found = NULL;
    for (int i = 0; comm->size == 1 && i < LAUNCHERS; i++) {
        int said = number(names[i][0]);
        if (said == 1 && i != SLURM) {
            return NULL; /* by a launcher inside the other: it is right */
        }
        if (said > 1 && !found) {
            found = names[i][0];
            *count = said;
            *place = number(names[i][1]);
        }
    }
    return found;
}
