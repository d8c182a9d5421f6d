#include "data/lines.h"

#include "base/memory.h"
#include "base/runtime.h"
#include "data/encode.h"
#include "data/record.h"

#include <inttypes.h>
#include <omp.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

/* Bytes that are read at once, of lines that a thread takes at once, and of memory that is kept for
 * the next lines: a long one's is not. */
enum { BLOCK = 8 << 20, GROUP = 32 << 10, KEPT = 4 << 20 };

/* Lines that follow each other, and what becomes of them. */
struct group {
    const char *begin, *end; /* in the block; the last line may lack its newline */
    int64_t line;            /* number of the first */
    struct tri_encoded encoded;
    size_t *lengths; /* tokens of each document */
    size_t num_documents, lengths_room;
    int64_t empty;
    enum tri_status status;
    struct tri_error error;
};

/* What a thread keeps from line to line. */
struct work {
    struct tri_record record;
    struct tri_pieces layout;
    struct tri_text_encoder *encoder;
};

struct reader {
    const struct tri_documents_args *args;
    const char *path;
    enum tri_format format;
    char *block;
    size_t held, room;  /* of the block */
    int64_t line;       /* number of the first in the block */
    struct work *works; /* one for each thread */
    int num_works;
    struct group *groups;
    size_t num_groups, made, groups_room; /* in use, with memory, of the list */
};

/* ---- a line ---------------------------------------------------------------------------------- */

static enum tri_status refuse_line(const struct reader *reader, int64_t line, const char *reason,
                                   struct tri_error *error)
{
    return tri_fail(error, TRI_BAD_INPUT, "%s:%" PRId64 ": %s", reader->path, line, reason);
}

static bool lay_out(const struct reader *reader, struct work *work, char reason[TRI_REASON_BYTES])
{
    const struct tri_record *record = &work->record;
    tri_pieces_clear(&work->layout);
    if (reader->format == TRI_FORMAT_CHAT) {
        return tri_chat_lay_out(reader->args->chat, record->turns, record->num_turns, &work->layout,
                                reason);
    }
    for (size_t i = 0; i < record->num_turns; i++) {
        const struct tri_turn *turn = &record->turns[i];
        tri_pieces_add(&work->layout, false, turn->counts, turn->text, turn->bytes);
    }
    if (record->kind == TRI_RECORD_COMPLETION) {
        const char *end = reader->args->raw ? reader->args->raw->end : "";
        tri_pieces_add(&work->layout, true, true, end, strlen(end));
    }
    return true;
}

static enum tri_status take_line(const struct reader *reader, struct work *work, const char *begin,
                                 const char *end, int64_t line, struct group *group)
{
    char reason[TRI_REASON_BYTES];
    enum tri_record_format format =
        reader->format == TRI_FORMAT_CHAT ? TRI_RECORDS_CHAT : TRI_RECORDS_JSONL;
    if (!tri_record_read(&work->record, format, begin, (size_t)(end - begin), reason) ||
        !lay_out(reader, work, reason)) {
        return refuse_line(reader, line, reason, &group->error);
    }
    /* The layout has it all now, and the tokens are what takes the room. */
    if (work->record.text.room > KEPT) {
        tri_record_fini(&work->record);
    }
    size_t before = group->encoded.size;
    enum tri_status status =
        tri_pieces_encode(&work->layout, reader->args->tokenizer, work->encoder,
                          reader->format == TRI_FORMAT_CHAT, &group->encoded, &group->error);
    if (status != TRI_OK) {
        (void)snprintf(reason, sizeof(reason), "%.200s", group->error.message);
        return refuse_line(reader, line, reason, &group->error);
    }
    if (group->encoded.size == before) {
        group->empty++;
        return TRI_OK;
    }
    void *lengths = group->lengths;
    tri_array_grow(&lengths, &group->lengths_room, sizeof(*group->lengths), group->num_documents,
                   1);
    group->lengths = lengths;
    group->lengths[group->num_documents++] = group->encoded.size - before;
    return TRI_OK;
}

static bool is_blank(const char *begin, const char *end)
{
    while (begin < end && (*begin == ' ' || *begin == '\t' || *begin == '\r')) {
        begin++;
    }
    return begin == end;
}

static void take_group(const struct reader *reader, struct work *work, struct group *group)
{
    int64_t line = group->line;
    group->encoded.size = 0;
    group->num_documents = 0;
    group->empty = 0;
    group->status = TRI_OK;
    for (const char *at = group->begin; at < group->end && group->status == TRI_OK; line++) {
        const char *newline = memchr(at, '\n', (size_t)(group->end - at));
        const char *end = newline ? newline : group->end;
        if (!is_blank(at, end)) {
            group->status = take_line(reader, work, at, end, line, group);
        }
        at = newline ? newline + 1 : group->end;
    }
}

