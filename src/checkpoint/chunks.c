#include "checkpoint/chunks.h"

#include "base/memory.h"
#include "base/meter.h"
#include "checkpoint/checkpoint.h"

#include <string.h>

enum {
    LEAST_ROOM = 8 << 20, /* where the largest tensor is smaller */
    LARGEST = 16 << 20,   /* a chunk */
    SLICE = 4 << 20,
    LEAST_WRITTEN = 1 << 20,
    LEAST_READ = 1 << 18,
    PAGE = 4096,
    MOST = 4096,       /* parts or entries that are told of at once */
    PIECE_BYTES = 128, /* what a part, or what is told of an entry, takes for a rank */
    PACKED = 2 * TRI_HASH_PACKED
};

static const struct tri_where where = {TRI_PHASE_CHECKPOINT, TRI_KIND_META};

static int64_t clamp(int64_t value, int64_t low, int64_t high)
{
    return value < low ? low : value > high ? high : value;
}

static int64_t elements(const struct tri_param *param)
{
    return param->shape[0] * param->shape[1];
}

int64_t tri_checkpoint_buffer_bytes(const struct tri_params *params)
{
    int64_t room = LEAST_ROOM;
    for (int p = 0; p < params->count; p++) {
        int64_t bytes = elements(&params->param[p]) * (int64_t)sizeof(float);
        room = bytes > room ? bytes : room;
    }
    return room;
}

/* Chunks and rounds for which all buffers take no more than the largest tensor. A rank holds its
 * chunk. Writing it receives that too, and sends what it has of all the round; reading it sends its
 * chunk to as many as hold it, and receives what it holds of all. An eighth is for what the ranks
 * tell each other. */
static void fit(struct tri_chunks *c, int64_t wanted)
{
    int64_t room = tri_checkpoint_buffer_bytes(c->params);
    int64_t told = clamp(room / 8 / ((int64_t)c->ranks * PIECE_BYTES), 1, MOST);
    room -= told * c->ranks * PIECE_BYTES;
    int64_t copies = c->into ? c->ranks - 1 : 1;
    int64_t bytes = room / (c->ranks + 1 + copies) / PAGE * PAGE;
    int64_t least = room / (2 + copies) / PAGE * PAGE; /* a round of one chunk */
    least = clamp(least, PAGE, c->into ? LEAST_READ : LEAST_WRITTEN);
    c->bytes = wanted ? wanted : clamp(bytes, least, LARGEST);
    c->most = (int)clamp(room / c->bytes - 1 - copies, 1, c->ranks);
    c->slice = (wanted ? wanted : SLICE) / (int64_t)sizeof(float);
    c->parts_most = c->most_told = (int)told;
}

struct tri_chunks *tri_chunks_create(const struct tri_params *params, struct tri_params *into,
                                     int64_t wanted)
{
    struct tri_chunks *c = tri_alloc(TRI_MEMORY_OTHER, sizeof(*c));
    TRI_REQUIRE(wanted % (int64_t)sizeof(float) == 0);
    c->params = params;
    c->into = into;
    c->world = tri_mesh_group(params->mesh, TRI_ON_ALL);
    c->ranks = tri_group_size(c->world);
    c->me = tri_group_rank(c->world);
    fit(c, wanted);
    c->packed = tri_alloc(TRI_MEMORY_OTHER, 2 * PACKED);
    c->whole = tri_hash_create();
    c->tensor = tri_hash_create();
    return c;
}

void tri_chunks_destroy(struct tri_chunks *chunks)
{
    if (!chunks) {
        return;
    }
    tri_hash_destroy(chunks->whole);
    tri_hash_destroy(chunks->tensor);
    tri_param_room_fini(&chunks->room);
    tri_free(chunks->buffer);
    tri_free(chunks->packed);
    tri_free(chunks->part);
    tri_free(chunks->entry_of);
    tri_free(chunks);
}

static void *buffer(struct tri_chunks *c)
{
    return tri_grow(TRI_MEMORY_OTHER, &c->buffer, &c->buffer_bytes, (size_t)c->bytes);
}

/* ---- hashes ---------------------------------------------------------------------------------- */

void tri_chunks_pass(struct tri_chunks *chunks, int to)
{
    unsigned char *sent = chunks->packed, *received = chunks->packed + PACKED;
    int from = chunks->holder;
    chunks->holder = to;
    if (from == to) {
        return;
    }
    if (chunks->me == from) {
        tri_request_end(chunks->going);
        tri_hash_pack(chunks->whole, sent);
        tri_hash_pack(chunks->tensor, sent + TRI_HASH_PACKED);
        chunks->going = tri_send_begin(chunks->world, where, to, sent, PACKED, TRI_U8);
    } else if (chunks->me == to) {
        tri_receive(chunks->world, where, from, received, PACKED, TRI_U8);
        tri_hash_unpack(chunks->whole, received);
        tri_hash_unpack(chunks->tensor, received + TRI_HASH_PACKED);
    }
}

void tri_chunks_take(struct tri_chunks *chunks, int entry, int64_t first, int64_t n,
                     const float *values)
{
    tri_hash_update(chunks->whole, values, (size_t)n * sizeof(float));
    if (!chunks->tensors) {
        return;
    }
    if (first == 0) {
        tri_hash_reset(chunks->tensor);
    }
    tri_hash_update(chunks->tensor, values, (size_t)n * sizeof(float));
    if (first + n == elements(chunks->file->entry[entry].param)) {
        chunks->tensors[entry] = tri_hash_get(chunks->tensor);
    }
}

