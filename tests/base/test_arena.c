/* Arenas where address space is limited: there may be many, as each takes what it uses. */
#include "base/arena.h"
#include "base/memory.h"

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

enum { ARENAS = 40, BYTES = 3 << 20 };

/* Of this process, whose addresses are then limited for good. */
static int take_many(void)
{
    struct tri_arena *arena[ARENAS];
    char *block[ARENAS];
    rlim_t limit = (rlim_t)tri_memory_statm(0) + ((rlim_t)1 << 30);
    if (setrlimit(RLIMIT_AS, &(struct rlimit){limit, limit}) != 0) {
        return 1;
    }
    for (int i = 0; i < ARENAS; i++) {
        arena[i] = tri_arena_create(TRI_MEMORY_ACTIVATIONS, "one of many", (size_t)1 << 40);
        block[i] = tri_arena_alloc(arena[i], BYTES);
        memset(block[i], i, BYTES);
    }
    bool good = tri_memory_get().current[TRI_MEMORY_ACTIVATIONS] == (int64_t)ARENAS * BYTES;
    for (int i = 0; i < ARENAS; i++) {
        good = good && block[i][0] == i && block[i][BYTES - 1] == i;
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

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_limited)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
