/* The local maths: an object that is a table of functions and owns their threads, their scratch and
 * what oneDNN keeps. Each function is called with it and one struct of arguments:
 * kernels->cast(kernels, &(struct tri_cast_args){...}). Three kinds of tables exist:
 *   ref    kernel/ref: any of f32, bf16, f64 (each main tensor's dtype given), in double,
 *          plain loops: the truth that tests hold the other against, and finite differences (f64);
 *   fast   kernel/x86: f32 and bf16, threads inside, products through oneDNN where faster than
 *          our own;
 *   dry    nothing is read or written: a plan counts what a run takes and sends.
 * An object works for one thread at a time; two objects do not see each other.
 *
 * Conventions. "main" tensors (activations, weights, their gradients) have the dtype `dt`.
 * "stat" tensors (norm statistics, log-sum-exp, router numbers, biases, norm weights, gradients of
 * weights) are f32, or f64 when dt is F64: written void * and marked [stat]. Row-major; `ld` is the
 * distance between rows in elements. Counts may be 0. Outputs do not alias inputs unless said.
 * "+=" marks outputs that accumulate. The functions of one operation share a struct; what a
 * function's description does not name it does not read. Every function is deterministic for a
 * given thread count, and, products through oneDNN apart, its row results do not depend on how many
 * rows are passed. */
#ifndef TRIDENT_KERNEL_KERNEL_H
#define TRIDENT_KERNEL_KERNEL_H

#include "base/exact.h"
#include "base/status.h"
#include "tensor/dtype.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Fixed-point sums: an i64 element counts units of 2^-52. A term, an f32, is rounded to whole units
 * by itself, so neither the order of the terms nor who adds which changes a bit. A sum of n terms
 * stays in range when each is below 2^11 / n. */
enum { TRI_FIXED_BITS = 52 };
struct tri_fixed {
    float limit;     /* terms of this size, and what is no number, are left out, */
    int32_t refused; /* and set this to 1 */
};

/* c[m,n] (+)= op(a)[m,k] * op(b)[k,n] (+ bias[n]).
 * a is stored [m,k] (lda), or [k,m] when a_transposed; b is stored [k,n] (ldb), or [n,k] when
 * b_transposed. The three uses: forward y = x W^T (b_transposed), input gradient dx = dy W, weight
 * gradient dW += dy^T x (a_transposed, accumulate, c in f32). k == 0 gives zeros (or leaves c when
 * accumulating). Supported dtypes (a,b,c): (f32,f32,f32), (bf16,bf16,bf16), (bf16,bf16,f32),
 * and in ref (f64,f64,f64).
 * c of i64: a fixed-point sum, which the product is added to, always. k may be cut: each part's
 * product is then summed in f32 alone and added as one term. Not through oneDNN.
 * Who makes a group of products in several calls says what all of it is, and each has the bits that
 * it has in one call: how threads share a group out decides them too, through oneDNN. */
struct tri_matmul {
    int64_t m, n, k;
    const void *a, *b;
    void *c;
    int64_t lda, ldb, ldc;
    enum tri_dtype ab_dtype, c_dtype;
    bool a_transposed, b_transposed, accumulate;
    const void *bias; /* [n] stat, or NULL; not with accumulate */
    /* c of i64 only */
    struct tri_fixed *fixed;
    const int64_t *cuts; /* [parts + 1] rising from 0 to k; NULL: one part */
    int64_t parts;
    /* of all calls of the group: products, and the sum of their m * n * k; 0: it is this call's */
    int64_t group;
    double group_work;
};

/* Rows inside rows: element (o, i, j) of [outer, inner, width] is at o*ld_outer + i*ld_inner + j.
 * A plain [n, width] tensor has inner = 1. */
struct tri_rows {
    void *data;
    int64_t outer, inner, width, ld_outer, ld_inner;
};

/* Layer norm, and RMS norm when rms: y = (x - mean) * rstd * weight + bias, or
 * x * rsqrt(mean(x^2) + epsilon) * weight. weight, bias [width] stat (bias NULL for RMS); stats
 * [n, 2] stat: mean (0 for RMS), rstd. */
struct tri_norm_args {
    bool rms;
    int64_t n, width;
    enum tri_dtype dt;
    const void *x, *weight, *bias;
    void *stats;
    /* forward: if add is not NULL, first sum = x + add (rounded to dt, stored) and sum is what is
     * normalised. */
    const void *add;
    double epsilon;
    void *sum, *y;
    /* backward: dx += gradient through the norm (dx already holds the residual branch's gradient);
     * dweight, dbias [width] stat +=; x is what was normalised. */
    const void *dy;
    void *dx, *dweight, *dbias;
};

