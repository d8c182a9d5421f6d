/* Masks and bounds of documents, which lie beside the shards. */
#include "data/shard_set.h"

#include "base/memory.h"
#include "base/path.h"
#include "data/shard_writer.h"

#include <inttypes.h>
#include <string.h>

enum { HEADER_WORDS = TRI_SIDECAR_HEADER_BYTES / 4, COUNT_WORD = TRI_SIDECAR_COUNT_AT / 4 };

/* ---- one file -------------------------------------------------------------------------------- */

bool tri_beside_name(const char *shard, const char *ending, char path[TRI_PATH_MAX])
{
    const char *slash = strrchr(shard, '/');
    const char *dot = strrchr(slash ? slash : shard, '.');
    int stem = (int)(dot && dot != shard && dot[-1] != '/' ? (size_t)(dot - shard) : strlen(shard));
    tri_path_make(path, TRI_PATH_MAX, "%.*s%s", stem, shard, ending);
    return strcmp(path, shard) != 0;
}

/* Maps PATH and checks its header; *count is what that says. */
static enum tri_status open_file(const char *path, int32_t magic, struct tri_mapping *mapping,
                                 int64_t *count, struct tri_error *error)
{
    int32_t words[HEADER_WORDS];
    TRI_TRY(tri_file_map(path, mapping, error));
    if (mapping->size < sizeof(words)) {
        return tri_fail(error, TRI_BAD_INPUT, "%s: %zu bytes, expected a header of %zu", path,
                        mapping->size, sizeof(words));
    }
    memcpy(words, mapping->data, sizeof(words));
    memcpy(count, words + COUNT_WORD, sizeof(*count));
    for (int i = 0; i < HEADER_WORDS; i++) {
        int32_t expected = i == 0 ? magic : i == 1 ? TRI_SIDECAR_VERSION : 0;
        if (words[i] != expected && i != COUNT_WORD && i != COUNT_WORD + 1) {
            return tri_fail(error, TRI_BAD_INPUT,
                            "%s: header word %d is %" PRId32 ", expected %" PRId32, path, i,
                            words[i], expected);
        }
    }
    if (*count < 0) {
        return tri_fail(error, TRI_BAD_INPUT, "%s: the header promises %" PRId64 " elements", path,
                        *count);
    }
    return TRI_OK;
}

static enum tri_status check_size(const char *path, const struct tri_mapping *mapping,
                                  uint64_t bytes, struct tri_error *error)
{
    uint64_t expected = TRI_SIDECAR_HEADER_BYTES + bytes;
    return mapping->size == expected
               ? TRI_OK
               : tri_fail(error, TRI_BAD_INPUT, "%s: %zu bytes, expected %" PRIu64, path,
                          mapping->size, expected);
}

static enum tri_status open_mask(const char *path, int64_t tokens, struct tri_beside *beside,
                                 struct tri_error *error)
{
    int64_t count;
    TRI_TRY(open_file(path, TRI_MASK_MAGIC, &beside->mask_file, &count, error));
    if (count != tokens) {
        return tri_fail(error, TRI_BAD_INPUT,
                        "%s: of %" PRId64 " tokens, expected %" PRId64 ", as many as the shard has",
                        path, count, tokens);
    }
    TRI_TRY(check_size(path, &beside->mask_file, ((uint64_t)count + 7) / 8, error));
    beside->mask = beside->mask_file.data + TRI_SIDECAR_HEADER_BYTES;
    return TRI_OK;
}

static int64_t document_at(const struct tri_beside *beside, int64_t index)
{
    int64_t place;
    memcpy(&place, beside->documents + (size_t)index * sizeof(place), sizeof(place));
    return place;
}

static enum tri_status open_documents(const char *path, int64_t tokens, struct tri_beside *beside,
                                      struct tri_error *error)
{
    int64_t count;
    TRI_TRY(open_file(path, TRI_DOCS_MAGIC, &beside->documents_file, &count, error));
    if (count > tokens) {
        return tri_fail(error, TRI_BAD_INPUT,
                        "%s: %" PRId64 " documents, expected at most %" PRId64
                        ", the tokens of the shard",
                        path, count, tokens);
    }
    TRI_TRY(check_size(path, &beside->documents_file, (uint64_t)count * sizeof(int64_t), error));
    beside->documents = beside->documents_file.data + TRI_SIDECAR_HEADER_BYTES;
    beside->num_documents = count;
    int64_t least = 0;
    for (int64_t i = 0; i < count; i++) {
        int64_t place = document_at(beside, i);
        if (place < least || place >= tokens) {
            return tri_fail(error, TRI_BAD_INPUT,
                            "%s: document %" PRId64 " begins at token %" PRIu64
                            ", expected one from %" PRId64 " to %" PRId64,
                            path, i, (uint64_t)place, least, tokens - 1);
        }
        least = place + 1;
    }
    return TRI_OK;
}

