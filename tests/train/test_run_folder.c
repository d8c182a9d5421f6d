/* A run folder that two starts want; a long run's metrics.jsonl, when the run goes on. */
#include "train/run_folder.h"
#include "train/run_look.h"

#include "base/file.h"
#include "base/file_hook.h"
#include "base/memory.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include <cmocka.h>

enum { STEPS = 20000, TORN = 15000 };

/* Lines of a hundred bytes; one of them may be torn, with the next one behind it. */
static long write_lines(const char *path, int steps, int torn)
{
    FILE *file = fopen(path, "we");
    assert_non_null(file);
    for (int i = 1; i <= steps; i++) {
        (void)fprintf(file, "{\"step\":%d,", i);
        if (i != torn) {
            (void)fprintf(file, "\"note\":\"%080d\"}\n", 0);
        }
    }
    long bytes = ftell(file);
    assert_int_equal(fclose(file), 0);
    return bytes;
}

static void expect_trimmed(struct tri_run_folder *folder, const char *path, long room, long bytes)
{
    struct tri_error error = {0};
    struct tri_mapping file;
    struct tri_memory_scope scope = tri_memory_scope_begin();
    assert_int_equal(tri_run_folder_trim_metrics(folder, STEPS - 2, &error), TRI_OK);
    struct tri_memory_counters used = tri_memory_scope_end(&scope);
    assert_true(used.peak[TRI_MEMORY_OTHER] < room);
    assert_int_equal(tri_file_map(path, &file, &error), TRI_OK);
    assert_int_equal(file.size, bytes);
    tri_file_unmap(&file);
}

/* It may be many gigabytes: none of it is held in memory. */
static void test_long_metrics(void **state)
{
    (void)state;
    char run[256], path[300];
    struct tri_error error = {0};
    struct tri_run_folder *folder;
    (void)snprintf(run, sizeof(run), TEST_TMP "/run_folder.%d", (int)getpid());
    (void)snprintf(path, sizeof(path), "%s/metrics.jsonl", run);
    assert_int_equal(tri_run_folder_open(run, false, &folder, &error), TRI_OK);
    long whole = write_lines(path, STEPS - 2, 0);
    long one = whole - write_lines(path, STEPS - 3, 0);
    expect_trimmed(folder, path, whole / 10, whole - one);
    assert_int_equal(write_lines(path, STEPS, 0), whole + 2 * one);
    expect_trimmed(folder, path, whole / 10, whole);
    (void)write_lines(path, STEPS, TORN);
    expect_trimmed(folder, path, whole / 10, whole - one);
    tri_run_folder_close(folder);
    assert_int_equal(tri_file_remove_tree(run, &error), TRI_OK);
}

/* A start that finds another one at work takes nothing of it back: here what that one tries. */
static void test_busy(void **state)
{
    (void)state;
    char run[256], path[300];
    struct tri_error error = {0};
    struct tri_run_folder *folder, *other;
    (void)snprintf(run, sizeof(run), TEST_TMP "/run_folder_busy.%d", (int)getpid());
    assert_int_equal(tri_run_folder_open(run, false, &folder, &error), TRI_OK);
    (void)snprintf(path, sizeof(path), "%s/checkpoints/trident.try", run);
    assert_int_equal(tri_file_make_dirs(path, &error), TRI_OK);
    assert_int_equal(tri_run_folder_open(run, false, &other, &error), TRI_FAILED);
    assert_non_null(strstr(error.message, "another job is working in this run folder"));
    assert_true(tri_file_exists(path));
    tri_run_folder_close(folder);
    assert_false(tri_file_exists(run));
}

/* Nothing is left of a start without a run, however the folder was named. */
static void test_taken_back(void **state)
{
    (void)state;
    static const char *const names[] = {"", "/", "/run", "//run/", "/./run", "/a/././run/."};
    for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
        char top[256], run[300];
        struct tri_error error = {0};
        struct tri_run_folder *folder;
        (void)snprintf(top, sizeof(top), TEST_TMP "/run_folder_back.%d", (int)getpid());
        (void)snprintf(run, sizeof(run), "%s%s", top, names[i]);
        assert_int_equal(tri_run_folder_open(run, false, &folder, &error), TRI_OK);
        assert_true(tri_file_exists(top));
        tri_run_folder_close(folder);
        assert_false(tri_file_exists(top));
    }
}

/* A start that was killed while it wrote its trace: the next one has another name. */
static void test_half_a_trace(void **state)
{
    (void)state;
    char run[256], whole[300], half[300];
    struct tri_error error = {0};
    struct tri_run_folder *folder;
    (void)snprintf(run, sizeof(run), TEST_TMP "/run_folder_trace.%d", (int)getpid());
    (void)snprintf(whole, sizeof(whole), "%s/trace-1-2.json", run);
    (void)snprintf(half, sizeof(half), "%s/trace-3-9.json.trident.tmp", run);
    assert_int_equal(tri_file_make_dirs(run, &error), TRI_OK);
    assert_int_equal(tri_file_save(whole, "{}", 2, &error), TRI_OK);
    assert_int_equal(tri_file_save(half, "{", 1, &error), TRI_OK);
    assert_int_equal(tri_run_folder_open(run, false, &folder, &error), TRI_OK);
    assert_true(tri_file_exists(whole));
    assert_false(tri_file_exists(half));
    tri_run_folder_close(folder);
    assert_int_equal(tri_file_remove_tree(run, &error), TRI_OK);
}

static struct {
    char folder[256];
    int lock; /* -1: nobody has begun */
} beginning = {.lock = -1};

/* A run begins between a look at its lock and one at its status. */
static int begin_meanwhile(const char *operation, const char *path, uint64_t done)
{
    (void)operation;
    (void)done;
    if (beginning.lock < 0 && strstr(path, "/status.json")) {
        beginning.lock = open(beginning.folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        assert_true(beginning.lock >= 0);
        assert_int_equal(flock(beginning.lock, LOCK_EX | LOCK_NB), 0);
    }
    return 0;
}

static void test_a_run_that_begins_is_not_dead(void **state)
{
    (void)state;
    static const char text[] = "{\"state\": \"running\", \"host\": \"\", \"step\": 1}";
    char path[300];
    struct tri_error error;
    struct tri_run_look look;
    (void)snprintf(beginning.folder, sizeof(beginning.folder), TEST_TMP "/run_begins.%d",
                   (int)getpid());
    (void)snprintf(path, sizeof(path), "%s/status.json", beginning.folder);
    assert_int_equal(tri_file_make_dirs(beginning.folder, &error), TRI_OK);
    assert_int_equal(tri_file_save(path, text, sizeof(text) - 1, &error), TRI_OK);
    tri_run_look(beginning.folder, &look);
    assert_int_equal(look.seen, TRI_SEEN_DIED);
    tri_file_set_hook(begin_meanwhile);
    tri_run_look(beginning.folder, &look);
    tri_file_set_hook(NULL);
    assert_int_equal(look.seen, TRI_SEEN_RUNNING);
    assert_int_equal(close(beginning.lock), 0);
    assert_int_equal(tri_file_remove_tree(beginning.folder, &error), TRI_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_busy), cmocka_unit_test(test_taken_back),
        cmocka_unit_test(test_half_a_trace), cmocka_unit_test(test_a_run_that_begins_is_not_dead),
        cmocka_unit_test(test_long_metrics)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
