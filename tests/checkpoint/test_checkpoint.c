/* Checkpoints on one rank: what is saved comes back bit for bit, and no damage passes for a
 * checkpoint. */
#include "checkpoint/checkpoint.h"
#include "checkpoint/checkpoint_save.h"
#include "checkpoint/fixture.h"
#include "checkpoint/manifest.h"
#include "checkpoint/safetensors.h"

#include "base/file.h"
#include "base/memory.h"
#include "base/work.h"
#include "moe/strategies.h"

#include <inttypes.h>
#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <xxhash.h>

static char run[256];
static struct tri_mesh *mesh;
static struct tri_config config;
static struct tri_params *saved; /* with the optimizer; never changed */

static char *in_run(const char *name)
{
    static char path[4][600];
    static int next;
    char *to = path[next++ % 4];
    (void)snprintf(to, 600, "%s/%s", run, name);
    return to;
}

static void save_step(int64_t step, int64_t keep_last)
{
    struct tri_checkpoint_state state = fixture_state(step);
    struct tri_error error;
    if (tri_checkpoint_save(run, saved, &state, keep_last, &error) != TRI_OK) {
        fail_msg("%s", error.message);
    }
}

static struct tri_params *empty_params(bool with_optimizer)
{
    struct tri_params *params = fixture_params(&config, mesh, with_optimizer);
    for (int i = 0; i < TRI_BUFFERS; i++) {
        struct tri_buffer *buffer = &params->buffer[i];
        memset(buffer->weights, 0, (size_t)buffer->count * tri_dtype_size(buffer->dtype));
        if (with_optimizer) {
            size_t bytes = (size_t)buffer->shard * sizeof(float);
            memset(buffer->m, 0, bytes);
            memset(buffer->v, 0, bytes);
        }
    }
    return params;
}

/* Loading must fail with these words; and, unless it is the tensors' bytes that are damaged, leave
 * the weights alone. */
static void refuse_load(const char *path, bool with_optimizer, const char *words)
{
    bool read = strstr(words, "damaged in tensor");
    struct tri_params *params = empty_params(true);
    struct tri_checkpoint_state state;
    struct tri_error error = {0};
    assert_int_equal(tri_checkpoint_load(path, params, &state, with_optimizer, &error),
                     TRI_BAD_INPUT);
    if (!strstr(error.message, words)) {
        fail_msg("'%s' lacks '%s'", error.message, words);
    }
    for (int p = 0; p < params->count; p++) {
        const float *weights = tri_param_weights(params, &params->param[p]);
        assert_true(read || weights[0] == 0.0F);
    }
    assert_null(state.config);
    tri_params_destroy(params);
}

static int fresh(void **state)
{
    (void)state;
    struct tri_error error;
    (void)unsetenv("TRIDENT_FILE_FAULT");
    return tri_file_remove_tree(in_run("checkpoints"), &error) == TRI_OK ? 0 : -1;
}

static void test_round_trip(void **state)
{
    (void)state;
    save_step(12, 0);
    struct tri_params *params = empty_params(true);
    struct tri_checkpoint_state loaded, expected = fixture_state(12);
    struct tri_error error;
    struct tri_work work = {0};
    tri_work_attach(&work);
    if (tri_checkpoint_load(in_run("checkpoints/step_12"), params, &loaded, true, &error) !=
        TRI_OK) {
        fail_msg("%s", error.message);
    }
    tri_work_attach(NULL);
    assert_true(work.done > 0); /* signs of life */
    fixture_expect_equal(saved, params, true);
    assert_int_equal(loaded.step, 12);
    assert_int_equal(loaded.tokens, expected.tokens);
    assert_int_equal(loaded.samples, expected.samples);
    assert_int_equal(loaded.data_tokens, expected.data_tokens);
    assert_true(loaded.data_contents == expected.data_contents);
    assert_int_equal(loaded.seed, 42);
    assert_int_equal(loaded.skipped_steps, 3);
    assert_int_equal(loaded.skipped_in_a_row, 1);
    assert_int_equal(loaded.bias_layers, 1);
    assert_int_equal(loaded.bias_experts, 8);
    assert_memory_equal(loaded.bias, expected.bias, 8 * sizeof(float));
    assert_string_equal(loaded.config, expected.config);
    tri_checkpoint_state_fini(&loaded);
    tri_params_destroy(params);
    /* The weights alone. */
    params = empty_params(false);
    assert_int_equal(
        tri_checkpoint_load(in_run("checkpoints/step_12"), params, NULL, false, &error), TRI_OK);
    fixture_expect_equal(saved, params, false);
    tri_params_destroy(params);
}

