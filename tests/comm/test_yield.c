/* A thread that yields a core which others take sleeps; the yield is what the MPI library calls. */
#include <dlfcn.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

static double seconds(void)
{
    struct timespec time;
    (void)clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

/* How many of a hundred yields were sleeps. */
static long sleeps(void)
{
    struct rusage before, after;
    assert_int_equal(getrusage(RUSAGE_THREAD, &before), 0);
    for (int i = 0; i < 100; i++) {
        assert_int_equal(sched_yield(), 0);
    }
    assert_int_equal(getrusage(RUSAGE_THREAD, &after), 0);
    return after.ru_nvcsw - before.ru_nvcsw;
}

static void test_shared_core(void **state)
{
    (void)state;
    cpu_set_t all, one;
    assert_int_equal(sched_getaffinity(0, sizeof(all), &all), 0);
    CPU_ZERO(&one);
    for (size_t i = 0; i < CPU_SETSIZE && CPU_COUNT(&one) == 0; i++) {
        if (CPU_ISSET(i, &all)) {
            CPU_SET(i, &one);
        }
    }
    assert_int_equal(sched_setaffinity(0, sizeof(one), &one), 0);
    pid_t busy = fork();
    assert_true(busy >= 0);
    if (busy == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        for (;;) {
            (void)seconds();
        }
    }
    double until = seconds() + 20.0;
    long most = 0;
    while (most < 20 && seconds() < until) {
        long some = sleeps();
        most = some > most ? some : most;
    }
    assert_int_equal(kill(busy, SIGKILL), 0);
    assert_int_equal(waitpid(busy, NULL, 0), busy);
    assert_int_equal(sched_setaffinity(0, sizeof(all), &all), 0);
    assert_true(most >= 20);
}

static void test_whose(void **state)
{
    (void)state;
    void *mpi = dlsym(RTLD_DEFAULT, "sched_yield");
    Dl_info info;
    assert_non_null(mpi);
    assert_true(dladdr(mpi, &info) != 0);
    assert_null(strstr(info.dli_fname, "libc.so"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shared_core),
        cmocka_unit_test(test_whose),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
