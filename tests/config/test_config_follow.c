/* Defaults that follow another key stay defaults when a config is printed and read again: what
 * nobody wrote follows what is written now. */
#include "config_testing.h"

#include "base/memory.h"
#include "config/value.h"
#include "moe/strategies.h"

#include <stdio.h>
#include <stdlib.h>

static const char small[] = "model: {num_layers: 4, num_heads: 4, hidden_size: 64}\n"
                            "moe: {num_experts: 8, every: 2}\n"
                            "data: {sequence_length: 64}\n"
                            "train: {global_batch: 4, steps: 40, learning_rate: 1e-3}\n";

static enum tri_status read_with(const char *text, const char *override, struct tri_config *config)
{
    struct tri_error error;
    char *words[] = {(char *)(uintptr_t) override};
    return tri_config_parse(&tri_strategies, "c.yaml", text, strlen(text), override ? 1 : 0, words,
                            config, &error);
}

/* The config of text after it was printed and read again, with an override. */
static enum tri_status reread_with(const char *text, const char *override,
                                   struct tri_config *config)
{
    struct tri_config first;
    assert_int_equal(read_with(text, NULL, &first), TRI_OK);
    char *printed = tri_config_to_yaml(&first);
    enum tri_status status = read_with(printed, override, config);
    tri_free(printed);
    return status;
}

static void expect_equal(const struct tri_config *a, const struct tri_config *b,
                         const char *override)
{
    char *of_a = tri_config_to_yaml(a);
    char *of_b = tri_config_to_yaml(b);
    if (strcmp(of_a, of_b) != 0) {
        print_error("with %s:\n%s\nagainst\n%s", override, of_a, of_b);
    }
    assert_string_equal(of_a, of_b);
    tri_free(of_a);
    tri_free(of_b);
}

/* Overrides of one key; how many there are. */
static int overrides_of(const struct tri_key *key, char texts[8][128])
{
    static const char *const of_type[][4] = {
        [TRI_KEY_INT] = {"1", "2", "8", "96"}, [TRI_KEY_FLOAT] = {"0.5", "0.001", "1", "5"},
        [TRI_KEY_BOOL] = {"true", "false"},    [TRI_KEY_TEXT] = {"a", "b/c"},
        [TRI_KEY_LAYERS] = {"[0]", "[1, 3]"},  [TRI_KEY_PAIR] = {"[0.5, 0.75]"},
        [TRI_KEY_SPAN] = {"[2, 3]", "none"},   [TRI_KEY_RECOMPUTE] = {"full", "[0, 2]"}};
    int count = 0;
    const char *word;
    while ((word = tri_key_word(key, &tri_strategies, (size_t)count)) != NULL) {
        (void)snprintf(texts[count++], 128, "%s=%s", key->name, word);
    }
    if (key->autos) {
        (void)snprintf(texts[count++], 128, "%s=auto", key->name);
    }
    for (int i = 0; count == i && i < 4 && of_type[key->type][i]; i++) {
        (void)snprintf(texts[count++], 128, "%s=%s", key->name, of_type[key->type][i]);
    }
    return count;
}

/* Every key of the table: an override means the same on a config as its owner wrote it and as a run
 * printed it. */
static void test_an_override_means_the_same(void **state)
{
    (void)state;
    int kept = 0;
    for (size_t i = 0; i < tri_keys_count; i++) {
        char texts[8][128];
        int count = overrides_of(&tri_keys[i], texts);
        for (int j = 0; j < count; j++) {
            struct tri_config written, printed;
            enum tri_status status = read_with(small, texts[j], &written);
            assert_int_equal(reread_with(small, texts[j], &printed), status);
            if (status == TRI_OK) {
                expect_equal(&written, &printed, texts[j]);
                kept++;
            }
        }
    }
    assert_true(kept > 150);
}

