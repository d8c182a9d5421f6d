/* What test_cuts.c says, of the operations on rows: some rows, some columns or one head of a call
 * have the bits that they have in the whole. */
#include "kernel/matrix.h"
#include "kernel/pair.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

struct block {
    int64_t row, rows, col, cols;
};

enum { TOKENS = 300, WIDTH = 333 };

static const struct block stretches[] = {
    {0, 1, 0, 0}, {1, 8, 0, 0}, {9, 290, 0, 0}, {299, 1, 0, 0}};
enum { STRETCHES = sizeof(stretches) / sizeof(*stretches) };

/* Forward, and backward of its result. */
static void norm(const struct tri_kernels *fast, struct tri_norm_args args)
{
    fast->norm_forward(fast, &args);
    args.x = args.sum;
    args.dy = args.y;
    fast->norm_backward(fast, &args);
}

static void check_norms(const struct tri_kernels *fast, enum tri_dtype dt)
{
    struct matrix x = matrix_draw(TOKENS, WIDTH, 0, dt), add = matrix_draw(TOKENS, WIDTH, 0, dt);
    struct matrix sum = matrix_create(TOKENS, WIDTH, 0, dt),
                  y = matrix_create(TOKENS, WIDTH, 0, dt);
    struct matrix w = matrix_draw(1, WIDTH, 0, TRI_F32),
                  stats = matrix_create(TOKENS, 2, 0, TRI_F32);
    struct matrix dx = matrix_draw(TOKENS, WIDTH, 0, dt), dw = matrix_create(2, WIDTH, 0, TRI_F32);
    for (int rms = 0; rms < 2; rms++) {
        struct matrix before = matrix_piece(&dx, 0, TOKENS, 0, WIDTH, 0);
        fast = pair_threads(fast, 3);
        struct tri_norm_args args = {
            .rms = rms,
            .n = TOKENS,
            .width = WIDTH,
            .dt = dt,
            .x = x.data,
            .weight = w.data,
            .bias = rms ? NULL : w.data,
            .stats = stats.data,
            .add = add.data,
            .epsilon = 1e-5,
            .sum = sum.data,
            .y = y.data,
            .dx = dx.data,
            .dweight = dw.data,
            .dbias = rms ? NULL : matrix_at(&dw, 1, 0),
        };
        norm(fast, args);
        fast = pair_threads(fast, 1);
        for (int i = 0; i < STRETCHES; i++) {
            int64_t row = stretches[i].row, n = stretches[i].rows;
            struct matrix px = matrix_piece(&x, row, n, 0, WIDTH, 0);
            struct matrix padd = matrix_piece(&add, row, n, 0, WIDTH, 0);
            struct matrix psum = matrix_create(n, WIDTH, 0, dt),
                          py = matrix_create(n, WIDTH, 0, dt);
            struct matrix pstats = matrix_create(n, 2, 0, TRI_F32);
            struct matrix pdx = matrix_piece(&before, row, n, 0, WIDTH, 0);
            args.n = n;
            args.x = px.data;
            args.stats = pstats.data;
            args.add = padd.data;
            args.sum = psum.data;
            args.y = py.data;
            args.dx = pdx.data;
            norm(fast, args);
            matrix_assert(&psum, &sum, row, 0, "norm's sum");
            matrix_assert(&py, &y, row, 0, "norm");
            matrix_assert(&pstats, &stats, row, 0, "norm's statistics");
            matrix_assert(&pdx, &dx, row, 0, "norm's backward");
            MATRIX_END(&px, &padd, &psum, &py, &pstats, &pdx);
        }
        MATRIX_END(&before);
    }
    MATRIX_END(&x, &add, &sum, &y, &w, &stats, &dx, &dw);
}

static struct tri_rows rows_of(const struct matrix *m)
{
    return (struct tri_rows){m->data, m->rows, 1, m->cols, m->ld, m->cols};
}

static void norm_and_turn(const struct tri_kernels *fast, const struct tri_rms_args *args,
                          const void *table, const int32_t *positions)
{
    const struct tri_rope_args rope = {
        .x = args->y, .table = table, .positions = positions, .dt = args->dt};
    fast->rms_squares(fast, args);
    fast->rms_apply(fast, args);
    fast->rope(fast, &rope);
    fast->rms_dots(fast, args);
    fast->rms_backward(fast, args);
}

