#include "support/moving.h"

#include "support/own_strategies.h"
#include "support/small.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* Addresses are taken in turn out of a region that nobody may touch, with at least a page between
 * two: they come back when all of it has been used. */
#define REGION ((size_t)1 << 36)

struct moving {
    struct tri_residency base;
    char *region;
    size_t page, at;
    int rows;    /* of the table */
    void **copy; /* [rows] the weights, as they were at the last refresh */
};

int moving_least = 2;
static _Thread_local struct moving_counts counts;

struct moving_counts moving_counts(void)
{
    return counts;
}

static size_t round_up(const struct moving *m, size_t bytes)
{
    return (bytes + m->page - 1) / m->page * m->page;
}

/* Memory that ends where the next page may not be touched. */
static char *take(struct moving *m, size_t bytes)
{
    size_t pages = round_up(m, bytes);
    if (m->at + pages + m->page > REGION) {
        m->at = 0;
    }
    char *place = m->region + m->at;
    m->at += pages + m->page;
    CHECK(mprotect(place, pages, PROT_READ | PROT_WRITE) == 0);
    counts.open++;
    return place + pages - bytes;
}

static void give_back(struct moving *m, const void *block, size_t bytes)
{
    size_t pages = round_up(m, bytes);
    char *place = m->region + ((const char *)block - m->region) + bytes - pages;
    CHECK(madvise(place, pages, MADV_DONTNEED) == 0);
    CHECK(mprotect(place, pages, PROT_NONE) == 0);
    counts.open--;
}

static size_t weight_bytes(struct tri_span span)
{
    return (size_t)span.count * tri_dtype_size(span.row->dtype);
}

static const void *open_weights(struct tri_residency *self, const struct tri_params *params,
                                struct tri_span span, enum tri_use use)
{
    struct moving *m = (struct moving *)self;
    size_t bytes = weight_bytes(span);
    char *block = take(m, bytes);
    char *at = block;
    (void)use;
    for (int i = 0; i < span.rows; i++) {
        const struct tri_param *row = &span.row[i];
        size_t part = (size_t)row->count * tri_dtype_size(row->dtype);
        const void *copy = m->copy[row - params->param];
        CHECK(copy);
        memcpy(at, copy, part);
        at += part;
    }
    char *first = block + bytes - round_up(m, bytes);
    CHECK(mprotect(first, round_up(m, bytes), PROT_READ) == 0);
    counts.weights++;
    return block;
}

static void close_weights(struct tri_residency *self, const struct tri_params *params,
                          struct tri_span span, const void *weights)
{
    (void)params;
    give_back((struct moving *)self, weights, weight_bytes(span));
}

static size_t gradient_bytes(const struct tri_params *params, struct tri_span span)
{
    return (size_t)span.count * tri_dtype_size(params->buffer[span.row->buffer].gradient_dtype);
}

static void *open_gradients(struct tri_residency *self, const struct tri_params *params,
                            struct tri_span span, bool first)
{
    size_t bytes = gradient_bytes(params, span);
    void *block = take((struct moving *)self, bytes);
    if (first) {
        memset(block, 0xff, bytes); /* no number: who adds to it is found */
    } else {
        memcpy(block, tri_param_gradients(params, span.row), bytes);
    }
    counts.gradients++;
    return block;
}

static void close_gradients(struct tri_residency *self, const struct tri_params *params,
                            struct tri_span span, void *gradients)
{
    size_t bytes = gradient_bytes(params, span);
    memcpy(tri_param_gradients(params, span.row), gradients, bytes);
    give_back((struct moving *)self, gradients, bytes);
}

static void refresh(struct tri_residency *self, const struct tri_params *params,
                    const struct tri_param *row)
{
    struct moving *m = (struct moving *)self;
    size_t bytes = (size_t)row->count * tri_dtype_size(row->dtype);
    void **copy = &m->copy[row - params->param];
    *copy = *copy ? *copy : malloc(bytes);
    CHECK(*copy);
    memcpy(*copy, tri_param_weights(params, row), bytes);
}

static void destroy(struct tri_residency *self)
{
    struct moving *m = (struct moving *)self;
    CHECK(munmap(m->region, REGION) == 0);
    for (int p = 0; p < m->rows; p++) {
        free(m->copy[p]);
    }
    free(m->copy);
    free(m);
}

static const struct tri_residency_ops ops = {
    .open = open_weights,
    .close = close_weights,
    .open_gradients = open_gradients,
    .close_gradients = close_gradients,
    .refresh = refresh,
    .destroy = destroy,
};

static struct tri_residency *create(const struct tri_config *config,
                                    const struct tri_kernels *kernels, struct tri_params *params)
{
    (void)config;
    (void)kernels;
    if (params->mesh->ranks < moving_least) {
        return NULL;
    }
    struct moving *m = calloc(1, sizeof(*m));
    CHECK(m);
    m->base.ops = &ops;
    m->page = (size_t)sysconf(_SC_PAGESIZE);
    m->region = mmap(NULL, REGION, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    m->rows = params->count;
    m->copy = calloc((size_t)params->count, sizeof(*m->copy));
    CHECK(m->region != MAP_FAILED && m->copy);
    for (int p = 0; p < params->count; p++) {
        params->param[p].residency = &m->base;
    }
    return &m->base;
}

static const struct tri_residency_kind moving = {create};
static const struct tri_residency_kind *const residencies[] = {&moving, NULL};
static struct tri_strategies strategies;

__attribute__((constructor)) static void enter(void)
{
    strategies = own_strategies;
    strategies.residencies = residencies;
    small_strategies = &strategies;
}
