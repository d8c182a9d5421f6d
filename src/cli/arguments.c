#include "base/file.h"
#include "base/memory.h"
#include "base/path.h"
#include "cli/command.h"
#include "config/text.h"
#include "train/start.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The option's index; -1 when the command has none of this name. */
static int find(const struct tri_command *command, const char *name, size_t length)
{
    for (int i = 0; command->options[i].name; i++) {
        if (strlen(command->options[i].name) == length &&
            strncmp(command->options[i].name, name, length) == 0) {
            return i;
        }
    }
    return -1;
}

/* Names the option that was meant, or where all are listed. */
static enum tri_status refuse_option(const struct tri_command *command, const char *name,
                                     int length, struct tri_error *error)
{
    enum { NAME_BYTES = 128 };
    char written[NAME_BYTES];
    struct tri_nearest nearest = {0};
    (void)snprintf(written, sizeof(written), "%.*s", length, name);
    for (const struct tri_option *option = command->options; option->name; option++) {
        tri_nearest_consider(&nearest, written, option->name);
    }
    if (tri_text_is_slip(nearest.distance, written + strlen("--"))) {
        return tri_fail(error, TRI_BAD_INPUT,
                        "command line: unknown option '%.*s'; did you mean '%s'?", length, name,
                        nearest.name);
    }
    return tri_fail(error, TRI_BAD_INPUT, "command line: unknown option '%.*s'; --help lists them",
                    length, name);
}

/* Whether a word is meant as "key=value": it reads so, and where no config has the key, no file or
 * folder has the name. */
