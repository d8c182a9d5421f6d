/* Quotas of processor time, read from trees that stand for those of machines and containers. */
#include "base/cgroup.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

enum { PATH = 256 };

static char root[PATH];

static void put(const char *path, const char *text)
{
    char whole[2 * PATH];
    (void)snprintf(whole, sizeof(whole), "%s%s", root, path);
    for (char *slash = strchr(whole + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        (void)mkdir(whole, 0755);
        *slash = '/';
    }
    FILE *file = fopen(whole, "w");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

static int begin(void **state)
{
    char command[2 * PATH];
    (void)state;
    (void)snprintf(root, sizeof(root), "%s/cgroup", TEST_TMP);
    (void)snprintf(command, sizeof(command), "rm -rf '%s'", root);
    return system(command);
}

static const char mounts2[] =
    "21 20 0:20 / /proc rw - proc proc rw\n"
    "30 20 0:27 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";
static const char mounts1[] =
    "31 30 0:28 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n"
    "32 30 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
    "33 30 0:30 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";

static void test_none(void **state)
{
    (void)state;
    assert_true(isinf(tri_cgroup_processors(root)));
    put("/proc/self/mountinfo", mounts2);
    put("/proc/self/cgroup", "0::/a\n");
    assert_true(isinf(tri_cgroup_processors(root)));
    put("/sys/fs/cgroup/a/cpu.max", "max 100000\n");
    assert_true(isinf(tri_cgroup_processors(root)));
}

static void test_version2(void **state)
{
    (void)state;
    put("/proc/self/mountinfo", mounts2);
    put("/proc/self/cgroup", "0::/slurm/job/step\n");
    put("/sys/fs/cgroup/slurm/job/step/cpu.max", "max 100000\n");
    put("/sys/fs/cgroup/slurm/job/cpu.max", "350000 100000\n");
    assert_true(tri_cgroup_processors(root) == 3.5);
    put("/sys/fs/cgroup/slurm/cpu.max", "50000 100000\n"); /* above it, and less */
    assert_true(tri_cgroup_processors(root) == 0.5);
    put("/sys/fs/cgroup/slurm/other/cpu.max", "10000 100000\n");
    assert_true(tri_cgroup_processors(root) == 0.5);
}

static void test_version1(void **state)
{
    (void)state;
    put("/proc/self/mountinfo", mounts1);
    put("/proc/self/cgroup", "4:cpuset:/x\n3:cpuacct,cpu:/user/job\n0::/y\n");
    put("/sys/fs/cgroup/cpu,cpuacct/user/job/cpu.cfs_quota_us", "-1\n");
    put("/sys/fs/cgroup/cpu,cpuacct/user/job/cpu.cfs_period_us", "100000\n");
    assert_true(isinf(tri_cgroup_processors(root)));
    put("/sys/fs/cgroup/cpu,cpuacct/user/job/cpu.cfs_quota_us", "150000\n");
    assert_true(tri_cgroup_processors(root) == 1.5);
    put("/sys/fs/cgroup/cpu,cpuacct/user/cpu.cfs_quota_us", "20000\n");
    put("/sys/fs/cgroup/cpu,cpuacct/user/cpu.cfs_period_us", "20000\n");
    assert_true(tri_cgroup_processors(root) == 1.0);
}

/* A container sees its own group as the top: by a name space, or by what is mounted. */
static void test_container(void **state)
{
    (void)state;
    put("/proc/self/mountinfo", mounts2);
    put("/proc/self/cgroup", "0::/\n");
    put("/sys/fs/cgroup/cpu.max", "200000 100000\n");
    assert_true(tri_cgroup_processors(root) == 2.0);
    put("/proc/self/mountinfo",
        "32 30 0:29 /docker/12 /sys/fs/cgroup/cpu ro - cgroup cgroup rw,cpu\n");
    put("/proc/self/cgroup", "3:cpu:/docker/12/inner\n");
    put("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "300000\n");
    put("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n");
    assert_true(tri_cgroup_processors(root) == 3.0);
    put("/proc/self/cgroup", "3:cpu:/docker/123\n"); /* only the name begins alike */
    assert_true(tri_cgroup_processors(root) == 3.0);
    put("/proc/self/cgroup", "3:cpu:/../elsewhere\n");
    assert_true(tri_cgroup_processors(root) == 3.0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_none, begin),
        cmocka_unit_test_setup(test_version2, begin),
        cmocka_unit_test_setup(test_version1, begin),
        cmocka_unit_test_setup(test_container, begin),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
