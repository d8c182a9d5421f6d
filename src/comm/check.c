/* The debug check: before a collective, the ranks of the group compare what they are about to call,
 * so that a mismatch is a message instead of a hang or of wrong numbers (PETSc's idea). Who
 * receives from one rank compares with what that said ahead. */
#include "comm/internal.h"

#ifdef TRIDENT_DEBUG

#include "base/log.h"
#include "base/memory.h"

#include <string.h>

enum { TEXT = 256 };

static uint64_t hash_bytes(uint64_t hash, const void *data, size_t bytes)
{
    const unsigned char *byte = data;
    for (size_t i = 0; i < bytes; i++) {
        hash = (hash ^ byte[i]) * UINT64_C(0x100000001b3);
    }
    return hash;
}

static uint64_t hash_call(const struct tri_call *call, const char *text)
{
    uint64_t hash = hash_bytes(UINT64_C(0xcbf29ce484222325), text, strlen(text));
    if (call->parts) {
        hash = hash_bytes(hash, call->parts, (size_t)call->group->size * sizeof(*call->parts));
    }
    return hash;
}

/* Every rank says what it calls; the first rank of the group ends the job. */
_Noreturn static void report(const struct tri_call *call, const char text[TEXT],
                             const int64_t *hashes)
{
    const struct tri_group *group = call->group;
    tri_log_warn("rank %d calls %s", group->mesh->rank, text);
    size_t size = (size_t)group->size;
    char *texts = tri_alloc(TRI_MEMORY_OTHER, size * TEXT);
    tri_end_all_gather_even(group, text, texts, TEXT, TRI_U8);
    if (group->rank == 0) {
        int other = 1;
        while (hashes[other] == hashes[0]) {
            other++;
        }
        tri_panic(TRI_FAILED, "the ranks call different collectives: rank %d %s; rank %d %s",
                  group->mesh->rank, text,
                  tri_mesh_member(group->mesh->size, group->id, group->mesh->rank, other),
                  texts + other * TEXT);
    }
    tri_end_barrier(group);
    tri_panic(TRI_FAILED, "the first rank of group %s did not end the job", tri_group_name(group));
}

void tri_check_call(const struct tri_call *call)
{
    char text[TEXT] = "";
    tri_call_describe(call, text, sizeof(text));
    int64_t hash = (int64_t)hash_call(call, text);
    int64_t *hashes = call->group->words;
    tri_end_all_gather_even(call->group, &hash, hashes, 1, TRI_I64);
    for (int r = 0; r < call->group->size; r++) {
        if (hashes[r] != hashes[0]) {
            report(call, text, hashes);
        }
    }
}

void tri_check_rows(const struct tri_group *group, const int64_t *send_rows,
                    const int64_t *recv_rows)
{
    if (!group->carries) {
        return;
    }
    tri_end_all_to_all(group, send_rows, group->words, 1, TRI_I64);
    for (int r = 0; r < group->size; r++) {
        if (group->words[r] != recv_rows[r]) {
            tri_panic(
                TRI_FAILED,
                "all_to_all over group %s: rank %d sends %lld rows, and is expected to send %lld",
                tri_group_name(group),
                tri_mesh_member(group->mesh->size, group->id, group->mesh->rank, r),
                (long long)group->words[r], (long long)recv_rows[r]);
        }
    }
}

#else

void tri_check_call(const struct tri_call *call)
{
    (void)call;
}

void tri_check_rows(const struct tri_group *group, const int64_t *send_rows,
                    const int64_t *recv_rows)
{
    (void)group;
    (void)send_rows;
    (void)recv_rows;
}

#endif

void tri_check_notice(const struct tri_call *receive, const struct tri_notice *notice)
{
    if (notice->n == receive->n && notice->dtype == (int64_t)receive->dtype) {
        return;
    }
    char text[256];
    tri_call_describe(receive, text, sizeof(text));
    tri_panic(TRI_FAILED, "%s: it sends %lld %s", text, (long long)notice->n,
              tri_dtype_name((enum tri_dtype)notice->dtype));
}
