/* Signals. A library's products may run with the stack pointer inside their own memory, so a
 * handler that runs on a computing thread overwrites it. Here none does: every signal from outside
 * is blocked before the first thread starts, so all threads inherit that, and one thread of its own
 * takes them. */
#ifndef TRIDENT_BASE_SIGNALS_H
#define TRIDENT_BASE_SIGNALS_H

#include <signal.h>
#include <stdbool.h>

/* All signals but those that tell a thread of its own mistake. */
void tri_signals_outside(sigset_t *set);
/* Blocks them in the calling thread, and so in all that it starts later (MPI's, OpenMP's),
 * and starts the thread that takes them. SIGPIPE and SIGXFSZ are ignored: the write that would
 * raise them fails instead. stops: SIGTERM and SIGUSR1 are noted and nothing else; otherwise they
 * end the process as they would without us, as every other signal does. Call it before MPI starts;
 * again it does nothing, nor where the runtime is embedded. */
void tri_signals_start(bool stops);
/* Whether one of the noted signals has come. From any thread. */
bool tri_signals_stop_asked(void);
/* Ends the process with this exit status after so many seconds, whatever its threads do then. From
 * any thread. */
void tri_signals_exit_after(unsigned int seconds, int status);

#endif
