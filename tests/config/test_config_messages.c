/* Every kind of bad input, and the one line it produces. */
#include "config/schema.h"
#include "config_testing.h"
#include "moe/strategies.h"

#include <stdio.h>

static void test_unknown(void **state)
{
    (void)state;
    static const struct bad cases[] = {
        {"model:\n  hiden_size: 64\n",
         "c.yaml:2: key 'model.hiden_size': unknown key; did you mean 'model.hidden_size'?"},
        {"seed: 1\nmodel: {num_heads: 4,\n  topk: 2}\n",
         "c.yaml:3: key 'model.topk': unknown key; did you mean 'moe.top_k'?"},
        {"moe: {num_experts: 4, hidden_size: 64}\n",
         "c.yaml:1: key 'moe.hidden_size': unknown key; did you mean 'model.hidden_size'?"},
        {"sead: 1\n", "c.yaml:1: key 'sead': unknown key; did you mean 'seed'?"},
        {"hidden_size: 64\n",
         "c.yaml:1: key 'hidden_size': unknown key; did you mean 'model.hidden_size'?"},
        {"seed: 1\nmodle: {num_heads: 4}\n",
         "c.yaml:2: key 'modle': unknown section; did you mean 'model'?"},
        {"optimizer: {kind: adam}\n",
         "c.yaml:1: key 'optimizer': unknown section; the nearest known one is 'model'"},
        {"model.hidden_size: 64\n", "c.yaml:1: key 'model.hidden_size': unknown key; write "
                                    "'hidden_size' inside the section 'model'"},
        {"train: {zzzzzzzzzzzzzz: 64}\n", "c.yaml:1: key 'train.zzzzzzzzzzzzzz': unknown key; the "
                                          "nearest known one is 'train.optimizer_tile'"},
        {"\"a\\nb\\e[1m\": 64\n",
         "c.yaml:1: key 'a?b?[1m': unknown key; the nearest known one is 'seed'"},
    };
    check_all(cases, COUNT(cases));
}

/* What the plan has names for is told from what nobody knows. */
static void test_reserved(void **state)
{
    (void)state;
    static const struct bad cases[] = {
        {"parallel:\n  pipe: 1\n", "c.yaml:2: key 'parallel.pipe': not built yet"},
        {"train: {lora: {rank: -4}}\n",
         "c.yaml:1: key 'train.lora.rank': found '-4', expected an integer from 0 to 65536"},
        {"train: {lora: {ranks: 4}}\n",
         "c.yaml:1: key 'train.lora.ranks': unknown key; did you mean 'train.lora.rank'?"},
        {"train: {lora: {targets: [attention, router]}}\n",
         "c.yaml:1: key 'train.lora.targets': found 'router', expected some of attention, experts, "
         "shared and mlp"},
        {"train: {lora: {rank: 2, targets: []}}\n",
         "c.yaml:1: key 'train.lora.targets': found none, expected some of attention, experts, "
         "shared and mlp"},
        {"moe: {num_experts: 4, bias_balancing: 0.5}\ntrain: {lora: {rank: 2}}\n",
         "c.yaml:1: key 'moe.bias_balancing': found 0.5, expected 0 with low-rank pairs: neither "
         "an "
         "adapter nor the merged model has a place for what it learns"},
        {"train: {lora: {rank: 2, adapter: a}}\n",
         "c.yaml:1: key 'train.lora.adapter': found 'a' without init_from, expected the model that "
         "it was made for there"},
        {"moe: {num_experts: 4, router: any}\n",
         "c.yaml:1: key 'moe.router': found 'any', expected top_k, balanced, deepspeed_top1, "
         "deepspeed_top2, deepspeed_topk, sparsemixer, dense or expert_choice"},
        {"parallel: most\n",
         "c.yaml:1: key 'parallel': found a value, expected a section of keys and values, or auto"},
        {"train: {recompute: auto}\n",
         "c.yaml:1: key 'train.recompute': found 'auto', which is not built yet, expected none, "
         "full or block numbers, as [0, 3]"},
    };
    check_all(cases, COUNT(cases));
}

