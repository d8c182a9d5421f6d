#include "data/shard_set.h"

#include "base/memory.h"
#include "base/meter.h"
#include "base/work.h"
#include "data/shard_look.h"

#include <errno.h>
#include <glob.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

/* ---- one file -------------------------------------------------------------------------------- */

static int32_t header_word(const struct tri_mapping *mapping, size_t index)
{
    int32_t word;
    memcpy(&word, mapping->data + index * sizeof(word), sizeof(word));
    return word;
}

/* The token width that magic and version stand for; 0 when they stand for none. */
static int header_width(int32_t magic, int32_t version)
{
    if (magic == TRI_SHARD_MAGIC_U16 && version == TRI_SHARD_VERSION_U16) {
        return 2;
    }
    return magic == TRI_SHARD_MAGIC_U32 && version == TRI_SHARD_VERSION_U32 ? 4 : 0;
}

/* By its beginning: printable letters, white space, and what UTF-8 has beyond them. */
static bool is_text(const struct tri_mapping *mapping)
{
    for (size_t i = 0; i < TRI_SHARD_HEADER_BYTES; i++) {
        unsigned char c = mapping->data[i];
        if ((c < ' ' && !memchr("\t\n\r", c, 3)) || c == 0x7f) {
            return false;
        }
    }
    return true;
}

static enum tri_status open_with_header(struct tri_shard *shard, struct tri_error *error)
{
    const struct tri_mapping *mapping = &shard->mapping;
    if (mapping->size < TRI_SHARD_HEADER_BYTES) {
        return tri_fail(error, TRI_BAD_INPUT,
                        "%s: %zu bytes, too short for the %d-byte header of a token shard",
                        shard->path, mapping->size, TRI_SHARD_HEADER_BYTES);
    }
    int32_t magic = header_word(mapping, 0);
    int32_t version = header_word(mapping, 1);
    int32_t count = header_word(mapping, 2);
    if (magic != TRI_SHARD_MAGIC_U16 && magic != TRI_SHARD_MAGIC_U32 && is_text(mapping)) {
        return tri_fail(error, TRI_BAD_INPUT,
                        "%s: is text, expected token shards, which `trident tokenize` makes of it",
                        shard->path);
    }
    const char *other = tri_shard_name_other(mapping->data, mapping->size);
    if (other) {
        return tri_fail(error, TRI_BAD_INPUT, "%s: no token shard, but %s", shard->path, other);
    }
    if (magic != TRI_SHARD_MAGIC_U16 && magic != TRI_SHARD_MAGIC_U32) {
        return tri_fail(error, TRI_BAD_INPUT,
                        "%s: magic number %" PRId32
                        ", expected %d (u16 tokens) or %d (u32 tokens); shards "
                        "without a header need data.format u16 or u32",
                        shard->path, magic, TRI_SHARD_MAGIC_U16, TRI_SHARD_MAGIC_U32);
    }
    shard->width = header_width(magic, version);
    if (shard->width == 0) {
        return tri_fail(
            error, TRI_BAD_INPUT, "%s: version %" PRId32 ", expected %d", shard->path, version,
            magic == TRI_SHARD_MAGIC_U16 ? TRI_SHARD_VERSION_U16 : TRI_SHARD_VERSION_U32);
    }
    for (size_t i = 3; i < TRI_SHARD_HEADER_BYTES / sizeof(int32_t); i++) {
        if (header_word(mapping, i) != 0) {
            return tri_fail(error, TRI_BAD_INPUT, "%s: header word %zu is %" PRId32 ", expected 0",
                            shard->path, i, header_word(mapping, i));
        }
    }
    if (count < 0) {
        return tri_fail(error, TRI_BAD_INPUT, "%s: the header promises %" PRId32 " tokens",
                        shard->path, count);
    }
    size_t expected = TRI_SHARD_HEADER_BYTES + (size_t)count * (size_t)shard->width;
    if (mapping->size != expected) {
        return tri_fail(error, TRI_BAD_INPUT,
                        "%s: %zu bytes, expected %zu for the %" PRId32
                        " tokens that the header promises",
                        shard->path, mapping->size, expected, count);
    }
    shard->data = mapping->data + TRI_SHARD_HEADER_BYTES;
    shard->tokens = count;
    shard->has_header = true;
    return TRI_OK;
}

