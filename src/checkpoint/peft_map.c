/* Halves of pairs <-> the tensors of PEFT's adapters. */
#include "checkpoint/peft.h"
#include "model/low_rank.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int tri_peft_matrix(const struct tri_peft_form *form, const struct tri_param *weight, int *index)
{
    *index = 0;
    if (form->family == TRI_HF_GPT2 && weight->role >= TRI_ROLE_Q && weight->role <= TRI_ROLE_V) {
        *index = (int)(weight->role - TRI_ROLE_Q);
        return 3;
    }
    return 1;
}

bool tri_peft_piece_get(const struct tri_peft_form *form, const struct tri_param *weight,
                        const struct tri_param *half, bool is_a, struct tri_peft_piece *piece)
{
    struct tri_hf_source source;
    int index;
    int weights = tri_peft_matrix(form, weight, &index);
    bool alone = weights == 1 || !form->shared;
    int64_t own = alone ? form->rank : form->wide;
    int64_t rank = weights == 1 ? form->rank : form->wide;
    int64_t first = alone ? index * own : 0;
    if (!tri_hf_source_get(form->family, weight, form->experts, TRI_HF_PER_EXPERT, &source)) {
        return false;
    }
    *piece = (struct tri_peft_piece){.param = half};
    int length = (int)(strlen(source.name) - strlen("weight"));
    (void)snprintf(piece->name, sizeof(piece->name), "base_model.model.%.*slora_%c.weight", length,
                   source.name, is_a ? 'A' : 'B');
    piece->rows = is_a ? own : weight->shape[0];
    piece->columns = is_a ? weight->shape[1] : own;
    piece->row = is_a ? first : source.first;
    piece->column = is_a ? 0 : first;
    piece->shape[0] = is_a ? rank : source.shape[source.transposed ? 1 : 0];
    piece->shape[1] = is_a ? weight->shape[1] : rank;
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
            tri_peft_piece_get(form, weight, a, true, &pieces[count]) &&
            tri_peft_piece_get(form, weight, b, false, &pieces[count + 1])) {
            count += 2;
        }
    }
    qsort(pieces, (size_t)count, sizeof(*pieces), by_name);
    return count;
}
