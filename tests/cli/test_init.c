/* Runs that begin with weights that there are: Hugging Face folders, checkpoints, runs. */
#include "cli/cli.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const char golden[] = TRIDENT_SOURCE_DIR "/tests/data/golden";

static const char config[] =
    "run_dir: run\n"
    "threads: 1\n"
    "data: {train: \"tok/train_*.bin\", valid: \"tok/valid_*.bin\", sequence_length: 16}\n"
    "train: {global_batch: 4, steps: 2}\n"
    "eval: {at_start: true}\n";

/* The validation loss before the first step of a run that begins so. */
static double first_loss(const char *run, const char *from, const char *change, const char *other)
{
    char folder[CLI_PATH], source[CLI_PATH];
    (void)snprintf(folder, sizeof(folder), "run_dir=%s", run);
    (void)snprintf(source, sizeof(source), "init_from=%s", from);
    cli_run_well(cli_ranks(), CLI_WORDS_OF("train", "i.yaml", folder, source, change, other));
    json_t *metrics = cli_metrics(run);
    double loss = json_real_value(json_object_get(json_array_get(metrics, 0), "valid_loss"));
    assert_int_equal(json_integer_value(json_object_get(json_array_get(metrics, 0), "step")), 0);
    json_decref(metrics);
    return loss;
}

static void expect_near(double found, double expected)
{
    assert_true(expected > 0 && fabs(found - expected) <= 1e-6 * expected);
}

static double evaluated(const char *path)
{
    struct process_result result =
        cli_run(0, CLI_WORDS_OF("eval", path, "--json", "--data", "tok/valid_*.bin",
                                "data.sequence_length=16", "train.global_batch=4"));
    json_t *root = cli_expect_json(&result, 0);
    double loss = json_real_value(json_object_get(root, "loss"));
    json_decref(root);
    return loss;
}

/* What `import` and `eval` make of a folder is what a run begins with. */
static void test_folders(void **state)
{
    (void)state;
    static const char *const families[] = {"mixtral", "olmoe", "qwen2_moe", "qwen3_moe",
                                           "gpt2",    "llama", "qwen3"};
    for (size_t i = 0; i<sizeof(families) / sizeof(*families); i += cli_ranks()> 1 ? 4 : 1) {
        char folder[CLI_PATH];
        (void)snprintf(folder, sizeof(folder), "golden/%s", families[i]);
        cli_run_well(0, CLI_WORDS_OF("import", folder, families[i]));
        char run[64];
        (void)snprintf(run, sizeof(run), "from_%s", families[i]);
        expect_near(first_loss(run, folder, NULL, NULL), evaluated(families[i]));
    }
}

/* Copies of an expert whose weights sum to one are that expert. */
static void test_upcycled(void **state)
{
    (void)state;
    static const char *const families[] = {"llama", "qwen3", "gpt2"};
    for (size_t i = 0; i<sizeof(families) / sizeof(*families); i += cli_ranks()> 1 ? 2 : 1) {
        char folder[CLI_PATH], dense[64], sparse[64];
        (void)snprintf(folder, sizeof(folder), "golden/%s", families[i]);
        (void)snprintf(dense, sizeof(dense), "dense_%s", families[i]);
        (void)snprintf(sparse, sizeof(sparse), "sparse_%s", families[i]);
        double expected = first_loss(dense, folder, NULL, NULL);
        bool biased = strcmp(families[i], "gpt2") == 0;
        expect_near(first_loss(sparse, folder, "moe.num_experts=3", biased ? NULL : "moe.every=2"),
                    expected);
    }
}

/* Of the weights that a dense folder becomes: a step at rate 0 changes none. */
static void digest_of(int ranks, const char *run, const char *noise, const char *layout,
                      char digest[32])
{
    char folder[CLI_PATH];
    (void)snprintf(folder, sizeof(folder), "run_dir=%s", run);
    cli_run_well(ranks,
                 CLI_WORDS_OF("train", "i.yaml", "init_from=golden/llama", folder, noise,
                              "moe.num_experts=6", "train.steps=1", "train.learning_rate=0",
                              "train.min_learning_rate=0", layout, ranks ? NULL : "--ranks=2"));
    cli_digest(run, digest);
}

