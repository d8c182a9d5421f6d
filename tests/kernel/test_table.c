/* Which functions run: the widest, or those that are named. */
#include "kernel/note.h"
#include "kernel/pair.h"
#include "kernel/x86/x86.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

static void expect(enum tri_kernels_kind kind, const char *path, const char *name)
{
    char text[TRI_KERNELS_TEXT];
    char whole[TRI_KERNELS_TEXT];
    struct tri_kernels *kernels = tri_kernels_create(kind, path, 3);
    assert_string_equal(kernels->name, name);
    assert_int_equal(kernels->threads, kind == TRI_KERNELS_DRY ? 1 : 3);
    tri_kernels_path(path, kernels->reproducible, text);
    assert_null(strchr(text, ':'));
    tri_kernels_describe(path, kernels->reproducible, whole);
    assert_string_equal(strrchr(whole, ':') + 2, text);
    assert_true(path == NULL || kernels->reproducible);
    tri_kernels_destroy(kernels);
}

static void test_named(void **state)
{
    (void)state;
    struct tri_error error;
    expect(TRI_KERNELS_FAST, "ref", "ref");
    expect(TRI_KERNELS_REPRODUCIBLE, "ref", "ref");
    expect(TRI_KERNELS_DRY, "ref", "dry");
    expect(TRI_KERNELS_DRY, NULL, "dry");
    for (int isa = 0; isa < TRI_ISA_COUNT; isa++) {
        const char *name = tri_x86_name((enum tri_isa)isa);
        if (tri_x86_can_run((enum tri_isa)isa)) {
            assert_int_equal(tri_kernels_check(name, &error), TRI_OK);
            expect(TRI_KERNELS_FAST, name, name);
            expect(TRI_KERNELS_REPRODUCIBLE, name, name);
        } else {
            assert_int_equal(tri_kernels_check(name, &error), TRI_BAD_INPUT);
        }
    }
}

static void test_refused(void **state)
{
    (void)state;
    struct tri_error error;
    assert_int_equal(tri_kernels_check("sparc", &error), TRI_BAD_INPUT);
    assert_non_null(strstr(error.message, "TRIDENT_KERNELS=sparc"));
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        (void)freopen("/dev/null", "w", stderr);
        tri_kernels_destroy(tri_kernels_create(TRI_KERNELS_FAST, "sparc", 1));
        _exit(0);
    }
    int status = 0;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 2);
}

static void test_widest(void **state)
{
    (void)state;
    enum tri_isa widest = TRI_ISA_COUNT - 1;
    while (!tri_x86_can_run(widest)) {
        widest--;
    }
    expect(TRI_KERNELS_FAST, NULL, tri_x86_name(widest));
    expect(TRI_KERNELS_REPRODUCIBLE, NULL, tri_x86_name(widest));
    struct tri_kernels *kernels = tri_kernels_create(TRI_KERNELS_REPRODUCIBLE, NULL, 1);
    assert_true(kernels->reproducible);
    tri_kernels_destroy(kernels);
}

/* No table has a hole. */
static void check_whole(const struct tri_kernels *kernels)
{
    for (size_t at = offsetof(struct tri_kernels, matmul); at < sizeof(*kernels);
         at += sizeof(void *)) {
        void *entry;
        memcpy(&entry, (const char *)kernels + at, sizeof(entry));
        assert_non_null(entry);
    }
}

static void check_fast(const struct tri_kernels *fast, enum tri_dtype dt)
{
    (void)dt;
    check_whole(fast);
}

static void test_whole(void **state)
{
    (void)state;
    struct tri_kernels *dry = tri_kernels_create(TRI_KERNELS_DRY, NULL, 1);
    check_whole(tri_kernels_ref());
    check_whole(dry);
    pair_each_product_table(check_fast);
    tri_kernels_destroy(dry);
}

/* ---- timed ----------------------------------------------------------------------------------- */

static void hear(void *state, const struct tri_kernel_note *note)
{
    struct tri_kernel_note *last = state;
    assert_true(note->seconds >= 0.0 && note->busy >= 0.0);
    *last = *note;
}

static void ignore_head(void *state, bool begins)
{
    (void)state;
    (void)begins;
}

/* Every call goes through the table around, gives what it gave, and is told as a plan's is. */
static void test_timed(void **state)
{
    (void)state;
    enum { M = 24, N = 40, K = 16 };
    float a[M * K], b[K * N], plain[M * N], timed_c[M * N];
    struct tri_kernel_note planned = {0};
    struct tri_kernel_note heard = {0};
    const struct tri_kernel_listener plan = {hear, ignore_head, &planned};
    const struct tri_kernel_listener run = {hear, ignore_head, &heard};
    struct tri_kernels *kernels = tri_kernels_create(TRI_KERNELS_FAST, NULL, 1);
    struct tri_kernels *timed = tri_kernels_create_timed(kernels, &run);
    struct tri_kernels *dry = tri_kernels_create(TRI_KERNELS_DRY, NULL, 1);
    for (size_t at = offsetof(struct tri_kernels, matmul); at < sizeof(*timed);
         at += sizeof(void *)) {
        assert_memory_not_equal((const char *)timed + at, (const char *)kernels + at,
                                sizeof(void *));
    }
    for (int i = 0; i < M * K; i++) {
        a[i] = (float)(i % 7) - 3.0F;
    }
    for (int i = 0; i < K * N; i++) {
        b[i] = (float)(i % 5) - 2.0F;
    }
    struct tri_matmul product = {.m = M,
                                 .n = N,
                                 .k = K,
                                 .a = a,
                                 .b = b,
                                 .c = plain,
                                 .lda = K,
                                 .ldb = N,
                                 .ldc = N,
                                 .ab_dtype = TRI_F32,
                                 .c_dtype = TRI_F32};
    kernels->matmul(kernels, &product);
    product.c = timed_c;
    timed->matmul(timed, &product);
    assert_memory_equal(plain, timed_c, sizeof(plain));
    tri_kernels_listen(dry, &plan);
    dry->matmul(dry, &product);
    assert_int_equal(heard.work, planned.work);
    assert_true(heard.flops == planned.flops && heard.bytes == planned.bytes);
    assert_true(heard.flops == 2.0 * M * N * K && heard.seconds > 0.0);
    /* what is no call of the table */
    tri_kernels_start(timed);
    tri_kernels_tell(timed, TRI_TASK_ROUTER, TRI_F32, 12.0);
    assert_true(heard.work == TRI_TASK_ROUTER && heard.bytes == 12.0 && heard.seconds < 1.0);
    heard = (struct tri_kernel_note){0};
    tri_kernels_start(kernels);
    tri_kernels_tell(kernels, TRI_TASK_ROUTER, TRI_F32, 12.0);
    assert_true(heard.bytes == 0.0);
    tri_kernels_destroy(dry);
    tri_kernels_destroy(timed);
    tri_kernels_destroy(kernels);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_named), cmocka_unit_test(test_refused), cmocka_unit_test(test_widest),
        cmocka_unit_test(test_whole), cmocka_unit_test(test_timed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
