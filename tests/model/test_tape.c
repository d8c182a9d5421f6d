/* The tape hands back what was recorded, call by call, and refuses what was not. */
#include "model/tape.h"

#include "base/memory.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

enum { BLOCKS = 3, RESERVE = 1 << 20 };

static void *take(struct tri_tape *tape, enum tri_stash what, size_t bytes, bool expected)
{
    bool filled = !expected;
    void *block = tri_tape_take(tape, what, bytes, &filled);
    assert_int_equal(filled, expected);
    return block;
}

static void record_block(struct tri_tape *tape, int64_t block, char *first[2])
{
    tri_tape_record(tape, block);
    first[0] = take(tape, TRI_STASH_ROUTING, 100, false);
    char *more = tri_tape_room(tape, TRI_STASH_ROUTING, 50);
    first[1] = take(tape, TRI_STASH_RESULT, 0, false);
    memset(first[0], (int)block + 1, 100);
    memset(more, (int)block + 1, 50);
    memcpy(first[0], &more, sizeof(more));
    tri_tape_stop(tape);
}

static void test_hands_back(void **state)
{
    (void)state;
    struct tri_tape *tape = tri_tape_create(BLOCKS, true, RESERVE);
    for (int micro_batch = 0; micro_batch < 3; micro_batch++) {
        char *first[BLOCKS][2];
        for (int64_t b = 0; b < BLOCKS; b++) {
            record_block(tape, b, first[b]);
            assert_null(take(tape, TRI_STASH_ROUTING, 8, false)); /* back in RUN */
        }
        for (int64_t b = BLOCKS - 1; b >= 0; b--) {
            char *more;
            tri_tape_replay(tape, b);
            char *again = take(tape, TRI_STASH_ROUTING, 100, true);
            assert_ptr_equal(again, first[b][0]);
            assert_int_equal(again[99], b + 1);
            memcpy(&more, again, sizeof(more));
            assert_int_equal(more[49], b + 1);
            assert_ptr_equal(take(tape, TRI_STASH_RESULT, 0, true), first[b][1]);
            tri_tape_stop(tape);
            tri_tape_forget(tape, b);
        }
    }
    /* What was forgotten made room: the stash never held more than one micro-batch. */
    int64_t peak = tri_memory_get().peak[TRI_MEMORY_STASH];
    assert_true(peak >= BLOCKS * 150 && peak < 2 * BLOCKS * (100 + 50 + 4 * 64));
    tri_tape_destroy(tape);
    assert_int_equal(tri_memory_get().current[TRI_MEMORY_STASH], 0);
}

static void test_without_results(void **state)
{
    (void)state;
    struct tri_tape *tape = tri_tape_create(1, false, RESERVE);
    tri_tape_record(tape, 0);
    assert_null(take(tape, TRI_STASH_RESULT, 40, false));
    assert_non_null(take(tape, TRI_STASH_ROUTING, 40, false));
    tri_tape_stop(tape);
    tri_tape_replay(tape, 0);
    assert_null(take(tape, TRI_STASH_RESULT, 40, false));
    assert_non_null(take(tape, TRI_STASH_ROUTING, 40, true));
    tri_tape_stop(tape);
    tri_tape_forget(tape, 0);
    tri_tape_destroy(tape);
}

/* A micro-batch whose backward does not come leaves nothing. */
static void test_clear(void **state)
{
    (void)state;
    char *first[2];
    char *again[2];
    struct tri_tape *tape = tri_tape_create(BLOCKS, true, RESERVE);
    record_block(tape, 0, first);
    record_block(tape, 2, again);
    tri_tape_clear(tape);
    record_block(tape, 0, again);
    assert_ptr_equal(first[0], again[0]);
    tri_tape_destroy(tape);
}

/* ---- what is refused ------------------------------------------------------------------------- */

static void never_recorded(struct tri_tape *tape)
{
    tri_tape_replay(tape, 2);
}

static void other_size(struct tri_tape *tape)
{
    bool filled;
    tri_tape_replay(tape, 0);
    (void)tri_tape_take(tape, TRI_STASH_ROUTING, 101, &filled);
}

static void one_call_too_many(struct tri_tape *tape)
{
    bool filled;
    tri_tape_replay(tape, 0);
    (void)tri_tape_take(tape, TRI_STASH_ROUTING, 100, &filled);
    (void)tri_tape_take(tape, TRI_STASH_RESULT, 0, &filled);
    (void)tri_tape_take(tape, TRI_STASH_RESULT, 0, &filled);
}

static void one_call_too_few(struct tri_tape *tape)
{
    bool filled;
    tri_tape_replay(tape, 0);
    (void)tri_tape_take(tape, TRI_STASH_ROUTING, 100, &filled);
    tri_tape_stop(tape);
}

static void out_of_order(struct tri_tape *tape)
{
    tri_tape_forget(tape, 0);
}

static void recorded_twice(struct tri_tape *tape)
{
    tri_tape_record(tape, 0);
}

static void test_refusals(void **state)
{
    static void (*const wrong[])(struct tri_tape *) = {
        never_recorded,   other_size,   one_call_too_many,
        one_call_too_few, out_of_order, recorded_twice,
    };
    (void)state;
    for (size_t i = 0; i < sizeof(wrong) / sizeof(*wrong); i++) {
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) {
            char *first[2];
            struct tri_tape *tape = tri_tape_create(BLOCKS, true, RESERVE);
            record_block(tape, 0, first);
            record_block(tape, 1, first);
            (void)!freopen("/dev/null", "w", stderr);
            wrong[i](tape);
            _exit(0);
        }
        int status = 0;
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFEXITED(status) ? WEXITSTATUS(status) != 0 : WIFSIGNALED(status));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hands_back),
        cmocka_unit_test(test_without_results),
        cmocka_unit_test(test_clear),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
