#include "data/documents.h"

#include "base/file.h"
#include "base/memory.h"
#include "data/input.h"
#include "data/lines.h"

#include <string.h>
#include <strings.h>

/* ---- formats --------------------------------------------------------------------------------- */

static const char *const FORMATS[] = {"", "text", "jsonl", "chat"};

enum tri_format tri_format_find(const char *name)
{
    for (int i = TRI_FORMAT_TEXT; i <= TRI_FORMAT_CHAT; i++) {
        if (strcmp(FORMATS[i], name) == 0) {
            return (enum tri_format)i;
        }
    }
    return TRI_FORMAT_GUESS;
}

const char *tri_format_name(enum tri_format format)
{
    return FORMATS[format];
}

static bool ends_with(const char *text, size_t length, const char *ending)
{
    size_t part = strlen(ending);
    return length > part && strncasecmp(text + length - part, ending, part) == 0;
}

enum tri_format tri_format_guess(const char *path)
{
    static const char *const packed[] = {".gz", ".zst", ".zstd"};
    static const char *const lines[] = {".jsonl", ".ndjson", ".json"};
    size_t length = strlen(path);
    for (size_t i = 0; i < sizeof(packed) / sizeof(*packed); i++) {
        if (ends_with(path, length, packed[i])) {
            length -= strlen(packed[i]);
            break;
        }
    }
    for (size_t i = 0; i < sizeof(lines) / sizeof(*lines); i++) {
        if (ends_with(path, length, lines[i])) {
            return TRI_FORMAT_JSONL;
        }
    }
    return TRI_FORMAT_TEXT;
}

/* ---- text: a file is a document -------------------------------------------------------------- */

struct text_sink {
    tri_document_sink sink;
    void *context;
    bool begins;
    int64_t tokens;
    bool failed; /* the sink, which has said why */
};

static enum tri_status pass_on(void *context, const int32_t *tokens, int64_t count,
                               struct tri_error *error)
{
    struct text_sink *text = context;
    bool begins = text->begins && count > 0;
    text->begins = text->begins && count == 0;
    text->tokens += count;
    enum tri_status status = text->sink(text->context, begins, tokens, NULL, count, error);
    text->failed = status != TRI_OK;
    return status;
}

/* What a tokenizer takes is a whole text: the archive's lies on the disk meanwhile, not in
 * memory. */
static enum tri_status unpack(struct tri_input *input, const char *path, struct tri_error *error)
{
    enum { PART = 1 << 20 };
    struct tri_writer *writer;
    TRI_TRY(tri_writer_create(path, &writer, error));
    void *buffer = tri_alloc(TRI_MEMORY_OTHER, PART);
    size_t got = PART;
    enum tri_status status = TRI_OK;
    while (status == TRI_OK && got == PART) {
        status = tri_input_read(input, buffer, PART, &got, error);
        if (status == TRI_OK) {
            status = tri_writer_write(writer, buffer, got, error);
        }
    }
    tri_free(buffer);
    if (status != TRI_OK) {
        tri_writer_destroy(writer);
        return status;
    }
    return tri_writer_close(&writer, error);
}

static enum tri_status encode_file(const struct tri_documents_args *args, const char *path,
                                   const char *name, struct text_sink *sink, int64_t *bytes,
                                   struct tri_error *error)
{
    struct tri_mapping text;
    TRI_TRY(tri_file_map(path, &text, error));
    *bytes += (int64_t)text.size;
    if (text.size == 0) {
        tri_file_unmap(&text);
        return tri_fail(error, TRI_BAD_INPUT, "%s: is empty", name);
    }
    struct tri_error found;
    enum tri_status status =
        args->tokenizer->encode(args->tokenizer, text.data, text.size, pass_on, sink, &found);
    tri_file_unmap(&text);
    return status == TRI_OK ? TRI_OK
           : sink->failed   ? tri_fail(error, status, "%s", found.message)
                            : tri_fail(error, status, "%s: %s", name, found.message);
}

static enum tri_status read_text(const struct tri_documents_args *args, struct tri_input *input,
                                 const char *path, tri_document_sink sink, void *context,
                                 struct tri_documents_counts *counts, struct tri_error *error)
{
    struct text_sink text = {.sink = sink, .context = context, .begins = true};
    enum tri_status status;
    if (tri_input_packing(input) == TRI_PACKING_NONE) {
        status = encode_file(args, path, path, &text, &counts->bytes, error);
    } else {
        TRI_TRY(unpack(input, args->scratch, error));
        status = encode_file(args, args->scratch, path, &text, &counts->bytes, error);
        enum tri_status removed =
            tri_file_remove_tree(args->scratch, status == TRI_OK ? error : NULL);
        status = status == TRI_OK ? removed : status;
    }
    counts->documents += text.tokens > 0;
    counts->tokens += text.tokens;
    counts->counted += text.tokens;
    counts->longest = text.tokens > counts->longest ? text.tokens : counts->longest;
    return status;
}

enum tri_status tri_documents_read(const struct tri_documents_args *args, const char *path,
                                   tri_document_sink sink, void *context,
                                   struct tri_documents_counts *counts, struct tri_error *error)
{
    struct tri_input *input;
    TRI_TRY(tri_input_open(path, &input, error));
    enum tri_format format =
        args->format == TRI_FORMAT_GUESS ? tri_format_guess(path) : args->format;
    enum tri_status status =
        format == TRI_FORMAT_TEXT
            ? read_text(args, input, path, sink, context, counts, error)
            : tri_lines_read(args, input, path, &format, sink, context, counts, error);
    tri_input_close(input);
    counts->files[format]++;
    return status;
}