uint64_t tri_chunks_hash(const struct tri_chunks *chunks)
{
    uint64_t hash = chunks->holder == chunks->me ? tri_hash_get(chunks->whole) : 0;
    tri_all_reduce_sum(chunks->world, where, &hash, 1, TRI_I64); /* one has it */
    return hash;
}

/* ---- rounds ---------------------------------------------------------------------------------- */

/* The next chunk of what ends at `until`: what it holds of tensors, and its end. */
static uint64_t next_chunk(struct tri_chunks *c, uint64_t until, int owner)
{
    const struct tri_chunk_file *file = c->file;
    uint64_t end = c->at + (uint64_t)c->bytes;
    end = end < until ? end : until;
    while (c->at < end && c->parts < c->parts_most) {
        const struct tri_chunk_entry *e = &file->entry[c->entry];
        uint64_t tensor_end = e->begin + (uint64_t)elements(e->param) * sizeof(float);
        uint64_t to = end < tensor_end ? end : tensor_end;
        c->entry_of[c->parts] = c->entry;
        c->part[c->parts++] = (struct tri_param_part){e->param,
                                                      e->field,
                                                      (int64_t)((c->at - e->begin) / sizeof(float)),
                                                      (int64_t)((to - c->at) / sizeof(float)),
                                                      {0, e->param->shape[1]},
                                                      owner};
        c->at = to;
        c->entry += to == tensor_end;
    }
    return c->at;
}

/* The next round; false when there is none. */
static bool next_round(struct tri_chunks *c, uint64_t until)
{
    c->parts = 0;
    c->begin = c->end = 0;
    for (c->owners = 0; c->owners < c->most && c->at < until && c->parts < c->parts_most;
         c->owners++) {
        uint64_t begin = c->at;
        uint64_t end = next_chunk(c, until, c->owners);
        if (c->owners == c->me) {
            c->begin = begin;
            c->end = end;
        }
    }
    return c->owners > 0;
}

static void hash_round(struct tri_chunks *c)
{
    const float *values = c->buffer;
    for (int owner = 0; owner < c->owners; owner++) {
        tri_chunks_pass(c, owner);
        for (int i = 0; i < c->parts && owner == c->me; i++) {
            const struct tri_param_part *part = &c->part[i];
            if (part->owner == c->me) {
                tri_chunks_take(c, c->entry_of[i], part->first, part->count, values);
                values += part->count;
            }
        }
    }
}

static void move_own(struct tri_chunks *c)
{
    if (c->begin < c->end) {
        c->disk->move(c->disk->data, c->begin, c->buffer, (size_t)(c->end - c->begin));
    }
}

/* About what this rank will read in the round after this one. */
static void expect_own(const struct tri_chunks *c, uint64_t until)
{
    uint64_t begin = c->at + (uint64_t)c->me * (uint64_t)c->bytes;
    if (c->disk->expect && c->me < c->most && begin < until) {
        uint64_t left = until - begin;
        c->disk->expect(c->disk->data, begin,
                        left < (uint64_t)c->bytes ? (size_t)left : (size_t)c->bytes);
    }
}

static void move_rounds(struct tri_chunks *c, int first, int end)
{
    const struct tri_chunk_file *file = c->file;
    uint64_t until = end < file->count ? file->entry[end].begin : file->bytes;
    float *values = buffer(c);
    if (!c->part) {
        c->part = tri_alloc(TRI_MEMORY_OTHER, (size_t)c->parts_most * sizeof(*c->part));
        c->entry_of = tri_alloc(TRI_MEMORY_OTHER, (size_t)c->parts_most * sizeof(*c->entry_of));
    }
    c->entry = first;
    c->at = file->entry[first].begin;
    for (uint64_t from = c->at; next_round(c, until); from = c->at) {
        tri_meter_add(TRI_METER_BYTES, (int64_t)(c->at - from));
        if (!c->into) {
            tri_param_collect(c->params, c->parts, c->part, values, &c->room);
            hash_round(c);
            move_own(c);
        } else {
            move_own(c);
            expect_own(c, until);
            hash_round(c);
            tri_param_deal(c->into, c->parts, c->part, values, &c->room);
        }
    }
}

/* ---- the file -------------------------------------------------------------------------------- */

/* By rank 0. */
static void move_header(struct tri_chunks *c)
{
    unsigned char *piece = buffer(c);
    for (uint64_t at = 0; at < c->file->data && c->me == 0; at += (uint64_t)c->bytes) {
        uint64_t left = c->file->data - at;
        size_t n = left < (uint64_t)c->bytes ? (size_t)left : (size_t)c->bytes;
        if (!c->into) {
            memcpy(piece, c->file->header + at, n);
        }
        c->disk->move(c->disk->data, at, piece, n);
        tri_hash_update(c->whole, piece, n);
    }
}

void tri_chunks_move(struct tri_chunks *chunks, const struct tri_chunk_file *file,
                     const struct tri_chunk_disk *disk, uint64_t *tensors)
{
    struct tri_chunks *c = chunks;
    c->file = file;
    c->disk = disk;
    c->tensors = tensors;
    c->holder = 0;
    tri_hash_reset(c->whole);
    tri_hash_reset(c->tensor);
    move_header(c);
    for (int first = 0; first < file->count; first += c->told_count) {
        tri_slices_tell(c, first);
        int last = first + c->told_count;
        for (int at = first, end; at < last; at = end) {
            bool fits = tri_slices_fit(c, at);
            for (end = at + 1; end < last && tri_slices_fit(c, end) == fits; end++) {
            }
            (fits ? tri_slices_move : move_rounds)(c, at, end);
        }
        tri_free(c->told);
        c->told = NULL;
    }
    tri_request_end(c->going);
    c->going = NULL;
}
