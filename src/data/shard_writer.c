#include "data/shard_writer.h"

#include "base/file.h"
#include "base/memory.h"
#include "base/path.h"
#include "data/shards.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { BUFFER_TOKENS = 16384, BUFFER_PLACES = 4096, TOKENS_AT = 8 };

struct tri_shard_writer {
    char *folder, *stem;
    int64_t vocab_size, per_shard, first;
    int width;               /* bytes per token */
    struct tri_writer *file; /* the shard being written; NULL between shards */
    int64_t tokens;          /* that it has */
    int64_t files;           /* finished ones */
    bool documents;
    bool begins; /* the next token is a document's first */
    struct tri_writer *docs;
    int64_t places; /* in docs and in the buffer */
    int buffered;
    uint64_t buffer_places[BUFFER_PLACES];
    unsigned char *mask; /* of the shard being written: a bit a token, 1 where it counts */
    size_t mask_room;
    bool masked; /* one does not */
    union {
        uint16_t narrow[BUFFER_TOKENS];
        uint32_t wide[BUFFER_TOKENS];
    } buffer;
};

void tri_shard_name(const char *stem, int64_t index, const char *ending, char *text,
                    size_t text_bytes)
{
    (void)snprintf(text, text_bytes, "%s_%06" PRId64 "%s", stem, index, ending);
}

struct tri_shard_writer *tri_shard_writer_create(const struct tri_shard_writer_args *args)
{
    TRI_REQUIRE(args->per_shard >= 1 && args->per_shard <= TRI_SHARD_TOKENS_MAX);
    struct tri_shard_writer *writer = tri_alloc(TRI_MEMORY_OTHER, sizeof(*writer));
    writer->folder = tri_strdup(args->folder);
    writer->stem = tri_strdup(args->stem);
    writer->vocab_size = args->vocab_size;
    writer->per_shard = args->per_shard;
    writer->first = args->first;
    writer->documents = args->documents;
    writer->width = args->vocab_size <= UINT16_MAX + 1 ? 2 : 4;
    return writer;
}

void tri_shard_writer_destroy(struct tri_shard_writer *writer)
{
    if (!writer) {
        return;
    }
    tri_writer_destroy(writer->file);
    tri_writer_destroy(writer->docs);
    tri_free(writer->mask);
    tri_free(writer->folder);
    tri_free(writer->stem);
    tri_free(writer);
}

int64_t tri_shard_writer_files(const struct tri_shard_writer *writer)
{
    return writer->files;
}

void tri_shard_writer_begin_document(struct tri_shard_writer *writer)
{
    writer->begins = true;
}

/* ---- files ----------------------------------------------------------------------------------- */

static enum tri_status open_file(const struct tri_shard_writer *writer, const char *ending,
                                 struct tri_writer **file, struct tri_error *error)
{
    char name[256];
    tri_shard_name(writer->stem, writer->first + writer->files, ending, name, sizeof(name));
    size_t room = strlen(writer->folder) + sizeof(name) + 1;
    char *path = tri_alloc(TRI_MEMORY_OTHER, room);
    tri_path_make(path, room, "%s/%s", writer->folder, name);
    enum tri_status status = tri_writer_create(path, file, error);
    tri_free(path);
    return status;
}

static enum tri_status write_sidecar_header(struct tri_writer *file, int magic, int64_t count,
                                            struct tri_error *error)
{
    int32_t header[TRI_SIDECAR_HEADER_BYTES / sizeof(int32_t)] = {magic, TRI_SIDECAR_VERSION};
    memcpy((char *)header + TRI_SIDECAR_COUNT_AT, &count, sizeof(count));
    return tri_writer_write(file, header, sizeof(header), error);
}

static enum tri_status begin_file(struct tri_shard_writer *writer, struct tri_error *error)
{
    TRI_TRY(open_file(writer, ".bin", &writer->file, error));
    writer->tokens = 0;
    writer->masked = false;
    writer->places = 0;
    writer->buffered = 0;
    const int32_t header[TRI_SHARD_HEADER_BYTES / sizeof(int32_t)] = {
        writer->width == 2 ? TRI_SHARD_MAGIC_U16 : TRI_SHARD_MAGIC_U32,
        writer->width == 2 ? TRI_SHARD_VERSION_U16 : TRI_SHARD_VERSION_U32};
    TRI_TRY(tri_writer_write(writer->file, header, sizeof(header), error));
    if (!writer->documents) {
        return TRI_OK;
    }
    TRI_TRY(open_file(writer, ".docs", &writer->docs, error));
    return write_sidecar_header(writer->docs, TRI_DOCS_MAGIC, 0, error);
}

