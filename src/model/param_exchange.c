/* Whole tensors from their parts, and parts from whole tensors. */
#include "model/param.h"

#include "base/memory.h"

#include <math.h>
#include <string.h>

/* What a rank gives or takes of a tensor: elements [begin, end) of its local row-major slice
 * rows x columns, of which only the rows in `counted` are meant. */
struct piece {
    struct tri_range rows, columns, counted, flat;
};

enum { PIECE_WORDS = sizeof(struct piece) / sizeof(int64_t) };

/* The part of a row of the table that this rank owns, in local elements. */
static struct tri_range owned(const struct tri_params *params, const struct tri_param *param)
{
    struct tri_range part = tri_param_own(params, param);
    if (tri_range_size(part) == 0) {
        return (struct tri_range){0, 0};
    }
    return (struct tri_range){part.begin - param->offset, part.end - param->offset};
}

static bool is_sharded(const struct tri_buffer *buffer, enum tri_field field)
{
    return field != TRI_FIELD_WEIGHT || buffer->m;
}

/* Of weights that all replicas hold each gives what would be its shard. */
static struct piece given(const struct tri_params *params, const struct tri_param *param)
{
    struct piece piece = {param->local[0], param->local[1], param->counted, {0, 0}};
    if (tri_range_size(param->counted) > 0) {
        piece.flat = owned(params, param);
    }
    return piece;
}

static void widen(const uint16_t *values, int64_t n, float *out)
{
    for (int64_t i = 0; i < n; i++) {
        out[i] = tri_bf16_to_f32(values[i]);
    }
}

/* Fixed-point sums (kernel.h) as numbers. */
static void unfix(const int64_t *sums, int64_t n, float *out)
{
    for (int64_t i = 0; i < n; i++) {
        out[i] = ldexpf((float)sums[i], -TRI_FIXED_BITS);
    }
}

/* Local elements `flat` of a field, as f32, into out. */
static void read_field(const struct tri_params *params, const struct tri_param *param,
                       enum tri_field field, struct tri_range flat, float *out)
{
    const struct tri_buffer *buffer = &params->buffer[param->buffer];
    int64_t n = tri_range_size(flat);
    const float *source = NULL;
    if (n == 0) {
        return;
    }
    if (field != TRI_FIELD_WEIGHT && !buffer->trained) {
        memset(out, 0, (size_t)n * sizeof(float));
        return;
    }
    if (field == TRI_FIELD_GRADIENT && buffer->gradient_dtype == TRI_BF16) {
        widen((const uint16_t *)buffer->gradients + param->offset + flat.begin, n, out);
        return;
    } else if (field == TRI_FIELD_GRADIENT && buffer->gradient_dtype == TRI_I64) {
        unfix((const int64_t *)buffer->gradients + param->offset + flat.begin, n, out);
        return;
    } else if (field == TRI_FIELD_GRADIENT) {
        source = (const float *)buffer->gradients + param->offset + flat.begin;
    } else if (field == TRI_FIELD_WEIGHT && buffer->dtype == TRI_F32) {
        source = (const float *)buffer->weights + param->offset + flat.begin;
    } else if (field == TRI_FIELD_WEIGHT && !buffer->master) {
        widen((const uint16_t *)buffer->weights + param->offset + flat.begin, n, out);
        return;
    } else {
        const float *shard = field == TRI_FIELD_M   ? buffer->m
                             : field == TRI_FIELD_V ? buffer->v
                                                    : buffer->master;
        const struct tri_segment *segment = &buffer->segment[param->segment];
        source = shard + tri_segment_place(segment, param->offset + flat.begin);
    }
    memcpy(out, source, (size_t)n * sizeof(float));
}

/* What is taken: every element that this rank holds, those that others count too. */
static struct piece taken(const struct tri_params *params, const struct tri_param *param,
                          enum tri_field field)
{
    const struct tri_buffer *buffer = &params->buffer[param->buffer];
    struct piece piece = {param->local[0], param->local[1], param->local[0], {0, 0}};
    if (field == TRI_FIELD_WEIGHT) {
        piece.flat = (struct tri_range){0, param->count};
    } else if (buffer->m) {
        piece.flat = owned(params, param);
    }
    return piece;
}

/* ---- runs: what lies in one go both in a rank's slice and in the tensor -------------------- */

struct run {
    int64_t local, whole, n; /* its first element in the slice; in the tensor; how many */
};

