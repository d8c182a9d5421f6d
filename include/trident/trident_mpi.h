/* Trident inside another program that runs under MPI: a model over the ranks of a communicator. For
 * the MPI that Trident was built with, whose mpi.h the compiler must find: compile with its mpicc,
 * or in CMake link MPI::MPI_C beside trident::trident. */
#ifndef TRIDENT_TRIDENT_MPI_H
#define TRIDENT_TRIDENT_MPI_H

#include "trident/trident.h"

#include <mpi.h>

#ifdef __cplusplus
extern "C" {
#endif

/* A runtime with one rank in each process of the communicator, which is duplicated and may go
 * afterwards. options may be NULL and differ; ranks is 0 or 1. Of the threads each rank takes as
 * many as the one that may have the fewest.
 *
 * MPI is the caller's: it must have been initialised with MPI_THREAD_SERIALIZED or more (else
 * BAD_INPUT), since the rank is a thread of the runtime's, which calls MPI while the caller waits.
 * Without MPI_THREAD_MULTIPLE no other thread may call MPI during a call of the runtime's, nor may
 * calls on two such runtimes in one process overlap. MPI is neither ended nor aborted; the runtime
 * is destroyed before MPI_Finalize.
 *
 * This call, trident_runtime_destroy, trident_model_destroy and every trident_model_ function that
 * takes an error are collective: all processes call them in the same order, on the same models,
 * with the same config or path and changes, use, tokens, targets, rows, length and learning rate.
 * Checkpoints lie where all of them see them. All get the status, the logits of all rows and the
 * report of the step. Where the function that takes an error, the model, config, path, use or rows
 * differ, or an argument is bad in one process, all get BAD_INPUT with the same text. What this
 * call itself refuses, and a NULL where a runtime or model must be, is told to the process alone.
 *
 * What goes wrong in one process alone, a broken runtime (trident_runtime_is_broken), no memory or
 * no thread for one, is told to that process alone. The others wait in MPI, without a time limit,
 * or MPI tells them: who has a broken runtime ends the program as it ends after any other loss of a
 * process, with MPI_Abort. Its duplicated communicator is never freed. */
enum trident_status trident_runtime_create_mpi(MPI_Comm communicator,
                                               const struct trident_options *options,
                                               struct trident_runtime **runtime,
                                               struct trident_error *error);

#ifdef __cplusplus
}
#endif

#endif
