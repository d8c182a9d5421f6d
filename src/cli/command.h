/* A subcommand, and what they share: options, overrides, agreement, printing. */
#ifndef TRIDENT_CLI_COMMAND_H
#define TRIDENT_CLI_COMMAND_H

#include "checkpoint/checkpoint.h"
#include "comm/comm.h"
#include "config/config.h"
#include "train/json.h"

#include <stdio.h>

/* An option "--name VALUE" or, without a value, "--name"; or either: then a word behind it is the
 * value if it is a number. */
enum { TRI_MAYBE_NUMBER = 2 };
struct tri_option {
    const char *name;
    int takes_value; /* false, true or TRI_MAYBE_NUMBER */
};

struct tri_command;

struct tri_arguments {
    const struct tri_command *command;
    struct tri_comm *comm;     /* the job, once the ranks are there; borrowed */
    struct tri_mesh *everyone; /* all ranks as one group, before a layout is known; borrowed */
    const char **values;       /* by option: NULL when absent, "" for a flag that is there */
    int num_options;           /* of the command */
    char **words;              /* what is neither an option nor an override */
    int num_words;
    char **overrides; /* key=value */
    int num_overrides;
    /* The config that words[0] names, when it has been read before the ranks were there: a pipe
     * gives it once, and ranks that are threads have one between them. Borrowed, or NULL. */
    const struct tri_mapping *config_file;
    bool help; /* --help or -h is among them; nothing else has been looked at then */
};

enum { TRI_WORDS_ANY = -1 };

enum tri_trait {
    TRI_TAKES_OVERRIDES = 1, /* key=value */
    TRI_READS_CONFIG = 2,    /* each rank reads the config that its word names */
    TRI_WRITES = 4,          /* files: several at once would write the same */
    TRI_STARTS_RANKS = 8     /* --ranks N: as threads of this process */
};

struct tri_command {
    const char *name;
    const char *summary; /* one line */
    const char *help;    /* the whole of `trident help NAME`; its first line is the usage */
    const struct tri_option *options; /* ended by a NULL name */
    int words;                        /* exactly so many, or TRI_WORDS_ANY: at least one */
    const char *word_names[2];        /* as the usage has them */
    int traits;                       /* enum tri_trait, or-ed */
    /* Collective over all ranks, whose arguments are well-formed; the status is the same on all,
     * error filled when it is a failure. */
    enum tri_status (*run)(const struct tri_arguments *arguments, struct tri_error *error);
};

/* All of them, ended by a NULL name; `help` is not among them: it needs no ranks. */
extern const struct tri_command tri_commands[];
/* NULL when there is none of this name. */
const struct tri_command *tri_command_find(const char *name);

enum { TRI_HINT_BYTES = 128 };

/* The text that follows "unknown command": what was meant, or where all are listed. */
void tri_command_hint(const char *written, char hint[TRI_HINT_BYTES]);

enum tri_status tri_command_train(const struct tri_arguments *arguments, struct tri_error *error);
enum tri_status tri_command_eval(const struct tri_arguments *arguments, struct tri_error *error);
enum tri_status tri_command_generate(const struct tri_arguments *arguments,
                                     struct tri_error *error);
enum tri_status tri_command_verify(const struct tri_arguments *arguments, struct tri_error *error);
enum tri_status tri_command_plan(const struct tri_arguments *arguments, struct tri_error *error);
enum tri_status tri_command_calibrate(const struct tri_arguments *arguments,
                                      struct tri_error *error);
enum tri_status tri_command_tokenize(const struct tri_arguments *arguments,
                                     struct tri_error *error);
enum tri_status tri_command_import(const struct tri_arguments *arguments, struct tri_error *error);
enum tri_status tri_command_export(const struct tri_arguments *arguments, struct tri_error *error);
enum tri_status tri_command_inspect(const struct tri_arguments *arguments, struct tri_error *error);
enum tri_status tri_command_report(const struct tri_arguments *arguments, struct tri_error *error);
enum tri_status tri_command_runs(const struct tri_arguments *arguments, struct tri_error *error);

