#include "kernel/ref/ref.h"

void tri_ref_embedding_forward(const void *table, const int32_t *tokens, int64_t first_row,
                               int64_t rows, void *y, int64_t n, int64_t width, enum tri_dtype dt)
{
    for (int64_t i = 0; i < n; i++) {
        int64_t row = tokens[i] - first_row;
        bool here = 0 <= row && row < rows;
        for (int64_t j = 0; j < width; j++) {
            ref_set(y, i * width + j, dt, here ? ref_get(table, row * width + j, dt) : -0.0);
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

void tri_ref_embedding_backward(void *dtable, enum tri_dtype table_dtype, const int32_t *tokens,
                                int64_t first_row, int64_t rows, const void *dy, int64_t n,
                                int64_t width, enum tri_dtype dt)
{
    for (int64_t i = 0; i < n; i++) {
        int64_t row = tokens[i] - first_row;
        if (row < 0 || row >= rows || seen_before(tokens, i)) {
            continue;
        }
        for (int64_t j = 0; j < width; j++) {
            double sum = 0.0;
            for (int64_t l = i; l < n; l++) {
                sum += tokens[l] == tokens[i] ? ref_get(dy, l * width + j, dt) : 0.0;
            }
            ref_add(dtable, row * width + j, table_dtype, sum);
        }
    }
}

void tri_ref_gather_rows(const void *src, const int32_t *index, void *dst, int64_t n, int64_t width,
                         enum tri_dtype dt)
{
    for (int64_t i = 0; i < n; i++) {
        for (int64_t j = 0; j < width; j++) {
            double value = index[i] < 0 ? 0.0 : ref_get(src, index[i] * width + j, dt);
            ref_set(dst, i * width + j, dt, value);
        }
    }
}

void tri_ref_combine_rows(const void *rows, const int32_t *index, const void *weight,
                          const void *add, void *y, int64_t n, int64_t k, int64_t width,
                          enum tri_dtype dt)
{
    enum tri_dtype stat = tri_stat_dtype(dt);
    for (int64_t t = 0; t < n; t++) {
        for (int64_t j = 0; j < width; j++) {
            double sum = add ? ref_get(add, t * width + j, dt) : 0.0;
            for (int64_t c = t * k; c < (t + 1) * k; c++) {
                if (index[c] >= 0) {
                    double w = weight ? ref_get(weight, c, stat) : 1.0;
                    sum += w * ref_get(rows, index[c] * width + j, dt);
                }
            }
            ref_set(y, t * width + j, dt, sum);
        }
    }
}

void tri_ref_combine_rows_backward(const void *dy, const void *rows, const int32_t *index,
                                   const void *weight, void *drows, void *dweight, int64_t n,
                                   int64_t k, int64_t width, enum tri_dtype dt)
{
    enum tri_dtype stat = tri_stat_dtype(dt);
    for (int64_t c = 0; c < n * k; c++) {
        double dot = 0.0;
        for (int64_t j = 0; j < width && index[c] >= 0; j++) {
            double d = ref_get(dy, c / k * width + j, dt);
            dot += d * ref_get(rows, index[c] * width + j, dt);
            ref_set(drows, index[c] * width + j, dt, ref_get(weight, c, stat) * d);
        }
        ref_set(dweight, c, stat, dot);
    }
}

void tri_ref_scale_rows_add(const void *x, const void *gate, const void *add, void *y, int64_t n,
                            int64_t width, enum tri_dtype dt)
{
    for (int64_t i = 0; i < n * width; i++) {
        double scale = ref_get(gate, i / width, tri_stat_dtype(dt));
        ref_set(y, i, dt, ref_get(add, i, dt) + scale * ref_get(x, i, dt));
    }
}

void tri_ref_row_dots(const void *a, const void *b, void *dots, int64_t n, int64_t width,
                      enum tri_dtype dt)
{
    for (int64_t i = 0; i < n; i++) {
        double dot = 0.0;
        for (int64_t j = 0; j < width; j++) {
            dot += ref_get(a, i * width + j, dt) * ref_get(b, i * width + j, dt);
        }
        ref_set(dots, i, tri_stat_dtype(dt), dot);
    }
}
