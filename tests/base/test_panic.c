/* A panic ends the process in seconds whatever became of standard error and of what it calls. */
#include "base/clock.h"
#include "base/signals.h"
#include "base/status.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { SECONDS = 30 };

static void hang(void *state, int exit_status)
{
    (void)state;
    (void)exit_status;
    for (;;) {
        (void)pause();
    }
}

static bool silent(void *state)
{
    (void)state;
    return false;
}

/* The panic of a process whose standard error is `err`; its exit status, or 128 and the signal. */
static int run_panic(int err, tri_panic_speaker speaker, tri_panic_hook hook)
{
    double began = tri_clock_now();
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        (void)dup2(err, STDERR_FILENO);
        tri_signals_start(false);
        tri_panic_set_hooks(speaker, hook, NULL);
        tri_panic(TRI_FAILED, "nothing\nworks");
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(tri_clock_now() - began < SECONDS);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static void test_line(void **state)
{
    (void)state;
    char text[128] = "";
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    assert_int_equal(run_panic(ends[1], NULL, NULL), TRI_FAILED);
    assert_true(read(ends[0], text, sizeof(text) - 1) > 0);
    assert_string_equal(text, "trident: error: rank 0: nothing works\n");
    assert_int_equal(run_panic(ends[1], silent, NULL), TRI_FAILED);
    (void)close(ends[1]);
    assert_int_equal(read(ends[0], text, sizeof(text)), 0);
    (void)close(ends[0]);
}

static void test_full_pipe(void **state)
{
    (void)state;
    char block[4096];
    int ends[2];
    memset(block, 'x', sizeof(block));
    assert_int_equal(pipe(ends), 0);
    assert_int_equal(fcntl(ends[1], F_SETFL, O_NONBLOCK), 0);
    while (write(ends[1], block, sizeof(block)) > 0) {
    }
    assert_int_equal(fcntl(ends[1], F_SETFL, 0), 0);
    assert_int_equal(run_panic(ends[1], NULL, NULL), TRI_FAILED);
    (void)close(ends[0]);
    (void)close(ends[1]);
}

static void test_closed_pipe(void **state)
{
    (void)state;
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    (void)close(ends[0]);
    assert_int_equal(run_panic(ends[1], NULL, NULL), TRI_FAILED);
    (void)close(ends[1]);
}

static void test_hanging_end(void **state)
{
    (void)state;
    int null = open("/dev/null", O_WRONLY);
    assert_true(null >= 0);
    assert_int_equal(run_panic(null, NULL, hang), TRI_FAILED);
    (void)close(null);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_line),
        cmocka_unit_test(test_full_pipe),
        cmocka_unit_test(test_closed_pipe),
        cmocka_unit_test(test_hanging_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
