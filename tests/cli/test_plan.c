/* trident plan: what it prints of one layout and of all, that a run counts what it planned, and
 * what it refuses. */
#include "cli/cli.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static int64_t integer(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    if (!json_is_integer(value)) {
        fail_msg("member %s is missing or no integer", key);
    }
    return json_integer_value(value);
}

/* The categories make up the total. */
static int64_t total_of(const json_t *bytes)
{
    static const char *const categories[] = {"weights",     "gradients", "optimizer",
                                             "activations", "stash",     "buffers",
                                             "tiles",       "trace",     "other"};
    int64_t sum = 0;
    for (size_t i = 0; i < sizeof(categories) / sizeof(*categories); i++) {
        sum += integer(bytes, categories[i]);
    }
    assert_int_equal(integer(bytes, "total"), sum);
    return sum;
}

static void test_one(void **state)
{
    (void)state;
    struct process_result result =
        cli_run(cli_ranks(), CLI_WORDS_OF("plan", "c.yaml", "--json", "--ranks", "8",
                                          "parallel.tensor=2", "parallel.expert=4"));
    json_t *root = cli_expect_json(&result, 0);
    int64_t balanced = total_of(json_object_get(root, "bytes"));
    int64_t headroom = total_of(json_object_get(root, "headroom"));
    int64_t worst = total_of(json_object_get(root, "worst"));
    assert_true(balanced < headroom && headroom < worst);
    assert_int_equal(integer(root, "ranks"), 8);
    assert_int_equal(integer(root, "tensor"), 2);
    assert_int_equal(integer(root, "data"), 1);
    assert_true(integer(root, "process") > 0);
    assert_true(integer(json_object_get(root, "sent"), "tensor") > 0);
    assert_true(integer(json_object_get(root, "sent"), "expert") > 0);
    assert_int_equal(integer(root, "sent_between_hosts"), 0);
    json_decref(root);
    result =
        cli_run(cli_ranks(), CLI_WORDS_OF("plan", "c.yaml", "--ranks", "8", "parallel.tensor=2",
                                          "parallel.expert=4", "comm.ranks_per_host=4"));
    assert_int_equal(cli_count(result.out, "between hosts"), 1);
    cli_expect_status(&result, 0);
    result = cli_run(cli_ranks(), CLI_WORDS_OF("plan", "c.yaml"));
    assert_int_equal(cli_count(result.out, "\nweights "), 1);
    assert_int_equal(cli_count(result.out, "\ntotal "), 1);
    assert_int_equal(cli_count(result.out, "worst"), 1);
    cli_expect_status(&result, 0);
}

/* Least memory first; what cannot be is said, with the reason. */
static void test_layouts(void **state)
{
    (void)state;
    struct process_result result = cli_run(
        cli_ranks(), CLI_WORDS_OF("plan", "c.yaml", "--layouts", "--ranks", "16", "--json"));
    json_t *root = cli_expect_json(&result, 0);
    const json_t *layouts = json_object_get(root, "layouts");
    const json_t *refused = json_object_get(root, "refused");
    int64_t before = 0;
    assert_true(json_array_size(layouts) > 3 && json_array_size(refused) > 3);
    for (size_t i = 0; i < json_array_size(layouts); i++) {
        const json_t *layout = json_array_get(layouts, i);
        int64_t total = total_of(json_object_get(layout, "bytes"));
        assert_true(total >= before);
        assert_int_equal(
            integer(layout, "tensor") * integer(layout, "expert") * integer(layout, "data"), 16);
        before = total;
    }
    for (size_t i = 0; i < json_array_size(refused); i++) {
        const json_t *reason = json_object_get(json_array_get(refused, i), "reason");
        assert_non_null(strstr(json_string_value(reason), "key 'parallel."));
    }
    size_t lines = json_array_size(layouts);
    size_t refusals = json_array_size(refused);
    json_decref(root);
    result = cli_run(cli_ranks(), CLI_WORDS_OF("plan", "c.yaml", "--layouts", "--ranks", "16"));
    assert_int_equal(cli_count(result.out, "\n"), 2 + lines + refusals);
    assert_int_equal(cli_count(result.out, "\nnot tensor "), refusals);
    cli_expect_status(&result, 0);
    if (cli_ranks() == 0) {
        result =
            cli_run(0, CLI_WORDS_OF("plan", "c.yaml", "--layouts", "parallel.expert=2", "--json"));
        root = cli_expect_json(&result, 0);
        assert_int_equal(integer(root, "ranks"), 2);
        json_decref(root);
    }
}

