#include "comm/axes.h"

#include "base/status.h"

const struct tri_group_row tri_groups[TRI_GROUP_COUNT] = {
    {TRI_ON_TENSOR, "tensor"}, /* what cuts products and heads */
    {TRI_ON_CROSS, "cross"},   /* what cuts the hidden size of products, and tokens between them */
    {TRI_ON_DEPTH, "depth"},   /* parts of a weight and of the rows */
    {TRI_ON_GRID, "grid"},     /* what shares an expert's parts */
    {TRI_ON_EXPERT, "expert"},
    {TRI_ON_GRID | TRI_ON_EXPERT, "tensor_expert"}, /* experts that tensor does not cut */
    {TRI_ON_DATA, "data"},                          /* replicas of an expert's part */
    {TRI_ON_EXPERT | TRI_ON_DATA, "expert_data"},   /* replicas of all other weights */
    {TRI_ON_ALL, "world"},
};

int tri_group_id(int axes)
{
    for (int id = 0; id < TRI_GROUP_COUNT; id++) {
        if (tri_groups[id].axes == axes) {
            return id;
        }
    }
    tri_panic(TRI_FAILED, "no group over the set of axes %d", axes);
}
