/* Which table runs: the widest, or the one that TRIDENT_KERNELS names. The choice is made once a
 * process, so each case has one of its own. */
#include "kernel/x86/x86.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

enum { AS_WANTED = 0, OTHER = 40 };

/* In the child: exits with AS_WANTED when the table's name begins as `prefix`. */
static _Noreturn void child(const char *wanted, const char *prefix)
{
    if (wanted) {
        setenv("TRIDENT_KERNELS", wanted, 1);
    } else {
        unsetenv("TRIDENT_KERNELS");
    }
    const char *name = tri_kernels_fast()->name;
    bool same =
        strncmp(name, prefix, strlen(prefix)) == 0 && strstr(tri_kernels_describe(false), ": ");
    _exit(same ? AS_WANTED : OTHER);
}

static int exit_status(const char *wanted, const char *prefix)
{
    int status = 0;
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        child(wanted, prefix);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void test_named(void **state)
{
    (void)state;
    assert_int_equal(exit_status("ref", "ref"), AS_WANTED);
    assert_int_equal(exit_status("x86-64", "x86-64"), AS_WANTED);
    if (__builtin_cpu_supports("avx2")) {
        assert_int_equal(exit_status("avx2", "avx2"), AS_WANTED);
        assert_int_equal(exit_status("avx2", "x86-64"), OTHER);
    }
}

static void test_refused(void **state)
{
    (void)state;
    assert_int_equal(exit_status("sparc", ""), 2);
}

static void test_widest(void **state)
{
    (void)state;
    const char *widest = __builtin_cpu_supports("avx2") ? "a" : "x86-64"; /* avx2, avx512, amx */
    assert_int_equal(exit_status(NULL, widest), AS_WANTED);
    assert_string_equal(tri_x86_table(TRI_ISA_X86_64)->name, "x86-64");
}

/* No table has a hole. */
static void test_whole(void **state)
{
    (void)state;
    const struct tri_kernels *tables[2 + TRI_ISA_COUNT] = {tri_kernels_ref(), tri_kernels_dry()};
    for (int isa = 0; isa < TRI_ISA_COUNT; isa++) {
        tables[2 + isa] = tri_x86_table((enum tri_isa)isa);
    }
    for (int i = 0; i < 2 + TRI_ISA_COUNT; i++) {
        for (size_t at = 0; tables[i] && at < sizeof(*tables[i]); at += sizeof(void *)) {
            void *entry;
            memcpy(&entry, (const char *)tables[i] + at, sizeof(entry));
            assert_non_null(entry);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_named),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_widest),
        cmocka_unit_test(test_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