static void test_bf16_masters(void **state)
{
    (void)state;
    struct tri_config narrow = fixture_config(TRI_PRECISION_BF16);
    struct tri_params *a = fixture_params(&narrow, mesh, true);
    struct tri_checkpoint_state s = fixture_state(1);
    struct tri_error error;
    assert_int_equal(tri_checkpoint_save(run, a, &s, 0, &error), TRI_OK);
    struct tri_params *b = fixture_params(&narrow, mesh, true);
    for (int i = 0; i < TRI_BUFFERS; i++) {
        struct tri_buffer *buffer = &b->buffer[i];
        memset(buffer->weights, 0, (size_t)buffer->count * tri_dtype_size(buffer->dtype));
        if (buffer->master) {
            memset(buffer->master, 0, (size_t)buffer->shard * sizeof(float));
        }
    }
    assert_int_equal(tri_checkpoint_load(in_run("checkpoints/step_1"), b, NULL, true, &error),
                     TRI_OK);
    /* Masters unrounded, stored weights the rounded ones. */
    fixture_expect_equal(a, b, true);
    for (int i = 0; i < TRI_BUFFERS; i++) {
        const struct tri_buffer *x = &a->buffer[i], *y = &b->buffer[i];
        assert_memory_equal(x->weights, y->weights, (size_t)x->count * tri_dtype_size(x->dtype));
    }
    tri_params_destroy(a);
    tri_params_destroy(b);
    /* The f32 model of the same seed has the same masters, so the same digest. */
    struct tri_checkpoint_info one, two;
    save_step(2, 0);
    assert_int_equal(tri_checkpoint_inspect(in_run("checkpoints/step_1"), &one, &error), TRI_OK);
    assert_int_equal(tri_checkpoint_inspect(in_run("checkpoints/step_2"), &two, &error), TRI_OK);
    assert_true(one.digest == two.digest);
    tri_checkpoint_info_fini(&one);
    tri_checkpoint_info_fini(&two);
}

static void test_inspect(void **state)
{
    (void)state;
    struct tri_checkpoint_info info;
    struct tri_error error;
    save_step(3, 0);
    assert_int_equal(tri_checkpoint_inspect(in_run("checkpoints/step_3"), &info, &error), TRI_OK);
    assert_int_equal(info.step, 3);
    assert_int_equal(info.tokens, 3 * 512);
    assert_true(info.optimizer);
    assert_int_equal(info.count, saved->count);
    assert_int_equal(info.parameters, saved->total);
    assert_true(info.bytes > 12 * saved->total);
    for (int64_t i = 0; i < info.count; i++) {
        const struct tri_param *param = tri_params_by_name(saved, info.tensor[i].name);
        assert_non_null(param);
        assert_int_equal(info.tensor[i].dims, param->dims);
        assert_memory_equal(info.tensor[i].shape, param->shape, sizeof(param->shape));
    }
    uint64_t digest = info.digest;
    tri_checkpoint_info_fini(&info);
    /* One value changed by one bit: another digest. */
    float *weight = tri_param_weights(saved, &saved->param[4]);
    float kept = weight[1];
    uint32_t bits;
    memcpy(&bits, &kept, sizeof(bits));
    bits ^= 1;
    memcpy(&weight[1], &bits, sizeof(bits));
    save_step(4, 0);
    weight[1] = kept;
    assert_int_equal(tri_checkpoint_inspect(in_run("checkpoints/step_4"), &info, &error), TRI_OK);
    assert_true(info.digest != digest);
    tri_checkpoint_info_fini(&info);
}