static double number(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    if (!json_is_number(value)) {
        fail_msg("member %s is missing or no number", key);
    }
    return json_number_value(value);
}

/* The parts make up the step. */
static double step_of(const json_t *plan)
{
    const json_t *parts = json_object_get(plan, "parts_ms");
    const char *name;
    json_t *value;
    double sum = 0.0;
    json_object_foreach((json_t *)(uintptr_t)parts, name, value)
    {
        sum += json_number_value(value);
    }
    double step = number(plan, "step_ms");
    assert_true(step > 0.0 && fabs(sum - step) < 1e-9 * step);
    assert_true(number(plan, "exposed_ms") <= step);
    return step;
}

/* On a cluster a plan has times, and the fastest layout that fits comes first. */
static void test_times(void **state)
{
    (void)state;
    cli_write("m.yaml", "ranks_per_host: 2\n"
                        "memory_per_rank: 600000\n"
                        "links: {inside: {any: {bytes: 1e9}}, between: {any: {bytes: 1e8}}}\n"
                        "kernels: {f32: {any: {bytes: 1e10}, products: {flops: 1e10}}}\n");
    struct process_result result =
        cli_run(cli_ranks(), CLI_WORDS_OF("plan", "c.yaml", "--json", "--ranks", "4", "--cluster",
                                          "m.yaml", "parallel.expert=2"));
    json_t *root = cli_expect_json(&result, 0);
    double step = step_of(root);
    json_decref(root);
    result = cli_run(cli_ranks(), CLI_WORDS_OF("plan", "c.yaml", "--json", "--ranks", "4",
                                               "--cluster", "m.yaml", "--layouts"));
    root = cli_expect_json(&result, 0);
    const json_t *layouts = json_object_get(root, "layouts");
    double before = 0.0;
    bool fits = true;
    bool found = false;
    size_t rest = 0;
    for (size_t i = 0; i < json_array_size(layouts); i++) {
        const json_t *one = json_array_get(layouts, i);
        bool fits_too = json_is_true(json_object_get(one, "fits"));
        assert_true(fits || !fits_too);
        assert_true(fits_too == (total_of(json_object_get(one, "bytes")) <= 600000));
        before = fits == fits_too ? before : 0.0;
        /* what is not rounding, in ms; the first may be one that is as fast as the second */
        double slack = i == 1 ? 0.002 * before : 1e-8;
        assert_true(!fits || step_of(one) > before - slack);
        before = step_of(one);
        fits = fits_too;
        rest += fits ? 0 : 1;
        found = found || (integer(one, "expert") == 2 && before == step);
        assert_non_null(json_string_value(json_object_get(one, "reason")));
    }
    assert_true(found && rest > 0 && rest < json_array_size(layouts));
    /* its keys make a config the first of them */
    char keys[256];
    const char *words[CLI_WORDS] = {"plan", "c.yaml",    "--json", "--ranks",
                                    "4",    "--cluster", "m.yaml"};
    size_t used = 7;
    const json_t *first = json_array_get(layouts, 0);
    (void)snprintf(keys, sizeof(keys), "%s", json_string_value(json_object_get(first, "keys")));
    char *rest_of_keys = NULL;
    for (char *key = strtok_r(keys, " ", &rest_of_keys); key && used + 1 < CLI_WORDS;
         key = strtok_r(NULL, " ", &rest_of_keys)) {
        words[used++] = key;
    }
    double least = step_of(first);
    json_decref(root);
    result = cli_run(cli_ranks(), words);
    root = cli_expect_json(&result, 0);
    assert_true(step_of(root) == least);
    json_decref(root);
    result = cli_run(cli_ranks(), CLI_WORDS_OF("plan", "c.yaml", "--ranks", "4", "--cluster",
                                               "m.yaml", "--layouts"));
    assert_int_equal(cli_count(result.out, "  best\n"), 1);
    cli_expect_status(&result, 0);
    result = cli_run(cli_ranks(),
                     CLI_WORDS_OF("plan", "c.yaml", "--cluster", "m.yaml", "precision=bf16"));
    cli_expect_error(&result, cli_ranks(), 2, "no section kernels.bf16");
}

