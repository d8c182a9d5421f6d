/* The mesh: ranks as a grid over the axes of axes.h, and its groups.
 *
 * A group is the set of ranks that differ only on its axes; a member's place counts those axes in
 * the mesh's order. TED's topology follows: ranks = T x E x D, where D are the replicas of an
 * expert shard and E x D those of a non-expert shard. */
#include "comm/internal.h"

#include "base/memory.h"

#include <string.h>

enum { MAX_MESSAGE = 1 << 30 }; /* elements */

/* The mesh and what it lends, in one block. */
struct block {
    struct tri_mesh mesh;
    struct tri_group group[TRI_GROUP_COUNT];
    struct tri_pool pool;
    struct tri_transport *transport; /* of its ends; borrowed */
    struct tri_transport nowhere;    /* of a planned mesh */
    int channel;                     /* of the first group; -1: no communication */
};

static void coords_of(const int size[TRI_AXIS_COUNT], int rank, int coord[TRI_AXIS_COUNT])
{
    for (int axis = 0; axis < TRI_AXIS_COUNT; axis++) {
        coord[axis] = rank % size[axis];
        rank /= size[axis];
    }
}

void tri_mesh_coords(const struct tri_mesh *mesh, int rank, int coord[TRI_AXIS_COUNT])
{
    TRI_REQUIRE(rank >= 0 && rank < mesh->ranks);
    coords_of(mesh->size, rank, coord);
}

int tri_mesh_group_size(const int size[TRI_AXIS_COUNT], int id)
{
    int ranks = 1;
    for (int axis = 0; axis < TRI_AXIS_COUNT; axis++) {
        ranks *= tri_groups[id].axes & 1 << axis ? size[axis] : 1;
    }
    return ranks;
}

int tri_mesh_member(const int size[TRI_AXIS_COUNT], int id, int rank, int index)
{
    int coord[TRI_AXIS_COUNT];
    coords_of(size, rank, coord);
    for (int axis = 0; axis < TRI_AXIS_COUNT; axis++) {
        if (tri_groups[id].axes & 1 << axis) {
            coord[axis] = index % size[axis];
            index /= size[axis];
        }
    }
    int member = 0;
    for (int axis = TRI_AXIS_COUNT - 1; axis >= 0; axis--) {
        member = member * size[axis] + coord[axis];
    }
    return member;
}

int tri_group_index(const struct tri_group *group)
{
    return group->id;
}

int tri_group_member(const struct tri_group *group, int index)
{
    return tri_mesh_member(group->mesh->size, group->id, group->mesh->rank, index);
}

/* Whether the ranks of the grid are those of tensor. */
static bool is_one_axis(const struct tri_mesh *mesh)
{
    return mesh->size[TRI_AXIS_CROSS] * mesh->size[TRI_AXIS_DEPTH] == 1;
}

static void init_group(struct tri_group *group, const struct tri_mesh *mesh, int id)
{
    group->id = id;
    group->mesh = mesh;
    group->carries = true;
    group->channel = -1;
    group->size = tri_mesh_group_size(mesh->size, id);
    group->rank = 0;
    for (int axis = 0, stride = 1; axis < TRI_AXIS_COUNT; axis++) {
        if (tri_groups[id].axes & 1 << axis) {
            group->rank += mesh->coord[axis] * stride;
            stride *= mesh->size[axis];
        }
    }
    if (tri_groups[id].axes == TRI_ON_GRID && is_one_axis(mesh)) {
        group->size = 1; /* tensor stands for it */
        group->rank = 0;
    }
}

static void take_work(struct tri_group *group)
{
    size_t places = (size_t)group->size;
    group->work = tri_alloc(TRI_MEMORY_OTHER, places * (8 * sizeof(int64_t) + sizeof(void *)));
    group->parts = group->work;
    group->part_at = group->parts + places;
    group->send_n = group->part_at + places;
    group->send_at = group->send_n + places;
    group->recv_n = group->send_at + places;
    group->recv_at = group->recv_n + places;
    group->words = group->recv_at + places;
    group->sent = (uint32_t *)(void *)(group->words + places);
    group->received = group->sent + places;
    group->source = (const void **)(void *)(group->received + places);
}

