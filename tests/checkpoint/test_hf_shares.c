/* All ranks share the work on a Hugging Face folder that is written: on every layout its files are
 * those that one rank writes, byte for byte, each rank writes its share with little memory beside
 * the weights, and what fails on one of them fails on all. */
#include "checkpoint/fixture.h"
#include "checkpoint/hf.h"
#include "checkpoint/hf_save.h"
#include "support/job.h"

#include "base/file.h"
#include "base/hash.h"
#include "base/memory.h"
#include "base/random.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* Two pieces: a rank has all of a piece or nothing. */
enum { SLACK = 4 << 20, MODEL_BYTES = 24 << 20 };

static char run[256];
static bool root;

static const int layouts[][2] = {{1, 1}, {2, 1}, {1, 2}, {2, 2}, {4, 1}, {1, 4}, {4, 2}, {1, 8}};

enum { LAYOUTS = sizeof(layouts) / sizeof(*layouts) };

/* A form of a folder: one file or several, in pieces of some lines, of hardly any, and as fits. */
struct form {
    enum tri_safetensors_dtype dtype;
    int64_t shard_bytes, piece;
};

static const struct form forms[] = {
    {TRI_ST_F32, 1 << 30, 500}, {TRI_ST_BF16, 60000, 100}, {TRI_ST_F16, 1 << 30, 0}};

enum { FORMS = sizeof(forms) / sizeof(*forms) };

/* Families of one tensor each, of transposed ones, of experts and shared ones; with the hash of
 * what each form was when rank 0 wrote alone (e5202bb). */
static const struct {
    const char *family, *targets;
    uint64_t expected[FORMS];
} models[] = {
    {"gpt2", "attention,mlp", {0x0216dce8dafc1e13, 0x4fd98391d1de05e3, 0x75dcec58ae134403}},
    {"qwen2_moe",
     "attention,experts,shared",
     {0x63be9d91fff710bf, 0xbee141e0b910c0ec, 0xe06fcc77dbab3754}},
    {"mixtral", "", {0xc37c948e8e144995, 0x0b440b8b859e4fc5, 0x6273a230b5367da9}},
};

enum { MODELS = sizeof(models) / sizeof(*models) };

static struct tri_config config_of(int model)
{
    struct tri_config config;
    struct tri_error error;
    char path[512];
    (void)snprintf(path, sizeof(path), TESTDATA_DIR "/golden/%s", models[model].family);
    assert_int_equal(tri_hf_load_config(path, &config, NULL, &error), TRI_OK);
    if (models[model].targets[0]) {
        config.train.lora.rank = 3;
        config.train.lora.alpha = 6.0;
        (void)snprintf(config.train.lora.targets, sizeof(config.train.lora.targets), "%s",
                       models[model].targets);
    }
    return config;
}

/* The mesh, with data replicas for the ranks that are left; NULL where these ranks or this model
 * cannot be cut so. */
static struct tri_mesh *mesh_of(const int layout[2], struct tri_config *config)
{
    struct tri_mesh *mesh = NULL;
    struct tri_error error;
    config->parallel.tensor = config->parallel.expert_tensor = layout[0];
    config->parallel.expert = layout[1];
    if (job_size() % (layout[0] * layout[1]) == 0 &&
        tri_config_check_layout(config, job_size(), &error) == TRI_OK) {
        assert_int_equal(tri_mesh_create(job(), layout[0], 1, 1, layout[1], &mesh, &error), TRI_OK);
    }
    return mesh;
}

static void barrier(void)
{
    struct tri_mesh *mesh;
    struct tri_error error;
    assert_int_equal(tri_mesh_create(job(), 1, 1, 1, 1, &mesh, &error), TRI_OK);
    tri_barrier(tri_mesh_group(mesh, TRI_ON_ALL));
    tri_mesh_destroy(mesh);
}

/* Numbers whose products with each other are exact in double, most of them of no half. */
static struct tri_params *make(const struct tri_config *config, const struct tri_mesh *mesh)
{
    struct tri_params *params = tri_params_create(config, mesh);
    tri_params_allocate(params, false);
    for (int p = 0; p < params->count; p++) {
        const struct tri_param *param = &params->param[p];
        int64_t n = fixture_elements(param);
        float *whole = tri_alloc(TRI_MEMORY_OTHER, (size_t)n * sizeof(*whole));
        for (int64_t i = 0; i < n; i++) {
            uint64_t bits = tri_random_bits(1, tri_random_stream(param->name), (uint64_t)i);
            whole[i] = ((float)(bits % 65521) - 32760.0F) / 4096.0F;
        }
        tri_param_scatter(params, param, TRI_FIELD_WEIGHT, whole);
        tri_free(whole);
    }
    return params;
}

