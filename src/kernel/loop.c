/* Loops over what is no tensor's operand: whoever has one hands it to the kernels, which know with
 * how many threads it runs, and whether there is memory to run it on. */
#include "kernel/loop.h"

#include "kernel/own.h"

void tri_loop_threads(const struct tri_kernels *self, const struct tri_loop_args *args)
{
#pragma omp parallel num_threads(self->threads) if (args->n > args->piece)
    {
        (void)tri_kernels_join(self);
        double began = tri_kernels_enter();
#pragma omp for schedule(static) nowait
        for (int64_t begin = 0; begin < args->n; begin += args->piece) {
            int64_t end = begin + args->piece < args->n ? begin + args->piece : args->n;
            args->run(args->state, begin, end);
        }
        tri_kernels_leave(began, "loop");
    }
}

void tri_loop_plain(const struct tri_kernels *self, const struct tri_loop_args *args)
{
    (void)self;
    for (int64_t begin = 0; begin < args->n; begin += args->piece) {
        int64_t end = begin + args->piece < args->n ? begin + args->piece : args->n;
        args->run(args->state, begin, end);
    }
}
