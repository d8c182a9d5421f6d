/* Runs with low-rank pairs: as checkpoints, as PEFT's adapters, merged, and begun with others'. */
#include "cli/cli.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define GOLDEN TRIDENT_SOURCE_DIR "/tests/data/golden"

static const char config[] =
    "run_dir: run\n"
    "threads: 1\n"
    "data: {train: \"tok/train_*.bin\", valid: \"tok/valid_*.bin\", sequence_length: 16}\n"
    "train: {global_batch: 4, steps: 2}\n"
    "eval: {at_start: true}\n";

static double loss_of(const char *path)
{
    struct process_result result =
        cli_run(0, CLI_WORDS_OF("eval", path, "--data", "tok/valid_*.bin", "--json",
                                "data.sequence_length=16", "train.global_batch=4"));
    json_t *root = cli_expect_json(&result, 0);
    double loss = json_real_value(json_object_get(root, "loss"));
    json_decref(root);
    return loss;
}

static void expect_near(double found, double expected, double limit)
{
    if (!(expected > 0 && fabs(found - expected) <= limit * expected)) {
        fail_msg("found %.9g, expected %.9g", found, expected);
    }
}

/* The first that a run's evaluations say. */
static double first_loss(const char *run)
{
    json_t *metrics = cli_metrics(run);
    double loss = json_real_value(json_object_get(json_array_get(metrics, 0), "valid_loss"));
    json_decref(metrics);
    return loss;
}

static void expect_equal_files(const char *path, const char *other)
{
    size_t bytes, others;
    char *file = cli_read(path, &bytes), *expected = cli_read(other, &others);
    assert_non_null(file);
    assert_non_null(expected);
    assert_int_equal(bytes, others);
    assert_memory_equal(file, expected, bytes);
    free(file);
    free(expected);
}

#define PAIRS                                                                                      \
    "train", "c.yaml", "moe.every=1", "train.lora.rank=2", "train.lora.alpha=8",                   \
        "train.learning_rate=2e-2", "train.schedule=constant", "moe.shared_intermediate_size=24",  \
        "moe.shared_gate=true", "moe.normalize_top_k=false", "model.bias=qkv",                     \
        "train.lora.targets=experts, attention, shared"

/* A run with pairs goes on with its last bit, and on another layout; its adapter, and the model it
 * is merged into, are the same model. */
static void test_run(void **state)
{
    (void)state;
    char want[32], got[32];
    cli_run_well(cli_ranks(), CLI_WORDS_OF(PAIRS, "run_dir=pairs", "train.steps=6"));
    cli_run_well(cli_ranks(), CLI_WORDS_OF(PAIRS, "run_dir=halves", "train.steps=3"));
    cli_run_well(cli_ranks(), CLI_WORDS_OF(PAIRS, "run_dir=halves", "train.steps=6"));
    cli_digest("pairs", want);
    cli_digest("halves", got);
    assert_string_equal(got, want);
    cli_run_well(0, CLI_WORDS_OF(PAIRS, "run_dir=pairs", "train.steps=7"));
    double loss = loss_of("pairs");
    cli_run_well(0, CLI_WORDS_OF("export", "pairs", "adapter"));
    cli_run_well(0, CLI_WORDS_OF("export", "pairs", "merged", "--merge"));
    cli_run_well(0, CLI_WORDS_OF("import", "merged", "back"));
    expect_near(loss_of("back"), loss, 1e-5);
    /* The frozen weights are those of step 0: an adapter beside them is the run. */
    cli_run_well(0, CLI_WORDS_OF(PAIRS, "run_dir=begun", "train.steps=1", "train.learning_rate=0"));
    cli_run_well(0, CLI_WORDS_OF("export", "begun", "base", "--merge"));
    cli_run_well(0, CLI_WORDS_OF("import", "base", "again", "--adapter", "adapter"));
    expect_near(loss_of("again"), loss, 1e-6);
    assert_true(loss_of("begun") > loss + 1e-3);
    cli_run_well(0, CLI_WORDS_OF("export", "again", "adapter2"));
    expect_equal_files("adapter2/adapter_model.safetensors", "adapter/adapter_model.safetensors");
    cli_run_well(0, CLI_WORDS_OF("generate", "pairs", "--prompt", "the ", "--tokens", "3"));
    cli_run_well(0, CLI_WORDS_OF(PAIRS, "run_dir=pairs", "train.steps=8",
                                 "train.lora.targets=[shared, attention, experts]"));
    struct process_result result =
        cli_run(0, CLI_WORDS_OF(PAIRS, "run_dir=pairs", "train.steps=9", "train.lora.rank=3"));
    cli_expect_error(&result, 1, 2, "was written with another 'train.lora.rank'");
    result = cli_run(0, CLI_WORDS_OF("export", "back", "nothing", "--merge"));
    cli_expect_error(&result, 1, 2, "has no low-rank pairs");
}

