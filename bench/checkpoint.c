/* checkpoint save|load DIR [key=value …]
 * Seconds that writing a checkpoint with its moments takes, or reading it: from the call to its end
 * on the slowest rank. Alone or under mpirun. bench/checkpoint.sh calls it. */
#include "base/clock.h"
#include "base/log.h"
#include "base/memory.h"
#include "checkpoint/checkpoint.h"
#include "moe/strategies.h"
#include "optim/optim.h"

#include <stdio.h>
#include <string.h>

/* About 170 M parameters: 2.1 GB with their moments. */
static const char defaults[] =
    "model: {vocab_size: 32000, num_layers: 6, hidden_size: 768, num_heads: 12,\n"
    "        intermediate_size: 2048, max_position: 128}\n"
    "moe: {num_experts: 8, top_k: 2, every: 2, intermediate_size: 2048}\n"
    "data: {sequence_length: 128}\n"
    "train: {steps: 1}\n";

static enum tri_status run(bool saves, const char *dir, struct tri_params *params,
                           const struct tri_config *config, double *seconds,
                           struct tri_error *error)
{
    struct tri_checkpoint_state state = {.step = 1, .seed = 1};
    struct tri_group *world = tri_mesh_group(params->mesh, TRI_ON_ALL);
    enum tri_status status;
    char *yaml = tri_config_to_yaml(config);
    state.config = yaml;
    tri_barrier(world);
    double start = tri_clock_now();
    if (saves) {
        status = tri_checkpoint_write(dir, params, &state, true, error);
    } else {
        status = tri_checkpoint_load(dir, params, &state, true, error);
        tri_checkpoint_state_fini(&state);
    }
    *seconds = tri_clock_now() - start;
    tri_all_reduce_max(world, (struct tri_where){TRI_PHASE_SETUP, TRI_KIND_META}, seconds, 1,
                       TRI_F64);
    tri_free(yaml);
    return status;
}

static enum tri_status bench_main(int argc, char **argv, struct tri_comm *comm,
                                  struct tri_error *error)
{
    struct tri_config config;
    struct tri_mesh *mesh;
    double seconds = 0.0;
    bool saves = argc > 1 && strcmp(argv[0], "save") == 0;
    if (argc < 2 || (!saves && strcmp(argv[0], "load") != 0)) {
        return tri_fail(error, TRI_BAD_INPUT, "usage: checkpoint save|load DIR [key=value …]");
    }
    TRI_TRY(tri_config_parse(&tri_strategies, "defaults", defaults, strlen(defaults), argc - 2,
                             argv + 2, &config, error));
    TRI_TRY(tri_config_check_layout(&config, tri_comm_size(comm), error));
    TRI_TRY(tri_mesh_create(comm, (int)config.parallel.tensor, 1, 1, (int)config.parallel.expert,
                            &mesh, error));
    struct tri_params *params = tri_params_create(&config, mesh);
    tri_params_allocate(params, false);
    tri_params_init(params, tri_kernels_ref(), 1);
    struct tri_optimizer *optimizer = tri_optimizer_create(&config, params, tri_kernels_ref());
    enum tri_status status = run(saves, argv[1], params, &config, &seconds, error);
    if (status == TRI_OK && mesh->rank == 0) {
        (void)printf("%.3f\n", seconds);
    }
    tri_optimizer_destroy(optimizer);
    tri_params_destroy(params);
    tri_mesh_destroy(mesh);
    return status;
}

int main(int argc, char **argv)
{
    struct tri_error error = {0};
    struct tri_comm *comm = tri_comm_start(&argc, &argv);
    enum tri_status status = bench_main(argc - 1, argv + 1, comm, &error);
    if (status != TRI_OK && tri_comm_rank(comm) == 0) {
        tri_log_error(&error);
    }
    (void)fflush(NULL);
    tri_comm_finish(comm);
    return (int)status;
}
