/* Any layout reads what any layout wrote: on every mesh of these ranks, files are the very bytes
 * that one rank writes, and what is read is what one rank would hold. Failures are the same on
 * all ranks. */
#include "checkpoint/checkpoint_load.h"
#include "checkpoint/checkpoint_save.h"
#include "checkpoint/fixture.h"
#include "checkpoint/hf.h"
#include "checkpoint/manifest.h"

#include "base/file.h"
#include "base/memory.h"
#include "support/job.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static char run[256];
static bool root;
static struct tri_mesh *serial;

struct layout {
    int tensor, expert, expert_tensor, depth, cross;
};

static const struct layout layouts[] = {
    {1, 1, 1, 1, 1}, {2, 1, 2, 1, 1}, {1, 2, 1, 1, 1}, {2, 1, 1, 1, 1}, {2, 2, 2, 1, 1},
    {2, 2, 1, 1, 1}, {4, 1, 4, 1, 1}, {1, 4, 1, 1, 1}, {4, 2, 4, 1, 1}, {2, 4, 2, 1, 1},
    {4, 2, 1, 1, 1}, {1, 8, 1, 1, 1}, {2, 1, 2, 2, 1}, {4, 1, 4, 2, 1}, {4, 2, 1, 4, 1},
    {4, 1, 4, 1, 2}, {4, 2, 1, 2, 2},
};

enum { LAYOUTS = sizeof(layouts) / sizeof(*layouts), PART = 1 << 20, CHUNK = 1236 };

/* The mesh of a layout with data replicas for the ranks that are left; NULL when these ranks
 * can't. */
static struct tri_mesh *mesh_of(const struct layout *layout, struct tri_config *config)
{
    struct tri_mesh *mesh = NULL;
    struct tri_error error;
    if (job_size() % (layout->tensor * layout->expert) != 0) {
        return NULL;
    }
    config->parallel.tensor = layout->tensor;
    config->parallel.expert = layout->expert;
    config->parallel.expert_tensor = layout->expert_tensor;
    config->parallel.tensor_grid[0] = layout->tensor / layout->depth / layout->cross;
    config->parallel.tensor_grid[1] = layout->cross;
    config->parallel.tensor_grid[2] = layout->depth;
    if (tri_config_check_layout(config, job_size(), &error) != TRI_OK) {
        return NULL;
    }
    if (tri_mesh_create(job(), layout->tensor / layout->depth / layout->cross, layout->cross,
                        layout->depth, layout->expert, &mesh, &error) != TRI_OK) {
        fail_msg("%s", error.message);
    }
    return mesh;
}

static void in_run(char path[600], const char *name)
{
    (void)snprintf(path, 600, "%s/%s", run, name);
}

static void barrier(void)
{
    struct tri_mesh *mesh;
    struct tri_error error;
    assert_int_equal(tri_mesh_create(job(), 1, 1, 1, 1, &mesh, &error), TRI_OK);
    tri_barrier(tri_mesh_group(mesh, TRI_ON_ALL));
    tri_mesh_destroy(mesh);
}

/* RUN/one: what one rank writes. */
static void write_reference(enum tri_precision precision)
{
    char path[600];
    struct tri_error error;
    in_run(path, "one");
    if (root) {
        struct tri_config config = fixture_config(precision);
        struct tri_params *params = fixture_params(&config, serial, true);
        struct tri_checkpoint_state state = fixture_state(1);
        assert_int_equal(tri_checkpoint_write(path, params, &state, true, &error), TRI_OK);
        tri_params_destroy(params);
    }
    barrier();
}

static void expect_same_files(void)
{
    char a[600], b[600];
    struct tri_checkpoint_manifest *one, *other;
    struct tri_error error;
    in_run(a, "one");
    in_run(b, "checkpoints/step_1");
    assert_int_equal(tri_manifest_load(a, &one, &error), TRI_OK);
    assert_int_equal(tri_manifest_load(b, &other, &error), TRI_OK);
    assert_true(one->digest == other->digest);
    assert_int_equal(one->files, other->files);
    for (int i = 0; i < one->files; i++) {
        assert_string_equal(one->file[i].name, other->file[i].name);
        assert_true(one->file[i].hash == other->file[i].hash);
    }
    tri_manifest_destroy(one);
    tri_manifest_destroy(other);
}

static void clear(struct tri_params *params)
{
    for (int i = 0; i < TRI_BUFFERS; i++) {
        struct tri_buffer *buffer = &params->buffer[i];
        size_t bytes = (size_t)buffer->shard * sizeof(float);
        memset(buffer->weights, 0, (size_t)buffer->count * tri_dtype_size(buffer->dtype));
        if (buffer->m) {
            memset(buffer->m, 0, bytes);
            memset(buffer->v, 0, bytes);
        }
        if (buffer->master) {
            memset(buffer->master, 0, bytes);
        }
    }
}

