/* Megatron's NAME.bin, tokens and nothing else, with NAME.idx: 9 bytes of magic, u64 version, u8
 * type, u64 sequences S, u64 bounds B, int32 lengths [S], int64 bytes before each [S], int64
 * sequences before each document [B], the last of these S. Nothing in it is aligned. */
#include "data/shard_set.h"

#include "base/memory.h"

#include <inttypes.h>
#include <string.h>

enum { HEADER = 34, TYPE_I32 = 4, TYPE_U16 = 8 };

struct index {
    const char *path;
    const unsigned char *data;
    int type;
    uint64_t sequences, bounds;
};

static uint64_t word_at(const unsigned char *at)
{
    uint64_t word;
    memcpy(&word, at, sizeof(word));
    return word;
}

static int64_t length_of(const struct index *index, uint64_t sequence)
{
    int32_t length;
    memcpy(&length, index->data + HEADER + 4 * sequence, sizeof(length));
    return length;
}

static uint64_t bytes_before(const struct index *index, uint64_t sequence)
{
    return word_at(index->data + HEADER + 4 * index->sequences + 8 * sequence);
}

/* Sequences before a document. */
static uint64_t bound_of(const struct index *index, uint64_t document)
{
    return word_at(index->data + HEADER + 12 * index->sequences + 8 * document);
}

static enum tri_status read_header(const struct tri_mapping *mapping, struct index *index,
                                   struct tri_error *error)
{
    static const unsigned char magic[9] = "MMIDIDX\0";
    if (mapping->size < HEADER || memcmp(mapping->data, magic, sizeof(magic)) != 0) {
        return tri_fail(error, TRI_BAD_INPUT,
                        "%s: no index of Megatron's: found %zu bytes that do "
                        "not begin with MMIDIDX",
                        index->path, mapping->size);
    }
    if (word_at(mapping->data + 9) != 1) {
        return tri_fail(error, TRI_BAD_INPUT, "%s: version %" PRIu64 ", expected 1", index->path,
                        word_at(mapping->data + 9));
    }
    index->data = mapping->data;
    index->type = mapping->data[17];
    index->sequences = word_at(mapping->data + 18);
    index->bounds = word_at(mapping->data + 26);
    if (index->type != TYPE_U16 && index->type != TYPE_I32) {
        return tri_fail(error, TRI_BAD_INPUT,
                        "%s: tokens of type %d, expected %d (16 bits) or %d (32 bits)", index->path,
                        index->type, TYPE_U16, TYPE_I32);
    }
    /* Neither product can be too large once both numbers are below the file's bytes. */
    bool fits = index->sequences < mapping->size && index->bounds < mapping->size;
    if (!fits || HEADER + 12 * index->sequences + 8 * index->bounds != mapping->size) {
        return tri_fail(error, TRI_BAD_INPUT,
                        "%s: %zu bytes do not hold what the header promises, %" PRIu64
                        " sequences and %" PRIu64 " bounds of documents",
                        index->path, mapping->size, index->sequences, index->bounds);
    }
    return TRI_OK;
}

/* The sequences must be all of the tokens, one behind the other. */
static enum tri_status check_sequences(const struct index *index, struct tri_shard *shard,
                                       struct tri_error *error)
{
    uint64_t bytes = 0;
    for (uint64_t i = 0; i < index->sequences; i++) {
        if (length_of(index, i) < 0 || bytes_before(index, i) != bytes) {
            return tri_fail(error, TRI_BAD_INPUT,
                            "%s: sequence %" PRIu64 " has %" PRId64 " tokens from byte %" PRIu64
                            " on, expected one from %" PRIu64 " on",
                            index->path, i, length_of(index, i), bytes_before(index, i), bytes);
        }
        bytes += (uint64_t)length_of(index, i) * (uint64_t)shard->width;
        if (bytes > shard->mapping.size) {
            break;
        }
    }
    if (bytes != shard->mapping.size) {
        return tri_fail(error, TRI_BAD_INPUT,
                        "%s: %zu bytes, expected those of the sequences in %s", shard->path,
                        shard->mapping.size, index->path);
    }
    return TRI_OK;
}

/* Where documents with tokens begin. */
static enum tri_status list_documents(const struct index *index, struct tri_shard *shard,
                                      struct tri_error *error)
{
    int64_t *places = tri_alloc(TRI_MEMORY_OTHER, (size_t)(index->bounds + 1) * sizeof(*places));
    int64_t count = 0;
    uint64_t last = 0;
    shard->beside.own_documents = places;
    for (uint64_t i = 0; i < index->bounds; i++) {
        uint64_t bound = bound_of(index, i);
        bool right = bound >= last && bound <= index->sequences && (i > 0 || bound == 0) &&
                     (i + 1 < index->bounds || bound == index->sequences);
        if (!right) {
            return tri_fail(error, TRI_BAD_INPUT,
                            "%s: document %" PRIu64 " begins with sequence %" PRIu64
                            ", expected one from %" PRIu64 " to %" PRIu64,
                            index->path, i, bound, last, index->sequences);
        }
        int64_t place = bound < index->sequences
                            ? (int64_t)(bytes_before(index, bound) / (uint64_t)shard->width)
                            : shard->tokens;
        if (count > 0 && places[count - 1] == place) {
            count--; /* without tokens */
        }
        places[count++] = place;
        last = bound;
    }
    shard->beside.num_documents =
        count > 0 && places[count - 1] == shard->tokens ? count - 1 : count;
    shard->beside.documents = (const unsigned char *)places;
    return TRI_OK;
}

enum tri_status tri_megatron_open(struct tri_shard *shard, struct tri_error *error)
{
    char path[TRI_PATH_MAX];
    struct tri_mapping mapping = {0};
    if (!tri_beside_name(shard->path, ".idx", path)) {
        return tri_fail(error, TRI_BAD_INPUT, "%s: an index, expected the .bin beside it",
                        shard->path);
    }
    struct index index = {.path = path};
    TRI_TRY(tri_file_map(path, &mapping, error));
    enum tri_status status = read_header(&mapping, &index, error);
    if (status == TRI_OK) {
        shard->width = index.type == TYPE_U16 ? 2 : 4;
        shard->data = shard->mapping.data;
        shard->tokens = (int64_t)(shard->mapping.size / (size_t)shard->width);
        status = check_sequences(&index, shard, error);
    }
    if (status == TRI_OK) {
        status = list_documents(&index, shard, error);
    }
    tri_file_unmap(&mapping);
    return status;
}
