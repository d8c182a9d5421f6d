#include "kernel/ref/ref.h"

void tri_ref_embedding_forward(const struct tri_kernels *self, const struct tri_embedding_args *a)
{
    for (int64_t i = 0; i < a->n; i++) {
        int64_t row = a->tokens[i] - a->first_row;
        bool here = 0 <= row && row < a->rows;
        for (int64_t j = 0; j < a->width; j++) {
            ref_set(a->y, i * a->width + j, a->dt,
                    here ? ref_get(a->table, row * a->width + j, a->dt) : -0.0);
        }
    }
}

static bool seen_before(const int32_t *tokens, int64_t i)
{
    int64_t j = 0;
    while (tokens[j] != tokens[i]) {
        j++;
    }
    return j < i;
}

void tri_ref_embedding_backward(const struct tri_kernels *self, const struct tri_embedding_args *a)
{
    for (int64_t i = 0; i < a->n; i++) {
        int64_t row = a->tokens[i] - a->first_row;
        if (row < 0 || row >= a->rows || seen_before(a->tokens, i)) {
            continue;
        }
        for (int64_t j = 0; j < a->width; j++) {
            double sum = 0.0;
            for (int64_t l = i; l < a->n; l++) {
                sum += a->tokens[l] == a->tokens[i] ? ref_get(a->dy, l * a->width + j, a->dt) : 0.0;
            }
            ref_add(a->dtable, row * a->width + j, a->table_dtype, sum);
        }
    }
}

void tri_ref_gather_rows(const struct tri_kernels *self, const struct tri_gather_args *a)
{
    for (int64_t i = 0; i < a->n; i++) {
        for (int64_t j = 0; j < a->width; j++) {
            double value =
                a->index[i] < 0 ? 0.0 : ref_get(a->src, a->index[i] * a->width + j, a->dt);
            ref_set(a->dst, i * a->width + j, a->dt, value);
        }
    }
}

void tri_ref_combine_rows(const struct tri_kernels *self, const struct tri_combine_args *a)
{
    enum tri_dtype stat = tri_stat_dtype(a->dt);
    for (int64_t t = 0; t < a->n; t++) {
        for (int64_t j = 0; j < a->width; j++) {
            double sum = a->add ? ref_get(a->add, t * a->width + j, a->dt) : 0.0;
            for (int64_t c = t * a->k; c < (t + 1) * a->k; c++) {
                if (a->index[c] >= 0) {
                    double w = a->weight ? ref_get(a->weight, c, stat) : 1.0;
                    sum += w * ref_get(a->rows, a->index[c] * a->width + j, a->dt);
                }
            }
            ref_set(a->y, t * a->width + j, a->dt, sum);
        }
    }
}

void tri_ref_combine_rows_backward(const struct tri_kernels *self, const struct tri_combine_args *a)
{
    enum tri_dtype stat = tri_stat_dtype(a->dt);
    for (int64_t c = 0; c < a->n * a->k; c++) {
        double dot = 0.0;
        for (int64_t j = 0; j < a->width && a->index[c] >= 0; j++) {
            double d = ref_get(a->dy, c / a->k * a->width + j, a->dt);
            dot += d * ref_get(a->rows, a->index[c] * a->width + j, a->dt);
            ref_set(a->drows, a->index[c] * a->width + j, a->dt, ref_get(a->weight, c, stat) * d);
        }
        ref_set(a->dweight, c, stat, dot);
    }
}

void tri_ref_scale_rows_add(const struct tri_kernels *self, const struct tri_scale_args *a)
{
    for (int64_t i = 0; i < a->n * a->width; i++) {
        double scale = ref_get(a->gate, i / a->width, tri_stat_dtype(a->dt));
        ref_set(a->y, i, a->dt, ref_get(a->add, i, a->dt) + scale * ref_get(a->x, i, a->dt));
    }
}

void tri_ref_row_dots(const struct tri_kernels *self, const struct tri_dots_args *a)
{
    for (int64_t i = 0; i < a->n; i++) {
        double dot = 0.0;
        for (int64_t j = 0; j < a->width; j++) {
            dot += ref_get(a->left, i * a->width + j, a->dt) *
                   ref_get(a->right, i * a->width + j, a->dt);
        }
        ref_set(a->dots, i, tri_stat_dtype(a->dt), dot);
    }
}