/* This rank's own memory, byte for byte. */
static void expect_same_memory(const struct tri_params *a, const struct tri_params *b)
{
    for (int i = 0; i < TRI_BUFFERS; i++) {
        const struct tri_buffer *x = &a->buffer[i], *y = &b->buffer[i];
        size_t bytes = (size_t)x->shard * sizeof(float);
        assert_memory_equal(x->weights, y->weights, (size_t)x->count * tri_dtype_size(x->dtype));
        assert_memory_equal(x->m, y->m, bytes);
        assert_memory_equal(x->v, y->v, bytes);
        if (x->master) {
            assert_memory_equal(x->master, y->master, bytes);
        }
    }
}

/* Weights alone, as who only asks takes them: of bf16 there is no f32 that could be read into. */
static void expect_answers(const struct tri_config *config, const struct tri_mesh *mesh,
                           const char *path, const struct tri_params *mine)
{
    struct tri_error error;
    struct tri_params *asked = fixture_params(config, mesh, false);
    clear(asked);
    if (tri_checkpoint_load_parts(path, asked, NULL, false, CHUNK, &error) != TRI_OK) {
        fail_msg("%s", error.message);
    }
    for (int i = 0; i < TRI_BUFFERS; i++) {
        const struct tri_buffer *x = &mine->buffer[i], *y = &asked->buffer[i];
        assert_memory_equal(x->weights, y->weights, (size_t)x->count * tri_dtype_size(x->dtype));
    }
    tri_params_destroy(asked);
}

static bool check_layout(const struct layout *layout, enum tri_precision precision)
{
    struct tri_config config = fixture_config(precision);
    struct tri_mesh *mesh = mesh_of(layout, &config);
    char path[600];
    struct tri_error error;
    if (!mesh) {
        return false;
    }
    struct tri_checkpoint_state state = fixture_state(1), loaded;
    struct tri_params *mine = fixture_params(&config, mesh, true);
    /* In one chunk a file, and in many: some cut a tensor, some hold several. */
    for (int64_t chunk = 0; chunk <= CHUNK; chunk += CHUNK) {
        in_run(path, "checkpoints/step_1");
        if (tri_checkpoint_write_parts(path, mine, root ? &state : NULL, true, PART, chunk,
                                       &error) != TRI_OK) {
            fail_msg("%s", error.message);
        }
        if (root) {
            expect_same_files();
        }
    }
    struct tri_params *theirs = fixture_params(&config, mesh, true);
    clear(theirs);
    in_run(path, "one");
    if (tri_checkpoint_load_parts(path, theirs, &loaded, true, CHUNK, &error) != TRI_OK) {
        fail_msg("%s", error.message);
    }
    assert_int_equal(loaded.tokens, state.tokens);
    assert_memory_equal(loaded.bias, state.bias, 8 * sizeof(float));
    tri_checkpoint_state_fini(&loaded);
    expect_same_memory(mine, theirs);
    expect_answers(&config, mesh, path, mine);
    tri_params_destroy(theirs);
    tri_params_destroy(mine);
    tri_mesh_destroy(mesh);
    return true;
}

/* Eight processes on few cores are slow: they share the layouts between the two precisions. */
static void check_layouts(enum tri_precision precision)
{
    int checked = 0;
    write_reference(precision);
    for (int i = 0; i < LAYOUTS; i++) {
        if (job_size() <= 4 || i % 2 == (precision == TRI_PRECISION_F32)) {
            checked += check_layout(&layouts[i], precision);
        }
    }
    /* Three do not divide what there is to divide, nor does six's other half. */
    static const int least[] = {0, 1, 2, 1, 4, 1, 2, 1, 5};
    assert_true(checked >= least[job_size()]);
}

static void test_layouts_f32(void **state)
{
    (void)state;
    check_layouts(TRI_PRECISION_F32);
}

static void test_layouts_bf16(void **state)
{
    (void)state;
    check_layouts(TRI_PRECISION_BF16);
}

/* ---- failures -------------------------------------------------------------------------------- */

static struct tri_params *plain_params(struct tri_mesh **mesh)
{
    struct tri_error error;
    struct tri_config config = fixture_config(TRI_PRECISION_F32);
    assert_int_equal(tri_mesh_create(job(), 1, 1, 1, 1, mesh, &error), TRI_OK);
    return fixture_params(&config, *mesh, true);
}

/* In chunks so small that every rank writes some of each file. */
static enum tri_status save_chunks(const char *path, const struct tri_params *params,
                                   struct tri_error *error)
{
    struct tri_checkpoint_state s = fixture_state(6);
    *error = (struct tri_error){0};
    return tri_checkpoint_write_parts(path, params, root ? &s : NULL, true, PART, CHUNK, error);
}

