#include "kernel/x86/onednn.h"

#include "base/memory.h"
#include "base/status.h"
#include "kernel/own.h"
#include "kernel/x86/scratch.h"

#include <omp.h>
#include <oneapi/dnnl/dnnl.h>
#include <pthread.h>
#include <string.h>

#define CHECK(call)                                                                                \
    do {                                                                                           \
        dnnl_status_t check_status_ = (call);                                                      \
        if (check_status_ != dnnl_success) {                                                       \
            tri_panic(TRI_FAILED, "%s:%d: oneDNN: status %d from %s", __FILE__, __LINE__,          \
                      (int)check_status_, #call);                                                  \
        }                                                                                          \
    } while (0)

/* What a primitive depends on: all but the number of tokens, which is m, or k for a weight
 * gradient. */
struct key {
    int64_t m, n, k; /* 0 for the number of tokens */
    int64_t lda, ldb, ldc;
    int32_t ab_dtype, c_dtype;
    int32_t flags;
    int32_t unused;
};

enum { A_TRANSPOSED = 1, B_TRANSPOSED = 2, ACCUMULATE = 4, BIAS = 8 };
enum { SLOTS = 1 << 12 };
/* Of a bf16 C, so many bytes a thread are computed at once in f32, but no fewer rows than these:
 * each time all of B is read and packed. */
enum { WIDE_BYTES = 1 << 21, LEAST_ROWS = 64 };

struct entry {
    struct key key;
    dnnl_primitive_t primitive;
};

struct tri_onednn {
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    /* Open addressing; entries are only ever added, under the lock, and published by `cache`. */
    pthread_mutex_t lock;
    struct entry *cache[SLOTS];
};

struct tri_onednn *tri_onednn_create(void)
{
    struct tri_onednn *onednn = tri_alloc(TRI_MEMORY_KERNELS, sizeof(*onednn));
    CHECK(dnnl_engine_create(&onednn->engine, dnnl_cpu, 0));
    CHECK(dnnl_stream_create(&onednn->stream, onednn->engine, dnnl_stream_default_flags));
    TRI_REQUIRE(pthread_mutex_init(&onednn->lock, NULL) == 0);
    return onednn;
}

void tri_onednn_destroy(struct tri_onednn *onednn)
{
    if (!onednn) {
        return;
    }
    for (int i = 0; i < SLOTS; i++) {
        if (onednn->cache[i]) {
            CHECK(dnnl_primitive_destroy(onednn->cache[i]->primitive));
            tri_free(onednn->cache[i]);
        }
    }
    CHECK(dnnl_stream_destroy(onednn->stream));
    CHECK(dnnl_engine_destroy(onednn->engine));
    (void)pthread_mutex_destroy(&onednn->lock);
    tri_free(onednn);
}

const char *tri_onednn_isa(void)
{
    dnnl_cpu_isa_t isa = dnnl_get_effective_cpu_isa();
    if (isa >= dnnl_cpu_isa_avx512_core_amx) {
        return "amx";
    }
    if (isa >= dnnl_cpu_isa_avx512_core_bf16) {
        return "avx512-bf16";
    }
    if (isa >= dnnl_cpu_isa_avx512_core) {
        return "avx512";
    }
    return "avx2";
}

bool tri_onednn_bf16_is_fast(void)
{
    const char *isa = tri_onednn_isa();
    return strcmp(isa, "amx") == 0 || (strcmp(isa, "avx512-bf16") == 0 && __builtin_cpu_is("amd"));
}

/* ---- descriptors ----------------------------------------------------------------------------- */

static dnnl_data_type_t type_of(enum tri_dtype dtype)
{
    return dtype == TRI_BF16 ? dnnl_bf16 : dnnl_f32;
}

/* A row-major [rows, cols] matrix with stride ld, seen transposed when asked. */
static void describe(dnnl_memory_desc_t *desc, int64_t rows, int64_t cols, int64_t ld,
                     bool transposed, enum tri_dtype dtype)
{
    dnnl_dims_t dims = {rows, cols};
    dnnl_dims_t strides = {transposed ? 1 : ld, transposed ? ld : 1};
    CHECK(dnnl_memory_desc_init_by_strides(desc, 2, dims, type_of(dtype), strides));
}

struct descriptors {
    dnnl_memory_desc_t a, b, c, bias;
};

static struct descriptors describe_product(const struct tri_matmul *p, int64_t m, int64_t n,
                                           int64_t k)
{
    struct descriptors d;
    describe(&d.a, m, k, p->lda, p->a_transposed, p->ab_dtype);
    describe(&d.b, k, n, p->ldb, p->b_transposed, p->ab_dtype);
    describe(&d.c, m, n, p->ldc, false, p->c_dtype);
    describe(&d.bias, 1, n, n, false, TRI_F32);
    return d;
}

/* ---- primitives ------------------------------------------------------------------------------ */

static struct key key_of(const struct tri_matmul *p)
{
    struct key key;
    memset(&key, 0, sizeof(key));
    key.m = p->a_transposed ? p->m : 0;
    key.n = p->n;
    key.k = p->a_transposed ? 0 : p->k;
    key.lda = p->lda;
    key.ldb = p->ldb;
    key.ldc = p->ldc;
    key.ab_dtype = (int32_t)p->ab_dtype;
    key.c_dtype = (int32_t)p->c_dtype;
    key.flags = (p->a_transposed ? A_TRANSPOSED : 0) | (p->b_transposed ? B_TRANSPOSED : 0) |
                (p->accumulate ? ACCUMULATE : 0) | (p->bias ? BIAS : 0);
    return key;
}

static dnnl_primitive_t make(dnnl_engine_t engine, const struct tri_matmul *p)
{
    const int64_t any = DNNL_RUNTIME_DIM_VAL;
    struct descriptors d = p->a_transposed ? describe_product(p, p->m, p->n, any)
                                           : describe_product(p, any, p->n, p->k);
    dnnl_primitive_attr_t attributes;
    CHECK(dnnl_primitive_attr_create(&attributes));
    CHECK(dnnl_primitive_attr_set_scratchpad_mode(attributes, dnnl_scratchpad_mode_user));
    dnnl_post_ops_t after;
    CHECK(dnnl_post_ops_create(&after));
    if (p->accumulate) {
        CHECK(dnnl_post_ops_append_sum(after, 1.0F));
        CHECK(dnnl_primitive_attr_set_post_ops(attributes, after));
    }
    dnnl_matmul_desc_t matmul;
    dnnl_primitive_desc_t desc;
    dnnl_primitive_t primitive;
    CHECK(dnnl_matmul_desc_init(&matmul, &d.a, &d.b, p->bias ? &d.bias : NULL, &d.c));
    CHECK(dnnl_primitive_desc_create(&desc, &matmul, attributes, engine, NULL));
    CHECK(dnnl_primitive_create(&primitive, desc));
    CHECK(dnnl_primitive_desc_destroy(desc));
    CHECK(dnnl_post_ops_destroy(after));
    CHECK(dnnl_primitive_attr_destroy(attributes));
    return primitive;
}

static uint64_t hash_of(const struct key *key)
{
    uint64_t words[sizeof(*key) / 8];
    uint64_t hash = 0x9E3779B97F4A7C15U;
    memcpy(words, key, sizeof(words));
    for (size_t i = 0; i < sizeof(words) / sizeof(*words); i++) {
        hash = (hash ^ words[i]) * 0xBF58476D1CE4E5B9U;
        hash ^= hash >> 29;
    }
    return hash;
}

static dnnl_primitive_t find(struct tri_onednn *onednn, const struct tri_matmul *p)
{
    struct key key = key_of(p);
    uint64_t at = hash_of(&key);
    for (int probe = 0; probe < SLOTS; probe++, at++) {
        struct entry **slot = &onednn->cache[at % SLOTS];
        struct entry *entry = __atomic_load_n(slot, __ATOMIC_ACQUIRE);
        if (!entry) {
            (void)pthread_mutex_lock(&onednn->lock);
            entry = *slot;
            if (!entry) {
                entry = tri_alloc(TRI_MEMORY_KERNELS, sizeof(*entry));
                entry->key = key;
                entry->primitive = make(onednn->engine, p);
                __atomic_store_n(slot, entry, __ATOMIC_RELEASE);
            }
            (void)pthread_mutex_unlock(&onednn->lock);
        }
        if (memcmp(&entry->key, &key, sizeof(key)) == 0) {
            return entry->primitive;
        }
    }
    tri_panic(TRI_FAILED, "more than %d kinds of matrix products", SLOTS);
}

/* Rows row to row + rows. */
static struct tri_matmul rows_of(const struct tri_matmul *p, int64_t row, int64_t rows)
{
    struct tri_matmul part = *p;
    part.m = rows;
    part.a = (const char *)p->a +
             (size_t)(p->a_transposed ? row : row * p->lda) * tri_dtype_size(p->ab_dtype);
    part.c = (char *)p->c + (size_t)(row * p->ldc) * tri_dtype_size(p->c_dtype);
    return part;
}

/* ---- execution ------------------------------------------------------------------------------- */

static dnnl_memory_t memory_of(dnnl_engine_t engine, const dnnl_memory_desc_t *desc,
                               const void *data)
{
    dnnl_memory_t memory;
    CHECK(dnnl_memory_create(&memory, desc, engine, (void *)(uintptr_t)data));
    return memory;
}

static void clear(const struct tri_matmul *p)
{
    size_t width = tri_dtype_size(p->c_dtype);
    for (int64_t i = 0; i < p->m && !p->accumulate; i++) {
        char *row = (char *)p->c + (size_t)(i * p->ldc) * width;
        memset(row, 0, (size_t)p->n * width);
        for (int64_t j = 0; j < p->n && p->bias; j++) {
            float value = ((const float *)p->bias)[j];
            if (p->c_dtype == TRI_F32) {
                ((float *)(void *)row)[j] = value;
            } else {
                ((uint16_t *)(void *)row)[j] = tri_f32_to_bf16(value);
            }
        }
    }
}

static const dnnl_memory_desc_t *scratchpad_of(dnnl_primitive_t primitive)
{
    const_dnnl_primitive_desc_t desc;
    CHECK(dnnl_primitive_get_primitive_desc(primitive, &desc));
    return dnnl_primitive_desc_query_md(desc, dnnl_query_scratchpad_md, 0);
}

static void execute_primitive(const struct tri_onednn *onednn, dnnl_primitive_t primitive,
                              const struct tri_matmul *p, void *scratchpad)
{
    dnnl_engine_t engine = onednn->engine;
    struct descriptors d = describe_product(p, p->m, p->n, p->k);
    const dnnl_memory_desc_t *needs = scratchpad_of(primitive);
    dnnl_exec_arg_t args[5] = {{DNNL_ARG_SRC, memory_of(engine, &d.a, p->a)},
                               {DNNL_ARG_WEIGHTS, memory_of(engine, &d.b, p->b)},
                               {DNNL_ARG_DST, memory_of(engine, &d.c, p->c)}};
    int count = 3;
    if (p->bias) {
        args[count++] = (dnnl_exec_arg_t){DNNL_ARG_BIAS, memory_of(engine, &d.bias, p->bias)};
    }
    if (needs) {
        args[count++] =
            (dnnl_exec_arg_t){DNNL_ARG_SCRATCHPAD, memory_of(engine, needs, scratchpad)};
    }
    CHECK(dnnl_primitive_execute(primitive, onednn->stream, count, args));
    for (int i = 0; i < count; i++) {
        CHECK(dnnl_memory_destroy(args[i].memory));
    }
}

static void cast_rows(const struct tri_kernels *self, const void *src, int64_t ld_src,
                      enum tri_dtype from, void *dst, int64_t ld_dst, enum tri_dtype to,
                      int64_t rows, int64_t cols)
{
    if (ld_src == cols && ld_dst == cols) {
        cols *= rows;
        rows = 1;
    }
    for (int64_t i = 0; i < rows; i++) {
        const struct tri_cast_args args = {
            .src = (const char *)src + (size_t)(i * ld_src) * tri_dtype_size(from),
            .from = from,
            .dst = (char *)dst + (size_t)(i * ld_dst) * tri_dtype_size(to),
            .to = to,
            .n = cols,
        };
        self->cast(self, &args);
    }
}

/* C is computed wide and rounded once. oneDNN does the same, but in memory that it takes for all of
 * C by itself: it knows no size before it runs, so asks for no scratchpad. */
static void execute_bf16(const struct tri_kernels *self, const struct tri_matmul *p)
{
    struct tri_matmul wide = *p;
    wide.c_dtype = TRI_F32;
    wide.ldc = p->n;
    dnnl_primitive_t primitive = find(self->own->onednn, &wide);
    const dnnl_memory_desc_t *needs = scratchpad_of(primitive);
    size_t bytes = ((size_t)(p->m * p->n) * sizeof(float) + 63) / 64 * 64;
    char *scratch = tri_scratch_get(self, bytes + (needs ? dnnl_memory_desc_get_size(needs) : 0));
    wide.c = scratch;
    if (p->accumulate) {
        cast_rows(self, p->c, p->ldc, TRI_BF16, wide.c, p->n, TRI_F32, p->m, p->n);
    }
    execute_primitive(self->own->onednn, primitive, &wide, scratch + bytes);
    cast_rows(self, wide.c, p->n, TRI_F32, p->c, p->ldc, TRI_BF16, p->m, p->n);
}

static void execute(const struct tri_kernels *self, const struct tri_matmul *p)
{
    if (p->m == 0 || p->n == 0) {
        return;
    }
    if (p->k == 0) {
        clear(p);
        return;
    }
    if (p->c_dtype != TRI_BF16) {
        dnnl_primitive_t primitive = find(self->own->onednn, p);
        const dnnl_memory_desc_t *needs = scratchpad_of(primitive);
        execute_primitive(self->own->onednn, primitive, p,
                          needs ? tri_scratch_get(self, dnnl_memory_desc_get_size(needs)) : NULL);
        return;
    }
    /* A cut by rows that knows nothing of m: the rows of a weight gradient are part of its
     * primitive. */
    int64_t threads = omp_in_parallel() ? 1 : self->threads;
    int64_t rows = threads * WIDE_BYTES / (p->n * (int64_t)sizeof(float)) / 16 * 16;
    rows = rows > LEAST_ROWS ? rows : LEAST_ROWS;
    for (int64_t row = 0; row < p->m; row += rows) {
        struct tri_matmul part = rows_of(p, row, p->m - row < rows ? p->m - row : rows);
        execute_bf16(self, &part);
    }
}

/* ---- groups ---------------------------------------------------------------------------------- */

enum { FEW = 64 };

static double work_of(const struct tri_matmul *p)
{
    return (double)p->m * (double)p->n * (double)p->k;
}

/* A few products of unequal size, dealt out in pieces: the largest products first, cut by rows
 * (which changes no bit of a row). */
struct deal {
    const struct tri_matmul *products;
    int64_t count, threads;
    double piece; /* multiplications of a piece, about */
    int32_t order[FEW];
    int64_t next; /* the first piece that nobody has taken */
};

static int64_t pieces_of(const struct deal *deal, const struct tri_matmul *p)
{
    /* A weight gradient's rows are part of its primitive: the cut must not follow the routing, or
     * there would be no end of primitives. */
    int64_t pieces = p->a_transposed ? deal->threads : 1 + (int64_t)(work_of(p) / deal->piece);
    int64_t most = p->m / LEAST_ROWS;
    return pieces < most ? pieces : most > 1 ? most : 1;
}

static struct tri_matmul piece_at(const struct tri_matmul *p, int64_t index, int64_t pieces)
{
    int64_t rows = ((p->m + pieces - 1) / pieces + 15) / 16 * 16;
    int64_t row = index * rows < p->m ? index * rows : p->m;
    return rows_of(p, row, p->m - row < rows ? p->m - row : rows);
}

static void deal_sort(struct deal *deal)
{
    double total = 0.0;
    for (int64_t i = 0; i < deal->count; i++) {
        double work = work_of(&deal->products[i]);
        int64_t at = i;
        while (at > 0 && work_of(&deal->products[deal->order[at - 1]]) < work) {
            deal->order[at] = deal->order[at - 1];
            at--;
        }
        deal->order[at] = (int32_t)i;
        total += work;
    }
    total = deal->products->group > 0 ? deal->products->group_work : total;
    deal->piece = 1.0 + total / (4.0 * (double)deal->threads);
}

static void deal_work(const struct tri_kernels *self, struct deal *deal)
{
    int64_t product = 0, before = 0;
    for (;;) {
        int64_t piece;
#pragma omp atomic capture
        piece = deal->next++;
        int64_t pieces = 0;
        while (product < deal->count) {
            pieces = pieces_of(deal, &deal->products[deal->order[product]]);
            if (piece - before < pieces) {
                break;
            }
            before += pieces;
            product++;
        }
        if (product == deal->count) {
            return;
        }
        const struct tri_matmul *p = &deal->products[deal->order[product]];
        struct tri_matmul part = piece_at(p, piece - before, pieces);
        execute(self, &part);
    }
}

/* group: products of all calls. */
static void run_group(const struct tri_kernels *self, const struct tri_matmul *products,
                      int64_t count, int64_t group)
{
    /* Inside a parallel region oneDNN works on one thread. */
    if (group <= FEW && group < 8 * self->threads) {
        struct deal deal = {.products = products, .count = count, .threads = self->threads};
        deal_sort(&deal);
#pragma omp parallel num_threads(self->threads)
        {
            (void)tri_kernels_join(self);
            double began = tri_kernels_enter();
            deal_work(self, &deal);
            tri_kernels_leave(began, "products");
        }
        return;
    }
#pragma omp parallel num_threads(self->threads)
    {
        (void)tri_kernels_join(self);
        double began = tri_kernels_enter();
#pragma omp for schedule(dynamic, 1) nowait
        for (int64_t i = 0; i < count; i++) {
            execute(self, &products[i]);
        }
        tri_kernels_leave(began, "products");
    }
}

void tri_onednn_run(const struct tri_kernels *self, const struct tri_matmul *products,
                    int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        const struct tri_matmul *p = &products[i];
        TRI_REQUIRE(p->ab_dtype == TRI_F32 || p->ab_dtype == TRI_BF16);
        TRI_REQUIRE(p->c_dtype == TRI_F32 || p->c_dtype == p->ab_dtype);
        TRI_REQUIRE(!(p->bias && p->accumulate) && !p->cuts);
        TRI_REQUIRE(p->group == 0 || p->group >= count);
    }
    /* oneDNN's regions ask the calling thread how many threads they have. */
    int before = omp_get_max_threads();
    omp_set_num_threads(self->threads);
    int64_t group = count > 0 && products->group > 0 ? products->group : count;
    if (self->threads > 1 && !omp_in_parallel() && group > 1) {
        run_group(self, products, count, group);
    } else {
        for (int64_t i = 0; i < count; i++) {
            execute(self, &products[i]);
        }
    }
    omp_set_num_threads(before);
}