static bool is_override(const char *word)
{
    size_t key = strspn(word, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._");
    if (key == 0 || word[key] != '=') {
        return false;
    }
    return tri_config_check_override(word, NULL) == TRI_OK || !tri_file_exists(word);
}

/* One "--name", "--name=value" or "--name value"; *at is moved past a value. */
static enum tri_status take_option(char **argv, int argc, int *at, struct tri_arguments *arguments,
                                   struct tri_error *error)
{
    const char *name = argv[*at];
    size_t length = strcspn(name, "=");
    bool joined = name[length] == '=';
    int index = find(arguments->command, name, length);
    if (index < 0) {
        return refuse_option(arguments->command, name, (int)length, error);
    }
    const struct tri_option *option = &arguments->command->options[index];
    if (arguments->values[index]) {
        return tri_fail(error, TRI_BAD_INPUT, "command line: option '%s' is given twice",
                        option->name);
    }
    bool number = *at + 1 < argc && argv[*at + 1][0] &&
                  strspn(argv[*at + 1], "0123456789") == strlen(argv[*at + 1]);
    bool alone = option->takes_value == TRI_MAYBE_NUMBER && !joined && !number;
    if (!option->takes_value || alone) {
        arguments->values[index] = "";
        return joined ? tri_fail(error, TRI_BAD_INPUT, "command line: option '%s' takes no value",
                                 option->name)
                      : TRI_OK;
    }
    const char *value = joined ? name + length + 1 : *at + 1 < argc ? argv[++*at] : NULL;
    if (!value) {
        return tri_fail(error, TRI_BAD_INPUT, "command line: option '%s' needs a value",
                        option->name);
    }
    if (!joined && strncmp(value, "--", 2) == 0) {
        return tri_fail(error, TRI_BAD_INPUT,
                        "command line: option '%s' needs a value; write %s=%s when that is it",
                        option->name, option->name, value);
    }
    if (!value[0]) {
        return tri_fail(error, TRI_BAD_INPUT, "command line: the value of %s is empty",
                        option->name);
    }
    arguments->values[index] = value;
    return TRI_OK;
}

static enum tri_status check_length(const char *path, struct tri_error *error)
{
    size_t length = strlen(path);
    return length <= TRI_FOLDER_PATH_MAX
               ? TRI_OK
               : tri_fail(error, TRI_BAD_INPUT,
                          "command line: a path of %zu bytes, expected at most %d: %.60s...",
                          length, TRI_FOLDER_PATH_MAX, path);
}

static enum tri_status take_word(char *word, bool only_words, struct tri_arguments *arguments,
                                 struct tri_error *error)
{
    if (!word[0]) {
        return tri_fail(error, TRI_BAD_INPUT, "command line: found an empty word");
    }
    if (!only_words && word[0] == '-') {
        return tri_fail(error, TRI_BAD_INPUT,
                        "command line: unknown option '%s'; behind -- it is a name", word);
    }
    if (only_words || !(arguments->command->traits & TRI_TAKES_OVERRIDES) || !is_override(word)) {
        arguments->words[arguments->num_words++] = word; /* they all are paths */
        tri_path_trim(word);
        return check_length(word, error);
    }
    arguments->overrides[arguments->num_overrides++] = word;
    return tri_config_check_override(word, error);
}

enum tri_status tri_arguments_missing(const struct tri_arguments *arguments, const char *what,
                                      struct tri_error *error)
{
    const char *help = arguments->command->help;
    return tri_fail(error, TRI_BAD_INPUT, "command line: %s is missing; usage: %.*s", what,
                    (int)strcspn(help, "\n"), help);
}

static enum tri_status check_words(const struct tri_arguments *arguments, struct tri_error *error)
{
    const struct tri_command *command = arguments->command;
    bool any = command->words == TRI_WORDS_ANY;
    if (!any && arguments->num_words > command->words) {
        return tri_fail(error, TRI_BAD_INPUT, "command line: did not expect '%s'; usage: %.*s",
                        arguments->words[command->words], (int)strcspn(command->help, "\n"),
                        command->help);
    }
    return arguments->num_words < (any ? 1 : command->words)
               ? tri_arguments_missing(arguments, command->word_names[arguments->num_words], error)
               : TRI_OK;
}

enum tri_status tri_arguments_parse(const struct tri_command *command, int argc, char **argv,
                                    struct tri_arguments *arguments, struct tri_error *error)
{
    size_t room = (size_t)(argc + 1) * sizeof(char *);
    *arguments = (struct tri_arguments){.command = command};
    while (command->options[arguments->num_options].name) {
        arguments->num_options++;
    }
    arguments->values = tri_alloc(TRI_MEMORY_OTHER, (size_t)(arguments->num_options + 1) *
                                                        sizeof(*arguments->values));
    arguments->words = tri_alloc(TRI_MEMORY_OTHER, room);
    arguments->overrides = tri_alloc(TRI_MEMORY_OTHER, room);
    bool only_words = false;
    enum tri_status status = TRI_OK;
    for (int i = 0; i < argc; i++) {
        struct tri_error *where = status == TRI_OK ? error : NULL; /* the first mistake is told */
        enum tri_status one = TRI_OK;
        if (!only_words && strcmp(argv[i], "--") == 0) {
            only_words = true;
        } else if (!only_words && (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)) {
            arguments->help = true;
            return TRI_OK;
        } else if (!only_words && strncmp(argv[i], "--", 2) == 0) {
            one = take_option(argv, argc, &i, arguments, where);
        } else {
            one = take_word(argv[i], only_words, arguments, where);
        }
        status = status == TRI_OK ? one : status;
    }
    return status == TRI_OK ? check_words(arguments, error) : status;
}

void tri_arguments_fini(struct tri_arguments *arguments)
{
    tri_free(arguments->values);
    tri_free(arguments->words);
    tri_free(arguments->overrides);
    *arguments = (struct tri_arguments){0};
}

const char *tri_arguments_get(const struct tri_arguments *arguments, const char *name)
{
    int index = find(arguments->command, name, strlen(name));
    TRI_REQUIRE(index >= 0);
    return arguments->values[index];
}

bool tri_arguments_has(const struct tri_arguments *arguments, const char *name)
{
    return tri_arguments_get(arguments, name) != NULL;
}

enum tri_status tri_arguments_config(const struct tri_arguments *arguments, bool goes_on, int ranks,
                                     struct tri_config *config, struct tri_error *error)
{
    return tri_start_config(tri_mesh_group(arguments->everyone, TRI_ON_ALL), arguments->words[0],
                            arguments->config_file, arguments->num_overrides, arguments->overrides,
                            goes_on, ranks, config, error);
}

enum tri_status tri_arguments_path(const struct tri_arguments *arguments, const char *name,
                                   char path[TRI_PATH_MAX], struct tri_error *error)
{
    const char *text = tri_arguments_get(arguments, name);
    TRI_TRY(check_length(text ? text : "", error));
    tri_path_make(path, TRI_PATH_MAX, "%s", text ? text : "");
    tri_path_trim(path);
    return TRI_OK;
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
