#include "data/shard_writer.h"

#include "base/file.h"
#include "base/memory.h"
#include "base/path.h"
#include "data/shards.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { BUFFER_TOKENS = 16384 };

struct tri_shard_writer {
    char *folder, *stem;
    int64_t vocab_size, left, per_shard;
    int width;               /* bytes per token */
    struct tri_writer *file; /* the shard being written; NULL between shards */
    int64_t file_left;       /* tokens it still lacks */
    int64_t files;           /* finished ones */
    union {
        uint16_t narrow[BUFFER_TOKENS];
        uint32_t wide[BUFFER_TOKENS];
    } buffer;
};

void tri_shard_name(const char *stem, int64_t index, char *text, size_t text_bytes)
{
    (void)snprintf(text, text_bytes, "%s_%06" PRId64 ".bin", stem, index);
}

struct tri_shard_writer *tri_shard_writer_create(const struct tri_shard_writer_args *args)
{
    TRI_REQUIRE(args->per_shard >= 1 && args->per_shard <= TRI_SHARD_TOKENS_MAX &&
                args->total >= 0);
    struct tri_shard_writer *writer = tri_alloc(TRI_MEMORY_OTHER, sizeof(*writer));
    writer->folder = tri_strdup(args->folder);
    writer->stem = tri_strdup(args->stem);
    writer->vocab_size = args->vocab_size;
    writer->left = args->total;
    writer->per_shard = args->per_shard;
    writer->width = args->vocab_size <= UINT16_MAX + 1 ? 2 : 4;
    return writer;
}

void tri_shard_writer_destroy(struct tri_shard_writer *writer)
{
    if (!writer) {
        return;
    }
    tri_writer_destroy(writer->file);
    tri_free(writer->folder);
    tri_free(writer->stem);
    tri_free(writer);
}

int64_t tri_shard_writer_files(const struct tri_shard_writer *writer)
{
    return writer->files;
}

static enum tri_status begin_file(struct tri_shard_writer *writer, struct tri_error *error)
{
    char name[256];
    tri_shard_name(writer->stem, writer->files, name, sizeof(name));
    size_t room = strlen(writer->folder) + sizeof(name) + 1;
    char *path = tri_alloc(TRI_MEMORY_OTHER, room);
    tri_path_make(path, room, "%s/%s", writer->folder, name);
    enum tri_status status = tri_writer_create(path, &writer->file, error);
    tri_free(path);
    TRI_TRY(status);
    writer->file_left = writer->left < writer->per_shard ? writer->left : writer->per_shard;
    int32_t header[TRI_SHARD_HEADER_BYTES / sizeof(int32_t)] = {
        writer->width == 2 ? TRI_SHARD_MAGIC_U16 : TRI_SHARD_MAGIC_U32,
        writer->width == 2 ? TRI_SHARD_VERSION_U16 : TRI_SHARD_VERSION_U32,
        (int32_t)writer->file_left};
    return tri_writer_write(writer->file, header, sizeof(header), error);
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
                                       int64_t count, struct tri_error *error)
{
    TRI_REQUIRE(count <= writer->left);
    while (count > 0) {
        if (!writer->file) {
            TRI_TRY(begin_file(writer, error));
        }
        int64_t part = count < BUFFER_TOKENS ? count : BUFFER_TOKENS;
        part = part < writer->file_left ? part : writer->file_left;
        TRI_TRY(write_part(writer, tokens, part, error));
        tokens += part;
        count -= part;
        writer->left -= part;
        writer->file_left -= part;
        if (writer->file_left == 0) {
            TRI_TRY(tri_writer_close(&writer->file, error));
            writer->files++;
        }
    }
    return TRI_OK;
}
