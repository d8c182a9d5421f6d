/* Sameness: ranks that were started with different words, files or machines would compute different
 * things and not notice. So what must be alike is compared, as text, before anything depends on
 * it. */
#include "comm/internal.h"

#include "base/memory.h"

#include <stdio.h>
#include <string.h>
#include <xxhash.h>

enum { SHOWN = 320, NAMED = 8 };

static const struct tri_where setup = {TRI_PHASE_SETUP, TRI_KIND_META};

static uint64_t hash_fact(const struct tri_fact *fact, uint64_t seed)
{
    uint64_t name = XXH3_64bits_withSeed(fact->name, strlen(fact->name), seed);
    return XXH3_64bits_withSeed(fact->value, strlen(fact->value), name);
}

/* Gathers this rank's number into all[size]; whether they are all the same. */
static bool same_everywhere(struct tri_group *group, uint64_t mine, uint64_t *all,
                            const int64_t *ones)
{
    all[group->rank] = mine;
    tri_all_gather_v(group, setup, all, ones, TRI_I64);
    for (int r = 1; r < group->size; r++) {
        if (all[r] != all[0]) {
            return false;
        }
    }
    return true;
}

/* "rank 3", "ranks 1, 3": those whose hash is that of rank `like`. */
static void name_ranks(const uint64_t *hashes, int size, int like, char *out, size_t bytes)
{
    int count = 0;
    for (int r = 0; r < size; r++) {
        count += hashes[r] == hashes[like];
    }
    size_t used = (size_t)snprintf(out, bytes, "rank%s", count > 1 ? "s" : "");
    int named = 0;
    for (int r = 0; r < size && named < NAMED; r++) {
        if (hashes[r] == hashes[like]) {
            used += (size_t)snprintf(out + used, bytes - used, "%s %d", named ? "," : "", r);
            named++;
        }
    }
    if (named < count) {
        (void)snprintf(out + used, bytes - used, ", …");
    }
}

/* The line about the fact that differs; the same on all ranks. */
static enum tri_status refuse(struct tri_group *group, const struct tri_fact *fact,
                              const uint64_t *hashes, struct tri_error *error)
{
    size_t size = (size_t)group->size;
    char *texts = tri_alloc(TRI_MEMORY_OTHER, size * SHOWN);
    int64_t *counts = tri_alloc(TRI_MEMORY_OTHER, size * sizeof(*counts));
    for (size_t r = 0; r < size; r++) {
        counts[r] = SHOWN;
    }
    char *own = texts + (size_t)group->rank * SHOWN;
    memset(own, 0, SHOWN);
    /* Long values differ at their ends as a rule. */
    size_t length = strlen(fact->value);
    bool cut = length >= SHOWN;
    (void)snprintf(own, SHOWN, "%s%s", cut ? "…" : "",
                   cut ? fact->value + length - (SHOWN - 8) : fact->value);
    tri_all_gather_v(group, setup, texts, counts, TRI_U8);
    int other = 1;
    while (hashes[other] == hashes[0]) {
        other++;
    }
    char first[96];
    char second[96];
    name_ranks(hashes, group->size, 0, first, sizeof(first));
    name_ranks(hashes, group->size, other, second, sizeof(second));
    enum tri_status status =
        tri_fail(error, TRI_BAD_INPUT, "parallel ranks differ: %s is %s on %s and %s on %s",
                 fact->name, texts, first, texts + (size_t)other * SHOWN, second);
    tri_free(counts);
    tri_free(texts);
    return status;
}

enum tri_status tri_comm_compare(struct tri_group *group, int count, const struct tri_fact *facts,
                                 struct tri_error *error)
{
    if (group->size == 1 || !group->carries) {
        return TRI_OK;
    }
    size_t size = (size_t)group->size;
    uint64_t *hashes = tri_alloc(TRI_MEMORY_OTHER, size * sizeof(*hashes));
    int64_t *ones = tri_alloc(TRI_MEMORY_OTHER, size * sizeof(*ones));
    for (size_t r = 0; r < size; r++) {
        ones[r] = 1;
    }
    uint64_t together = 0;
    for (int i = 0; i < count; i++) {
        together = hash_fact(&facts[i], together);
    }
    enum tri_status status = TRI_OK;
    if (!same_everywhere(group, together, hashes, ones)) {
        int i = 0;
        while (i < count && same_everywhere(group, hash_fact(&facts[i], 0), hashes, ones)) {
            i++;
        }
        TRI_REQUIRE(i < count);
        status = refuse(group, &facts[i], hashes, error);
    }
    tri_free(ones);
    tri_free(hashes);
    return status;
}