/* q/k norm, in parts so that sums can be reduced over ranks between them. squares, rstd, dots
 * [outer*inner] stat; weight, dweight [width] stat. */
struct tri_rms_args {
    struct tri_rows x, y, dy;
    enum tri_dtype dt;
    const void *rstd, *weight;
    void *squares, *dots, *dweight;
    int64_t total_width;
};

/* table [positions, width] stat: cos in the first half of a row, sin in the second; row o of x
 * stands at position positions[o]. */
struct tri_rope_args {
    struct tri_rows x;
    const void *table;
    const int32_t *positions;
    bool inverse; /* the transpose, for the backward */
    enum tri_dtype dt;
};

/* Causal attention over `batch` sequences. q [batch*q_len, heads*dim] rows with stride ld_q, head h
 * at column h*dim; k, v [batch*k_len, kv_heads*dim] likewise; query head h reads KV head
 * (first_head + h) / group - first_kv. Query i of a sequence stands at position q_offset + i and
 * sees keys first_key[..] <= j <= q_offset + i. first_key [batch*q_len] i32, or NULL for all zero.
 * lse [batch*q_len, heads] stat: log of the sum of exponentials, for the backward. Never stores
 * q_len x k_len. */
struct tri_attention {
    int64_t batch, q_len, k_len, q_offset;
    int64_t heads, kv_heads, dim, first_head, first_kv, group;
    double scale;
    enum tri_dtype dt;
    const int32_t *first_key;
    const void *q, *k, *v;
    int64_t ld_q, ld_k, ld_v;
    void *out;
    int64_t ld_out;
    void *lse;
    /* backward only; dq, dk, dv are overwritten and have the layout of q, k, v */
    const void *dout;
    int64_t ld_dout;
    void *dq, *dk, *dv;
    int64_t ld_dq, ld_dk, ld_dv;
};

enum tri_activation { TRI_ACTIVATION_SWIGLU, TRI_ACTIVATION_GELU_TANH, TRI_ACTIVATION_GELU_ERF };

/* swiglu: in [n, 2*width] (gate first, then up), out = silu(gate) * up; gelu: in [n, width]. din
 * has the shape of in, out and dout are [n, width]. */
struct tri_activation_args {
    enum tri_activation kind;
    int64_t n, width;
    enum tri_dtype dt;
    const void *in, *dout;
    void *out, *din;
};

/* Rows [first_row, first_row + rows) of a table by token. */
struct tri_embedding_args {
    const int32_t *tokens;
    int64_t first_row, rows, n, width;
    enum tri_dtype dt;
    const void *table; /* forward */
    void *y;
    const void *dy; /* backward */
    void *dtable;
    enum tri_dtype table_dtype;
};

/* Cross-entropy over a slice of the vocabulary: logits [n, ld] stat, columns [0, cols) count and
 * are those from first_col on of the whole. maxima, sums, picked [n] stat. */
struct tri_cross_entropy_args {
    const void *logits;
    int64_t ld, cols, first_col, n;
    enum tri_dtype dt;
    const int32_t *targets;
    void *maxima, *sums, *picked;
    double scale; /* backward */
    void *d;
    int64_t ld_d;
};

struct tri_gather_args {
    const void *src;
    const int32_t *index;
    void *dst;
    int64_t n, width;
    enum tri_dtype dt;
};

/* index, weight, dweight [n*k]; weights are stat. */
struct tri_combine_args {
    const void *rows;
    const int32_t *index;
    const void *weight;
    int64_t n, k, width;
    enum tri_dtype dt;
    const void *add; /* forward */
    void *y;
    const void *dy; /* backward */
    void *drows, *dweight;
};

struct tri_scale_args {
    const void *x, *gate, *add;
    void *y;
    int64_t n, width;
    enum tri_dtype dt;
};

struct tri_dots_args {
    const void *left, *right;
    void *dots;
    int64_t n, width;
    enum tri_dtype dt;
};

struct tri_add_args {
    const void *left, *right;
    void *y;
    int64_t n;
    enum tri_dtype dt;
};

struct tri_bias_args {
    int64_t n, width;
    enum tri_dtype dt;
    const void *bias; /* forward */
    void *y;
    const void *dy; /* backward; rows of stride ld */
    int64_t ld;
    void *dbias;
};

struct tri_copy_args {
    const void *src;
    void *dst; /* does not overlap src */
    size_t bytes;
};

struct tri_zero_args {
    void *dst;
    size_t bytes;
};

struct tri_cast_args {
    const void *src;
    enum tri_dtype from;
    void *dst;
    enum tri_dtype to;
    int64_t n;
};

struct tri_fixed_add_args {
    const void *x;
    int64_t *sums;
    int64_t n;
    struct tri_fixed *fixed;
    enum tri_dtype dt;
};