/* q/k norm and rotation of one head among others, and of some rows. */
static void check_heads(const struct tri_kernels *fast, enum tri_dtype dt)
{
    enum { HEAD = 36, INNER = 3 };
    struct matrix x = matrix_draw(TOKENS, INNER * HEAD, 5, dt);
    struct matrix y = matrix_create(TOKENS, INNER * HEAD, 0, dt);
    struct matrix dy = matrix_draw(TOKENS, INNER * HEAD, 1, dt);
    struct matrix w = matrix_draw(1, HEAD, 0, TRI_F32), dw = matrix_create(1, HEAD, 0, TRI_F32);
    struct matrix squares = matrix_create(TOKENS, INNER, 0, TRI_F32);
    struct matrix dots = matrix_create(TOKENS, INNER, 0, TRI_F32);
    struct matrix table = matrix_draw(TOKENS, HEAD, 0, TRI_F32);
    int32_t positions[TOKENS];
    for (int i = 0; i < TOKENS; i++) {
        positions[i] = TOKENS - 1 - i;
    }
    struct matrix dy_before = matrix_piece(&dy, 0, TOKENS, 0, INNER * HEAD, 0);
    struct tri_rows vx = {x.data, TOKENS, INNER, HEAD, x.ld, HEAD};
    struct tri_rows vy = {y.data, TOKENS, INNER, HEAD, y.ld, HEAD};
    struct tri_rows vdy = {dy.data, TOKENS, INNER, HEAD, dy.ld, HEAD};
    fast = pair_threads(fast, 3);
    struct tri_rms_args args = {
        .x = vx,
        .y = vy,
        .dy = vdy,
        .dt = dt,
        .rstd = squares.data,
        .weight = w.data,
        .squares = squares.data,
        .dots = dots.data,
        .dweight = dw.data,
        .total_width = HEAD,
    };
    norm_and_turn(fast, &args, table.data, positions);
    fast = pair_threads(fast, 1);
    for (int i = 0; i < STRETCHES * INNER; i++) {
        int64_t row = stretches[i / INNER].row, n = stretches[i / INNER].rows, head = i % INNER;
        struct matrix px = matrix_piece(&x, row, n, head * HEAD, HEAD, i);
        struct matrix py = matrix_create(n, HEAD, 2, dt);
        struct matrix pdy = matrix_piece(&dy_before, row, n, head * HEAD, HEAD, 3);
        struct matrix psquares = matrix_create(n, 1, 0, TRI_F32),
                      pdots = matrix_create(n, 1, 0, TRI_F32);
        args.x = rows_of(&px);
        args.y = rows_of(&py);
        args.dy = rows_of(&pdy);
        args.rstd = args.squares = psquares.data;
        args.dots = pdots.data;
        norm_and_turn(fast, &args, table.data, positions + row);
        matrix_assert(&psquares, &squares, row, head, "squares");
        matrix_assert(&py, &y, row, head * HEAD, "q/k norm and rope");
        matrix_assert(&pdots, &dots, row, head, "dots");
        matrix_assert(&pdy, &dy, row, head * HEAD, "q/k norm's backward");
        MATRIX_END(&px, &py, &pdy, &psquares, &pdots);
    }
    MATRIX_END(&x, &y, &dy, &w, &dw, &squares, &dots, &table, &dy_before);
}

/* Some columns of an activation, gate and up apart. */
static void check_activation(const struct tri_kernels *fast, enum tri_dtype dt)
{
    static const enum tri_activation kinds[] = {TRI_ACTIVATION_SWIGLU, TRI_ACTIVATION_GELU_TANH,
                                                TRI_ACTIVATION_GELU_ERF};
    static const struct block cuts[] = {
        {0, 0, 0, 83}, {0, 0, 83, 84}, {0, 0, 167, 166}, {0, 0, 5, 1}};
    for (int kind = 0; kind < 3; kind++) {
        int64_t halves = kind == 0 ? 2 : 1;
        struct matrix in = matrix_draw(TOKENS, halves * WIDTH, 0, dt);
        struct matrix out = matrix_create(TOKENS, WIDTH, 0, dt),
                      dout = matrix_draw(TOKENS, WIDTH, 0, dt);
        struct matrix din = matrix_create(TOKENS, halves * WIDTH, 0, dt);
        fast = pair_threads(fast, 3);
        struct tri_activation_args args = {
            .kind = kinds[kind],
            .n = TOKENS,
            .width = WIDTH,
            .dt = dt,
            .in = in.data,
            .dout = dout.data,
            .out = out.data,
            .din = din.data,
        };
        fast->activation_forward(fast, &args);
        fast->activation_backward(fast, &args);
        fast = pair_threads(fast, 1);
        for (int i = 0; i < 4; i++) {
            int64_t col = cuts[i].col, n = cuts[i].cols;
            struct matrix pin = matrix_create(TOKENS, halves * n, 0, dt);
            for (int64_t row = 0; row < TOKENS; row++) {
                for (int64_t h = 0; h < halves; h++) {
                    memcpy(matrix_at(&pin, row, h * n), matrix_at(&in, row, h * WIDTH + col),
                           (size_t)n * tri_dtype_size(dt));
                }
            }
            struct matrix pout = matrix_create(TOKENS, n, 0, dt);
            struct matrix pdout = matrix_piece(&dout, 0, TOKENS, col, n, 0);
            struct matrix pdin = matrix_create(TOKENS, halves * n, 0, dt);
            args.width = n;
            args.in = pin.data;
            args.dout = pdout.data;
            args.out = pout.data;
            args.din = pdin.data;
            fast->activation_forward(fast, &args);
            fast->activation_backward(fast, &args);
            matrix_assert(&pout, &out, 0, col, "activation");
            for (int64_t h = 0; h < halves; h++) {
                struct matrix half = matrix_piece(&pdin, 0, TOKENS, h * n, n, 0);
                matrix_assert(&half, &din, 0, h * WIDTH + col, "activation's backward");
                MATRIX_END(&half);
            }
            MATRIX_END(&pin, &pout, &pdout, &pdin);
        }
        MATRIX_END(&in, &out, &dout, &din);
    }
}

