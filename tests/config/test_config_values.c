/* What is read, what follows, what comes back out. */
#include "config_testing.h"

#include "base/memory.h"
#include "base/random.h"
#include "config/schema.h"
#include "config/value.h"
#include "moe/strategies.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* Byte for byte, key by key; what a dense model has for its experts is nobody's. */
static void assert_same_values(const struct tri_config *a, const struct tri_config *b)
{
    bool dense = a->moe.num_experts == 0 && b->moe.num_experts == 0;
    for (size_t i = 0; i < tri_keys_count; i++) {
        const struct tri_key *key = &tri_keys[i];
        if (dense && tri_key_in_section(key, "moe")) {
            continue;
        }
        if (memcmp(tri_key_view(key, a), tri_key_view(key, b), tri_key_bytes(key)) != 0) {
            char *of_a = tri_value_to_text(key, tri_key_view(key, a));
            char *of_b = tri_value_to_text(key, tri_key_view(key, b));
            print_error("%s: %s against %s\n", key->name, of_a, of_b);
            free(of_a);
            free(of_b);
            fail();
        }
    }
}

static void assert_round_trip(const struct tri_config *config)
{
    char *text = tri_config_to_yaml(config);
    struct tri_config back;
    parse_well(text, &back);
    assert_same_values(config, &back);
    char *again = tri_config_to_yaml(&back);
    assert_string_equal(text, again);
    tri_free(text);
    tri_free(again);
}

/* The example of the design, with every mechanism on. */
static const char every_word[] =
    "seed: 1\n"
    "precision: bf16                     # f32 | bf16\n"
    "reproducible: true\n"
    "run_dir: runs/one\n"
    "model: {vocab_size: 8192, num_layers: 8, hidden_size: 512, num_heads: 8, num_kv_heads: 8, "
    "head_dim: 64, intermediate_size: 2048,\n"
    "        max_position: 512, norm: rmsnorm, norm_epsilon: 1e-5, position: rope, rope_theta: "
    "10000, mlp: swiglu, qk_norm: none, bias: none,\n"
    "        tie_embeddings: false, init_std: 0.02}\n"
    "moe: {num_experts: 8, top_k: 2, every: 2, intermediate_size: 2048, normalize_top_k: true, "
    "aux_loss: 0.01, aux_scope: layer, aux_window: sequence,\n"
    "      z_loss: 0, capacity_factor: none, capacity_window: sequence, schedule: ted, headroom: "
    "2}\n"
    "parallel: {tensor: 2, expert: 2, expert_tensor: 2}\n"
    "data: {train: \"shards/train_*.bin\", valid: \"shards/valid_*.bin\", sequence_length: 512}\n"
    "train: {global_batch: 32, micro_batch: 4, steps: 1000, learning_rate: 3e-4, warmup_steps: "
    "100, "
    "schedule: cosine, weight_decay: 0.1,\n"
    "        betas: [0.9, 0.95], epsilon: 1e-8, clip: 1.0, recompute: full, "
    "communication_aware_checkpointing: true, duplicate_token_dropping: true,\n"
    "        optimizer_tile: 1048576, sequence_parallel: true, gradient_dtype: f32}\n"
    "eval: {every: 100}\n"
    "checkpoint: {every: 200, keep_last: 2}\n"
    "comm: {timeout_seconds: 600, overlap: true}\n";

