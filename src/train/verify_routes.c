/* Which experts both sides choose. They must choose alike, except where the reference itself is
 * undecided; then the reference's choice is imposed on the layout. */
#include "train/verify_internal.h"

#include "base/memory.h"
#include "shard/rows.h"

#include <string.h>

static const double tie_gap = 1e-6;

static int64_t tap_size(const struct verify *v)
{
    return tri_model_moe_layers(&v->config) * v->tap.tokens * v->tap.k;
}

static int64_t logits_size(const struct verify *v)
{
    return tri_model_moe_layers(&v->config) * v->tap.tokens * v->config.moe.num_experts;
}

void tri_verify_make_taps(struct verify *v)
{
    struct tri_route_tap *taps[2] = {&v->tap, &v->reference_tap};
    int64_t layers = tri_model_moe_layers(&v->config);
    for (int i = 0; i < 2; i++) {
        taps[i]->tokens = v->source.rows * v->source.seq;
        taps[i]->k = layers > 0 ? tri_config_choices(&v->config.moe) : 0;
        taps[i]->chosen = tri_alloc(TRI_MEMORY_OTHER, (size_t)tap_size(v) * sizeof(int32_t));
        taps[i]->expert = tri_alloc(TRI_MEMORY_OTHER, (size_t)tap_size(v) * sizeof(int32_t));
        taps[i]->gap =
            tri_alloc(TRI_MEMORY_OTHER, (size_t)(layers * taps[i]->tokens) * sizeof(float));
        if (v->config.moe.router->imposed & TRI_IMPOSE_LOGITS) {
            taps[i]->logits = tri_alloc(TRI_MEMORY_OTHER, (size_t)logits_size(v) * sizeof(float));
        }
    }
}

/* Copies what the reference has of each token, `width` of 4 bytes, from its order of rows to the
 * global batch's. */
static void reorder(const struct verify *v, void *global, const void *reference, int64_t width)
{
    enum { BYTES = 4 };
    int64_t row = v->source.seq * width * BYTES;
    int64_t layers = tri_model_moe_layers(&v->config);
    for (int64_t layer = 0; layer < layers; layer++) {
        for (int64_t j = 0; j < v->source.rows; j++) {
            const char *r = (const char *)reference + (layer * v->source.rows + j) * row;
            char *g = (char *)global + (layer * v->source.rows + v->row_of[j]) * row;
            memcpy(g, r, (size_t)row);
        }
    }
}

/* The layout's recorded routes, whole on rank 0: replicas fill disjoint rows of zeroed arrays. */
static void collect_routes(struct verify *v, int64_t *routes)
{
    int64_t n = tap_size(v);
    struct tri_group *replicas = tri_mesh_group(v->session->mesh, TRI_ON_EXPERT | TRI_ON_DATA);
    struct tri_range share =
        tri_rows_share(v->source.rows, tri_group_size(replicas), tri_group_rank(replicas));
    int64_t row = v->source.seq * v->tap.k;
    for (int64_t i = 0; i < n; i++) {
        int64_t r = i / row % v->source.rows;
        routes[i] = r >= share.begin && r < share.end ? v->tap.chosen[i] : 0;
    }
    tri_all_reduce_sum(replicas, tri_verify_where, routes, n, TRI_I64);
}

static bool same_set(const int64_t *a, const int32_t *b, int64_t k)
{
    for (int64_t i = 0; i < k; i++) {
        bool found = false;
        bool known = false;
        for (int64_t j = 0; j < k; j++) {
            found = found || a[i] == b[j];
            known = known || a[j] == b[i];
        }
        if (!found || !known) {
            return false;
        }
    }
    return true;
}

bool tri_verify_compare_routes(struct verify *v)
{
    int64_t n = tap_size(v);
    int64_t k = v->tap.k;
    int64_t counts[2] = {0, 0}; /* near ties, wrong */
    if (n == 0) {
        return false;
    }
    int64_t *routes = tri_alloc(TRI_MEMORY_OTHER, (size_t)n * sizeof(*routes));
    collect_routes(v, routes);
    if (verify_is_root(v)) {
        int32_t *expected = tri_alloc(TRI_MEMORY_OTHER, (size_t)n * sizeof(*expected));
        reorder(v, expected, v->reference_tap.chosen, k);
        for (int64_t layer = 0; layer < n / (v->tap.tokens * k); layer++) {
            for (int64_t j = 0; j < v->tap.tokens; j++) {
                int64_t t = layer * v->tap.tokens + v->row_of[j / v->source.seq] * v->source.seq +
                            j % v->source.seq;
                if (!same_set(routes + t * k, expected + t * k, k)) {
                    double gap = (double)v->reference_tap.gap[layer * v->tap.tokens + j];
                    counts[gap < tie_gap ? 0 : 1]++;
                }
            }
        }
        tri_free(expected);
    }
    tri_free(routes);
    tri_broadcast(tri_mesh_group(v->session->mesh, TRI_ON_ALL), tri_verify_where, counts, 2,
                  TRI_I64, 0);
    v->result->near_ties += counts[0];
    v->result->wrong_routes += counts[1];
    return counts[0] + counts[1] > 0;
}

void tri_verify_share_routes(struct verify *v)
{
    int64_t n = tap_size(v);
    if (verify_is_root(v) && n > 0) {
        reorder(v, v->tap.chosen, v->reference_tap.chosen, v->tap.k);
        reorder(v, v->tap.expert, v->reference_tap.expert, v->tap.k);
    }
    tri_broadcast(tri_mesh_group(v->session->mesh, TRI_ON_ALL), tri_verify_where, v->tap.chosen, n,
                  TRI_I32, 0);
    tri_broadcast(tri_mesh_group(v->session->mesh, TRI_ON_ALL), tri_verify_where, v->tap.expert, n,
                  TRI_I32, 0);
    if (v->tap.logits) {
        if (verify_is_root(v)) {
            reorder(v, v->tap.logits, v->reference_tap.logits, v->config.moe.num_experts);
        }
        tri_broadcast(tri_mesh_group(v->session->mesh, TRI_ON_ALL), tri_verify_where, v->tap.logits,
                      logits_size(v), TRI_F32, 0);
    }
}
