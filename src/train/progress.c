#include "base/clock.h"
#include "base/memory.h"
#include "base/meter.h"
#include "train/metrics.h"

#include <math.h>
#include <stdio.h>

enum { TEXT = 200 };

struct tri_progress {
    const struct tri_config *config;
    bool live;           /* one line, written over */
    double step_seconds; /* running mean */
    double last_print;   /* plain lines: at most one a few seconds */
    int64_t shown;
};

struct tri_progress *tri_progress_create(const struct tri_config *config)
{
    struct tri_progress *progress = tri_alloc(TRI_MEMORY_OTHER, sizeof(*progress));
    progress->config = config;
    progress->live = tri_live_is_there();
    return progress;
}

void tri_progress_destroy(struct tri_progress *progress)
{
    if (progress && progress->live) {
        tri_live_keep();
    }
    tri_free(progress);
}

static void format_step(const struct tri_progress *progress, const struct tri_metrics *metrics,
                        char text[TEXT])
{
    const struct tri_config *config = progress->config;
    char left[32], loss[32] = "no target counted";
    if (metrics->report->targets > 0) {
        (void)snprintf(loss, sizeof(loss), "loss %6.4f", metrics->report->loss);
    }
    tri_meter_time(progress->step_seconds * (double)(config->train.steps - metrics->step), left);
    int wide = snprintf(NULL, 0, "%lld", (long long)config->train.steps);
    int n = snprintf(text, TEXT, "step %*lld/%lld  %s  %6.0f tokens/s  %6s left", wide,
                     (long long)metrics->step, (long long)config->train.steps, loss,
                     (double)metrics->batch_tokens / progress->step_seconds, left);
    if (tri_model_moe_layers(config) > 0 && n > 0 && n < TEXT) {
        struct tri_balance balance = tri_balance_get(config, metrics->report->load);
        n += snprintf(text + n, (size_t)(TEXT - n), "  experts max/mean %.2f", balance.worst);
        if (balance.dead && n < TEXT) {
            n += snprintf(text + n, (size_t)(TEXT - n), ", %lld idle", (long long)balance.dead);
        }
    }
    if (metrics->skipped_steps && n > 0 && n < TEXT) {
        (void)snprintf(text + n, (size_t)(TEXT - n), "  skipped %lld",
                       (long long)metrics->skipped_steps);
    }
}

void tri_progress_step(struct tri_progress *progress, const struct tri_metrics *metrics)
{
    double now = tri_clock_now();
    double weight = progress->step_seconds > 0.0 ? 0.1 : 1.0;
    progress->step_seconds += weight * (metrics->seconds - progress->step_seconds);
    bool last = metrics->step == progress->config->train.steps;
    double pause = progress->live ? 0.1 : 5.0;
    if (progress->shown && !last && now - progress->last_print < pause) {
        return;
    }
    char text[TEXT];
    format_step(progress, metrics, text);
    if (progress->live) {
        tri_live_show(text);
        if (last) {
            tri_live_keep();
        }
    } else {
        (void)fprintf(stderr, "%s\n", text);
        (void)fflush(stderr);
    }
    progress->last_print = now;
    progress->shown++;
}

void tri_progress_warm(const struct tri_progress *progress, int64_t step)
{
    char text[TEXT];
    if (progress->live) {
        (void)snprintf(text, sizeof(text), "step %lld/%lld  the first step of a start warms up",
                       (long long)step, (long long)progress->config->train.steps);
        tri_live_show(text);
    }
}

void tri_progress_evaluation(struct tri_progress *progress, int64_t step,
                             const struct tri_texts *texts,
                             const struct tri_evaluation *evaluations)
{
    for (int i = 0; i < texts->count; i++) {
        char loss[80] = "no target counted";
        if (evaluations[i].targets > 0) {
            (void)snprintf(loss, sizeof(loss), "loss %.4f  perplexity %.2f", evaluations[i].loss,
                           exp(evaluations[i].loss));
        }
        if (progress->live) {
            tri_live_hide();
        }
        (void)fprintf(stderr, "step %lld  validation %s%s%s\n", (long long)step, texts->name[i],
                      texts->name[i][0] ? ": " : "", loss);
    }
}
