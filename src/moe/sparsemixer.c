#include "moe/sparsemixer.h"

#include <math.h>

static bool is_taken(const struct tri_sparse_draw *draw, int64_t expert)
{
    for (int64_t j = 0; j < draw->before; j++) {
        if (draw->taken[j] == expert) {
            return true;
        }
    }
    return false;
}

/* How far an expert is inside the mask's bound, in logits. What is next to no bound, because a
 * logit is no number, is outside of the paper's and inside of the released one. */
static double margin(const struct tri_sparse_draw *draw, int64_t expert)
{
    double best = (double)draw->deciding[draw->largest];
    double z = (double)draw->deciding[expert];
    double width = draw->mixer->form == TRI_SPARSEMIXER_RELEASED ? 2 * fmax(fabs(z), best)
                                                                 : fabs(z) + fabs(best);
    return draw->mixer->range * width - (best - z);
}

/* Two comparisons reject nearly all of them. */
static bool is_left(const struct tri_sparse_draw *draw, int64_t expert)
{
    return (expert == draw->largest || margin(draw, expert) >= 0) && !is_taken(draw, expert);
}

static double term(const struct tri_sparse_draw *draw, int64_t expert)
{
    double z = (double)draw->logits[expert] - draw->top;
    return exp(draw->mixer->form == TRI_SPARSEMIXER_CORRECTED ? z / 2 : z);
}

void tri_sparse_draw_begin(struct tri_sparse_draw *draw)
{
    const int64_t experts = draw->mixer->experts;
    draw->largest = -1;
    for (int64_t e = 0; e < experts; e++) {
        bool above = draw->largest < 0 || draw->deciding[e] > draw->deciding[draw->largest];
        if (above && !is_taken(draw, e)) {
            draw->largest = e;
        }
    }
    draw->top = (double)draw->logits[draw->largest];
    draw->sum = 0;
    for (int64_t e = 0; e < experts; e++) {
        draw->sum += is_left(draw, e) ? term(draw, e) : 0;
    }
}

int64_t tri_sparse_draw_choose(const struct tri_sparse_draw *draw, double u, double *gap)
{
    const double target = u * draw->sum;
    double before = 0;
    int64_t chosen = -1;
    *gap = (double)INFINITY;
    for (int64_t e = 0; e < draw->mixer->experts; e++) {
        if (is_taken(draw, e)) {
            continue;
        }
        if (e != draw->largest) {
            *gap = fmin(*gap, fabs(margin(draw, e)));
        }
        if (!is_left(draw, e)) {
            continue;
        }
        if (before > 0) {
            *gap = fmin(*gap, fabs(target - before) / draw->sum);
        }
        if (chosen < 0 || target >= before) {
            chosen = e;
        }
        before += term(draw, e);
    }
    return chosen;
}

int64_t tri_sparse_draw_largest(const struct tri_sparse_draw *draw, double *gap)
{
    *gap = (double)INFINITY;
    for (int64_t e = 0; e < draw->mixer->experts; e++) {
        if (e != draw->largest && !is_taken(draw, e)) {
            *gap = fmin(*gap, (double)draw->deciding[draw->largest] - (double)draw->deciding[e]);
        }
    }
    return draw->largest;
}

void tri_sparse_draw_take(struct tri_sparse_draw *draw, int64_t chosen)
{
    draw->chosen = chosen;
    draw->share = is_left(draw, chosen) ? term(draw, chosen) / draw->sum : 0;
}

double tri_sparse_draw_slope(const struct tri_sparse_draw *draw, int64_t expert)
{
    double p = is_left(draw, expert) ? term(draw, expert) / draw->sum : 0;
    return draw->share * ((expert == draw->chosen ? 1 : 0) - p);
}

double tri_sparsemixer_rate(const struct tri_sparsemixer *mixer)
{
    return mixer->form == TRI_SPARSEMIXER_CORRECTED ? 5.0 / 8 : 1.0 / 4;
}

double tri_sparsemixer_scale(const struct tri_sparsemixer *mixer, bool largest, bool full)
{
    if (largest || full) {
        return 1;
    }
    return mixer->form == TRI_SPARSEMIXER_RELEASED ? 0.3333 : 1.0 / 3;
}

double tri_sparsemixer_back(const struct tri_sparsemixer *mixer, double scale)
{
    return mixer->form == TRI_SPARSEMIXER_RELEASED    ? scale
           : mixer->form == TRI_SPARSEMIXER_CORRECTED ? 2
                                                      : 1;
}
