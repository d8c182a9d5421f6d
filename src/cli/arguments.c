#include "base/memory.h"
#include "checkpoint/checkpoint.h"
#include "cli/command.h"
#include "comm/comm.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct tri_option *find(struct tri_option *options, const char *name, size_t length)
{
    for (struct tri_option *option = options; option->name; option++) {
        if (strlen(option->name) == length && strncmp(option->name, name, length) == 0) {
            return option;
        }
    }
    return NULL;
}

/* Whether a word reads "key=value" with a key of letters, digits, dots and underscores. */
static bool is_override(const char *word)
{
    size_t key = strspn(word, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._");
    return key > 0 && word[key] == '=';
}

/* One "--name", "--name=value" or "--name value"; *at is moved past a value. */
static enum tri_status take_option(char **argv, int argc, int *at, struct tri_option *options,
                                   struct tri_error *error)
{
    const char *name = argv[*at];
    size_t length = strcspn(name, "=");
    struct tri_option *option = find(options, name, length);
    if (!option) {
        return tri_fail(error, TRI_BAD_INPUT, "command line: unknown option '%.*s'", (int)length,
                        name);
    }
    if (!option->takes_value) {
        if (name[length] == '=') {
            return tri_fail(error, TRI_BAD_INPUT, "command line: option '%s' takes no value",
                            option->name);
        }
        option->value = "";
    } else if (name[length] == '=') {
        option->value = name + length + 1;
    } else if (*at + 1 < argc) {
        option->value = argv[++*at];
    } else {
        return tri_fail(error, TRI_BAD_INPUT, "command line: option '%s' needs a value",
                        option->name);
    }
    return TRI_OK;
}

enum tri_status tri_arguments_parse(int argc, char **argv, struct tri_option *options,
                                    bool overrides, struct tri_arguments *arguments,
                                    struct tri_error *error)
{
    *arguments = (struct tri_arguments){.options = options};
    arguments->words = tri_alloc(TRI_MEMORY_OTHER, (size_t)(argc + 1) * sizeof(char *));
    arguments->overrides = tri_alloc(TRI_MEMORY_OTHER, (size_t)(argc + 1) * sizeof(char *));
    bool only_words = false;
    for (int i = 0; i < argc; i++) {
        if (!only_words && strcmp(argv[i], "--") == 0) {
            only_words = true;
        } else if (!only_words && strncmp(argv[i], "--", 2) == 0) {
            enum tri_status status = take_option(argv, argc, &i, options, error);
            if (status != TRI_OK) {
                tri_arguments_fini(arguments);
                return status;
            }
        } else if (overrides && is_override(argv[i])) {
            arguments->overrides[arguments->num_overrides++] = argv[i];
        } else {
            arguments->words[arguments->num_words++] = argv[i];
        }
    }
    return TRI_OK;
}

void tri_arguments_fini(struct tri_arguments *arguments)
{
    tri_free(arguments->words);
    tri_free(arguments->overrides);
    arguments->words = NULL;
    arguments->overrides = NULL;
}

const char *tri_arguments_get(const struct tri_arguments *arguments, const char *name)
{
    const struct tri_option *option = find(arguments->options, name, strlen(name));
    return option ? option->value : NULL;
}

bool tri_arguments_has(const struct tri_arguments *arguments, const char *name)
{
    return tri_arguments_get(arguments, name) != NULL;
}

enum tri_status tri_arguments_int(const struct tri_arguments *arguments, const char *name,
                                  int64_t low, int64_t high, int64_t absent, int64_t *value,
                                  struct tri_error *error)
{
    const char *text = tri_arguments_get(arguments, name);
    *value = absent;
    if (!text) {
        return TRI_OK;
    }
    char *end;
    errno = 0;
    long long parsed = strtoll(text, &end, 10);
    if (end == text || *end || errno || parsed < low || parsed > high) {
        return tri_fail(
            error, TRI_BAD_INPUT,
            "command line: option '%s': found '%s', expected an integer from %lld to %lld", name,
            text, (long long)low, (long long)high);
    }
    *value = parsed;
    return TRI_OK;
}

enum tri_status tri_arguments_real(const struct tri_arguments *arguments, const char *name,
                                   double low, double high, double absent, double *value,
                                   struct tri_error *error)
{
    const char *text = tri_arguments_get(arguments, name);
    *value = absent;
    if (!text) {
        return TRI_OK;
    }
    char *end;
    double parsed = strtod(text, &end);
    if (end == text || *end || !(parsed >= low) || !(parsed <= high)) {
        return tri_fail(error, TRI_BAD_INPUT,
                        "command line: option '%s': found '%s', expected a number from %g to %g",
                        name, text, low, high);
    }
    *value = parsed;
    return TRI_OK;
}

enum tri_status tri_arguments_words(const struct tri_arguments *arguments, int count,
                                    const char *usage, struct tri_error *error)
{
    if (arguments->num_words == count) {
        return TRI_OK;
    }
    if (arguments->num_words > count) {
        return tri_fail(error, TRI_BAD_INPUT, "command line: did not expect '%s'; usage: %s",
                        arguments->words[count], usage);
    }
    return tri_fail(error, TRI_BAD_INPUT, "command line: usage: %s", usage);
}

enum tri_status tri_agree_everywhere(enum tri_status status, struct tri_error *error)
{
    struct tri_mesh *mesh;
    TRI_TRY(tri_mesh_create(1, 1, &mesh, error));
    status = tri_comm_agree(mesh->world, status, error);
    tri_mesh_destroy(mesh);
    return status;
}

static enum tri_status read_checkpoint_config(const char *given,
                                              const struct tri_arguments *arguments,
                                              struct tri_config *config, char path[TRI_PATH_MAX],
                                              struct tri_error *error)
{
    struct tri_config trained;
    TRI_TRY(tri_checkpoint_resolve(given, path, error));
    TRI_TRY(tri_checkpoint_read_config(path, &trained, error));
    int64_t ranks = tri_comm_size();
    if (ranks % (trained.parallel.tensor * trained.parallel.expert) != 0 ||
        tri_config_check_layout(&trained, (int)ranks, error) != TRI_OK) {
        trained.parallel = (struct tri_config_parallel){1, 1, 1};
    }
    for (int i = 0; i < arguments->num_overrides; i++) {
        if (strncmp(arguments->overrides[i], "parallel.", 9) == 0) {
            trained.parallel = (struct tri_config_parallel){1, 1, 0};
        }
    }
    char *yaml = tri_config_to_yaml(&trained);
    enum tri_status status = tri_config_parse(path, yaml, strlen(yaml), arguments->num_overrides,
                                              arguments->overrides, config, error);
    tri_free(yaml);
    return status;
}

enum tri_status tri_config_of_checkpoint(const char *given, const struct tri_arguments *arguments,
                                         struct tri_config *config, char path[TRI_PATH_MAX],
                                         struct tri_error *error)
{
    return tri_agree_everywhere(read_checkpoint_config(given, arguments, config, path, error),
                                error);
}

void tri_print_json(json_t *root)
{
    char *text = json_dumps(root, JSON_COMPACT);
    (void)printf("%s\n", text ? text : "null");
    (void)fflush(stdout);
    free(text);
    json_decref(root);
}

json_t *tri_json_number(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}