/* A file fails on one rank alone, on each in turn. */
static void test_full_disk_on_all_ranks(void **state)
{
    (void)state;
    static const struct {
        const char *fault, *says;
    } faults[] = {
        {"write:ENOSPC:model-00001:20000", "model-00001-of-00001.safetensors: cannot write"},
        {"write:ENOSPC:optimizer-00001:9000", "cannot write: No space left"},
        {"open:EACCES:model-", "cannot create: Permission denied"},
        {"sync:EIO:optimizer-", "cannot finish: Input/output error"}};
    struct tri_mesh *mesh;
    struct tri_params *params = plain_params(&mesh);
    struct tri_error error;
    char path[600], temporary[700];
    in_run(path, "step_6");
    (void)snprintf(temporary, sizeof(temporary), "%s.trident.tmp", path);
    for (int i = 0; i < 4 * job_size(); i++) {
        if (job_rank() == i / 4) {
            assert_int_equal(setenv("TRIDENT_FILE_FAULT", faults[i % 4].fault, 1), 0);
        }
        assert_int_equal(save_chunks(path, params, &error), TRI_FAILED);
        (void)unsetenv("TRIDENT_FILE_FAULT");
        if (!strstr(error.message, faults[i % 4].says)) {
            fail_msg("'%s' lacks '%s'", error.message, faults[i % 4].says);
        }
        assert_false(root && (tri_file_exists(path) || tri_file_exists(temporary)));
        barrier();
    }
    if (root) {
        assert_int_equal(setenv("TRIDENT_FILE_FAULT", "write:ENOSPC:manifest.json", 1), 0);
    }
    assert_int_equal(save_chunks(path, params, &error), TRI_FAILED);
    (void)unsetenv("TRIDENT_FILE_FAULT");
    assert_non_null(strstr(error.message, "No space left"));
    assert_int_equal(save_chunks(path, params, &error), TRI_OK);
    tri_params_destroy(params);
    tri_mesh_destroy(mesh);
}

/* Each rank in turn sees another folder of the same name. */
static void test_other_folder(void **state)
{
    (void)state;
    static const char *const folders[] = {"here", "there"};
    struct tri_mesh *mesh;
    struct tri_error error;
    char path[600];
    if (job_size() < 2 || strcmp(job_transport(), "mpi") != 0) {
        return; /* threads have one working folder */
    }
    struct tri_params *params = plain_params(&mesh);
    char *before = getcwd(NULL, 0);
    assert_non_null(before);
    for (int apart = 0; apart < job_size(); apart++) {
        for (int i = 0; i < 2 && root; i++) {
            in_run(path, i == 0 ? "here/step_6.trident.tmp" : "there/step_6.trident.tmp");
            assert_int_equal(tri_file_make_dirs(path, &error), TRI_OK);
        }
        barrier();
        in_run(path, folders[job_rank() == apart]);
        assert_int_equal(chdir(path), 0);
        assert_int_equal(save_chunks("step_6", params, &error), TRI_BAD_INPUT);
        assert_non_null(strstr(error.message, "it must be the same folder on all nodes"));
        assert_false(root && tri_file_exists("step_6"));
        assert_int_equal(chdir(before), 0);
    }
    free(before);
    tri_params_destroy(params);
    tri_mesh_destroy(mesh);
}

static void test_damage_on_all_ranks(void **state)
{
    (void)state;
    struct tri_mesh *mesh;
    struct tri_params *params = plain_params(&mesh);
    struct tri_checkpoint_state s = fixture_state(7), loaded;
    struct tri_error error;
    char path[600], victim[700];
    in_run(path, "checkpoints/step_7");
    assert_int_equal(tri_checkpoint_save(run, params, &s, 0, &error), TRI_OK);
    (void)snprintf(victim, sizeof(victim), "%s/state.json", path);
    assert_false(root && remove(victim) != 0);
    barrier();
    assert_int_equal(tri_checkpoint_load(path, params, &loaded, true, &error), TRI_BAD_INPUT);
    assert_non_null(strstr(error.message, "state.json: cannot open"));
    assert_non_null(strstr(error.message, "last good checkpoint is"));
    assert_null(loaded.config);
    tri_params_destroy(params);
    tri_mesh_destroy(mesh);
}

/* ---- Hugging Face directories ---------------------------------------------------------------- */