static void expect_base(const char *from, const char *adapter, const char *base, int warnings)
{
    char path[CLI_PATH];
    struct process_result result = cli_run(0, CLI_WORDS_OF("export", from, adapter));
    assert_int_equal(cli_count(result.err, "its pairs belong to the weights of"), warnings);
    cli_expect_status(&result, 0);
    (void)snprintf(path, sizeof(path), "%s/adapter_config.json", adapter);
    json_t *root = json_load_file(path, 0, NULL);
    const json_t *found = json_object_get(root, "base_model_name_or_path");
    assert_string_equal(json_string_value(found), base);
    json_decref(root);
}

/* An adapter names the weights that its pairs are beside: the folder that all began with where
 * those are still that folder's. */
static void test_base(void **state)
{
    (void)state;
    static const char folder[] = GOLDEN "/mixtral";
    cli_run_well(0, CLI_WORDS_OF("train", "i.yaml", "run_dir=sft", "init_from=" GOLDEN "/mixtral"));
    cli_run_well(0, CLI_WORDS_OF("import", folder, "imported"));
    cli_run_well(
        0, CLI_WORDS_OF("train", "i.yaml", "run_dir=on_sft", "init_from=sft", "train.lora.rank=2"));
    cli_run_well(0, CLI_WORDS_OF("train", "i.yaml", "run_dir=on_step",
                                 "init_from=on_sft/checkpoints/step_2"));
    cli_run_well(0, CLI_WORDS_OF("train", "i.yaml", "run_dir=on_import", "init_from=imported",
                                 "train.lora.rank=2"));
    cli_run_well(
        0, CLI_WORDS_OF("train", "i.yaml", "run_dir=goes_on", "resume=on_import", "train.steps=3"));
    expect_base("goes_on", "base_goes_on", folder, 0);
    expect_base("on_sft", "base_sft", "sft", 1);
    expect_base("on_step", "base_step", "sft", 1);
    expect_base("on_import", "base_import", folder, 0);
}

/* What PEFT wrote comes back as it was, byte for byte, and is what a run begins with. */
#define CHECK_FAMILY(family)                                                                       \
    check_family(family, GOLDEN "/" family, GOLDEN "/" family "/adapter",                          \
                 GOLDEN "/" family "/adapter/adapter_model.safetensors",                           \
                 "init_from=" GOLDEN "/" family,                                                   \
                 "train.lora.adapter=" GOLDEN "/" family "/adapter")
static void check_family(const char *family, const char *base, const char *adapter,
                         const char *file, const char *source, const char *pairs)
{
    char run[64], before[64];
    (void)snprintf(run, sizeof(run), "run_dir=%s", family);
    (void)snprintf(before, sizeof(before), "init_from=%s", family);
    cli_run_well(0, CLI_WORDS_OF("import", base, "it", "--adapter", adapter));
    cli_run_well(0, CLI_WORDS_OF("export", "it", "exported"));
    expect_equal_files("exported/adapter_model.safetensors", file);
    double loss = loss_of("it");
    cli_run_well(cli_ranks(), CLI_WORDS_OF("train", "i.yaml", run, source, pairs));
    expect_near(first_loss(family), loss, 1e-6);
    /* It goes on with what its own checkpoint says of them; another begins with those. */
    cli_run_well(cli_ranks(), CLI_WORDS_OF("train", "i.yaml", run, source, pairs, "train.steps=3"));
    cli_run_well(cli_ranks(), CLI_WORDS_OF("train", "i.yaml", "run_dir=next", before));
    expect_near(first_loss("next"), loss_of(family), 1e-6);
    cli_tool(CLI_WORDS_OF("rm", "-r", "it", "exported", "next"));
}