enum tri_status tri_beside_open(const char *shard, int64_t tokens, struct tri_beside *beside,
                                struct tri_error *error)
{
    char path[TRI_PATH_MAX];
    if (tri_beside_name(shard, ".mask", path) && tri_file_is_named(path)) {
        TRI_TRY(open_mask(path, tokens, beside, error));
    }
    if (!beside->documents && tri_beside_name(shard, ".docs", path) && tri_file_is_named(path)) {
        TRI_TRY(open_documents(path, tokens, beside, error));
    }
    return TRI_OK;
}

void tri_beside_close(struct tri_beside *beside)
{
    tri_file_unmap(&beside->mask_file);
    tri_file_unmap(&beside->documents_file);
    tri_free(beside->own_documents);
    *beside = (struct tri_beside){0};
}

/* ---- the set --------------------------------------------------------------------------------- */

bool tri_tokens_masked(const struct tri_tokens *tokens)
{
    return tokens->masked;
}

bool tri_tokens_documented(const struct tri_tokens *tokens)
{
    return tokens->documented;
}

static bool counts(const struct tri_beside *beside, int64_t place)
{
    return !beside->mask || (beside->mask[place / 8] >> (place % 8) & 1);
}

void tri_tokens_mask(const struct tri_tokens *tokens, int64_t first, int64_t count,
                     int32_t *targets)
{
    TRI_REQUIRE(first >= 0 && count >= 0 && first <= tokens->count - count);
    for (int s = tri_tokens_shard_of(tokens, first); tokens->masked && count > 0; s++) {
        const struct tri_shard *shard = &tokens->shards[s];
        int64_t from = first - shard->first;
        int64_t part = shard->tokens - from < count ? shard->tokens - from : count;
        for (int64_t i = 0; shard->beside.mask && i < part; i++) {
            targets[i] = counts(&shard->beside, from + i) ? targets[i] : -1;
        }
        first += part;
        targets += part;
        count -= part;
    }
}

/* Set bits of [from, from + count). */
static int64_t count_bits(const struct tri_beside *beside, int64_t from, int64_t count)
{
    int64_t sum = 0;
    int64_t i = from, end = from + count;
    for (; i < end && i % 8 != 0; i++) {
        sum += counts(beside, i);
    }
    for (; i + 64 <= end; i += 64) {
        uint64_t word;
        memcpy(&word, beside->mask + i / 8, sizeof(word));
        word -= word >> 1 & UINT64_C(0x5555555555555555);
        word = (word & UINT64_C(0x3333333333333333)) + (word >> 2 & UINT64_C(0x3333333333333333));
        word = (word + (word >> 4)) & UINT64_C(0x0f0f0f0f0f0f0f0f);
        sum += (int64_t)(word * UINT64_C(0x0101010101010101) >> 56);
    }
    for (; i < end; i++) {
        sum += counts(beside, i);
    }
    return sum;
}

int64_t tri_tokens_counted(const struct tri_tokens *tokens, int64_t first, int64_t count)
{
    TRI_REQUIRE(first >= 0 && count >= 0 && first <= tokens->count - count);
    int64_t sum = tokens->masked ? 0 : count;
    for (int s = tri_tokens_shard_of(tokens, first); tokens->masked && count > 0; s++) {
        const struct tri_shard *shard = &tokens->shards[s];
        int64_t from = first - shard->first;
        int64_t part = shard->tokens - from < count ? shard->tokens - from : count;
        sum += shard->beside.mask ? count_bits(&shard->beside, from, part) : part;
        first += part;
        count -= part;
    }
    return sum;
}

/* The first document of the shard that begins at `place` of it or later; -1: none. Where there is
 * no file a document begins with the shard. */
static int64_t document_from(const struct tri_shard *shard, int64_t place)
{
    const struct tri_beside *beside = &shard->beside;
    if (!beside->documents) {
        return place == 0 ? 0 : -1;
    }
    int64_t low = 0, high = beside->num_documents;
    while (low < high) {
        int64_t middle = low + (high - low) / 2;
        if (document_at(beside, middle) < place) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low < beside->num_documents ? document_at(beside, low) : -1;
}

int64_t tri_tokens_next_document(const struct tri_tokens *tokens, int64_t position)
{
    TRI_REQUIRE(position >= 0);
    int64_t at = position + 1;
    if (!tokens->documented || at >= tokens->count) {
        return tokens->count;
    }
    for (int s = tri_tokens_shard_of(tokens, at); s < tokens->num_shards; s++) {
        const struct tri_shard *shard = &tokens->shards[s];
        int64_t place = document_from(shard, at > shard->first ? at - shard->first : 0);
        if (place >= 0) {
            return shard->first + place;
        }
    }
    return tokens->count;
}
