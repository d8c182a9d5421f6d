#include "base/work.h"

#include "base/clock.h"
#include "base/meter.h"
#include "base/runtime.h"

#include <stdio.h>
#include <string.h>
#include <xxhash.h>

enum { HASH_BLOCK = 16 << 20 };

void tri_work_attach(struct tri_work *work)
{
    struct tri_runtime *runtime = tri_runtime_get();
    runtime->work = work ? work : &runtime->unread;
}

void tri_work_progress(void)
{
    (void)atomic_fetch_add_explicit(&tri_runtime_get()->work->done, 1, memory_order_relaxed);
}

void tri_work_file_begin(const char *path)
{
    struct tri_work *own = tri_runtime_get()->work;
    size_t length = strlen(path);
    const char *end = length < TRI_WORK_FILE ? path : path + length - (TRI_WORK_FILE - 1);
    (void)snprintf(own->file, sizeof(own->file), "%s", end);
    atomic_store_explicit(&own->file_since, tri_clock_nanoseconds(), memory_order_release);
}

void tri_work_file_end(void)
{
    atomic_store_explicit(&tri_runtime_get()->work->file_since, 0, memory_order_release);
    tri_work_progress();
}

uint64_t tri_work_hash(const void *data, size_t bytes)
{
    const char *at = data;
    XXH3_state_t *state = XXH3_createState();
    TRI_REQUIRE(state);
    (void)XXH3_64bits_reset(state);
    while (bytes > 0) {
        size_t part = bytes < HASH_BLOCK ? bytes : HASH_BLOCK;
        (void)XXH3_64bits_update(state, at, part);
        tri_work_progress();
        tri_meter_add(TRI_METER_BYTES, (int64_t)part);
        at += part;
        bytes -= part;
    }
    uint64_t hash = XXH3_64bits_digest(state);
    (void)XXH3_freeState(state);
    return hash;
}