static void test_every_word(void **state)
{
    (void)state;
    struct tri_config c;
    parse_well(every_word, &c);
    assert_string_equal(c.path, "c.yaml");
    assert_int_equal(c.precision, TRI_PRECISION_BF16);
    assert_string_equal(c.run_dir, "runs/one");
    assert_int_equal(c.model.vocab_size, 8192);
    assert_int_equal(c.model.head_dim, 64);
    assert_true(c.model.norm_epsilon == 1e-5);
    assert_int_equal(c.moe.every, 2);
    assert_true(c.moe.capacity_factor == 0);
    assert_int_equal(c.parallel.expert_tensor, 2);
    assert_string_equal(c.data.train, "shards/train_*.bin");
    assert_true(c.train.learning_rate == 3e-4 && c.train.min_learning_rate == 3e-4 / 10);
    assert_true(c.train.betas[0] == 0.9 && c.train.betas[1] == 0.95);
    assert_int_equal(c.train.micro_batch, 4);
    assert_int_equal(c.train.recompute, -1);
    assert_int_equal(c.train.optimizer_tile, 1048576);
    assert_int_equal(c.train.gradient_dtype, TRI_PRECISION_F32);
    assert_true(c.reproducible && c.train.sequence_parallel && c.comm_overlap);
    assert_true(c.train.communication_aware_checkpointing && c.train.duplicate_token_dropping);
    assert_int_equal(c.eval_every, 100);
    assert_int_equal(c.checkpoint_every, 200);
    assert_int_equal(c.lines[tri_key_find("seed")], 1);
    assert_int_equal(c.lines[tri_key_find("comm.timeout_seconds")], 17);
    assert_int_equal(c.lines[tri_key_find("comm.max_message")], 0);
    assert_round_trip(&c);
}

static void test_defaults(void **state)
{
    (void)state;
    struct tri_config c;
    parse_well("{}\n", &c);
    assert_int_equal(c.model.vocab_size, 256);
    assert_int_equal(c.model.num_kv_heads, c.model.num_heads);
    assert_int_equal(c.model.head_dim, 32);
    assert_int_equal(c.model.intermediate_size, 384);
    assert_int_equal(c.model.max_position, c.data.sequence_length);
    assert_int_equal(c.moe.num_experts, 0);
    assert_int_equal(c.train.micro_batch, c.train.global_batch);
    assert_int_equal(c.train.decay_steps, c.train.steps / 5);
    assert_int_equal(c.parallel.expert_tensor, 1);
    assert_int_equal(c.data.separator, -1);
    assert_string_equal(c.data.train, "");
    assert_int_equal(c.train.recompute, 0);
    assert_int_equal(c.train.optimizer_tile, 1 << 20);
    assert_int_equal(c.train.gradient_dtype, TRI_PRECISION_F32);
    assert_true(c.train.communication_aware_checkpointing && c.train.duplicate_token_dropping);
    assert_true(c.comm_overlap && !c.train.sequence_parallel && !c.reproducible);
    assert_false(tri_config_layer_is_moe(&c, 1));
    assert_round_trip(&c);
    parse_well("model: {hidden_size: 96, mlp: gelu}\n", &c);
    assert_int_equal(c.model.intermediate_size, 384);
    parse_well("model: {hidden_size: 24, num_heads: 2}\n", &c);
    assert_int_equal(c.model.intermediate_size, 64);
    parse_well("parallel: {tensor: 4}\ntrain: {steps: 3}\nmoe: {num_experts: 4, capacity_factor: "
               "1.25}\n",
               &c);
    assert_int_equal(c.parallel.expert_tensor, 4);
    assert_int_equal(c.train.decay_steps, 1);
    assert_int_equal(c.moe.intermediate_size, c.model.intermediate_size);
    assert_true(c.moe.eval_capacity_factor == 1.25);
    parse_well("moe: {num_experts: 4, capacity_factor: 1.25, eval_capacity_factor: none}\n", &c);
    assert_true(c.moe.eval_capacity_factor == 0);
    assert_round_trip(&c);
    parse_well("train: {min_learning_rate: 0}\n", &c);
    assert_true(c.train.min_learning_rate == 0);
    assert_round_trip(&c);
}

