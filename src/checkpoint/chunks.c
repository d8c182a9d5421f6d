#include "checkpoint/chunks.h"

#include "base/memory.h"

#include <string.h>

enum {
    LEAST_ROOM = 8 << 20, /* where the largest tensor is smaller */
    LARGEST = 16 << 20,   /* a chunk: what passing its hash on takes is little beside it */
    LEAST_WRITTEN = 1 << 20,
    LEAST_READ = 1 << 18,
    PAGE = 4096,
    PARTS = 4096, /* in a round of more than one chunk: each costs 64 bytes a rank */
    PACKED = 2 * TRI_HASH_PACKED
};

static int64_t clamp(int64_t value, int64_t low, int64_t high)
{
    return value < low ? low : value > high ? high : value;
}

static int64_t elements(const struct tri_param *param)
{
    return param->shape[0] * param->shape[1];
}

/* Chunks and rounds for which all buffers take no more than the largest tensor. A rank holds its
 * chunk. Writing it receives that too, and sends what it has of all the round; reading it sends its
 * chunk to as many as hold it, and receives what it holds of all. */
static void fit(struct tri_chunks *c, bool writing, int64_t wanted)
{
    int64_t room = LEAST_ROOM;
    for (int p = 0; p < c->params->count; p++) {
        int64_t bytes = elements(&c->params->param[p]) * (int64_t)sizeof(float);
        room = bytes > room ? bytes : room;
    }
    int64_t copies = writing ? 1 : c->ranks - 1;
    int64_t bytes = room / (c->ranks + 1 + copies) / PAGE * PAGE;
    bytes = clamp(bytes, writing ? LEAST_WRITTEN : LEAST_READ, LARGEST);
    c->bytes = wanted ? wanted : bytes;
    c->most = (int)clamp(room / c->bytes - 1 - copies, 1, c->ranks);
}

struct tri_chunks *tri_chunks_create(const struct tri_params *params, bool writing, int64_t wanted)
{
    struct tri_chunks *c = tri_alloc(TRI_MEMORY_OTHER, sizeof(*c));
    TRI_REQUIRE(wanted % (int64_t)sizeof(float) == 0);
    c->params = params;
    c->world = tri_mesh_group(params->mesh, TRI_ON_ALL);
    c->ranks = tri_group_size(c->world);
    c->me = tri_group_rank(c->world);
    fit(c, writing, wanted);
    c->buffer = tri_alloc(TRI_MEMORY_OTHER, (size_t)c->bytes);
    c->rows = tri_alloc(TRI_MEMORY_OTHER, 2 * (size_t)c->ranks * sizeof(*c->rows));
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
    tri_free(chunks->rows);
    tri_free(chunks->packed);
    tri_free(chunks->part);
    tri_free(chunks->entry_of);
    tri_free(chunks);
}

/* ---- rounds ---------------------------------------------------------------------------------- */

static int64_t chunks_of(const struct tri_chunks *c)
{
    return ((int64_t)c->file.bytes + c->bytes - 1) / c->bytes;
}

static int owner_of(const struct tri_chunks *c, int64_t chunk)
{
    return (int)((c->turn + chunk) % c->ranks);
}

static uint64_t end_of(const struct tri_chunks *c, int64_t chunk)
{
    uint64_t end = (uint64_t)(chunk + 1) * (uint64_t)c->bytes;
    return end < c->file.bytes ? end : c->file.bytes;
}

void tri_chunks_begin(struct tri_chunks *chunks, const struct tri_chunk_file *file)
{
    chunks->turn = chunks->after; /* small files are not all rank 0's */
    chunks->file = *file;
    chunks->after = owner_of(chunks, chunks_of(chunks));
    chunks->entry = 0;
    chunks->first = 0;
    chunks->count = 0;
    tri_hash_reset(chunks->whole);
    tri_hash_reset(chunks->tensor);
}

static void grow(struct tri_chunks *c)
{
    int room = c->part_room ? 2 * c->part_room : 64;
    struct tri_param_part *part = tri_alloc(TRI_MEMORY_OTHER, (size_t)room * sizeof(*part));
    int *entry_of = tri_alloc(TRI_MEMORY_OTHER, (size_t)room * sizeof(*entry_of));
    if (c->parts > 0) {
        memcpy(part, c->part, (size_t)c->parts * sizeof(*part));
        memcpy(entry_of, c->entry_of, (size_t)c->parts * sizeof(*entry_of));
    }
    tri_free(c->part);
    tri_free(c->entry_of);
    c->part = part;
    c->entry_of = entry_of;
    c->part_room = room;
}

