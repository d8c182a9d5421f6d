/* The folder of checkpoints: what is kept and found, and what is left when a save fails or is
 * killed. */
#include "checkpoint/checkpoint.h"
#include "checkpoint/fixture.h"

#include "base/file.h"
#include "base/file_hook.h"

#include <inttypes.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

static char run[256];
static struct tri_mesh *mesh;
static struct tri_config config;
static struct tri_params *saved; /* with the optimizer; never changed */

static char *in_run(const char *name)
{
    static char path[4][600];
    static int next;
    char *to = path[next++ % 4];
    (void)snprintf(to, 600, "%s/%s", run, name);
    return to;
}

static void save_step(int64_t step, int64_t keep_last)
{
    struct tri_checkpoint_state state = fixture_state(step);
    struct tri_error error;
    if (tri_checkpoint_save(run, saved, &state, keep_last, &error) != TRI_OK) {
        fail_msg("%s", error.message);
    }
}

static int fresh(void **state)
{
    (void)state;
    struct tri_error error;
    (void)unsetenv("TRIDENT_FILE_FAULT");
    return tri_file_remove_tree(in_run("checkpoints"), &error) == TRI_OK ? 0 : -1;
}

static void expect_steps(int count, const int64_t *steps)
{
    for (int64_t step = 0; step < 12; step++) {
        char name[64];
        bool expected = false;
        for (int i = 0; i < count; i++) {
            expected |= steps[i] == step;
        }
        (void)snprintf(name, sizeof(name), "checkpoints/step_%" PRId64, step);
        assert_int_equal(tri_file_exists(in_run(name)), expected);
        (void)snprintf(name, sizeof(name), "checkpoints/step_%" PRId64 ".trident.tmp", step);
        assert_false(tri_file_exists(in_run(name)));
    }
}

static void test_keep_last(void **state)
{
    (void)state;
    static const int64_t two[] = {3, 10}, one[] = {11}, lower[] = {7, 11};
    for (int64_t step = 1; step < 4; step++) {
        save_step(step, 2);
    }
    save_step(10, 2);
    expect_steps(2, two);
    save_step(11, 1);
    expect_steps(1, one);
    save_step(7, 1); /* newer ones are not this save's to remove */
    expect_steps(2, lower);
}

static void test_finding(void **state)
{
    (void)state;
    struct tri_checkpoint_choice choice = {.moments = true};
    bool found = true;
    struct tri_error error;
    assert_int_equal(tri_checkpoint_latest(run, &choice, &found, &error), TRI_OK);
    assert_false(found);
    assert_int_equal(tri_checkpoint_resolve(in_run("nothing"), &choice, &error), TRI_BAD_INPUT);
    assert_int_equal(tri_file_make_dirs(in_run("checkpoints"), &error), TRI_OK);
    assert_int_equal(tri_checkpoint_resolve(run, &choice, &error), TRI_BAD_INPUT);
    assert_non_null(strstr(error.message, "no checkpoint yet"));
    save_step(9, 0);
    save_step(10, 0);
    assert_int_equal(tri_file_make_dirs(in_run("checkpoints/step_11.trident.tmp"), &error), TRI_OK);
    assert_int_equal(tri_file_make_dirs(in_run("checkpoints/step_012"), &error), TRI_OK);
    assert_int_equal(tri_checkpoint_latest(run, &choice, &found, &error), TRI_OK);
    assert_true(found);
    assert_string_equal(choice.path, in_run("checkpoints/step_10"));
    assert_int_equal(tri_checkpoint_resolve(run, &choice, &error), TRI_OK);
    assert_string_equal(choice.path, in_run("checkpoints/step_10"));
    assert_int_equal(tri_checkpoint_resolve(in_run("checkpoints/step_9"), &choice, &error), TRI_OK);
    assert_string_equal(choice.path, in_run("checkpoints/step_9"));
    assert_int_equal(tri_checkpoint_resolve(TESTDATA_DIR "/golden/llama", &choice, &error),
                     TRI_BAD_INPUT);
    assert_non_null(strstr(error.message, "trident import"));
    assert_int_equal(
        tri_checkpoint_resolve(in_run("checkpoints/step_9/state.json"), &choice, &error),
        TRI_BAD_INPUT);
}