/* The cluster that a config has for its run may lack what a plan's times need: then there are none,
 * and it is said why. Who asks for them by --cluster is refused. */
static void test_untimed(void **state)
{
    (void)state;
    cli_write("u.yaml", "name: u\nranks_per_host: 1\n"
                        "kernels: {f32: {any: {bytes: 1e10}}, reproducible_f32: {any: {bytes: "
                        "1e9}}}\n");
    struct process_result result =
        cli_run(cli_ranks(), CLI_WORDS_OF("plan", "c.yaml", "--json", "plan.cluster=u.yaml",
                                          "reproducible=true", "precision=bf16"));
    json_t *root = cli_expect_json(&result, 0);
    assert_null(json_object_get(root, "step_ms"));
    assert_non_null(strstr(json_string_value(json_object_get(root, "untimed")),
                           "cluster u: no section kernels.reproducible_bf16"));
    assert_true(total_of(json_object_get(root, "bytes")) > 0);
    json_decref(root);
    result = cli_run(cli_ranks(), CLI_WORDS_OF("plan", "c.yaml", "--layouts", "--ranks", "2",
                                               "plan.cluster=u.yaml"));
    assert_int_equal(cli_count(result.out, "\nno times: cluster u: no section links.between"), 1);
    cli_expect_status(&result, 0);
    result = cli_run(cli_ranks(), CLI_WORDS_OF("plan", "c.yaml", "--cluster", "u.yaml",
                                               "reproducible=true", "precision=bf16"));
    cli_expect_error(&result, cli_ranks(), 2, "no section kernels.reproducible_bf16");
    double steps[2];
    static const char *const words[] = {"reproducible=true", "reproducible=false"};
    for (int i = 0; i < 2; i++) {
        result = cli_run(cli_ranks(), CLI_WORDS_OF("plan", "c.yaml", "--json", "--ranks", "1",
                                                   "plan.cluster=u.yaml", words[i]));
        root = cli_expect_json(&result, 0);
        steps[i] = step_of(root);
        json_decref(root);
    }
    assert_true(steps[0] > steps[1]);
    /* A layout that is left to the planner is any of those that are listed. */
    result = cli_run(cli_ranks(),
                     CLI_WORDS_OF("plan", "c.yaml", "--layouts", "--ranks", "2", "parallel=auto"));
    assert_true(cli_count(result.out, "\n") > 3);
    cli_expect_status(&result, 0);
    result = cli_run(cli_ranks(), CLI_WORDS_OF("plan", "c.yaml", "--layouts", "--ranks", "2",
                                               "moe.schedule=auto"));
    cli_expect_error(&result, cli_ranks(), 2, "found auto, expected a cluster's file");
}

/* A run takes what plan says of it, writes it down, and goes on with it. */
static void test_auto(void **state)
{
    (void)state;
    cli_write("m.yaml", "name: m\nranks_per_host: 2\n"
                        "links: {inside: {any: {bytes: 1e9}}, between: {any: {bytes: 1e8}}}\n"
                        "kernels: {f32: {any: {bytes: 1e10}, products: {flops: 1e10}}}\n");
    struct process_result result =
        cli_run(0, CLI_WORDS_OF("plan", "c.yaml", "--json", "--ranks", "2", "plan.cluster=m.yaml",
                                "parallel=auto", "moe.schedule=auto", "moe.chunks=auto"));
    json_t *root = cli_expect_json(&result, 0);
    char chosen[1024], layout[64];
    (void)snprintf(chosen, sizeof(chosen), "%s", json_string_value(json_object_get(root, "auto")));
    assert_non_null(strstr(chosen, ": predicted step "));
    (void)snprintf(layout, sizeof(layout), "tensor: %d\n  expert: %d\n",
                   (int)integer(root, "tensor"), (int)integer(root, "expert"));
    assert_true(step_of(root) > 0.0);
    json_decref(root);
    const char *words[] = {"train",
                           "c.yaml",
                           "--ranks",
                           "2",
                           "run_dir=auto",
                           "data.valid=",
                           "plan.cluster=m.yaml",
                           "train.steps=2",
                           "parallel=auto",
                           "moe.schedule=auto",
                           "moe.chunks=auto",
                           NULL};
    result = cli_run(0, words);
    assert_non_null(strstr(result.err, chosen));
    cli_expect_status(&result, 0);
    char *yaml = cli_read("auto/config.yaml", NULL);
    assert_non_null(strstr(yaml, layout));
    assert_null(strstr(yaml, "schedule: auto"));
    free(yaml);
    words[7] = "train.steps=3";
    result = cli_run(0, words);
    assert_non_null(strstr(result.err, "auto     as the run has it: tensor "));
    cli_expect_status(&result, 0);
    words[6] = "seed=1"; /* a run that keeps what it has needs no cluster */
    words[7] = "train.steps=4";
    result = cli_run(0, words);
    cli_expect_status(&result, 0);
    words[4] = "run_dir=other";
    result = cli_run(0, words);
    cli_expect_error(&result, 0, 2, "found auto, expected a cluster's file in plan.cluster");
    result = cli_run(0, CLI_WORDS_OF("eval", "auto", "moe.schedule=auto", "--data", "t.txt"));
    cli_expect_error(&result, 0, 2, "found auto, expected a value: a run chooses when it trains");
    result = cli_run(0, CLI_WORDS_OF("train", "c.yaml", "parallel=auto", "parallel.tensor=2"));
    cli_expect_error(&result, 0, 2, "key 'parallel.tensor': found a value beside parallel: auto");
}