/* Noise makes each copy another, by a little, and the same one on every layout. */
static void test_upcycled_with_noise(void **state)
{
    (void)state;
    char expert[32], copies[32], whole[32], cut[32];
    double expected = first_loss("plain", "golden/llama", NULL, NULL);
    double noisy =
        first_loss("noisy", "golden/llama", "moe.num_experts=3", "moe.upcycle_noise=0.01");
    assert_true(noisy != expected && fabs(noisy - expected) < 0.02 * expected);
    (void)snprintf(expert, sizeof(expert), "parallel.expert=%d", cli_ranks());
    digest_of(0, "copies", "moe.upcycle_noise=0", "parallel.expert=1", copies);
    digest_of(0, "whole", "moe.upcycle_noise=0.01", "parallel.tensor=2", whole);
    digest_of(cli_ranks(), "cut", "moe.upcycle_noise=0.01",
              cli_ranks() > 1 ? expert : "parallel.expert=2", cut);
    assert_string_equal(whole, cut);
    assert_string_not_equal(whole, copies);
}

/* Later it goes on from its own checkpoints, and the folder may be gone. */
static void test_goes_on(void **state)
{
    (void)state;
    cli_tool(CLI_WORDS_OF("cp", "-r", "golden/mixtral", "here"));
    struct process_result result =
        cli_run(cli_ranks(), CLI_WORDS_OF("train", "i.yaml", "run_dir=here", "init_from=here"));
    cli_expect_error(&result, cli_ranks(), 2,
                     "here/config.json: is there already and no run has made it");
    (void)first_loss("own", "here", NULL, NULL);
    cli_tool(CLI_WORDS_OF("rm", "-r", "here"));
    cli_run_well(cli_ranks(),
                 CLI_WORDS_OF("train", "i.yaml", "run_dir=own", "init_from=here", "train.steps=4"));
    cli_run_well(cli_ranks(), CLI_WORDS_OF("train", "own/config.yaml", "train.steps=5"));
    json_t *metrics = cli_metrics("own");
    size_t last = json_array_size(metrics) - 1;
    assert_int_equal(json_integer_value(json_object_get(json_array_get(metrics, last), "step")), 5);
    json_decref(metrics);
    result = cli_run(cli_ranks(),
                     CLI_WORDS_OF("train", "i.yaml", "run_dir=own", "init_from=here", "--fresh"));
    cli_expect_error(&result, cli_ranks(), 2, "key 'init_from': 'here': is not there");
    result = cli_run(cli_ranks(), CLI_WORDS_OF("train", "i.yaml", "run_dir=own",
                                               "init_from=golden/olmoe", "train.steps=6"));
    cli_expect_error(&result, cli_ranks(), 2,
                     "found 'golden/olmoe', but this run began with 'here' and goes on");
    /* What --fresh removes is nothing to begin with. */
    static const char *const own[] = {"init_from=own", "init_from=own/checkpoints/step_5"};
    for (int i = 0; i < 2; i++) {
        result =
            cli_run(cli_ranks(), CLI_WORDS_OF("train", "i.yaml", "run_dir=own", own[i], "--fresh"));
        cli_expect_error(&result, cli_ranks(), 2,
                         "is of this run_dir, and --fresh would remove it");
    }
    assert_true(evaluated("own") > 0);
}

/* The weights of a run, or of one of its checkpoints, under any other training. */
static void test_of_run(void **state)
{
    (void)state;
    cli_run_well(cli_ranks(), CLI_WORDS_OF("train", "c.yaml", "run_dir=before"));
    double expected = evaluated("before");
    expect_near(first_loss("after", "before", "seed=7", "data.sequence_length=16"), expected);
    expect_near(
        first_loss("bias", "before/checkpoints/step_4", "moe.aux_loss=0.1", "precision=f32"),
        expected);
}

/* The tensors of a file: all behind its header. */
static void expect_same_tensors(const char *a, const char *b)
{
    size_t bytes_a, bytes_b;
    uint64_t header_a, header_b;
    char *data_a = cli_read(a, &bytes_a), *data_b = cli_read(b, &bytes_b);
    assert_true(data_a && data_b);
    memcpy(&header_a, data_a, sizeof(header_a));
    memcpy(&header_b, data_b, sizeof(header_b));
    assert_int_equal(bytes_a - header_a, bytes_b - header_b);
    assert_memory_equal(data_a + 8 + header_a, data_b + 8 + header_b, bytes_a - header_a - 8);
    free(data_a);
    free(data_b);
}