static void test_filled_by_hand(void **state)
{
    (void)state;
    struct tri_config c, twice;
    struct tri_error error;
    tri_config_init(&tri_strategies, &c);
    c.model.hidden_size = 32;
    c.moe.num_experts = 8;
    assert_int_equal(tri_config_finish(&c, &error), TRI_OK);
    assert_int_equal(c.model.head_dim, 8);
    twice = c;
    assert_int_equal(tri_config_finish(&twice, &error), TRI_OK);
    assert_same_values(&c, &twice);
    c.train.weight_decay = (double)NAN;
    assert_int_equal(tri_config_finish(&c, &error), TRI_BAD_INPUT);
    assert_string_equal(error.message,
                        "key 'train.weight_decay': out of range, expected a number from 0 to 1000");
    tri_config_init(&tri_strategies, &c);
    c.model.num_heads = 0;
    assert_int_equal(tri_config_finish(&c, &error), TRI_BAD_INPUT);
    assert_string_equal(error.message,
                        "key 'model.num_heads': out of range, expected an integer from 1 to 65536");
    static const int64_t counts[] = {-2, TRI_LAYERS_MAX + 1, 1};
    for (size_t i = 0; i < COUNT(counts); i++) {
        tri_config_init(&tri_strategies, &c);
        c.train.recompute = counts[i];
        c.train.recompute_layers[0] = -1;
        assert_int_equal(tri_config_finish(&c, &error), TRI_BAD_INPUT);
        assert_string_equal(error.message, "key 'train.recompute': out of range, expected none, "
                                           "full or block numbers, as [0, 3]");
    }
}

static void test_which_layers(void **state)
{
    (void)state;
    struct tri_config c;
    parse_well("moe: {num_experts: 4, every: 2}\n", &c);
    for (int64_t layer = 0; layer < 4; layer++) {
        assert_int_equal(tri_config_layer_is_moe(&c, layer), layer % 2 == 1);
    }
    parse_well("moe: {num_experts: 4, layers: [0, 3]}\n", &c);
    assert_int_equal(c.moe.num_layers, 2);
    for (int64_t layer = 0; layer < 4; layer++) {
        assert_int_equal(tri_config_layer_is_moe(&c, layer), layer % 3 == 0);
    }
    assert_round_trip(&c);
}

/* The blocks that a value of train.recompute names, of four. */
static void test_which_blocks_recompute(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int64_t count;
        const char *blocks; /* '1': recomputes */
    } cases[] = {
        {"none", 0, "0000"},      {"full", -1, "1111"},  {"[0]", 1, "1000"},
        {"[0, 3]", 2, "1001"},    {"[3, 1]", 2, "0101"}, {"[0, 1, 2, 3]", 4, "1111"},
        {"\"full\"", -1, "1111"},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        char text[100];
        struct tri_config c;
        (void)snprintf(text, sizeof(text), "train: {recompute: %s}\n", cases[i].text);
        parse_well(text, &c);
        assert_int_equal(c.train.recompute, cases[i].count);
        for (int64_t layer = 0; layer < 4; layer++) {
            assert_int_equal(tri_config_layer_recomputes(&c, layer), cases[i].blocks[layer] == '1');
        }
        assert_round_trip(&c);
    }
}

/* Each value is stored in the key's own field, is no default, and comes back out of YAML. */
static void test_mechanisms(void **state)
{
    (void)state;
    struct tri_config c;
    parse_well("precision: bf16\nreproducible: false\n"
               "train: {recompute: [0, 3], communication_aware_checkpointing: false,\n"
               "  duplicate_token_dropping: false, optimizer_tile: none,\n"
               "  sequence_parallel: true, gradient_dtype: bf16}\n"
               "comm: {overlap: false}\n",
               &c);
    assert_int_equal(c.train.recompute, 2);
    assert_int_equal(c.train.recompute_layers[1], 3);
    assert_false(c.train.communication_aware_checkpointing);
    assert_false(c.train.duplicate_token_dropping);
    assert_int_equal(c.train.optimizer_tile, 0);
    assert_true(c.train.sequence_parallel);
    assert_int_equal(c.train.gradient_dtype, TRI_PRECISION_BF16);
    assert_false(c.comm_overlap);
    char *text = tri_config_to_yaml(&c);
    assert_non_null(strstr(text, "\n  recompute: [0, 3]\n"));
    assert_non_null(strstr(text, "\n  optimizer_tile: none\n"));
    assert_non_null(strstr(text, "\n  gradient_dtype: bf16\n"));
    tri_free(text);
    assert_round_trip(&c);
    parse_well("reproducible: true\ntrain: {optimizer_tile: 1}\n", &c);
    assert_true(c.reproducible);
    assert_int_equal(c.train.optimizer_tile, 1);
    assert_round_trip(&c);
    parse_well("train: {optimizer_tile: 1099511627776}\n", &c);
    assert_int_equal(c.train.optimizer_tile, (int64_t)1 << 40);
    assert_round_trip(&c);
}