static void test_adapters(void **state)
{
    (void)state;
    CHECK_FAMILY("mixtral");
    if (cli_ranks() == 0) {
        CHECK_FAMILY("qwen2_moe");
        CHECK_FAMILY("gpt2");
    }
    struct process_result result = cli_run(
        0, CLI_WORDS_OF("train", "i.yaml", "run_dir=up", "init_from=" GOLDEN "/llama",
                        "moe.num_experts=4", "train.lora.rank=2", "train.lora.targets=attention"));
    cli_expect_error(&result, 1, 2, "key 'train.lora.rank': found 2, expected 0: the experts are");
    result = cli_run(cli_ranks(), CLI_WORDS_OF("verify", "i.yaml", "--json", "--steps", "2",
                                               "init_from=" GOLDEN "/olmoe",
                                               "train.lora.adapter=" GOLDEN "/olmoe/adapter"));
    json_decref(cli_expect_json(&result, 0));
}

static double number_of(const char *adapter, const char *key, const char *of)
{
    char path[CLI_PATH];
    (void)snprintf(path, sizeof(path), "%s/adapter_config.json", adapter);
    json_t *root = json_load_file(path, 0, NULL);
    const json_t *found = json_object_get(root, key);
    double number = json_number_value(of ? json_object_get(found, of) : found);
    json_decref(root);
    return number;
}

/* One pair of PEFT's for three weights. Read, each has the same A; trained, another, and PEFT's
 * pair has all three, in blocks, which is read as it was written. */
static void test_blocks(void **state)
{
    (void)state;
    static const char base[] = GOLDEN "/gpt2";
    cli_run_well(cli_ranks(),
                 CLI_WORDS_OF("train", "i.yaml", "run_dir=three", "init_from=" GOLDEN "/gpt2",
                              "train.lora.adapter=" GOLDEN "/gpt2/adapter", "train.steps=4",
                              "train.learning_rate=2e-2", "train.schedule=constant"));
    cli_run_well(cli_ranks(), CLI_WORDS_OF("export", "three", "blocks"));
    assert_true(number_of("blocks", "r", NULL) == 4.0);
    assert_true(number_of("blocks", "rank_pattern", "c_attn") == 12.0);
    assert_true(number_of("blocks", "alpha_pattern", "c_attn") == 18.0);
    cli_run_well(cli_ranks(), CLI_WORDS_OF("import", base, "again3", "--adapter", "blocks"));
    expect_near(loss_of("again3"), loss_of("three"), 1e-7);
    cli_run_well(0, CLI_WORDS_OF("export", "again3", "blocks2"));
    expect_equal_files("blocks2/adapter_model.safetensors", "blocks/adapter_model.safetensors");
    cli_run_well(0, CLI_WORDS_OF("export", "three", "merged3", "--merge"));
    cli_run_well(0, CLI_WORDS_OF("import", "merged3", "back3"));
    expect_near(loss_of("back3"), loss_of("three"), 1e-6);
    /* Beside the blocks of the first row another number. */
    FILE *file = fopen("blocks/adapter_model.safetensors", "r+b");
    assert_non_null(file);
    char header[4096];
    size_t length = fread(header, 1, sizeof(header) - 1, file);
    header[length] = '\0';
    uint64_t json;
    memcpy(&json, header, sizeof(json));
    const char *at = strstr(header + 8, "h.0.attn.c_attn.lora_B.weight");
    assert_non_null(at);
    at = strstr(at, "\"data_offsets\":[");
    assert_non_null(at);
    long offset = strtol(at + strlen("\"data_offsets\":["), NULL, 10);
    const float one = 1.0F;
    assert_int_equal(fseek(file, 8 + (long)json + offset + (40 * 12 + 2) * 4, SEEK_SET), 0);
    assert_int_equal(fwrite(&one, sizeof(one), 1, file), 1);
    assert_int_equal(fclose(file), 0);
    struct process_result result =
        cli_run(cli_ranks(), CLI_WORDS_OF("import", base, "bad", "--adapter", "blocks"));
    cli_expect_error(&result, cli_ranks(), 2,
                     "c_attn.lora_B.weight: row 40, column 2: found 1, expected zeros");
    cli_tool(CLI_WORDS_OF("rm", "-r", "again3"));
    /* 3 · (3 · 0.7) is not 9 · 0.7, in doubles. */
    cli_run_well(0, CLI_WORDS_OF("train", "i.yaml", "run_dir=odd", "init_from=" GOLDEN "/gpt2",
                                 "train.lora.rank=3", "train.lora.alpha=0.7",
                                 "train.lora.targets=attention", "train.steps=1"));
    cli_run_well(0, CLI_WORDS_OF("export", "odd", "odd_blocks"));
    cli_run_well(0, CLI_WORDS_OF("import", base, "odd_again", "--adapter", "odd_blocks"));
    expect_near(loss_of("odd_again"), loss_of("odd"), 1e-7);
}

