/* Counted memory: categories and peaks, scopes, and large blocks and dry arenas that cost nothing
 * until they are touched. */
#include "base/arena.h"
#include "base/memory.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

enum { SMALL = 1000, LARGE = 3 << 20 };

static int64_t current(enum tri_memory category)
{
    return tri_memory_get().current[category];
}

/* Zeroed, aligned, counted to the byte, whichever way they are taken. */
static void test_blocks(void **state)
{
    (void)state;
    static const size_t sizes[] = {0, 1, SMALL, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, LARGE};
    for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
        unsigned char *block = tri_alloc(TRI_MEMORY_STASH, sizes[i]);
        assert_int_equal((uintptr_t)block % 64, 0);
        assert_int_equal(current(TRI_MEMORY_STASH), (int64_t)sizes[i]);
        for (size_t at = 0; at < sizes[i]; at++) {
            assert_int_equal(block[at], 0);
            block[at] = 0xa5;
        }
        tri_free(block);
        assert_int_equal(current(TRI_MEMORY_STASH), 0);
        assert_int_equal(tri_memory_get().peak[TRI_MEMORY_STASH], (int64_t)sizes[i]);
    }
}

/* Small or mapped, before and after: what fits stays, what is new is zero. */
static void test_resized(void **state)
{
    (void)state;
    static const size_t sizes[] = {1, SMALL, 0, 1 << 20, LARGE, (1 << 20) + 1, LARGE + 5, SMALL};
    unsigned char *block = tri_alloc(TRI_MEMORY_STASH, 0);
    for (size_t i = 0, old = 0; i < sizeof(sizes) / sizeof(*sizes); old = sizes[i++]) {
        block = tri_resize(block, sizes[i]);
        assert_int_equal((uintptr_t)block % 64, 0);
        assert_int_equal(current(TRI_MEMORY_STASH), (int64_t)sizes[i]);
        for (size_t at = 0; at < sizes[i]; at++) {
            assert_int_equal(block[at], at < old ? 0xa5 : 0);
            block[at] = 0xa5;
        }
    }
    tri_free(block);
    assert_int_equal(current(TRI_MEMORY_STASH), 0);
}

static void test_untouched(void **state)
{
    (void)state;
    const size_t huge = (size_t)1 << 34; /* Valgrind has room for no more than some 2^36 bytes */
    int64_t before = tri_memory_resident();
    char *block = tri_alloc(TRI_MEMORY_WEIGHTS, huge);
    struct tri_arena *arena = tri_arena_create(TRI_MEMORY_ACTIVATIONS, "dry", 0);
    char *activations = tri_arena_alloc(arena, huge);
    block[huge / 2] = 1;
    activations[huge / 2] = 1;
    assert_int_equal(block[huge / 3], 0);
    assert_int_equal(current(TRI_MEMORY_WEIGHTS), (int64_t)huge);
    assert_int_equal(current(TRI_MEMORY_ACTIVATIONS), (int64_t)huge);
#ifndef __SANITIZE_ADDRESS__
    assert_true(tri_memory_resident() - before < 8 << 20); /* what is touched may be huge pages */
#else
    (void)before;
#endif
    tri_arena_rewind(arena, 0);
    tri_arena_destroy(arena);
    tri_free(block);
    assert_int_equal(current(TRI_MEMORY_ACTIVATIONS), 0);
}

/* A block's header takes no huge page. */
static void test_many_untouched(void **state)
{
    (void)state;
    enum { BLOCKS = 64, BYTES = (32 << 20) - 64 }; /* with its header a whole number of them */
    char *blocks[BLOCKS];
    int64_t before = tri_memory_resident();
    for (int i = 0; i < BLOCKS; i++) {
        blocks[i] = tri_alloc(TRI_MEMORY_WEIGHTS, BYTES);
    }
#ifndef __SANITIZE_ADDRESS__
    assert_true(tri_memory_resident() - before < 4 << 20);
#else
    (void)before;
#endif
    for (int i = 0; i < BLOCKS; i++) {
        tri_free(blocks[i]);
    }
}

/* What is counted inside is not counted outside, and the other way round. */
static void test_scopes(void **state)
{
    (void)state;
    void *outer = tri_alloc(TRI_MEMORY_TILES, SMALL);
    struct tri_memory_counters before = tri_memory_get();
    struct tri_memory_scope scope = tri_memory_scope_begin();
    assert_int_equal(current(TRI_MEMORY_TILES), 0);
    void *inner = tri_alloc(TRI_MEMORY_TILES, LARGE);
    struct tri_memory_scope nested = tri_memory_scope_begin();
    tri_free(tri_alloc(TRI_MEMORY_BUFFERS, 2 * SMALL));
    struct tri_memory_counters innermost = tri_memory_scope_end(&nested);
    tri_free(inner);
    struct tri_memory_counters counted = tri_memory_scope_end(&scope);
    assert_int_equal(innermost.peak[TRI_MEMORY_BUFFERS], 2 * SMALL);
    assert_int_equal(innermost.peak[TRI_MEMORY_TILES], 0);
    assert_int_equal(counted.peak[TRI_MEMORY_TILES], LARGE);
    assert_int_equal(counted.peak[TRI_MEMORY_BUFFERS], 0);
    struct tri_memory_counters after = tri_memory_get();
    assert_memory_equal(after.current, before.current, sizeof(before.current));
    assert_memory_equal(after.peak, before.peak, sizeof(before.peak));
    assert_int_equal(after.calls, before.calls + 2);
    tri_free(outer);
}

/* The kernels' scratch outlives a scope: it is taken over. */
static void test_scope_keeps_kernels(void **state)
{
    (void)state;
    struct tri_memory_scope scope = tri_memory_scope_begin();
    void *scratch = tri_alloc(TRI_MEMORY_KERNELS, SMALL);
    (void)tri_memory_scope_end(&scope);
    assert_int_equal(current(TRI_MEMORY_KERNELS), SMALL);
    tri_free(scratch);
    assert_int_equal(current(TRI_MEMORY_KERNELS), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_blocks),    cmocka_unit_test(test_resized),
        cmocka_unit_test(test_untouched), cmocka_unit_test(test_many_untouched),
        cmocka_unit_test(test_scopes),    cmocka_unit_test(test_scope_keeps_kernels),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
