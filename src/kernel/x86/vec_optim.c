#include "kernel/x86/vec.h"

#include <math.h>

struct adamw {
    float *master, *m, *v;
    const void *gradient;
    void *weights;
    float rate, decay;  /* learning rate / correction1; learning rate * weight decay */
    float rest1, rest2; /* 1 - beta */
    float root_scale;   /* 1 / sqrt(correction2) */
    float epsilon, gradient_scale;
};

/* Moments as v + (1 - beta) (x - v): in f32, beta * v + (1 - beta) * x would settle at 3e-5 from
 * where it should when beta2 = 0.999, as the two factors, rounded, no longer add up to 1. */
VEC_INLINE void adamw_at(const struct adamw *args, int64_t at, int64_t count,
                         enum tri_dtype gradient_dtype, enum tri_dtype weight_dtype)
{
    vec_f32 g = vec_load(args->gradient, at, count, gradient_dtype) * args->gradient_scale;
    vec_f32 m = vec_load(args->m, at, count, TRI_F32);
    vec_f32 v = vec_load(args->v, at, count, TRI_F32);
    vec_f32 master = vec_load(args->master, at, count, TRI_F32);
    m = vec_fma(g - m, vec_set(args->rest1), m);
    v = vec_fma(g * g - v, vec_set(args->rest2), v);
    vec_f32 root = vec_fma(vec_sqrt(v), vec_set(args->root_scale), vec_set(args->epsilon));
    master -= vec_fma(master, vec_set(args->decay), m * args->rate / root);
    vec_store(args->m, at, count, TRI_F32, m);
    vec_store(args->v, at, count, TRI_F32, v);
    vec_store(args->master, at, count, TRI_F32, master);
    if (args->weights) {
        vec_store(args->weights, at, count, weight_dtype, master);
    }
}

VEC_INLINE void adamw_chunk(const struct adamw *args, int64_t begin, int64_t end,
                            enum tri_dtype gradient_dtype, enum tri_dtype weight_dtype)
{
    if (vec_is_bf16(gradient_dtype) && vec_is_bf16(weight_dtype)) {
        VEC_SWEEP(begin, end, adamw_at(args, at, count, TRI_BF16, TRI_BF16));
    } else if (vec_is_bf16(gradient_dtype)) {
        VEC_SWEEP(begin, end, adamw_at(args, at, count, TRI_BF16, TRI_F32));
    } else if (vec_is_bf16(weight_dtype)) {
        VEC_SWEEP(begin, end, adamw_at(args, at, count, TRI_F32, TRI_BF16));
    } else {
        VEC_SWEEP(begin, end, adamw_at(args, at, count, TRI_F32, TRI_F32));
    }
}

static void adamw(const struct tri_kernels *self, const struct tri_adamw *a)
{
    const struct adamw args = {
        .master = a->master,
        .m = a->m,
        .v = a->v,
        .gradient = a->gradient,
        .weights = a->weights,
        .rate = (float)(a->learning_rate / a->correction1),
        .decay = (float)(a->learning_rate * a->weight_decay),
        .rest1 = (float)(1.0 - a->beta1),
        .rest2 = (float)(1.0 - a->beta2),
        .root_scale = (float)(1.0 / sqrt(a->correction2)),
        .epsilon = (float)a->epsilon,
        .gradient_scale = (float)a->gradient_scale,
    };
#pragma omp parallel for num_threads(self->threads) schedule(static) if (a->n > VEC_FORK)
    for (int64_t begin = 0; begin < a->n; begin += VEC_CHUNK) {
        adamw_chunk(&args, begin, vec_smaller(begin + VEC_CHUNK, a->n), a->gradient_dtype,
                    a->weights ? a->weight_dtype : TRI_F32);
    }
}

void VEC_NAME(tri_vec_fill_optim)(struct tri_kernels *table)
{
    table->adamw = adamw;
}
