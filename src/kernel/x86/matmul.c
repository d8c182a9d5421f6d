/* Deals the tiles of products out to threads. Tiles are taken in order by whoever is free, so a
 * group of unequal products keeps every thread busy; which thread computes a tile changes no bit of
 * it (product.h). */
#include "base/status.h"
#include "kernel/own.h"
#include "kernel/x86/product.h"
#include "kernel/x86/scratch.h"

#include <omp.h>

/* The tile's extent, and what one product's cut into such tiles looks like. */
struct cut {
    int64_t rows, cols;
};

static int64_t ceil_div(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

/* The even share of total that is at most `limit`, rounded up to a multiple of `step`. */
static int64_t share(int64_t total, int64_t limit, int64_t step)
{
    int64_t parts = ceil_div(total, limit);
    int64_t even = ceil_div(ceil_div(total, parts > 0 ? parts : 1), step) * step;
    return even < limit ? even : limit;
}

static int64_t tiles_of(const struct tri_matmul *p, struct cut cut)
{
    return p->m > 0 && p->n > 0 ? ceil_div(p->m, cut.rows) * ceil_div(p->n, cut.cols) : 0;
}

static int64_t tiles_of_all(const struct tri_matmul *products, int64_t count, struct cut cut)
{
    int64_t tiles = 0;
    for (int64_t i = 0; i < count; i++) {
        tiles += tiles_of(&products[i], cut);
    }
    return tiles;
}

/* The largest tiles that still give each thread a few: columns are cut first, because what a tile
 * of many rows saves, packing the columns, costs more than packing rows. */
static struct cut cut_get(const struct tri_matmul *products, int64_t count,
                          const struct tri_product_isa *isa, int64_t threads)
{
    enum { EACH = 4, LEAST_ROWS = 96, LEAST_COLS = 64 };
    int64_t m = 0, n = 0;
    for (int64_t i = 0; i < count; i++) {
        m = products[i].m > m ? products[i].m : m;
        n = products[i].n > n ? products[i].n : n;
    }
    int64_t rows = TRI_PRODUCT_ROWS, cols = TRI_PRODUCT_COLS;
    for (;;) {
        struct cut cut = {share(m, rows, isa->rows), share(n, cols, isa->cols)};
        if (threads == 1 || tiles_of_all(products, count, cut) >= EACH * threads) {
            return cut;
        }
        if (cols > LEAST_COLS && (cols >= rows || rows <= LEAST_ROWS)) {
            cols /= 2;
        } else if (rows > LEAST_ROWS) {
            rows /= 2;
        } else {
            return cut;
        }
    }
}

static struct tri_product_tile tile_at(const struct tri_matmul *p, struct cut cut, int64_t index)
{
    int64_t across = ceil_div(p->n, cut.cols);
    int64_t row = index / across * cut.rows, col = index % across * cut.cols;
    return (struct tri_product_tile){
        .row = row,
        .rows = p->m - row < cut.rows ? p->m - row : cut.rows,
        .col = col,
        .cols = p->n - col < cut.cols ? p->n - col : cut.cols,
    };
}

/* One thread's share. next is shared: the first tile that nobody has taken. */
static void work(const struct tri_kernels *self, const struct tri_product_isa *isa,
                 const struct tri_matmul *products, int64_t count, struct cut cut, int64_t *next)
{
    void *scratch = tri_scratch_get(self, isa->scratch);
    double began = tri_kernels_enter();
    int64_t product = 0, before = 0;
    for (;;) {
        int64_t tile;
#pragma omp atomic capture
        tile = (*next)++;
        while (product < count && tile - before >= tiles_of(&products[product], cut)) {
            before += tiles_of(&products[product], cut);
            product++;
        }
        if (product == count) {
            break;
        }
        const struct tri_matmul *p = &products[product];
        isa->compute(p, tile_at(p, cut, tile - before), scratch);
    }
    tri_kernels_leave(began, "products");
}

void tri_product_run(const struct tri_kernels *self, const struct tri_product_isa *isa,
                     const struct tri_matmul *products, int64_t count)
{
    enum { FORK = 1 << 18 }; /* multiplications that are worth starting threads for */
    double multiplications = 0.0;
    for (int64_t i = 0; i < count; i++) {
        const struct tri_matmul *p = &products[i];
        TRI_REQUIRE(p->ab_dtype == TRI_F32 || p->ab_dtype == TRI_BF16);
        TRI_REQUIRE(p->c_dtype == TRI_F32 || p->c_dtype == p->ab_dtype || p->c_dtype == TRI_I64);
        TRI_REQUIRE(p->c_dtype == TRI_I64 ? p->fixed && !p->bias : !p->cuts);
        TRI_REQUIRE(!(p->bias && p->accumulate));
        multiplications += (double)p->m * (double)p->n * (double)p->k;
    }
    bool fork = multiplications > FORK && !omp_in_parallel();
    struct cut cut = cut_get(products, count, isa, fork ? self->threads : 1);
    int64_t next = 0;
#pragma omp parallel num_threads(self->threads) if (fork)
    work(self, isa, products, count, cut, &next);
}
