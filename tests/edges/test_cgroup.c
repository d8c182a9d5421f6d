/* Memory that is free is what an allocation can get: limits of planted control groups of both
 * versions, wherever the one that holds is. */
#include "base/cgroup.h"
#include "base/file.h"
#include "base/room.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static char root[512];

/* A file below the root, with its folders. */
static void plant(const char *path, const char *text)
{
    char whole[1024];
    struct tri_error error;
    (void)snprintf(whole, sizeof(whole), "%s%s", root, path);
    char *slash = strrchr(whole, '/');
    *slash = '\0';
    assert_int_equal(tri_file_make_dirs(whole, &error), TRI_OK);
    *slash = '/';
    assert_int_equal(tri_file_save(whole, text, strlen(text), &error), TRI_OK);
}

static void group(int version, const char *folder, const char *limit, const char *use,
                  const char *stat)
{
    char path[512];
    (void)snprintf(path, sizeof(path), "%s/%s", folder,
                   version == 1 ? "memory.limit_in_bytes" : "memory.max");
    plant(path, limit);
    (void)snprintf(path, sizeof(path), "%s/%s", folder,
                   version == 1 ? "memory.usage_in_bytes" : "memory.current");
    plant(path, use);
    (void)snprintf(path, sizeof(path), "%s/memory.stat", folder);
    plant(path, stat);
}

static int clear(void **state)
{
    (void)state;
    struct tri_error error;
    return tri_file_remove_tree(root, &error) == TRI_OK ? 0 : -1;
}

static const char mount2[] = "31 23 0:28 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw\n";

static void test_second(void **state)
{
    (void)state;
    plant("/proc/self/cgroup", "0::/slurm/job\n");
    plant("/proc/self/mountinfo", mount2);
    assert_true(tri_cgroup_room(root) == INT64_MAX);
    group(2, "/sys/fs/cgroup/slurm/job", "max\n", "5000\n", "inactive_file 10\n");
    assert_true(tri_cgroup_room(root) == INT64_MAX);
    group(2, "/sys/fs/cgroup/slurm", "9000\n", "6000\n", "anon 1\nfile 9\n");
    assert_int_equal(tri_cgroup_room(root), 3000);
    group(2, "/sys/fs/cgroup/slurm/job", "7000\n", "6500\n", "anon 1\n");
    assert_int_equal(tri_cgroup_room(root), 500);
    /* A run's own shards fill the group: they go when memory is asked for. */
    group(2, "/sys/fs/cgroup/slurm/job", "7000\n", "6500\n",
          "inactive_anon 77\ninactive_file 2000\nactive_file 100\n");
    assert_int_equal(tri_cgroup_room(root), 2500);
    group(2, "/sys/fs/cgroup/slurm/job", "7000\n", "7100\n", "inactive_file 0\n");
    assert_int_equal(tri_cgroup_room(root), 0);
}

/* Beyond memory.high nobody is killed, only slowed down: no limit, but a figure of its own. */
static void test_throttle(void **state)
{
    (void)state;
    plant("/proc/self/cgroup", "0::/slurm/job\n");
    plant("/proc/self/mountinfo", mount2);
    group(2, "/sys/fs/cgroup/slurm/job", "9000\n", "6000\n", "inactive_file 500\n");
    assert_true(tri_cgroup_fast_room(root) == INT64_MAX);
    assert_true(tri_room_before_throttle(root, 4).bytes == INT64_MAX);
    plant("/sys/fs/cgroup/slurm/job/memory.high", "max\n");
    assert_true(tri_cgroup_fast_room(root) == INT64_MAX);
    plant("/sys/fs/cgroup/slurm/job/memory.high", "7500\n");
    assert_int_equal(tri_cgroup_fast_room(root), 2000);
    assert_int_equal(tri_room_before_throttle(root, 4).bytes, 500);
    assert_int_equal(tri_cgroup_room(root), 3500);
    assert_string_equal(tri_room_of_machine(root).limit, "a control group");
    group(2, "/sys/fs/cgroup/slurm", "max\n", "8000\n", "inactive_file 0\n");
    plant("/sys/fs/cgroup/slurm/memory.high", "7000\n");
    assert_int_equal(tri_cgroup_fast_room(root), 0);
    assert_int_equal(tri_cgroup_room(root), 3500);
}