static void test_overrides(void **state)
{
    (void)state;
    char *overrides[] = {"model.hidden_size=64",
                         "moe.layers=[1, 2]",
                         "train.betas=[0.8,0.9]",
                         "data.train=*.bin: x # y",
                         "seed=3",
                         "seed=4",
                         "resume=",
                         "moe.capacity_factor=none",
                         "train.recompute=[2,0]",
                         "train.optimizer_tile=none"};
    static const char text[] =
        "seed: 2\nresume: old\nmoe: {num_experts: 4, capacity_factor: 1.5}\n";
    struct tri_config c;
    struct tri_error error;
    assert_int_equal(tri_config_parse(&tri_strategies, "c.yaml", text, strlen(text),
                                      COUNT(overrides), overrides, &c, &error),
                     TRI_OK);
    assert_int_equal(c.model.hidden_size, 64);
    assert_int_equal(c.moe.num_layers, 2);
    assert_true(c.train.betas[0] == 0.8 && c.train.betas[1] == 0.9);
    assert_string_equal(c.data.train, "*.bin: x # y");
    assert_int_equal(c.seed, 4);
    assert_string_equal(c.resume, "");
    assert_true(c.moe.capacity_factor == 0);
    assert_int_equal(c.train.recompute, 2);
    assert_int_equal(c.train.recompute_layers[0], 2);
    assert_int_equal(c.train.optimizer_tile, 0);
    assert_int_equal(c.lines[tri_key_find("seed")], TRI_LINE_COMMAND);
    assert_round_trip(&c);
}

static void test_numbers(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        double value;
    } cases[] = {{"3e-4", 3e-4}, {"1E-3", 1e-3}, {".5", 0.5},   {"5.", 5},
                 {"+2", 2},      {"1e+2", 100},  {"0.10", 0.1}, {"1e-400", 0}};
    for (size_t i = 0; i < COUNT(cases); i++) {
        char text[100];
        struct tri_config c;
        (void)snprintf(text, sizeof(text), "train: {weight_decay: %s}\n", cases[i].text);
        parse_well(text, &c);
        assert_true(c.train.weight_decay == cases[i].value);
        assert_round_trip(&c);
    }
}

