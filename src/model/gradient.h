/* Gradients of weights: sums over tokens. In reproducible mode the tokens are cut where no layout
 * changes the cuts, each part's sum is taken alone, in f32, and added to fixed-point sums
 * (kernel.h), whose terms may come in any order from any rank. Otherwise there are no cuts.
 *
 *   by rows     | row 0     | row 1     | …          where a rank has all tokens of its rows
 *   by tokens   |  |  |  |  |  |  |  |  | …          each row in parts that cuts respect
 */
#ifndef TRIDENT_MODEL_GRADIENT_H
#define TRIDENT_MODEL_GRADIENT_H

#include "model/linear.h"
#include "model/frame.h"

/* Of rows of seq tokens, in the arena. */
struct tri_cuts tri_cuts_by_rows(const struct tri_frame *frame, int64_t rows, int64_t seq);
/* Of these tokens, which are all or a tensor rank's part; counted from the first of them. */
struct tri_cuts tri_cuts_by_tokens(const struct tri_frame *frame, struct tri_range tokens);

/* The kernels' norm_backward, bias_backward, rms_backward and embedding_backward, with gradients in
 * the dtype of their buffers. All gradients are added to; those of a table are opened here, if it
 * is trained. dweight NULL: of weights that are not trained. */
void tri_gradient_norm(const struct tri_frame *frame, struct tri_cuts cuts, bool rms,
                       const void *dy, const void *x, const void *weight, float *stats, void *dx,
                       void *dweight, void *dbias, int64_t n);
void tri_gradient_bias(const struct tri_frame *frame, struct tri_cuts cuts, const void *dy,
                       int64_t ld, void *db, int64_t n, int64_t width);
void tri_gradient_rms(const struct tri_frame *frame, struct tri_cuts cuts, struct tri_rows dy,
                      struct tri_rows x, const float *rstd, const float *weight, float *dots,
                      int64_t total_width, void *dweight);
void tri_gradient_rows(const struct tri_context *context, struct tri_span table,
                       const int32_t *index, const void *dy, int64_t n);

#endif
