/* A transport that src/ does not know, around the one that the job has: it lets every message wait
 * a little and counts them, and has no collectives of its own. A training over it leaves the bits
 * of one that goes straight. */
#include "support/small.h"

#include "base/memory.h"
#include "comm/transport.h"

#include <sched.h>
#include <string.h>

enum { STEPS = 2, LOOKS = 3 };

struct slow {
    struct tri_transport base;
    struct tri_transport *inner;
    int64_t sent;
};

struct endpoint {
    struct tri_endpoint base;
    struct tri_endpoint *inner;
    struct slow *slow;
};

static struct tri_endpoint *open_end(struct tri_transport *self, int size, int rank, int first,
                                     const char *name)
{
    struct slow *slow = (struct slow *)(void *)self;
    struct endpoint *end = tri_alloc(TRI_MEMORY_OTHER, sizeof(*end));
    end->base = (struct tri_endpoint){size, rank};
    end->inner = slow->inner->ops->open(slow->inner, size, rank, first, name);
    end->slow = slow;
    return &end->base;
}

static void close_end(struct tri_transport *self, struct tri_endpoint *base)
{
    struct slow *slow = (struct slow *)(void *)self;
    slow->inner->ops->close(slow->inner, ((struct endpoint *)base)->inner);
    tri_free(base);
}

static void receive(struct tri_endpoint *base, enum tri_lane lane, int from, void *data, int64_t n,
                    enum tri_dtype dtype, union tri_message *message)
{
    const struct endpoint *end = (const struct endpoint *)base;
    end->slow->inner->ops->receive(end->inner, lane, from, data, n, dtype, message);
}

static void send(struct tri_endpoint *base, enum tri_lane lane, int to, const void *data, int64_t n,
                 enum tri_dtype dtype, union tri_message *message)
{
    const struct endpoint *end = (const struct endpoint *)base;
    end->slow->sent++;
    end->slow->inner->ops->send(end->inner, lane, to, data, n, dtype, message);
}

static bool test(struct tri_endpoint *base, union tri_message *message)
{
    const struct endpoint *end = (const struct endpoint *)base;
    return end->slow->inner->ops->test(end->inner, message);
}

static void wait_for(struct tri_endpoint *base, union tri_message *messages, int count)
{
    const struct endpoint *end = (const struct endpoint *)base;
    for (int i = 0; i < LOOKS; i++) {
        (void)sched_yield();
    }
    end->slow->inner->ops->wait(end->inner, messages, count);
}

static const struct tri_transport_ops slow_ops = {
    .open = open_end,
    .close = close_end,
    .receive = receive,
    .send = send,
    .test = test,
    .wait = wait_for,
};

/* The whole model's weights after some steps; freed by the caller. */
static float *train(struct tri_config *config, int64_t *count)
{
    struct tri_rows_source source = small_source(config);
    struct tri_mesh *mesh = small_mesh(config);
    struct tri_engine *engine = tri_engine_create(config, mesh, small_kernels(config), true);
    for (int64_t i = 0; i < STEPS; i++) {
        struct tri_step_report report = small_gradients(engine, &source, i, NULL);
        tri_engine_update(engine, i + 1, 1e-3, &report);
    }
    struct tri_params *params = engine->params;
    float *whole = tri_alloc(TRI_MEMORY_OTHER, (size_t)params->total * sizeof(*whole));
    float *at = whole;
    for (int p = 0; p < params->count; p++) {
        const struct tri_param *param = &params->param[p];
        tri_param_gather(params, param, TRI_FIELD_WEIGHT, at);
        at += param->shape[0] * param->shape[1];
    }
    *count = params->total;
    tri_engine_destroy(engine);
    tri_mesh_destroy(mesh);
    return whole;
}

static int run_job(int argc, char **argv)
{
    (void)argc;
    (void)argv;
    struct small_layout layouts[SMALL_LAYOUTS];
    int count = small_layouts(job_size(), 8, layouts);
    struct tri_transport *usual = tri_comm_transport(job());
    for (int i = 0; i < count; i++) {
        struct tri_config config;
        int64_t n = 0;
        struct slow slow = {{&slow_ops, true}, usual, 0};
        small_config(SMALL_LLAMA, "", &config);
        small_config_lay_out(&config, layouts[i]);
        float *straight = train(&config, &n);
        tri_comm_set_transport(job(), &slow.base);
        float *around = train(&config, &n);
        tri_comm_set_transport(job(), usual);
        CHECK(memcmp(straight, around, (size_t)n * sizeof(*around)) == 0);
        CHECK(slow.sent > 0 || job_size() == 1);
        tri_free(around);
        tri_free(straight);
    }
    return 0;
}

int main(int argc, char **argv)
{
    return job_run(argc, argv, run_job);
}