static void test_many_parts(void **state)
{
    (void)state;
    struct tri_checkpoint_state s = fixture_state(5);
    struct tri_error error;
    struct tri_checkpoint_manifest *manifest;
    char *path = in_run("checkpoints/step_5");
    assert_int_equal(tri_checkpoint_write_parts(path, saved, &s, true, 4096, 0, &error), TRI_OK);
    assert_int_equal(tri_manifest_load(path, &manifest, &error), TRI_OK);
    assert_true(manifest->files > 8);
    tri_manifest_destroy(manifest);
    struct tri_params *params = empty_params(true);
    assert_int_equal(tri_checkpoint_load(path, params, NULL, true, &error), TRI_OK);
    fixture_expect_equal(saved, params, true);
    tri_params_destroy(params);
    /* The digest is of the weights, not of the files. */
    struct tri_checkpoint_info one, two;
    save_step(6, 0);
    assert_int_equal(tri_checkpoint_inspect(path, &one, &error), TRI_OK);
    assert_int_equal(tri_checkpoint_inspect(in_run("checkpoints/step_6"), &two, &error), TRI_OK);
    assert_true(one.digest == two.digest);
    tri_checkpoint_info_fini(&one);
    tri_checkpoint_info_fini(&two);
}

static void test_without_optimizer(void **state)
{
    (void)state;
    struct tri_checkpoint_state s = fixture_state(3);
    struct tri_error error;
    char *path = in_run("checkpoints/imported");
    struct tri_params *plain = fixture_params(&config, mesh, false);
    assert_int_equal(tri_checkpoint_write(path, plain, &s, false, &error), TRI_OK);
    refuse_load(path, true, "no optimizer state");
    /* Moments of weights that nothing has trained are the zeros that a run begins with, whatever
     * another checkpoint has left there. */
    s = fixture_state(0);
    assert_int_equal(tri_checkpoint_write(path, plain, &s, false, &error), TRI_OK);
    struct tri_params *params = empty_params(true);
    params->buffer[0].m[0] = params->buffer[0].v[0] = 1.0F;
    assert_int_equal(tri_checkpoint_load(path, params, NULL, true, &error), TRI_OK);
    fixture_expect_equal(plain, params, false);
    assert_true(params->buffer[0].m[0] == 0.0F && params->buffer[0].v[0] == 0.0F);
    tri_params_destroy(params);
    params = empty_params(false);
    assert_int_equal(tri_checkpoint_load(path, params, NULL, false, &error), TRI_OK);
    fixture_expect_equal(plain, params, false);
    tri_params_destroy(params);
    /* Written again: replaced. A folder that is something else: kept. */
    assert_int_equal(tri_checkpoint_write(path, plain, &s, false, &error), TRI_OK);
    assert_int_equal(tri_file_make_dirs(in_run("checkpoints/photos"), &error), TRI_OK);
    assert_int_equal(tri_checkpoint_write(in_run("checkpoints/photos"), plain, &s, false, &error),
                     TRI_BAD_INPUT);
    assert_non_null(strstr(error.message, "no checkpoint: not replaced"));
    assert_true(tri_file_is_dir(in_run("checkpoints/photos")));
    assert_false(tri_file_exists(in_run("checkpoints/imported.old.trident.tmp")));
    tri_params_destroy(plain);
}

/* ---- damage ---------------------------------------------------------------------------------- */

static const char *const files[] = {"model-00001-of-00001.safetensors",
                                    "optimizer-00001-of-00001.safetensors", "state.json",
                                    "manifest.json"};

static unsigned char *read_bytes(const char *path, size_t *size)
{
    struct tri_mapping mapping;
    struct tri_error error;
    assert_int_equal(tri_file_map(path, &mapping, &error), TRI_OK);
    *size = mapping.size;
    unsigned char *bytes = tri_alloc(TRI_MEMORY_OTHER, mapping.size);
    memcpy(bytes, mapping.data, mapping.size);
    tri_file_unmap(&mapping);
    return bytes;
}

static void write_bytes(const char *path, const unsigned char *bytes, size_t size)
{
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, size, file), size);
    assert_int_equal(fclose(file), 0);
}

/* Inspecting must fail with the file's name in the message. */
static void refuse_inspect(const char *path, const char *words, const char *more)
{
    struct tri_checkpoint_info info;
    struct tri_error error = {0};
    if (tri_checkpoint_inspect(path, &info, &error) == TRI_OK) {
        fail_msg("%s passed with %s damaged", path, words);
    }
    if (!strstr(error.message, words) || !strstr(error.message, more)) {
        fail_msg("'%s' lacks '%s' or '%s'", error.message, words, more);
    }
    assert_null(info.tensor);
}

