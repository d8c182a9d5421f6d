/* The one file here that sees mpi.h, by way of the public header: it passes the communicator on by
 * its address. */
#include "trident/trident_mpi.h"

#include "embed/internal.h"

enum trident_status trident_runtime_create_mpi(MPI_Comm communicator,
                                               const struct trident_options *options,
                                               struct trident_runtime **runtime,
                                               struct trident_error *error)
{
    return tri_embed_create(&communicator, options, runtime, error);
}
