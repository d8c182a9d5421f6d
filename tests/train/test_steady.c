/* After the first steps a step takes no memory: our counters stand still and the heap does not
 * grow. */
#include "support/small.h"

#include "base/memory.h"

#include <malloc.h>
#include <stdio.h>
#include <string.h>

enum { WARM_UP = 12, STEPS = 20 };

static void step(struct tri_engine *engine, const struct tri_rows_source *source, int64_t index)
{
    struct tri_step_report report = small_gradients(engine, source, index, NULL);
    /* A rate of 0, so that the same rows take the same routes: dropless ones can need more room. */
    tri_engine_update(engine, index + 1, 0.0, &report);
}

/* Of the process, while no rank of it is in a step. */
static size_t heap_of(const struct tri_mesh *mesh)
{
    tri_barrier(tri_mesh_group(mesh, TRI_ON_ALL));
    size_t bytes = mallinfo2().uordblks;
    tri_barrier(tri_mesh_group(mesh, TRI_ON_ALL));
    return bytes;
}

static void stands_still(enum small_style style, const char *words, struct small_layout layout)
{
    struct tri_config config;
    small_config(style, words, &config);
    small_config_lay_out(&config, layout);
    struct tri_mesh *mesh = small_mesh(&config);
    struct tri_engine *engine = tri_engine_create(&config, mesh, small_kernels(&config), true);
    struct tri_rows_source source = small_source(&config);
    for (int64_t i = 0; i < WARM_UP; i++) {
        step(engine, &source, i);
    }
    struct tri_memory_counters before = tri_memory_get();
    int growths = 0; /* steps that left the heap larger */
    size_t heap = heap_of(mesh);
    for (int64_t i = 0; i < STEPS; i++) {
        step(engine, &source, i % WARM_UP);
        size_t now = heap_of(mesh);
        growths += now > heap;
        heap = now;
    }
    struct tri_memory_counters after = tri_memory_get();
    for (int i = 0; i < TRI_MEMORY_COUNT; i++) {
        if (after.current[i] != before.current[i]) {
            tri_panic(TRI_FAILED, "%s: %s from %lld to %lld bytes", small_layout_text(layout),
                      tri_memory_name((enum tri_memory)i), (long long)before.current[i],
                      (long long)after.current[i]);
        }
    }
    CHECK(after.calls == before.calls);
    /* MPI takes a little now and then; a leak takes some in every step. */
    if (growths > STEPS / 4) {
        tri_panic(TRI_FAILED, "%s: the heap grew in %d of %d steps", small_layout_text(layout),
                  growths, (int)STEPS);
    }
    tri_engine_destroy(engine);
    tri_mesh_destroy(mesh);
}

static int run_job(int argc, char **argv)
{
    (void)argc;
    (void)argv;
    struct small_layout layouts[SMALL_LAYOUTS];
    int count = small_layouts(job_size(), 8, layouts);
    for (int i = 0; i < count; i++) {
        stands_still(SMALL_GPT, "precision=bf16 moe.headroom=16", layouts[i]);
        stands_still(SMALL_GPT,
                     "precision=bf16 train.gradient_dtype=bf16 train.optimizer_tile=none "
                     "moe.headroom=16",
                     layouts[i]);
        stands_still(SMALL_GPT, "comm.overlap=false moe.headroom=16", layouts[i]);
        stands_still(SMALL_GPT, "reproducible=true precision=bf16 moe.headroom=16", layouts[i]);
        stands_still(SMALL_LLAMA, "moe.headroom=16 model.num_kv_heads=1 model.qk_norm=full",
                     layouts[i]);
        stands_still(SMALL_LLAMA, "moe.schedule=s2 moe.headroom=16", layouts[i]);
        stands_still(SMALL_LLAMA,
                     "precision=bf16 moe.capacity_factor=1 moe.drop_policy=probability "
                     "moe.capacity_window=step moe.aux_window=step moe.aux_scope=model "
                     "moe.headroom=16",
                     layouts[i]);
    }
    return 0;
}

int main(int argc, char **argv)
{
    return job_run(argc, argv, run_job);
}