/* None of them is a key or a word that there is: who builds one takes it from the list. */
static void test_reserved_is_not_built(void **state)
{
    (void)state;
    for (size_t i = 0; i < tri_keys_count; i++) {
        const struct tri_key *key = &tri_keys[i];
        assert_false(tri_key_is_reserved(key->name));
        for (size_t w = 0; tri_key_word(key, &tri_strategies, w); w++) {
            assert_false(tri_word_is_reserved(key, tri_key_word(key, &tri_strategies, w)));
        }
    }
}

static void test_wrong_type(void **state)
{
    (void)state;
    static const struct bad cases[] = {
        {"moe:\n  num_experts: 4\n  top_k: two\n",
         "c.yaml:3: key 'moe.top_k': found 'two', expected an integer from 1 to 65536"},
        {"model: {rope_scaling: linear, rope_factor: 0.5}\n",
         "c.yaml:1: key 'model.rope_factor': found '0.5', expected a number from 1 to 1000000"},
        {"model: {rope_attention: 0}\n", "c.yaml:1: key 'model.rope_attention': found '0', "
                                         "expected a number above 0 to 1000000"},
        {"train: {steps: 8x}\n",
         "c.yaml:1: key 'train.steps': found '8x', expected an integer from 1 to 1000000000"},
        {"train: {steps: 8.5}\n",
         "c.yaml:1: key 'train.steps': found '8.5', expected an integer from 1 to 1000000000"},
        {"train: {steps: 1e3}\n",
         "c.yaml:1: key 'train.steps': found '1e3', expected an integer from 1 to 1000000000"},
        {"train: {steps: 0x10}\n",
         "c.yaml:1: key 'train.steps': found '0x10', expected an integer from 1 to 1000000000"},
        {"train: {steps: \"8\"}\n", "c.yaml:1: key 'train.steps': found the text '8', expected an "
                                    "integer from 1 to 1000000000"},
        {"train: {steps: }\n",
         "c.yaml:1: key 'train.steps': found nothing, expected an integer from 1 to 1000000000"},
        {"train: {steps: ~}\n",
         "c.yaml:1: key 'train.steps': found nothing, expected an integer from 1 to 1000000000"},
        {"train: {steps: [8]}\n",
         "c.yaml:1: key 'train.steps': found [8], expected an integer from 1 to 1000000000"},
        {"train: {steps: {a: 1}}\n",
         "c.yaml:1: key 'train.steps': found a mapping, expected an integer from 1 to 1000000000"},
        {"seed: {a: 1}\n", "c.yaml:1: key 'seed': found a mapping, expected an integer from 0 to "
                           "9223372036854775807"},
        {"seed: 9223372036854775808\n",
         "c.yaml:1: key 'seed': found '9223372036854775808', expected "
         "an integer from 0 to 9223372036854775807"},
        {"seed: -1\n",
         "c.yaml:1: key 'seed': found '-1', expected an integer from 0 to 9223372036854775807"},
        {"model: {hidden_size: 0}\n",
         "c.yaml:1: key 'model.hidden_size': found '0', expected an integer from 1 to 1048576"},
        {"moe: {num_experts: 0}\n",
         "c.yaml:1: key 'moe.num_experts': found '0', expected an integer from 1 to 65536"},
        {"train: {learning_rate: fast}\n",
         "c.yaml:1: key 'train.learning_rate': found 'fast', expected a number from 0 to 1000"},
        {"train: {learning_rate: nan}\n",
         "c.yaml:1: key 'train.learning_rate': found 'nan', expected a number from 0 to 1000"},
        {"train: {learning_rate: .inf}\n",
         "c.yaml:1: key 'train.learning_rate': found '.inf', expected a number from 0 to 1000"},
        {"train: {learning_rate: 1e999}\n",
         "c.yaml:1: key 'train.learning_rate': found '1e999', expected a number from 0 to 1000"},
        {"train: {learning_rate: 3e}\n",
         "c.yaml:1: key 'train.learning_rate': found '3e', expected a number from 0 to 1000"},
        {"train: {learning_rate: -1}\n",
         "c.yaml:1: key 'train.learning_rate': found '-1', expected a number from 0 to 1000"},
        {"moe: {num_experts: 4, capacity_factor: 0}\n",
         "c.yaml:1: key 'moe.capacity_factor': found '0', expected a number above 0 to 1000000, or "
         "none"},
        {"model: {tie_embeddings: yes}\n",
         "c.yaml:1: key 'model.tie_embeddings': found 'yes', expected true or false"},
        {"model: {tie_embeddings: True}\n",
         "c.yaml:1: key 'model.tie_embeddings': found 'True', expected true or false"},
        {"model: {norm: batchnorm}\n",
         "c.yaml:1: key 'model.norm': found 'batchnorm', expected rmsnorm or layernorm"},
        {"train: {schedule: [cosine]}\n",
         "c.yaml:1: key 'train.schedule': found [cosine], expected "
         "cosine, linear, wsd or constant"},
        {"trace: {steps: [3, 2]}\n",
         "c.yaml:1: key 'trace.steps': found [3, 2], expected two integers from 1 to 1000000000, "
         "the second no smaller, as [100, 102], or none"},
        {"trace: {steps: [1, 2, 3]}\n", "c.yaml:1: key 'trace.steps': found [1, 2, 3], expected "
                                        "two integers from 1 to 1000000000, "
                                        "the second no smaller, as [100, 102], or none"},
        {"trace: {steps: 3}\n",
         "c.yaml:1: key 'trace.steps': found '3', expected two integers from 1 to 1000000000, "
         "the second no smaller, as [100, 102], or none"},
        {"trace: {steps: [0, 2]}\n",
         "c.yaml:1: key 'trace.steps': found [0, 2], expected two integers from 1 to 1000000000, "
         "the second no smaller, as [100, 102], or none"},
        {"train: {betas: 0.9}\n", "c.yaml:1: key 'train.betas': found '0.9', expected two numbers "
                                  "from 0 to below 1, as [0.9, 0.95]"},
        {"train: {betas: [0.9, 1]}\n", "c.yaml:1: key 'train.betas': found [0.9, 1], expected two "
                                       "numbers from 0 to below 1, as [0.9, 0.95]"},
        {"train: {betas: [0.9, 0.95, [1]]}\n",
         "c.yaml:1: key 'train.betas': found [0.9, 0.95, [...]], expected two numbers from 0 to "
         "below 1, as [0.9, 0.95]"},
        {"moe: {num_experts: 4, layers: [1, two]}\n",
         "c.yaml:1: key 'moe.layers': found [1, two], expected a list of integers from 0 to 1023, "
         "as "
         "[0, 3]"},
        {"moe: {num_experts: 4, layers: []}\n",
         "c.yaml:1: key 'moe.layers': found [], expected a list of integers from 0 to 1023, as [0, "
         "3]"},
        {"run_dir: \"\"\n", "c.yaml:1: key 'run_dir': found the text '', expected text of 1 to 896 "
                            "bytes without control characters"},
        {"run_dir: \"a\\tb\"\n",
         "c.yaml:1: key 'run_dir': found the text 'a?b', expected text of 1 "
         "to 896 bytes without control characters"},
        {"data: {train: [a, b]}\n",
         "c.yaml:1: key 'data.train': found 'a' as set 1, expected text of at most 1023 bytes "
         "without "
         "control characters, or a list of {path: TEXT, weight: NUMBER above 0}"},
        {"data: {separator: -1}\n",
         "c.yaml:1: key 'data.separator': found '-1', expected an integer "
         "from 0 to 2147483647, or none"},
        {"train: {recompute: some}\n", "c.yaml:1: key 'train.recompute': found 'some', expected "
                                       "none, full or block numbers, as [0, 3]"},
        {"model: 8\n",
         "c.yaml:1: key 'model': found a value, expected a section of keys and values"},
        {"seed: 1\nmodel: [8]\n",
         "c.yaml:2: key 'model': found a list, expected a section of keys and values"},
    };
    check_all(cases, COUNT(cases));
}

