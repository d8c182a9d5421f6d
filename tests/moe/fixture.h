/* A router with its config, a call and its routes, for tests of one rank. */
#ifndef TRIDENT_TESTS_MOE_FIXTURE_H
#define TRIDENT_TESTS_MOE_FIXTURE_H

#include "moe/router.h"

#include <math.h>

/* A NaN is close to nothing. */
#define assert_close(found, expected, tolerance)                                                   \
    assert_true(fabs((double)(found) - (double)(expected)) <= (tolerance))

struct fixture {
    struct tri_config config;
    struct tri_mesh *mesh;
    struct tri_router *router;
    struct tri_router_call call;
    struct tri_routes routes;
    struct tri_aux_model model; /* used when config says scope model */
    float *logits;
    void *routes_block, *model_block;
};

/* A config of 8 experts, top 2, dropless, all losses off, one MoE layer. */
void fixture_config(struct tri_config *config);

/* A router for config on mesh (NULL: a serial one) and rows of seq tokens from first_row on. The
 * logits of a row are normal with deviation 1.5, the same whatever call the row is part of. */
void fixture_begin(struct fixture *f, const struct tri_config *config, struct tri_mesh *mesh,
                   int64_t first_row, int64_t rows, int64_t seq);
void fixture_end(struct fixture *f);

/* Forward, from clean sums; returns the layer's unscaled balance loss, whatever its scope. */
double fixture_forward(struct fixture *f);

#endif
