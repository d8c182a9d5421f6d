/* How many threads a rank starts, who decides, and how long they spin while they wait. */
#include "cli/cli.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

/* A run's first lines name its threads. */
static void expect_threads(const char *changes, const char *option, const char *threads)
{
    const char *words[] = {"train",         "c.yaml", "--fresh", "run_dir=threads",
                           "train.steps=1", option,   NULL};
    struct process_result result =
        cli_run_with(cli_ranks(), changes ? CLI_WORDS_OF(changes) : NULL, words);
    if (!strstr(result.err, threads)) {
        fail_msg("%s, %s: not \"%s\" in %s%s", changes ? changes : "", option, threads, result.out,
                 result.err);
    }
    cli_expect_status(&result, 0);
}

static void test_who_decides(void **state)
{
    (void)state;
    expect_threads("OMP_NUM_THREADS=3", "threads=0", " 3 threads each");
    expect_threads("OMP_NUM_THREADS=2,5", "threads=0", " 2 threads each");
    expect_threads("OMP_NUM_THREADS=3", "threads=2", " 2 threads each");
}

/* trident behind a command that binds it, or puts it in a group. */
static void wrap(const char *command)
{
    char script[512];
    (void)snprintf(script, sizeof(script), "#!/bin/sh\nunset OMP_NUM_THREADS\n%s\nexec \"$@\"\n",
                   command);
    cli_write("wrapper", script);
    assert_int_equal(chmod("wrapper", 0755), 0);
    cli_set_wrapper("./wrapper");
}

static void test_affinity(void **state)
{
    (void)state;
    wrap("cpu=$(taskset -cp $$ | sed 's/.*: *//; s/[-,].*//')\ntaskset -cp $cpu $$ >&2");
    expect_threads(NULL, "threads=0", " 1 thread each");
    cli_set_wrapper(NULL);
}

/* Where this process may make groups with a quota; the machine's own files are what is tested. */
static void test_quota(void **state)
{
    char group[64];
    char command[256];
    (void)state;
    (void)snprintf(group, sizeof(group), "/sys/fs/cgroup/cpu/trident_test.%d", (int)getpid());
    if (mkdir(group, 0755) != 0) {
        return;
    }
    (void)snprintf(command, sizeof(command),
                   "echo 100000 >%s/cpu.cfs_quota_us && "
                   "echo $$ >%s/tasks",
                   group, group);
    wrap(command);
    expect_threads(NULL, "threads=0", " 1 thread each");
    cli_set_wrapper(NULL);
    for (int i = 0; i < 100 && rmdir(group) != 0; i++) {
        (void)usleep(100000);
    }
}

/* What libgomp has been told, by its own word. */
static void expect_spins(const char *change, const char *spins)
{
    const char *changes[] = {"OMP_DISPLAY_ENV=verbose", change, NULL};
    struct process_result result = cli_run_with(0, changes, CLI_WORDS_OF("--version"));
    char wanted[64];
    (void)snprintf(wanted, sizeof(wanted), "GOMP_SPINCOUNT = '%s'", spins);
    if (strstr(result.err, "GOMP_") && !strstr(result.err, wanted)) {
        fail_msg("%s: not \"%s\" in %s", change ? change : "", wanted, result.err);
    }
    cli_expect_status(&result, 0);
}

static void test_spinning(void **state)
{
    (void)state;
    expect_spins(NULL, "5000");
    expect_spins("GOMP_SPINCOUNT=123", "123");
    expect_spins("OMP_WAIT_POLICY=passive", "0");
    expect_spins("OMP_WAIT_POLICY=active", "30000000000");
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_who_decides),
        cmocka_unit_test(test_affinity),
        cmocka_unit_test(test_quota),
        cmocka_unit_test(test_spinning),
    };
    (void)unsetenv("OMP_WAIT_POLICY"); /* set where unit tests run under Valgrind */
    (void)unsetenv("GOMP_SPINCOUNT");
    cli_begin("threads", argc, argv);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    cli_end();
    return failed;
}
