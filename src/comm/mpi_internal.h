/* What the files that call MPI share. Only comm/ and its tests include it. */
#ifndef TRIDENT_COMM_MPI_INTERNAL_H
#define TRIDENT_COMM_MPI_INTERNAL_H

#include "comm/internal.h"

#include <mpi.h>

/* Every MPI call goes through this: our communicators return errors, and an error here is inside a
 * step, so it ends the job with file, line and MPI's own text. */
#define TRI_MPI(call)                                                                              \
    do {                                                                                           \
        int tri_mpi_code_ = (call);                                                                \
        if (tri_mpi_code_ != MPI_SUCCESS) {                                                        \
            tri_mpi_fail(tri_mpi_code_, __FILE__, __LINE__, #call);                                \
        }                                                                                          \
    } while (0)
_Noreturn void tri_mpi_fail(int code, const char *file, int line, const char *call);

/* MPI_Init, told what it would take long to find out. */
void tri_launcher_init(int *argc, char ***argv);

/* The transport over the ranks of world, which is borrowed. */
struct tri_mpi_transport {
    struct tri_transport base;
    MPI_Comm world;
};
void tri_mpi_transport_init(struct tri_mpi_transport *transport, MPI_Comm world);

#endif
