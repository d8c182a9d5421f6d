/* Two runtimes in two threads of one process do not see each other: each counts its own memory,
 * logs to its own sink under its own rank, panics by its own hooks and gives its own signs of
 * work. */
#include "base/runtime.h"
#include "kernel/kernel.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { RANKS = 2, ROUNDS = 200, KEPT = 1000, LINES = 4096 };

/* What one thread did and saw; asserted on when it has ended, for cmocka knows of one thread. */
struct rank {
    int number;
    pthread_barrier_t *together;
    struct tri_runtime *runtime;
    char lines[LINES];
    struct tri_memory_counters counters;
    struct tri_work work;
    int fault;
    void *block; /* outlives its thread */
};

static void collect(void *state, const char *line)
{
    char *lines = state;
    size_t used = strlen(lines);
    (void)snprintf(lines + used, LINES - used, "%s", line);
}

static int fail_to_open(const char *operation, const char *path, uint64_t done)
{
    (void)path;
    (void)done;
    return strcmp(operation, "open") == 0 ? EIO : 0;
}

static void *work(void *state)
{
    struct rank *rank = state;
    tri_runtime_bind(rank->runtime);
    tri_log_set_sink(collect, rank->lines);
    tri_work_attach(&rank->work);
    tri_file_set_hook(rank->number == 1 ? fail_to_open : NULL);
    (void)pthread_barrier_wait(rank->together);
    rank->block = tri_alloc(TRI_MEMORY_STASH, KEPT);
    for (int i = 0; i < ROUNDS; i++) {
        /* Rank 1 takes twice as much, at the same time. */
        void *block = tri_alloc(TRI_MEMORY_TILES, (size_t)(rank->number + 1) * KEPT);
        tri_work_progress();
        tri_free(block);
    }
    tri_log_info("information");
    tri_log_warn("warning");
    tri_log_quiet(rank->number == 0);
    tri_log_info("more");
    rank->fault = tri_file_fault("open", "x", 0);
    rank->counters = tri_memory_get();
    (void)pthread_barrier_wait(rank->together);
    tri_runtime_bind(NULL);
    return NULL;
}

static void run(struct rank ranks[RANKS])
{
    pthread_t thread[RANKS];
    pthread_barrier_t together;
    assert_int_equal(pthread_barrier_init(&together, NULL, RANKS), 0);
    for (int r = 0; r < RANKS; r++) {
        ranks[r] =
            (struct rank){.number = r, .together = &together, .runtime = tri_runtime_create(r)};
        assert_int_equal(pthread_create(&thread[r], NULL, work, &ranks[r]), 0);
    }
    for (int r = 0; r < RANKS; r++) {
        assert_int_equal(pthread_join(thread[r], NULL), 0);
    }
    (void)pthread_barrier_destroy(&together);
}

static void test_apart(void **state)
{
    (void)state;
    static struct rank ranks[RANKS];
    struct tri_memory_counters before = tri_memory_get();
    run(ranks);
    struct tri_memory_counters after = tri_memory_get();
    assert_memory_equal(&before, &after, sizeof(before)); /* nor does the default one see them */
    assert_int_equal(tri_rank_get(), 0);
    for (int r = 0; r < RANKS; r++) {
        const struct tri_memory_counters *counted = &ranks[r].counters;
        assert_int_equal(counted->current[TRI_MEMORY_STASH], KEPT);
        assert_int_equal(counted->peak[TRI_MEMORY_TILES], (r + 1) * KEPT);
        assert_int_equal(counted->current[TRI_MEMORY_TILES], 0);
        assert_int_equal(counted->calls, ROUNDS + 1);
        assert_int_equal(ranks[r].work.done, ROUNDS);
        assert_int_equal(ranks[r].fault, r == 1 ? EIO : 0);
        tri_runtime_destroy(ranks[r].runtime);
        tri_free(ranks[r].block); /* from another thread, after its runtime */
    }
    assert_string_equal(ranks[0].lines, "information\ntrident: warning: rank 0: warning\n");
    assert_string_equal(ranks[1].lines, "trident: warning: rank 1: warning\n");
    after = tri_memory_get();
    assert_memory_equal(&before, &after, sizeof(before));
}

static void take_and_free(void *state, int64_t begin, int64_t end)
{
    (void)state;
    for (int64_t i = begin; i < end; i++) {
        tri_free(tri_alloc(TRI_MEMORY_TILES, KEPT));
    }
}

static void *work_with_helpers(void *state)
{
    struct rank *rank = state;
    tri_runtime_bind(rank->runtime);
    struct tri_kernels *kernels = tri_kernels_create(TRI_KERNELS_FAST, NULL, RANKS + 1);
    int64_t before = tri_memory_get().calls;
    const struct tri_loop_args loop = {.n = RANKS + 1, .piece = 1, .run = take_and_free};
    kernels->loop(kernels, &loop);
    /* A library's smaller team: libgomp ends the other threads. */
    int team = 0;
#pragma omp parallel num_threads(2) reduction(+ : team)
    team++;
    assert_int_equal(team, 2);
    kernels->loop(kernels, &loop);
    rank->counters = tri_memory_get();
    rank->counters.calls -= before;
    tri_kernels_destroy(kernels);
    return NULL;
}

/* OpenMP's threads work for the runtime of the thread that they help. */
static void test_helpers(void **state)
{
    (void)state;
    struct rank rank = {.runtime = tri_runtime_create(0)};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, work_with_helpers, &rank), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(rank.counters.calls, 2 * (RANKS + 1));
    tri_runtime_destroy(rank.runtime);
}

static bool silent(void *state)
{
    (void)state;
    return false;
}

static void end_as_9(void *state, int exit_status)
{
    (void)state;
    (void)exit_status;
    _exit(9);
}

static void *panic(void *state)
{
    struct rank *rank = state;
    tri_runtime_bind(rank->runtime);
    if (rank->number == 0) {
        tri_panic_set_hooks(silent, end_as_9, NULL);
        (void)pthread_barrier_wait(rank->together);
        for (;;) {
            (void)pause();
        }
    }
    (void)pthread_barrier_wait(rank->together);
    tri_panic(TRI_FAILED, "one %s", "fails");
}

/* The hooks of rank 0, which would say nothing and exit with 9, are not rank 1's. */
static void test_panic(void **state)
{
    (void)state;
    int ends[2];
    char text[128] = "";
    assert_int_equal(pipe(ends), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        (void)dup2(ends[1], STDERR_FILENO);
        pthread_t thread[RANKS];
        pthread_barrier_t together;
        struct rank ranks[RANKS];
        (void)pthread_barrier_init(&together, NULL, RANKS);
        for (int r = 0; r < RANKS; r++) {
            ranks[r] =
                (struct rank){.number = r, .together = &together, .runtime = tri_runtime_create(r)};
            (void)pthread_create(&thread[r], NULL, panic, &ranks[r]);
        }
        for (;;) {
            (void)pause();
        }
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == TRI_FAILED);
    (void)close(ends[1]);
    assert_true(read(ends[0], text, sizeof(text) - 1) > 0);
    assert_string_equal(text, "trident: error: rank 1: one fails\n");
    (void)close(ends[0]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_apart),
        cmocka_unit_test(test_helpers),
        cmocka_unit_test(test_panic),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