/* ---- loss and routes ------------------------------------------------------------------------- */

static void cross_entropy(const struct tri_kernels *fast, const struct tri_cross_entropy_args *args)
{
    fast->cross_entropy_max(fast, args);
    fast->cross_entropy_sum(fast, args);
    fast->cross_entropy_backward(fast, args);
}

static void check_loss(const struct tri_kernels *fast, enum tri_dtype dt)
{
    struct matrix logits = matrix_draw(TOKENS, WIDTH, 4, TRI_F32);
    struct matrix maxima = matrix_create(TOKENS, 1, 0, TRI_F32);
    struct matrix sums = matrix_create(TOKENS, 1, 0, TRI_F32),
                  picked = matrix_create(TOKENS, 1, 0, TRI_F32);
    struct matrix d = matrix_create(TOKENS, WIDTH, 0, dt);
    int32_t targets[TOKENS];
    for (int i = 0; i < TOKENS; i++) {
        targets[i] = i * 7 % 500;
    }
    fast = pair_threads(fast, 3);
    struct tri_cross_entropy_args args = {
        .logits = logits.data,
        .ld = logits.ld,
        .cols = WIDTH,
        .first_col = 100,
        .n = TOKENS,
        .dt = dt,
        .targets = targets,
        .maxima = maxima.data,
        .sums = sums.data,
        .picked = picked.data,
        .scale = 0.25,
        .d = d.data,
        .ld_d = d.ld,
    };
    struct tri_cross_entropy_args part = args;
    cross_entropy(fast, &args);
    fast = pair_threads(fast, 1);
    for (int i = 0; i < STRETCHES; i++) {
        int64_t row = stretches[i].row, n = stretches[i].rows;
        struct matrix p = matrix_piece(&logits, row, n, 0, WIDTH, i);
        struct matrix pmaxima = matrix_create(n, 1, 0, TRI_F32);
        struct matrix psums = matrix_create(n, 1, 0, TRI_F32),
                      ppicked = matrix_create(n, 1, 0, TRI_F32);
        struct matrix pd = matrix_create(n, WIDTH, 3, dt);
        part.logits = p.data;
        part.ld = p.ld;
        part.n = n;
        part.targets = targets + row;
        part.maxima = pmaxima.data;
        part.sums = psums.data;
        part.picked = ppicked.data;
        part.d = pd.data;
        part.ld_d = pd.ld;
        cross_entropy(fast, &part);
        matrix_assert(&pmaxima, &maxima, row, 0, "maxima");
        matrix_assert(&psums, &sums, row, 0, "sums of exponentials");
        matrix_assert(&ppicked, &picked, row, 0, "picked logits");
        matrix_assert(&pd, &d, row, 0, "loss's backward");
        MATRIX_END(&p, &pmaxima, &psums, &ppicked, &pd);
    }
    /* The gradient of a slice of the vocabulary. */
    struct matrix slice = matrix_piece(&logits, 0, TOKENS, 41, 100, 1),
                  pd = matrix_create(TOKENS, 100, 0, dt);
    args.logits = slice.data;
    args.ld = slice.ld;
    args.cols = 100;
    args.first_col = 141;
    args.d = pd.data;
    args.ld_d = pd.ld;
    fast->cross_entropy_backward(fast, &args);
    matrix_assert(&pd, &d, 0, 41, "loss's backward, a slice");
    MATRIX_END(&logits, &maxima, &sums, &picked, &d, &slice, &pd);
}

