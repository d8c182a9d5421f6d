#include "kernel/pair.h"

#include "base/memory.h"
#include "base/random.h"
#include "kernel/ref/ref.h"
#include "kernel/x86/x86.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

enum { GUARD = 128, PATTERN = 0xa5 };

static size_t bytes_of(const struct pair *pair)
{
    return (size_t)pair->count * tri_dtype_size(pair->dtype);
}

static size_t offset_of(const struct pair *pair)
{
    return GUARD + tri_dtype_size(pair->dtype);
}

struct pair pair_create(enum tri_dtype dtype, int64_t count, double size)
{
    static uint64_t seed;
    seed++;
    struct pair pair = {.dtype = dtype, .count = count};
    size_t all = bytes_of(&pair) + offset_of(&pair) + GUARD;
    for (int side = 0; side < 2; side++) {
        pair.blocks[side] = tri_alloc(TRI_MEMORY_OTHER, all);
        memset(pair.blocks[side], PATTERN, all);
    }
    pair.fast = pair.blocks[0] + offset_of(&pair);
    pair.ref = pair.blocks[1] + offset_of(&pair);
    for (int64_t i = 0; i < count; i++) {
        pair_set(&pair, i, size * (2.0 * tri_random_uniform(seed, 0, (uint64_t)i) - 1.0));
    }
    return pair;
}

double pair_get(const struct pair *pair, int64_t index)
{
    return ref_get(pair->ref, index, pair->dtype);
}

void pair_set(struct pair *pair, int64_t index, double value)
{
    ref_set(pair->fast, index, pair->dtype, value);
    ref_set(pair->ref, index, pair->dtype, value);
}

static void check_guards(const struct pair *pair, const char *what)
{
    size_t begin = offset_of(pair);
    size_t end = begin + bytes_of(pair);
    for (size_t i = 0; i < end + GUARD; i++) {
        if ((i < begin || i >= end) && pair->blocks[0][i] != PATTERN) {
            fail_msg("%s: wrote at byte %td of %zu", what, (ptrdiff_t)i - (ptrdiff_t)begin,
                     bytes_of(pair));
        }
    }
}

static bool close_enough(double got, double want, double relative, double absolute)
{
    if (isnan(want) || isnan(got)) {
        return isnan(want) && isnan(got);
    }
    if (isinf(want) || isinf(got)) {
        return want == got;
    }
    return fabs(got - want) <= relative * fabs(want) + absolute;
}

void pair_end(struct pair *pair, const char *what, double ulps, double absolute)
{
    check_guards(pair, what);
    bool exact = ulps == 0.0 && absolute == 0.0;
    if (exact && memcmp(pair->fast, pair->ref, bytes_of(pair)) != 0) {
        fail_msg("%s: not the same bits", what);
    }
    double relative = ulps * 0x1p-23 + (pair->dtype == TRI_BF16 ? 0x1p-7 : 0.0);
    for (int64_t i = 0; i < pair->count && !exact; i++) {
        double got = ref_get(pair->fast, i, pair->dtype);
        double want = pair_get(pair, i);
        if (!close_enough(got, want, relative, absolute)) {
            fail_msg("%s[%lld of %lld]: %.9g, reference %.9g", what, (long long)i,
                     (long long)pair->count, got, want);
        }
    }
    tri_free(pair->blocks[0]);
    tri_free(pair->blocks[1]);
}

const struct tri_kernels *pair_kernels(int path, int threads)
{
    enum { MOST = 4 };
    static struct tri_kernels *kept[TRI_ISA_COUNT + 1][MOST + 1];
    assert_in_range(threads, 1, MOST);
    struct tri_kernels **kernels = &kept[path][threads];
    if (!*kernels) {
        const char *name = path < TRI_ISA_COUNT ? tri_x86_name((enum tri_isa)path) : NULL;
        *kernels = tri_kernels_create(TRI_KERNELS_FAST, name, threads);
    }
    return *kernels;
}

const struct tri_kernels *pair_mixed(int threads)
{
    const struct tri_kernels *kernels = pair_kernels(TRI_ISA_COUNT, threads);
    return kernels->reproducible ? NULL : kernels;
}

const struct tri_kernels *pair_threads(const struct tri_kernels *kernels, int threads)
{
    int path = kernels->reproducible ? 0 : TRI_ISA_COUNT;
    while (path < TRI_ISA_COUNT && strcmp(kernels->name, tri_x86_name((enum tri_isa)path)) != 0) {
        path++;
    }
    return pair_kernels(path, threads);
}

void pair_each_table(pair_check check)
{
    int tables = 0;
    for (int isa = 0; isa < TRI_ISA_COUNT; isa++) {
        if (tri_x86_can_run((enum tri_isa)isa)) {
            const struct tri_kernels *kernels = pair_kernels(isa, 2);
            print_message("%s\n", kernels->name);
            check(kernels, TRI_F32);
            check(kernels, TRI_BF16);
            tables++;
        }
    }
    assert_true(tables > 0);
}

void pair_each_product_table(pair_check check)
{
    const struct tri_kernels *mixed = pair_mixed(2);
    pair_each_table(check);
    if (mixed) {
        print_message("%s with oneDNN\n", mixed->name);
        check(mixed, TRI_F32);
        check(mixed, TRI_BF16);
    }
}

int pair_run(const struct CMUnitTest *tests, size_t count, int argc, char **argv)
{
    bool found = argc < 2;
    for (size_t i = 0; i < count; i++) {
        found = found || strcmp(tests[i].name, argv[1]) == 0;
    }
    if (!found) {
        print_error("no test is named %s\n", argv[1]);
        return 1;
    }
    if (argc > 1) {
        cmocka_set_test_filter(argv[1]);
    }
    return _cmocka_run_group_tests("kernel", tests, count, NULL, NULL);
}

/* Copies all outputs, one after another, out of or into their fast sides. */
static void copy_outputs(struct pair *const *outputs, int count, char *copy, bool back)
{
    for (int i = 0; i < count; i++) {
        size_t bytes = bytes_of(outputs[i]);
        memcpy(back ? outputs[i]->fast : copy, back ? copy : outputs[i]->fast, bytes);
        copy += bytes;
    }
}

void pair_same_on_threads(const struct tri_kernels *fast, struct pair *const *outputs, int count,
                          void (*call)(const struct tri_kernels *fast, void *context),
                          void *context)
{
    size_t bytes = 0;
    for (int i = 0; i < count; i++) {
        bytes += bytes_of(outputs[i]);
    }
    char *before = tri_alloc(TRI_MEMORY_OTHER, 3 * bytes);
    copy_outputs(outputs, count, before, false);
    call(pair_threads(fast, 1), context);
    copy_outputs(outputs, count, before + bytes, false);
    copy_outputs(outputs, count, before, true);
    call(pair_threads(fast, 3), context);
    copy_outputs(outputs, count, before + 2 * bytes, false);
    assert_memory_equal(before + bytes, before + 2 * bytes, bytes);
    tri_free(before);
}