/* A folder that can be read in part alone: the newest of that part would be taken for the newest,
 * or a run begun anew. */
static void test_unreadable(void **state)
{
    (void)state;
    struct tri_checkpoint_choice choice = {0};
    bool found = true;
    struct tri_error error = {0};
    save_step(3, 0);
    assert_int_equal(setenv("TRIDENT_FILE_FAULT", "list:EIO:checkpoints", 1), 0);
    assert_int_equal(tri_checkpoint_latest(run, &choice, &found, &error), TRI_BAD_INPUT);
    assert_int_equal(unsetenv("TRIDENT_FILE_FAULT"), 0);
    assert_false(found);
    assert_non_null(strstr(error.message, "checkpoints: cannot list: Input/output error"));
}

/* ---- failures while saving ------------------------------------------------------------------- */

static void fail_save(const char *fault, enum tri_status expected)
{
    struct tri_checkpoint_state s = fixture_state(8);
    struct tri_error error = {0};
    assert_int_equal(setenv("TRIDENT_FILE_FAULT", fault, 1), 0);
    assert_int_equal(tri_checkpoint_save(run, saved, &s, 1, &error), expected);
    assert_int_equal(unsetenv("TRIDENT_FILE_FAULT"), 0);
    assert_true(strlen(error.message) > 0);
}

static void test_disk_full(void **state)
{
    (void)state;
    static const char *const faults[] = {
        "write:ENOSPC:model-00001:20000",   "write:ENOSPC:optimizer-00001:9000",
        "write:ENOSPC:state.json",          "write:ENOSPC:manifest.json",
        "sync:EIO:manifest.json",           "rename:EIO:state.json",
        "rename:ENOSPC:checkpoints/step_8", "open:EACCES:step_8",
    };
    static const int64_t before[] = {7}, after[] = {8};
    struct tri_checkpoint_info info;
    struct tri_error error;
    save_step(7, 1);
    for (size_t i = 0; i < sizeof(faults) / sizeof(*faults); i++) {
        fail_save(faults[i], TRI_FAILED);
        expect_steps(1, before);
        assert_int_equal(tri_checkpoint_inspect(in_run("checkpoints/step_7"), &info, &error),
                         TRI_OK);
        tri_checkpoint_info_fini(&info);
    }
    save_step(8, 1);
    expect_steps(1, after);
    /* The same step again: the old one stays until the new one is whole. */
    fail_save("rename:ENOSPC:checkpoints/step_8", TRI_FAILED);
    expect_steps(1, after);
    fail_save("write:ENOSPC:manifest.json", TRI_FAILED);
    expect_steps(1, after);
    assert_int_equal(tri_checkpoint_inspect(in_run("checkpoints/step_8"), &info, &error), TRI_OK);
    tri_checkpoint_info_fini(&info);
    save_step(8, 1);
    expect_steps(1, after);
    assert_false(tri_file_exists(in_run("checkpoints/step_8.old.trident.tmp")));
}

/* What a kill may leave, at each point of a save. */
static void test_leftovers(void **state)
{
    (void)state;
    static const int64_t good[] = {5};
    struct tri_checkpoint_info info;
    struct tri_error error;
    save_step(5, 0);
    assert_int_equal(tri_file_make_dirs(in_run("checkpoints/step_6.trident.tmp/x"), &error),
                     TRI_OK);
    assert_int_equal(tri_file_make_dirs(in_run("checkpoints/notes.tmp"), &error), TRI_OK);
    assert_int_equal(tri_file_make_dirs(in_run("checkpoints/step_5.tmp/mine"), &error), TRI_OK);
    assert_int_equal(tri_checkpoint_clean(run, &error), TRI_OK);
    expect_steps(1, good);
    assert_true(tri_file_exists(in_run("checkpoints/notes.tmp")));
    assert_true(tri_file_exists(in_run("checkpoints/step_5.tmp/mine")));
    /* Killed between the two renames that replace a checkpoint. */
    assert_int_equal(
        rename(in_run("checkpoints/step_5"), in_run("checkpoints/step_5.old.trident.tmp")), 0);
    assert_int_equal(tri_file_make_dirs(in_run("checkpoints/step_5.trident.tmp"), &error), TRI_OK);
    assert_int_equal(tri_checkpoint_clean(run, &error), TRI_OK);
    expect_steps(1, good);
    assert_int_equal(tri_checkpoint_inspect(in_run("checkpoints/step_5"), &info, &error), TRI_OK);
    tri_checkpoint_info_fini(&info);
    /* Killed before the old one was removed. */
    assert_int_equal(tri_file_make_dirs(in_run("checkpoints/step_5.old.trident.tmp"), &error),
                     TRI_OK);
    assert_int_equal(tri_checkpoint_clean(run, &error), TRI_OK);
    assert_false(tri_file_exists(in_run("checkpoints/step_5.old.trident.tmp")));
    expect_steps(1, good);
}