/* Adds what bytes [begin, end) of the file hold of tensors. */
static void add_parts(struct tri_chunks *c, uint64_t begin, uint64_t end, int owner)
{
    const struct tri_chunk_file *file = &c->file;
    while (c->entry < file->count) {
        const struct tri_chunk_entry *e = &file->entry[c->entry];
        uint64_t tensor_end = e->begin + (uint64_t)elements(e->param) * sizeof(float);
        uint64_t from = begin > e->begin ? begin : e->begin;
        uint64_t to = end < tensor_end ? end : tensor_end;
        if (from < to) {
            if (c->parts == c->part_room) {
                grow(c);
            }
            c->entry_of[c->parts] = c->entry;
            c->part[c->parts++] = (struct tri_param_part){
                e->param, e->field, (int64_t)((from - e->begin) / sizeof(float)),
                (int64_t)((to - from) / sizeof(float)), owner};
        }
        if (tensor_end > end) {
            return; /* it goes on in the next chunk */
        }
        c->entry++;
    }
}

bool tri_chunks_next(struct tri_chunks *chunks)
{
    int64_t all = chunks_of(chunks);
    chunks->first += chunks->count;
    chunks->count = 0;
    chunks->parts = 0;
    chunks->begin = chunks->end = 0;
    while (chunks->count < chunks->most && chunks->first + chunks->count < all &&
           (chunks->count == 0 || chunks->parts < PARTS)) {
        int64_t chunk = chunks->first + chunks->count++;
        uint64_t begin = (uint64_t)chunk * (uint64_t)chunks->bytes;
        int owner = owner_of(chunks, chunk);
        add_parts(chunks, begin, end_of(chunks, chunk), owner);
        if (owner == chunks->me) {
            chunks->begin = begin;
            chunks->end = end_of(chunks, chunk);
        }
    }
    return chunks->count > 0;
}

float *tri_chunks_values(const struct tri_chunks *chunks)
{
    uint64_t data = chunks->file.data;
    uint64_t header = data <= chunks->begin ? 0
                      : data >= chunks->end ? chunks->end - chunks->begin
                                            : data - chunks->begin;
    return (float *)(void *)(chunks->buffer + header);
}

bool tri_chunks_peek(const struct tri_chunks *chunks, uint64_t *begin, uint64_t *end)
{
    for (int64_t i = 0; i < chunks->ranks; i++) {
        int64_t chunk = chunks->first + chunks->count + i;
        if (owner_of(chunks, chunk) == chunks->me && chunk < chunks_of(chunks)) {
            *begin = (uint64_t)chunk * (uint64_t)chunks->bytes;
            *end = end_of(chunks, chunk);
            return true;
        }
    }
    return false;
}

/* ---- hashes ---------------------------------------------------------------------------------- */

/* The states from one rank to the next. */
static void pass(struct tri_chunks *c, int from, int to)
{
    const struct tri_where where = {TRI_PHASE_CHECKPOINT, TRI_KIND_META};
    unsigned char *sent = c->packed, *received = c->packed + PACKED;
    int64_t *send_rows = c->rows, *recv_rows = c->rows + c->ranks;
    if (from == to) {
        return;
    }
    memset(c->rows, 0, 2 * (size_t)c->ranks * sizeof(*c->rows));
    if (c->me == from) {
        tri_hash_pack(c->whole, sent);
        tri_hash_pack(c->tensor, sent + TRI_HASH_PACKED);
        send_rows[to] = 1;
    }
    recv_rows[from] = c->me == to;
    tri_all_to_all_v(c->world, where, sent, send_rows, received, recv_rows, PACKED, TRI_U8);
    if (c->me == to) {
        tri_hash_unpack(c->whole, received);
        tri_hash_unpack(c->tensor, received + TRI_HASH_PACKED);
    }
}

static void hash_own(struct tri_chunks *c, uint64_t *tensors)
{
    const float *values = tri_chunks_values(c);
    tri_hash_update(c->whole, c->buffer, (size_t)(c->end - c->begin));
    for (int i = 0; i < c->parts && tensors; i++) {
        const struct tri_param_part *part = &c->part[i];
        if (part->owner != c->me) {
            continue;
        }
        if (part->first == 0) {
            tri_hash_reset(c->tensor);
        }
        tri_hash_update(c->tensor, values, (size_t)part->count * sizeof(float));
        if (part->first + part->count == elements(part->param)) {
            tensors[c->entry_of[i]] = tri_hash_get(c->tensor);
        }
        values += part->count;
    }
}

void tri_chunks_hash(struct tri_chunks *chunks, uint64_t *tensors)
{
    for (int64_t chunk = chunks->first; chunk < chunks->first + chunks->count; chunk++) {
        int owner = owner_of(chunks, chunk);
        if (chunk > 0) {
            pass(chunks, owner_of(chunks, chunk - 1), owner);
        }
        if (owner == chunks->me) {
            hash_own(chunks, tensors);
        }
    }
}

bool tri_chunks_has_end(const struct tri_chunks *chunks)
{
    return owner_of(chunks, chunks_of(chunks) - 1) == chunks->me;
}