/* The runs of a piece within elements `wanted` of some columns of the tensor, in order. */
struct walk {
    const struct piece *piece;
    int64_t width; /* of the slice */
    struct tri_range columns, shared, wanted, rows;
};

static struct walk walk_over(const struct piece *piece, const struct tri_param_part *part)
{
    int64_t columns = tri_range_size(part->columns);
    struct walk w = {.piece = piece,
                     .width = tri_range_size(piece->columns),
                     .columns = part->columns,
                     .shared = tri_range_intersect(piece->columns, part->columns),
                     .wanted = {part->first, part->first + part->count}};
    if (tri_range_size(w.shared) > 0 && tri_range_size(piece->flat) > 0) {
        struct tri_range touched = {w.wanted.begin / columns,
                                    (w.wanted.end + columns - 1) / columns};
        struct tri_range held = {piece->rows.begin + piece->flat.begin / w.width,
                                 piece->rows.begin + (piece->flat.end + w.width - 1) / w.width};
        w.rows = tri_range_intersect(tri_range_intersect(piece->rows, piece->counted),
                                     tri_range_intersect(touched, held));
    }
    return w;
}

static bool next_run(struct walk *w, struct run *run)
{
    int64_t columns = tri_range_size(w->columns), n = tri_range_size(w->shared);
    while (w->rows.begin < w->rows.end) {
        /* Rows of the whole width follow each other in both. */
        int64_t rows = w->width == n && columns == n ? tri_range_size(w->rows) : 1;
        int64_t first = (w->rows.begin - w->piece->rows.begin) * w->width + w->shared.begin -
                        w->piece->columns.begin;
        int64_t shift = w->rows.begin * columns + w->shared.begin - w->columns.begin - first;
        struct tri_range wanted = {w->wanted.begin - shift, w->wanted.end - shift};
        struct tri_range local = tri_range_intersect((struct tri_range){first, first + rows * n},
                                                     tri_range_intersect(w->piece->flat, wanted));
        w->rows.begin += rows;
        if (tri_range_size(local) > 0) {
            *run = (struct run){local.begin, local.begin + shift, tri_range_size(local)};
            return true;
        }
    }
    return false;
}

static int64_t elements(const struct piece *piece, const struct tri_param_part *part)
{
    struct walk w = walk_over(piece, part);
    struct run run;
    int64_t n = 0;
    while (next_run(&w, &run)) {
        n += run.n;
    }
    return n;
}

/* ---- writing --------------------------------------------------------------------------------- */

/* What is there already stays. */
static void copy(float *to, const float *values, int64_t n)
{
    if (to != values) {
        memcpy(to, values, (size_t)n * sizeof(float));
    }
}

/* To element `place` of an array of f32, bf16 or fixed-point sums. */
static void write_values(void *array, enum tri_dtype dtype, int64_t place, int64_t n,
                         const float *values)
{
    if (dtype == TRI_F32) {
        copy((float *)array + place, values, n);
        return;
    }
    for (int64_t i = 0; i < n; i++) {
        if (dtype == TRI_I64) {
            ((int64_t *)array)[place + i] = (int64_t)rint(ldexp((double)values[i], TRI_FIXED_BITS));
        } else {
            ((uint16_t *)array)[place + i] = tri_f32_to_bf16(values[i]);
        }
    }
}

static void write_shard(float *shard, const struct tri_segment *segment, int64_t place, int64_t n,
                        const float *values)
{
    struct tri_range part = tri_segment_own(segment, (struct tri_range){place, place + n});
    if (shard && tri_range_size(part) > 0) {
        copy(shard + tri_segment_place(segment, part.begin), values + (part.begin - place),
             tri_range_size(part));
    }
}

/* To n elements of a field from local element `local` on. */
static void write_field(const struct tri_params *params, const struct tri_param *param,
                        enum tri_field field, int64_t local, int64_t n, const float *values)
{
    const struct tri_buffer *buffer = &params->buffer[param->buffer];
    const struct tri_segment *segment = &buffer->segment[param->segment];
    int64_t place = param->offset + local;
    switch (field) {
    case TRI_FIELD_WEIGHT:
        write_values(buffer->weights, buffer->dtype, place, n, values);
        write_shard(buffer->master, segment, place, n, values);
        break;
    case TRI_FIELD_GRADIENT:
        if (buffer->gradients) {
            write_values(buffer->gradients, buffer->gradient_dtype, place, n, values);
        }
        break;
    case TRI_FIELD_M:
        write_shard(buffer->m, segment, place, n, values);
        break;
    case TRI_FIELD_V:
        write_shard(buffer->v, segment, place, n, values);
        break;
    }
}

