/* Tensors of which each rank moves between the file and its memory what it holds. */
#include "checkpoint/chunks.h"

#include "base/memory.h"
#include "base/meter.h"

enum {
    MOST = 2048,      /* slices in a list */
    RING = 16,        /* messages on their way */
    AHEAD = 64 << 20, /* bytes that a rank has moved before their turn */
    PLAIN = 1,        /* flags of a share */
    FLOATS = 2,
    SHARDED = 4,
    WORDS = sizeof(struct tri_chunk_share) / sizeof(int64_t)
};

static const struct tri_where where = {TRI_PHASE_CHECKPOINT, TRI_KIND_META};

/* Elements of an entry that one rank moves. */
struct slice {
    int entry, owner;
    int64_t first, count;
};

/* Where the next list begins. */
struct place {
    int entry, owner;
    int64_t element;
};

struct walk {
    struct tri_chunks *chunks;
    int slices;
    struct slice *slice; /* [MOST] */
    int next;            /* of this rank's, the first that has not been moved */
    int64_t ahead;       /* bytes that were moved and are not yet hashed */
    bool busy;           /* one of them is in the buffer */
    int begun;           /* messages */
    struct tri_request *ring[RING];
};

static int64_t elements(const struct tri_chunks *c, int entry)
{
    const struct tri_param *param = c->file->entry[entry].param;
    return param->shape[0] * param->shape[1];
}

/* ---- who has what ---------------------------------------------------------------------------- */

static const struct tri_chunk_share *share_of(const struct tri_chunks *c, int entry, int rank)
{
    return &c->told[(size_t)rank * (size_t)c->told_count + (size_t)(entry - c->told_first)];
}

void tri_slices_tell(struct tri_chunks *chunks, int first)
{
    struct tri_chunks *c = chunks;
    int left = c->file->count - first;
    c->told_first = first;
    c->told_count = left < c->most_told ? left : c->most_told;
    size_t ranks = (size_t)c->ranks, count = (size_t)c->told_count;
    c->told = tri_alloc(TRI_MEMORY_OTHER, ranks * count * sizeof(*c->told));
    int64_t *words = tri_alloc(TRI_MEMORY_OTHER, ranks * sizeof(*words));
    for (size_t r = 0; r < ranks; r++) {
        words[r] = (int64_t)count * WORDS;
    }
    for (size_t i = 0; i < count; i++) {
        const struct tri_chunk_entry *e = &c->file->entry[(size_t)first + i];
        struct tri_param_share share = tri_param_share(c->params, e->param, e->field);
        c->told[(size_t)c->me * count + i] =
            (struct tri_chunk_share){share.given, share.taken,
                                     (share.plain ? PLAIN : 0) | (share.floats ? FLOATS : 0) |
                                         (share.sharded ? SHARDED : 0)};
    }
    tri_all_gather_v(c->world, where, c->told, words, TRI_I64);
    tri_free(words);
}

/* Of what several ranks take and none gives a shard of, any may read any part. */
static bool is_shared(const struct tri_chunks *c, int entry)
{
    return c->into && !(share_of(c, entry, 0)->flags & SHARDED);
}

/* What a rank may move of an entry. */
static struct tri_range movable(const struct tri_chunks *c, int entry, int rank)
{
    const struct tri_chunk_share *share = share_of(c, entry, rank);
    bool gives =
        !c->into || (c->file->entry[entry].field == TRI_FIELD_WEIGHT && !is_shared(c, entry));
    return gives ? share->given : share->taken;
}

/* The first rank, from `from` on and around, that may move an element; -1: none. */
static int find_owner(const struct tri_chunks *c, int entry, int64_t element, int from)
{
    for (int i = 0; i < c->ranks; i++) {
        int rank = (from + i) % c->ranks;
        struct tri_range range = movable(c, entry, rank);
        if (range.begin <= element && element < range.end) {
            return rank;
        }
    }
    return -1;
}

bool tri_slices_fit(const struct tri_chunks *chunks, int entry)
{
    int64_t needed = PLAIN | (chunks->into ? 0 : FLOATS);
    for (int r = 0; r < chunks->ranks; r++) {
        if ((share_of(chunks, entry, r)->flags & needed) != needed) {
            return false;
        }
    }
    int owner = 0;
    for (int64_t at = 0; at < elements(chunks, entry); at = movable(chunks, entry, owner).end) {
        owner = find_owner(chunks, entry, at, owner);
        if (owner < 0) {
            return false;
        }
    }
    return true;
}

/* The next slices of entries before end; none at their end. */
static void list_slices(struct walk *w, struct place *place, int end)
{
    struct tri_chunks *c = w->chunks;
    w->slices = 0;
    while (w->slices < MOST && place->entry < end) {
        bool shared = is_shared(c, place->entry);
        int owner = find_owner(c, place->entry, place->element, shared ? c->turn : place->owner);
        int64_t count = movable(c, place->entry, owner).end - place->element;
        int64_t most = c->slice;
        if (!(share_of(c, place->entry, owner)->flags & FLOATS)) {
            int64_t room = c->bytes / (int64_t)sizeof(float);
            most = most < room ? most : room;
        }
        count = count < most ? count : most;
        w->slice[w->slices++] = (struct slice){place->entry, owner, place->element, count};
        c->turn = (owner + 1) % c->ranks;
        place->owner = owner;
        place->element += count;
        if (place->element == elements(c, place->entry)) {
            place->entry++;
            place->element = 0;
        }
    }
}

/* ---- messages -------------------------------------------------------------------------------- */

/* Makes room for one by waiting for the oldest. All ranks begin theirs in the order of the slices,
 * and wait only for earlier ones. */