static void test_each_default_follows(void **state)
{
    (void)state;
    struct tri_config c;
    assert_int_equal(reread_with(small, "parallel.tensor=4", &c), TRI_OK);
    assert_int_equal(c.parallel.expert_tensor, 4);
    assert_int_equal(reread_with(small, "train.learning_rate=2e-3", &c), TRI_OK);
    assert_true(c.train.min_learning_rate == 2e-3 / 10);
    assert_int_equal(reread_with(small, "train.steps=80", &c), TRI_OK);
    assert_int_equal(c.train.decay_steps, 16);
    assert_int_equal(reread_with(small, "train.global_batch=2", &c), TRI_OK);
    assert_int_equal(c.train.micro_batch, 2);
    assert_int_equal(reread_with(small, "model.hidden_size=128", &c), TRI_OK);
    assert_int_equal(c.model.head_dim, 32);
    assert_int_equal(c.model.intermediate_size, 384);
    assert_int_equal(c.moe.intermediate_size, 384);
    assert_int_equal(reread_with(small, "model.num_heads=8", &c), TRI_OK);
    assert_int_equal(c.model.num_kv_heads, 8);
    assert_int_equal(reread_with(small, "data.sequence_length=32", &c), TRI_OK);
    assert_int_equal(c.model.max_position, 32);
    assert_int_equal(reread_with(small, "moe.capacity_factor=1.5", &c), TRI_OK);
    assert_true(c.moe.eval_capacity_factor == 1.5);
    assert_int_equal(c.moe.aux_window, TRI_WINDOW_SEQUENCE);
    assert_int_equal(reread_with(small, "moe.router=sparsemixer", &c), TRI_OK);
    assert_int_equal(c.moe.aux_window, TRI_WINDOW_STEP);
    assert_int_equal(
        read_with("reproducible: true\nmoe: {num_experts: 4, router: sparsemixer}\n", NULL, &c),
        TRI_OK);
    assert_int_equal(c.moe.aux_window, TRI_WINDOW_SEQUENCE);
}

/* What was written stays, also when it is what the default would have been; an older program wrote
 * defaults like that. */
static void test_what_is_written_stays(void **state)
{
    (void)state;
    static const char written[] =
        "moe: {num_experts: 4}\nparallel: {expert_tensor: 1}\n"
        "train: {global_batch: 4, micro_batch: 4, min_learning_rate: 3e-5}\n";
    struct tri_config c;
    assert_int_equal(reread_with(written, "train.global_batch=8", &c), TRI_OK);
    assert_int_equal(c.train.micro_batch, 4);
    assert_int_equal(reread_with(written, "train.learning_rate=1", &c), TRI_OK);
    assert_true(c.train.min_learning_rate == 3e-5);
    assert_int_equal(reread_with(written, "parallel.tensor=2", &c), TRI_OK);
    assert_int_equal(c.parallel.expert_tensor, 1);
    assert_int_equal(read_with(written, NULL, &c), TRI_OK);
    tri_config_forget_followed(&c);
    char *printed = tri_config_to_yaml(&c);
    assert_int_equal(read_with(printed, "train.global_batch=8", &c), TRI_OK);
    assert_int_equal(c.train.micro_batch, 8);
    tri_free(printed);
}

/* The comment is for people: 0.003 / 10 is no 0.00030000000000000003 to them. What is a value has
 * all digits. */
static void test_notes_are_short(void **state)
{
    (void)state;
    static const struct {
        const char *rate, *note;
    } cases[] = {
        {"3e-3", "# min_learning_rate: 0.0003  ("},
        {"7e-4", "# min_learning_rate: 7e-05  ("},
        {"1.234567e-3", "# min_learning_rate: 0.0001234567  ("},
        {"0.3", "# min_learning_rate: 0.03  ("},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        char rate[64];
        struct tri_config c;
        (void)snprintf(rate, sizeof(rate), "train.learning_rate=%s", cases[i].rate);
        assert_int_equal(read_with("seed: 1\n", rate, &c), TRI_OK);
        char *printed = tri_config_to_yaml(&c);
        assert_non_null(strstr(printed, cases[i].note));
        tri_free(printed);
    }
    struct tri_config c;
    assert_int_equal(read_with(small, "train.min_learning_rate=0.00030000000000000003", &c),
                     TRI_OK);
    char *printed = tri_config_to_yaml(&c);
    assert_non_null(strstr(printed, "  min_learning_rate: 0.00030000000000000003\n"));
    tri_free(printed);
}