static enum tri_status open_headerless(struct tri_shard *shard, int width, int64_t limit,
                                       struct tri_error *error)
{
    const struct tri_mapping *mapping = &shard->mapping;
    if (mapping->size >= TRI_SHARD_HEADER_BYTES) {
        size_t other = (size_t)header_width(header_word(mapping, 0), header_word(mapping, 1));
        int32_t count = header_word(mapping, 2);
        if (other && count >= 0 &&
            mapping->size == TRI_SHARD_HEADER_BYTES + (size_t)count * other) {
            return tri_fail(error, TRI_BAD_INPUT,
                            "%s: has a header, but data.format says u%d without one; expected llmc",
                            shard->path, 8 * width);
        }
    }
    if (mapping->size % (size_t)width != 0) {
        return tri_fail(error, TRI_BAD_INPUT,
                        "%s: %zu bytes, expected a multiple of %d (data.format u%d)", shard->path,
                        mapping->size, width, 8 * width);
    }
    TRI_TRY(tri_shard_look(shard->path, mapping->data, mapping->size, width, limit, error));
    shard->data = mapping->data;
    shard->width = width;
    shard->tokens = (int64_t)(mapping->size / (size_t)width);
    return TRI_OK;
}

static enum tri_status open_shard(struct tri_shard *shard, enum tri_data_format format,
                                  int64_t limit, struct tri_error *error)
{
    TRI_TRY(tri_file_map(shard->path, &shard->mapping, error));
    if (format == TRI_DATA_LLMC) {
        TRI_TRY(open_with_header(shard, error));
    } else if (format == TRI_DATA_MEGATRON) {
        TRI_TRY(tri_megatron_open(shard, error));
    } else {
        TRI_TRY(open_headerless(shard, format == TRI_DATA_U16 ? 2 : 4, limit, error));
    }
    if (shard->tokens == 0) {
        return tri_fail(error, TRI_BAD_INPUT, "%s: holds no tokens", shard->path);
    }
    return TRI_OK;
}

/* out[count] <- tokens of one shard from `first` on; the largest of them is returned. */
static uint32_t copy_tokens(const struct tri_shard *shard, int64_t first, int64_t count,
                            int32_t *out)
{
    uint32_t largest = 0;
    if (shard->width == 2) {
        const uint16_t *in = (const uint16_t *)(const void *)shard->data + first;
        for (int64_t i = 0; i < count; i++) {
            largest = in[i] > largest ? in[i] : largest;
            out[i] = in[i];
        }
    } else {
        const uint32_t *in = (const uint32_t *)(const void *)shard->data + first;
        for (int64_t i = 0; i < count; i++) {
            largest = in[i] > largest ? in[i] : largest;
            out[i] = (int32_t)in[i];
        }
    }
    return largest;
}

static enum tri_status refuse_token(const struct tri_tokens *tokens, const struct tri_shard *shard,
                                    int64_t first, const int32_t *out, struct tri_error *error)
{
    int64_t i = 0;
    while ((uint32_t)out[i] < (uint64_t)tokens->limit) {
        i++;
    }
    return tri_fail(error, TRI_BAD_INPUT,
                    "%s: token %" PRIu32 " at position %" PRId64 ", expected below %" PRId64
                    " (model.vocab_size)",
                    shard->path, (uint32_t)out[i], first + i, tokens->limit);
}

/* ---- the set --------------------------------------------------------------------------------- */

static int compare_paths(const void *a, const void *b)
{
    return strcmp(((const struct tri_shard *)a)->path, ((const struct tri_shard *)b)->path);
}

static void add_path(struct tri_tokens *tokens, const char *path)
{
    tokens->shards[tokens->num_shards++] = (struct tri_shard){.path = tri_strdup(path)};
}

/* Of glob: a folder that is not there has no files; one that cannot be read is an error. */
static int is_serious(const char *path, int code)
{
    (void)path;
    return code != ENOENT && code != ENOTDIR;
}

/* The paths that pattern stands for, sorted. A file whose very name is the pattern is taken as it
 * is, so that brackets in a path do no harm. */