/* What came in goes out: every byte of every tensor, and what stands beside them. */
static void test_there_and_back(void **state)
{
    (void)state;
    static const char *const families[] = {"qwen2_moe", "gpt2", "mixtral_linear", "qwen3_yarn"};
    for (size_t i = 0; i<sizeof(families) / sizeof(*families); i += cli_ranks()> 1 ? 2 : 1) {
        char folder[64], in[64], out[64], before[CLI_PATH], after[CLI_PATH];
        (void)snprintf(folder, sizeof(folder), "begin_%s", families[i]);
        (void)snprintf(before, sizeof(before), "golden/%s", families[i]);
        (void)snprintf(in, sizeof(in), "in_%s", families[i]);
        (void)snprintf(out, sizeof(out), "out_%s", families[i]);
        cli_tool(CLI_WORDS_OF("cp", "-r", before, folder));
        (void)snprintf(before, sizeof(before), "%s/tokenizer.json", folder);
        cli_write(before, "{\"tokens\": 1}");
        /* As many ranks as there are, or so many threads: 5 divide nothing. */
        const char *ranks = cli_ranks() > 1 ? NULL : i % 2 == 0 ? "--ranks=2" : "--ranks=5";
        cli_run_well(cli_ranks(), CLI_WORDS_OF("import", folder, in, ranks));
        cli_run_well(cli_ranks(), CLI_WORDS_OF("export", in, out, i < 2 ? ranks : NULL));
        (void)snprintf(before, sizeof(before), "%s/model.safetensors", folder);
        (void)snprintf(after, sizeof(after), "%s/model.safetensors", out);
        expect_same_tensors(before, after);
        (void)snprintf(after, sizeof(after), "%s/tokenizer.json", out);
        char *text = cli_read(after, NULL);
        assert_string_equal(text, "{\"tokens\": 1}");
        free(text);
        (void)snprintf(after, sizeof(after), "%s/generation_config.json", out);
        text = cli_read(after, NULL);
        assert_non_null(strstr(text, "\"_from_model_config\": true"));
        free(text);
    }
    cli_run_well(cli_ranks(), CLI_WORDS_OF("export", "in_qwen2_moe", "half", "--dtype", "f16"));
    cli_run_well(cli_ranks(), CLI_WORDS_OF("import", "half", "in_half"));
    cli_run_well(cli_ranks(), CLI_WORDS_OF("export", "in_half", "half_again", "--dtype", "f16"));
    expect_same_tensors("half/model.safetensors", "half_again/model.safetensors");
    struct process_result result =
        cli_run(cli_ranks(), CLI_WORDS_OF("export", "in_half", "x", "--dtype", "f8"));
    cli_expect_error(&result, cli_ranks(), 2, "expected f32, bf16 or f16");
}

/* More may be said there. */
static void expect_kept(const char *path, const json_t *from, const json_t *to)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)from, key, value)
    {
        const json_t *now = json_object_get(to, key);
        if (json_is_object(value)) {
            expect_kept(path, value, now);
        } else if (strcmp(key, "transformers_version") != 0 && !json_equal(value, now)) {
            fail_msg("%s: %s is another one", path, key);
        }
    }
}

/* What config.json says of the model comes back as it was, the family's name with it: a Mistral
 * without windows is a Llama but for that. */
static void test_config_comes_back(void **state)
{
    (void)state;
    static const char *const folders[] = {"golden/mixtral", "golden/qwen3_yarn", "named"};
    cli_tool(CLI_WORDS_OF("cp", "-r", "golden/llama", "named"));
    cli_tool(CLI_WORDS_OF("sed", "-i", "-e", "s/LlamaForCausalLM/MistralForCausalLM/", "-e",
                          "s/llama/mistral/", "-e", "/mlp_bias/d", "-e", "/pretraining_tp/d", "-e",
                          "s/\"use_cache/\"sliding_window\": null, &/", "named/config.json"));
    for (int i = 0; i < 3; i++) {
        char in[64], out[64], before[CLI_PATH], after[CLI_PATH];
        (void)snprintf(in, sizeof(in), "back_in_%d", i);
        (void)snprintf(out, sizeof(out), "back_out_%d", i);
        (void)snprintf(before, sizeof(before), "%s/config.json", folders[i]);
        (void)snprintf(after, sizeof(after), "%s/config.json", out);
        cli_run_well(0, CLI_WORDS_OF("import", folders[i], in));
        cli_run_well(cli_ranks(), CLI_WORDS_OF("export", in, out));
        json_t *from = json_load_file(before, 0, NULL), *to = json_load_file(after, 0, NULL);
        assert_non_null(from);
        expect_kept(before, from, to);
        json_decref(from);
        json_decref(to);
    }
}

