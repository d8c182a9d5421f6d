#include "kernel/matrix.h"

#include "base/memory.h"
#include "base/random.h"
#include "kernel/ref/ref.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

struct matrix matrix_create(int64_t rows, int64_t cols, int64_t gap, enum tri_dtype dt)
{
    struct matrix m = {.dt = dt, .rows = rows, .cols = cols, .ld = cols + gap};
    m.block = tri_alloc(TRI_MEMORY_OTHER, (size_t)(rows * m.ld + 1) * tri_dtype_size(dt));
    m.data = m.block + tri_dtype_size(dt);
    return m;
}

struct matrix matrix_draw(int64_t rows, int64_t cols, int64_t gap, enum tri_dtype dt)
{
    static uint64_t seed;
    seed++;
    struct matrix m = matrix_create(rows, cols, gap, dt);
    for (int64_t i = 0; i < rows * m.ld; i++) {
        ref_set(m.data, i, dt, 2.0 * tri_random_uniform(seed, 0, (uint64_t)i) - 1.0);
    }
    return m;
}

void *matrix_at(const struct matrix *m, int64_t row, int64_t col)
{
    return m->data + (size_t)(row * m->ld + col) * tri_dtype_size(m->dt);
}

struct matrix matrix_piece(const struct matrix *m, int64_t row, int64_t rows, int64_t col,
                           int64_t cols, int64_t gap)
{
    struct matrix p = matrix_create(rows, cols, gap, m->dt);
    for (int64_t i = 0; i < rows; i++) {
        memcpy(matrix_at(&p, i, 0), matrix_at(m, row + i, col),
               (size_t)cols * tri_dtype_size(m->dt));
    }
    return p;
}

void matrix_assert(const struct matrix *p, const struct matrix *m, int64_t row, int64_t col,
                   const char *what)
{
    for (int64_t i = 0; i < p->rows; i++) {
        if (memcmp(matrix_at(p, i, 0), matrix_at(m, row + i, col),
                   (size_t)p->cols * tri_dtype_size(m->dt)) != 0) {
            fail_msg("%s: other bits in row %lld of the piece at (%lld, %lld)", what, (long long)i,
                     (long long)row, (long long)col);
        }
    }
}

void matrix_end(struct matrix *const *matrices, int count)
{
    for (int i = 0; i < count; i++) {
        tri_free(matrices[i]->block);
    }
}