/* Keys of the memory and communication mechanisms, and what they cannot be combined with. */
static void test_mechanisms(void **state)
{
    (void)state;
    static const struct bad cases[] = {
        {"reproducible: 1\n", "c.yaml:1: key 'reproducible': found '1', expected true or false"},
        {"train:\n  recompute: []\n", "c.yaml:2: key 'train.recompute': found [], expected none, "
                                      "full or block numbers, as [0, 3]"},
        {"train: {recompute: 3}\n", "c.yaml:1: key 'train.recompute': found '3', expected none, "
                                    "full or block numbers, as [0, 3]"},
        {"train: {recompute: }\n", "c.yaml:1: key 'train.recompute': found nothing, expected none, "
                                   "full or block numbers, as [0, 3]"},
        {"train: {recompute: [-1]}\n", "c.yaml:1: key 'train.recompute': found [-1], expected "
                                       "none, full or block numbers, as [0, 3]"},
        {"train: {recompute: [0, full]}\n",
         "c.yaml:1: key 'train.recompute': found [0, full], expected none, full or block numbers, "
         "as [0, 3]"},
        {"train:\n  recompute: [0, 4]\n",
         "c.yaml:2: key 'train.recompute': found block 4, expected less than model.num_layers (4): "
         "blocks are counted from 0" DEFAULT_SHAPE},
        {"model: {num_layers: 3}\ntrain: {recompute: [3, 0]}\n",
         "c.yaml:2: key 'train.recompute': found block 3, expected less than model.num_layers (3): "
         "blocks are counted from 0"},
        {"train: {communication_aware_checkpointing: on}\n",
         "c.yaml:1: key 'train.communication_aware_checkpointing': found 'on', expected true or "
         "false"},
        {"train: {duplicate_token_dropping: none}\n",
         "c.yaml:1: key 'train.duplicate_token_dropping': found 'none', expected true or false"},
        {"train: {optimizer_tile: 0}\n",
         "c.yaml:1: key 'train.optimizer_tile': found '0', expected an integer from 1 to "
         "1099511627776, or none"},
        {"train: {optimizer_tile: full}\n",
         "c.yaml:1: key 'train.optimizer_tile': found 'full', expected an integer from 1 to "
         "1099511627776, or none"},
        {"train: {sequence_parallel: 2}\n",
         "c.yaml:1: key 'train.sequence_parallel': found '2', expected true or false"},
        {"train: {gradient_dtype: f16}\n",
         "c.yaml:1: key 'train.gradient_dtype': found 'f16', expected f32 or bf16"},
        {"train:\n  gradient_dtype: bf16\n",
         "c.yaml:2: key 'train.gradient_dtype': found bf16, expected f32: no weight is stored in "
         "bf16"},
        {"reproducible: true\nmodel: {num_heads: 8, num_kv_heads: 2}\nparallel: {tensor: 4}\n",
         "c.yaml:3: key 'parallel.tensor': found 4, expected a divisor of 2: reproducible cuts "
         "sums into so many parts, a power of two that divides num_kv_heads"},
        {"reproducible: true\nmoe: {num_experts: 4, aux_window: step}\n",
         "c.yaml:2: key 'moe.aux_window': found step, expected sequence: reproducible takes each "
         "row by itself"},
        {"reproducible: true\nparallel: {expert: 2}\nmoe: {num_experts: 6, router: dense}\n",
         "c.yaml:2: key 'parallel.expert': found 2, which leaves 3 experts to a rank, expected a "
         "power of two: reproducible adds the experts of router dense in one tree"},
        {"reproducible: true\nmoe: {num_experts: 4, capacity_window: rank}\n",
         "c.yaml:2: key 'moe.capacity_window': found rank, expected sequence: reproducible takes "
         "each row by itself"},
        {"reproducible: true\nmoe: {num_experts: 4, aux_scope: model}\n",
         "c.yaml:2: key 'moe.aux_scope': found model, expected layer: reproducible takes each row "
         "by itself"},
        {"precision: bf16\nreproducible: true\ntrain: {gradient_dtype: bf16}\n",
         "c.yaml:3: key 'train.gradient_dtype': found bf16, expected f32: reproducible sums are "
         "exact"},
        {"comm: {overlap: none}\n",
         "c.yaml:1: key 'comm.overlap': found 'none', expected true or false"},
    };
    check_all(cases, COUNT(cases));
}

