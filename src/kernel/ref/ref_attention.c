#include "kernel/ref/ref.h"

#include <math.h>

/* Sums over keys or queries are taken for this many columns at a time. */
enum { COLUMNS = 64 };

/* One query row: where it and its keys start, and which keys it sees. */
struct row {
    int64_t q, out, dout, dq, stat; /* element offsets */
    int64_t k, v, dk, dv;           /* of key 0 */
    int64_t first, last;            /* first <= j <= last */
};

static struct row row_of(const struct tri_attention *a, int64_t b, int64_t i, int64_t h)
{
    int64_t n = b * a->q_len + i, key = b * a->k_len;
    int64_t kv = (a->first_head + h) / a->group - a->first_kv;
    struct row row = {
        .q = n * a->ld_q + h * a->dim,
        .out = n * a->ld_out + h * a->dim,
        .dout = n * a->ld_dout + h * a->dim,
        .dq = n * a->ld_dq + h * a->dim,
        .stat = n * a->heads + h,
        .k = key * a->ld_k + kv * a->dim,
        .v = key * a->ld_v + kv * a->dim,
        .dk = key * a->ld_dk + kv * a->dim,
        .dv = key * a->ld_dv + kv * a->dim,
        .first = a->first_key ? a->first_key[n] : 0,
        .last = a->q_offset + i,
    };
    if (row.last >= a->k_len) {
        row.last = a->k_len - 1;
    }
    return row;
}

static double dot(const void *x, int64_t at_x, const void *y, int64_t at_y, int64_t n,
                  enum tri_dtype dt)
{
    double sum = 0.0;
    for (int64_t j = 0; j < n; j++) {
        sum += ref_get(x, at_x + j, dt) * ref_get(y, at_y + j, dt);
    }
    return sum;
}

static int64_t columns(const struct tri_attention *a, int64_t first)
{
    return a->dim - first < COLUMNS ? a->dim - first : COLUMNS;
}

static void add_row(double *sum, double weight, const void *x, int64_t at, int64_t n,
                    enum tri_dtype dt)
{
    for (int64_t j = 0; j < n; j++) {
        sum[j] += weight * ref_get(x, at + j, dt);
    }
}

static void set_row(void *to, int64_t at, const double *value, int64_t n, enum tri_dtype dt)
{
    for (int64_t j = 0; j < n; j++) {
        ref_set(to, at + j, dt, value[j]);
    }
}

static void forward_row(const struct tri_attention *a, struct row r, enum tri_dtype dt)
{
    double max = -HUGE_VAL, sum = 0.0;
    for (int64_t j = r.first; j <= r.last; j++) {
        max = fmax(max, a->scale * dot(a->q, r.q, a->k, r.k + j * a->ld_k, a->dim, dt));
    }
    for (int64_t j = r.first; j <= r.last; j++) {
        sum += exp(a->scale * dot(a->q, r.q, a->k, r.k + j * a->ld_k, a->dim, dt) - max);
    }
    double lse = max + log(sum);
    ref_set(a->lse, r.stat, tri_stat_dtype(dt), r.first <= r.last ? lse : (double)-INFINITY);
    for (int64_t c = 0; c < a->dim; c += COLUMNS) {
        int64_t n = columns(a, c);
        double value[COLUMNS] = {0};
        for (int64_t j = r.first; j <= r.last; j++) {
            double s = a->scale * dot(a->q, r.q, a->k, r.k + j * a->ld_k, a->dim, dt);
            add_row(value, exp(s - lse), a->v, r.v + j * a->ld_v + c, n, dt);
        }
        set_row(a->out, r.out + c, value, n, dt);
    }
}

void tri_ref_attention_forward(const struct tri_kernels *self, const struct tri_attention *args)
{
    for (int64_t b = 0; b < args->batch; b++) {
        for (int64_t i = 0; i < args->q_len; i++) {
            for (int64_t h = 0; h < args->heads; h++) {
                forward_row(args, row_of(args, b, i, h), args->dt);
            }
        }
    }
}

/* p_j and ds_j = p_j (dout.v_j - dout.out), recomputed from the log-sum-exp. */
static void backward_pair(const struct tri_attention *a, struct row r, int64_t j, enum tri_dtype dt,
                          double *p, double *ds)
{
    double s = a->scale * dot(a->q, r.q, a->k, r.k + j * a->ld_k, a->dim, dt);
    *p = exp(s - ref_get(a->lse, r.stat, tri_stat_dtype(dt)));
    *ds = *p * (dot(a->dout, r.dout, a->v, r.v + j * a->ld_v, a->dim, dt) -
                dot(a->dout, r.dout, a->out, r.out, a->dim, dt));
}

static void backward_q(const struct tri_attention *a, struct row r, enum tri_dtype dt)
{
    for (int64_t c = 0; c < a->dim; c += COLUMNS) {
        int64_t n = columns(a, c);
        double value[COLUMNS] = {0}, p, ds;
        for (int64_t j = r.first; j <= r.last; j++) {
            backward_pair(a, r, j, dt, &p, &ds);
            add_row(value, a->scale * ds, a->k, r.k + j * a->ld_k + c, n, dt);
        }
        set_row(a->dq, r.dq + c, value, n, dt);
    }
}

/* Columns c .. c + n of one key of one KV head: the sum over the query heads that read it. */
static void backward_kv(const struct tri_attention *a, int64_t b, int64_t kv, int64_t j, int64_t c,
                        enum tri_dtype dt)
{
    int64_t row = b * a->k_len + j, n = columns(a, c);
    double dk[COLUMNS] = {0}, dv[COLUMNS] = {0}, p, ds;
    for (int64_t h = 0; h < a->heads; h++) {
        for (int64_t i = 0; i < a->q_len; i++) {
            struct row r = row_of(a, b, i, h);
            bool reads = (a->first_head + h) / a->group - a->first_kv == kv;
            if (!reads || j < r.first || j > r.last) {
                continue;
            }
            backward_pair(a, r, j, dt, &p, &ds);
            add_row(dk, a->scale * ds, a->q, r.q + c, n, dt);
            add_row(dv, p, a->dout, r.dout + c, n, dt);
        }
    }
    set_row(a->dk, row * a->ld_dk + kv * a->dim + c, dk, n, dt);
    set_row(a->dv, row * a->ld_dv + kv * a->dim + c, dv, n, dt);
}

void tri_ref_attention_backward(const struct tri_kernels *self, const struct tri_attention *args)
{
    for (int64_t b = 0; b < args->batch; b++) {
        for (int64_t i = 0; i < args->q_len; i++) {
            for (int64_t h = 0; h < args->heads; h++) {
                backward_q(args, row_of(args, b, i, h), args->dt);
            }
        }
        for (int64_t kv = 0; kv < args->kv_heads; kv++) {
            for (int64_t j = 0; j < args->k_len; j++) {
                for (int64_t c = 0; c < args->dim; c += COLUMNS) {
                    backward_kv(args, b, kv, j, c, args->dt);
                }
            }
        }
    }
}