static struct tri_request **next_message(struct walk *w)
{
    struct tri_request **place = &w->ring[w->begun++ % RING];
    tri_request_end(*place);
    *place = NULL;
    return place;
}

static void end_messages(struct walk *w)
{
    for (int i = 0; i < RING; i++) {
        (void)next_message(w);
    }
}

/* What a rank takes of weights that another one has read. */
static struct tri_range wanted_by(const struct tri_chunks *c, const struct slice *s, int rank)
{
    struct tri_range range = {0, 0};
    if (c->into && rank != s->owner && c->file->entry[s->entry].field == TRI_FIELD_WEIGHT) {
        range = tri_range_intersect((struct tri_range){s->first, s->first + s->count},
                                    share_of(c, s->entry, rank)->taken);
    }
    return range;
}

static void send_weights(struct walk *w, const struct slice *s)
{
    const struct tri_chunks *c = w->chunks;
    const struct tri_param *param = c->file->entry[s->entry].param;
    for (int i = 1; i < c->ranks; i++) {
        int to = (c->me + i) % c->ranks;
        struct tri_range range = wanted_by(c, s, to);
        if (range.begin < range.end) {
            *next_message(w) =
                tri_send_begin(c->world, where, to, tri_param_stored(c->params, param, range.begin),
                               range.end - range.begin, param->dtype);
        }
    }
}

static void receive_weights(struct walk *w, const struct slice *s)
{
    const struct tri_chunks *c = w->chunks;
    const struct tri_param *param = c->file->entry[s->entry].param;
    struct tri_range range = wanted_by(c, s, c->me);
    if (range.begin < range.end) {
        *next_message(w) = tri_receive_begin(c->world, where, s->owner,
                                             tri_param_stored(c->params, param, range.begin),
                                             range.end - range.begin, param->dtype);
    }
}

/* ---- bytes ----------------------------------------------------------------------------------- */

/* Where this rank has the slice as it is in the file; NULL: nowhere but in the buffer. */
static float *place_of(const struct tri_chunks *c, const struct slice *s)
{
    const struct tri_chunk_entry *e = &c->file->entry[s->entry];
    return tri_param_floats(c->params, e->param, e->field, s->first);
}

static int64_t bytes_of(const struct slice *s)
{
    return s->count * (int64_t)sizeof(float);
}

static uint64_t begin_of(const struct tri_chunks *c, const struct slice *s)
{
    return c->file->entry[s->entry].begin + (uint64_t)s->first * sizeof(float);
}

static void find_next(struct walk *w)
{
    while (w->next < w->slices && w->slice[w->next].owner != w->chunks->me) {
        w->next++;
    }
}

/* Moves the next slice of this rank's. */
static void move_next(struct walk *w)
{
    struct tri_chunks *c = w->chunks;
    const struct slice *s = &w->slice[w->next++];
    float *values = place_of(c, s);
    w->busy = w->busy || !values;
    w->ahead += bytes_of(s);
    if (!values) {
        values = tri_grow(TRI_MEMORY_OTHER, &c->buffer, &c->buffer_bytes, (size_t)c->bytes);
    }
    find_next(w);
    if (c->disk->expect && w->next < w->slices) {
        const struct slice *after = &w->slice[w->next];
        c->disk->expect(c->disk->data, begin_of(c, after), (size_t)bytes_of(after));
    }
    c->disk->move(c->disk->data, begin_of(c, s), values, (size_t)bytes_of(s));
}

static bool may_move_ahead(const struct walk *w)
{
    if (w->next == w->slices || w->ahead + bytes_of(&w->slice[w->next]) > AHEAD) {
        return false;
    }
    return !w->busy || place_of(w->chunks, &w->slice[w->next]);
}

/* It has been moved, and the hashes are here. */
static void settle_own(struct walk *w, const struct slice *s)
{
    struct tri_chunks *c = w->chunks;
    const struct tri_chunk_entry *e = &c->file->entry[s->entry];
    const float *place = place_of(c, s), *values = place ? place : c->buffer;
    tri_chunks_take(c, s->entry, s->first, s->count, values);
    if (c->into) {
        tri_param_store(c->into, e->param, e->field, s->first, s->count, values);
        send_weights(w, s);
    }
    w->ahead -= bytes_of(s);
    w->busy = w->busy && place;
}

/* Before the turn of what is moved ahead comes, others move theirs: a slice of this rank's for each
 * of another's. */
static void walk_slices(struct walk *w)
{
    w->next = 0;
    find_next(w);
    while (may_move_ahead(w) && w->next > 0) {
        move_next(w);
    }
    for (int i = 0; i < w->slices; i++) {
        const struct slice *s = &w->slice[i];
        tri_chunks_pass(w->chunks, s->owner);
        tri_meter_add(TRI_METER_BYTES, bytes_of(s));
        if (s->owner == w->chunks->me) {
            if (w->next == i) {
                move_next(w);
            }
            settle_own(w, s);
        } else {
            receive_weights(w, s);
            if (may_move_ahead(w)) {
                move_next(w);
            }
        }
    }
}

void tri_slices_move(struct tri_chunks *chunks, int first, int end)
{
    struct tri_chunks *c = chunks;
    struct walk w = {.chunks = c};
    struct place place = {first, 0, 0};
    w.slice = tri_alloc(TRI_MEMORY_OTHER, MOST * sizeof(*w.slice));
    for (list_slices(&w, &place, end); w.slices > 0; list_slices(&w, &place, end)) {
        walk_slices(&w);
    }
    end_messages(&w);
    for (int e = first; e < end && c->into; e++) {
        if (c->file->entry[e].field == TRI_FIELD_WEIGHT) {
            tri_params_refresh_row(c->params, c->file->entry[e].param);
        }
    }
    tri_free(w.slice);
}
