#include "report/thin.h"

#include <math.h>

static void join(struct tri_thin_bucket *a, const struct tri_thin_bucket *b)
{
    if (b->count == 0) {
        return;
    }
    if (a->count == 0) {
        *a = *b;
        return;
    }
    a->count += b->count;
    a->first = b->first < a->first ? b->first : a->first;
    a->last = b->last > a->last ? b->last : a->last;
    a->least = fmin(a->least, b->least);
    a->most = fmax(a->most, b->most);
    a->sum += b->sum;
}

static void halve(struct tri_thin *thin)
{
    for (int i = 0; i < TRI_THIN_BUCKETS / 2; i++) {
        struct tri_thin_bucket both = thin->bucket[2 * i];
        join(&both, &thin->bucket[2 * i + 1]);
        thin->bucket[i] = both;
    }
    for (int i = TRI_THIN_BUCKETS / 2; i < TRI_THIN_BUCKETS; i++) {
        thin->bucket[i] = (struct tri_thin_bucket){0};
    }
    thin->width *= 2;
}

void tri_thin_add(struct tri_thin *thin, int64_t step, double value)
{
    if (!isfinite(value) || step < 0) {
        thin->not_finite++;
        return;
    }
    thin->width = thin->width ? thin->width : 1;
    while (step / thin->width >= TRI_THIN_BUCKETS) {
        halve(thin);
    }
    const struct tri_thin_bucket point = {1, step, step, value, value, value};
    join(&thin->bucket[step / thin->width], &point);
    thin->points++;
    thin->latest = value;
}

int tri_thin_count(const struct tri_thin *thin)
{
    int count = TRI_THIN_BUCKETS;
    while (count > 0 && thin->bucket[count - 1].count == 0) {
        count--;
    }
    return count;
}

double tri_thin_least(const struct tri_thin *thin)
{
    double least = (double)INFINITY;
    for (int i = 0; i < TRI_THIN_BUCKETS; i++) {
        least = thin->bucket[i].count ? fmin(least, thin->bucket[i].least) : least;
    }
    return isfinite(least) ? least : 0.0;
}

double tri_thin_most(const struct tri_thin *thin)
{
    double most = -(double)INFINITY;
    for (int i = 0; i < TRI_THIN_BUCKETS; i++) {
        most = thin->bucket[i].count ? fmax(most, thin->bucket[i].most) : most;
    }
    return isfinite(most) ? most : 0.0;
}