/* Pairs of all experts of a layer at once, as PEFT has them in transformers 5. */
static void test_fused(void **state)
{
    (void)state;
    static const char mixtral[] = GOLDEN "/mixtral", olmoe[] = GOLDEN "/olmoe";
    /* One pair for gate and up: both have its A. */
    cli_run_well(cli_ranks(), CLI_WORDS_OF("import", mixtral, "shared", "--adapter",
                                           GOLDEN "/mixtral/adapter_fused"));
    cli_run_well(cli_ranks(), CLI_WORDS_OF("export", "shared", "shared_back", "--fused"));
    assert_true(number_of("shared_back", "rank_pattern", "gate_up_proj") == 0.0);
    cli_run_well(0, CLI_WORDS_OF("import", mixtral, "shared2", "--adapter", "shared_back"));
    expect_near(loss_of("shared2"), loss_of("shared"), 1e-7);
    /* Each its own, in blocks. */
    cli_run_well(0, CLI_WORDS_OF("import", olmoe, "each", "--adapter", GOLDEN "/olmoe/adapter"));
    cli_run_well(cli_ranks(), CLI_WORDS_OF("export", "each", "fused", "--fused"));
    assert_true(number_of("fused", "r", NULL) == 4.0);
    assert_true(number_of("fused", "rank_pattern", "gate_up_proj") == 8.0);
    assert_true(number_of("fused", "alpha_pattern", "gate_up_proj") == 12.0);
    cli_run_well(cli_ranks(), CLI_WORDS_OF("import", olmoe, "fused_in", "--adapter", "fused"));
    expect_near(loss_of("fused_in"), loss_of("each"), 1e-7);
    cli_run_well(0, CLI_WORDS_OF("export", "each", "plain"));
    cli_run_well(0, CLI_WORDS_OF("export", "fused_in", "plain2"));
    expect_equal_files("plain2/adapter_model.safetensors", "plain/adapter_model.safetensors");
    struct process_result result =
        cli_run(0, CLI_WORDS_OF("export", "each", "no", "--merge", "--fused"));
    cli_expect_error(&result, 1, 2, "no adapter is written here");
    cli_run_well(
        0, CLI_WORDS_OF("import", GOLDEN "/gpt2", "dense", "--adapter", GOLDEN "/gpt2/adapter"));
    result = cli_run(0, CLI_WORDS_OF("export", "dense", "no", "--fused"));
    cli_expect_error(&result, 1, 2,
                     "key 'train.lora.targets': found 'attention, mlp', expected experts");
}

/* A folder of PEFT's with another line in its adapter_config.json, or another tensor. */
static void write_adapter(const char *folder, const char *keys, const char *tensors)
{
    char path[CLI_PATH], text[1024];
    cli_tool(CLI_WORDS_OF("mkdir", folder));
    (void)snprintf(path, sizeof(path), "%s/adapter_config.json", folder);
    (void)snprintf(text, sizeof(text), "{\"peft_type\": \"LORA\", \"r\": 2, \"lora_alpha\": 4%s}",
                   keys);
    cli_write(path, text);
    (void)snprintf(path, sizeof(path), "%s/adapter_model.safetensors", folder);
    if (!tensors) {
        cli_tool(CLI_WORDS_OF("cp", GOLDEN "/mixtral/adapter/adapter_model.safetensors", path));
        return;
    }
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    uint64_t length = strlen(tensors);
    const unsigned char data[256] = {0};
    assert_int_equal(fwrite(&length, sizeof(length), 1, file), 1);
    assert_int_equal(fwrite(tensors, length, 1, file), 1);
    assert_int_equal(fwrite(data, sizeof(data), 1, file), 1);
    assert_int_equal(fclose(file), 0);
}

#define TENSOR(name, shape)                                                                        \
    "{\"base_model.model.model.layers." name ".weight\": {\"dtype\": \"F32\", \"shape\": " shape   \
    ", \"data_offsets\": [0, 256]}}"