void tri_param_scatter_rows(struct tri_params *params, const struct tri_param *param,
                            enum tri_field field, struct tri_range rows, const float *values)
{
    int64_t columns = tri_range_size(param->local[1]);
    struct tri_range part = tri_range_intersect(param->local[0], rows);
    tri_params_settle_row(params, param);
    for (int64_t row = part.begin; row < part.end; row++) {
        const float *from = values + (row - rows.begin) * param->shape[1] + param->local[1].begin;
        write_field(params, param, field, (row - param->local[0].begin) * columns, columns, from);
    }
    if (field == TRI_FIELD_WEIGHT && rows.end >= param->local[0].end) {
        tri_params_refresh_row(params, param);
    }
}

void tri_param_scatter(struct tri_params *params, const struct tri_param *param,
                       enum tri_field field, const float *global)
{
    tri_param_scatter_rows(params, param, field, (struct tri_range){0, param->shape[0]}, global);
}

/* ---- shares ---------------------------------------------------------------------------------- */

/* A piece of whole rows as elements of the tensor. */
static struct tri_range in_tensor(const struct piece *piece, const struct tri_param *param)
{
    int64_t first = piece->rows.begin * param->shape[1];
    if (tri_range_size(piece->flat) == 0) {
        return (struct tri_range){0, 0};
    }
    return (struct tri_range){first + piece->flat.begin, first + piece->flat.end};
}

struct tri_param_share tri_param_share(const struct tri_params *params,
                                       const struct tri_param *param, enum tri_field field)
{
    const struct tri_buffer *buffer = &params->buffer[param->buffer];
    struct tri_param_share share = {.plain = true,
                                    .floats = field != TRI_FIELD_WEIGHT ||
                                              buffer->dtype == TRI_F32 || buffer->master,
                                    .sharded = is_sharded(buffer, field)};
    tri_params_settle_row(params, param);
    if (param->count > 0) {
        struct piece gives = given(params, param), takes = taken(params, param, field);
        share.plain = tri_range_size(param->local[1]) == param->shape[1] &&
                      param->counted.begin == param->local[0].begin &&
                      param->counted.end == param->local[0].end;
        share.given = in_tensor(&gives, param);
        share.taken = in_tensor(&takes, param);
    }
    return share;
}

/* The place in the row's slice. */
static int64_t local_of(const struct tri_param *param, int64_t element)
{
    return element - param->local[0].begin * param->shape[1];
}

float *tri_param_floats(const struct tri_params *params, const struct tri_param *param,
                        enum tri_field field, int64_t element)
{
    const struct tri_buffer *buffer = &params->buffer[param->buffer];
    int64_t place = param->offset + local_of(param, element);
    if (field == TRI_FIELD_WEIGHT && buffer->dtype == TRI_F32) {
        return (float *)buffer->weights + place;
    }
    float *shard = field == TRI_FIELD_M   ? buffer->m
                   : field == TRI_FIELD_V ? buffer->v
                                          : buffer->master;
    return shard ? shard + tri_segment_place(&buffer->segment[param->segment], place) : NULL;
}

void *tri_param_stored(const struct tri_params *params, const struct tri_param *param,
                       int64_t element)
{
    return tri_buffer_weights(&params->buffer[param->buffer],
                              param->offset + local_of(param, element));
}

void tri_param_store(struct tri_params *params, const struct tri_param *param, enum tri_field field,
                     int64_t element, int64_t n, const float *values)
{
    write_field(params, param, field, local_of(param, element), n, values);
}

/* ---- between the ranks ----------------------------------------------------------------------- */

/* Parts on their way between their owners and the ranks that hold them. */
struct exchange {
    const struct tri_params *params;
    int ranks, me, parts;
    const struct tri_param_part *part;
    struct piece *pieces; /* [ranks][parts] */
    int64_t *counts;      /* [4][ranks]: words of the pieces, and these three */
    int64_t *send_rows, *recv_rows, *at;
    float *send, *recv;
};

static const struct tri_where where = {TRI_PHASE_CHECKPOINT, TRI_KIND_META};

static const struct piece *piece_of(const struct exchange *x, int rank, int part)
{
    return &x->pieces[(size_t)rank * (size_t)x->parts + (size_t)part];
}