static void test_combinations(void **state)
{
    (void)state;
    static const struct bad cases[] = {
        {"model: {rope_scaling: yarn, rope_betas: [1, 32]}\n",
         "c.yaml:1: key 'model.rope_betas': found [1, 32], expected the first to be at least the "
         "second"},
        {"seed: 1\nmodel:\n  num_kv_heads: 3\n",
         "c.yaml:3: key 'model.num_kv_heads': found 3, expected a divisor of num_heads (4)"},
        {"model: {hidden_size: 130}\n", "c.yaml:1: key 'model.hidden_size': found 130, expected a "
                                        "multiple of num_heads (4), or a head_dim"},
        {"model:\n  num_heads: 3\n", "c.yaml:2: key 'model.hidden_size': found 128, expected a "
                                     "multiple of num_heads (3), or a head_dim"},
        {"model: {head_dim: 7}\n",
         "c.yaml:1: key 'model.head_dim': found 7, expected an even number: position is rope"},
        {"model: {max_position: 64}\ndata:\n  sequence_length: 65\n",
         "c.yaml:3: key 'data.sequence_length': found 65, expected at most model.max_position "
         "(64)"},
        {"data: {separator: 256}\n",
         "c.yaml:1: key 'data.separator': found 256, expected less than "
         "model.vocab_size (256)" DEFAULT_SHAPE},
        {"seed: 1\nmoe:\n",
         "c.yaml:2: key 'moe.num_experts': found nothing, expected an integer: a "
         "model with keys of moe needs it" DEFAULT_SHAPE},
        {"train:\n  steps: 50\n  warmup_steps: 51\n",
         "c.yaml:3: key 'train.warmup_steps': found 51, expected at most steps (50)"},
        {"train: {steps: 8}\ntrace: {steps: [8, 9]}\n",
         "c.yaml:2: key 'trace.steps': found 9, expected at most train.steps (8)"},
        {"train: {schedule: wsd, steps: 50, warmup_steps: 41}\n",
         "c.yaml:1: key 'train.decay_steps': found 10, expected at most steps - warmup_steps (9)"},
        {"train: {min_learning_rate: 1e-3}\n", "c.yaml:1: key 'train.min_learning_rate': found "
                                               "0.001, expected at most learning_rate (0.0003)"},
        {"parallel: {tensor: 3}\n", "c.yaml:1: key 'parallel.tensor': found 3, expected a divisor "
                                    "of model.num_heads (4)" DEFAULT_SHAPE},
        {"parallel: {tensor: 4, expert_tensor: 2}\n",
         "c.yaml:1: key 'parallel.expert_tensor': found 2, expected tensor (4) or 1"},
        {"parallel: {tensor: 4, tensor_grid: [2, 1, 1]}\n",
         "c.yaml:1: key 'parallel.tensor_grid': found [2, 1, 1], expected three numbers whose "
         "product is tensor (4)" DEFAULT_SHAPE},
        {"reproducible: true\nparallel:\n  tensor: 4\n  tensor_grid: [2, 2, 1]\n",
         "c.yaml:4: key 'parallel.tensor_grid': found 2 in the middle, expected 1: reproducible "
         "cuts no sums over the hidden size" DEFAULT_SHAPE},
        {"parallel: {tensor: 64, tensor_grid: [1, 1, 64]}\n",
         "c.yaml:1: key 'parallel.tensor_grid': found 64 at the end, expected at most 32, the rows "
         "of a rank's smallest weight" DEFAULT_SHAPE},
        {"parallel: {tensor: 2, tensor_grid: [2, 1]}\n",
         "c.yaml:1: key 'parallel.tensor_grid': found [2, 1], expected three integers from 1 to "
         "65536, as [2, 1, 2]"},
        {"parallel: {expert: 2}\n",
         "c.yaml:1: key 'parallel.expert': found 2, expected 1: the model is dense (experts "
         "come with a section moe)" DEFAULT_SHAPE},
        {"parallel: {expert: 3}\nmoe: {num_experts: 4}\n",
         "c.yaml:1: key 'parallel.expert': found 3, expected a divisor of moe.num_experts (4)"},
        {"moe: {num_experts: 4}\nparallel: {expert: 4, tensor: 2, expert_tensor: 1}\n",
         "c.yaml:2: key 'parallel.expert_tensor': found 1, expected that tensor x expert (2 x 4) "
         "divides moe.num_experts (4)"},
    };
    check_all(cases, COUNT(cases));
}

