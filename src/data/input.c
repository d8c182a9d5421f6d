#include "data/input.h"

#include "base/file.h"
#include "base/memory.h"
#include "base/meter.h"

#include <stdbool.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>

enum { BUFFER = 1 << 20 };

struct tri_input {
    char *path;
    struct tri_part_file *file;
    uint64_t at, size; /* of the file */
    enum tri_packing packing;
    unsigned char *buffer; /* bytes of the archive, BUFFER of them */
    size_t used, held;     /* of the buffer: taken, and there */
    z_stream gzip;
    ZSTD_DStream *zstd;
    bool open;  /* a gzip member or zstd frame has begun and not ended */
    bool begun; /* there was one */
};

/* ---- opening --------------------------------------------------------------------------------- */

static enum tri_status fill(struct tri_input *input, struct tri_error *error)
{
    uint64_t left = input->size - input->at;
    size_t part = left < BUFFER ? (size_t)left : BUFFER;
    input->used = 0;
    input->held = 0;
    if (part > 0) {
        TRI_TRY(tri_part_file_read(input->file, input->at, input->buffer, part, error));
    }
    input->at += part;
    tri_meter_add(TRI_METER_BYTES, (int64_t)part);
    input->held = part;
    return TRI_OK;
}

static enum tri_packing find_packing(const unsigned char *data, size_t bytes)
{
    if (bytes >= 2 && data[0] == 0x1f && data[1] == 0x8b) {
        return TRI_PACKING_GZIP;
    }
    if (bytes < 4) {
        return TRI_PACKING_NONE;
    }
    static const unsigned char frame[] = {0x28, 0xb5, 0x2f, 0xfd};
    /* Parallel compressors put a frame to be skipped first. */
    bool skipped =
        data[0] >= 0x50 && data[0] <= 0x5f && data[1] == 0x2a && data[2] == 0x4d && data[3] == 0x18;
    return memcmp(data, frame, sizeof(frame)) == 0 || skipped ? TRI_PACKING_ZSTD : TRI_PACKING_NONE;
}

static enum tri_status prepare(struct tri_input *input, struct tri_error *error)
{
    enum { GZIP_ONLY = 16 };
    input->packing = find_packing(input->buffer, input->held);
    bool made = true;
    if (input->packing == TRI_PACKING_GZIP) {
        made = inflateInit2(&input->gzip, GZIP_ONLY + MAX_WBITS) == Z_OK;
    } else if (input->packing == TRI_PACKING_ZSTD) {
        input->zstd = ZSTD_createDStream();
        made = input->zstd && !ZSTD_isError(ZSTD_initDStream(input->zstd));
    }
    if (!made) {
        input->packing = TRI_PACKING_NONE; /* nothing to end */
        return tri_fail(error, TRI_FAILED, "%s: no memory to unpack it", input->path);
    }
    return TRI_OK;
}

enum tri_status tri_input_open(const char *path, struct tri_input **input, struct tri_error *error)
{
    *input = NULL;
    struct tri_part_file *file;
    TRI_TRY(tri_part_file_open(path, &file, error));
    struct tri_input *made = tri_alloc(TRI_MEMORY_OTHER, sizeof(*made));
    made->path = tri_strdup(path);
    made->file = file;
    made->size = tri_part_file_size(file);
    made->buffer = tri_alloc(TRI_MEMORY_OTHER, BUFFER);
    enum tri_status status =
        made->size == 0 ? tri_fail(error, TRI_BAD_INPUT, "%s: is empty", path) : fill(made, error);
    if (status == TRI_OK) {
        status = prepare(made, error);
    }
    if (status != TRI_OK) {
        tri_input_close(made);
        return status;
    }
    *input = made;
    return TRI_OK;
}

enum tri_packing tri_input_packing(const struct tri_input *input)
{
    return input->packing;
}