/* As import fills it: what code set is written unless it is just what would follow. */
static void test_filled_by_hand(void **state)
{
    (void)state;
    struct tri_config c;
    struct tri_error error;
    tri_config_init(&tri_strategies, &c);
    c.moe.num_experts = 8;
    c.model.hidden_size = 128;
    c.model.num_heads = 4;
    c.model.num_kv_heads = 2;
    c.model.head_dim = 32;
    c.model.max_position = 500;
    assert_int_equal(tri_config_finish(&c, &error), TRI_OK);
    char *printed = tri_config_to_yaml(&c);
    assert_non_null(strstr(printed, "\n  # head_dim: 32  (hidden_size / num_heads)\n"));
    assert_non_null(strstr(printed, "\n  # expert_tensor: 1  (tensor)\n"));
    assert_non_null(strstr(printed, "\n  num_kv_heads: 2\n"));
    assert_non_null(strstr(printed, "\n  max_position: 500\n"));
    assert_int_equal(read_with(printed, "parallel.tensor=2", &c), TRI_OK);
    assert_int_equal(c.parallel.expert_tensor, 2);
    tri_free(printed);
    /* Where weights exist, what shapes them is no default. */
    assert_int_equal(read_with(small, NULL, &c), TRI_OK);
    tri_config_keep_shapes(&c);
    printed = tri_config_to_yaml(&c);
    assert_int_equal(read_with(printed, "data.sequence_length=128", &c), TRI_BAD_INPUT);
    assert_int_equal(read_with(printed, "parallel.tensor=2", &c), TRI_OK);
    assert_int_equal(c.parallel.expert_tensor, 2);
    tri_free(printed);
}

/* What a router of the weights reads is not taken for one that does not: what is made of it can be
 * printed and read again. */
static void test_unread_is_not_adopted(void **state)
{
    (void)state;
    static const char source_text[] =
        "moe: {num_experts: 8, top_k: 3, normalize_top_k: false, noise: 0.5}\n";
    static const char *const texts[] = {"init_from: x\nmoe: {router: sparsemixer}\n",
                                        "init_from: x\nmoe: {normalize_top_k: false}\n"};
    struct tri_config source;
    assert_int_equal(read_with(source_text, NULL, &source), TRI_OK);
    for (int i = 0; i < 2; i++) {
        const struct tri_mapping file = {.data = (const unsigned char *)texts[i],
                                         .size = strlen(texts[i])};
        struct tri_config config, again;
        struct tri_error error;
        assert_int_equal(
            tri_config_read(&tri_strategies, "c.yaml", &file, 0, NULL, &config, &error), TRI_OK);
        assert_int_equal(tri_config_complete(&config, &source, &error), TRI_OK);
        assert_int_equal(config.moe.top_k, 3);
        assert_true(config.moe.normalize_top_k == (i == 0));
        assert_true((config.moe.noise > 0) == (i == 1));
        char *printed = tri_config_to_yaml(&config);
        assert_int_equal(read_with(printed, NULL, &again), TRI_OK);
        tri_free(printed);
    }
}

/* Another router than that of the weights moves tokens and balances in its own way. */
static void test_another_router(void **state)
{
    (void)state;
    static const char text[] = "init_from: x\nmoe: {router: dense}\n";
    static const char same[] = "init_from: x\nmoe: {router: top_k}\n";
    static const struct tri_mapping files[] = {
        {.data = (const unsigned char *)text, .size = sizeof(text) - 1},
        {.data = (const unsigned char *)same, .size = sizeof(same) - 1}};
    struct tri_config source;
    assert_int_equal(read_with("moe: {num_experts: 8, aux_scope: model}\n", NULL, &source), TRI_OK);
    for (int i = 0; i < 2; i++) {
        struct tri_config config;
        struct tri_error error;
        assert_int_equal(
            tri_config_read(&tri_strategies, "c.yaml", &files[i], 0, NULL, &config, &error),
            TRI_OK);
        assert_int_equal(tri_config_complete(&config, &source, &error), TRI_OK);
        assert_true(config.moe.schedule->dense == (i == 0));
        assert_true((config.moe.aux_scope == source.moe.aux_scope) == (i == 1));
    }
}

/* What other weights' router read and this one does not is not taken: a run that printed it would
 * not begin again with what it has printed. */
