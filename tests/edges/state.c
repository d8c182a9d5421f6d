#include "edges/state.h"

#include "cli/cli.h"

#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include <cmocka.h>

static void path_of(const char *run, int64_t step, const char *name, char path[CLI_PATH])
{
    (void)snprintf(path, CLI_PATH, "%s/checkpoints/step_%" PRId64 "/%s", run, step, name);
}

static json_t *load(const char *run, int64_t step, const char *name)
{
    char path[CLI_PATH];
    path_of(run, step, name, path);
    json_t *root = json_load_file(path, 0, NULL);
    assert_non_null(root);
    return root;
}

json_t *edges_state(const char *run, int64_t step)
{
    return load(run, step, "state.json");
}

static json_t *hash_of(const char *text)
{
    char digits[32];
    (void)snprintf(digits, sizeof(digits), "%016" PRIx64, XXH3_64bits(text, strlen(text)));
    return json_string(digits);
}

/* The manifest's own check covers the text before it. */
static void write_manifest(const char *path, json_t *manifest)
{
    (void)json_object_del(manifest, "check");
    char *text = json_dumps(manifest, JSON_INDENT(1));
    assert_non_null(text);
    text[strlen(text) - 2] = '\0'; /* the end of line and the brace */
    char whole[1 << 17];
    int bytes = snprintf(whole, sizeof(whole), "%s,\n \"check\": \"%016" PRIx64 "\"\n}\n", text,
                         XXH3_64bits(text, strlen(text)));
    assert_true(bytes > 0 && (size_t)bytes < sizeof(whole));
    cli_write(path, whole);
    free(text);
}

void edges_state_write(const char *run, int64_t step, json_t *root)
{
    char path[CLI_PATH];
    char *text = json_dumps(root, JSON_INDENT(1) | JSON_REAL_PRECISION(17));
    assert_non_null(text);
    path_of(run, step, "state.json", path);
    cli_write(path, text);
    json_t *manifest = load(run, step, "manifest.json");
    (void)json_object_set(manifest, "step", json_object_get(root, "step"));
    json_decref(root);
    size_t at;
    json_t *file;
    json_array_foreach(json_object_get(manifest, "files"), at, file)
    {
        if (strcmp(json_string_value(json_object_get(file, "part")), "state") == 0) {
            (void)json_object_set_new(file, "bytes", json_integer((json_int_t)strlen(text)));
            (void)json_object_set_new(file, "xxh3", hash_of(text));
        }
    }
    free(text);
    path_of(run, step, "manifest.json", path);
    write_manifest(path, manifest);
    json_decref(manifest);
}
