/* SparseMixer-v2 (GRIN, arXiv 2409.12136, appendix A), one draw of one token, in double.
 *
 * Of the experts that earlier draws left, with z* the largest logit among them, those are drawn
 * that are not masked, by their softmax p:
 *   masked unless z* - z_e <= range (|z_e| + |z*|).
 * With h = p_D Expert_D(x) the forward takes s h and the backward goes through b h:
 *   paper      s = 1 for D the largest, else 1 with probability 1/4, else 1/3;   b = 1
 *   released   the same with .3333, and b = s for the expert, 1 for the router; masked where
 *              (z* - z_e) / max(|z_e|, z*) > 2 range
 *   corrected  p of z / 2; s = 1 with probability 5/8;                          b = 2
 * With g = dL/dy at the scaled y all have the same router gradient (their equation 8; the 2 of
 * `corrected` meets the half of its logits):
 *   dL/dz_e = g . Expert_D(x) p_D ([e = D] - p_e). */
#ifndef TRIDENT_MOE_SPARSEMIXER_H
#define TRIDENT_MOE_SPARSEMIXER_H

#include "config/config.h"

struct tri_sparsemixer {
    enum tri_sparsemixer_form form;
    double range;
    int64_t experts;
};

struct tri_sparse_draw {
    const struct tri_sparsemixer *mixer;
    const float *logits;   /* [experts] */
    const float *deciding; /* [experts] those that are compared: the same, or imposed ones */
    const int32_t *taken;  /* [before] by earlier draws */
    int64_t before;
    /* made by begin */
    int64_t largest;
    double top, sum;
    /* made by take */
    int64_t chosen;
    double share;
};

/* Looks for the largest of what is left, and what p is divided by. The first five are given. */
void tri_sparse_draw_begin(struct tri_sparse_draw *draw);
/* The expert that u, uniform in (0, 1), falls to. gap: how near another choice is, in probability
 * or (to the mask) in logits. */
int64_t tri_sparse_draw_choose(const struct tri_sparse_draw *draw, double u, double *gap);
/* Of inference: the largest; gap: how far the next one is below it. */
int64_t tri_sparse_draw_largest(const struct tri_sparse_draw *draw, double *gap);

/* chosen, by whomever, and its share p_D: 0 where it is masked. */
void tri_sparse_draw_take(struct tri_sparse_draw *draw, int64_t chosen);
/* d p_D / d logit e, with b. */
double tri_sparse_draw_slope(const struct tri_sparse_draw *draw, int64_t expert);

/* P(B = 1), and what becomes of p_D: the weight in the forward, and in the expert's backward. */
double tri_sparsemixer_rate(const struct tri_sparsemixer *mixer);
double tri_sparsemixer_scale(const struct tri_sparsemixer *mixer, bool largest, bool full);
double tri_sparsemixer_back(const struct tri_sparsemixer *mixer, double scale);

#endif