static struct block *create_block(struct tri_comm *comm, const int size[TRI_AXIS_COUNT], int rank)
{
    struct block *block = tri_alloc(TRI_MEMORY_OTHER, sizeof(*block));
    struct tri_mesh *mesh = &block->mesh;
    memcpy(mesh->size, size, sizeof(mesh->size));
    mesh->ranks = tri_mesh_group_size(size, tri_group_id(TRI_ON_ALL));
    mesh->rank = rank;
    mesh->comm = comm;
    mesh->ledger = comm ? tri_comm_ledger(comm) : NULL;
    mesh->max_message = MAX_MESSAGE;
    mesh->reduce = tri_reduce;
    mesh->host = tri_alloc(TRI_MEMORY_OTHER, (size_t)mesh->ranks * sizeof(*mesh->host));
    if (comm && comm->host) {
        memcpy(mesh->host, comm->host, (size_t)mesh->ranks * sizeof(*mesh->host));
    }
    coords_of(mesh->size, rank, mesh->coord);
    for (int id = 0; id < TRI_GROUP_COUNT; id++) {
        init_group(&block->group[id], mesh, id);
        mesh->group[tri_groups[id].axes] = &block->group[id];
        block->group[id].pool = &block->pool;
        if (block->group[id].size > 1) {
            take_work(&block->group[id]);
        }
    }
    if (is_one_axis(mesh)) {
        /* The same ranks: one group, that is booked by one name. */
        mesh->group[TRI_ON_GRID] = mesh->group[TRI_ON_TENSOR];
    }
    block->channel = -1;
    return block;
}

/* Gives the groups of more than one rank their ends. Collective over the transport's ranks. */
static void connect(struct block *block, struct tri_transport *transport)
{
    block->transport = transport;
    for (int id = 0; id < TRI_GROUP_COUNT; id++) {
        struct tri_group *group = &block->group[id];
        group->carries = transport->carries;
        if (group->size > 1) {
            int first = tri_mesh_member(block->mesh.size, group->id, block->mesh.rank, 0);
            group->ops = transport->ops;
            group->end = transport->ops->open(transport, group->size, group->rank, first,
                                              tri_groups[group->id].name);
        }
    }
}

static void disconnect(struct block *block)
{
    for (int id = 0; id < TRI_GROUP_COUNT; id++) {
        struct tri_group *group = &block->group[id];
        if (group->end) {
            group->ops->close(block->transport, group->end);
        }
    }
}

enum tri_status tri_mesh_create(struct tri_comm *comm, int tensor, int cross, int depth, int expert,
                                struct tri_mesh **mesh, struct tri_error *error)
{
    int ranks = comm->size;
    if (tensor < 1 || cross < 1 || depth < 1 || expert < 1) {
        return tri_fail(error, TRI_BAD_INPUT,
                        "parallel.tensor and parallel.expert must be at least 1, not %d and %d",
                        tensor < 1 ? tensor : 0, expert);
    }
    int64_t shared = (int64_t)tensor * cross;
    shared *= shared <= ranks ? depth : 1;
    int64_t product = shared <= ranks ? shared * expert : shared;
    if (ranks % product != 0) {
        return tri_fail(error, TRI_BAD_INPUT,
                        "parallel.tensor x parallel.expert = %lld x %d does not divide the %d "
                        "rank%s of this job",
                        (long long)shared, expert, ranks, ranks == 1 ? "" : "s");
    }
    const int size[TRI_AXIS_COUNT] = {[TRI_AXIS_TENSOR] = tensor,
                                      [TRI_AXIS_CROSS] = cross,
                                      [TRI_AXIS_DEPTH] = depth,
                                      [TRI_AXIS_EXPERT] = expert,
                                      [TRI_AXIS_DATA] = ranks / (int)product};
    int channel = -1;
    if (ranks > 1) {
        TRI_TRY(tri_watch_mesh_open(comm->watch, size, &channel, error));
    }
    struct block *block = create_block(comm, size, comm->rank);
    if (ranks > 1) {
        block->channel = channel;
        tri_watch_enter_stage(comm->watch, TRI_VERB_MESH);
        connect(block, tri_comm_transport(comm));
        for (int id = 0; id < TRI_GROUP_COUNT; id++) {
            block->group[id].channel = block->channel + id;
            block->group[id].sequence = tri_watch_mesh_before(comm->watch, channel);
        }
        tri_watch_leave_stage(comm->watch);
    }
    *mesh = &block->mesh;
    return TRI_OK;
}

