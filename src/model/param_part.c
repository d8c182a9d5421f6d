#include "model/param_part.h"

#include <string.h>

struct tri_range tri_kv_heads_counted(const struct tri_config_model *model,
                                      const struct tri_mesh *mesh)
{
    int ranks = mesh->size[TRI_AXIS_TENSOR];
    int rank = mesh->coord[TRI_AXIS_TENSOR];
    int64_t group = model->num_heads / model->num_kv_heads;
    struct tri_range heads =
        tri_range_kv_heads(tri_range_part(model->num_heads, ranks, rank), group);
    if (rank > 0) {
        struct tri_range below =
            tri_range_kv_heads(tri_range_part(model->num_heads, ranks, rank - 1), group);
        heads.begin = below.end > heads.begin ? below.end : heads.begin;
    }
    heads.begin = heads.begin < heads.end ? heads.begin : heads.end;
    return heads;
}

/* The matrices of the embeddings, the head, attention and MLPs. */
static bool is_parted(const struct tri_param *row)
{
    return row->dims == 2 && row->role != TRI_ROLE_ROUTER && row->role != TRI_ROLE_SHARED_GATE &&
           !tri_role_is_low(row->role);
}

/* The dimension of a matrix that is the hidden size of a product; -1: it has none, or is read with
 * whole tokens. */
static int crossed(const struct tri_param *row)
{
    if (!is_parted(row) || row->role == TRI_ROLE_POSITION) {
        return -1;
    }
    return row->role == TRI_ROLE_O || row->role == TRI_ROLE_DOWN ? 0 : 1;
}

static void cross_row(const struct tri_mesh *mesh, struct tri_param *row)
{
    int ranks = mesh->size[TRI_AXIS_CROSS];
    int rank = mesh->coord[TRI_AXIS_CROSS];
    int hidden = crossed(row);
    if (hidden >= 0) {
        row->local[hidden] = tri_range_part(row->shape[hidden], ranks, rank);
    }
    if (hidden == 0) {
        row->counted = row->local[0];
    } else if (hidden < 0 && rank > 0) {
        row->counted = (struct tri_range){0, 0};
    }
}

static void part_row(const struct tri_mesh *mesh, struct tri_param *row)
{
    int ranks = mesh->size[TRI_AXIS_DEPTH];
    int rank = mesh->coord[TRI_AXIS_DEPTH];
    row->parted = is_parted(row);
    if (row->parted) {
        struct tri_range part = tri_range_part(tri_range_size(row->opened[0]), ranks, rank);
        row->local[0] =
            (struct tri_range){row->opened[0].begin + part.begin, row->opened[0].begin + part.end};
        row->counted = tri_range_intersect(row->counted, row->local[0]);
        return;
    }
    if (rank > 0) {
        row->counted = (struct tri_range){0, 0};
    }
    row->sum_axes |= TRI_ON_DEPTH;
}

void tri_param_part(const struct tri_mesh *mesh, struct tri_param *row)
{
    bool expert = row->place == TRI_PLACE_EXPERT;
    if (mesh->size[TRI_AXIS_CROSS] > 1 && !expert) {
        cross_row(mesh, row);
    }
    memcpy(row->opened, row->local, sizeof(row->opened));
    if (mesh->size[TRI_AXIS_DEPTH] > 1 && !expert) {
        part_row(mesh, row);
    }
    int axes = row->sum_axes;
    for (int axis = TRI_AXIS_TENSOR; axis <= TRI_AXIS_DEPTH && axes != TRI_ON_GRID; axis++) {
        axes &= mesh->size[axis] > 1 ? TRI_ON_ALL : ~(1 << axis);
    }
    row->sum_axes = tri_mesh_grid(mesh) > 1 ? axes : 0;
    if (row->sum_axes && row->sync == TRI_SYNC_NONE) {
        row->sync = TRI_SYNC_SUM;
    }
}
