/* Sliding windows of attention. */
#ifndef TRIDENT_MODEL_WINDOW_H
#define TRIDENT_MODEL_WINDOW_H

#include "model/frame.h"

/* The first key that each query of the frame's pass sees, in a layer of this window (0: none), as
 * pass->first_key, which it is where the window reaches over all keys; else the frame's. Local. */
const int32_t *tri_window_first_keys(const struct tri_frame *frame, int64_t window);

#endif
