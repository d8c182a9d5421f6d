/* Folders as people have them: two forms of the weights, files beside them, names without a prefix,
 * heads that are tied. What is read is what transformers 5 reads (each case was held against it),
 * or it is refused. */
#include "checkpoint/hf_folder.h"

#include "checkpoint/hf.h"

#include "base/file.h"
#include "base/memory.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define SINGLE "model.safetensors"
#define INDEX  "model.safetensors.index.json"

static char *in_dir(const char *name)
{
    static char path[4][600];
    static int next;
    char *to = path[next++ % 4];
    (void)snprintf(to, 600, "%s/%s", hf_dir, name);
    return to;
}

/* An empty folder but for the family's config.json, into which `more` is put. */
static struct hf_items *begin(const char *family, const char *more)
{
    struct tri_error error;
    struct tri_mapping text;
    char changed[8192];
    assert_int_equal(tri_file_remove_tree(hf_dir, &error), TRI_OK);
    assert_int_equal(tri_file_make_dirs(hf_dir, &error), TRI_OK);
    hf_copy_config(family);
    assert_int_equal(tri_file_map(in_dir("config.json"), &text, &error), TRI_OK);
    int length = snprintf(changed, sizeof(changed), "{%s%s%.*s", more, more[0] ? "," : "",
                          (int)text.size - 1, (const char *)text.data + 1);
    tri_file_unmap(&text);
    hf_put("config.json", changed, (size_t)length);
    return hf_items_of(family);
}

/* Other values under the same names: what must not be read. */
static void spoil(struct hf_items *items)
{
    for (int i = 0; i < items->count; i++) {
        ((float *)items->item[i].data)[0] += 1.0F;
    }
}

/* Two shards under these names, and their index; the tensor `moved` is said to be in the other. */
static void write_shards(struct hf_items *items, const char *first, const char *second, int moved)
{
    static char index[65536];
    int half = items->count / 2;
    hf_write(items, first, 0, half);
    hf_write(items, second, half, items->count);
    size_t used = (size_t)snprintf(index, sizeof(index), "{\"metadata\":{},\"weight_map\":{");
    for (int i = 0; i < items->count; i++) {
        bool in_first = (i < half) != (i == moved);
        used += (size_t)snprintf(index + used, sizeof(index) - used, "%s\"%s\":\"%s\"",
                                 i ? "," : "", items->item[i].name, in_first ? first : second);
    }
    (void)snprintf(index + used, sizeof(index) - used, "}}");
    hf_put(INDEX, index, strlen(index));
}

/* ---- which files ----------------------------------------------------------------------------- */

static void test_single_before_index(void **state)
{
    (void)state;
    struct hf_items *items = begin("llama", "");
    hf_write(items, SINGLE, 0, items->count);
    spoil(items);
    write_shards(items, "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", -1);
    hf_expect_same("llama");
    /* The index of shards that are gone. */
    assert_int_equal(remove(in_dir("model-00001-of-00002.safetensors")), 0);
    hf_expect_same("llama");
    /* Only a file counts as one. */
    assert_int_equal(remove(in_dir(SINGLE)), 0);
    assert_int_equal(mkdir(in_dir(SINGLE), 0777), 0);
    hf_refuse("model-00001-of-00002.safetensors: cannot open");
    assert_int_equal(rmdir(in_dir(SINGLE)), 0);
    assert_int_equal(symlink("nowhere", in_dir(SINGLE)), 0);
    hf_refuse("model-00001-of-00002.safetensors: cannot open");
    hf_free(items);
}

static void test_file_that_config_names(void **state)
{
    (void)state;
    struct hf_items *items = begin("llama", "\"transformers_weights\": \"other.safetensors\"");
    hf_write(items, "other.safetensors", 0, items->count);
    hf_expect_same("llama");
    spoil(items);
    hf_write(items, SINGLE, 0, items->count);
    hf_expect_same("llama");
    hf_free(items);
    items = begin("llama", "\"transformers_weights\": \"../other.safetensors\"");
    hf_write(items, SINGLE, 0, items->count);
    hf_refuse("'../other.safetensors' is no file of this folder");
    hf_free(items);
}

/* Shards in folders below; tensors elsewhere than the index says, or not in it at all. */
static void test_shards_anywhere(void **state)
{
    (void)state;
    struct hf_items *items = begin("mixtral", "");
    assert_int_equal(mkdir(in_dir("a"), 0777), 0);
    assert_int_equal(mkdir(in_dir("b"), 0777), 0);
    write_shards(items, "a/x.safetensors", "b/y.safetensors", -1);
    hf_expect_same("mixtral");
    write_shards(items, "a/x.safetensors", "b/y.safetensors", 3);
    hf_expect_same("mixtral");
    int half = items->count / 2, all = items->count;
    items->count = half + 1; /* the index knows one tensor of the second */
    write_shards(items, "a/x.safetensors", "b/y.safetensors", -1);
    items->count = all;
    hf_write(items, "a/x.safetensors", 0, half);
    hf_write(items, "b/y.safetensors", half, all);
    hf_expect_same("mixtral");
    /* Twice: which one? */
    hf_write(items, "b/y.safetensors", half - 1, all);
    hf_refuse("is also in");
    hf_free(items);
}

static void test_files_beside(void **state)
{
    (void)state;
    struct hf_items *items = begin("llama", "");
    hf_put("pytorch_model.bin", "PK", 2);
    hf_refuse("pytorch_model.bin is not read");
    hf_write(items, SINGLE, 0, items->count);
    spoil(items);
    hf_write(items, "consolidated.safetensors", 0, items->count);
    hf_write(items, "model.fp16.safetensors", 0, items->count);
    hf_expect_same("llama");
    hf_put("adapter_config.json", "{}", 2);
    hf_refuse("adapter_config.json: an adapter beside a model is not applied");
    hf_free(items);
}

