#include "model/frame.h"

#include <unistd.h>

enum { NO_STASH = 1 << 16 };

static struct tri_frame *create(const struct tri_frames *frames)
{
    const struct tri_context *context = frames->context;
    const struct tri_config *config = context->config;
    struct tri_frame *frame = tri_alloc(TRI_MEMORY_OTHER, sizeof(*frame));
    size_t physical = (size_t)sysconf(_SC_PHYS_PAGES) * (size_t)sysconf(_SC_PAGESIZE);
    /* 0: an arena that only counts. */
    size_t reserve = context->kernels->dry ? 0 : physical;
    frame->context = context;
    frame->arena = tri_arena_create(TRI_MEMORY_ACTIVATIONS, "activations", reserve);
    /* Address space may be limited too: none for a stash that nothing goes to. */
    frame->tape =
        tri_tape_create(config->model.num_layers, config->train.communication_aware_checkpointing,
                        config->train.recompute ? reserve : NO_STASH);
    frame->kept = tri_alloc(TRI_MEMORY_OTHER, frames->kept);
    frame->moe = frame->kept + frames->moe;
    return frame;
}

void tri_frames_init(struct tri_frames *frames, const struct tri_context *context, size_t kept,
                     size_t moe)
{
    *frames = (struct tri_frames){.context = context, .kept = kept, .moe = moe};
    frames->first = create(frames);
}

void tri_frames_release(struct tri_frames *frames)
{
    for (struct tri_frame *frame = frames->first; frame;) {
        struct tri_frame *next = frame->next;
        TRI_REQUIRE(frame->stage == TRI_STAGE_CLOSED);
        tri_free(frame->kept);
        tri_tape_destroy(frame->tape);
        tri_arena_destroy(frame->arena);
        tri_free(frame);
        frame = next;
    }
}

static struct tri_pass own_part(const struct tri_mesh *mesh, const struct tri_pass *pass)
{
    struct tri_range rows =
        tri_range_part(pass->rows, mesh->size[TRI_AXIS_DEPTH], mesh->coord[TRI_AXIS_DEPTH]);
    int64_t at = rows.begin * pass->seq;
    struct tri_pass part = *pass;
    part.rows = tri_range_size(rows);
    part.first_row += rows.begin;
    part.tokens += at;
    part.positions += at;
    part.targets = pass->targets ? pass->targets + at : NULL;
    part.first_key = pass->first_key ? pass->first_key + at : NULL;
    return part;
}

struct tri_frame *tri_frames_open(struct tri_frames *frames, const struct tri_pass *pass)
{
    struct tri_frame **at = &frames->first;
    while (*at && (*at)->stage != TRI_STAGE_CLOSED) {
        at = &(*at)->next;
    }
    if (!*at) {
        *at = create(frames);
    }
    struct tri_frame *frame = *at;
    frame->pass = *pass;
    frame->part = own_part(frames->context->mesh, pass);
    frame->stage = TRI_STAGE_OPEN;
#ifdef TRIDENT_DEBUG
    memset(frame->kept, 0xff, frames->kept); /* nothing of another micro-batch is read */
#endif
    return frame;
}

void tri_frame_close(struct tri_frame *frame)
{
    TRI_REQUIRE(frame->stage != TRI_STAGE_CLOSED);
    frame->stage = TRI_STAGE_CLOSED;
    tri_tape_clear(frame->tape);
    tri_arena_rewind(frame->arena, 0);
}