static void save(const char *to, const struct tri_config *config, const struct tri_params *params,
                 const struct form *form)
{
    struct tri_error error;
    if (tri_hf_save_shards(to, config, params, form->dtype, NULL, form->shard_bytes, form->piece,
                           &error) != TRI_OK) {
        fail_msg("%s", error.message);
    }
}

/* ---- bytes ----------------------------------------------------------------------------------- */

/* The names and bytes of a folder's weights and their index, in any order. */
struct contents {
    const char *dir;
    int files;
    uint64_t sum;
};

static enum tri_status add_file(const char *name, void *data)
{
    struct contents *contents = data;
    struct tri_mapping file;
    struct tri_error error;
    char path[700];
    if (strncmp(name, "model", strlen("model")) != 0) {
        return TRI_OK;
    }
    struct tri_hash *hash = tri_hash_create();
    (void)snprintf(path, sizeof(path), "%s/%s", contents->dir, name);
    assert_int_equal(tri_file_map(path, &file, &error), TRI_OK);
    tri_hash_update(hash, name, strlen(name));
    tri_hash_update(hash, file.data, file.size);
    contents->sum += tri_hash_get(hash);
    contents->files++;
    tri_file_unmap(&file);
    tri_hash_destroy(hash);
    return TRI_OK;
}

static void expect_contents(const char *dir, int model, int form)
{
    struct contents contents = {.dir = dir};
    struct tri_error error;
    assert_int_equal(tri_file_list(dir, add_file, &contents, &error), TRI_OK);
    assert_true(forms[form].shard_bytes < 1 << 20 ? contents.files > 2 : contents.files == 1);
    if (contents.sum != models[model].expected[form]) {
        fail_msg("%s, form %d: 0x%016llx", models[model].family, form,
                 (unsigned long long)contents.sum);
    }
    assert_int_equal(tri_file_remove_tree(dir, &error), TRI_OK);
}

static void test_same_bytes(void **state)
{
    (void)state;
    char out[600];
    int checked = 0;
    (void)snprintf(out, sizeof(out), "%s/out", run);
    for (int i = 0; i < MODELS * LAYOUTS; i++) {
        int model = i / LAYOUTS;
        struct tri_config config = config_of(model);
        struct tri_mesh *mesh = mesh_of(layouts[i % LAYOUTS], &config);
        if (!mesh) {
            continue;
        }
        struct tri_params *params = make(&config, mesh);
        for (int form = 0; form < FORMS; form++) {
            save(out, &config, params, &forms[form]);
            if (root) {
                expect_contents(out, model, form);
            }
            barrier();
        }
        checked++;
        tri_params_destroy(params);
        tri_mesh_destroy(mesh);
    }
    assert_true(checked >= MODELS);
}

/* ---- shares ---------------------------------------------------------------------------------- */

/* Bytes that this thread has had written for it since it began. */
static int64_t bytes_written(void)
{
    char line[128];
    int64_t bytes = -1;
    FILE *file = fopen("/proc/thread-self/io", "r");
    assert_non_null(file);
    while (fgets(line, sizeof(line), file)) {
        if (strncmp(line, "wchar: ", 7) == 0) {
            bytes = strtoll(line + 7, NULL, 10);
        }
    }
    assert_int_equal(fclose(file), 0);
    assert_true(bytes >= 0);
    return bytes;
}

/* Every rank writes its part of what there is, whoever holds it: expert and tensor ranks what they
 * hold, replicas each a part. */
static void expect_shares(const int layout[2])
{
    static const struct form form = {TRI_ST_F32, INT64_C(1) << 40, 0};
    struct tri_config config = config_of(1);
    struct tri_error error;
    char out[600];
    config.train.lora.rank = 0;
    config.model.vocab_size = 4000;
    config.model.hidden_size = 320;
    config.model.head_dim = 80;
    config.model.intermediate_size = config.moe.intermediate_size = 480;
    assert_int_equal(tri_config_finish(&config, &error), TRI_OK);
    struct tri_mesh *mesh = mesh_of(layout, &config);
    if (!mesh) {
        return;
    }
    struct tri_params *params = make(&config, mesh);
    int64_t whole = params->total * (int64_t)sizeof(float);
    assert_true(whole > MODEL_BYTES);
    (void)snprintf(out, sizeof(out), "%s/shares", run);
    /* Once before: what comm/ keeps from call to call is there then. */
    save(out, &config, params, &form);
    assert_false(root && tri_file_remove_tree(out, &error) != TRI_OK);
    barrier();
    struct tri_memory_scope scope = tri_memory_scope_begin();
    int64_t bytes = bytes_written();
    save(out, &config, params, &form);
    bytes = bytes_written() - bytes;
    struct tri_memory_counters counters = tri_memory_scope_end(&scope);
    int64_t most = counters.peak[TRI_MEMORY_OTHER] + counters.peak[TRI_MEMORY_BUFFERS];
    if (bytes > whole / job_size() * 3 / 2 + SLACK || bytes < whole / job_size() / 4) {
        fail_msg("%d x %d: rank %d has written %lld of %lld bytes", layout[0], layout[1],
                 job_rank(), (long long)bytes, (long long)whole);
    }
    if (most > TRI_HF_BUFFER_BYTES) {
        fail_msg("%d x %d: %lld bytes", layout[0], layout[1], (long long)most);
    }
    assert_false(root && tri_file_remove_tree(out, &error) != TRI_OK);
    tri_params_destroy(params);
    tri_mesh_destroy(mesh);
}

