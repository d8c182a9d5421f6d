#include "checkpoint/hf_write.h"

#include "base/file.h"
#include "base/memory.h"
#include "base/meter.h"
#include "base/random.h"
#include "checkpoint/peft.h"
#include "model/low_rank.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    PIECE = 1 << 19,      /* elements */
    PART_BYTES = 64,      /* what a rank tells the others of a part */
    TOLD_BYTES = 2 << 20, /* in a round, of all ranks */
    PARTS = 3,            /* of a row: itself and its pair */
    Q8_0_BYTES = 34
};

static const struct tri_where where = {TRI_PHASE_CHECKPOINT, TRI_KIND_META};

/* Lines of a tensor that one rank writes. */
struct piece {
    int first, end; /* rows of its tensor */
    struct tri_range lines;
    uint64_t begin;  /* in the file */
    int owner, turn; /* ALONE where its owner has all of it; else the how many-th of its owner's */
};

enum { ALONE = -1 };

struct writing {
    const struct tri_params *params;
    const struct tri_hf_file *file;
    struct tri_group *world;
    int ranks, me;
    int pieces;
    struct piece *piece;
    int parts, parts_most;
    struct tri_param_part *part; /* [parts_most] of a piece, or of a round */
    void *values, *whole;        /* the parts of this rank's piece; the piece */
    size_t values_bytes, whole_bytes;
    struct tri_param_room room;
    struct tri_part_file *out; /* made when there is something to write */
    enum tri_status status;
    struct tri_error *error;
};

int64_t tri_hf_bytes(enum tri_hf_number number, int64_t count)
{
    return number == TRI_HF_F32    ? 4 * count
           : number == TRI_HF_Q8_0 ? count / TRI_HF_BLOCK * Q8_0_BYTES
                                   : 2 * count;
}

int64_t tri_hf_elements(const struct tri_hf_source *source)
{
    int64_t count = 1;
    for (int i = 0; i < source->dims; i++) {
        count *= source->shape[i];
    }
    return count;
}

enum tri_status tri_hf_place_rows(const struct tri_params *params, enum tri_hf_family family,
                                  int64_t num_experts, tri_hf_finder *find,
                                  struct tri_hf_row **rows, int *count, struct tri_error *error)
{
    *rows = tri_alloc(TRI_MEMORY_OTHER, (size_t)params->count * sizeof(**rows));
    *count = 0;
    for (int p = 0; p < params->count; p++) {
        if (tri_role_is_low(params->param[p].role)) {
            continue; /* merged into its weight */
        }
        struct tri_hf_row *row = &(*rows)[(*count)++];
        row->param = &params->param[p];
        (void)tri_low_rank_find(params, row->param, &row->a, &row->b);
        if (!find(family, row->param, num_experts, &row->source)) {
            return tri_fail(error, TRI_BAD_INPUT, "%s has no tensor for %s",
                            tri_hf_family_name(family), row->param->name);
        }
    }
    return TRI_OK;
}

int tri_hf_tensor_end(int rows, const struct tri_hf_row *row, int first)
{
    int end = first + 1;
    while (end < rows && strcmp(row[end].source.name, row[first].source.name) == 0) {
        end++;
    }
    return end;
}

/* A tensor of three dimensions is the lines of its matrices, one behind the other. */
static int64_t lines_of(const struct tri_hf_source *source)
{
    return source->shape[0] * (source->dims == 3 ? source->shape[1] : 1);
}

static int64_t line_of(const struct tri_hf_source *source)
{
    return tri_hf_elements(source) / lines_of(source);
}

static int64_t first_line(const struct tri_hf_source *source)
{
    return source->first + (source->dims == 3 ? source->index * source->shape[1] : 0);
}

/* ---- pieces ---------------------------------------------------------------------------------- */