static void test_yaml(void **state)
{
    (void)state;
    static const struct bad cases[] = {
        {"", "c.yaml: found no keys: the file is empty"},
        {"# only a comment\n", "c.yaml: found no keys: the file is empty"},
        {"---\n", "c.yaml: found no keys: the file is empty"},
        {"hello\n", "c.yaml:1: found text, expected keys and values"},
        {"\n- a\n- b\n", "c.yaml:2: found a list, expected keys and values"},
        {"model:\n\tnum_heads: 4\n",
         "c.yaml:2: found a tab, expected spaces: YAML is not indented with tabs"},
        {"seed: 1\nseed: 2\n", "c.yaml:2: key 'seed': found a second time, first in line 1"},
        {"model:\n  num_heads: 4\n  num_layers: 2\n  num_heads: 4\n",
         "c.yaml:4: key 'model.num_heads': found a second time, first in line 2"},
        {"seed: 1\n---\nseed: 2\n", "c.yaml:2: found a second document, expected one"},
        {"seed: &one 1\n",
         "c.yaml:1: found the anchor 'one', expected a value: anchors and aliases "
         "are not used here (text that begins with & or * needs quotes)"},
        {"model: {}\ndata: {train: *x}\n",
         "c.yaml:2: found the alias 'x', expected a value: anchors and aliases are not used here "
         "(text that begins with & or * needs quotes)"},
        {"seed: !!int 1\n",
         "c.yaml:1: found the tag 'tag:yaml.org,2002:int', expected a value: tags "
         "are not used here"},
        {"seed: 1\nmodel: {num_heads: 4\n", "c.yaml:3: not YAML: did not find expected ',' or '}', "
                                            "while parsing a flow mapping in line "
                                            "2"},
        {"seed: 1\n  num: 2\n",
         "c.yaml:2: not YAML: mapping values are not allowed in this context"},
        {"run_dir: \"runs\n",
         "c.yaml:2: not YAML: found unexpected end of stream, while scanning a "
         "quoted scalar in line 1"},
        {"seed: 1\n[a]: 2\n", "c.yaml:2: found a list, expected the name of a key"},
        {"seed: 1\nrun_dir: a\x01z\n", "c.yaml:2: not text: found byte 0x01 at offset 18"},
        {"seed: 1\nrun_dir: \xff\n",
         "c.yaml:2: not UTF-8 text: invalid leading UTF-8 octet at byte 17"},
        {"run_dir: \"a\\0b\"\n", "c.yaml:1: found a zero character inside a value"},
        {"a: [[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]\n",
         "c.yaml:1: found more than 16 levels of nesting"},
    };
    check_all(cases, COUNT(cases));
}