static void test_shares(void **state)
{
    (void)state;
    for (int i = 0; i < LAYOUTS; i++) {
        expect_shares(layouts[i]);
    }
}

/* ---- failures -------------------------------------------------------------------------------- */

struct subject {
    struct tri_config config;
    struct tri_mesh *mesh;
    struct tri_params *params;
    char out[600], temporary[700];
};

static void begin(struct subject *s)
{
    s->config = config_of(1);
    s->config.train.lora.rank = 0;
    s->mesh = mesh_of(layouts[0], &s->config);
    s->params = make(&s->config, s->mesh);
    (void)snprintf(s->out, sizeof(s->out), "%s/fails", run);
    (void)snprintf(s->temporary, sizeof(s->temporary), "%s.trident.tmp", s->out);
}

static void end(struct subject *s)
{
    struct tri_error error;
    /* It can be written all the same. */
    save(s->out, &s->config, s->params, &forms[1]);
    assert_false(root && tri_file_remove_tree(s->out, &error) != TRI_OK);
    tri_params_destroy(s->params);
    tri_mesh_destroy(s->mesh);
}

static void expect_failure(const struct subject *s, enum tri_safetensors_dtype dtype,
                           enum tri_status status, const char *says)
{
    struct tri_error error = {0};
    assert_int_equal(
        tri_hf_save_shards(s->out, &s->config, s->params, dtype, NULL, 1 << 30, 100, &error),
        status);
    if (!strstr(error.message, says)) {
        fail_msg("'%s' lacks '%s'", error.message, says);
    }
    assert_false(root && (tri_file_exists(s->out) || tri_file_exists(s->temporary)));
}

/* The file fails on one rank alone, on each in turn. */
static void test_full_disk(void **state)
{
    (void)state;
    static const struct {
        const char *fault, *says;
    } faults[] = {
        {"write:ENOSPC:model.safetensors:100", "model.safetensors: cannot write: No space left"},
        {"open:EACCES:model.safetensors", "model.safetensors: cannot create: Permission denied"},
        {"sync:EIO:model.safetensors", "model.safetensors: cannot finish: Input/output error"}};
    struct subject s;
    begin(&s);
    for (int i = 0; i < 3 * job_size(); i++) {
        if (job_rank() == i / 3) {
            assert_int_equal(setenv("TRIDENT_FILE_FAULT", faults[i % 3].fault, 1), 0);
        }
        barrier();
        expect_failure(&s, TRI_ST_F32, TRI_FAILED, faults[i % 3].says);
        barrier();
        (void)unsetenv("TRIDENT_FILE_FAULT");
        barrier();
    }
    end(&s);
}

/* A number that no half holds: in each tensor in turn, which another rank converts. */
static void test_too_large_for_f16(void **state)
{
    (void)state;
    struct subject s;
    begin(&s);
    int rows[] = {0, s.params->count / 3, s.params->count / 2, s.params->count - 1};
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        const struct tri_param *row = &s.params->param[rows[i]];
        size_t n = (size_t)fixture_elements(row);
        float *whole = tri_alloc(TRI_MEMORY_OTHER, n * sizeof(*whole));
        whole[n - 1] = -1e5F;
        tri_param_scatter(s.params, row, TRI_FIELD_WEIGHT, whole);
        expect_failure(&s, TRI_ST_F16, TRI_BAD_INPUT, "found -100000, which no f16 holds");
        whole[n - 1] = 1.0F;
        tri_param_scatter(s.params, row, TRI_FIELD_WEIGHT, whole);
        tri_free(whole);
    }
    end(&s);
}

static int set_up(void **state)
{
    (void)state;
    struct tri_error error;
    root = job_rank() == 0;
    (void)snprintf(run, sizeof(run), "%s/hf_shares.%d", TEST_TMP, job_size());
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
    return 0;
}

static int run_job(int argc, char **argv)
{
    (void)argc;
    (void)argv;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_bytes),
        cmocka_unit_test(test_shares),
        cmocka_unit_test(test_full_disk),
        cmocka_unit_test(test_too_large_for_f16),
    };
    tri_comm_set_timeout(job(), 30);
    return cmocka_run_group_tests(tests, set_up, tear_down);
}

int main(int argc, char **argv)
{
    return job_run(argc, argv, run_job);
}
