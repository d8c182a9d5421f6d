/* What is read takes no more memory and time than its size explains: texts that are small and whose
 * trees are not. Before, 10 MB of "[],[],…" took 0.46 GB, and 1 MB of keys two minutes. */
#include "base/file.h"
#include "base/memory.h"
#include "checkpoint/safetensors.h"
#include "config/config.h"
#include "moe/strategies.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { BYTES = 10 << 20 };

static char folder[512];

static const char *in_folder(const char *name)
{
    static char path[1024];
    (void)snprintf(path, sizeof(path), "%s/%s", folder, name);
    return path;
}

static int make_folder(void **state)
{
    (void)state;
    struct tri_error error;
    (void)snprintf(folder, sizeof(folder), "%s/bounded.%d", TEST_TMP, (int)getpid());
    return tri_file_make_dirs(folder, &error) == TRI_OK ? 0 : -1;
}

static int remove_folder(void **state)
{
    (void)state;
    struct tri_error error;
    return tri_file_remove_tree(folder, &error) == TRI_OK ? 0 : -1;
}

/* begin, then piece again and again up to BYTES, then end. */
static char *text_of(const char *begin, const char *piece, const char *end)
{
    char *text = tri_alloc(TRI_MEMORY_OTHER, BYTES + 256);
    size_t used = 0;
    size_t n = strlen(piece);
    used += (size_t)snprintf(text, 128, "%s", begin);
    while (used + n < BYTES) {
        memcpy(text + used, piece, n);
        used += n;
    }
    (void)snprintf(text + used, 128, "%s", end);
    return text;
}

static enum tri_status open_header(const char *header, struct tri_safetensors **file,
                                   struct tri_error *error)
{
    uint64_t length = strlen(header);
    FILE *out = fopen(in_folder("x.safetensors"), "wb");
    assert_non_null(out);
    assert_int_equal(fwrite(&length, 1, 8, out), 8);
    assert_int_equal(fwrite(header, 1, length, out), length);
    assert_int_equal(fclose(out), 0);
    return tri_safetensors_open(in_folder("x.safetensors"), file, error);
}

static void test_headers(void **state)
{
    (void)state;
    static const struct {
        const char *begin, *piece, *end, *message;
    } cases[] = {
        {"{\"a\":[", "[],", "[]]}", "header: too many values for its size"},
        {"{\"a\":[", "{},", "{}]}", "header: too many values for its size"},
        {"{\"\\\"\":[", "[],", "[]]}", "header: too many values for its size"},
        {"{\"a\":[", "[          ],", "[]]}", "header: too many values for its size"},
        {"{\"a\":[", "0,", "0]}", "header: too many values for its size"},
        {"{\"a\":", "[", "", "header: nested too deeply"},
        {"{\"a\":", "{\"\":", "0", "header: nested too deeply"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        struct tri_safetensors *file;
        struct tri_error error = {0};
        char *header = text_of(cases[i].begin, cases[i].piece, cases[i].end);
        assert_int_equal(open_header(header, &file, &error), TRI_BAD_INPUT);
        if (!strstr(error.message, cases[i].message)) {
            fail_msg("%s", error.message);
        }
        tri_free(header);
    }
}

/* A real header of such a size, as dense as one can be, is read. */
static void test_many_tensors(void **state)
{
    (void)state;
    enum { TENSORS = 100000 };
    char *header = tri_alloc(TRI_MEMORY_OTHER, (size_t)TENSORS * 64);
    size_t used = 0;
    for (int i = 0; i < TENSORS; i++) {
        used += (size_t)snprintf(header + used, 64,
                                 "%s\"%d\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}",
                                 i ? "," : "{", i);
    }
    (void)snprintf(header + used, 64, "}");
    struct tri_safetensors *file;
    struct tri_error error = {0};
    if (open_header(header, &file, &error) != TRI_OK) {
        fail_msg("%s", error.message);
    }
    assert_int_equal(file->count, TENSORS);
    tri_safetensors_close(file);
    tri_free(header);
}

static void test_files(void **state)
{
    (void)state;
    char *text = text_of("{\"weight_map\":[", "[],", "[]]}");
    struct tri_error error = {0};
    struct tri_safetensors_set *set;
    const char *path = in_folder("model.safetensors.index.json");
    assert_int_equal(tri_file_save(path, text, strlen(text), &error), TRI_OK);
    assert_int_equal(tri_safetensors_set_open(folder, NULL, &set, &error), TRI_BAD_INPUT);
    assert_non_null(strstr(error.message, "index.json: too many values for its size"));
    tri_free(text);
}

static void test_keys(void **state)
{
    (void)state;
    enum { LENGTH = 1 << 20 };
    char *text = tri_alloc(TRI_MEMORY_OTHER, LENGTH);
    struct tri_config *config = tri_alloc(TRI_MEMORY_OTHER, sizeof(*config));
    struct tri_error error = {0};
    size_t used = 0;
    for (int i = 0; used + 32 < LENGTH; i++) {
        used += (size_t)snprintf(text + used, 32, "k%d:\n", i);
    }
    assert_int_equal(
        tri_config_parse(&tri_strategies, "c.yaml", text, used, 0, NULL, config, &error),
        TRI_BAD_INPUT);
    assert_string_equal(error.message, "c.yaml:513: found more than 512 keys in one mapping");
    tri_free(config);
    tri_free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_headers),
        cmocka_unit_test(test_many_tensors),
        cmocka_unit_test(test_files),
        cmocka_unit_test(test_keys),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