static enum tri_status find_shards(struct tri_tokens *tokens, const char *pattern,
                                   struct tri_error *error)
{
    glob_t found = {0};
    bool literal = tri_file_exists(pattern);
    int code = literal ? 0 : glob(pattern, GLOB_NOSORT, is_serious, &found);
    if (code == GLOB_NOSPACE) {
        tri_panic(TRI_FAILED, "%s: out of memory while listing files", pattern);
    }
    if (code == GLOB_ABORTED) {
        globfree(&found);
        return tri_fail(error, TRI_BAD_INPUT, "%s: cannot read a folder of this pattern", pattern);
    }
    if (code == GLOB_NOMATCH || (!literal && found.gl_pathc == 0)) {
        globfree(&found);
        return tri_fail(error, TRI_BAD_INPUT, "%s: no file matches, expected token shards",
                        pattern);
    }
    if (literal && tri_file_is_dir(pattern)) {
        return tri_fail(
            error, TRI_BAD_INPUT,
            "%s: Is a directory, expected token shards: a file or a glob, as '%s/train_*.bin'",
            pattern, pattern);
    }
    size_t number = literal ? 1 : found.gl_pathc;
    tokens->shards = tri_alloc(TRI_MEMORY_OTHER, number * sizeof(*tokens->shards));
    if (literal) {
        add_path(tokens, pattern);
    } else {
        for (size_t i = 0; i < number; i++) {
            add_path(tokens, found.gl_pathv[i]);
        }
        globfree(&found);
    }
    qsort(tokens->shards, number, sizeof(*tokens->shards), compare_paths);
    return TRI_OK;
}

/* Checks every token, a buffer at a time. */
static enum tri_status check_all(const struct tri_tokens *tokens, struct tri_error *error)
{
    int32_t buffer[4096];
    const int64_t size = sizeof(buffer) / sizeof(*buffer);
    for (int64_t at = 0; at < tokens->count; at += size) {
        int64_t left = tokens->count - at;
        TRI_TRY(tri_tokens_read(tokens, at, left < size ? left : size, buffer, error));
    }
    return TRI_OK;
}

static enum tri_status open_all(struct tri_tokens *tokens, enum tri_data_format format,
                                struct tri_error *error)
{
    for (int i = 0; i < tokens->num_shards; i++) {
        struct tri_shard *shard = &tokens->shards[i];
        TRI_TRY(open_shard(shard, format, tokens->limit, error));
        TRI_TRY(tri_beside_open(shard->path, shard->tokens, &shard->beside, error));
        tokens->masked = tokens->masked || shard->beside.mask;
        tokens->documented = tokens->documented || shard->beside.documents;
        shard->first = tokens->count;
        tokens->count += shard->tokens;
        tokens->bytes += shard->mapping.size;
    }
    return tokens->bytes <= TRI_TOKENS_CHECK_BYTES ? check_all(tokens, error) : TRI_OK;
}

enum tri_status tri_tokens_create(const char *pattern, enum tri_data_format format,
                                  int64_t vocab_size, struct tri_tokens **tokens,
                                  struct tri_error *error)
{
    *tokens = NULL;
    TRI_REQUIRE(vocab_size >= 0 && vocab_size <= INT32_MAX);
    struct tri_tokens *set = tri_alloc(TRI_MEMORY_OTHER, sizeof(*set));
    set->limit = vocab_size ? vocab_size : INT32_MAX;
    enum tri_status status = find_shards(set, pattern, error);
    if (status == TRI_OK) {
        status = open_all(set, format, error);
    }
    if (status != TRI_OK) {
        tri_tokens_destroy(set);
        return status;
    }
    *tokens = set;
    return TRI_OK;
}

void tri_tokens_destroy(struct tri_tokens *tokens)
{
    if (!tokens) {
        return;
    }
    for (int i = 0; i < tokens->num_shards; i++) {
        tri_file_unmap(&tokens->shards[i].mapping);
        tri_beside_close(&tokens->shards[i].beside);
        tri_free(tokens->shards[i].path);
    }
    tri_free(tokens->shards);
    tri_free(tokens);
}

int64_t tri_tokens_count(const struct tri_tokens *tokens)
{
    return tokens->count;
}

int tri_tokens_shards(const struct tri_tokens *tokens)
{
    return tokens->num_shards;
}

struct tri_shard_info tri_tokens_shard(const struct tri_tokens *tokens, int index)
{
    TRI_REQUIRE(index >= 0 && index < tokens->num_shards);
    const struct tri_shard *shard = &tokens->shards[index];
    return (struct tri_shard_info){.path = shard->path,
                                   .tokens = shard->tokens,
                                   .bytes_per_token = shard->width,
                                   .has_header = shard->has_header,
                                   .documents =
                                       shard->beside.documents ? shard->beside.num_documents : -1,
                                   .masked = shard->beside.mask != NULL};
}