static void test_first(void **state)
{
    (void)state;
    plant("/proc/self/cgroup", "9:name=systemd:/\n4:cpu,memory:/job/step\n0::/\n");
    plant("/proc/self/mountinfo",
          "30 1 0:3 / /proc rw - proc proc rw\n"
          "32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpuacct\n"
          "35 31 0:32 / /sys/fs/cgroup/mem rw - cgroup cgroup rw,cpu,memory\n"
          "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n");
    group(1, "/sys/fs/cgroup/mem", "9223372036854771712\n", "900000\n", "total_inactive_file 0\n");
    group(1, "/sys/fs/cgroup/mem/job", "8000\n", "7000\n", "total_inactive_file 500\n");
    group(1, "/sys/fs/cgroup/mem/job/step", "9223372036854771712\n", "2000\n",
          "inactive_file 9000\nhierarchical_memory_limit 8000\ntotal_inactive_file 100\n");
    assert_int_equal(tri_cgroup_room(root), 1500);
    group(1, "/sys/fs/cgroup/mem/job/step", "2600\n", "2000\n",
          "hierarchical_memory_limit 2600\ntotal_inactive_file 100\n");
    assert_int_equal(tri_cgroup_room(root), 700);
    /* Hybrid: the other version's limit holds too. */
    group(2, "/sys/fs/cgroup/unified", "1000\n", "400\n", "inactive_file 0\n");
    assert_int_equal(tri_cgroup_room(root), 600);
}

/* What a container sees: its own group mounted as the top, the place told from outside or from
 * there; a limit above that only memory.stat tells of. */
static void test_container(void **state)
{
    (void)state;
    plant("/proc/self/cgroup", "4:memory:/docker/abc\n");
    plant("/proc/self/mountinfo",
          "35 31 0:32 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n");
    group(1, "/sys/fs/cgroup/memory", "9223372036854771712\n", "1000\n",
          "hierarchical_memory_limit 5000\ntotal_inactive_file 200\n");
    assert_int_equal(tri_cgroup_room(root), 4200);
    plant("/proc/self/cgroup", "4:memory:/docker/abc/inner\n");
    group(1, "/sys/fs/cgroup/memory/inner", "1500\n", "1000\n", "total_inactive_file 0\n");
    assert_int_equal(tri_cgroup_room(root), 500);
    plant("/proc/self/cgroup", "4:memory:/\n");
    assert_int_equal(tri_cgroup_room(root), 4200);
    plant("/proc/self/cgroup", "0::/../other\n");
    plant("/proc/self/mountinfo", mount2);
    group(2, "/sys/fs/cgroup", "3000\n", "1000\n", "inactive_file 0\n");
    assert_int_equal(tri_cgroup_room(root), 2000);
}

static void test_machine(void **state)
{
    (void)state;
    plant("/proc/meminfo", "MemTotal: 900 kB\nMemAvailable: 500 kB\nCommitLimit: 400 kB\n"
                           "Committed_AS: 300 kB\n");
    plant("/proc/sys/vm/overcommit_memory", "0\n");
    assert_int_equal(tri_room_of_machine(root).bytes, 500 * 1024);
    assert_string_equal(tri_room_of_machine(root).limit, "the machine's memory");
    plant("/proc/sys/vm/overcommit_memory", "2\n");
    assert_string_equal(tri_room_of_machine(root).limit, "vm.overcommit_memory=2");
    assert_int_equal(tri_room_of_machine(root).bytes, 100 * 1024);
    plant("/proc/self/cgroup", "0::/\n");
    plant("/proc/self/mountinfo", mount2);
    group(2, "/sys/fs/cgroup", "2000\n", "1000\n", "");
    assert_int_equal(tri_room_of_machine(root).bytes, 1000);
}

int main(void)
{
    (void)snprintf(root, sizeof(root), "%s/cgroup.%d", TEST_TMP, (int)getpid());
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_second, clear),
        cmocka_unit_test_teardown(test_throttle, clear),
        cmocka_unit_test_teardown(test_first, clear),
        cmocka_unit_test_teardown(test_container, clear),
        cmocka_unit_test_teardown(test_machine, clear),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