struct tri_fixed_get_args {
    const int64_t *sums;
    int64_t n;
    float *y;                /* fixed_get */
    struct tri_exact *exact; /* fixed_squares */
};

struct tri_squares_args {
    const void *x;
    int64_t n;
    enum tri_dtype dt;
};

/* m, v, master f32; gradient f32 or bf16; weights may be NULL. */
struct tri_adamw {
    double learning_rate, beta1, beta2, epsilon, weight_decay;
    double correction1, correction2; /* 1 - beta^t */
    double gradient_scale;           /* the clip factor */
    float *master, *m, *v;
    const void *gradient;
    enum tri_dtype gradient_dtype;
    void *weights;
    enum tri_dtype weight_dtype;
    int64_t n;
};

/* A loop of the caller's own over [0, n): run is called for pieces of at most `piece` > 0, which
 * cover it and which threads take in any order. */
struct tri_loop_args {
    int64_t n, piece;
    void (*run)(void *state, int64_t begin, int64_t end);
    void *state;
};

struct tri_kernels_own;

struct tri_kernels {
    const char *name;  /* "dry", "ref", "x86-64", "avx2", "avx512" */
    int threads;       /* that a call works with */
    bool dry;          /* no memory is touched: what is only counted will do */
    bool reproducible; /* every result's bits depend on nothing but the operands that it is made of:
                          not on the rows, columns and heads beside it, strides, or threads */
    struct tri_kernels_own *own; /* what only kernel/ knows */

    void (*matmul)(const struct tri_kernels *self, const struct tri_matmul *product);
    /* count independent products (experts): same n, k (or m, n for weight gradients), dtypes,
     * flags; rows differ, none may be shared as output. */
    void (*matmul_grouped)(const struct tri_kernels *self, const struct tri_matmul *products,
                           int64_t count);

    void (*norm_forward)(const struct tri_kernels *self, const struct tri_norm_args *args);
    void (*norm_backward)(const struct tri_kernels *self, const struct tri_norm_args *args);

    /* squares = sum_j x^2 */
    void (*rms_squares)(const struct tri_kernels *self, const struct tri_rms_args *args);
    /* y = x * rstd * weight, in place allowed (y.data == x.data) */
    void (*rms_apply)(const struct tri_kernels *self, const struct tri_rms_args *args);
    /* dots = sum_j dy * weight * x */
    void (*rms_dots)(const struct tri_kernels *self, const struct tri_rms_args *args);
    /* dy <- dx = rstd * (dy * weight - x * rstd^2 * dots / total_width), in place over dy;
     * dweight += sum over rows of dy * x * rstd */
    void (*rms_backward)(const struct tri_kernels *self, const struct tri_rms_args *args);

    /* Rotates pairs (j, j + width/2) of each row by angle position*theta^(-2j/width), in place. */
    void (*rope)(const struct tri_kernels *self, const struct tri_rope_args *args);

    void (*attention_forward)(const struct tri_kernels *self, const struct tri_attention *args);
    void (*attention_backward)(const struct tri_kernels *self, const struct tri_attention *args);

    void (*activation_forward)(const struct tri_kernels *self,
                               const struct tri_activation_args *args);
    void (*activation_backward)(const struct tri_kernels *self,
                                const struct tri_activation_args *args);

    /* y[n,:] = table[token - first_row] when first_row <= token < first_row + rows, else -0: what
     * changes no bit of a sum. */
    void (*embedding_forward)(const struct tri_kernels *self,
                              const struct tri_embedding_args *args);
    /* dtable[rows, width] += rows of dy (dt), in the order of n. table_dtype: stat, or bf16, where
     * all that belongs to a row is summed in f32, added and rounded once. */
    void (*embedding_backward)(const struct tri_kernels *self,
                               const struct tri_embedding_args *args);

    /* maxima[n] = max over cols (-inf when cols == 0) */
    void (*cross_entropy_max)(const struct tri_kernels *self,
                              const struct tri_cross_entropy_args *args);
    /* sums[n] = sum exp(logit - max); picked[n] = logit of target - max when it lies in
     * [first_col, first_col + cols), else 0 */
    void (*cross_entropy_sum)(const struct tri_kernels *self,
                              const struct tri_cross_entropy_args *args);
    /* d[n, ld_d] (dt) = (exp(logit - max) / sum - [target]) * scale for cols columns, 0 up to
     * ld_d; a target below 0 does not count, in any slice: 0 all along its row */
    void (*cross_entropy_backward)(const struct tri_kernels *self,
                                   const struct tri_cross_entropy_args *args);