static void test_long_values_are_cut(void **state)
{
    (void)state;
    char value[3000];
    char text[4000];
    memset(value, 'x', sizeof(value));
    value[sizeof(value) - 1] = '\0';
    (void)snprintf(text, sizeof(text), "train: {steps: %s}", value);
    struct tri_config config;
    struct tri_error error;
    assert_int_equal(parse(text, &config, &error), TRI_BAD_INPUT);
    assert_string_equal(
        error.message,
        "c.yaml:1: key 'train.steps': found "
        "'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx...', expected "
        "an integer from 1 to 1000000000");
    (void)snprintf(text, sizeof(text), "data: {valid: %s}", value);
    assert_int_equal(parse(text, &config, &error), TRI_BAD_INPUT);
    assert_non_null(strstr(error.message, "expected text of at most 1023 bytes"));
}

static void test_overrides(void **state)
{
    (void)state;
    static const struct bad cases[] = {
        {"model.hiden_size=64", "command line: key 'model.hiden_size': unknown key; did you mean "
                                "'model.hidden_size'?"},
        {"modle.hidden_size=64", "command line: key 'modle.hidden_size': unknown key; did you mean "
                                 "'model.hidden_size'?"},
        {"steps=64", "command line: key 'steps': unknown key; did you mean 'train.steps'?"},
        {"train.lr=1", "command line: key 'train.lr': unknown key; did you mean "
                       "'train.learning_rate'?"},
        {"lr=1", "command line: key 'lr': unknown key; did you mean 'train.learning_rate'?"},
        {"train.batch_size=1", "command line: key 'train.batch_size': unknown key; did you mean "
                               "'train.global_batch'?"},
        {"train.warmup=1", "command line: key 'train.warmup': unknown key; did you mean "
                           "'train.warmup_steps'?"},
        {"lora.rank=1", "command line: key 'lora.rank': unknown key; did you mean "
                        "'train.lora.rank'?"},
        {"train.steps=two",
         "command line: key 'train.steps': found 'two', expected an integer from "
         "1 to 1000000000"},
        {"train.steps=",
         "command line: key 'train.steps': found nothing, expected an integer from 1 "
         "to 1000000000"},
        {"train.steps= 5",
         "command line: key 'train.steps': found ' 5', expected an integer from 1 "
         "to 1000000000"},
        {"train.steps", "command line: found 'train.steps', expected section.key=value"},
        {"", "command line: found the text '', expected section.key=value"},
        {"=5", "command line: found '=5', expected section.key=value"},
        {"train.betas=[0.9", "command line: key 'train.betas': found '[0.9', expected two numbers "
                             "from 0 to below 1, as [0.9, 0.95]"},
        {"train.recompute=some", "command line: key 'train.recompute': found 'some', expected "
                                 "none, full or block numbers, as [0, 3]"},
        {"moe.chunks=most", "command line: key 'moe.chunks': found 'most', expected an integer "
                            "from 1 to 1024, or auto"},
        {"parallel=all", "command line: key 'parallel': found 'all', expected auto, or its keys "
                         "one by one"},
        {"model=auto", "command line: key 'model': unknown key; the nearest known one is 'seed'"},
        {"train.recompute=[0,", "command line: key 'train.recompute': found '[0,', expected "
                                "none, full or block numbers, as [0, 3]"},
        {"train.recompute=[4]",
         "command line: key 'train.recompute': found block 4, expected less than model.num_layers "
         "(4): blocks are counted from 0" DEFAULT_SHAPE},
        {"train.gradient_dtype=bf16", "command line: key 'train.gradient_dtype': found bf16, "
                                      "expected f32: no weight is stored in bf16"},
        {"moe.top_k=3",
         "command line: key 'moe.num_experts': found nothing, expected an integer: a "
         "model with keys of moe needs it" DEFAULT_SHAPE},
        {"model.num_kv_heads=3",
         "command line: key 'model.num_kv_heads': found 3, expected a divisor of num_heads (4)"},
        {"train.steps=5",
         "c.yaml:2: key 'train.warmup_steps': found 10, expected at most steps (5)"},
        {"run_dir=\xc3\x28", "command line: key 'run_dir': found the text '?(', expected text of 1 "
                             "to 896 bytes without control characters"},
    };
    static const char text[] = "train:\n  warmup_steps: 10\n";
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct tri_config config;
        struct tri_error error = {0};
        char override[256];
        (void)snprintf(override, sizeof(override), "%s", cases[i].text);
        char *overrides[] = {override};
        assert_int_equal(tri_config_parse(&tri_strategies, "c.yaml", text, strlen(text), 1,
                                          overrides, &config, &error),
                         TRI_BAD_INPUT);
        assert_string_equal(error.message, cases[i].message);
    }
}