/* A run hands the tokenizer of what it began with on. */
static void test_trained_and_exported(void **state)
{
    (void)state;
    cli_tool(CLI_WORDS_OF("cp", "-r", "golden/olmoe", "olmoe_here"));
    cli_write("olmoe_here/tokenizer.json", "{}");
    cli_write("olmoe_here/generation_config.json", "{}");
    (void)first_loss("tuned", "olmoe_here", NULL, NULL);
    cli_run_well(0, CLI_WORDS_OF("export", "tuned", "tuned_out", "--dtype", "bf16"));
    cli_tool(CLI_WORDS_OF("cmp", "olmoe_here/tokenizer.json", "tuned_out/tokenizer.json"));
    cli_tool(CLI_WORDS_OF("cmp", "olmoe_here/generation_config.json",
                          "tuned_out/generation_config.json"));
    (void)first_loss("tuned_on", "tuned", NULL, NULL);
    cli_run_well(0, CLI_WORDS_OF("export", "tuned_on", "tuned_on_out"));
    cli_tool(CLI_WORDS_OF("cmp", "olmoe_here/tokenizer.json", "tuned_on_out/tokenizer.json"));
}

/* What ends a text is known of the tokenizer alone, once the folder is gone. */
static void test_end_of_text(void **state)
{
    (void)state;
    cli_tool(CLI_WORDS_OF("cp", "-r", "golden/llama", "spoken"));
    cli_tool(CLI_WORDS_OF("cp", "golden/tokenizers/qwen2/tokenizer.json", "spoken"));
    cli_write("spoken/tokenizer_config.json", "{\"eos_token\": \"<|endoftext|>\"}");
    cli_run_well(0, CLI_WORDS_OF("import", "spoken", "in_spoken"));
    cli_tool(CLI_WORDS_OF("rm", "-r", "spoken"));
    cli_run_well(cli_ranks(), CLI_WORDS_OF("export", "in_spoken", "out_spoken"));
    static const char *const files[] = {"out_spoken/config.json",
                                        "out_spoken/generation_config.json"};
    for (int i = 0; i < 2; i++) {
        json_t *root = json_load_file(files[i], 0, NULL);
        assert_int_equal(json_integer_value(json_object_get(root, "eos_token_id")), 1500);
        json_decref(root);
    }
}

static void test_verified(void **state)
{
    (void)state;
    struct process_result result =
        cli_run(cli_ranks(), CLI_WORDS_OF("verify", "i.yaml", "--json", "--steps", "2",
                                          "init_from=golden/qwen2_moe"));
    json_decref(cli_expect_json(&result, 0));
    result = cli_run(0, CLI_WORDS_OF("plan", "i.yaml", "--json", "init_from=golden/gpt2"));
    json_t *root = cli_expect_json(&result, 0);
    json_t *other = json_object_get(json_object_get(root, "bytes"), "other");
    assert_true(json_integer_value(other) > 1 << 24); /* what reading takes */
    json_decref(root);
    result = cli_run(0, CLI_WORDS_OF("inspect", "i.yaml", "init_from=golden/llama"));
    assert_non_null(strstr(result.out, "layers.1.mlp.up.weight"));
    cli_expect_status(&result, 0);
}

/* A config of one line. */
static void write_sizes(const char *path, const char *layers)
{
    char text[512];
    (void)snprintf(text, sizeof(text),
                   "{\"model_type\": \"llama\", \"vocab_size\": 128, \"hidden_size\": 32, "
                   "\"num_attention_heads\": 4, \"intermediate_size\": 64, "
                   "\"max_position_embeddings\": 64, \"num_hidden_layers\": %s}",
                   layers);
    cli_write(path, text);
}

