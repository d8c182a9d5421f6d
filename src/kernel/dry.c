/* The table of a run that only counts: nothing is read or written. */
#include "kernel/kernel.h"

/* Every function ignores every parameter, and C17 has no definitions with unnamed ones. */
#pragma GCC diagnostic ignored "-Wunused-parameter"

static void matmul(const struct tri_matmul *product)
{
}

static void matmul_grouped(const struct tri_matmul *products, int64_t count)
{
}

static void norm_forward(bool rms, const void *x, const void *add, void *sum, const void *weight,
                         const void *bias, double epsilon, void *y, void *stats, int64_t n,
                         int64_t width, enum tri_dtype dt)
{
}

static void norm_backward(bool rms, const void *dy, const void *x, const void *weight,
                          const void *stats, void *dx, void *dweight, void *dbias, int64_t n,
                          int64_t width, enum tri_dtype dt)
{
}

static void rms_squares(struct tri_rows x, void *squares, enum tri_dtype dt)
{
}

static void rms_apply(struct tri_rows x, const void *rstd, const void *weight, struct tri_rows y,
                      enum tri_dtype dt)
{
}

static void rms_dots(struct tri_rows dy, struct tri_rows x, const void *weight, void *dots,
                     enum tri_dtype dt)
{
}

static void rms_backward(struct tri_rows dy, struct tri_rows x, const void *rstd,
                         const void *weight, const void *dots, int64_t total_width, void *dweight,
                         enum tri_dtype dt)
{
}

static void rope(struct tri_rows x, const void *table, const int32_t *positions, bool inverse,
                 enum tri_dtype dt)
{
}

/* What grows with the shapes; the scratch of other functions is small. */
static _Thread_local struct {
    int threads;
    int64_t most;
} scratch;

static void count_scratch(const struct tri_attention *args, bool backward)
{
    const struct tri_kernels *fast = tri_kernels_fast();
    int64_t bytes = fast->attention_scratch(args, backward, scratch.threads);
    scratch.most = bytes > scratch.most ? bytes : scratch.most;
}

void tri_kernels_dry_begin(int threads)
{
    scratch.threads = threads;
    scratch.most = 0;
}

int64_t tri_kernels_dry_scratch(void)
{
    return scratch.most;
}

static void attention_forward(const struct tri_attention *args, enum tri_dtype dt)
{
    count_scratch(args, false);
}

static void attention_backward(const struct tri_attention *args, enum tri_dtype dt)
{
    count_scratch(args, true);
}

static int64_t attention_scratch(const struct tri_attention *args, bool backward, int threads)
{
    return 0;
}

static void activation_forward(enum tri_activation kind, const void *in, void *out, int64_t n,
                               int64_t width, enum tri_dtype dt)
{
}

static void activation_backward(enum tri_activation kind, const void *in, const void *dout,
                                void *din, int64_t n, int64_t width, enum tri_dtype dt)
{
}

static void embedding_forward(const void *table, const int32_t *tokens, int64_t first_row,
                              int64_t rows, void *y, int64_t n, int64_t width, enum tri_dtype dt)
{
}

static void embedding_backward(void *dtable, enum tri_dtype table_dt, const int32_t *tokens,
                               int64_t first_row, int64_t rows, const void *dy, int64_t n,
                               int64_t width, enum tri_dtype dt)
{
}

static void cross_entropy_max(const void *logits, int64_t ld, int64_t cols, void *maxima, int64_t n,
                              enum tri_dtype stat)
{
}

static void cross_entropy_sum(const void *logits, int64_t ld, int64_t cols, const void *maxima,
                              const int32_t *targets, int64_t first_col, void *sums, void *picked,
                              int64_t n, enum tri_dtype stat)
{
}

static void cross_entropy_backward(const void *logits, int64_t ld, int64_t cols, const void *maxima,
                                   const void *sums, const int32_t *targets, int64_t first_col,
                                   double scale, void *d, int64_t ld_d, int64_t n,
                                   enum tri_dtype dt)
{
}

static void gather_rows(const void *src, const int32_t *index, void *dst, int64_t n, int64_t width,
                        enum tri_dtype dt)
{
}

static void combine_rows(const void *rows, const int32_t *index, const void *weight,
                         const void *add, void *y, int64_t n, int64_t k, int64_t width,
                         enum tri_dtype dt)
{
}

static void combine_rows_backward(const void *dy, const void *rows, const int32_t *index,
                                  const void *weight, void *drows, void *dweight, int64_t n,
                                  int64_t k, int64_t width, enum tri_dtype dt)
{
}

static void scale_rows_add(const void *x, const void *gate, const void *add, void *y, int64_t n,
                           int64_t width, enum tri_dtype dt)
{
}

static void row_dots(const void *a, const void *b, void *dots, int64_t n, int64_t width,
                     enum tri_dtype dt)
{
}

static void add(const void *a, const void *b, void *y, int64_t n, enum tri_dtype dt)
{
}

static void add_bias(void *y, const void *bias, int64_t n, int64_t width, enum tri_dtype dt)
{
}

static void bias_backward(const void *dy, int64_t ld, void *db, int64_t n, int64_t width,
                          enum tri_dtype dt)
{
}

static void cast(const void *src, enum tri_dtype from, void *dst, enum tri_dtype to, int64_t n)
{
}

static void fixed_add(const void *x, int64_t *sums, int64_t n, struct tri_fixed *fixed,
                      enum tri_dtype dt)
{
}

static void fixed_get(const int64_t *sums, float *y, int64_t n)
{
}

static void fixed_squares(const int64_t *sums, struct tri_exact *sum, int64_t n)
{
}

static double sum_squares(const void *x, int64_t n, enum tri_dtype dt)
{
    return 0.0;
}

static void adamw(const struct tri_adamw *step, float *master, float *m, float *v,
                  const void *gradient, enum tri_dtype gradient_dtype, void *weights,
                  enum tri_dtype weight_dtype, int64_t n)
{
}

const struct tri_kernels *tri_kernels_dry(void)
{
    static const struct tri_kernels table = {
        .name = "dry",
        .matmul = matmul,
        .matmul_grouped = matmul_grouped,
        .norm_forward = norm_forward,
        .norm_backward = norm_backward,
        .rms_squares = rms_squares,
        .rms_apply = rms_apply,
        .rms_dots = rms_dots,
        .rms_backward = rms_backward,
        .rope = rope,
        .attention_forward = attention_forward,
        .attention_backward = attention_backward,
        .attention_scratch = attention_scratch,
        .activation_forward = activation_forward,
        .activation_backward = activation_backward,
        .embedding_forward = embedding_forward,
        .embedding_backward = embedding_backward,
        .cross_entropy_max = cross_entropy_max,
        .cross_entropy_sum = cross_entropy_sum,
        .cross_entropy_backward = cross_entropy_backward,
        .gather_rows = gather_rows,
        .combine_rows = combine_rows,
        .combine_rows_backward = combine_rows_backward,
        .scale_rows_add = scale_rows_add,
        .row_dots = row_dots,
        .add = add,
        .add_bias = add_bias,
        .bias_backward = bias_backward,
        .cast = cast,
        .fixed_add = fixed_add,
        .fixed_get = fixed_get,
        .fixed_squares = fixed_squares,
        .sum_squares = sum_squares,
        .adamw = adamw,
    };
    return &table;
}
