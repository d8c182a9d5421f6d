#include "train/scribe.h"

#include "base/memory.h"
#include "train/ending.h"

#include <stdlib.h>

struct tri_scribe {
    const struct tri_run_folder *folder;
    const struct tri_config *config;
    struct tri_events *events; /* NULL: none are wanted */
};

enum tri_status tri_scribe_create(const struct tri_run_folder *folder,
                                  const struct tri_config *config, const struct tri_ledger *ledger,
                                  int64_t step, struct tri_scribe **scribe, struct tri_error *error)
{
    struct tri_scribe *s = tri_alloc(TRI_MEMORY_OTHER, sizeof(*s));
    s->folder = folder;
    s->config = config;
    *scribe = s;
    if (!config->metrics_tensorboard) {
        return TRI_OK;
    }
    /* A run that begins evaluates step 0 again. */
    enum tri_status status =
        tri_events_create(folder, config, ledger, step > 0 ? step + 1 : 0, &s->events, error);
    return tri_ending_of_own_file(status, error);
}

void tri_scribe_destroy(struct tri_scribe *scribe)
{
    if (scribe) {
        tri_events_destroy(scribe->events);
    }
    tri_free(scribe);
}

static bool divides(int64_t every, int64_t step)
{
    return every > 0 && step % every == 0;
}

static enum tri_status write_line(const struct tri_scribe *scribe, char *line,
                                  struct tri_error *error)
{
    enum tri_status status = tri_run_folder_add_metrics(scribe->folder, line, error);
    free(line);
    return tri_ending_of_own_file(status, error);
}

enum tri_status tri_scribe_step(struct tri_scribe *scribe, struct tri_metrics *metrics, bool wanted,
                                const struct tri_ledger *ledger, struct tri_error *error)
{
    const struct tri_config *config = scribe->config;
    const bool last = metrics->step == config->train.steps;
    metrics->with_load = last || divides(config->metrics_load_every, metrics->step);
    if (!wanted && !last && metrics->report->finite &&
        !divides(config->metrics_every, metrics->step)) {
        return TRI_OK;
    }
    TRI_TRY(write_line(scribe, tri_metrics_line(config, metrics), error));
    if (!scribe->events) {
        return TRI_OK;
    }
    enum tri_status status = tri_events_step(scribe->events, metrics, ledger, error);
    return tri_ending_of_own_file(status, error);
}

enum tri_status tri_scribe_evaluation(struct tri_scribe *scribe, int64_t step,
                                      const struct tri_texts *texts,
                                      const struct tri_evaluation *evaluations,
                                      struct tri_error *error)
{
    TRI_TRY(write_line(
        scribe, tri_metrics_evaluation_line(scribe->config, step, texts, evaluations), error));
    if (!scribe->events) {
        return TRI_OK;
    }
    enum tri_status status = tri_events_evaluation(scribe->events, step, texts, evaluations, error);
    return tri_ending_of_own_file(status, error);
}
