/* Many arenas at once, of ranks that share a process: where address space is limited each takes
 * what it uses, else all of them share what there is. */
#include "base/arena.h"
#include "base/memory.h"
#include "base/runtime.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

enum { ARENAS = 80, BYTES = 3 << 20, LAST = 64 << 20 };

/* Of this process, whose addresses are then limited for good. */
static int take_many(void)
{
    struct tri_arena *arena[ARENAS];
    char *block[ARENAS];
    rlim_t limit = (rlim_t)tri_memory_statm(0) + ((rlim_t)1 << 30) + LAST;
    if (setrlimit(RLIMIT_AS, &(struct rlimit){limit, limit}) != 0) {
        return 1;
    }
    for (int i = 0; i < ARENAS; i++) {
        arena[i] = tri_arena_create(TRI_MEMORY_ACTIVATIONS, "one of many", (size_t)1 << 40);
        block[i] = tri_arena_alloc(arena[i], BYTES);
        block[i][0] = (char)i;
    }
    bool good = tri_memory_get().current[TRI_MEMORY_ACTIVATIONS] == (int64_t)ARENAS * BYTES;
    /* None stands in the way of another that grows. */
    for (int i = 0; i < 4; i++) {
        memset(tri_arena_alloc(arena[i * 20], LAST / 4), 1, LAST / 4);
    }
    for (int i = 0; i < ARENAS; i++) {
        good = good && block[i][0] == (char)i;
        tri_arena_destroy(arena[i]);
    }
    return good && tri_memory_get().current[TRI_MEMORY_ACTIVATIONS] == 0 ? 0 : 1;
}

static void test_limited(void **state)
{
    (void)state;
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        _exit(take_many());
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

/* Each of 64 ranks rehearses: two arenas that only count. The machine's memory goes into each. */
static void test_dry(void **state)
{
    enum { RANKS = 64 };
    static struct tri_arena *arena[2 * RANKS];
    const size_t large = (size_t)1 << 38;
    (void)state;
    tri_runtime_set_ranks(tri_runtime_get(), RANKS);
    for (int i = 0; i < 2 * RANKS; i++) {
        arena[i] = tri_arena_create(TRI_MEMORY_ACTIVATIONS, "dry", 0);
        assert_non_null(tri_arena_alloc(arena[i], large));
    }
    tri_free(tri_alloc(TRI_MEMORY_OTHER, large)); /* and addresses are left */
    for (int i = 0; i < 2 * RANKS; i++) {
        tri_arena_destroy(arena[i]);
    }
    tri_runtime_set_ranks(tri_runtime_get(), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_limited), cmocka_unit_test(test_dry)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