static void test_nothing_unread_is_adopted(void **state)
{
    (void)state;
    static const char *const routers[] = {"dense", "sparsemixer", "expert_choice"};
    struct tri_config source, config;
    struct tri_error error;
    for (size_t i = 0; i < sizeof(routers) / sizeof(*routers); i++) {
        char text[128];
        (void)snprintf(text, sizeof(text), "init_from: x\nmoe: {router: %s}\n", routers[i]);
        const struct tri_mapping file = {.data = (const unsigned char *)text, .size = strlen(text)};
        assert_int_equal(read_with("moe: {num_experts: 4, aux_loss: 0.05, capacity_factor: 2, "
                                   "min_capacity: 8}\n",
                                   NULL, &source),
                         TRI_OK);
        assert_int_equal(
            tri_config_read(&tri_strategies, "c.yaml", &file, 0, NULL, &config, &error), TRI_OK);
        assert_int_equal(tri_config_complete(&config, &source, &error), TRI_OK);
        char *printed = tri_config_to_yaml(&config);
        assert_int_equal(read_with(printed, NULL, &config), TRI_OK);
        assert_int_equal(tri_config_check_given(&config, &error), TRI_OK);
        tri_free(printed);
    }
}

/* What other weights have decided is not the command line's fault. */
static void test_a_source_is_named(void **state)
{
    (void)state;
    static const char text[] = "init_from: x\n";
    const struct tri_mapping file = {.data = (const unsigned char *)text, .size = sizeof(text) - 1};
    char word[] = "reproducible=true";
    char *words[] = {word};
    struct tri_config source, config;
    struct tri_error error;
    assert_int_equal(read_with("moe: {num_experts: 8, aux_scope: model}\n", NULL, &source), TRI_OK);
    (void)snprintf(source.path, sizeof(source.path), "models/x");
    assert_int_equal(tri_config_read(&tri_strategies, "c.yaml", &file, 1, words, &config, &error),
                     TRI_OK);
    assert_int_equal(tri_config_complete(&config, &source, &error), TRI_BAD_INPUT);
    assert_string_equal(error.message,
                        "models/x: key 'moe.aux_scope': found model, expected layer: "
                        "reproducible takes each row by itself");
}

/* A key that is given and that nothing reads; what a run prints of itself gives nothing. */
static void test_what_nothing_reads(void **state)
{
    (void)state;
    static const struct {
        const char *word, *says; /* NULL: it is read */
    } cases[] = {
        {"train.lora.alpha=16", "'train.lora.alpha': found a value without train.lora.rank"},
        {"train.lora.targets=mlp", "'train.lora.targets': found a value without train.lora.rank"},
        {"train.lora.rank=2", NULL},
        {"moe.aux_loss=0.02", "'moe.aux_loss': found 0.02, expected 0 or nothing: router dense"},
        {"moe.aux_loss=0", NULL},
        {"moe.min_capacity=4", "'moe.min_capacity': found a value, expected none: router dense"},
        {"moe.capacity_window=step", "'moe.capacity_window': found a value, expected none"},
        {"moe.z_loss=0.1", NULL},
    };
    struct tri_config c;
    struct tri_error error;
    char text[256];
    (void)snprintf(text, sizeof(text), "%s", "moe: {num_experts: 4, router: dense}\n");
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        char word[64];
        char *const given[] = {word};
        (void)snprintf(word, sizeof(word), "%s", cases[i].word);
        assert_int_equal(
            tri_config_parse(&tri_strategies, "c.yaml", text, strlen(text), 1, given, &c, &error),
            TRI_OK);
        enum tri_status status = tri_config_check_given(&c, &error);
        assert_int_equal(status, cases[i].says ? TRI_BAD_INPUT : TRI_OK);
        assert_true(status == TRI_OK || strstr(error.message, cases[i].says));
    }
    assert_int_equal(read_with(text, NULL, &c), TRI_OK);
    char *printed = tri_config_to_yaml(&c);
    assert_non_null(strstr(printed, "alpha: 16"));
    assert_int_equal(read_with(printed, NULL, &c), TRI_OK);
    assert_int_equal(tri_config_check_given(&c, &error), TRI_OK);
    tri_free(printed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_unread_is_not_adopted),
        cmocka_unit_test(test_another_router),
        cmocka_unit_test(test_nothing_unread_is_adopted),
        cmocka_unit_test(test_a_source_is_named),
        cmocka_unit_test(test_what_nothing_reads),
        cmocka_unit_test(test_an_override_means_the_same),
        cmocka_unit_test(test_each_default_follows),
        cmocka_unit_test(test_what_is_written_stays),
        cmocka_unit_test(test_notes_are_short),
        cmocka_unit_test(test_filled_by_hand),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
