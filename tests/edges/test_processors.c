/* The program on processors without AVX-512, without AVX2, without AVX: an emulator stands for
 * them. (None emulates AVX-512; that table is tested where a processor has it.) */
#include "cli/cli.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

static const struct processor {
    const char *name, *table;
} processors[] = {{"qemu64", "x86-64"}, {"Haswell,-avx2", "x86-64"}, {"Haswell", "avx2"}};
enum { PROCESSORS = sizeof(processors) / sizeof(*processors) };

/* From now on trident runs on this processor; NULL: on the one that is here. The emulator walks
 * over every page that is reserved, so a plan may not reserve terabytes. */
static void run_on(const char *processor)
{
    char script[256];
    if (processor) {
        (void)snprintf(script, sizeof(script),
                       "#!/bin/sh\nulimit -v 67108864\nexec " EMULATOR " -cpu %s \"$@\"\n",
                       processor);
        cli_write("emulator", script);
        assert_int_equal(chmod("emulator", 0755), 0);
    }
    cli_set_wrapper(processor ? "./emulator" : NULL);
}

static double last_loss(const char *run)
{
    json_t *metrics = cli_metrics(run);
    double loss = 0.0;
    for (size_t i = 0; i < json_array_size(metrics); i++) {
        const json_t *found = json_object_get(json_array_get(metrics, i), "loss");
        loss = found ? json_number_value(found) : loss;
    }
    json_decref(metrics);
    return loss;
}

/* Two steps; the loss of the second. */
static double train(const char *precision)
{
    char option[64];
    (void)snprintf(option, sizeof(option), "precision=%s", precision);
    cli_run_well(
        0, CLI_WORDS_OF("train", "c.yaml", "--fresh", "run_dir=emulated", "train.steps=2", option));
    return last_loss("emulated");
}

static void test_version(void **state)
{
    (void)state;
    for (int i = 0; i < PROCESSORS; i++) {
        char wanted[64];
        run_on(processors[i].name);
        struct process_result result = cli_run(0, CLI_WORDS_OF("--version"));
        (void)snprintf(wanted, sizeof(wanted), ": %s", processors[i].table);
        assert_non_null(strstr(result.out, wanted));
        cli_expect_status(&result, 0);
    }
    run_on(NULL);
}

static void test_refused(void **state)
{
    (void)state;
    for (int i = 0; i < PROCESSORS; i++) {
        run_on(processors[i].name);
        struct process_result result =
            cli_run_with(0, CLI_WORDS_OF("TRIDENT_KERNELS=avx512"), CLI_WORDS_OF("--version"));
        assert_non_null(strstr(result.err, "not on this processor"));
        cli_expect_status(&result, 2);
    }
    run_on(NULL);
}

static void test_train(void **state)
{
    (void)state;
    double f32 = train("f32");
    double bf16 = train("bf16");
    for (int i = 0; i < PROCESSORS; i++) {
        run_on(processors[i].name);
        double loss = train("f32");
        assert_true(fabs(loss - f32) <= 1e-5 * f32);
    }
    run_on(processors[0].name);
    double loss = train("bf16");
    assert_true(fabs(loss - bf16) <= 1e-3 * bf16);
    run_on(NULL);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_version),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_train),
    };
    cli_begin("processors", argc, argv);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    cli_end();
    return failed;
}