static void test_truncation(void **state)
{
    (void)state;
    save_step(1, 0);
    save_step(2, 0);
    char *path = in_run("checkpoints/step_2");
    for (int f = 0; f < 4; f++) {
        size_t size;
        char victim[700];
        (void)snprintf(victim, sizeof(victim), "%s/%s", path, files[f]);
        unsigned char *bytes = read_bytes(victim, &size);
        for (size_t at = 0; at < size; at += 1 + size / 23) {
            write_bytes(victim, bytes, at);
            refuse_inspect(path, files[f], "the last good checkpoint is");
        }
        write_bytes(victim, bytes, size - 1);
        refuse_inspect(path, files[f], "/checkpoints/step_1");
        assert_int_equal(remove(victim), 0);
        refuse_inspect(path, files[f], "/checkpoints/step_1");
        refuse_load(path, true, files[f]);
        write_bytes(victim, bytes, size);
        tri_free(bytes);
    }
    struct tri_checkpoint_info info;
    struct tri_error error;
    assert_int_equal(tri_checkpoint_inspect(path, &info, &error), TRI_OK);
    tri_checkpoint_info_fini(&info);
}

static void test_flipped_bits(void **state)
{
    (void)state;
    save_step(1, 0);
    char *path = in_run("checkpoints/step_1");
    for (int f = 0; f < 4; f++) {
        size_t size;
        char victim[700];
        (void)snprintf(victim, sizeof(victim), "%s/%s", path, files[f]);
        unsigned char *bytes = read_bytes(victim, &size);
        for (size_t i = 0; i < 29; i++) {
            size_t at = i * (size - 1) / 28;
            bytes[at] ^= (unsigned char)(1U << (i % 8));
            write_bytes(victim, bytes, size);
            refuse_inspect(path, files[f], "");
            bytes[at] ^= (unsigned char)(1U << (i % 8));
        }
        /* In the last tensor of the file, which is named. */
        if (f == 0) {
            bytes[size - 2] ^= 16;
            write_bytes(victim, bytes, size);
            refuse_load(path, true, "damaged in tensor layers.2.norm2.weight: hash ");
            bytes[size - 2] ^= 16;
        }
        write_bytes(victim, bytes, size);
        tri_free(bytes);
    }
    struct tri_config read;
    struct tri_error error;
    assert_int_equal(tri_checkpoint_read_config(path, &tri_strategies, &read, &error), TRI_OK);
    assert_int_equal(read.model.vocab_size, 37);
}

/* A checkpoint that is consistent in itself but of another model. */
static void test_other_model(void **state)
{
    (void)state;
    struct tri_checkpoint_state s = fixture_state(1);
    struct tri_error error;
    struct tri_config other = config;
    other.moe.num_experts = 4;
    struct tri_params *params = fixture_params(&other, mesh, true);
    assert_int_equal(tri_checkpoint_save(run, params, &s, 0, &error), TRI_OK);
    tri_params_destroy(params);
    refuse_load(in_run("checkpoints/step_1"), true,
                "layers.1.moe.router.weight: shape [4, 16], expected [8, 16]");
    other = config;
    other.model.bias = TRI_BIAS_NONE;
    params = fixture_params(&other, mesh, true);
    assert_int_equal(tri_checkpoint_save(run, params, &s, 0, &error), TRI_OK);
    tri_params_destroy(params);
    refuse_load(in_run("checkpoints/step_1"), true, "tensor layers.0.attention.q.bias is missing");
    other = config;
    other.model.num_layers = 4;
    params = fixture_params(&other, mesh, true);
    assert_int_equal(tri_checkpoint_save(run, params, &s, 0, &error), TRI_OK);
    tri_params_destroy(params);
    refuse_load(in_run("checkpoints/step_1"), true, "the model of this config has no such weight");
}

/* ---- lies: every check fits, what is told does not ------------------------------------------- */

/* In DIR/NAME, the first `from` becomes `to`. */
static void replace(const char *dir, const char *name, const char *from, const char *to)
{
    char path[700];
    size_t size;
    (void)snprintf(path, sizeof(path), "%s/%s", dir, name);
    unsigned char *bytes = read_bytes(path, &size);
    unsigned char *at = memmem(bytes, size, from, strlen(from));
    if (!at) {
        fail_msg("%s has no %s", path, from);
        return;
    }
    size_t before = (size_t)(at - bytes), after = size - before - strlen(from);
    unsigned char *changed = tri_alloc(TRI_MEMORY_OTHER, size + strlen(to));
    memcpy(changed, bytes, before);
    memcpy(changed + before, to, strlen(to));
    memcpy(changed + before + strlen(to), at + strlen(from), after);
    write_bytes(path, changed, before + strlen(to) + after);
    tri_free(changed);
    tri_free(bytes);
}