/* What some lines of the tensor have of a row: false where that is nothing. */
static bool find_block(const struct tri_hf_row *row, struct tri_range lines, struct tri_range *rows,
                       struct tri_range *columns)
{
    if (row->source.transposed) {
        *rows = (struct tri_range){0, row->param->shape[0]};
        *columns = lines;
        return true;
    }
    int64_t first = first_line(&row->source);
    *rows = tri_range_intersect((struct tri_range){lines.begin - first, lines.end - first},
                                (struct tri_range){0, row->param->shape[0]});
    *columns = (struct tri_range){0, row->param->shape[1]};
    return tri_range_size(*rows) > 0;
}

static void add_part(struct writing *w, const struct tri_param *param, struct tri_range rows,
                     struct tri_range columns, int owner)
{
    int64_t width = tri_range_size(columns);
    TRI_REQUIRE(w->parts < w->parts_most);
    w->part[w->parts++] = (struct tri_param_part){
        param, TRI_FIELD_WEIGHT, rows.begin * width, tri_range_size(rows) * width, columns, owner};
}

/* Adds what a piece is made of, and returns how many elements that are. */
static int64_t add_parts(struct writing *w, const struct piece *piece)
{
    int before = w->parts;
    int64_t elements = 0;
    for (int r = piece->first; r < piece->end; r++) {
        const struct tri_hf_row *row = &w->file->row[r];
        struct tri_range rows, columns;
        if (!find_block(row, piece->lines, &rows, &columns)) {
            continue;
        }
        add_part(w, row->param, rows, columns, piece->owner);
        if (row->a) {
            struct tri_range rank = {0, row->a->shape[0]};
            add_part(w, row->a, rank, columns, piece->owner);
            add_part(w, row->b, rows, rank, piece->owner);
        }
    }
    for (int i = before; i < w->parts; i++) {
        elements += w->part[i].count;
    }
    return elements;
}

static int64_t lines_of_piece(const struct writing *w, const struct tri_hf_source *source)
{
    int64_t lines = (w->file->piece ? w->file->piece : PIECE) / line_of(source);
    int64_t least = source->head > 0 ? source->head : 1; /* whole heads */
    return lines > least ? lines / least * least : least;
}

static void list_pieces(struct writing *w)
{
    const struct tri_hf_file *file = w->file;
    int most = 1, count = 0;
    for (int at = 0, end; at < file->rows; at = end) {
        const struct tri_hf_source *source = &file->row[at].source;
        int64_t step = lines_of_piece(w, source);
        end = tri_hf_tensor_end(file->rows, file->row, at);
        most = end - at > most ? end - at : most;
        count += (int)((lines_of(source) + step - 1) / step);
    }
    w->piece = tri_alloc(TRI_MEMORY_OTHER, (size_t)count * sizeof(*w->piece));
    for (int at = 0, end; at < file->rows; at = end) {
        const struct tri_hf_source *source = &file->row[at].source;
        int64_t step = lines_of_piece(w, source), lines = lines_of(source);
        uint64_t begin = file->row[at].begin;
        end = tri_hf_tensor_end(file->rows, file->row, at);
        for (int64_t line = 0; line < lines; line += step) {
            int64_t last = line + step < lines ? line + step : lines;
            w->piece[w->pieces++] =
                (struct piece){.first = at, .end = end, .lines = {line, last}, .begin = begin};
            begin += (uint64_t)tri_hf_bytes(file->row[at].number, (last - line) * line_of(source));
        }
    }
    int told = TOLD_BYTES / PART_BYTES / w->ranks, all = PARTS * most * w->ranks;
    w->parts_most = told < all ? told : all;
    w->parts_most = w->parts_most > PARTS * most ? w->parts_most : PARTS * most;
    w->part = tri_alloc(TRI_MEMORY_OTHER, (size_t)w->parts_most * sizeof(*w->part));
}

/* ---- whose they are -------------------------------------------------------------------------- */

enum { DICE = 1 << 12 };