/* Folders that lie. */
static void make_hostile(void)
{
    cli_tool(CLI_WORDS_OF("mkdir", "huge", "cycle", "outside", "linked", "nan", "many"));
    cli_tool(CLI_WORDS_OF("truncate", "-s", "10G", "huge/config.json"));
    write_sizes("cycle/config.json", "2");
    cli_tool(CLI_WORDS_OF("ln", "-s", "model.safetensors", "cycle/model.safetensors"));
    write_sizes("outside/config.json", "2");
    cli_write("outside/model.safetensors.index.json",
              "{\"weight_map\": {\"a\": \"../lacking/model.safetensors\"}}");
    write_sizes("linked/config.json", "2");
    cli_write("linked/model.safetensors.index.json",
              "{\"weight_map\": {\"a\": \"a.safetensors\"}}");
    cli_tool(CLI_WORDS_OF("ln", "-s", "b.safetensors", "linked/a.safetensors"));
    cli_tool(CLI_WORDS_OF("ln", "-s", "a.safetensors", "linked/b.safetensors"));
    write_sizes("nan/config.json", "NaN");
    cli_tool(CLI_WORDS_OF("cp", "golden/llama/model.safetensors", "nan"));
    write_sizes("many/config.json", "1000000000000000");
    cli_tool(CLI_WORDS_OF("cp", "golden/llama/model.safetensors", "many"));
}

/* Of what `resume` names too what the config leaves out is taken. */
static void test_resumed(void **state)
{
    (void)state;
    static const char *const from[] = {"resume=begun", "resume=begun/checkpoints/step_2"};
    cli_run_well(0, CLI_WORDS_OF("train", "i.yaml", "run_dir=begun", "init_from=golden/mixtral"));
    for (int i = 0; i < 2; i++) {
        cli_run_well(cli_ranks(), CLI_WORDS_OF("train", "i.yaml", "run_dir=resumed", from[i],
                                               "train.steps=4", "--fresh"));
        cli_run_well(cli_ranks(),
                     CLI_WORDS_OF("train", "i.yaml", "run_dir=resumed", from[i], "train.steps=5"));
        json_t *metrics = cli_metrics("resumed");
        json_t *last = json_array_get(metrics, json_array_size(metrics) - 1);
        assert_int_equal(json_integer_value(json_object_get(last, "step")), 5);
        json_decref(metrics);
    }
    struct process_result result =
        cli_run(cli_ranks(), CLI_WORDS_OF("train", "i.yaml", "run_dir=not", "resume=begun",
                                          "model.hidden_size=64"));
    cli_expect_error(
        &result, cli_ranks(), 2,
        "command line: key 'model.hidden_size': found 64, expected 32 or nothing: so it "
        "is of the weights of begun/checkpoints/step_2");
    result = cli_run(cli_ranks(), CLI_WORDS_OF("train", "i.yaml", "run_dir=not", "resume=begun",
                                               "moe.num_experts=2"));
    cli_expect_error(&result, cli_ranks(), 2, "key 'moe.num_experts': found 2, expected");
    result = cli_run(cli_ranks(), CLI_WORDS_OF("train", "i.yaml", "run_dir=not", "resume=gone"));
    cli_expect_error(&result, cli_ranks(), 2, "gone");
    result = cli_run(cli_ranks(), CLI_WORDS_OF("train", "i.yaml", "run_dir=not", "resume=gone",
                                               "parallel.expert=2"));
    cli_expect_error(&result, cli_ranks(), 2,
                     "key 'resume': gone: no such run or checkpoint; and of the config alone: ");
    cli_run_well(0, CLI_WORDS_OF("plan", "i.yaml", "resume=begun", "parallel.expert=2"));
}

/* Who forgets it is told so, whatever does not fit the default shape. */
static void test_forgotten(void **state)
{
    (void)state;
    static const char *const keys[][2] = {{"parallel.expert=2"},
                                          {"parallel.tensor=8"},
                                          {"train.recompute=[6]"},
                                          {"data.separator=50256"},
                                          {"moe.capacity_factor=1.5"},
                                          {"train.freeze=layers.9.*"},
                                          {"train.lora.rank=2", "train.lora.targets=experts"},
                                          {"data.train=large.raw", "data.format=u16"}};
    for (size_t i = 0; i<sizeof(keys) / sizeof(*keys); i += cli_ranks()> 1 ? 3 : 1) {
        struct process_result result = cli_run(
            cli_ranks(), CLI_WORDS_OF("train", "i.yaml", "run_dir=not", keys[i][0], keys[i][1]));
        cli_expect_error(&result, cli_ranks(), 2, "no key of model is given, so its shape is");
    }
}