void tri_input_close(struct tri_input *input)
{
    if (!input) {
        return;
    }
    if (input->packing == TRI_PACKING_GZIP) {
        (void)inflateEnd(&input->gzip);
    }
    (void)ZSTD_freeDStream(input->zstd);
    tri_part_file_destroy(input->file);
    tri_free(input->buffer);
    tri_free(input->path);
    tri_free(input);
}

/* ---- reading --------------------------------------------------------------------------------- */

static size_t read_plain(struct tri_input *input, unsigned char *data, size_t room)
{
    size_t held = input->held - input->used;
    size_t part = held < room ? held : room;
    memcpy(data, input->buffer + input->used, part);
    input->used += part;
    return part;
}

/* Zeros behind an archive, as tapes leave them, are no archive. */
static bool only_zeros(const struct tri_input *input)
{
    for (size_t i = input->used; i < input->held; i++) {
        if (input->buffer[i] != 0) {
            return false;
        }
    }
    return true;
}

/* Some more of what the archive holds; NULL, or why not. */
static const char *inflate_some(struct tri_input *input, unsigned char *data, size_t room,
                                size_t *got)
{
    if (!input->open && input->begun && only_zeros(input)) {
        input->used = input->held;
        return NULL;
    }
    z_stream *gzip = &input->gzip;
    if (!input->open && input->begun && inflateReset(gzip) != Z_OK) {
        return "cannot be unpacked";
    }
    enum { MOST = 1 << 30 };
    size_t part = room < MOST ? room : MOST;
    gzip->next_in = input->buffer + input->used;
    gzip->avail_in = (uInt)(input->held - input->used);
    gzip->next_out = data;
    gzip->avail_out = (uInt)part;
    int code = inflate(gzip, Z_NO_FLUSH);
    input->used = input->held - gzip->avail_in;
    *got = part - gzip->avail_out;
    input->begun = true;
    input->open = code != Z_STREAM_END;
    if (code != Z_OK && code != Z_STREAM_END && code != Z_BUF_ERROR) {
        return gzip->msg ? gzip->msg : "damaged";
    }
    return NULL;
}

static const char *decompress_some(struct tri_input *input, unsigned char *data, size_t room,
                                   size_t *got)
{
    ZSTD_inBuffer in = {input->buffer, input->held, input->used};
    ZSTD_outBuffer out = {data, room, 0};
    size_t code = ZSTD_decompressStream(input->zstd, &out, &in);
    input->used = in.pos;
    *got = out.pos;
    input->begun = true;
    input->open = code != 0;
    return ZSTD_isError(code) ? ZSTD_getErrorName(code) : NULL;
}

static enum tri_status read_some(struct tri_input *input, unsigned char *data, size_t room,
                                 size_t *got, struct tri_error *error)
{
    *got = 0;
    if (input->packing == TRI_PACKING_NONE) {
        *got = read_plain(input, data, room);
        return TRI_OK;
    }
    bool gzip = input->packing == TRI_PACKING_GZIP;
    const char *kind = gzip ? "gzip" : "zstd";
    const char *wrong =
        gzip ? inflate_some(input, data, room, got) : decompress_some(input, data, room, got);
    return wrong ? tri_fail(error, TRI_BAD_INPUT, "%s: the %s archive is damaged: %s", input->path,
                            kind, wrong)
                 : TRI_OK;
}

enum tri_status tri_input_read(struct tri_input *input, void *data, size_t room, size_t *got,
                               struct tri_error *error)
{
    unsigned char *to = data;
    *got = 0;
    while (*got < room) {
        bool last = false;
        if (input->used == input->held) {
            TRI_TRY(fill(input, error));
            last = input->held == 0;
        }
        if (last && !input->open) {
            return TRI_OK;
        }
        size_t part;
        TRI_TRY(read_some(input, to + *got, room - *got, &part, error));
        *got += part;
        /* What it still held has come out, and more is missing. */
        if (last && part == 0 && input->open) {
            return tri_fail(error, TRI_BAD_INPUT, "%s: the archive ends too early", input->path);
        }
    }
    return TRI_OK;
}