/* Each piece to the rank that has most of it. Of several with as much one is drawn: whoever holds
 * columns holds as much of every piece. Collective. */
static void find_owners(struct writing *w)
{
    int64_t *most = tri_alloc(TRI_MEMORY_OTHER, (size_t)w->pieces * sizeof(*most));
    int *turns = tri_alloc(TRI_MEMORY_OTHER, (size_t)w->ranks * sizeof(*turns));
    for (int i = 0; i < w->pieces; i++) {
        int64_t given = 0;
        w->parts = 0;
        (void)add_parts(w, &w->piece[i]);
        for (int p = 0; p < w->parts; p++) {
            given += tri_param_count_given(w->params, &w->part[p]);
        }
        int64_t die = (int64_t)(tri_random_bits(0, (uint64_t)w->me, (uint64_t)i) % (uint64_t)DICE);
        most[i] = (given * DICE + die) * w->ranks + w->me;
    }
    tri_all_reduce_max(w->world, where, most, w->pieces, TRI_I64);
    for (int i = 0; i < w->pieces; i++) {
        struct piece *piece = &w->piece[i];
        w->parts = 0;
        piece->owner = (int)(most[i] % w->ranks);
        bool alone = most[i] / w->ranks / DICE == add_parts(w, piece);
        piece->turn = alone ? ALONE : turns[piece->owner]++;
    }
    tri_free(turns);
    tri_free(most);
}

/* In the order of their rounds. */
static int by_turn(const void *a, const void *b)
{
    const struct piece *x = a, *y = b;
    return x->turn != y->turn ? x->turn - y->turn : x->owner - y->owner;
}

/* ---- one piece ------------------------------------------------------------------------------- */

/* A block of a row to its place in the piece. */
static void put_block(const struct tri_hf_row *row, struct tri_range lines, struct tri_range rows,
                      int64_t columns, const float *values, float *whole)
{
    int64_t count = tri_range_size(rows), width = line_of(&row->source), head = row->source.head;
    float *to = whole + (first_line(&row->source) + rows.begin - lines.begin) * width;
    if (head > 0) {
        for (int64_t i = 0; i < count; i++) {
            int64_t in = i % head, pair = in % (head / 2);
            memcpy(to + (i - in + 2 * pair + (in != pair)) * width, values + i * width,
                   (size_t)width * sizeof(float));
        }
        return;
    }
    if (!row->source.transposed) {
        memcpy(to, values, (size_t)(count * columns) * sizeof(float));
        return;
    }
    for (int64_t j = 0; j < columns; j++) {
        float *line = whole + j * width + row->source.first;
        for (int64_t i = 0; i < count; i++) {
            line[i] = values[i * columns + j];
        }
    }
}

/* The parts of a piece, one behind the other, as its lines. */
static void put_together(struct writing *w, const struct piece *piece)
{
    float *at = w->values;
    for (int r = piece->first; r < piece->end; r++) {
        const struct tri_hf_row *row = &w->file->row[r];
        struct tri_range rows, columns;
        if (!find_block(row, piece->lines, &rows, &columns)) {
            continue;
        }
        int64_t count = tri_range_size(rows), width = tri_range_size(columns);
        float *values = at;
        at += count * width;
        if (row->a) {
            int64_t rank = row->a->shape[0];
            const float *down = at, *up = at + rank * width;
            at += rank * width + count * rank;
            tri_peft_merge(count, width, rank, w->file->scale, up, down, values);
        }
        put_block(row, piece->lines, rows, width, values, w->whole);
    }
}

