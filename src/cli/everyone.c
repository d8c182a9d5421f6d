/* What all ranks of the job must have alike before a command works on it. */
#include "base/memory.h"
#include "checkpoint/checkpoint.h"
#include "cli/command.h"
#include "train/alike.h"
#include "train/environment.h"
#include "train/session.h"

#include <stdio.h>
#include <string.h>

enum tri_status tri_agree_everywhere(const struct tri_arguments *arguments, enum tri_status status,
                                     struct tri_error *error)
{
    return tri_comm_agree(tri_mesh_group(arguments->everyone, TRI_ON_ALL), status, error);
}

/* ---- the command ----------------------------------------------------------------------------- */

static enum tri_status compare_options(const struct tri_arguments *arguments,
                                       struct tri_error *error)
{
    const struct tri_option *options = arguments->command->options;
    int count = arguments->num_options;
    struct tri_fact *facts = tri_alloc(TRI_MEMORY_OTHER, (size_t)(count + 1) * sizeof(*facts));
    for (int i = 0; i < count; i++) {
        const char *value = arguments->values[i];
        facts[i] = (struct tri_fact){options[i].name, !value     ? "not given"
                                                      : value[0] ? value
                                                                 : "given"};
    }
    enum tri_status status =
        tri_comm_compare(tri_mesh_group(arguments->everyone, TRI_ON_ALL), count, facts, error);
    tri_free(facts);
    return status;
}

static enum tri_status compare_words(const struct tri_arguments *arguments, struct tri_error *error)
{
    char count[16];
    (void)snprintf(count, sizeof(count), "%d", arguments->num_words);
    struct tri_fact number = {"the number of words on the command line", count};
    TRI_TRY(tri_comm_compare(tri_mesh_group(arguments->everyone, TRI_ON_ALL), 1, &number, error));
    struct tri_fact *facts =
        tri_alloc(TRI_MEMORY_OTHER, (size_t)(arguments->num_words + 1) * sizeof(*facts));
    for (int i = 0; i < arguments->num_words; i++) {
        facts[i] = (struct tri_fact){"a word of the command line", arguments->words[i]};
    }
    enum tri_status status = tri_comm_compare(tri_mesh_group(arguments->everyone, TRI_ON_ALL),
                                              arguments->num_words, facts, error);
    tri_free(facts);
    return status;
}

enum tri_status tri_agree_on_command(const struct tri_arguments *arguments, enum tri_status status,
                                     struct tri_error *error)
{
    const struct tri_command *command = arguments->command;
    TRI_TRY(tri_agree_everywhere(arguments, status, error));
    struct tri_fact facts[] = {{"the program", tri_version()}, {"the command", command->name}};
    TRI_TRY(tri_comm_compare(tri_mesh_group(arguments->everyone, TRI_ON_ALL),
                             sizeof(facts) / sizeof(*facts), facts, error));
    TRI_TRY(compare_options(arguments, error));
    /* A config may lie under another path on each node: what is in it is compared. */
    return command->traits & TRI_READS_CONFIG ? TRI_OK : compare_words(arguments, error);
}

enum tri_status tri_agree_on_config(const struct tri_arguments *arguments, enum tri_status status,
                                    const struct tri_config *config, struct tri_error *error)
{
    TRI_TRY(tri_agree_everywhere(arguments, status, error));
    return tri_alike_config(tri_mesh_group(arguments->everyone, TRI_ON_ALL), config, error);
}

/* ---- the config of a checkpoint -------------------------------------------------------------- */

/* Beside a run that goes on the newest checkpoint is another one a moment later: rank 0 looks. */
static enum tri_status resolve(const struct tri_arguments *arguments, const char *given,
                               struct tri_checkpoint_choice *choice, struct tri_error *error)
{
    struct tri_group *all = tri_mesh_group(arguments->everyone, TRI_ON_ALL);
    enum tri_status status = TRI_OK;
    if (tri_group_rank(all) == 0) {
        status = tri_checkpoint_resolve(given, choice, error);
    }
    TRI_TRY(tri_comm_agree(all, status, error));
    tri_broadcast(all, (struct tri_where){TRI_PHASE_SETUP, TRI_KIND_META}, choice->path,
                  TRI_PATH_MAX, TRI_U8, 0);
    choice->of_run = strcmp(choice->path, given) != 0;
    return TRI_OK;
}

enum tri_status tri_config_of_checkpoint(const char *given, const struct tri_arguments *arguments,
                                         struct tri_config *config,
                                         struct tri_checkpoint_choice *choice,
                                         struct tri_error *error)
{
    choice->again = false;
    TRI_TRY(resolve(arguments, given, choice, error));
    enum tri_status status =
        tri_session_config(choice->path, tri_comm_size(arguments->comm), arguments->num_overrides,
                           arguments->overrides, config, error);
    status = tri_agree_on_config(arguments, status, config, error);
    if (status != TRI_OK) {
        choice->again =
            tri_checkpoint_is_gone(choice, tri_mesh_group(arguments->everyone, TRI_ON_ALL));
    }
    return status;
}