/* The first of the groups that failed so far. */
static void note_failure(_Atomic size_t *failed, size_t index)
{
    size_t before = atomic_load(failed);
    while (index < before && !atomic_compare_exchange_weak(failed, &before, index)) {
    }
}

static void take_groups(struct reader *reader)
{
    struct tri_runtime *runtime = tri_runtime_bound();
    _Atomic size_t failed = reader->num_groups;
#pragma omp parallel num_threads(reader->num_works)
    {
        /* What is allocated here is this rank's. */
        tri_runtime_bind(runtime);
        struct work *work = &reader->works[omp_get_thread_num()];
#pragma omp for schedule(dynamic, 1)
        for (size_t i = 0; i < reader->num_groups; i++) {
            /* Those before one that failed are all looked at: the first mistake is told. */
            if (i < atomic_load(&failed)) {
                take_group(reader, work, &reader->groups[i]);
                if (reader->groups[i].status != TRI_OK) {
                    note_failure(&failed, i);
                }
            }
        }
    }
}

static void create_works(struct reader *reader)
{
    reader->num_works = omp_get_max_threads();
    reader->works = tri_alloc(TRI_MEMORY_OTHER, (size_t)reader->num_works * sizeof(*reader->works));
    for (int i = 0; i < reader->num_works; i++) {
        reader->works[i].encoder = tri_text_encoder_create(reader->args->tokenizer);
    }
}

static void destroy_works(struct reader *reader)
{
    for (int i = 0; i < reader->num_works; i++) {
        tri_record_fini(&reader->works[i].record);
        tri_pieces_fini(&reader->works[i].layout);
        tri_text_encoder_destroy(reader->works[i].encoder);
    }
    tri_free(reader->works);
}

/* ---- a block --------------------------------------------------------------------------------- */

/* Reads until the block is full or the file ends: *last. */
static enum tri_status fill_block(struct reader *reader, struct tri_input *input, bool *last,
                                  struct tri_documents_counts *counts, struct tri_error *error)
{
    if (reader->held == reader->room) {
        void *block = reader->block;
        tri_array_grow(&block, &reader->room, 1, reader->held, reader->held + BLOCK);
        reader->block = block;
    }
    size_t room = reader->room - reader->held, got;
    TRI_TRY(tri_input_read(input, reader->block + reader->held, room, &got, error));
    reader->held += got;
    counts->bytes += (int64_t)got;
    *last = got < room;
    return TRI_OK;
}

static struct group *add_group(struct reader *reader)
{
    if (reader->num_groups == reader->made) {
        void *groups = reader->groups;
        tri_array_grow(&groups, &reader->groups_room, sizeof(*reader->groups), reader->made, 1);
        reader->groups = groups;
        reader->groups[reader->made++] = (struct group){0};
    }
    return &reader->groups[reader->num_groups++];
}

/* Deals out whole lines, `bytes` of them. */
static void cut_groups(struct reader *reader, size_t bytes)
{
    const char *at = reader->block, *end = at + bytes;
    reader->num_groups = 0;
    while (at < end) {
        struct group *group = add_group(reader);
        group->begin = at;
        group->line = reader->line;
        while (at < end && at - group->begin < GROUP) {
            const char *newline = memchr(at, '\n', (size_t)(end - at));
            at = newline ? newline + 1 : end;
            reader->line++;
        }
        group->end = at;
    }
}

static enum tri_status pass_group(const struct group *group, tri_document_sink sink, void *context,
                                  struct tri_documents_counts *counts, struct tri_error *error)
{
    size_t at = 0;
    for (size_t i = 0; i < group->num_documents; i++) {
        size_t length = group->lengths[i];
        int64_t counted = 0;
        for (size_t j = 0; j < length; j++) {
            counted += group->encoded.counts[at + j];
        }
        TRI_TRY(sink(context, true, group->encoded.tokens + at, group->encoded.counts + at,
                     (int64_t)length, error));
        counts->uncounted += counted == 0;
        counts->counted += counted;
        counts->tokens += (int64_t)length;
        counts->longest = (int64_t)length > counts->longest ? (int64_t)length : counts->longest;
        at += length;
    }
    counts->documents += (int64_t)group->num_documents;
    counts->empty += group->empty;
    return TRI_OK;
}

/* Without this each thread and group would end up with the memory of the longest line. */
static void shrink(struct reader *reader)
{
    for (size_t i = 0; i < reader->num_groups; i++) {
        if (reader->groups[i].encoded.tokens_room > KEPT) {
            tri_encoded_fini(&reader->groups[i].encoded);
        }
    }
    for (int i = 0; i < reader->num_works; i++) {
        if (reader->works[i].layout.text.room > KEPT) {
            tri_pieces_fini(&reader->works[i].layout);
        }
    }
}