/* As ggml's reference rounds: a block's largest number is 127 or -127 times its scale. */
static bool quantize(const float *from, unsigned char *to)
{
    float block[TRI_HF_BLOCK], most = 0.0F;
    memcpy(block, from, sizeof(block));
    for (int i = 0; i < TRI_HF_BLOCK; i++) {
        most = fmaxf(most, fabsf(block[i]));
    }
    float scale = most / 127.0F, each = scale > 0.0F ? 1.0F / scale : 0.0F;
    uint16_t half = tri_f32_to_f16(scale);
    memcpy(to, &half, sizeof(half));
    for (int i = 0; i < TRI_HF_BLOCK; i++) {
        int8_t step = (int8_t)roundf(block[i] * each);
        memcpy(to + sizeof(half) + i, &step, 1);
    }
    return (half & 0x7fffU) < 0x7c00U;
}

static enum tri_status refuse(const char *name, const char *what, struct tri_error *error)
{
    return tri_fail(error, TRI_BAD_INPUT, "tensor %s: found %s: use --dtype bf16", name, what);
}

static enum tri_status make_blocks(void *whole, const char *name, int64_t count,
                                   struct tri_error *error)
{
    for (int64_t i = 0; i < count / TRI_HF_BLOCK; i++) {
        const float *from = (const float *)whole + i * TRI_HF_BLOCK;
        for (int j = 0; j < TRI_HF_BLOCK; j++) {
            if (!isfinite(from[j])) {
                return refuse(name, "a number that is not finite, which no q8_0 holds", error);
            }
        }
        if (!quantize(from, (unsigned char *)whole + i * Q8_0_BYTES)) {
            return refuse(name, "a number too large for the scale of a q8_0", error);
        }
    }
    return TRI_OK;
}

/* whole as the bytes of the file; what is narrower replaces the f32 in place, front to back. */
static enum tri_status narrow(const struct writing *w, const struct tri_hf_row *row, int64_t count,
                              struct tri_error *error)
{
    const float *from = w->whole;
    uint16_t *to = w->whole;
    bool half = row->number == TRI_HF_F16;
    if (row->number == TRI_HF_Q8_0) {
        return make_blocks(w->whole, row->source.name, count, error);
    }
    for (int64_t i = 0; i < count && row->number != TRI_HF_F32; i++) {
        float value;
        memcpy(&value, &from[i], sizeof(value));
        uint16_t bits = half ? tri_f32_to_f16(value) : tri_f32_to_bf16(value);
        if (half && isfinite(value) && (bits & 0x7fffU) == 0x7c00U) {
            char what[64];
            (void)snprintf(what, sizeof(what), "%g, which no f16 holds", (double)value);
            return refuse(row->source.name, what, error);
        }
        memcpy(&to[i], &bits, sizeof(bits));
    }
    return TRI_OK;
}

static void write_bytes(struct writing *w, uint64_t begin, const void *data, size_t bytes)
{
    if (w->status == TRI_OK && !w->out) {
        w->status = tri_part_file_create(w->file->path, &w->out, w->error);
    }
    if (w->status == TRI_OK) {
        w->status = tri_part_file_write(w->out, begin, data, bytes, w->error);
    }
}

/* Its parts are in values. */
static void write_piece(struct writing *w, const struct piece *piece)
{
    const struct tri_hf_row *row = &w->file->row[piece->first];
    int64_t n = tri_range_size(piece->lines) * line_of(&row->source);
    if (w->status != TRI_OK) {
        return;
    }
    (void)tri_grow(TRI_MEMORY_OTHER, &w->whole, &w->whole_bytes, (size_t)n * sizeof(float));
    put_together(w, piece);
    w->status = narrow(w, row, n, w->error);
    write_bytes(w, piece->begin, w->whole, (size_t)tri_hf_bytes(row->number, n));
}

/* ---- all ------------------------------------------------------------------------------------- */

static void grow_values(struct writing *w, int64_t elements)
{
    (void)tri_grow(TRI_MEMORY_OTHER, &w->values, &w->values_bytes,
                   (size_t)elements * sizeof(float));
}

/* A piece is behind this rank, whoever has written it. */
static void count_done(const struct writing *w, const struct piece *piece)
{
    const struct tri_hf_row *row = &w->file->row[piece->first];
    int64_t count = tri_range_size(piece->lines) * line_of(&row->source);
    tri_meter_add(TRI_METER_BYTES, tri_hf_bytes(row->number, count));
}