/* Draws a value of the key's type and range: any, for the round trip alone. */
static void draw(const struct tri_key *key, uint64_t seed, void *at)
{
    uint64_t stream = tri_random_stream(key->name);
    uint64_t bits = tri_random_bits(7, stream, seed);
    double unit = tri_random_uniform(8, stream, seed);
    union tri_value v;
    memcpy(&v, at, tri_key_bytes(key));
    bool none = key->none && bits % 4 == 0;
    unsigned words = 1;
    while (tri_key_word(key, &tri_strategies, 0) && tri_key_word(key, &tri_strategies, words)) {
        words++;
    }
    switch (key->type) {
    case TRI_KEY_INT:
        v.integer = none ? key->none_as : key->min + (int64_t)(bits % 97) * (key->max > 97);
        break;
    case TRI_KEY_FLOAT:
        v.number = none ? (double)key->none_as : key->low + unit * (bits % 2 ? 1e-6 : 1);
        break;
    case TRI_KEY_PAIR:
        v.pair[0] = unit;
        v.pair[1] = 1 - unit;
        break;
    case TRI_KEY_SPAN:
        v.span[0] = none ? 0 : 1 + (int64_t)(bits % 7);
        v.span[1] = none ? 0 : v.span[0] + (int64_t)(bits % 5);
        break;
    case TRI_KEY_GRID:
        v.grid[0] = v.grid[1] = v.grid[2] = 1;
        break;
    case TRI_KEY_BOOL:
        v.truth = bits % 2;
        break;
    case TRI_KEY_ENUM:
        v.word = (unsigned)(bits % words);
        break;
    case TRI_KEY_STRATEGY:
        v.strategy = tri_key_strategies(key, &tri_strategies)[bits % words];
        break;
    case TRI_KEY_TEXT:
        memset(v.text, 0, sizeof(v.text));
        (void)snprintf(v.text, sizeof(v.text), "a \"b\" \\c: [%llu] #\xc3\xa9 '*",
                       (unsigned long long)bits % 1000);
        break;
    case TRI_KEY_LAYERS: /* rising numbers of blocks that every config here has */
    case TRI_KEY_RECOMPUTE:
        memset(&v.layers, 0, sizeof(v.layers));
        v.layers.count = (int64_t)(seed % 4) + (key->type == TRI_KEY_LAYERS ? 1 : -1);
        for (int64_t i = 0; i < v.layers.count; i++) {
            v.layers.items[i] = i;
        }
        break;
    }
    memcpy(at, &v, tri_key_bytes(key));
}

/* Changes single keys to drawn values, keeps what makes sense, and takes each through YAML. */
static void test_round_trip(void **state)
{
    (void)state;
    int kept = 0;
    for (uint64_t round = 0; round < 4; round++) {
        struct tri_config base;
        struct tri_error error;
        parse_well(round % 2 ? "moe: {num_experts: 96, layers: [0, 2]}\n" : "seed: 5\n", &base);
        for (size_t i = 0; i < tri_keys_count; i++) {
            const struct tri_key *key = &tri_keys[i];
            struct tri_config changed = base;
            if (round % 2 == 0 && tri_key_in_section(key, "moe")) {
                continue;
            }
            draw(key, round, tri_key_at(key, &changed));
            if (tri_config_finish(&changed, &error) != TRI_OK) {
                continue;
            }
            assert_round_trip(&changed);
            kept++;
            base = key->type == TRI_KEY_INT ? base : changed;
        }
    }
    assert_true(kept > 150);
}

static void test_differences(void **state)
{
    (void)state;
    struct tri_config a, b;
    char text[200] = "";
    parse_well("moe: {num_experts: 4}\n", &a);
    b = a;
    assert_null(tri_config_first_difference(&a, &b, true, text, sizeof(text)));
    b.train.learning_rate = 1;
    b.parallel.tensor = 2;
    b.moe.top_k = 1;
    b.moe.aux_loss = 3;
    assert_null(tri_config_first_difference(&a, &b, true, text, sizeof(text)));
    (void)snprintf(b.data.train, sizeof(b.data.train), "x"); /* what is in it is compared */
    assert_null(tri_config_first_difference(&a, &b, true, text, sizeof(text)));
    b.data.sequence_length = 64;
    assert_string_equal(tri_config_first_difference(&a, &b, true, text, sizeof(text)),
                        "data.sequence_length");
    assert_string_equal(text, "128 against 64");
    b.seed = 2;
    assert_null(tri_config_first_difference(&a, &b, false, text, sizeof(text)));
    assert_string_equal(tri_config_first_difference(&a, &b, true, text, sizeof(text)), "seed");
    b.seed = a.seed;
    b.moe.num_experts = 8;
    assert_string_equal(tri_config_first_difference(&a, &b, true, text, sizeof(text)),
                        "moe.num_experts");
    assert_string_equal(text, "4 against 8");
    b.model.norm = TRI_NORM_LAYER;
    assert_string_equal(tri_config_first_difference(&a, &b, true, text, sizeof(text)),
                        "model.norm");
    assert_string_equal(text, "rmsnorm against layernorm");
    parse_well("seed: 1\n", &b);
    assert_string_equal(tri_config_first_difference(&a, &b, true, text, sizeof(text)),
                        "moe.num_experts");
    /* Not model.max_position, which nobody wrote. */
    parse_well("moe: {num_experts: 4}\ndata: {sequence_length: 64}\n", &b);
    assert_string_equal(tri_config_first_difference(&a, &b, true, text, sizeof(text)),
                        "data.sequence_length");
}