/* The manifest's check, and its size and hash of state.json, made to fit again. */
static void sign(const char *dir)
{
    char path[700], text[64];
    size_t size;
    (void)snprintf(path, sizeof(path), "%s/state.json", dir);
    unsigned char *state = read_bytes(path, &size);
    uint64_t hash = XXH3_64bits(state, size);
    tri_free(state);
    (void)snprintf(path, sizeof(path), "%s/manifest.json", dir);
    json_t *root = json_load_file(path, 0, NULL);
    assert_non_null(root);
    size_t i;
    json_t *entry;
    json_array_foreach(json_object_get(root, "files"), i, entry)
    {
        if (strcmp(json_string_value(json_object_get(entry, "part")), "state") == 0) {
            (void)snprintf(text, sizeof(text), "%016" PRIx64, hash);
            (void)json_object_set_new(entry, "bytes", json_integer((json_int_t)size));
            (void)json_object_set_new(entry, "xxh3", json_string(text));
        }
    }
    (void)json_object_del(root, "check");
    char *json = json_dumps(root, JSON_INDENT(1));
    size_t bytes = strlen(json) - strlen("\n}");
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    (void)fwrite(json, 1, bytes, file);
    (void)fprintf(file, ",\n \"check\": \"%016" PRIx64 "\"\n}\n", XXH3_64bits(json, bytes));
    assert_int_equal(fclose(file), 0);
    free(json);
    json_decref(root);
}

static void test_numbers(void **state)
{
    (void)state;
    static const struct {
        const char *file, *from, *to, *says;
    } lies[] = {
        {"state.json", "\"step\": 7", "\"step\": 8",
         "state.json is of step 8, its manifest.json of 7"},
        {"state.json", "\"step\": 7", "\"step\": -7", "step: found -7, expected 0 to 1000000000"},
        {"state.json", "\"step\": 7", "\"step\": 9000000000000000000", "step: found 9000"},
        {"state.json", "\"step\": 7", "\"step\": 99999999999999999999", "state.json:"},
        {"state.json", "\"tokens\": 3584", "\"tokens\": -1", "tokens: found -1"},
        {"state.json", "\"samples\": 117", "\"samples\": -117", "samples: found -117"},
        {"state.json", "\"samples\": 117", "\"samples\": \"117\"", "samples: \"117\""},
        {"state.json", "\"seed\": 42", "\"seed\": -42", "seed: found -42"},
        {"state.json", "\"skipped_steps\": 3", "\"skipped_steps\": -3", "skipped_steps: found -3"},
        {"state.json", "\"skipped_in_a_row\": 1", "\"skipped_in_a_row\": 4", "in_a_row: found 4"},
        {"state.json", "\"bias\": [", "\"bias\": 3, \"b\": [", "bias: expected an array"},
        {"state.json", "\"bias\": [", "\"bias\": [3], \"b\": [", "bias: expected an array"},
        {"state.json", "\"bias\": [", "\"bias\": [[], ", "bias: expected an array"},
        {"state.json", "\"bias\": [", "\"bias\": [[1], ", "bias: 8 values for layer 1, expected 1"},
        {"state.json", "]\n ],\n \"config\"", "], [1]\n ],\n \"config\"",
         "bias: 1 values for layer 1, expected 8"},
        {"state.json", "-0.25", "\"-0.25\"", "bias: value 1 of layer 0"},
        {"state.json", "-0.25", "1e39", "bias: value 1 of layer 0"},
        {"manifest.json", "\"step\": 7", "\"step\": 8", "name says step 7, its manifest.json 8"},
        {"manifest.json", "\"step\": 7", "\"step\": -1", "step: found -1"},
        {"manifest.json", "\"step\": 7", "\"step\": 9000000000", "step: found 9000000000"},
        {"manifest.json", "\"bytes\": ", "\"bytes\": -", "bytes: found -"},
        {"manifest.json", "\"shape\": [\n    37", "\"shape\": [\n    -37", "shape: found -37"},
        {"manifest.json", "\"shape\": [\n    37", "\"shape\": [\n    9000000000000000000",
         "shape: found 9000"},
        {"manifest.json", "\"part\": \"state\"", "\"part\": \"model\"", "0 state.json"},
        {"manifest.json", "\"name\": \"state.json\"", "\"name\": \"config.json\"",
         "state in 'config.json'"},
        {"manifest.json", "\"optimizer\": true", "\"optimizer\": false", "1 of the optimizer"},
    };
    char *path = in_run("checkpoints/step_7");
    for (size_t i = 0; i < sizeof(lies) / sizeof(*lies); i++) {
        struct tri_config read;
        struct tri_error error = {0};
        save_step(7, 0);
        replace(path, lies[i].file, lies[i].from, lies[i].to);
        sign(path);
        refuse_inspect(path, "step_7", lies[i].says);
        refuse_load(path, true, lies[i].says);
        assert_int_equal(tri_checkpoint_read_config(path, &tri_strategies, &read, &error),
                         TRI_BAD_INPUT);
    }
    save_step(7, 0);
    sign(path);
    struct tri_checkpoint_info info;
    struct tri_error error;
    assert_int_equal(tri_checkpoint_inspect(path, &info, &error), TRI_OK);
    tri_checkpoint_info_fini(&info);
}