/* ---- which tensors --------------------------------------------------------------------------- */

static void test_base_models(void **state)
{
    (void)state;
    static const char *const families[] = {"llama", "mixtral", "olmoe", "qwen2_moe", "gpt2"};
    for (size_t f = 0; f < sizeof(families) / sizeof(*families); f++) {
        const char *prefix = strcmp(families[f], "gpt2") == 0 ? "transformer." : "model.";
        struct hf_items *items = begin(families[f], "");
        for (int i = 0; i < items->count; i++) {
            char *name = items->item[i].name;
            if (strncmp(name, prefix, strlen(prefix)) == 0) {
                (void)memmove(name, name + strlen(prefix), strlen(name) - strlen(prefix) + 1);
            }
        }
        hf_write(items, SINGLE, 0, items->count);
        hf_expect_same(families[f]);
        hf_free(items);
    }
    /* Both: which one? */
    struct hf_items *items = begin("llama", "");
    const struct hf_item *norm = hf_item(items, "model.norm.weight");
    memset(hf_add(items, "norm.weight", TRI_ST_F32, 1, norm->spec.shape, norm->bytes)->data, 0,
           norm->bytes);
    hf_write(items, SINGLE, 0, items->count);
    hf_refuse("tensor norm.weight: the model of config.json (llama) has no place");
    hf_free(items);
}

/* A head that is the embedding, under either name, in either type. */
static void test_tied(void **state)
{
    (void)state;
    struct hf_items *items = begin("llama", "");
    const char *name = "model.embed_tokens.weight";
    bool tied = true;
    for (int i = 0; i < items->count; i++) {
        tied = tied && strcmp(items->item[i].name, "lm_head.weight") != 0;
    }
    assert_true(tied);
    struct hf_item *embedding = hf_item(items, name);
    size_t count = embedding->bytes / sizeof(float);
    struct hf_item *head = hf_add(items, "lm_head.weight", TRI_ST_F64, 2, embedding->spec.shape,
                                  count * sizeof(double));
    for (size_t i = 0; i < count; i++) {
        ((double *)head->data)[i] = (double)((float *)embedding->data)[i];
    }
    hf_write(items, SINGLE, 0, items->count);
    hf_expect_same("llama");
    ((double *)head->data)[1] += 1.0;
    hf_write(items, SINGLE, 0, items->count);
    hf_refuse("tensor lm_head.weight differs from the embedding that config.json ties it to");
    ((double *)head->data)[1] -= 1.0;
    ((double *)head->data)[1] = (double)((float *)embedding->data)[1];
    hf_drop(items, name);
    hf_write(items, SINGLE, 0, items->count);
    hf_expect_same("llama");
    hf_free(items);
}

/* Tables are passed over; so is what lies beside the model, with a warning; a part of a block is
 * not. */
static void test_left_over(void **state)
{
    (void)state;
    static const int64_t four[] = {4};
    static const char *const passed[] = {
        "rotary_emb.inv_freq",
        "model.layers.0.self_attn.rotary_emb.cos_cached",
        "model.embed_tokens.position_ids",
        "v_head.summary.weight",
    };
    static const char *const refused[] = {"model.layers.1.self_attn.q_proj.bias",
                                          "layers.0.mlp.gate.weight"};
    struct hf_items *items = begin("llama", "");
    for (size_t i = 0; i < sizeof(passed) / sizeof(*passed); i++) {
        memset(hf_add(items, passed[i], TRI_ST_F32, 1, four, 16)->data, 0, 16);
    }
    hf_write(items, SINGLE, 0, items->count);
    hf_expect_same("llama");
    for (size_t i = 0; i < 2; i++) {
        memset(hf_add(items, refused[i], TRI_ST_F32, 1, four, 16)->data, 0, 16);
        hf_write(items, SINGLE, 0, items->count);
        hf_refuse("the model of config.json (llama) has no place for it");
        hf_drop(items, refused[i]);
    }
    hf_free(items);
}

/* config.json says fewer layers than there are: half a model is none. */
static void test_layers_beyond(void **state)
{
    (void)state;
    static const int64_t four[] = {4};
    static const struct {
        const char *family, *name;
    } cases[] = {{"llama", "model.layers.2.input_layernorm.weight"},
                 {"llama", "layers.2.input_layernorm.weight"},
                 {"qwen3_moe", "model.layers.99.mlp.experts.0.up_proj.weight"},
                 {"gpt2", "transformer.h.2.ln_1.weight"},
                 {"gpt2", "h.2.ln_1.weight"}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        char words[300];
        struct hf_items *items = begin(cases[i].family, "");
        memset(hf_add(items, cases[i].name, TRI_ST_F32, 1, four, 16)->data, 0, 16);
        hf_write(items, SINGLE, 0, items->count);
        (void)snprintf(words, sizeof(words), "tensor %s: found layer %s", cases[i].name,
                       strstr(cases[i].name, ".99.") ? "99, expected none" : "2, expected none");
        hf_refuse(words);
        hf_free(items);
    }
}

static int set_up(void **state)
{
    (void)state;
    hf_begin("hf_folders");
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    hf_end();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_single_before_index), cmocka_unit_test(test_file_that_config_names),
        cmocka_unit_test(test_shards_anywhere),     cmocka_unit_test(test_files_beside),
        cmocka_unit_test(test_base_models),         cmocka_unit_test(test_tied),
        cmocka_unit_test(test_left_over),           cmocka_unit_test(test_layers_beyond),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