#define GPT2_TENSOR(name, shape, place)                                                            \
    "\"base_model.model.transformer.h.0.attn." name                                                \
    ".weight\": {\"dtype\": \"F32\", \"shape\": " shape ", \"data_offsets\": [" place "]}"

/* What an adapter says of its base, where that is a folder here. */
static void test_another_base(void **state)
{
    (void)state;
    static const char *const bases[] = {"mistralai/Mixtral-8x7B", GOLDEN "/mixtral",
                                        GOLDEN "/llama"};
    cli_tool(CLI_WORDS_OF("cp", "-r", GOLDEN "/mixtral/adapter", "based"));
    cli_tool(CLI_WORDS_OF("chmod", "-R", "u+w", "based"));
    json_t *root = json_load_file("based/adapter_config.json", 0, NULL);
    for (int i = 0; i < 3; i++) {
        char to[32];
        (void)json_object_set_new(root, "base_model_name_or_path", json_string(bases[i]));
        assert_int_equal(json_dump_file(root, "based/adapter_config.json", 0), 0);
        (void)snprintf(to, sizeof(to), "based_%d", i);
        struct process_result result = cli_run(
            cli_ranks(), CLI_WORDS_OF("import", GOLDEN "/mixtral", to, "--adapter", "based"));
        assert_int_equal(cli_count(result.err, "says that its base is " GOLDEN "/llama"), i == 2);
        cli_expect_status(&result, 0);
    }
    json_decref(root);
}

