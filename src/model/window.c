#include "model/window.h"

enum { PIECE = 4096 };

struct window {
    const int32_t *document; /* [tokens] or NULL */
    int64_t seq, before, keys;
    int32_t *first; /* [tokens] */
};

static void fill(void *state, int64_t begin, int64_t end)
{
    const struct window *w = state;
    for (int64_t i = begin; i < end; i++) {
        int64_t first = w->before + i % w->seq - w->keys + 1;
        int64_t document = w->document ? w->document[i] : 0;
        w->first[i] = (int32_t)(first > document ? first : document);
    }
}

const int32_t *tri_window_first_keys(const struct tri_frame *frame, int64_t window)
{
    const struct tri_pass *pass = &frame->part;
    int64_t n = tri_pass_tokens(pass);
    struct window w = {pass->first_key, pass->seq, pass->cache ? pass->cache->length : 0, window,
                       NULL};
    if (window == 0 || w.before + pass->seq <= window) {
        return pass->first_key;
    }
    w.first = (int32_t *)(void *)tri_frame_take_f32(frame, n);
    const struct tri_kernels *kernels = frame->context->kernels;
    kernels->loop(kernels,
                  &(struct tri_loop_args){.n = n, .piece = PIECE, .run = fill, .state = &w});
    return w.first;
}
