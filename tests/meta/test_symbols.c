/* What the libraries export begins with tri_ or trident_: they can be linked into any program. And
 * what they remember outside of all objects is listed. */
#include "meta/rules.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int libraries_count;
static char **libraries; /* named on the command line */

static void test_planted_symbol_is_found(void **state)
{
    (void)state;
    struct findings findings = {0};
    rules_check_symbols(NM, PLANTED_LIBRARY, &findings);
    assert_int_equal(findings.count, 2);
    assert_non_null(strstr(findings.text, "exports planted_function"));
    assert_non_null(strstr(findings.text, "exports planted_variable"));
}

static void test_missing_library_is_found(void **state)
{
    (void)state;
    struct findings findings = {0};
    rules_check_symbols(NM, TEST_TMP "/no_such_library.a", &findings);
    assert_int_equal(findings.count, 1);
}

static void test_libraries(void **state)
{
    (void)state;
    struct findings findings = {0};
    assert_true(libraries_count > 0);
    for (int i = 0; i < libraries_count; i++) {
        rules_check_symbols(NM, libraries[i], &findings);
    }
    if (findings.count > 0) {
        fail_msg("%d symbols without the prefix:\n%s", findings.count, findings.text);
    }
}

static const char state_list[] = TRIDENT_SOURCE_DIR "/docs/architecture.md";

static void test_planted_state_is_found(void **state)
{
    (void)state;
    struct findings findings = {0};
    char *library = (char *)(uintptr_t)PLANTED_LIBRARY;
    static const char path[] = TEST_TMP "/state.md";
    FILE *file = fopen(path, "we");
    assert_non_null(file);
    (void)fputs("| file | variables | why |\n| `meta_planted/planted.c` | `calls`, `gone` | |\n",
                file);
    (void)fclose(file);
    rules_check_state(OBJDUMP, 1, &library, path, &findings);
    assert_int_equal(findings.count, 4);
    assert_non_null(strstr(findings.text, "meta_planted/planted.c is listed without a reason"));
    assert_non_null(strstr(findings.text, "gone need not be listed"));
    assert_non_null(strstr(findings.text, "the variable planted_variable outlives"));
    assert_non_null(strstr(findings.text, "the variable planted_own outlives"));
}

static void test_state(void **state)
{
    (void)state;
    struct findings findings = {0};
    rules_check_state(OBJDUMP, libraries_count, libraries, state_list, &findings);
    if (findings.count > 0) {
        fail_msg("%d variables differ from the list in docs/architecture.md:\n%s", findings.count,
                 findings.text);
    }
}

/* Whether the file holds these bytes. */
static bool holds(const char *path, const char *bytes)
{
    FILE *file = fopen(path, "rbe");
    assert_non_null(file);
    assert_int_equal(fseek(file, 0, SEEK_END), 0);
    long size = ftell(file);
    assert_true(size > 0);
    rewind(file);
    char *all = malloc((size_t)size);
    assert_non_null(all);
    assert_int_equal(fread(all, 1, (size_t)size, file), (size_t)size);
    bool found = memmem(all, (size_t)size, bytes, strlen(bytes)) != NULL;
    free(all);
    (void)fclose(file);
    return found;
}

/* What makes files fail is in the tests' twin of the program alone. */
static void test_program_has_no_faults(void **state)
{
    (void)state;
    assert_true(holds(TRIDENT_BIN "/trident", "TRIDENT_KERNELS"));
    assert_true(holds(TRIDENT_FAULTS_BIN "/trident", "TRIDENT_FILE_FAULT"));
    assert_false(holds(TRIDENT_BIN "/trident", "_FAULT"));
}

int main(int argc, char **argv)
{
    libraries_count = argc - 1;
    libraries = argv + 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_planted_symbol_is_found),
        cmocka_unit_test(test_missing_library_is_found),
        cmocka_unit_test(test_libraries),
        cmocka_unit_test(test_planted_state_is_found),
        cmocka_unit_test(test_state),
        cmocka_unit_test(test_program_has_no_faults),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