static void test_messages(void **state)
{
    (void)state;
    static const struct {
        const char *base, *adapter, *change, *says;
    } cases[] = {
        {"/mixtral", "nowhere", "seed=1", "nowhere/adapter_config.json: "},
        {"/mixtral", GOLDEN "/mixtral", "seed=1", "adapter_config.json: "},
        {"/mixtral", GOLDEN "/mixtral/adapter", "train.lora.rank=3",
         "key 'train.lora.rank': found 3, expected 2 or nothing"},
        {"/mixtral", GOLDEN "/mixtral/adapter", "train.lora.targets=mlp",
         "key 'train.lora.targets': found \"mlp\", expected \"attention, experts\" or nothing"},
        {"/olmoe", GOLDEN "/mixtral/adapter", "seed=1", "expected"},
        {"/llama", GOLDEN "/mixtral/adapter", "seed=1",
         "key 'train.lora.targets': found experts, expected targets that this model has"},
        {"/gpt2", "names", "seed=1", "self_attn.q_proj.lora_A.weight: the model has no place"},
        {"/gpt2", GOLDEN "/mixtral/adapter", "seed=1", "key 'train.lora.targets': found experts"},
        {"/gpt2", "other_rank", "seed=1",
         "c_attn.lora_A.weight: shape [4, 32], expected 3 as its first dimension"},
        {"/gpt2", "patterns", "seed=1", "'rank_pattern' and 'alpha_pattern': expected one rank"},
        {"/gpt2", "scales", "seed=1", "'rank_pattern' and 'alpha_pattern': expected one rank"},
        {"/mixtral", "wide", "seed=1", "found rank 6, expected r (2)"},
        {"/gpt2", "empty", "seed=1", "c_attn.lora_A.weight: shape [6, 0], expected [6, 32]"},
        {"/mixtral", "dora", "seed=1", "key 'use_dora': in use and not read"},
        {"/mixtral", "loha", "seed=1", "key 'peft_type': found 'LOHA', expected LORA"},
        {"/mixtral", "rank", "seed=1", "adapter_config.json: r: found 9223372036854775807"},
        {"/mixtral", "alpha", "seed=1", "key 'lora_alpha': found 0, expected a number above 0"},
        {"/mixtral", "pissa", "seed=1", "key 'init_lora_weights': found 'pissa'"},
        {"/mixtral", "torn", "seed=1", "torn/adapter_model.safetensors: "},
        {"/mixtral", "pickled", "seed=1", "adapter_model.bin is not read"},
        {"/mixtral", "router", "seed=1", "layers.0.block_sparse_moe.gate.lora_A.weight: expected"},
        {"/mixtral", "names", "seed=1", "the other of its pair is there"},
        {"/mixtral", "shape", "seed=1", "shape"},
        {"/mixtral", "deep", "seed=1", "the model has no place for it"},
        {"/mixtral", "nan", "seed=1", "holds values that are not finite"},
    };
    cli_tool(CLI_WORDS_OF("mkdir", "pickled"));
    cli_write("pickled/adapter_config.json",
              "{\"peft_type\": \"LORA\", \"r\": 2, \"lora_alpha\": 4}");
    cli_write("pickled/adapter_model.bin", "");
    write_adapter("dora", ", \"use_dora\": true", NULL);
    write_adapter("loha", ", \"peft_type\": \"LOHA\"", NULL);
    cli_write("loha/adapter_config.json", "{\"peft_type\": \"LOHA\", \"r\": 2, \"lora_alpha\": 4}");
    write_adapter("rank", "", NULL);
    cli_write("rank/adapter_config.json", "{\"r\": 9223372036854775807, \"lora_alpha\": 4}");
    write_adapter("alpha", "", NULL);
    cli_write("alpha/adapter_config.json", "{\"r\": 2, \"lora_alpha\": 0}");
    write_adapter("pissa", ", \"init_lora_weights\": \"pissa\"", NULL);
    write_adapter("torn", "", "{\"x\": 1");
    write_adapter("router", "", TENSOR("0.block_sparse_moe.gate.lora_A", "[2, 32]"));
    write_adapter("names", "", TENSOR("0.self_attn.q_proj.lora_A", "[2, 32]"));
    write_adapter("shape", "", TENSOR("0.self_attn.q_proj.lora_A", "[4, 16]"));
    write_adapter("patterns", ", \"rank_pattern\": {\"c_attn\": 6}", NULL);
    write_adapter("scales",
                  ", \"rank_pattern\": {\"c_attn\": 6}, \"alpha_pattern\": {\"c_attn\": 4}", NULL);
    write_adapter("wide",
                  ", \"rank_pattern\": {\"c_attn\": 6}, \"alpha_pattern\": {\"c_attn\": 12}", NULL);
    write_adapter("empty",
                  ", \"rank_pattern\": {\"c_attn\": 6}, \"alpha_pattern\": {\"c_attn\": 12}",
                  "{" GPT2_TENSOR("c_proj.lora_A", "[2, 32]", "0, 256") ", " GPT2_TENSOR(
                      "c_attn.lora_A", "[6, 0]",
                      "256, 256") ", " GPT2_TENSOR("c_attn.lora_B", "[0, 6]", "256, 256") "}");
    write_adapter("other_rank", "", "{}");
    cli_write("other_rank/adapter_config.json", "{\"r\": 3, \"lora_alpha\": 4}");
    cli_tool(CLI_WORDS_OF("cp", GOLDEN "/gpt2/adapter/adapter_model.safetensors",
                          "other_rank/adapter_model.safetensors"));
    write_adapter("deep", "", TENSOR("99.self_attn.q_proj.lora_A", "[2, 32]"));
    write_adapter("nan", "", NULL);
    FILE *file = fopen("nan/adapter_model.safetensors", "r+b");
    const uint32_t nan = UINT32_C(0x7fc00000);
    assert_non_null(file);
    assert_int_equal(fseek(file, -4, SEEK_END), 0);
    assert_int_equal(fwrite(&nan, sizeof(nan), 1, file), 1);
    assert_int_equal(fclose(file), 0);
    for (size_t i = 0; i<sizeof(cases) / sizeof(*cases); i += cli_ranks()> 1 ? 5 : 1) {
        char source[CLI_PATH], adapter[CLI_PATH];
        (void)snprintf(source, sizeof(source), "init_from=" GOLDEN "%s", cases[i].base);
        (void)snprintf(adapter, sizeof(adapter), "train.lora.adapter=%s", cases[i].adapter);
        struct process_result result =
            cli_run(cli_ranks(), CLI_WORDS_OF("train", "i.yaml", "run_dir=bad", source, adapter,
                                              cases[i].change));
        cli_expect_error(&result, cli_ranks(), 2, cases[i].says);
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_run),         cmocka_unit_test(test_base),
        cmocka_unit_test(test_adapters),    cmocka_unit_test(test_blocks),
        cmocka_unit_test(test_fused),       cmocka_unit_test(test_messages),
        cmocka_unit_test(test_another_base)};
    cli_begin("lora", argc, argv);
    cli_write("i.yaml", config);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    cli_end();
    return failed;
}
