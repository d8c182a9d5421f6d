/* The axes of a mesh, and the groups that one has: each is a line here and one in axes.c. A group
 * is the set of ranks that differ only on some of the axes; it is asked for, and booked, by that
 * set. */
#ifndef TRIDENT_COMM_AXES_H
#define TRIDENT_COMM_AXES_H

/* In the order in which ranks are numbered, the fastest first. */
enum tri_axis {
    TRI_AXIS_TENSOR,
    TRI_AXIS_CROSS,
    TRI_AXIS_DEPTH,
    TRI_AXIS_EXPERT,
    TRI_AXIS_DATA,
    TRI_AXIS_COUNT
};

/* Sets of axes, to be or-ed. */
enum {
    TRI_ON_TENSOR = 1 << TRI_AXIS_TENSOR,
    TRI_ON_CROSS = 1 << TRI_AXIS_CROSS,
    TRI_ON_DEPTH = 1 << TRI_AXIS_DEPTH,
    TRI_ON_EXPERT = 1 << TRI_AXIS_EXPERT,
    TRI_ON_DATA = 1 << TRI_AXIS_DATA,
    TRI_ON_GRID = TRI_ON_TENSOR | TRI_ON_CROSS | TRI_ON_DEPTH, /* parallel.tensor ranks */
    TRI_AXIS_SETS = 1 << TRI_AXIS_COUNT,
    TRI_ON_ALL = TRI_AXIS_SETS - 1
};

enum { TRI_GROUP_COUNT = 9 };
struct tri_group_row {
    int axes; /* a set */
    const char *name;
};
extern const struct tri_group_row tri_groups[TRI_GROUP_COUNT];

/* Index in tri_groups of the group over this set of axes; there must be one. */
int tri_group_id(int axes);

#endif