static void test_messages(void **state)
{
    (void)state;
    static const struct {
        const char *from, *change, *says;
    } cases[] = {
        {"golden/mixtral", "model.hidden_size=16",
         "key 'model.hidden_size': found 16, expected "
         "32 or nothing"},
        {"golden/mixtral", "moe.top_k=1", "key 'moe.top_k': found 1, expected 2"},
        {"golden/qwen2_moe", "moe.every=1", "key 'moe.every': found 1"},
        {"golden/llama", "data.sequence_length=65", "at most model.max_position (64)"},
        {"golden/llama", "resume=run", "beside resume"},
        {"golden/llama", "moe.top_k=2", "key 'moe.num_experts': found nothing"},
        {"nowhere", "seed=1", "is not there"},
        {"t.txt", "seed=1", "is a file"},
        {"x.gguf", "seed=1", "is a GGUF file"},
        {"quantised", "seed=1", "holds a GGUF file"},
        {"adapter", "seed=1", "holds an adapter and no model"},
        {"tok", "seed=1", "holds no config.json and no manifest.json"},
        {"pickled", "seed=1", "pytorch_model.bin is not read"},
        {"torn", "seed=1", "model.safetensors: "},
        {"lacking", "seed=1", "lacking (llama): tensor"},
        {"huge", "seed=1", "config.json: 10737418240 bytes are too many for JSON"},
        {"cycle", "seed=1", "holds neither model.safetensors nor"},
        {"outside", "seed=1", "no file of this folder"},
        {"linked", "seed=1", "a.safetensors: cannot open: Too many levels"},
        {"nan", "seed=1", "config.json:"},
        {"many", "seed=1", "key 'model.num_layers'"},
    };
    cli_tool(CLI_WORDS_OF("mkdir", "quantised", "adapter", "pickled", "torn", "lacking"));
    cli_tool(CLI_WORDS_OF("cp", "golden/llama/config.json", "pickled"));
    cli_tool(CLI_WORDS_OF("cp", "golden/llama/config.json", "torn"));
    cli_tool(CLI_WORDS_OF("cp", "golden/llama/config.json", "lacking"));
    cli_tool(CLI_WORDS_OF("cp", "golden/gpt2/model.safetensors", "lacking"));
    cli_tool(CLI_WORDS_OF("touch", "x.gguf", "quantised/model.gguf", "pickled/pytorch_model.bin"));
    cli_write("adapter/adapter_config.json", "{}");
    cli_write("torn/model.safetensors", "torn");
    make_hostile();
    for (size_t i = 0; i<sizeof(cases) / sizeof(*cases); i += cli_ranks()> 1 ? 3 : 1) {
        char source[CLI_PATH];
        (void)snprintf(source, sizeof(source), "init_from=%s", cases[i].from);
        struct process_result result = cli_run(
            cli_ranks(), CLI_WORDS_OF("train", "i.yaml", "run_dir=bad", source, cases[i].change));
        cli_expect_error(&result, cli_ranks(), 2, cases[i].says);
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_folders),
        cmocka_unit_test(test_upcycled),
        cmocka_unit_test(test_upcycled_with_noise),
        cmocka_unit_test(test_goes_on),
        cmocka_unit_test(test_of_run),
        cmocka_unit_test(test_there_and_back),
        cmocka_unit_test(test_config_comes_back),
        cmocka_unit_test(test_trained_and_exported),
        cmocka_unit_test(test_end_of_text),
        cmocka_unit_test(test_verified),
        cmocka_unit_test(test_messages),
        cmocka_unit_test(test_resumed),
        cmocka_unit_test(test_forgotten),
    };
    cli_begin("init", argc, argv);
    cli_write("i.yaml", config);
    cli_tool(CLI_WORDS_OF("ln", "-s", golden, "golden"));
    cli_tool(CLI_WORDS_OF("sh", "-c", "head -c 8192 /dev/zero | tr '\\0' '\\177' > large.raw"));
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    cli_end();
    return failed;
}
