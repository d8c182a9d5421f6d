/* Each rule of the source tree finds a planted breach, passes its lawful twin, and passes on the
 * tree itself. */
#include "meta/rules.h"

#include "base/file.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char planted_root[1024];

/* An empty tree of its own for each test. */
static int planted_begin(void **state)
{
    (void)state;
    snprintf(planted_root, sizeof(planted_root), TEST_TMP "/rules.XXXXXX");
    return mkdtemp(planted_root) ? 0 : -1;
}

static int planted_end(void **state)
{
    (void)state;
    struct tri_error error;
    return tri_file_remove_tree(planted_root, &error) == TRI_OK ? 0 : -1;
}

static void plant(const char *path, const char *text)
{
    char full[2048];
    snprintf(full, sizeof(full), "%s/%s", planted_root, path);
    for (char *slash = full + strlen(planted_root) + 1; (slash = strchr(slash, '/')); slash++) {
        *slash = '\0';
        mkdir(full, 0755);
        *slash = '/';
    }
    FILE *file = fopen(full, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

static void assert_found(const struct findings *findings, int count, const char *part)
{
    if (findings->count != count || (part && !strstr(findings->text, part))) {
        fail_msg("expected %d findings with \"%s\", found %d:\n%s", count, part ? part : "",
                 findings->count, findings->text);
    }
}

static void test_include_upwards(void **state)
{
    (void)state;
    struct findings findings = {0};
    plant("src/base/low.c", "#include \"base/low.h\"\n#include <stdio.h>\n");
    plant("src/model/high.h", "#include \"comm/comm.h\"\n#include \"kernel/kernel.h\"\n");
    rules_check_includes(planted_root, &findings);
    assert_found(&findings, 0, NULL);
    plant("src/base/low.c", "/* */\n  #  include \"model/high.h\"\n");
    rules_check_includes(planted_root, &findings);
    assert_found(&findings, 1, "src/base/low.c:2: src/base may not include \"model/high.h\"");
}

static void test_include_below_a_subfolder(void **state)
{
    (void)state;
    struct findings findings = {0};
    plant("src/kernel/x86/gemm.c", "#include \"moe/router.h\"\n");
    rules_check_includes(planted_root, &findings);
    assert_found(&findings, 1, "src/kernel/x86/gemm.c:1");
}

static void test_include_of_a_stranger(void **state)
{
    (void)state;
    struct findings findings = {0};
    plant("src/kernel/a.c", "#include \"comm/comm.h\"\n");
    plant("src/comm/b.c", "#include \"kernel/kernel.h\"\n");
    rules_check_includes(planted_root, &findings);
    assert_found(&findings, 2, "src/comm may not include \"kernel/kernel.h\"");
}

static void test_include_by_a_way_around(void **state)
{
    (void)state;
    struct findings findings = {0};
    plant("src/base/a.c", "#include \"../model/param.h\"\n");
    rules_check_includes(planted_root, &findings);
    assert_found(&findings, 1, "../model/param.h");
}

static void test_include_in_brackets(void **state)
{
    (void)state;
    struct findings findings = {0};
    plant("src/train/a.c", "#include <base/low.h>\n#include <sys/stat.h>\n");
    rules_check_includes(planted_root, &findings);
    assert_found(&findings, 0, NULL);
    plant("src/base/a.c", "#include <model/param.h>\n#include <sys/../model/param.h>\n");
    plant("src/kernel/a.c", "#include <comm/comm.h>\n");
    rules_check_includes(planted_root, &findings);
    assert_found(&findings, 3, "src/base/a.c:1: src/base may not include <model/param.h>");
}

static void test_links(void **state)
{
    (void)state;
    struct findings findings = {0};
    plant("src/data/CMakeLists.txt",
          "# trident_train comes later\ntrident_library(data SOURCES a.c LINK trident_base)\n"
          "target_link_libraries(trident_data PUBLIC PkgConfig::JANSSON trident_options)\n");
    rules_check_links(planted_root, &findings);
    assert_found(&findings, 0, NULL);
    plant("src/data/CMakeLists.txt",
          "trident_library(data SOURCES a.c LINK trident_base trident_train)\n");
    rules_check_links(planted_root, &findings);
    assert_found(&findings, 1, "src/data may not link trident_train");
    findings = (struct findings){0};
    plant("src/data/CMakeLists.txt", "trident_library(data SOURCES a.c LINK trident_dnnl)\n");
    rules_check_links(planted_root, &findings);
    assert_found(&findings, 1, "src/data/CMakeLists.txt:1: only src/kernel may link oneDNN");
}

static void test_foreign_headers(void **state)
{
    (void)state;
    struct findings findings = {0};
    plant("src/comm/mesh.c", "#include <mpi.h>\n");
    plant("include/trident/trident_mpi.h", "#include <mpi.h>\n");
    plant("src/embed/runtime_mpi.c", "#include \"trident/trident_mpi.h\"\n");
    plant("src/kernel/x86/onednn.c", "#include <oneapi/dnnl/dnnl.h>\nstatic dnnl_engine_t e;\n");
    rules_check_foreign_headers(planted_root, &findings);
    assert_found(&findings, 0, NULL);
    plant("src/kernel/x86/gemm.c", "#include <oneapi/dnnl/dnnl.h>\nint x = DNNL_ARG_SRC;\n");
    rules_check_foreign_headers(planted_root, &findings);
    assert_found(&findings, 2,
                 "src/kernel/x86/gemm.c:2: only src/kernel/x86/onednn.c may use oneDNN's DNNL_ARG");
    findings = (struct findings){0};
    plant("src/kernel/x86/gemm.c", "int x;\n");
    plant("src/train/loop.c", "#include <mpi.h>\n");
    plant("include/trident/trident.h", "#include \"mpi.h\"\n");
    plant("src/model/layer.c", "#include <oneapi/dnnl/dnnl.h>\n");
    plant("src/embed/model.c", "#include \"trident/trident_mpi.h\"\n");
    rules_check_foreign_headers(planted_root, &findings);
    assert_found(&findings, 4, "src/train/loop.c:1: only src/comm/ may include <mpi.h>");
}

static void test_folders(void **state)
{
    (void)state;
    struct findings findings = {0};
    plant("src/base/README.md", "The ground.\n");
    rules_check_folders(planted_root, &findings);
    assert_found(&findings, 0, NULL);
    plant("src/comm/README.md", "");
    plant("src/moe/router.c", "");
    plant("src/utils/README.md", "Everything else.\n");
    rules_check_folders(planted_root, &findings);
    assert_found(&findings, 3, "src/utils: not in the order");
    assert_non_null(strstr(findings.text, "src/comm: README.md"));
    assert_non_null(strstr(findings.text, "src/moe: README.md"));
}

static void test_lengths(void **state)
{
    (void)state;
    struct findings findings = {0};
    plant("tests/moe/test.c", "1\n2\n3\n");
    rules_check_lengths(planted_root, 3, &findings);
    assert_found(&findings, 0, NULL);
    rules_check_lengths(planted_root, 2, &findings);
    assert_found(&findings, 1, "tests/moe/test.c: 3 lines, more than 2");
}

static void test_columns(void **state)
{
    (void)state;
    struct findings findings = {0};
    plant("scripts/a.sh", "12…4\n");
    plant("bench/peers/a.txt", "12345\n");
    rules_check_columns(planted_root, 4, &findings);
    assert_found(&findings, 0, NULL);
    plant("scripts/a.sh", "1\n12…45\n");
    plant("bench/peers/a.py", "12345\n");
    plant("CMakeLists.txt", "12345\n");
    plant("examples/a.yaml", "12345\n");
    rules_check_columns(planted_root, 4, &findings);
    assert_found(&findings, 4, "scripts/a.sh:2: 5 columns, more than 4");
}

static void test_names(void **state)
{
    (void)state;
    struct findings findings = {0};
    static const char *const allowed[] = {"tri_later", NULL};
    plant("src/base/a.h", "struct tri_one {\nint tri_used(void);\nint tri_later(void);\n"
                          "static inline int tri_small(void)\n");
    plant("src/base/a.c", "int tri_used(void)\n{\nint tri_later(void)\n");
    plant("src/moe/b.c", "struct work {\n    return tri_used() + tri_small();\n");
    plant("src/comm/c.c", "struct work {\nstruct tri_one one;\n");
    rules_check_names(planted_root, allowed, &findings);
    assert_found(&findings, 0, NULL);
    rules_check_names(planted_root, NULL, &findings);
    assert_found(&findings, 1, "src/base/a.h: tri_later is not used in src");
    findings = (struct findings){0};
    plant("src/moe/b.c", "struct tri_one {\n    return tri_used() + tri_later();\n");
    rules_check_names(planted_root, allowed, &findings);
    assert_found(&findings, 2, "struct tri_one is another one in");
    assert_non_null(strstr(findings.text, "tri_later need not be allowed: it is used"));
}

static void test_strategies(void **state)
{
    (void)state;
    struct findings findings = {0};
    plant("src/moe/strategies.c", "    &tri_router_top_k.strategy,\n");
    plant("src/train/a.c", "    tri_config_load(&tri_strategies, path);\n");
    rules_check_strategies(planted_root, &findings);
    assert_found(&findings, 0, NULL);
    plant("src/train/a.c", "\n    if (moe->router == &tri_router_top_k) {\n");
    rules_check_strategies(planted_root, &findings);
    assert_found(&findings, 1, "src/train/a.c:2: names a strategy");
}

static void test_weights(void **state)
{
    (void)state;
    struct findings findings = {0};
    plant("src/model/param_open.h", "return tri_param_weights(params, row);\n");
    plant("src/model/residency_own.c", "from = tri_param_weights(params, row);\n");
    plant("src/model/head.c", "w = tri_weights_open(params, span, TRI_USE_FORWARD);\n");
    rules_check_weights(planted_root, &findings);
    assert_found(&findings, 0, NULL);
    plant("src/model/head.c", "\nw = tri_param_weights(params, row);\n");
    rules_check_weights(planted_root, &findings);
    assert_found(&findings, 1, "src/model/head.c:2: tri_param_weights(");
}

static void test_docs(void **state)
{
    (void)state;
    struct findings findings = {0};
    plant("docs/guide.md", "# Guide\n## Under `MPI`: how\n## A_b\n## A_b\n[here](#a_b-1)\n");
    plant("docs/README.md", "[guide](guide.md), [how](guide.md#under-mpi-how)\n");
    plant("README.md", "[a](docs/guide.md#guide) and [b](https://example.org/x.md)\n");
    rules_check_docs(planted_root, 5, &findings);
    assert_found(&findings, 0, NULL);
    rules_check_docs(planted_root, 4, &findings);
    assert_found(&findings, 1, "docs/guide.md: 5 lines, more than 4");
    plant("docs/guide.md", "[up](../README.md)\n[a](b.md) [gone](gone.md)\n");
    plant("docs/b.md", "");
    plant("docs/README.md", "[guide](guide.md)\n");
    plant("README.md", "```sh\n# in code\n```\n# In text\n[a](#in-code) [b](#in-text-1)\n");
    findings = (struct findings){0};
    rules_check_docs(planted_root, 5, &findings);
    assert_found(&findings, 4, "docs/guide.md:2: link to gone.md");
    assert_found(&findings, 4, "docs/README.md does not lead to b.md");
    assert_found(&findings, 4, "README.md:5: link to #in-code of README.md");
    assert_found(&findings, 4, "README.md:5: link to #in-text-1 of README.md");
}

/* What src says and a page explains; both planted. */
static void assert_explained(const char *source, const char *page, int count, const char *part)
{
    struct findings findings = {0};
    plant("src/base/a.c", source);
    plant("docs/page.md", page);
    rules_check_messages(planted_root, "docs/page.md", &findings);
    assert_found(&findings, count, part);
}

#define TABLE "| message | cause and cure |\n| --- | --- |\n"
#define CURE  " | This is the cause. That is the cure |\n"

static void test_messages(void **state)
{
    (void)state;
    static const char source[] =
        "/* tri_fail(error, \"not one at all\") */\n"
        "return tri_fail(error, TRI_BAD_INPUT, \"%s:%d: found %\" PRId64 \", expected \"\n"
        "                \"at most %.*s\", path, line, n, 2, \"of a name\");\n"
        "refuse(s, \"a_key\", bad ? \"is wrong here\" : \"is not there\");\n"
        "tri_log_warn(\"%s\", second.message); tri_log_info(\"all is well\");\n"
        "(void)snprintf(line, size, \"trident: error: rank %d: it stands still\\n\", rank);\n";
    assert_explained(source,
                     TABLE "| `found …, expected at most …`<br>`is wrong […]`" CURE
                           "| `is not there`" CURE "| `rank …: it stands still`" CURE,
                     0, NULL);
    assert_explained(source, TABLE "| `found …, expected at most …`<br>`is wrong here`" CURE, 2,
                     "src/base/a.c:4: not explained in docs/page.md: \"is not there\"");
    assert_explained("", TABLE "| `is not there`" CURE, 1,
                     "docs/page.md:3: nothing in src says \"is not there\"");
    assert_explained("", "| see | what |\n| --- | --- |\n| `is not there`" CURE, 0, NULL);
    assert_explained("fail(scan, \"is not there\");", TABLE "| `is not there` | No |\n", 2,
                     "docs/page.md:3: no cause and cure");
    assert_explained("void hint(const char *, ...) TRI_PRINTF(1, 2);", "", 1,
                     "src/base/a.c:1: does hint make messages?");
    assert_explained("tri_fail(error, TRI_FAILED, \"%s: %s\", path, why);", "", 1,
                     "src/base/a.c:1: a message without words");
}

static void test_messages_caught_all(void **state)
{
    (void)state;
    assert_explained("fail(e, \"a b one\"); fail(e, \"a b two\"); fail(e, \"a b three\");",
                     TABLE "| `[…]`" CURE, 1, "docs/page.md:3: \"[…]\" is of 3 messages");
    assert_explained("fail(e, \"found a one\"); fail(e, \"found b two\"); fail(e, \"found c x\");"
                     "fail(e, \"found d one\"); fail(e, \"found e two\"); fail(e, \"found f x\");"
                     "fail(e, \"found g one\"); fail(e, \"found h two\"); fail(e, \"found i x\");",
                     TABLE "| `found […]`" CURE, 1, "\"found […]\" is of 9 messages");
}

static void test_findings_that_do_not_fit(void **state)
{
    (void)state;
    struct findings findings = {0};
    for (int i = 0; i < 400; i++) {
        char path[64];
        snprintf(path, sizeof(path), "src/a_folder_with_a_long_name_%03d/a.c", i);
        plant(path, "");
    }
    rules_check_folders(planted_root, &findings);
    assert_found(&findings, 800, "name_000");
}

/* What src/ offers and does not use yet, or offers to tests. */
static const char *const unused_in_src[] = {
    "tri_barrier",              /* measurements begin together; tests do today */
    "tri_ledger_reset",         /* for bench/ */
    "tri_moe_exchange_growths", /* counted for tests; a run logs each */
    "tri_safetensor_read_i64",  /* recorded values that tests compare with */
    "tri_safetensors_metadata", /* likewise */
    "tri_file_set_hook",        /* tests make files fail */
    "tri_comm_set_transport",   /* for whoever brings a transport of its own */
    "tri_tokenizer_decode",     /* what token streams are held against */
    NULL,
};

static void test_this_tree(void **state)
{
    (void)state;
    static const char root[] = TRIDENT_SOURCE_DIR;
    struct findings findings = {0};
    rules_check_includes(root, &findings);
    rules_check_links(root, &findings);
    rules_check_foreign_headers(root, &findings);
    rules_check_folders(root, &findings);
    rules_check_lengths(root, 600, &findings);
    rules_check_columns(root, 100, &findings);
    rules_check_names(root, unused_in_src, &findings);
    rules_check_strategies(root, &findings);
    rules_check_weights(root, &findings);
    rules_check_docs(root, 600, &findings);
    assert_true(rules_check_messages(root, "docs/troubleshooting.md", &findings) > 500);
    assert_found(&findings, 0, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_include_upwards, planted_begin, planted_end),
        cmocka_unit_test_setup_teardown(test_include_below_a_subfolder, planted_begin, planted_end),
        cmocka_unit_test_setup_teardown(test_include_of_a_stranger, planted_begin, planted_end),
        cmocka_unit_test_setup_teardown(test_include_by_a_way_around, planted_begin, planted_end),
        cmocka_unit_test_setup_teardown(test_include_in_brackets, planted_begin, planted_end),
        cmocka_unit_test_setup_teardown(test_columns, planted_begin, planted_end),
        cmocka_unit_test_setup_teardown(test_names, planted_begin, planted_end),
        cmocka_unit_test_setup_teardown(test_strategies, planted_begin, planted_end),
        cmocka_unit_test_setup_teardown(test_weights, planted_begin, planted_end),
        cmocka_unit_test_setup_teardown(test_links, planted_begin, planted_end),
        cmocka_unit_test_setup_teardown(test_foreign_headers, planted_begin, planted_end),
        cmocka_unit_test_setup_teardown(test_folders, planted_begin, planted_end),
        cmocka_unit_test_setup_teardown(test_lengths, planted_begin, planted_end),
        cmocka_unit_test_setup_teardown(test_docs, planted_begin, planted_end),
        cmocka_unit_test_setup_teardown(test_messages, planted_begin, planted_end),
        cmocka_unit_test_setup_teardown(test_messages_caught_all, planted_begin, planted_end),
        cmocka_unit_test_setup_teardown(test_findings_that_do_not_fit, planted_begin, planted_end),
        cmocka_unit_test(test_this_tree),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