/* What these ranks export is the file they imported. */
static void export_from(const char *dir, const struct tri_config *config,
                        const struct tri_params *params)
{
    char out[600], mine[700], theirs[600];
    struct tri_mapping x, y;
    struct tri_error error;
    in_run(out, "exported");
    if (tri_hf_save(out, config, params, TRI_ST_F32, NULL, &error) != TRI_OK) {
        fail_msg("%s", error.message);
    }
    if (root) {
        (void)snprintf(mine, sizeof(mine), "%s/model.safetensors", out);
        (void)snprintf(theirs, sizeof(theirs), "%s/model.safetensors", dir);
        assert_int_equal(tri_file_map(mine, &x, &error), TRI_OK);
        assert_int_equal(tri_file_map(theirs, &y, &error), TRI_OK);
        assert_int_equal(x.size, y.size);
        assert_memory_equal(x.data, y.data, x.size);
        tri_file_unmap(&x);
        tri_file_unmap(&y);
        assert_int_equal(tri_file_remove_tree(out, &error), TRI_OK);
    }
}

/* False where the model can't be cut so. */
static bool import_on(const char *dir, const struct layout *layout)
{
    struct tri_config config, alone;
    struct tri_error error;
    assert_int_equal(tri_hf_load_config(dir, &config, NULL, &error), TRI_OK);
    alone = config;
    struct tri_mesh *mesh = mesh_of(layout, &config);
    if (!mesh) {
        return false;
    }
    struct tri_params *params = tri_params_create(&config, mesh), *whole = NULL;
    tri_params_allocate(params, false);
    if (tri_hf_load_weights(dir, params, &error) != TRI_OK) {
        fail_msg("%s", error.message);
    }
    if (root) {
        whole = tri_params_create(&alone, serial);
        tri_params_allocate(whole, false);
        assert_int_equal(tri_hf_load_weights(dir, whole, &error), TRI_OK);
    }
    for (int p = 0; p < params->count; p++) {
        size_t n = (size_t)fixture_elements(&params->param[p]);
        float *global = tri_alloc(TRI_MEMORY_OTHER, n * sizeof(*global));
        tri_param_gather(params, &params->param[p], TRI_FIELD_WEIGHT, global);
        if (whole) {
            assert_memory_equal(global, tri_param_weights(whole, &whole->param[p]),
                                n * sizeof(*global));
        }
        tri_free(global);
    }
    export_from(dir, &config, params);
    tri_params_destroy(whole);
    tri_params_destroy(params);
    tri_mesh_destroy(mesh);
    return true;
}

static void test_imports(void **state)
{
    (void)state;
    static const char *const families[] = {"mixtral", "olmoe", "qwen2_moe", "qwen3_moe",
                                           "gpt2",    "llama", "qwen3"};
    for (size_t f = 0; f < sizeof(families) / sizeof(*families); f++) {
        char dir[512];
        (void)snprintf(dir, sizeof(dir), TESTDATA_DIR "/golden/%s", families[f]);
        int imported = 0;
        for (int i = 0; i < LAYOUTS; i++) {
            bool full = layouts[i].tensor * layouts[i].expert == job_size();
            imported += full && import_on(dir, &layouts[i]);
        }
        /* Four heads are cut into neither three nor eight. */
        assert_true(imported > 0 || job_size() > 4 || job_size() == 3);
    }
}

static void test_missing_directory_on_all_ranks(void **state)
{
    (void)state;
    struct tri_mesh *mesh;
    struct tri_params *params = plain_params(&mesh);
    struct tri_error error = {0};
    assert_int_equal(tri_hf_load_weights(TESTDATA_DIR "/golden/nothing", params, &error),
                     TRI_BAD_INPUT);
    assert_non_null(strstr(error.message, "golden/nothing/config.json"));
    tri_params_destroy(params);
    tri_mesh_destroy(mesh);
}

static int set_up(void **state)
{
    (void)state;
    struct tri_error error;
    root = job_rank() == 0;
    serial = tri_mesh_create_serial();
    (void)snprintf(run, sizeof(run), "%s/layouts.%d", TEST_TMP, job_size());
    if (root) {
        assert_int_equal(tri_file_remove_tree(run, &error), TRI_OK);
        assert_int_equal(tri_file_make_dirs(run, &error), TRI_OK);
    }
    barrier();
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    barrier();
    if (root) {
        fixture_remove(run);
    }
    tri_mesh_destroy(serial);
    return 0;
}

static int run_job(int argc, char **argv)
{
    (void)argc;
    (void)argv;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_layouts_f32),
        cmocka_unit_test(test_layouts_bf16),
        cmocka_unit_test(test_full_disk_on_all_ranks),
        cmocka_unit_test(test_other_folder),
        cmocka_unit_test(test_damage_on_all_ranks),
        cmocka_unit_test(test_imports),
        cmocka_unit_test(test_missing_directory_on_all_ranks),
    };
    tri_comm_set_timeout(job(), 30);
    int failed = cmocka_run_group_tests(tests, set_up, tear_down);
    return failed;
}

int main(int argc, char **argv)
{
    return job_run(argc, argv, run_job);
}