/* What calibrate writes plans read. */
static void test_calibrate(void **state)
{
    (void)state;
    struct process_result result = cli_run(0, CLI_WORDS_OF("calibrate", "--quick", "--threads", "1",
                                                           "--ranks", "2", "--out", "here.yaml"));
    assert_int_equal(cli_count(result.out, "product_forward"), 2);
    assert_int_equal(cli_count(result.out, "inside.all_reduce"), 1);
    cli_expect_status(&result, 0);
    result = cli_run(0, CLI_WORDS_OF("plan", "c.yaml", "--json", "--cluster", "here.yaml",
                                     "--ranks", "2", "precision=bf16"));
    json_t *root = cli_expect_json(&result, 0);
    assert_true(step_of(root) > 0.0);
    json_decref(root);
    result = cli_run(0, CLI_WORDS_OF("plan", "c.yaml", "--cluster", "here.yaml", "--ranks", "3"));
    cli_expect_error(&result, 0, 2, "no section links.between");
    cli_write("k.yaml", "ranks_per_host: 2\nlinks: {inside: {any: {bytes: 1e9}}}\n"
                        "kernels: {f32: {any: {bytes: 1e10}, products: {flops: 12345}}}\n");
    /* Kernels' rates of another file stay as they are, and only links are measured. */
    result = cli_run(0, CLI_WORDS_OF("calibrate", "--quick", "--threads", "1", "--ranks", "2",
                                     "--kernels", "k.yaml", "--json"));
    root = cli_expect_json(&result, 0);
    const json_t *kernels = json_object_get(root, "kernels");
    const json_t *rate = json_object_get(json_object_get(kernels, "f32"), "product_weight");
    assert_true(json_number_value(json_object_get(rate, "flops")) == 12345.0);
    assert_non_null(json_object_get(json_object_get(root, "links"), "inside"));
    json_decref(root);
    result = cli_run(0, CLI_WORDS_OF("calibrate", "--quick", "--threads", "1", "--ranks", "2",
                                     "--kernels", "none.yaml"));
    cli_expect_error(&result, 0, 2, "none.yaml");
    /* Before anything is measured: so many threads are warned of when they are made. */
    result = cli_run(0, CLI_WORDS_OF("calibrate", "--quick", "--threads", "64", "--ranks", "2",
                                     "--out", "none/here.yaml"));
    assert_int_equal(cli_count(result.err, "warning"), 0);
    cli_expect_error(&result, 0, 2, "none/here.yaml: cannot create");
}

/* A plan takes no more memory than the program: 16 experts of 1.6 billion parameters in each of 20
 * layers. */
static void test_large(void **state)
{
    (void)state;
    struct process_result result = cli_run(
        0, CLI_WORDS_OF("plan", "c.yaml", "--json", "model.hidden_size=16384",
                        "moe.intermediate_size=32768", "model.num_layers=40", "precision=bf16"));
    assert_true(result.max_rss_kib < 200 * 1024);
    json_t *root = cli_expect_json(&result, 0);
    assert_true(total_of(json_object_get(root, "bytes")) > INT64_C(1000000000000));
    json_decref(root);
}

