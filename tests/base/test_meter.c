/* Long work shows itself: what is said and when, on a clock of the test's, plainly and on a
 * terminal. */
#include "base/meter.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/runtime.h"
#include "base/work.h"

#include <fcntl.h>
#include <pty.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cmocka.h>

enum { TEXT = 1 << 12 };

static void take(void *state, const char *line)
{
    char *text = state;
    size_t used = strlen(text);
    (void)snprintf(text + used, TEXT - used, "%s", line);
}

/* A line each ten seconds, the first after ten; short work says nothing. */
static void test_plain(void **state)
{
    (void)state;
    char text[TEXT] = "";
    double now = 100.0;
    tri_log_set_sink(take, text);
    tri_clock_plan(&now);
    tri_meter_begin(TRI_METER_ROWS, 268, "evaluating %s", "own\nset");
    for (int second = 1; second <= 25; second++) {
        now += 1.0;
        tri_meter_add(TRI_METER_ROWS, 4);
        tri_meter_add(TRI_METER_BYTES, 1000); /* nobody counts these */
    }
    tri_meter_end();
    assert_string_equal(text, "evaluating own set   14 %  40 of 268 rows  4.0 rows/s  57s left\n"
                              "evaluating own set   29 %  80 of 268 rows  4.0 rows/s  47s left\n");
    text[0] = '\0';
    tri_meter_begin(TRI_METER_BYTES, 0, "reading");
    now += 20.0;
    tri_meter_add(TRI_METER_BYTES, 30000000);
    tri_meter_end();
    assert_string_equal(text, "reading  30.0 MB  1.5 MB/s\n");
    text[0] = '\0';
    tri_meter_begin(TRI_METER_BYTES, 1, "reading");
    now += 9.0;
    tri_meter_add(TRI_METER_BYTES, 1);
    tri_meter_end();
    assert_string_equal(text, "");
    /* Quiet is quiet; another rank is none that speaks. */
    tri_log_quiet(true);
    tri_meter_begin(TRI_METER_BYTES, 1, "reading");
    now += 90.0;
    tri_meter_add(TRI_METER_BYTES, 1);
    tri_meter_end();
    tri_log_quiet(false);
    tri_rank_set(1);
    tri_meter_begin(TRI_METER_BYTES, 1, "reading");
    now += 90.0;
    tri_meter_add(TRI_METER_BYTES, 1);
    tri_meter_end();
    tri_rank_set(0);
    assert_string_equal(text, "");
    tri_log_set_sink(NULL, NULL);
    tri_clock_plan(NULL);
}

/* Work within work is part of it: the outer one's line, and what both count in one unit adds up. */
static void test_nested(void **state)
{
    (void)state;
    char text[TEXT] = "";
    double now = 5.0;
    tri_log_set_sink(take, text);
    tri_clock_plan(&now);
    tri_meter_begin(TRI_METER_STEPS, 4, "verifying");
    tri_meter_begin(TRI_METER_ROWS, 10, "evaluating");
    now += 30.0;
    tri_meter_add(TRI_METER_ROWS, 10);
    tri_meter_end();
    tri_meter_add(TRI_METER_STEPS, 3);
    tri_meter_end();
    assert_string_equal(text, "verifying   75 %  3 of 4 steps  0.1 steps/s  10s left\n");
    tri_meter_add(TRI_METER_STEPS, 3);
    tri_log_set_sink(NULL, NULL);
    tri_clock_plan(NULL);
}

/* What the terminal was sent since the last time; it may take a moment to arrive. */
static void expect_sent(int terminal, const char *expected)
{
    char text[TEXT] = "";
    size_t used = 0;
    for (int i = 0; i < 5000 && (i == 0 || used < strlen(expected)); i++) {
        ssize_t got = read(terminal, text + used, sizeof(text) - 1 - used);
        used += got > 0 ? (size_t)got : 0;
        (void)usleep(got > 0 ? 0 : 1000);
    }
    if (strcmp(text, expected) != 0) {
        print_message("found '%s', expected '%s'\n", text, expected);
    }
    assert_true(strcmp(text, expected) == 0);
}

static void test_terminal(void **state)
{
    (void)state;
    int terminal, ours, before = dup(STDERR_FILENO);
    double now = 5.0;
    struct winsize size = {.ws_row = 24, .ws_col = 21};
    assert_int_equal(openpty(&terminal, &ours, NULL, NULL, &size), 0);
    assert_int_equal(fcntl(terminal, F_SETFL, O_NONBLOCK), 0);
    assert_true(dup2(ours, STDERR_FILENO) >= 0);
    tri_clock_plan(&now);
    tri_meter_begin(TRI_METER_STEPS, 4, "verifying");
    now += 0.25;
    tri_meter_add(TRI_METER_STEPS, 1);
    expect_sent(terminal, "");
    now += 0.5;
    tri_meter_add(TRI_METER_STEPS, 1);
    expect_sent(terminal, "\r\033[Kverifying   50 %  2 "); /* 20 cells */
    now += 0.05;
    tri_meter_add(TRI_METER_STEPS, 1);
    expect_sent(terminal, "");
    tri_log_warn("careful");
    expect_sent(terminal, "\r\033[Ktrident: warning: rank 0: careful\r\n");
    now += 0.2;
    tri_meter_add(TRI_METER_STEPS, 1);
    expect_sent(terminal, "\r\033[Kverifying  100 %  4 ");
    tri_meter_end();
    expect_sent(terminal, "\r\033[K");
    tri_live_show("\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9"
                  "\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9"
                  "xyz");
    tri_live_keep();
    expect_sent(terminal,
                "\r\033[K\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9"
                "\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9"
                "\xc3\xa9\r\n");
    /* A step's own line stands longer. */
    tri_meter_begin(TRI_METER_MICRO_BATCHES, 4, "step 7/9");
    now += 4.0;
    tri_meter_add(TRI_METER_MICRO_BATCHES, 1);
    expect_sent(terminal, "");
    now += 2.0;
    tri_meter_add(TRI_METER_MICRO_BATCHES, 1);
    expect_sent(terminal, "\r\033[Kstep 7/9   50 %  2 o");
    tri_meter_end();
    tri_clock_plan(NULL);
    assert_true(dup2(before, STDERR_FILENO) >= 0);
    (void)close(before);
    (void)close(ours);
    (void)close(terminal);
}

/* Who only hashes shows how far it is. */
static void test_hashing_counts(void **state)
{
    (void)state;
    enum { BYTES = 9 << 20 };
    void *block = tri_alloc(TRI_MEMORY_OTHER, BYTES);
    tri_meter_begin(TRI_METER_BYTES, 2 * BYTES, "checking");
    (void)tri_work_hash(block, BYTES);
    assert_int_equal(tri_runtime_get()->meter.done, BYTES);
    (void)tri_work_hash(block, BYTES);
    assert_int_equal(tri_runtime_get()->meter.done, 2 * BYTES);
    tri_meter_end();
    tri_free(block);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plain),
        cmocka_unit_test(test_nested),
        cmocka_unit_test(test_terminal),
        cmocka_unit_test(test_hashing_counts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