struct tri_mesh *tri_mesh_create_serial(void)
{
    int size[TRI_AXIS_COUNT];
    for (int axis = 0; axis < TRI_AXIS_COUNT; axis++) {
        size[axis] = 1;
    }
    return &create_block(NULL, size, 0)->mesh;
}

/* Sums of data that never came. */
static void reduce_nothing(void *dst, const void *const *source, int sources, int64_t n,
                           enum tri_dtype dtype, enum tri_reduction reduction)
{
    (void)dst;
    (void)source;
    (void)sources;
    (void)n;
    (void)dtype;
    (void)reduction;
}

struct tri_mesh *tri_mesh_create_view(int tensor, int cross, int depth, int expert, int data,
                                      int rank)
{
    TRI_REQUIRE(tensor > 0 && cross > 0 && depth > 0 && expert > 0 && data > 0);
    TRI_REQUIRE((int64_t)tensor * cross <= INT32_MAX / data / expert / depth);
    TRI_REQUIRE(rank >= 0 && rank < tensor * cross * depth * expert * data);
    const int size[TRI_AXIS_COUNT] = {[TRI_AXIS_TENSOR] = tensor,
                                      [TRI_AXIS_CROSS] = cross,
                                      [TRI_AXIS_DEPTH] = depth,
                                      [TRI_AXIS_EXPERT] = expert,
                                      [TRI_AXIS_DATA] = data};
    struct block *block = create_block(NULL, size, rank);
    block->mesh.reduce = reduce_nothing;
    tri_transport_init_planned(&block->nowhere);
    connect(block, &block->nowhere);
    return &block->mesh;
}

void tri_mesh_destroy(struct tri_mesh *mesh)
{
    if (!mesh) {
        return;
    }
    struct block *block = (struct block *)(void *)mesh;
    struct tri_comm *comm = mesh->comm;
    if (block->channel >= 0) {
        tri_watch_enter_stage(comm->watch, TRI_VERB_MESH);
    }
    disconnect(block);
    for (int id = 0; id < TRI_GROUP_COUNT; id++) {
        tri_free(block->group[id].work);
    }
    if (block->channel >= 0) {
        tri_watch_leave_stage(comm->watch);
        tri_watch_mesh_close(comm->watch, block->channel);
    }
    tri_free(mesh->host);
    tri_request_release(&block->pool);
    tri_algorithm_release(&block->pool);
    tri_free(block);
}

void tri_mesh_set_max_message(struct tri_mesh *mesh, int64_t elements)
{
    TRI_REQUIRE(elements > 0 && elements <= MAX_MESSAGE);
    mesh->max_message = elements;
}

void tri_mesh_set_hosts(struct tri_mesh *mesh, int64_t ranks_per_host, const int *host)
{
    for (int rank = 0; rank < mesh->ranks; rank++) {
        if (ranks_per_host > 0) {
            mesh->host[rank] = (int)(rank / ranks_per_host * ranks_per_host);
        } else if (host) {
            mesh->host[rank] = host[rank];
        }
    }
}

bool tri_group_is_near(const struct tri_group *group, int index)
{
    const struct tri_mesh *mesh = group->mesh;
    return mesh->host[tri_mesh_member(mesh->size, group->id, mesh->rank, index)] ==
           mesh->host[mesh->rank];
}

int tri_group_size(const struct tri_group *group)
{
    return group->size;
}

int tri_group_rank(const struct tri_group *group)
{
    return group->rank;
}

const char *tri_group_name(const struct tri_group *group)
{
    return tri_groups[group->id].name;
}
