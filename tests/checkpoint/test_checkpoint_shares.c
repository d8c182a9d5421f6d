/* All ranks share the work on a checkpoint: what each holds in memory, what they read together, and
 * that the bytes on disk are those that one rank alone has always written. */
#include "checkpoint/checkpoint.h"
#include "checkpoint/fixture.h"
#include "support/job.h"

#include "base/file.h"
#include "base/memory.h"
#include "base/random.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include <cmocka.h>

/* Beside one tensor: names, places, the manifest; what the ranks tell each other. */
enum { SLACK = 1 << 19 };

static char path[600];
static bool root;
static struct tri_mesh *mesh;

/* 14 M parameters; the largest tensor has 10 MB. */
static struct tri_config large_config(void)
{
    struct tri_config config = fixture_config(TRI_PRECISION_F32);
    struct tri_error error;
    config.model.vocab_size = 4000;
    config.model.hidden_size = 640;
    config.model.intermediate_size = 1000;
    config.model.head_dim = 160;
    config.moe.intermediate_size = 40;
    assert_int_equal(tri_config_finish(&config, &error), TRI_OK);
    return config;
}

static int64_t largest_bytes(const struct tri_params *params)
{
    int64_t largest = 0;
    for (int p = 0; p < params->count; p++) {
        int64_t bytes = 4 * fixture_elements(&params->param[p]);
        largest = bytes > largest ? bytes : largest;
    }
    return largest;
}

/* Bytes that this thread has had read for it since it began; what is mapped is not among them. */
static int64_t bytes_read(void)
{
    char line[128];
    int64_t bytes = -1;
    FILE *file = fopen("/proc/thread-self/io", "r");
    assert_non_null(file);
    while (fgets(line, sizeof(line), file)) {
        if (strncmp(line, "rchar: ", 7) == 0) {
            bytes = strtoll(line + 7, NULL, 10);
        }
    }
    assert_int_equal(fclose(file), 0);
    assert_true(bytes >= 0);
    return bytes;
}

static void expect_room(const char *what, const struct tri_memory_scope *scope, int64_t largest)
{
    struct tri_memory_counters counters = tri_memory_scope_end(scope);
    int64_t most = counters.peak[TRI_MEMORY_OTHER] + counters.peak[TRI_MEMORY_BUFFERS];
    if (most > largest + SLACK) {
        fail_msg("%s takes %lld bytes, a tensor has %lld", what, (long long)most,
                 (long long)largest);
    }
}

static void test_memory_and_reads(void **state)
{
    (void)state;
    struct tri_config config = large_config();
    struct tri_params *params = fixture_params(&config, mesh, true);
    struct tri_checkpoint_state s = fixture_state(3);
    struct tri_error error;
    int64_t largest = largest_bytes(params);
    assert_true(largest > 9 << 20);
    /* Once before: what comm/ keeps from call to call is there then. */
    assert_int_equal(tri_checkpoint_write(path, params, root ? &s : NULL, true, &error), TRI_OK);
    assert_int_equal(tri_checkpoint_load(path, params, NULL, true, &error), TRI_OK);
    struct tri_memory_scope scope = tri_memory_scope_begin();
    assert_int_equal(tri_checkpoint_write(path, params, root ? &s : NULL, true, &error), TRI_OK);
    expect_room("a save", &scope, largest);
    scope = tri_memory_scope_begin();
    assert_int_equal(tri_checkpoint_load(path, params, NULL, true, &error), TRI_OK);
    expect_room("a load", &scope, largest);
    /* The weights alone: once, by all ranks together, and nothing of the moments. */
    assert_int_equal(setenv("TRIDENT_FILE_FAULT", "open:EIO:optimizer-,map:EIO:.safetensors", 1),
                     0);
    int64_t before = bytes_read();
    if (tri_checkpoint_load(path, params, NULL, false, &error) != TRI_OK) {
        fail_msg("%s", error.message);
    }
    int64_t bytes = bytes_read() - before, weights = 4 * params->total;
    assert_int_equal(unsetenv("TRIDENT_FILE_FAULT"), 0);
    tri_all_reduce_sum(tri_mesh_group(mesh, TRI_ON_ALL),
                       (struct tri_where){TRI_PHASE_SETUP, TRI_KIND_META}, &bytes, 1, TRI_I64);
    assert_in_range(bytes, weights, weights + mesh->ranks * SLACK);
    tri_params_destroy(params);
}

/* Values that no library of mathematics has a hand in. */
static void fill(struct tri_params *params)
{
    static const enum tri_field fields[] = {TRI_FIELD_WEIGHT, TRI_FIELD_M, TRI_FIELD_V};
    for (int p = 0; p < params->count; p++) {
        const struct tri_param *param = &params->param[p];
        int64_t n = fixture_elements(param);
        float *whole = tri_alloc(TRI_MEMORY_OTHER, (size_t)n * sizeof(*whole));
        for (size_t f = 0; f < 3; f++) {
            for (int64_t i = 0; i < n; i++) {
                uint64_t bits = tri_random_bits(f, tri_random_stream(param->name), (uint64_t)i);
                whole[i] = (float)(bits % 251) - 125.0F;
            }
            tri_param_scatter(params, param, fields[f], whole);
        }
        tri_free(whole);
    }
}

/* The manifest holds the hash of every file: as the program wrote it when rank 0 wrote alone
 * (f3b6f48). */
static void test_bytes_of_old(void **state)
{
    (void)state;
    const uint64_t expected = UINT64_C(0x2dce366cb3e6066f);
    struct tri_config config = fixture_config(TRI_PRECISION_F32);
    struct tri_params *params = fixture_params(&config, mesh, true);
    struct tri_checkpoint_state s = fixture_state(3);
    struct tri_error error;
    struct tri_mapping manifest;
    char name[700];
    fill(params);
    assert_int_equal(tri_checkpoint_write(path, params, root ? &s : NULL, true, &error), TRI_OK);
    (void)snprintf(name, sizeof(name), "%s/manifest.json", path);
    assert_int_equal(tri_file_map(name, &manifest, &error), TRI_OK);
    uint64_t found = XXH3_64bits(manifest.data, manifest.size);
    tri_file_unmap(&manifest);
    if (found != expected) {
        fail_msg("manifest %016llx", (unsigned long long)found);
    }
    tri_params_destroy(params);
}

static int set_up(void **state)
{
    (void)state;
    char dir[512];
    struct tri_error error;
    root = job_rank() == 0;
    (void)snprintf(dir, sizeof(dir), "%s/shares.%d", TEST_TMP, job_size());
    (void)snprintf(path, sizeof(path), "%s/step_3", dir);
    if (root) {
        assert_int_equal(tri_file_remove_tree(dir, &error), TRI_OK);
        assert_int_equal(tri_file_make_dirs(dir, &error), TRI_OK);
    }
    assert_int_equal(tri_mesh_create(job(), 1, 1, 1, 1, &mesh, &error), TRI_OK);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    tri_barrier(tri_mesh_group(mesh, TRI_ON_ALL));
    if (root) {
        fixture_remove(path);
    }
    tri_mesh_destroy(mesh);
    return 0;
}

static int run_job(int argc, char **argv)
{
    (void)argc;
    (void)argv;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_memory_and_reads),
        cmocka_unit_test(test_bytes_of_old),
    };
    tri_comm_set_timeout(job(), 30);
    return cmocka_run_group_tests(tests, set_up, tear_down);
}

int main(int argc, char **argv)
{
    return job_run(argc, argv, run_job);
}