/* And its result's products with what was added, row by row, and those times the result. */
static void combine(const struct tri_kernels *fast, const struct tri_combine_args *args, void *dots,
                    void *scaled)
{
    const struct tri_dots_args with = {
        .left = args->y,
        .right = args->add,
        .dots = dots,
        .n = args->n,
        .width = args->width,
        .dt = args->dt,
    };
    fast->combine_rows(fast, args);
    fast->combine_rows_backward(fast, args);
    const struct tri_scale_args scale = {
        .x = args->y,
        .gate = dots,
        .add = args->add,
        .y = scaled,
        .n = args->n,
        .width = args->width,
        .dt = args->dt,
    };
    fast->row_dots(fast, &with);
    fast->scale_rows_add(fast, &scale);
}

static void check_combine(const struct tri_kernels *fast, enum tri_dtype dt)
{
    enum { CHOICES = 2 };
    int32_t index[TOKENS * CHOICES];
    for (int i = 0; i < TOKENS * CHOICES; i++) {
        index[i] = i % 11 == 3 ? -1 : i * 7 % (TOKENS * CHOICES);
    }
    struct matrix rows = matrix_draw(TOKENS * CHOICES, WIDTH, 0, dt);
    struct matrix weight = matrix_draw(TOKENS, CHOICES, 0, TRI_F32);
    struct matrix add = matrix_draw(TOKENS, WIDTH, 0, dt), y = matrix_create(TOKENS, WIDTH, 0, dt);
    struct matrix drows = matrix_create(TOKENS * CHOICES, WIDTH, 0, dt);
    struct matrix dweight = matrix_create(TOKENS, CHOICES, 0, TRI_F32);
    struct matrix dots = matrix_create(TOKENS, 1, 0, TRI_F32),
                  scaled = matrix_create(TOKENS, WIDTH, 0, dt);
    fast = pair_threads(fast, 3);
    struct tri_combine_args args = {
        .rows = rows.data,
        .index = index,
        .weight = weight.data,
        .n = TOKENS,
        .k = CHOICES,
        .width = WIDTH,
        .dt = dt,
        .add = add.data,
        .y = y.data,
        .dy = add.data,
        .drows = drows.data,
        .dweight = dweight.data,
    };
    combine(fast, &args, dots.data, scaled.data);
    fast = pair_threads(fast, 1);
    for (int64_t t = 0; t < TOKENS; t += 23) {
        struct matrix pr = matrix_piece(&rows, 0, TOKENS * CHOICES, 0, WIDTH, 0);
        struct matrix padd = matrix_piece(&add, t, 1, 0, WIDTH, 0),
                      py = matrix_create(1, WIDTH, 0, dt);
        struct matrix pdrows = matrix_piece(&drows, 0, TOKENS * CHOICES, 0, WIDTH, 0);
        struct matrix pdweight = matrix_create(1, CHOICES, 0, TRI_F32),
                      pdots = matrix_create(1, 1, 0, TRI_F32);
        struct matrix pscaled = matrix_create(1, WIDTH, 0, dt);
        args.rows = pr.data;
        args.index = index + t * CHOICES;
        args.weight = matrix_at(&weight, t, 0);
        args.n = 1;
        args.add = args.dy = padd.data;
        args.y = py.data;
        args.drows = pdrows.data;
        args.dweight = pdweight.data;
        combine(fast, &args, pdots.data, pscaled.data);
        matrix_assert(&py, &y, t, 0, "combine");
        matrix_assert(&pdrows, &drows, 0, 0, "combine's backward");
        matrix_assert(&pdweight, &dweight, t, 0, "gradients of weights");
        matrix_assert(&pdots, &dots, t, 0, "row dots");
        matrix_assert(&pscaled, &scaled, t, 0, "scaled rows");
        MATRIX_END(&pr, &padd, &py, &pdrows, &pdweight, &pdots, &pscaled);
    }
    MATRIX_END(&rows, &weight, &add, &y, &drows, &dweight, &dots, &scaled);
}

/* ---------------------------------------------------------------------------------------------- */

static void run(void **state)
{
    const pair_check *check = *state;
    pair_each_table(*check);
}

int main(int argc, char **argv)
{
    static pair_check checks[] = {check_norms, check_heads, check_activation, check_loss,
                                  check_combine};
    static const char *const names[] = {"norms", "heads", "activation", "loss", "combine"};
    enum { CHECKS = sizeof(checks) / sizeof(*checks) };
    struct CMUnitTest tests[CHECKS];
    for (int i = 0; i < CHECKS; i++) {
        tests[i] = (struct CMUnitTest){names[i], run, NULL, NULL, &checks[i]};
    }
    return pair_run(tests, CHECKS, argc, argv);
}