/* Tells every rank what this one gives or takes. Collective. */
static struct exchange exchange_begin(const struct tri_params *params, int parts,
                                      const struct tri_param_part *part, bool gives)
{
    struct tri_group *world = tri_mesh_group(params->mesh, TRI_ON_ALL);
    struct exchange x = {.params = params,
                         .ranks = tri_group_size(world),
                         .me = tri_group_rank(world),
                         .parts = parts,
                         .part = part};
    size_t ranks = (size_t)x.ranks;
    x.pieces = tri_alloc(TRI_MEMORY_OTHER, ranks * (size_t)parts * sizeof(*x.pieces));
    x.counts = tri_alloc(TRI_MEMORY_OTHER, 4 * ranks * sizeof(*x.counts));
    x.send_rows = x.counts + ranks;
    x.recv_rows = x.send_rows + ranks;
    x.at = x.recv_rows + ranks;
    for (int r = 0; r < x.ranks; r++) {
        x.counts[r] = (int64_t)parts * PIECE_WORDS;
    }
    for (int i = 0; i < parts; i++) {
        tri_params_settle_row(params, part[i].param);
        x.pieces[(size_t)x.me * (size_t)parts + (size_t)i] =
            gives ? given(params, part[i].param) : taken(params, part[i].param, part[i].field);
    }
    tri_all_gather_v(world, where, x.pieces, x.counts, TRI_I64);
    return x;
}

/* at[r] <- where rank r's rows begin; all of them. */
static int64_t places(const struct exchange *x, const int64_t *rows)
{
    int64_t sum = 0;
    for (int r = 0; r < x->ranks; r++) {
        x->at[r] = sum;
        sum += rows[r];
    }
    return sum;
}

void tri_param_room_fini(struct tri_param_room *room)
{
    tri_free(room->send);
    tri_free(room->recv);
    *room = (struct tri_param_room){0};
}

/* Memory for what goes and comes; at[] is that of the rows sent. */
static void exchange_allocate(struct exchange *x, struct tri_param_room *room)
{
    int64_t received = places(x, x->recv_rows);
    int64_t sent = places(x, x->send_rows);
    x->recv = tri_grow(TRI_MEMORY_OTHER, &room->recv, &room->recv_bytes,
                       (size_t)received * sizeof(*x->recv));
    x->send =
        tri_grow(TRI_MEMORY_OTHER, &room->send, &room->send_bytes, (size_t)sent * sizeof(*x->send));
}

/* Collective; afterwards at[] is that of the rows received. Begun and ended, for that is how a rank
 * that waits leaves its core to others that read and write (tri_request_end). */
static void exchange_run(struct exchange *x)
{
    tri_request_end(tri_all_to_all_v_begin(tri_mesh_group(x->params->mesh, TRI_ON_ALL), where,
                                           x->send, x->send_rows, x->recv, x->recv_rows, 1,
                                           TRI_F32));
    (void)places(x, x->recv_rows);
}

static void exchange_end(struct exchange *x)
{
    tri_free(x->counts);
    tri_free(x->pieces);
}

/* The next n values for or from a rank. */
static float *advance(struct exchange *x, float *buffer, int rank, int64_t n)
{
    float *values = buffer + x->at[rank];
    x->at[rank] += n;
    return values;
}

int64_t tri_param_count_given(const struct tri_params *params, const struct tri_param_part *part)
{
    tri_params_settle_row(params, part->param);
    struct piece piece = given(params, part->param);
    return elements(&piece, part);
}

void tri_param_read_given(const struct tri_params *params, const struct tri_param_part *part,
                          float *values)
{
    struct piece piece = given(params, part->param);
    struct walk w = walk_over(&piece, part);
    struct run run;
    while (next_run(&w, &run)) {
        read_field(params, part->param, part->field,
                   (struct tri_range){run.local, run.local + run.n},
                   values + (run.whole - part->first));
    }
}

/* What this rank has of another's part. */
static void pack_given(struct exchange *x, int i)
{
    const struct tri_param_part *part = &x->part[i];
    struct walk w = walk_over(piece_of(x, x->me, i), part);
    struct run run;
    while (next_run(&w, &run)) {
        read_field(x->params, part->param, part->field,
                   (struct tri_range){run.local, run.local + run.n},
                   advance(x, x->send, part->owner, run.n));
    }
}