    /* MoE rows. dst[i] = src[index[i]] for i < n; index -1 gives zeros. */
    void (*gather_rows)(const struct tri_kernels *self, const struct tri_gather_args *args);
    /* y[t] = (add ? add[t] : 0) + sum over j < k of (weight ? weight[t*k+j] : 1) *
     * rows[index[t*k+j]], in the order of j, index -1 skipped. y may be add. */
    void (*combine_rows)(const struct tri_kernels *self, const struct tri_combine_args *args);
    /* drows[index[t*k+j]] = weight[t*k+j] * dy[t]; dweight[t*k+j] = dot(dy[t],
     * rows[index[t*k+j]]), 0 where the index is -1. Indices are distinct. drows may be rows. */
    void (*combine_rows_backward)(const struct tri_kernels *self,
                                  const struct tri_combine_args *args);
    /* Shared expert's gate: y[t] = add[t] + gate[t] * x[t]; gate [n] stat. y may be add. */
    void (*scale_rows_add)(const struct tri_kernels *self, const struct tri_scale_args *args);
    /* dots[t] stat = dot(left[t], right[t]) */
    void (*row_dots)(const struct tri_kernels *self, const struct tri_dots_args *args);

    /* y = left + right; y may be either. */
    void (*add)(const struct tri_kernels *self, const struct tri_add_args *args);
    /* y[n, width] += bias (stat) */
    void (*add_bias)(const struct tri_kernels *self, const struct tri_bias_args *args);
    /* dbias[width] stat += column sums of dy [n, width] */
    void (*bias_backward)(const struct tri_kernels *self, const struct tri_bias_args *args);
    /* Bytes of any type. */
    void (*zero)(const struct tri_kernels *self, const struct tri_zero_args *args);
    void (*copy)(const struct tri_kernels *self, const struct tri_copy_args *args);
    /* dst (to) = src (from) */
    void (*cast)(const struct tri_kernels *self, const struct tri_cast_args *args);
    /* sums[n] += x (dt), fixed-point */
    void (*fixed_add)(const struct tri_kernels *self, const struct tri_fixed_add_args *args);
    /* y[n] f32 = fixed-point sums, rounded once; y may begin where sums does. */
    void (*fixed_get)(const struct tri_kernels *self, const struct tri_fixed_get_args *args);
    /* exact += the squares of what fixed_get makes of sums[n], exactly; carries it. */
    void (*fixed_squares)(const struct tri_kernels *self, const struct tri_fixed_get_args *args);
    /* sum of squares, in double, in a fixed order */
    double (*sum_squares)(const struct tri_kernels *self, const struct tri_squares_args *args);

    /* Decoupled AdamW on n elements; weights (weight_dtype) = master rounded. */
    void (*adamw)(const struct tri_kernels *self, const struct tri_adamw *args);

    /* What else fills the memory that the others work on. */
    void (*loop)(const struct tri_kernels *self, const struct tri_loop_args *args);
};

enum tri_kernels_kind {
    TRI_KERNELS_FAST,
    TRI_KERNELS_REPRODUCIBLE, /* fast, with products that are all our own */
    TRI_KERNELS_DRY
};

/* path: "x86-64", "avx2" or "avx512", that instruction set with products that are all our own, or
 * "ref", the reference; NULL: the widest set of this machine. threads: of each call; of the dry
 * kind, those whose scratch it counts. Binds OpenMP's threads of the calling thread to its runtime.
 * Panics (BAD_INPUT) where tri_kernels_check refuses. */
struct tri_kernels *tri_kernels_create(enum tri_kernels_kind kind, const char *path, int threads)
    __attribute__((returns_nonnull));
void tri_kernels_destroy(struct tri_kernels *kernels);

/* Whether path is one that this machine can run. */
enum tri_status tri_kernels_check(const char *path, struct tri_error *error) TRI_NODISCARD;

/* Bytes of scratch that the calls so far would have taken of a fast table; kind DRY only. */
int64_t tri_kernels_dry_scratch(const struct tri_kernels *kernels);

/* "avx512; products f32 oneDNN, bf16 amx": what runs where path is asked for, the same text on
 * machines that compute alike. The second form with the processor's name before it, "Intel Xeon …:
 * avx512; …", for --version and environment.json. path is one that tri_kernels_check takes. */
enum { TRI_KERNELS_TEXT = 256 };
void tri_kernels_path(const char *path, bool reproducible, char text[TRI_KERNELS_TEXT]);
void tri_kernels_describe(const char *path, bool reproducible, char text[TRI_KERNELS_TEXT]);

/* The reference, which has no threads and nothing of its own. */
const struct tri_kernels *tri_kernels_ref(void);

/* f64 for F64, else f32. */
static inline enum tri_dtype tri_stat_dtype(enum tri_dtype dt)
{
    return dt == TRI_F64 ? TRI_F64 : TRI_F32;
}

#endif
