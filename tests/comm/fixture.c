#include "fixture.h"

#include "base/memory.h"

#include <stdlib.h>
#include <string.h>

static void visit_mesh(const struct tri_mesh *mesh, visit_group visit)
{
    struct tri_group *groups[] = {tri_mesh_group(mesh, TRI_ON_TENSOR),
                                  tri_mesh_group(mesh, TRI_ON_EXPERT),
                                  tri_mesh_group(mesh, TRI_ON_GRID | TRI_ON_EXPERT),
                                  tri_mesh_group(mesh, TRI_ON_DATA),
                                  tri_mesh_group(mesh, TRI_ON_EXPERT | TRI_ON_DATA),
                                  tri_mesh_group(mesh, TRI_ON_ALL)};
    for (size_t i = 0; i < sizeof(groups) / sizeof(groups[0]); i++) {
        visit(groups[i]);
    }
}

static visit_group visitor;

static int run_job(int argc, char **argv)
{
    visit_group visit = visitor;
    (void)argc;
    (void)argv;
    tri_comm_set_timeout(job(), 60);
    int ranks = job_size();
    for (int tensor = 1; tensor <= ranks; tensor++) {
        for (int expert = 1; expert <= ranks; expert++) {
            struct tri_mesh *mesh = NULL;
            struct tri_error error;
            if (ranks % (tensor * expert)) {
                CHECK(tri_mesh_create(job(), tensor, 1, 1, expert, &mesh, &error) == TRI_BAD_INPUT);
                continue;
            }
            /* More ranks than cores are slow: of 8 only the cube, where every axis is cut, and of 5
             * to 7 the one where none but the last is. */
            int cut = ranks % 4 == 0 ? 2 : 1;
            if (ranks > 4 && (tensor != cut || expert != cut)) {
                continue;
            }
            CHECK(tri_mesh_create(job(), tensor, 1, 1, expert, &mesh, &error) == TRI_OK);
            visit_mesh(mesh, visit);
            tri_mesh_set_max_message(mesh, 1000);
            visit_mesh(mesh, visit);
            tri_mesh_destroy(mesh);
        }
    }
    return 0;
}

int run_on_groups(int argc, char **argv, visit_group visit)
{
    visitor = visit;
    int status = job_run(argc, argv, run_job);
    struct tri_memory_counters counters = tri_memory_get();
    for (int i = 0; i < TRI_MEMORY_COUNT; i++) {
        CHECK(counters.current[i] == 0);
    }
    return status;
}

int world_rank(const struct tri_group *group, int member)
{
    return tri_mesh_member(group->mesh->size, group->id, group->mesh->rank, member);
}

static uint64_t mix(uint64_t x)
{
    x = (x ^ x >> 31) * UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ x >> 29) * UINT64_C(0xbf58476d1ce4e5b9);
    return x ^ x >> 32;
}

void put_value(void *data, int64_t i, enum tri_dtype dtype, int rank, int64_t index)
{
    uint64_t bits = mix((uint64_t)index * 64 + (uint64_t)rank + 1);
    double unit = (double)(bits >> 11) * 0x1p-53 - 0.5;
    switch (dtype) {
    case TRI_F32:
        ((float *)data)[i] = (float)unit;
        break;
    case TRI_BF16:
        ((uint16_t *)data)[i] = tri_f32_to_bf16((float)unit);
        break;
    case TRI_F64:
        ((double *)data)[i] = unit;
        break;
    case TRI_I32:
        ((int32_t *)data)[i] = (int32_t)(bits % 2000) - 1000;
        break;
    case TRI_I64:
        ((int64_t *)data)[i] = (int64_t)(bits >> 16) - (INT64_C(1) << 47);
        break;
    case TRI_U8:
        ((uint8_t *)data)[i] = (uint8_t)bits;
        break;
    case TRI_DTYPE_COUNT:
        abort();
    }
}

void fill(void *data, int64_t n, enum tri_dtype dtype, int rank)
{
    for (int64_t i = 0; i < n; i++) {
        put_value(data, i, dtype, rank, i);
    }
}

/* One element's bytes, whatever its type. */
union cell {
    float f32;
    uint16_t bf16;
    double f64;
    int32_t i32;
    int64_t i64;
    uint8_t byte[8];
};

static union cell add(union cell a, union cell b, enum tri_dtype dtype)
{
    switch (dtype) {
    case TRI_F32:
        return (union cell){.f32 = a.f32 + b.f32};
    case TRI_F64:
        return (union cell){.f64 = a.f64 + b.f64};
    case TRI_I32:
        return (union cell){.i32 = a.i32 + b.i32};
    case TRI_I64:
        return (union cell){.i64 = a.i64 + b.i64};
    case TRI_BF16:
    case TRI_U8:
    case TRI_DTYPE_COUNT:
        break;
    }
    abort();
}

/* The sum of element i over members [begin, end); bf16 as f32. */
static union cell tree_sum(const struct tri_group *group, int begin, int end, int64_t i,
                           enum tri_dtype dtype)
{
    if (end - begin == 1) {
        union cell x = {0};
        put_value(&x, 0, dtype, world_rank(group, begin), i);
        return dtype == TRI_BF16 ? (union cell){.f32 = tri_bf16_to_f32(x.bf16)} : x;
    }
    int left = 1;
    while (begin + 2 * left < end) {
        left *= 2;
    }
    return add(tree_sum(group, begin, begin + left, i, dtype),
               tree_sum(group, begin + left, end, i, dtype), dtype == TRI_BF16 ? TRI_F32 : dtype);
}

bool is_sum(const struct tri_group *group, const void *data, int64_t at, int64_t n,
            enum tri_dtype dtype)
{
    size_t width = tri_dtype_size(dtype);
    for (int64_t i = at; i < at + n; i++) {
        union cell sum = tree_sum(group, 0, group->size, i, dtype);
        if (dtype == TRI_BF16) {
            sum = (union cell){.bf16 = tri_f32_to_bf16(sum.f32)};
        }
        if (memcmp(&sum, (const char *)data + (size_t)i * width, width) != 0) {
            return false;
        }
    }
    return true;
}

bool is_fill(const void *data, int64_t at, int64_t n, enum tri_dtype dtype, int rank)
{
    size_t width = tri_dtype_size(dtype);
    for (int64_t i = at; i < at + n; i++) {
        union cell x = {0};
        put_value(&x, 0, dtype, rank, i);
        if (memcmp(&x, (const char *)data + (size_t)i * width, width) != 0) {
            return false;
        }
    }
    return true;
}

int64_t uneven(int64_t *counts, int size, int64_t scale)
{
    int64_t sum = 0;
    for (int r = 0; r < size; r++) {
        counts[r] = r % 3 == 1 ? 0 : scale + 7 * r;
        sum += counts[r];
    }
    return sum;
}