/* Saves until it dies. */
static _Noreturn void save_forever(void)
{
    struct tri_error error;
    for (int64_t step = 2;; step++) {
        struct tri_checkpoint_state s = fixture_state(step % 7);
        if (tri_checkpoint_save(run, saved, &s, 2, &error) != TRI_OK) {
            _exit(1);
        }
    }
}

/* Killed at whatever moment: the newest checkpoint is whole, and a start finds it. */
static void test_kill(void **state)
{
    (void)state;
    save_step(1, 0);
    for (int round = 0; round < 12; round++) {
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) {
            save_forever();
        }
        struct timespec time = {0, 1000000L + 2718281L * round};
        assert_int_equal(nanosleep(&time, NULL), 0);
        int end;
        assert_int_equal(kill(child, SIGKILL), 0);
        assert_int_equal(waitpid(child, &end, 0), child);
        assert_true(WIFSIGNALED(end));
        struct tri_checkpoint_choice choice = {0};
        bool found;
        struct tri_checkpoint_info info;
        struct tri_error error;
        assert_int_equal(tri_checkpoint_clean(run, &error), TRI_OK);
        assert_int_equal(tri_checkpoint_latest(run, &choice, &found, &error), TRI_OK);
        assert_true(found);
        if (tri_checkpoint_inspect(choice.path, &info, &error) != TRI_OK) {
            fail_msg("%s", error.message);
        }
        tri_checkpoint_info_fini(&info);
    }
}

/* What happens to the folder of a step and to that of all, as letters. */
static char order[64];

static int watch(const char *operation, const char *path, uint64_t done)
{
    (void)done;
    const char *name = strrchr(path, '/');
    size_t used = strlen(order);
    char letter = '\0';
    if (strcmp(operation, "syncdir") == 0) {
        letter = strcmp(name, "/checkpoints") == 0 ? 'a' : 's';
    } else if (strcmp(operation, "rename") == 0 && strcmp(name, "/step_5") == 0) {
        letter = 'r';
    }
    if (letter && used + 1 < sizeof(order)) {
        order[used] = letter;
    }
    return 0;
}

/* A checkpoint is synced before it gets its name, and its name after. Runs last: the hook is gone
 * then. */
static void test_order(void **state)
{
    (void)state;
    tri_file_set_hook(watch);
    save_step(5, 0);
    tri_file_set_hook(NULL);
    const char *renamed = strchr(order, 'r');
    assert_non_null(renamed);
    assert_true(renamed > order && renamed[-1] == 's');
    assert_string_equal(renamed, "ra");
}

static int set_up(void **state)
{
    (void)state;
    mesh = tri_mesh_create_serial();
    config = fixture_config(TRI_PRECISION_F32);
    saved = fixture_params(&config, mesh, true);
    fixture_dir("checkpoint_folder", run);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    tri_params_destroy(saved);
    tri_mesh_destroy(mesh);
    fixture_remove(run);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_keep_last, fresh),
        cmocka_unit_test_setup(test_finding, fresh),
        cmocka_unit_test_setup(test_unreadable, fresh),
        cmocka_unit_test_setup(test_disk_full, fresh),
        cmocka_unit_test_setup(test_leftovers, fresh),
        cmocka_unit_test_setup(test_kill, fresh),
        cmocka_unit_test_setup(test_order, fresh),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
