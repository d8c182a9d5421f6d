#include "train/resume.h"

#include "base/log.h"
#include "base/path.h"
#include "optim/optim.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TEXT_BYTES = 1024, NUMBER_BYTES = 32 };

/* ---- what must be the same ------------------------------------------------------------------- */

/* Whether PATH/NAME, links followed, is `folder` or lies in it. */
static bool lies_in(const char *path, const char *name, const char *folder)
{
    char text[TRI_PATH_MAX + 32];
    tri_path_make(text, sizeof(text), "%s/%s", path, name);
    char *real = realpath(text, NULL);
    size_t length = strlen(folder);
    bool inside =
        real && strncmp(real, folder, length) == 0 && (real[length] == '\0' || real[length] == '/');
    free(real);
    return inside;
}

enum tri_status tri_resume_check_fresh(const struct tri_config *config, struct tri_error *error)
{
    const struct {
        const char *key, *path;
    } read[] = {{"resume", config->resume},
                {"init_from", config->init_from},
                {"train.lora.adapter", config->train.lora.adapter}};
    char text[TRI_PATH_MAX + 32];
    tri_path_make(text, sizeof(text), "%s/checkpoints", config->run_dir);
    char *removed = realpath(text, NULL);
    enum tri_status status = TRI_OK;
    for (int i = 0; i < 3 && status == TRI_OK && removed; i++) {
        if (read[i].path[0] && (lies_in(read[i].path, ".", removed) ||
                                lies_in(read[i].path, "checkpoints", removed))) {
            status = tri_config_refuse(config, error, read[i].key,
                                       "'%.300s' is of this run_dir, and --fresh would remove it: "
                                       "expected another run_dir",
                                       read[i].path);
        }
    }
    free(removed);
    return status;
}

/* Starting over helps where the checkpoint is this run's own, and not one that `resume` names. */
static const char *advice(const char *path, const struct tri_config *config, const char *text)
{
    size_t length = strlen(config->run_dir);
    bool own = strncmp(path, config->run_dir, length) == 0 &&
               strncmp(path + length, "/checkpoints/", strlen("/checkpoints/")) == 0;
    return own ? text : "";
}

/* A checkpoint of an older program has the name of its data alone. */
static enum tri_status check_name(const char *path, const struct tri_config *before,
                                  const struct tri_config *config, bool accept_data,
                                  struct tri_error *error)
{
    if (!accept_data && strcmp(before->data.train, config->data.train) != 0) {
        return tri_fail(error, TRI_BAD_INPUT,
                        "%.300s: was trained on '%.300s' and does not say what was in it, found "
                        "data.train '%.300s'; --accept-data goes on",
                        path, before->data.train, config->data.train);
    }
    tri_log_note("%s was written by an older version: whether data.train holds what it was trained "
                 "on cannot be said",
                 path);
    return TRI_OK;
}

static enum tri_status check_data(const char *path, const struct tri_config *config,
                                  const struct tri_checkpoint_state *before,
                                  const struct tri_checkpoint_state *data, bool accept_data,
                                  struct tri_error *error)
{
    if (before->data_tokens == data->data_tokens && before->data_contents == data->data_contents) {
        return TRI_OK;
    }
    if (!accept_data) {
        return tri_fail(error, TRI_BAD_INPUT,
                        "%.300s: was trained on other data: data.train '%.300s' has %" PRId64
                        " tokens, contents %016" PRIx64 ", expected %" PRId64 ", %016" PRIx64
                        "; --accept-data goes on with them%s",
                        path, config->data.train, data->data_tokens, data->data_contents,
                        before->data_tokens, before->data_contents,
                        advice(path, config, ", --fresh starts over"));
    }
    tri_log_note("data.train '%s' holds other tokens than the run began with: %" PRId64
                 " instead of %" PRId64 "; the samples are counted on",
                 config->data.train, data->data_tokens, before->data_tokens);
    return TRI_OK;
}

static enum tri_status check_keys(const char *path, const struct tri_config *before,
                                  const struct tri_config *config, bool trained,
                                  struct tri_error *error)
{
    char text[256];
    const char *key = tri_config_first_difference(before, config, trained, text, sizeof(text));
    return key ? tri_fail(error, TRI_BAD_INPUT, "%s: was written with another '%s' (%s)%s", path,
                          key, text, advice(path, config, "; --fresh starts over"))
               : TRI_OK;
}

