#include "base/clock.h"
#include "base/memory.h"
#include "train/metrics.h"

#include <math.h>
#include <stdio.h>
#include <unistd.h>

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
    progress->live = isatty(STDERR_FILENO) == 1;
    return progress;
}

void tri_progress_destroy(struct tri_progress *progress)
{
    if (progress && progress->live && progress->shown) {
        (void)fputc('\n', stderr);
    }
    tri_free(progress);
}

/* "1h02m", "3m20s", "12s" */
static void format_time(double seconds, char text[32])
{
    long total = lround(seconds);
    if (total >= 3600) {
        (void)snprintf(text, 32, "%ldh%02ldm", total / 3600, total / 60 % 60);
    } else if (total >= 60) {
        (void)snprintf(text, 32, "%ldm%02lds", total / 60, total % 60);
    } else {
        (void)snprintf(text, 32, "%lds", total);
    }
}

static void format_step(const struct tri_progress *progress, const struct tri_metrics *metrics,
                        char text[TEXT])
{
    const struct tri_config *config = progress->config;
    char left[32], loss[32] = "no target counted";
    if (metrics->report->targets > 0) {
        (void)snprintf(loss, sizeof(loss), "loss %.4f", metrics->report->loss);
    }
    format_time(progress->step_seconds * (double)(config->train.steps - metrics->step), left);
    int n = snprintf(text, TEXT, "step %lld/%lld  %s  %.0f tokens/s  %s left",
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
    (void)fprintf(stderr, progress->live ? "\r\033[K%s" : "%s\n", text);
    (void)fflush(stderr);
    progress->last_print = now;
    progress->shown++;
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
        (void)fprintf(stderr, "%sstep %lld  validation %s%s%s\n", progress->live ? "\r\033[K" : "",
                      (long long)step, texts->name[i], texts->name[i][0] ? ": " : "", loss);
    }
}