/* A folder that was copied or renamed is not of the step that its name says; under a name that
 * says none it is itself. */
static void test_copied(void **state)
{
    (void)state;
    struct tri_checkpoint_info info;
    struct tri_error error;
    save_step(7, 0);
    assert_int_equal(rename(in_run("checkpoints/step_7"), in_run("checkpoints/step_999")), 0);
    save_step(7, 0);
    static const char says[] = "name says step 999, its manifest.json 7; the last good checkpoint";
    refuse_inspect(in_run("checkpoints/step_999"), "step_999", says);
    refuse_load(in_run("checkpoints/step_999"), true, says);
    refuse_load(in_run("checkpoints/step_999/"), false, says);
    assert_int_equal(rename(in_run("checkpoints/step_999"), in_run("checkpoints/best")), 0);
    assert_int_equal(tri_checkpoint_inspect(in_run("checkpoints/best"), &info, &error), TRI_OK);
    assert_int_equal(info.step, 7);
    tri_checkpoint_info_fini(&info);
}

static void test_no_good_checkpoint(void **state)
{
    (void)state;
    save_step(1, 0);
    save_step(2, 0);
    assert_int_equal(remove(in_run("checkpoints/step_1/state.json")), 0);
    assert_int_equal(remove(in_run("checkpoints/step_2/manifest.json")), 0);
    refuse_inspect(in_run("checkpoints/step_2"), "manifest.json is missing",
                   "no older checkpoint is good");
    struct tri_config read;
    struct tri_error error;
    assert_int_equal(
        tri_checkpoint_read_config(in_run("checkpoints/step_2"), &tri_strategies, &read, &error),
        TRI_BAD_INPUT);
    assert_non_null(strstr(error.message, "no older checkpoint is good"));
}

/* Beside a run that goes on, what was found is gone when it is read. */
static void test_removed_meanwhile(void **state)
{
    (void)state;
    save_step(3, 0);
    refuse_inspect(in_run("checkpoints/step_2"), "step_2: is not there: a run that goes on",
                   "keep_last");
    refuse_load(in_run("checkpoints/step_2"), true, "is not there: a run that goes on");
}

static int set_up(void **state)
{
    (void)state;
    mesh = tri_mesh_create_serial();
    config = fixture_config(TRI_PRECISION_F32);
    saved = fixture_params(&config, mesh, true);
    fixture_dir("checkpoint", run);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    tri_params_destroy(saved);
    tri_mesh_destroy(mesh);
    fixture_remove(run);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_round_trip, fresh),
        cmocka_unit_test_setup(test_bf16_masters, fresh),
        cmocka_unit_test_setup(test_inspect, fresh),
        cmocka_unit_test_setup(test_many_parts, fresh),
        cmocka_unit_test_setup(test_without_optimizer, fresh),
        cmocka_unit_test_setup(test_truncation, fresh),
        cmocka_unit_test_setup(test_flipped_bits, fresh),
        cmocka_unit_test_setup(test_other_model, fresh),
        cmocka_unit_test_setup(test_numbers, fresh),
        cmocka_unit_test_setup(test_copied, fresh),
        cmocka_unit_test_setup(test_no_good_checkpoint, fresh),
        cmocka_unit_test_setup(test_removed_meanwhile, fresh),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
