/* A curve of any number of points in a fixed number of buckets: least, most and mean of each. When
 * the steps outgrow them two become one, so no point is left out and none is held. */
#ifndef TRIDENT_REPORT_THIN_H
#define TRIDENT_REPORT_THIN_H

#include <stdint.h>

enum { TRI_THIN_BUCKETS = 512 };

struct tri_thin_bucket {
    int64_t count; /* 0: nothing in it */
    int64_t first, last;
    double least, most, sum;
};

struct tri_thin {
    int64_t width; /* steps of a bucket; 0: no point yet */
    int64_t points, not_finite;
    double latest;
    struct tri_thin_bucket bucket[TRI_THIN_BUCKETS];
};

/* step from 0 on. A value that is not finite is counted and drawn nowhere. */
void tri_thin_add(struct tri_thin *thin, int64_t step, double value);
/* Buckets up to the last with something in it. */
int tri_thin_count(const struct tri_thin *thin);
/* Over all points; 0 where there are none. */
double tri_thin_least(const struct tri_thin *thin);
double tri_thin_most(const struct tri_thin *thin);

#endif
