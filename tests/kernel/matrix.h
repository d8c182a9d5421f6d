/* Matrices with strides of their own, and pieces of them: what tests of kernel_cuts compare. */
#ifndef TRIDENT_TESTS_KERNEL_MATRIX_H
#define TRIDENT_TESTS_KERNEL_MATRIX_H

#include "tensor/dtype.h"

#include <stdint.h>

/* Its data begin one element past an aligned address. */
struct matrix {
    enum tri_dtype dt;
    int64_t rows, cols, ld;
    char *block, *data;
};

/* cols + gap elements from row to row. */
struct matrix matrix_create(int64_t rows, int64_t cols, int64_t gap, enum tri_dtype dt);
/* Uniform in (-1, 1), others with each call. */
struct matrix matrix_draw(int64_t rows, int64_t cols, int64_t gap, enum tri_dtype dt);

void *matrix_at(const struct matrix *m, int64_t row, int64_t col);

/* Rows [row, row + rows) and columns [col, col + cols) of m, in a matrix of their own. */
struct matrix matrix_piece(const struct matrix *m, int64_t row, int64_t rows, int64_t col,
                           int64_t cols, int64_t gap);

/* Fails the test unless p has the bits of m from (row, col) on. */
void matrix_assert(const struct matrix *p, const struct matrix *m, int64_t row, int64_t col,
                   const char *what);

void matrix_end(struct matrix *const *matrices, int count);
#define MATRIX_END(...)                                                                            \
    matrix_end((struct matrix *const[]){__VA_ARGS__},                                              \
               (int)(sizeof((struct matrix *const[]){__VA_ARGS__}) / sizeof(struct matrix *)))

#endif