/* Megabytes of one line of a run's table: planned, then counted. */
static void figures(const char *text, const char *name, double *planned, double *counted)
{
    char line[32];
    (void)snprintf(line, sizeof(line), "\n  %-11s ", name);
    const char *at = strstr(text, line);
    assert_non_null(at);
    at += strlen(line);
    char *first;
    char *second;
    *planned = strtod(at, &first);
    *counted = strtod(first, &second);
    assert_true(first > at && second > first);
}

static void test_run_counts_the_same(void **state)
{
    (void)state;
    static const char *const exact[] = {"weights", "gradients", "optimizer", "activations"};
    /* An evaluation takes no more than a step, for which a replica has a part of a micro-batch. */
    static const char *const words[] = {"data.valid=", "train.micro_batch=4"};
    for (int w = 0; w < 2; w++) {
        struct process_result result = cli_run(
            cli_ranks(), CLI_WORDS_OF("train", "c.yaml", "run_dir=planned", "--fresh",
                                      "train.global_batch=4", "moe.router=balanced", words[w]));
        for (size_t i = 0; i < sizeof(exact) / sizeof(*exact); i++) {
            double planned;
            double counted;
            figures(result.err, exact[i], &planned, &counted);
            assert_true(planned > 0.0 && planned == counted);
        }
        assert_int_equal(cli_count(result.err, "\n  process "), 1);
        cli_expect_status(&result, 0);
    }
}

