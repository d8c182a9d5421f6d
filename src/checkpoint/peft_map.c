/* Halves of pairs <-> the tensors of PEFT's adapters. */
#include "checkpoint/peft.h"
#include "model/low_rank.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool is_fused(const struct tri_peft_form *form, const struct tri_param *weight)
{
    return form->fused && weight->place == TRI_PLACE_EXPERT;
}

int tri_peft_matrix(const struct tri_peft_form *form, const struct tri_param *weight, int *index)
{
    *index = 0;
    if (form->family == TRI_HF_GPT2 && weight->role >= TRI_ROLE_Q && weight->role <= TRI_ROLE_V) {
        *index = (int)(weight->role - TRI_ROLE_Q);
        return 3;
    }
    if (is_fused(form, weight) && weight->role != TRI_ROLE_DOWN) {
        *index = (int)(weight->role - TRI_ROLE_GATE);
        return 2;
    }
    return 1;
}

/* PEFT wraps a module once for each parameter, the first innermost. */
static void name_fused(const struct tri_param *weight, bool is_a, char name[TRI_PEFT_NAME])
{
    (void)snprintf(name, TRI_PEFT_NAME,
                   "base_model.model.model.layers.%" PRId64 ".mlp.experts.%slora_%c.weight",
                   weight->layer, weight->role == TRI_ROLE_DOWN ? "" : "base_layer.",
                   is_a ? 'A' : 'B');
}

static void name_plain(const struct tri_hf_source *source, bool is_a, char name[TRI_PEFT_NAME])
{
    int length = (int)(strlen(source->name) - strlen("weight"));
    (void)snprintf(name, TRI_PEFT_NAME, "base_model.model.%.*slora_%c.weight", length, source->name,
                   is_a ? 'A' : 'B');
}

/* Of half a, or b, of a weight; false where the family has no tensor for the weight. */
static bool get_piece(const struct tri_peft_form *form, const struct tri_param *weight,
                      const struct tri_param *half, bool is_a, struct tri_peft_piece *piece)
{
    struct tri_hf_source source;
    int index;
    int weights = tri_peft_matrix(form, weight, &index);
    bool alone = weights == 1 || !form->shared, fused = is_fused(form, weight);
    int64_t own = alone ? form->rank : form->wide;
    int64_t rank = weights == 1 ? form->rank : form->wide;
    int64_t first = alone ? index * own : 0;
    int64_t experts = fused ? form->experts : 1, expert = fused ? weight->expert : 0;
    if (!tri_hf_source_get(form->family, weight, form->experts,
                           fused ? TRI_HF_FUSED : TRI_HF_PER_EXPERT, &source)) {
        return false;
    }
    *piece = (struct tri_peft_piece){.param = half, .stride = is_a ? 1 : experts};
    if (fused) {
        name_fused(weight, is_a, piece->name);
    } else {
        name_plain(&source, is_a, piece->name);
    }
    /* A: expert after expert; B: rank after rank, of each all experts. */
    piece->rows = is_a ? own : weight->shape[0];
    piece->columns = is_a ? weight->shape[1] : own;
    piece->row = is_a ? expert * rank + first : source.first;
    piece->column = is_a ? 0 : first * experts + expert;
    piece->shape[0] = is_a ? experts * rank : source.shape[fused || source.transposed ? 1 : 0];
    piece->shape[1] = is_a ? weight->shape[1] : experts * rank;
    return true;
}

static int by_name(const void *a, const void *b)
{
    const struct tri_peft_piece *x = a, *y = b;
    int order = strcmp(x->name, y->name);
    return order ? order : (x->param > y->param) - (x->param < y->param);
}

int tri_peft_pieces(const struct tri_peft_form *form, const struct tri_params *params,
                    struct tri_peft_piece *pieces)
{
    int count = 0;
    for (int p = 0; p < params->count; p++) {
        const struct tri_param *a, *b, *weight = &params->param[p];
        if (tri_low_rank_find(params, weight, &a, &b) &&
            get_piece(form, weight, a, true, &pieces[count]) &&
            get_piece(form, weight, b, false, &pieces[count + 1])) {
            count += 2;
        }
    }
    qsort(pieces, (size_t)count, sizeof(*pieces), by_name);
    return count;
}
