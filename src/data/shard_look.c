#include "data/shard_look.h"

#include "data/choices.h"
#include "data/shard_writer.h"
#include "data/shards.h"

#include <inttypes.h>
#include <stdbool.h>
#include <string.h>

/* Tokens looked at, and the fewest that say anything; bytes likewise. */
enum { TOKENS = 4096, LEAST_TOKENS = 64, TEXT = 4096, LEAST_TEXT = 256 };

/* No vocabulary is so large. */
#define NO_TOKEN (INT64_C(1) << 20)

static const struct {
    const char *magic;
    size_t bytes;
    const char *name;
} formats[] = {
    {"\x93NUMPY", 6,
     "a NumPy array (.npy): its header would be read as tokens; write the array with "
     "tofile()"},
    {"PK\x03\x04", 4, "a zip archive (.npz, .zip, .pt)"},
    {"\x1f\x8b\x08", 3, "compressed by gzip"},
    {"\x28\xb5\x2f\xfd", 4, "compressed by zstd"},
    {"\xfd"
     "7zXZ",
     5, "compressed by xz"},
    {"PAR1", 4, "a Parquet file"},
    {"ARROW1", 6, "an Arrow file"},
    {"\x89HDF\r\n", 6, "an HDF5 file"},
    {"\x7f"
     "ELF",
     4, "a program"},
    {"MMIDIDX", 7, "an index of Megatron's: the tokens are in the .bin beside it"},
};

const char *tri_shard_name_other(const unsigned char *data, size_t bytes)
{
    int32_t header[2] = {0};
    if (bytes >= TRI_SHARD_HEADER_BYTES) {
        memcpy(header, data, sizeof(header));
    }
    if (header[1] != 1) {
        return NULL;
    }
    return header[0] == TRI_MASK_MAGIC ? "the mask beside one: expected a pattern like *.bin"
           : header[0] == TRI_DOCS_MAGIC
               ? "the list of documents beside one: expected a pattern like *.bin"
           : header[0] == TRI_CHOICES_MAGIC ? "questions for trident eval --choices"
                                            : NULL;
}

static const char *name_format(const unsigned char *data, size_t bytes)
{
    for (size_t i = 0; i < sizeof(formats) / sizeof(*formats); i++) {
        if (bytes >= formats[i].bytes && memcmp(data, formats[i].magic, formats[i].bytes) == 0) {
            return formats[i].name;
        }
    }
    const char *other = tri_shard_name_other(data, bytes);
    if (other) {
        return other;
    }
    uint64_t header = 0;
    if (bytes > 16) {
        memcpy(&header, data, sizeof(header));
    }
    if (header >= 2 && header <= bytes - 8 && data[8] == '{' && data[9] == '"') {
        return "a safetensors file";
    }
    size_t n = bytes < TEXT ? bytes : TEXT;
    for (size_t i = 0; i < n; i++) {
        bool text = data[i] >= ' ' || data[i] == '\n' || data[i] == '\r' || data[i] == '\t';
        if (!text || data[i] == 0x7f) {
            return NULL;
        }
    }
    return n >= LEAST_TEXT ? "text: make shards of it with trident tokenize" : NULL;
}

static uint32_t token_at(const unsigned char *data, size_t index, int width)
{
    uint16_t narrow;
    uint32_t wide;
    if (width == 4) {
        memcpy(&wide, data + 4 * index, 4);
        return wide;
    }
    memcpy(&narrow, data + 2 * index, 2);
    return narrow;
}

/* u32 read as u16: every second token is 0, and few of the others are. */
static bool has_empty_halves(const unsigned char *data, size_t tokens)
{
    size_t low = 0;
    for (size_t i = 0; i + 1 < tokens; i += 2) {
        if (token_at(data, i + 1, 2) != 0) {
            return false;
        }
        low += token_at(data, i, 2) != 0;
    }
    return low > tokens / 4;
}

/* u16 read as u32: most tokens are beyond any vocabulary. */
static bool is_two_in_one(const unsigned char *data, size_t tokens, int64_t limit)
{
    const int64_t most = limit < NO_TOKEN ? limit : NO_TOKEN;
    size_t beyond = 0;
    bool narrow = true; /* both halves are tokens of this vocabulary */
    for (size_t i = 0; i < tokens; i++) {
        uint32_t token = token_at(data, i, 4);
        beyond += token >= most;
        narrow = narrow && (token & 0xffff) < most && token >> 16 < most;
    }
    return narrow && beyond > tokens / 2;
}

enum tri_status tri_shard_look(const char *path, const unsigned char *data, size_t bytes, int width,
                               int64_t limit, struct tri_error *error)
{
    const char *name = name_format(data, bytes);
    if (name) {
        return tri_fail(error, TRI_BAD_INPUT, "%s: no token shard, but %s", path, name);
    }
    size_t tokens = bytes / (size_t)width < TOKENS ? bytes / (size_t)width : TOKENS;
    if (tokens < LEAST_TOKENS) {
        return TRI_OK;
    }
    if (width == 2 && bytes % 4 == 0 && has_empty_halves(data, tokens)) {
        return tri_fail(error, TRI_BAD_INPUT,
                        "%s: every second token is 0: 32-bit tokens read as 16-bit ones, expected "
                        "data.format u32",
                        path);
    }
    if (width == 4 && is_two_in_one(data, tokens, limit)) {
        return tri_fail(error, TRI_BAD_INPUT,
                        "%s: token %" PRIu32 " and most others are in no vocabulary: 16-bit tokens "
                        "read as 32-bit ones, expected data.format u16",
                        path, token_at(data, 0, 4));
    }
    return TRI_OK;
}