/* A key by which this model has no weight and no result does not bind; what follows it still
 * does. */
static void test_idle_keys(void **state)
{
    (void)state;
    static const struct {
        const char *a, *b, *key;
    } cases[] = {
        {"moe: {num_experts: 4, intermediate_size: 8}\nmodel: {intermediate_size: 32}\n",
         "moe: {num_experts: 4, intermediate_size: 8}\nmodel: {intermediate_size: 64}\n", NULL},
        {"moe: {num_experts: 4}\nmodel: {intermediate_size: 32}\n",
         "moe: {num_experts: 4}\nmodel: {intermediate_size: 64}\n", "moe.intermediate_size"},
        {"moe: {num_experts: 4, every: 2, intermediate_size: 8}\nmodel: {intermediate_size: 32}\n",
         "moe: {num_experts: 4, every: 2, intermediate_size: 8}\nmodel: {intermediate_size: 64}\n",
         "model.intermediate_size"},
        {"moe: {num_experts: 4, every: 2}\n", "moe: {num_experts: 4, layers: [1, 3]}\n", NULL},
        {"moe: {num_experts: 4, every: 2}\n", "moe: {num_experts: 4, layers: [1, 2]}\n",
         "moe.every"},
        {"model: {max_position: 500}\n", "model: {max_position: 600}\n", NULL},
        {"model: {position: learned, max_position: 500}\n",
         "model: {position: learned, max_position: 600}\n", "model.max_position"},
        {"model: {position: learned}\n", "model: {position: learned, rope_theta: 5}\n", NULL},
        {"seed: 1\n", "model: {rope_theta: 5}\n", "model.rope_theta"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        struct tri_config a, b;
        char text[200];
        parse_well(cases[i].a, &a);
        parse_well(cases[i].b, &b);
        const char *key = tri_config_first_difference(&a, &b, true, text, sizeof(text));
        assert_int_equal(key == NULL, cases[i].key == NULL);
        if (key) {
            assert_string_equal(key, cases[i].key);
        }
    }
}

/* Changes are listed by what they do; what follows another key is not named beside it. */
static void test_changes(void **state)
{
    (void)state;
    struct tri_config a, b;
    char text[200];
    parse_well("moe: {num_experts: 4}\ntrain: {steps: 20}\n", &a);
    assert_int_equal(tri_config_list_changes(&a, &a, TRI_EFFECT_TRAINING, text, sizeof(text)), 0);
    assert_string_equal(text, "");
    parse_well("moe: {num_experts: 4, top_k: 1}\ntrain: {steps: 40, learning_rate: 1e-3, "
               "recompute: full}\nparallel: {expert: 2}\nrun_dir: other\n",
               &b);
    assert_int_equal(tri_config_list_changes(&a, &b, TRI_EFFECT_TRAINING, text, sizeof(text)), 3);
    assert_string_equal(text, "moe.top_k 2 → 1, train.steps 20 → 40, "
                              "train.learning_rate 0.0003 → 0.001");
    assert_int_equal(tri_config_list_changes(&a, &b, TRI_EFFECT_OUTPUT, text, sizeof(text)), 1);
    assert_string_equal(text, "moe.top_k 2 → 1");
    parse_well("moe: {num_experts: 4}\ntrain: {steps: 20, min_learning_rate: 0}\n", &b);
    assert_int_equal(tri_config_list_changes(&a, &b, TRI_EFFECT_TRAINING, text, 20), 1);
    assert_int_equal(strlen(text), 19);
}

static void test_layout(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int ranks;
        const char *message; /* NULL: fits */
    } cases[] = {
        {"seed: 1\n", 1, NULL},
        {"seed: 1\n", 7, NULL},
        {"train: {global_batch: 1}\n", 4, NULL},
        {"parallel: {tensor: 2, expert: 2}\nmoe: {num_experts: 4}\n", 8, NULL},
        {"parallel: {tensor: 2, expert: 2, expert_tensor: 1}\nmoe: {num_experts: 4}\n", 4, NULL},
        {"parallel: {tensor: 2, expert: 2}\nmoe: {num_experts: 4}\n", 6,
         "c.yaml:1: key 'parallel.tensor': found 2 x expert 2 = 4, expected a divisor of the "
         "number "
         "of ranks (6)"},
        {"seed: 1\nparallel: {expert: 4}\nmoe: {num_experts: 4}\n", 2,
         "c.yaml:2: key 'parallel.tensor': found 1 x expert 4 = 4, expected a divisor of the "
         "number "
         "of ranks (2)"},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct tri_config c;
        struct tri_error error = {0};
        parse_well(cases[i].text, &c);
        enum tri_status status = tri_config_check_layout(&c, cases[i].ranks, &error);
        assert_int_equal(status, cases[i].message ? TRI_BAD_INPUT : TRI_OK);
        assert_string_equal(error.message, cases[i].message ? cases[i].message : "");
    }
    struct tri_config c;
    struct tri_error error;
    parse_well("seed: 1\n", &c);
    c.parallel.tensor = 3;
    assert_int_equal(tri_config_check_layout(&c, 3, &error), TRI_BAD_INPUT);
    assert_string_equal(error.message,
                        "c.yaml: key 'parallel.tensor': found 3, expected a divisor of "
                        "model.num_heads (4)");
}