static void test_refused(void **state)
{
    (void)state;
    static const struct {
        const char *words[5];
        const char *says;
    } cases[] = {
        {{"plan"}, "usage: trident plan"},
        {{"plan", "c.yaml", "--cluster"}, "option '--cluster' needs a value"},
        {{"plan", "c.yaml", "--cluster", "none.yaml"}, "none.yaml: cannot open"},
        {{"plan", "c.yaml", "--cluster", "c.yaml"}, "c.yaml:1: unknown key"},
        {{"plan", "c.yaml", "--ranks"}, "option '--ranks' needs a value"},
        {{"plan", "c.yaml", "--ranks", "0"}, "option '--ranks': found '0'"},
        {{"plan", "c.yaml", "--ranks", "many"}, "option '--ranks': found 'many'"},
        {{"plan", "missing.yaml"}, "missing.yaml: cannot open"},
        {{"plan", "c.yaml", "--ranks", "3", "parallel.tensor=2"}, "the number of ranks (3)"},
        {{"plan", "c.yaml", "--layouts", "parallel.tensor=3"}, "parallel.tensor"},
        {{"plan", "c.yaml", "train.lora.alpha=8"}, "key 'train.lora.alpha': found a value without"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        const char *words[6] = {NULL};
        memcpy(words, cases[i].words, sizeof(cases[i].words));
        struct process_result result = cli_run(cli_ranks(), words);
        cli_expect_error(&result, cli_ranks(), 2, cases[i].says);
    }
    if (cli_ranks() == 0) { /* without --ranks as many as the layout asks for */
        struct process_result result =
            cli_run(0, CLI_WORDS_OF("plan", "c.yaml", "model.hidden_size=131072",
                                    "model.num_heads=65536", "moe.num_experts=65536",
                                    "parallel.tensor=65536", "parallel.expert=65536"));
        cli_expect_error(&result, 0, 2, "4294967296 ranks, expected at most 1048576");
    }
}

/* ---- what a run keeps of it ------------------------------------------------------------------ */

static int64_t bytes_of(const json_t *row, const json_t *rows)
{
    static const char *const keys[] = {"operation", "group", "phase", "kind"};
    for (size_t i = 0; i < json_array_size(rows); i++) {
        const json_t *other = json_array_get(rows, i);
        int same = 0;
        for (int k = 0; k < 4; k++) {
            same += json_equal(json_object_get(row, keys[k]), json_object_get(other, keys[k]));
        }
        if (same == 4) {
            return integer(other, "bytes");
        }
    }
    return 0;
}

/* Routing that is balanced sends, step by step, what plan.json says. */
static void test_a_run_keeps_its_plan(void **state)
{
    (void)state;
    cli_run_well(cli_ranks(), CLI_WORDS_OF("train", "c.yaml", "run_dir=kept", "moe.router=balanced",
                                           "data.valid=", "train.steps=3", "plan.cluster=m.yaml"));
    json_t *plan = json_load_file("kept/plan.json", 0, NULL);
    json_t *ledger = json_load_file("kept/ledger.json", 0, NULL);
    const json_t *planned = json_object_get(plan, "collectives");
    const json_t *counted = json_object_get(ledger, "collectives");
    assert_true((json_array_size(planned) > 0) == (cli_ranks() > 1));
    for (size_t i = 0; i < json_array_size(planned); i++) {
        const json_t *row = json_array_get(planned, i);
        const char *phase = json_string_value(json_object_get(row, "phase"));
        const char *group = json_string_value(json_object_get(row, "group"));
        if (strcmp(phase, "setup") != 0 && strcmp(group, "world") != 0) {
            assert_int_equal(3 * integer(row, "bytes"), bytes_of(row, counted));
        }
    }
    const json_t *memory = json_object_get(ledger, "memory");
    const json_t *weights = json_object_get(memory, "weights");
    assert_int_equal(integer(json_object_get(plan, "memory"), "weights"), integer(weights, "held"));
    assert_int_equal(integer(weights, "planned"), integer(weights, "peak"));
    const json_t *process = json_object_get(ledger, "process");
    assert_true(integer(process, "planned") > 0 && integer(process, "peak") > 0);
    (void)step_of(json_object_get(plan, "time"));
    json_decref(ledger);
    json_decref(plan);
    /* A cluster that is not there keeps no run from training. */
    struct process_result result =
        cli_run(cli_ranks(), CLI_WORDS_OF("train", "c.yaml", "run_dir=kept", "moe.router=balanced",
                                          "data.valid=", "train.steps=4", "plan.cluster=none"));
    assert_int_equal(cli_count(result.err, "no time is planned: none: cannot open"), 1);
    cli_expect_status(&result, 0);
    plan = json_load_file("kept/plan.json", 0, NULL);
    assert_true(json_is_null(json_object_get(plan, "time")));
    json_decref(plan);
}

/* Of 257 rows of the vocabulary the second of two tensor ranks has more; and `other` is named. */
static void test_the_largest_rank_is_named(void **state)
{
    (void)state;
    struct process_result result = cli_run(
        0, CLI_WORDS_OF("train", "c.yaml", "run_dir=large", "--ranks", "2", "parallel.tensor=2",
                        "model.vocab_size=257", "data.valid=", "train.steps=1"));
    const char *line = strstr(result.err, "\nmemory   ");
    assert_non_null(line);
    const char *end = strchr(line + 1, '\n');
    const char *rank = strstr(line, " MB a rank, the most on rank 1: weights ");
    const char *other = strstr(line, ", other ");
    assert_true(rank && rank < end && other && other < end);
    cli_expect_status(&result, 0);
}

/* That a model cannot be exported is known before it is trained. */
static void test_no_export_is_said(void **state)
{
    (void)state;
    static const char *const routers[] = {"moe.router=top_k", "moe.router=dense"};
    for (int i = 0; i < 2; i++) {
        struct process_result result =
            cli_run(0, CLI_WORDS_OF("train", "c.yaml", "run_dir=exported", "--fresh", routers[i],
                                    "moe.every=1", "data.valid=", "train.steps=1"));
        assert_int_equal(cli_count(result.err, "this model cannot be exported"), i);
        cli_expect_status(&result, 0);
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one),
        cmocka_unit_test(test_layouts),
        cmocka_unit_test(test_run_counts_the_same),
        cmocka_unit_test(test_times),
        cmocka_unit_test(test_untimed),
        cmocka_unit_test(test_a_run_keeps_its_plan),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_auto),
        cmocka_unit_test(test_calibrate),
        cmocka_unit_test(test_large),
        cmocka_unit_test(test_the_largest_rank_is_named),
        cmocka_unit_test(test_no_export_is_said),
    };
    cli_begin("plan", argc, argv);
    /* The last five have nothing to do with ranks. */
    size_t count = sizeof(tests) / sizeof(*tests) - (cli_ranks() > 0 ? 5 : 0);
    int failed = _cmocka_run_group_tests("plan", tests, count, NULL, NULL);
    cli_end();
    return failed;
}
