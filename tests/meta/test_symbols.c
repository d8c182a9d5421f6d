/* What the libraries export begins with tri_: they can be linked into any program. */
#include "meta/rules.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <glob.h>
#include <string.h>

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
    glob_t libraries;
    assert_int_equal(glob(LIBRARIES, 0, NULL, &libraries), 0);
    for (size_t i = 0; i < libraries.gl_pathc; i++) {
        rules_check_symbols(NM, libraries.gl_pathv[i], &findings);
    }
    globfree(&libraries);
    if (findings.count > 0) {
        fail_msg("%d symbols without the prefix:\n%s", findings.count, findings.text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_planted_symbol_is_found),
        cmocka_unit_test(test_missing_library_is_found),
        cmocka_unit_test(test_libraries),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
