/* Weights that depth shares, opened in passes that go as the last one did, or otherwise: what is
 * opened is what is gathered outside of passes; a pass that is known sends what its openings send,
 * one that surprises a gather more for each surprise; and what was begun is ended. */
#include "support/small.h"

#include "base/memory.h"

#include <string.h>

enum { SPANS = 4 };

struct subject {
    struct tri_params *params;
    struct tri_span span[SPANS];
    char *expected[SPANS]; /* what each opens as */
};

static size_t bytes_of(struct tri_span span)
{
    return (size_t)tri_span_opened(span) * tri_dtype_size(span.row->dtype);
}

static int64_t gathers(void)
{
    return tri_ledger_sum(job_ledger(), TRI_OP_ALL_GATHER, tri_group_id(TRI_ON_DEPTH), -1,
                          TRI_KIND_WEIGHTS)
        .calls;
}

static void open_one(const struct subject *s, int i)
{
    const void *weights = tri_weights_open(s->params, s->span[i], TRI_USE_FORWARD);
    CHECK(memcmp(weights, s->expected[i], bytes_of(s->span[i])) == 0);
    tri_weights_close(s->params, s->span[i], weights);
}

/* Opens spans in this order; returns the calls beyond those of the openings. */
static int64_t pass(const struct subject *s, bool backward, const char *order)
{
    int64_t before = gathers();
    tri_params_begin_pass(s->params, backward);
    for (; *order; order++) {
        open_one(s, *order - '0');
        before += s->span[*order - '0'].rows;
    }
    tri_params_end_pass(s->params);
    return gathers() - before;
}

static void check(const char *words, bool overlaps)
{
    struct tri_config config;
    struct subject s;
    small_config(SMALL_LLAMA, words, &config);
    small_config_lay_out(&config, (struct small_layout){2, 1, 2, 2, 1});
    struct tri_mesh *mesh = small_mesh(&config);
    struct tri_engine *engine = tri_engine_create(&config, mesh, small_kernels(&config), true);
    s.params = engine->params;
    for (int i = 0; i < SPANS; i++) {
        enum tri_role role = i < 2 ? TRI_ROLE_Q : TRI_ROLE_O;
        const struct tri_param *row = tri_params_find(s.params, role, TRI_PLACE_DENSE, i % 2, -1);
        s.span[i] = tri_span_make(s.params, row, i < 2 ? 3 : 1);
        s.expected[i] = tri_alloc(TRI_MEMORY_OTHER, bytes_of(s.span[i]));
        const void *weights = tri_weights_open(s.params, s.span[i], TRI_USE_FORWARD);
        memcpy(s.expected[i], weights, bytes_of(s.span[i]));
        tri_weights_close(s.params, s.span[i], weights);
    }
    CHECK(pass(&s, true, "0123012") == 0);
    CHECK(pass(&s, true, "0123012") == 0);
    CHECK(pass(&s, false, "0123") == 0); /* another kind */
    CHECK(pass(&s, true, "0123012") == 0);
    /* 1 of three rows was expected instead of 2, then nothing is known any more. */
    CHECK(pass(&s, true, "0231") == (overlaps ? 3 : 0));
    CHECK(pass(&s, true, "0231") == 0);
    /* A pass that ends too soon has begun 3. */
    CHECK(pass(&s, true, "02") == (overlaps ? 1 : 0));
    CHECK(pass(&s, true, "0231") == 0);
    open_one(&s, 1);
    for (int i = 0; i < SPANS; i++) {
        tri_free(s.expected[i]);
    }
    tri_engine_destroy(engine);
    tri_mesh_destroy(mesh);
}

static int run_job(int argc, char **argv)
{
    (void)argc;
    (void)argv;
    check("", true);
    check("precision=bf16", true);
    check("comm.overlap=false", false);
    return 0;
}

int main(int argc, char **argv)
{
    return job_run(argc, argv, run_job);
}