/* What the others have of a part of this rank's. */
static void unpack_given(struct exchange *x, int i, float *own)
{
    const struct tri_param_part *part = &x->part[i];
    for (int r = 0; r < x->ranks; r++) {
        struct walk w = walk_over(piece_of(x, r, i), part);
        struct run run;
        while (r != x->me && next_run(&w, &run)) {
            memcpy(own + (run.whole - part->first), advance(x, x->recv, r, run.n),
                   (size_t)run.n * sizeof(float));
        }
    }
}

void tri_param_collect(const struct tri_params *params, int parts,
                       const struct tri_param_part *part, float *values,
                       struct tri_param_room *room)
{
    struct exchange x = exchange_begin(params, parts, part, true);
    for (int i = 0; i < parts; i++) {
        if (part[i].owner != x.me) {
            x.send_rows[part[i].owner] += elements(piece_of(&x, x.me, i), &part[i]);
            continue;
        }
        for (int r = 0; r < x.ranks; r++) {
            x.recv_rows[r] += r == x.me ? 0 : elements(piece_of(&x, r, i), &part[i]);
        }
    }
    exchange_allocate(&x, room);
    float *own = values;
    for (int i = 0; i < parts; i++) {
        if (part[i].owner == x.me) {
            tri_param_read_given(params, &part[i], own);
            own += part[i].count;
        } else {
            pack_given(&x, i);
        }
    }
    exchange_run(&x);
    own = values;
    for (int i = 0; i < parts; i++) {
        if (part[i].owner == x.me) {
            unpack_given(&x, i, own);
            own += part[i].count;
        }
    }
    exchange_end(&x);
}

/* A part of this rank's to all that hold some of it. */
static void pack_taken(struct exchange *x, int i, const float *own)
{
    const struct tri_param_part *part = &x->part[i];
    for (int r = 0; r < x->ranks; r++) {
        struct walk w = walk_over(piece_of(x, r, i), part);
        struct run run;
        while (next_run(&w, &run)) {
            const float *from = own + (run.whole - part->first);
            if (r == x->me) {
                write_field(x->params, part->param, part->field, run.local, run.n, from);
            } else {
                memcpy(advance(x, x->send, r, run.n), from, (size_t)run.n * sizeof(float));
            }
        }
    }
}

/* What this rank holds of another's part. */
static void unpack_taken(struct exchange *x, int i)
{
    const struct tri_param_part *part = &x->part[i];
    struct walk w = walk_over(piece_of(x, x->me, i), part);
    struct run run;
    while (next_run(&w, &run)) {
        write_field(x->params, part->param, part->field, run.local, run.n,
                    advance(x, x->recv, part->owner, run.n));
    }
}

void tri_param_deal(struct tri_params *params, int parts, const struct tri_param_part *part,
                    const float *values, struct tri_param_room *room)
{
    struct exchange x = exchange_begin(params, parts, part, false);
    for (int i = 0; i < parts; i++) {
        if (part[i].owner != x.me) {
            x.recv_rows[part[i].owner] += elements(piece_of(&x, x.me, i), &part[i]);
            continue;
        }
        for (int r = 0; r < x.ranks; r++) {
            x.send_rows[r] += r == x.me ? 0 : elements(piece_of(&x, r, i), &part[i]);
        }
    }
    exchange_allocate(&x, room);
    const float *own = values;
    for (int i = 0; i < parts; i++) {
        if (part[i].owner == x.me) {
            pack_taken(&x, i, own);
            own += part[i].count;
        }
    }
    exchange_run(&x);
    for (int i = 0; i < parts; i++) {
        if (part[i].owner != x.me) {
            unpack_taken(&x, i);
        }
    }
    for (int i = 0; i < parts; i++) {
        const struct tri_param *param = part[i].param;
        bool ends = part[i].first + part[i].count == param->shape[0] * param->shape[1];
        if (part[i].field == TRI_FIELD_WEIGHT && ends) {
            tri_params_refresh_row(params, param);
        }
    }
    exchange_end(&x);
}

void tri_param_gather(const struct tri_params *params, const struct tri_param *param,
                      enum tri_field field, float *global)
{
    struct tri_param_part whole = {
        param, field, 0, param->shape[0] * param->shape[1], {0, param->shape[1]}, 0};
    struct tri_param_room room = {0};
    tri_param_collect(params, 1, &whole, global, &room);
    tri_param_room_fini(&room);
}
