/* Deals attention's tasks out to threads; which thread computes a task changes no bit of it. */
#include "kernel/x86/attention.h"

#include "base/status.h"
#include "kernel/own.h"
#include "kernel/x86/scratch.h"

#include <omp.h>

/* Queries of one task. Keys are packed anew for each range of queries, so ranges are long, and
 * there are several only when sequences and heads alone do not occupy the threads. */
static int64_t range_of(const struct tri_attention_isa *isa, const struct tri_attention *args,
                        int threads)
{
    enum { LEAST = 8, EACH = 4 };
    int64_t tasks = args->batch * args->kv_heads, wanted = EACH * (int64_t)threads;
    int64_t ranges = tasks < wanted && threads > 1 ? (wanted + tasks - 1) / tasks : 1;
    int64_t range = (args->q_len + ranges - 1) / ranges, least = LEAST * isa->rows;
    range = (range + isa->rows - 1) / isa->rows * isa->rows;
    return range < least ? least : range;
}

int64_t tri_attention_scratch(const struct tri_attention_isa *isa, const struct tri_attention *args,
                              bool backward, int threads)
{
    int64_t heads = args->batch * args->kv_heads;
    if (heads == 0 || args->q_len == 0) {
        return 0;
    }
    int64_t range = backward ? args->q_len : range_of(isa, args, threads);
    int64_t tasks = heads * ((args->q_len + range - 1) / range);
    size_t bytes = backward ? isa->backward_scratch(args) : isa->forward_scratch(args);
    return (int64_t)bytes * (tasks < threads ? tasks : threads);
}

void tri_attention_run(const struct tri_kernels *self, const struct tri_attention_isa *isa,
                       const struct tri_attention *args, bool backward)
{
    enum { FORK = 1 << 14 }; /* pairs of query and key that are worth starting threads for */
    TRI_REQUIRE(args->dt == TRI_F32 || args->dt == TRI_BF16);
    TRI_REQUIRE(args->dim > 0 && args->group > 0);
    int64_t heads = args->batch * args->kv_heads;
    if (heads == 0 || (args->q_len == 0 && !backward)) {
        return;
    }
    int64_t range = backward ? args->q_len : range_of(isa, args, self->threads);
    int64_t ranges = range > 0 ? (args->q_len + range - 1) / range : 1;
    size_t bytes = backward ? isa->backward_scratch(args) : isa->forward_scratch(args);
    bool fork = heads * ranges > 1 && !omp_in_parallel() &&
                args->batch * args->heads * args->q_len * args->k_len > FORK;
#pragma omp parallel num_threads(self->threads) if (fork)
    {
        void *scratch = tri_scratch_get(self, bytes);
        double began = tri_kernels_enter();
#pragma omp for schedule(dynamic) nowait
        for (int64_t i = 0; i < heads * ranges; i++) {
            /* Later queries see more keys: the long tasks first. */
            int64_t part = ranges - 1 - i / heads, head = i % heads;
            struct tri_attention_task task = {
                .sequence = head / args->kv_heads,
                .kv = head % args->kv_heads,
                .begin = part * range,
                .end = (part + 1) * range < args->q_len ? (part + 1) * range : args->q_len,
            };
            if (backward) {
                isa->backward(args, task, scratch);
            } else {
                isa->forward(args, task, scratch);
            }
        }
        tri_kernels_leave(began, backward ? "attention backward" : "attention");
    }
}