static void test_later_refusals_name_the_line(void **state)
{
    (void)state;
    struct tri_config config;
    struct tri_error error;
    parse_well("seed: 1\ndata:\n  train: a_*.bin\n", &config);
    assert_int_equal(
        tri_config_refuse(&config, &error, "data.train", "no file matches '%s'", config.data.train),
        TRI_BAD_INPUT);
    assert_string_equal(error.message, "c.yaml:3: key 'data.train': no file matches 'a_*.bin'");
    (void)tri_config_refuse(&config, &error, "data.valid", "found nothing");
    assert_string_equal(error.message, "c.yaml: key 'data.valid': found nothing");
    tri_config_init(&tri_strategies, &config);
    (void)tri_config_refuse(&config, &error, "data.valid", "found nothing");
    assert_string_equal(error.message, "key 'data.valid': found nothing");
}

/* A part of nothing is legal where depth does not cut it again. */
static void test_grids_of_one(void **state)
{
    (void)state;
    struct tri_config config;
    parse_well("model: {intermediate_size: 3}\nparallel: {tensor: 4, tensor_grid: [4, 1, 1]}\n",
               &config);
    parse_well("model: {intermediate_size: 4}\nparallel: {tensor: 4, tensor_grid: [1, 1, 4]}\n",
               &config);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_unknown),
        cmocka_unit_test(test_reserved),
        cmocka_unit_test(test_reserved_is_not_built),
        cmocka_unit_test(test_wrong_type),
        cmocka_unit_test(test_mechanisms),
        cmocka_unit_test(test_combinations),
        cmocka_unit_test(test_grids_of_one),
        cmocka_unit_test(test_yaml),
        cmocka_unit_test(test_long_values_are_cut),
        cmocka_unit_test(test_overrides),
        cmocka_unit_test(test_later_refusals_name_the_line),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
