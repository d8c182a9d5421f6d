/* How things fail. Three classes:
 *  - a bug (broken invariant): TRI_ASSERT in debug builds, TRI_REQUIRE always -> tri_panic;
 *  - bad input or a failing system call outside a step: the function returns a status and fills a
 *    tri_error; who detects writes the message, who forwards is silent (TRI_TRY);
 *  - anything inside a step, where peers may already wait in a collective: tri_panic, which prints
 *    one line and ends every rank through the hook that comm/ installs. */
#ifndef TRIDENT_BASE_STATUS_H
#define TRIDENT_BASE_STATUS_H

#include <stdbool.h>

/* The values are the exit statuses of the program. */
enum tri_status {
    TRI_OK = 0,
    TRI_CHECK_FAILED = 1, /* the check says no */
    TRI_BAD_INPUT = 2,    /* config, tokens, checkpoint, command line */
    TRI_FAILED = 3,       /* failed while running: disk, memory, a peer */
    TRI_REQUEUE = 85      /* saved and stopped on a signal: start the same command again */
};

struct tri_error {
    enum tri_status status;
    char message[1024]; /* one line, no newline, no "trident: error:" */
};

#define TRI_NODISCARD                  __attribute__((warn_unused_result))
#define TRI_PRINTF(format_at, args_at) __attribute__((format(printf, format_at, args_at)))

/* Control characters, newlines too, become spaces: what is printed is one line. */
void tri_text_flatten(char *text);

/* Fills error (unless NULL) with the text, flattened, and returns status. */
enum tri_status tri_fail(struct tri_error *error, enum tri_status status, const char *format, ...)
    TRI_PRINTF(3, 4);

/* Forwards a failure unchanged. */
#define TRI_TRY(call)                                                                              \
    do {                                                                                           \
        enum tri_status tri_try_status_ = (call);                                                  \
        if (tri_try_status_ != TRI_OK) {                                                           \
            return tri_try_status_;                                                                \
        }                                                                                          \
    } while (0)

/* Prints "trident: error: rank R: text" to standard error and ends the program on every rank with
 * the exit status given, within seconds even when nobody reads what it prints. Of several ranks of
 * a node that panic one prints. Never returns. */
_Noreturn void tri_panic(enum tri_status status, const char *format, ...) TRI_PRINTF(2, 3);

/* What comm/ adds to this runtime's tri_panic: whether this rank is the one that prints (NULL: it
 * is; may wait for another to end the job), and how all ranks end after that: MPI_Abort (NULL:
 * _exit). */
typedef bool (*tri_panic_speaker)(void *state);
typedef void (*tri_panic_hook)(void *state, int exit_status);
void tri_panic_set_hooks(tri_panic_speaker speaker, tri_panic_hook hook, void *state);
/* What a program that goes on without this runtime has instead of all that: it is handed the text,
 * on whichever thread panics, and must not return. NULL: none. */
typedef void tri_panic_catcher(void *state, enum tri_status status, const char *text);
void tri_panic_set_catcher(tri_panic_catcher *catcher, void *state);

/* Writes a line to the log's sink, or to standard error, where what a reader has not taken after so
 * many milliseconds is left. */
void tri_error_write(const char *text, int patience);

/* The rank that this runtime's log and tri_panic name; 0 before it is set. */
void tri_rank_set(int rank);
int tri_rank_get(void);

#define TRI_REQUIRE(condition)                                                                     \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            tri_panic(TRI_FAILED, "%s:%d: broken invariant: %s", __FILE__, __LINE__, #condition);  \
        }                                                                                          \
    } while (0)

#ifdef TRIDENT_DEBUG
#define TRI_ASSERT(condition) TRI_REQUIRE(condition)
#else
#define TRI_ASSERT(condition) ((void)sizeof(condition))
#endif

#endif
