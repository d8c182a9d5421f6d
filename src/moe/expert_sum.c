#include "moe/expert_sum.h"

enum { BLOCK = 256, PIECE = 16 };

/* `size` columns of one token, from `column` on. */
struct part {
    const struct tri_expert_sum *sum;
    int64_t token, column, size;
};

/* -0 is what adds nothing: 0 would turn a -0 into a 0. */
static void leaf(const struct part *p, int64_t j, float *out)
{
    const struct tri_expert_sum *s = p->sum;
    int64_t at = p->token * s->k + j;
    int64_t from = s->index[at] * s->width + p->column;
    float weight = s->weight ? s->weight[at] : 1.0F;
    for (int64_t i = 0; i < p->size; i++) {
        if (s->index[at] < 0) {
            out[i] = -0.0F;
        } else if (s->dtype == TRI_F32) {
            out[i] = weight * ((const float *)s->rows)[from + i];
        } else {
            out[i] = weight * tri_bf16_to_f32(((const uint16_t *)s->rows)[from + i]);
        }
    }
}

static int64_t left_branch(int64_t count)
{
    int64_t half = 1;
    while (2 * half < count) {
        half *= 2;
    }
    return half;
}

static void branch(const struct part *p, int64_t first, int64_t count, float *out)
{
    if (count == 1) {
        leaf(p, first, out);
        return;
    }
    float right[BLOCK];
    int64_t left = left_branch(count);
    branch(p, first, left, out);
    branch(p, first + left, count - left, right);
    for (int64_t i = 0; i < p->size; i++) {
        out[i] += right[i];
    }
}

static void add_tokens(void *state, int64_t begin, int64_t end)
{
    const struct tri_expert_sum *s = state;
    for (int64_t t = begin; t < end; t++) {
        for (int64_t column = 0; column < s->width; column += BLOCK) {
            int64_t rest = s->width - column;
            const struct part p = {s, t, column, rest < BLOCK ? rest : BLOCK};
            branch(&p, 0, s->k, s->y + t * s->width + column);
        }
    }
}

void tri_expert_sum(const struct tri_kernels *kernels, const struct tri_expert_sum *sum)
{
    struct tri_expert_sum state = *sum;
    kernels->loop(kernels, &(struct tri_loop_args){
                               .n = sum->n, .piece = PIECE, .run = add_tokens, .state = &state});
}
