/* What a plan's collectives say of each call, beside the ledger: who plans times listens, and says
 * when what was begun will have arrived. */
#ifndef TRIDENT_COMM_LISTENER_H
#define TRIDENT_COMM_LISTENER_H

#include "comm/comm.h"
#include "comm/transport.h"

/* A call is told once when it blocks; else when it begins and when it is ended. */
enum tri_call_stage { TRI_CALL_WHOLE, TRI_CALL_BEGIN, TRI_CALL_END };

struct tri_call_note {
    const struct tri_group *group; /* of more than one rank */
    enum tri_op op;
    enum tri_call_stage stage;
    struct tri_where where;
    int64_t bytes; /* as they are booked; of a receive those that come */
    int peer;      /* of a call between two ranks: the other's place in the group; else -1 */
    bool small;    /* an all-reduce that sends everything to everyone */
    /* all_to_all: elements for each member, and bytes of one; else NULL */
    const int64_t *sent;
    int64_t width;
    double arrival; /* BEGIN: the listener says it, above 0; END: what it said */
};

/* The plan's own; must outlive the mesh. */
struct tri_call_listener {
    struct tri_endpoint end; /* comm/'s */
    void (*call)(void *state, struct tri_call_note *note);
    void *state;
};

/* From now on the calls of a mesh that has no other ranks (tri_mesh_create_view) are told. */
void tri_mesh_listen(struct tri_mesh *mesh, struct tri_call_listener *listener);

/* Its place in tri_groups. */
int tri_group_index(const struct tri_group *group);
/* World rank of a member of the group. */
int tri_group_member(const struct tri_group *group, int index);

#endif