static enum tri_status check(const char *path, const struct tri_config *config,
                             const struct tri_checkpoint_state *state,
                             const struct tri_checkpoint_state *data, bool accept_data,
                             struct tri_error *error)
{
    struct tri_config before;
    bool trained = state->step > 0;
    TRI_TRY(tri_checkpoint_config_of(path, state, config->known, &before, error));
    TRI_TRY(check_keys(path, &before, config, trained, error));
    if (!trained) {
        return TRI_OK;
    }
    return state->data_tokens > 0 ? check_data(path, config, state, data, accept_data, error)
                                  : check_name(path, &before, config, accept_data, error);
}

enum tri_status tri_resume_check(const char *path, const struct tri_config *config,
                                 const struct tri_checkpoint_state *data, bool accept_data,
                                 struct tri_error *error)
{
    struct tri_checkpoint_state state;
    enum tri_status status = tri_checkpoint_read_state(path, &state, error);
    if (status == TRI_OK) {
        status = check(path, config, &state, data, accept_data, error);
    }
    tri_checkpoint_state_fini(&state);
    return status;
}

/* ---- what may change ------------------------------------------------------------------------- */

/* Three digits and no more than are needed, "1.07e-4". */
static void spell_rate(double rate, char text[NUMBER_BYTES])
{
    char digits[NUMBER_BYTES];
    (void)snprintf(digits, sizeof(digits), "%.2e", rate);
    char *exponent = strchr(digits, 'e');
    char *end = exponent;
    while (end > digits + 1 && (end[-1] == '0' || end[-1] == '.')) {
        end--;
    }
    (void)snprintf(text, NUMBER_BYTES, "%.*se%ld", (int)(end - digits), digits,
                   strtol(exponent + 1, NULL, 10));
}

/* The rate of the last step, and that of the next where the config before would have taken another
 * one. */
static void tell_rate(const struct tri_config *before, const struct tri_config *now, int64_t step,
                      char text[TEXT_BYTES])
{
    double next = tri_learning_rate(&now->train, step);
    text[0] = '\0';
    if (step > 0 && next != tri_learning_rate(&before->train, step)) {
        char from[NUMBER_BYTES], to[NUMBER_BYTES];
        spell_rate(tri_learning_rate(&before->train, step - 1), from);
        spell_rate(next, to);
        if (strcmp(from, to) != 0) {
            (void)snprintf(text, TEXT_BYTES, "; rate %s → %s", from, to);
        }
    }
}

static void tell_changes(const struct tri_config *before, const struct tri_config *now,
                         const struct tri_checkpoint_state *state)
{
    char changes[TEXT_BYTES], rate[TEXT_BYTES], output[TEXT_BYTES], sample[TEXT_BYTES] = "";
    /* Of what has not been trained yet there is nothing that could go on in another way. */
    enum tri_key_effect least = state->step > 0 ? TRI_EFFECT_TRAINING : TRI_EFFECT_OUTPUT;
    int count = tri_config_list_changes(before, now, least, changes, sizeof(changes));
    if (count == 0) {
        return;
    }
    tell_rate(before, now, state->step, rate);
    if (state->step > 0 && before->train.global_batch != now->train.global_batch) {
        (void)snprintf(sample, sizeof(sample), "; the next sample is %" PRId64, state->samples);
    }
    bool other =
        tri_config_list_changes(before, now, TRI_EFFECT_OUTPUT, output, sizeof(output)) > 0;
    tri_log_note("changed  %s%s%s%s", changes, rate, sample,
                 other ? "; the weights give other results than they were trained for" : "");
}

enum tri_status tri_resume_begin(const char *path, const struct tri_config *config,
                                 struct tri_checkpoint_state *state, struct tri_error *error)
{
    struct tri_config before;
    TRI_TRY(tri_checkpoint_config_of(path, state, config->known, &before, error));
    if (state->samples < 0) {
        state->samples = state->step * before.train.global_batch;
    }
    tell_changes(&before, config, state);
    return TRI_OK;
}