int64_t tri_tokens_largest(const struct tri_tokens *tokens)
{
    int32_t buffer[4096];
    const int64_t size = sizeof(buffer) / sizeof(*buffer);
    uint32_t largest = 0;
    for (int i = 0; i < tokens->num_shards; i++) {
        const struct tri_shard *shard = &tokens->shards[i];
        for (int64_t at = 0; at < shard->tokens; at += size) {
            tri_work_progress();
            int64_t left = shard->tokens - at;
            uint32_t part = copy_tokens(shard, at, left < size ? left : size, buffer);
            tri_meter_add(TRI_METER_TOKENS, left < size ? left : size);
            largest = part > largest ? part : largest;
        }
    }
    return largest;
}

enum { BLOCK = 4096, LEAST_BLOCKS = 4, MOST_BLOCKS = 64, ALL_BLOCKS = 8192 };

/* Of all bytes, or of so many blocks. */
static uint64_t hash_bytes(const unsigned char *data, size_t bytes, int blocks, bool whole,
                           uint64_t seed)
{
    if (whole || bytes <= (size_t)blocks * BLOCK) {
        return XXH3_64bits_withSeed(data, bytes, seed);
    }
    uint64_t hash = bytes + seed;
    for (int i = 0; i < blocks; i++) {
        size_t at = (size_t)((double)(bytes - BLOCK) * i / (blocks - 1));
        hash = XXH3_64bits_withSeed(data + at, BLOCK, hash);
        tri_work_progress(); /* each may be a disk's seek */
    }
    return hash;
}

uint64_t tri_tokens_fingerprint(const struct tri_tokens *tokens, int index)
{
    TRI_REQUIRE(index >= 0 && index < tokens->num_shards);
    const struct tri_shard *shard = &tokens->shards[index];
    const struct tri_beside *beside = &shard->beside;
    bool whole = tokens->bytes <= TRI_TOKENS_CHECK_BYTES;
    int blocks = ALL_BLOCKS / tokens->num_shards;
    blocks = blocks < LEAST_BLOCKS ? LEAST_BLOCKS : blocks > MOST_BLOCKS ? MOST_BLOCKS : blocks;
    uint64_t hash =
        hash_bytes(shard->data, (size_t)shard->tokens * (size_t)shard->width, blocks, whole, 0);
    if (beside->mask) {
        hash = hash_bytes(beside->mask, (size_t)(shard->tokens + 7) / 8, blocks, whole, hash + 1);
    }
    if (beside->documents) {
        hash = hash_bytes(beside->documents, (size_t)beside->num_documents * sizeof(uint64_t),
                          blocks, whole, hash + 2);
    }
    return hash;
}

/* The shard that holds token `position` of the set. */
int tri_tokens_shard_of(const struct tri_tokens *tokens, int64_t position)
{
    int low = 0;
    int high = tokens->num_shards - 1;
    while (low < high) {
        int middle = low + (high - low + 1) / 2;
        if (tokens->shards[middle].first <= position) {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    return low;
}

enum tri_status tri_tokens_read(const struct tri_tokens *tokens, int64_t first, int64_t count,
                                int32_t *out, struct tri_error *error)
{
    TRI_REQUIRE(first >= 0 && count >= 0 && first <= tokens->count - count);
    tri_work_progress();
    for (int i = tri_tokens_shard_of(tokens, first); count > 0; i++) {
        const struct tri_shard *shard = &tokens->shards[i];
        int64_t from = first - shard->first;
        int64_t part = shard->tokens - from < count ? shard->tokens - from : count;
        if (copy_tokens(shard, from, part, out) >= tokens->limit) {
            return refuse_token(tokens, shard, from, out, error);
        }
        /* Past the end of a file cut short its last page reads as zeros, and touching any other
         * page ends the job (base/mapping.c). */
        if (part > 0 && out[part - 1] == 0 && tri_file_is_cut_short(shard->path, &shard->mapping)) {
            return tri_fail(error, TRI_FAILED, "%s: was cut short while it was in use",
                            shard->path);
        }
        first += part;
        out += part;
        count -= part;
    }
    return TRI_OK;
}