static enum tri_status pass_block(struct reader *reader, size_t bytes, tri_document_sink sink,
                                  void *context, struct tri_documents_counts *counts,
                                  struct tri_error *error)
{
    cut_groups(reader, bytes);
    take_groups(reader);
    for (size_t i = 0; i < reader->num_groups; i++) {
        const struct group *group = &reader->groups[i];
        if (group->status != TRI_OK) {
            return tri_fail(error, group->status, "%s", group->error.message);
        }
        TRI_TRY(pass_group(group, sink, context, counts, error));
    }
    shrink(reader);
    memmove(reader->block, reader->block + bytes, reader->held - bytes);
    reader->held -= bytes;
    return TRI_OK;
}

/* ---- a file ---------------------------------------------------------------------------------- */

/* At the file's begin. */
static void drop_mark(struct reader *reader)
{
    static const char mark[] = {'\xef', '\xbb', '\xbf'};
    if (reader->held >= sizeof(mark) && memcmp(reader->block, mark, sizeof(mark)) == 0) {
        reader->held -= sizeof(mark);
        memmove(reader->block, reader->block + sizeof(mark), reader->held);
    }
}

/* By the first line that is not blank, in `bytes` of whole lines; false: there is none. */
static bool guess(struct reader *reader, size_t bytes)
{
    const char *at = reader->block, *all = at + bytes, *end = NULL;
    while (at < all) {
        end = memchr(at, '\n', (size_t)(all - at));
        end = end ? end : all;
        if (!is_blank(at, end)) {
            break;
        }
        at = end < all ? end + 1 : all;
    }
    if (at == all) {
        return false;
    }
    struct tri_record record = {0};
    if (tri_record_is_chat(&record, at, (size_t)(end - at))) {
        reader->format = TRI_FORMAT_CHAT;
    }
    tri_record_fini(&record);
    return true;
}

/* Only the first line of what is held can be that long. */
static bool is_too_long(const struct reader *reader)
{
    const char *newline = reader->held > 0 ? memchr(reader->block, '\n', reader->held) : NULL;
    size_t line = newline ? (size_t)(newline - reader->block) : reader->held;
    return line > TRI_LINE_BYTES_MAX;
}

static enum tri_status read_blocks(struct reader *reader, struct tri_input *input,
                                   tri_document_sink sink, void *context,
                                   struct tri_documents_counts *counts, struct tri_error *error)
{
    bool first = true, guessed = reader->args->format != TRI_FORMAT_GUESS, last = false;
    while (!last) {
        TRI_TRY(fill_block(reader, input, &last, counts, error));
        if (first) {
            drop_mark(reader);
        }
        first = false;
        const char *newline = reader->held > 0 ? memrchr(reader->block, '\n', reader->held) : NULL;
        size_t bytes = last ? reader->held : newline ? (size_t)(newline + 1 - reader->block) : 0;
        if (is_too_long(reader)) {
            return tri_fail(error, TRI_BAD_INPUT,
                            "%s:%" PRId64 ": a line of more than %d bytes, expected at most that",
                            reader->path, reader->line, TRI_LINE_BYTES_MAX);
        }
        if (bytes == 0) {
            continue;
        }
        guessed = guessed || guess(reader, bytes);
        if (reader->format == TRI_FORMAT_CHAT && !reader->args->chat) {
            return tri_fail(error, TRI_BAD_INPUT,
                            "%s: holds chats%s; expected --template chatml, llama3, mistral, olmo "
                            "or plain",
                            reader->path,
                            reader->args->unknown_template
                                ? ", and the template in the tokenizer's folder is none that is "
                                  "known here"
                                : "");
        }
        TRI_TRY(pass_block(reader, bytes, sink, context, counts, error));
    }
    return TRI_OK;
}

enum tri_status tri_lines_read(const struct tri_documents_args *args, struct tri_input *input,
                               const char *path, enum tri_format *format, tri_document_sink sink,
                               void *context, struct tri_documents_counts *counts,
                               struct tri_error *error)
{
    struct reader reader = {.args = args, .path = path, .format = *format, .line = 1};
    int64_t before = counts->documents;
    void *block = NULL;
    tri_array_grow(&block, &reader.room, 1, 0, BLOCK);
    reader.block = block;
    create_works(&reader);
    enum tri_status status = read_blocks(&reader, input, sink, context, counts, error);
    if (status == TRI_OK && counts->documents == before) {
        status = tri_fail(error, TRI_BAD_INPUT, "%s: holds no document with tokens", path);
    }
    *format = reader.format;
    destroy_works(&reader);
    for (size_t i = 0; i < reader.made; i++) {
        tri_encoded_fini(&reader.groups[i].encoded);
        tri_free(reader.groups[i].lengths);
    }
    tri_free(reader.groups);
    tri_free(reader.block);
    return status;
}