static enum tri_status write_places(struct tri_shard_writer *writer, struct tri_error *error)
{
    size_t bytes = (size_t)writer->buffered * sizeof(*writer->buffer_places);
    writer->buffered = 0;
    return tri_writer_write(writer->docs, writer->buffer_places, bytes, error);
}

static enum tri_status write_mask(struct tri_shard_writer *writer, struct tri_error *error)
{
    struct tri_writer *file;
    TRI_TRY(open_file(writer, ".mask", &file, error));
    enum tri_status status = write_sidecar_header(file, TRI_MASK_MAGIC, writer->tokens, error);
    if (status == TRI_OK) {
        status = tri_writer_write(file, writer->mask, (size_t)(writer->tokens + 7) / 8, error);
    }
    if (status == TRI_OK) {
        return tri_writer_close(&file, error);
    }
    tri_writer_destroy(file);
    return status;
}

enum tri_status tri_shard_writer_finish(struct tri_shard_writer *writer, struct tri_error *error)
{
    if (!writer->file) {
        return TRI_OK;
    }
    if (writer->docs) {
        TRI_TRY(write_places(writer, error));
        TRI_TRY(tri_writer_rewrite(writer->docs, TRI_SIDECAR_COUNT_AT, &writer->places,
                                   sizeof(writer->places), error));
        TRI_TRY(tri_writer_close(&writer->docs, error));
    }
    if (writer->masked) {
        TRI_TRY(write_mask(writer, error));
    }
    const int32_t tokens = (int32_t)writer->tokens;
    TRI_TRY(tri_writer_rewrite(writer->file, TOKENS_AT, &tokens, sizeof(tokens), error));
    TRI_TRY(tri_writer_close(&writer->file, error));
    writer->files++;
    return TRI_OK;
}

/* ---- tokens ---------------------------------------------------------------------------------- */

static enum tri_status note_document(struct tri_shard_writer *writer, struct tri_error *error)
{
    writer->begins = false;
    if (!writer->docs) {
        return TRI_OK;
    }
    writer->buffer_places[writer->buffered++] = (uint64_t)writer->tokens;
    writer->places++;
    return writer->buffered == BUFFER_PLACES ? write_places(writer, error) : TRI_OK;
}

/* Room for the bits of count more tokens, the new ones zero. */
static void reserve_mask(struct tri_shard_writer *writer, int64_t count)
{
    size_t bytes = (size_t)(writer->tokens + count + 7) / 8;
    if (bytes > writer->mask_room) {
        size_t room = 2 * bytes;
        unsigned char *mask = tri_alloc(TRI_MEMORY_OTHER, room);
        if (writer->mask) {
            memcpy(mask, writer->mask, (size_t)(writer->tokens + 7) / 8);
        }
        tri_free(writer->mask);
        writer->mask = mask;
        writer->mask_room = room;
    }
}

static void note_counts(struct tri_shard_writer *writer, const unsigned char *counts, int64_t count)
{
    reserve_mask(writer, count);
    for (int64_t i = 0; i < count; i++) {
        int64_t place = writer->tokens + i;
        bool counted = !counts || counts[i];
        if (place % 8 == 0) {
            writer->mask[place / 8] = 0;
        }
        writer->mask[place / 8] |= (unsigned char)((counted ? 1 : 0) << (place % 8));
        writer->masked = writer->masked || !counted;
    }
}

static enum tri_status write_part(struct tri_shard_writer *writer, const int32_t *tokens,
                                  int64_t count, struct tri_error *error)
{
    for (int64_t i = 0; i < count; i++) {
        TRI_REQUIRE(tokens[i] >= 0 && tokens[i] < writer->vocab_size);
        if (writer->width == 2) {
            writer->buffer.narrow[i] = (uint16_t)tokens[i];
        } else {
            writer->buffer.wide[i] = (uint32_t)tokens[i];
        }
    }
    return tri_writer_write(writer->file, &writer->buffer, (size_t)count * (size_t)writer->width,
                            error);
}

enum tri_status tri_shard_writer_write(struct tri_shard_writer *writer, const int32_t *tokens,
                                       const unsigned char *counts, int64_t count,
                                       struct tri_error *error)
{
    while (count > 0) {
        if (!writer->file) {
            TRI_TRY(begin_file(writer, error));
        }
        if (writer->begins) {
            TRI_TRY(note_document(writer, error));
        }
        int64_t left = writer->per_shard - writer->tokens;
        int64_t part = count < BUFFER_TOKENS ? count : BUFFER_TOKENS;
        part = part < left ? part : left;
        TRI_TRY(write_part(writer, tokens, part, error));
        note_counts(writer, counts, part);
        tokens += part;
        counts = counts ? counts + part : NULL;
        count -= part;
        writer->tokens += part;
        if (writer->tokens == writer->per_shard) {
            TRI_TRY(tri_shard_writer_finish(writer, error));
        }
    }
    return TRI_OK;
}
