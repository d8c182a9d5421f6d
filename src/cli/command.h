/* A subcommand, and what they share: options, overrides, agreement, printing. */
#ifndef TRIDENT_CLI_COMMAND_H
#define TRIDENT_CLI_COMMAND_H

#include "config/config.h"

#include <jansson.h>

/* An option "--name VALUE" or, without a value, "--name". */
struct tri_option {
    const char *name;
    bool takes_value;
    const char *value; /* set by tri_options_parse; "" for a flag that is there; NULL when absent */
};

struct tri_arguments {
    struct tri_option *options; /* ended by a NULL name */
    char **words;               /* what is neither an option nor an override */
    int num_words;
    char **overrides; /* key=value */
    int num_overrides;
};

struct tri_command {
    const char *name;
    const char *summary; /* one line */
    const char *help;    /* the whole of `trident help NAME` */
    /* Collective over all ranks; the status is the same on all, error filled when it is a
     * failure. */
    enum tri_status (*run)(int argc, char **argv, struct tri_error *error);
};

/* All of them, ended by a NULL name. */
extern const struct tri_command tri_commands[];

enum tri_status tri_command_train(int argc, char **argv, struct tri_error *error);
enum tri_status tri_command_eval(int argc, char **argv, struct tri_error *error);
enum tri_status tri_command_generate(int argc, char **argv, struct tri_error *error);
enum tri_status tri_command_verify(int argc, char **argv, struct tri_error *error);
enum tri_status tri_command_plan(int argc, char **argv, struct tri_error *error);
enum tri_status tri_command_tokenize(int argc, char **argv, struct tri_error *error);
enum tri_status tri_command_import(int argc, char **argv, struct tri_error *error);
enum tri_status tri_command_export(int argc, char **argv, struct tri_error *error);
enum tri_status tri_command_inspect(int argc, char **argv, struct tri_error *error);
enum tri_status tri_command_help(int argc, char **argv, struct tri_error *error);

/* Splits argv (without the command's name) by the options table. BAD_INPUT names an unknown option
 * or one without its value. Words and overrides point into argv; free with tri_arguments_fini. */
enum tri_status tri_arguments_parse(int argc, char **argv, struct tri_option *options,
                                    bool overrides, struct tri_arguments *arguments,
                                    struct tri_error *error) TRI_NODISCARD;
void tri_arguments_fini(struct tri_arguments *arguments);
/* NULL when absent. */
const char *tri_arguments_get(const struct tri_arguments *arguments, const char *name);
bool tri_arguments_has(const struct tri_arguments *arguments, const char *name);
/* The option as a number in [low, high], or absent's value. */
enum tri_status tri_arguments_int(const struct tri_arguments *arguments, const char *name,
                                  int64_t low, int64_t high, int64_t absent, int64_t *value,
                                  struct tri_error *error) TRI_NODISCARD;
enum tri_status tri_arguments_real(const struct tri_arguments *arguments, const char *name,
                                   double low, double high, double absent, double *value,
                                   struct tri_error *error) TRI_NODISCARD;
/* Exactly `count` words, or BAD_INPUT with the usage. */
enum tri_status tri_arguments_words(const struct tri_arguments *arguments, int count,
                                    const char *usage, struct tri_error *error) TRI_NODISCARD;

/* The worst status over all ranks, with its error, on all of them. Collective over all ranks. */
enum tri_status tri_agree_everywhere(enum tri_status status, struct tri_error *error) TRI_NODISCARD;

/* The config of RUN|CHECKPOINT with overrides, on a layout that fits the ranks there are: the one
 * it was trained on when that divides them, else data alone; overrides win. path receives the
 * checkpoint's folder. Collective. */
enum tri_status tri_config_of_checkpoint(const char *given, const struct tri_arguments *arguments,
                                         struct tri_config *config, char path[TRI_PATH_MAX],
                                         struct tri_error *error) TRI_NODISCARD;

/* Prints root on one line of standard output and releases it. */
void tri_print_json(json_t *root);
/* The value as a JSON number, null when it is not finite. */
json_t *tri_json_number(double value);

#endif
