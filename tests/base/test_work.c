/* Signs of life: hashing gives them, and calls on files say which file it is. */
#include "base/work.h"

#include "base/memory.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <xxhash.h>

#include <cmocka.h>

/* One sign for all of a large file would be too few. */
static void test_hash(void **state)
{
    (void)state;
    enum { BYTES = 48 << 20, OFTEN = 24 << 20 };
    struct tri_work work = {0};
    void *data = tri_alloc(TRI_MEMORY_OTHER, BYTES + 1);
    tri_work_attach(&work);
    uint64_t hash = tri_work_hash(data, BYTES + 1);
    tri_work_attach(NULL);
    assert_true(work.done >= BYTES / OFTEN);
    assert_true(hash == XXH3_64bits(data, BYTES + 1));
    tri_free(data);
}

static void test_files(void **state)
{
    (void)state;
    struct tri_work work = {0};
    char path[2 * TRI_WORK_FILE] = "";
    memset(path, 'a', sizeof(path) - 1);
    path[sizeof(path) - 2] = 'z';
    tri_work_attach(&work);
    tri_work_file_begin(path);
    assert_true(work.file_since > 0);
    assert_int_equal(strlen(work.file), TRI_WORK_FILE - 1);
    assert_int_equal(work.file[TRI_WORK_FILE - 2], 'z');
    tri_work_file_end();
    assert_true(work.file_since == 0);
    assert_true(work.done == 1);
    tri_work_file_begin("short");
    assert_string_equal(work.file, "short");
    tri_work_file_end();
    tri_work_attach(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hash),
        cmocka_unit_test(test_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