static void write_alone(struct writing *w)
{
    for (int i = 0; i < w->pieces && w->status == TRI_OK; i++) {
        const struct piece *piece = &w->piece[i];
        if (piece->turn != ALONE) {
            continue;
        }
        count_done(w, piece);
        if (piece->owner != w->me) {
            continue;
        }
        w->parts = 0;
        grow_values(w, add_parts(w, piece));
        float *at = w->values;
        for (int p = 0; p < w->parts; p++) {
            tri_param_read_given(w->params, &w->part[p], at);
            at += w->part[p].count;
        }
        write_piece(w, piece);
    }
}

/* Adds pieces of one turn, from `at` on, as many as may be told of; returns their end. *own: this
 * rank's. */
static int next_round(struct writing *w, int at, const struct piece **own)
{
    int turn = w->piece[at].turn;
    w->parts = 0;
    *own = NULL;
    for (; at < w->pieces && w->piece[at].turn == turn; at++) {
        const struct piece *piece = &w->piece[at];
        int most = PARTS * (piece->end - piece->first);
        if (w->parts > 0 && w->parts + most > w->parts_most) {
            break;
        }
        int64_t elements = add_parts(w, piece);
        count_done(w, piece);
        if (piece->owner == w->me) {
            *own = piece;
            grow_values(w, elements);
        }
    }
    return at;
}

/* Collective: who fails goes on with the others. */
static void write_rounds(struct writing *w)
{
    if (w->pieces > 0) {
        qsort(w->piece, (size_t)w->pieces, sizeof(*w->piece), by_turn);
    }
    int at = 0;
    while (at < w->pieces && w->piece[at].turn == ALONE) {
        at++;
    }
    while (at < w->pieces) {
        const struct piece *own;
        at = next_round(w, at, &own);
        tri_param_collect(w->params, w->parts, w->part, w->values, &w->room);
        if (own) {
            write_piece(w, own);
        }
    }
}

/* Header, and what is behind the last tensor. */
static void write_frame(struct writing *w)
{
    static const unsigned char zeros[TRI_HF_BLOCK] = {0};
    const struct tri_hf_file *file = w->file;
    const struct tri_hf_row *last = &file->row[file->rows - 1];
    uint64_t end =
        last->begin + (uint64_t)tri_hf_bytes(last->number, tri_hf_elements(&last->source));
    write_bytes(w, 0, file->header, file->header_bytes);
    TRI_REQUIRE(file->bytes >= end && file->bytes - end < sizeof(zeros));
    if (file->bytes > end) {
        write_bytes(w, end, zeros, (size_t)(file->bytes - end));
    }
}

enum tri_status tri_hf_write(const struct tri_params *params, const struct tri_hf_file *file,
                             struct tri_error *error)
{
    struct writing w = {.params = params,
                        .file = file,
                        .world = tri_mesh_group(params->mesh, TRI_ON_ALL),
                        .error = error};
    w.ranks = tri_group_size(w.world);
    w.me = tri_group_rank(w.world);
    list_pieces(&w);
    find_owners(&w);
    if (w.me == 0) {
        write_frame(&w);
    }
    write_alone(&w);
    write_rounds(&w);
    if (w.status == TRI_OK && w.out) {
        w.status = tri_part_file_close(&w.out, error);
    }
    tri_part_file_destroy(w.out);
    tri_param_room_fini(&w.room);
    tri_free(w.values);
    tri_free(w.whole);
    tri_free(w.part);
    tri_free(w.piece);
    TRI_TRY(tri_comm_agree(w.world, w.status, error));
    enum tri_status status =
        w.me == 0 ? tri_part_file_expect_size(file->path, file->bytes, error) : TRI_OK;
    return tri_comm_agree(w.world, status, error);
}