/* Whether the first word, "help", "--help" or "-h", asks for it. */
bool tri_help_asked(const char *word);
/* `trident help …`; argv without these two words. Local. */
enum tri_status tri_help(int argc, char **argv, struct tri_error *error);
void tri_help_list(FILE *out);

/* ---- the command line ------------------------------------------------------------------------ */

/* Reads argv (without the command's name) as the command takes it. BAD_INPUT names what it does not
 * know: an option, one without or with an empty value or given twice, a word too many or too few, a
 * key=value whose key no config has, a path too long. Words, paths all, lose a slash at their end;
 * they and overrides point into argv; whatever the status, tri_arguments_fini. Local. */
enum tri_status tri_arguments_parse(const struct tri_command *command, int argc, char **argv,
                                    struct tri_arguments *arguments,
                                    struct tri_error *error) TRI_NODISCARD;
void tri_arguments_fini(struct tri_arguments *arguments);
/* NULL when absent. */
const char *tri_arguments_get(const struct tri_arguments *arguments, const char *name);
bool tri_arguments_has(const struct tri_arguments *arguments, const char *name);
/* The option as a path without a slash at its end; "" when absent. BAD_INPUT when it is too
 * long. */
enum tri_status tri_arguments_path(const struct tri_arguments *arguments, const char *name,
                                   char path[TRI_PATH_MAX], struct tri_error *error) TRI_NODISCARD;
/* The config that words[0] names, with the overrides (tri_start_config). Collective over all
 * ranks. */
enum tri_status tri_arguments_config(const struct tri_arguments *arguments, bool goes_on, int ranks,
                                     struct tri_config *config,
                                     struct tri_error *error) TRI_NODISCARD;
/* The option as a number in [low, high], or absent's value. */
enum tri_status tri_arguments_int(const struct tri_arguments *arguments, const char *name,
                                  int64_t low, int64_t high, int64_t absent, int64_t *value,
                                  struct tri_error *error) TRI_NODISCARD;
enum tri_status tri_arguments_real(const struct tri_arguments *arguments, const char *name,
                                   double low, double high, double absent, double *value,
                                   struct tri_error *error) TRI_NODISCARD;
/* BAD_INPUT: what is missing, and the command's usage. */
enum tri_status tri_arguments_missing(const struct tri_arguments *arguments, const char *what,
                                      struct tri_error *error);

/* ---- all ranks of the job -------------------------------------------------------------------- */

/* The worst status over all ranks, with its error, on all of them. Collective over all ranks. */
enum tri_status tri_agree_everywhere(const struct tri_arguments *arguments, enum tri_status status,
                                     struct tri_error *error) TRI_NODISCARD;
/* The same; then BAD_INPUT when the ranks run different programs, commands or options.
 * Collective. */
enum tri_status tri_agree_on_command(const struct tri_arguments *arguments, enum tri_status status,
                                     struct tri_error *error) TRI_NODISCARD;
/* The same for what they read as their config. Collective. */
enum tri_status tri_agree_on_config(const struct tri_arguments *arguments, enum tri_status status,
                                    const struct tri_config *config,
                                    struct tri_error *error) TRI_NODISCARD;

/* The config of RUN|CHECKPOINT with overrides, on a layout that fits the ranks there are: the one
 * it was trained on when that divides them, else data alone; overrides win. choice->path receives
 * the checkpoint's folder, as rank 0 found it; when that cannot be loaded and choice->again says
 * so, this is called once more. Collective. */
enum tri_status tri_config_of_checkpoint(const char *given, const struct tri_arguments *arguments,
                                         struct tri_config *config,
                                         struct tri_checkpoint_choice *choice,
                                         struct tri_error *error) TRI_NODISCARD;

#endif