/* Every field of the struct is some key's: no byte of it stays out of the table. */
static void test_table_covers_the_struct(void **state)
{
    (void)state;
    static unsigned char covered[sizeof(struct tri_config)];
    memset(covered, 0, sizeof(covered));
    for (size_t i = 0; i < tri_keys_count; i++) {
        const struct tri_key *key = &tri_keys[i];
        for (size_t b = 0; b < tri_key_bytes(key); b++) {
            assert_int_equal(covered[key->offset + b], 0);
            covered[key->offset + b] = 1;
        }
        for (size_t j = 0; j < i; j++) {
            assert_string_not_equal(tri_keys[j].name, key->name);
        }
        assert_true((tri_key_initial(key, &tri_strategies) != NULL) != (key->follows != NULL));
    }
    int gap = 0;
    for (size_t b = offsetof(struct tri_config, seed); b < offsetof(struct tri_config, lines);
         b++) {
        gap = covered[b] ? 0 : gap + 1;
        assert_true(gap < 8); /* padding */
    }
}

/* The keys that a strategy says it reads are there. */
static void test_strategies_read_keys(void **state)
{
    (void)state;
    int read = 0;
    for (size_t i = 0; i < tri_keys_count; i++) {
        const struct tri_strategy *const *list = tri_key_strategies(&tri_keys[i], &tri_strategies);
        for (; list && *list; list++) {
            assert_true((*list)->name[0] && (*list)->help[0]);
            for (const char *const *key = (*list)->keys; key && *key; key++, read++) {
                assert_true(tri_key_find(*key) >= 0);
            }
        }
    }
    assert_true(read > 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_word),
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_filled_by_hand),
        cmocka_unit_test(test_which_layers),
        cmocka_unit_test(test_which_blocks_recompute),
        cmocka_unit_test(test_mechanisms),
        cmocka_unit_test(test_overrides),
        cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_differences),
        cmocka_unit_test(test_idle_keys),
        cmocka_unit_test(test_changes),
        cmocka_unit_test(test_layout),
        cmocka_unit_test(test_table_covers_the_struct),
        cmocka_unit_test(test_strategies_read_keys),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
