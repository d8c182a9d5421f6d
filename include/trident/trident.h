/* Trident inside another program: load a model, ask it for logits, train it, save it.
 *
 * A runtime is the ranks of its models: threads of this process that belong to it. They do all the
 * work; the caller's threads only wait for them, and keep their signal masks and OpenMP settings.
 * Nothing here prints, exits, installs a signal handler or reads the environment, though OpenMP,
 * hwloc, oneDNN and MPI have variables of their own. Several runtimes in one process share nothing;
 * calls on one runtime from several threads come one after the other. Where OMP_PROC_BIND or
 * OMP_PLACES bind OpenMP's threads, those of a runtime may still run on all of the places.
 *
 * Every function that can fail returns a status and, unless error is NULL, fills *error. A bad
 * argument is BAD_INPUT, and nothing has changed; a runtime or model that was to be made is NULL
 * then. When no memory was left, or something is wrong
 * that must not be, the runtime is broken: every call fails with the same text, and all that is
 * left to do is to destroy it, which leaves behind what its threads held. One thing is OpenMP's:
 * where it cannot start a thread it ends the program. With one thread a rank it starts none. */
#ifndef TRIDENT_TRIDENT_H
#define TRIDENT_TRIDENT_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum trident_status {
    TRIDENT_OK = 0,
    TRIDENT_BAD_INPUT = 2, /* a config, a checkpoint, an argument */
    TRIDENT_FAILED = 3     /* the disk, memory, a bug */
};

struct trident_error {
    enum trident_status status;
    char message[1024]; /* one line, without a newline */
};

struct trident_runtime;
struct trident_model;

/* ---- the runtime ----------------------------------------------------------------------------- */

/* All zeros are the defaults. */
struct trident_options {
    int ranks; /* threads that a model is laid out over; 0: 1 */
    /* Of the kernels, for each rank. 0: what `threads` of a model's config says, and where that is
     * 0 a rank's share of the cores that affinity and quotas of processor time leave. */
    int threads;
    /* Takes lines, each with its newline, from the runtime's threads, several at a time. What
     * returns a status is refused in it, and what destroys does nothing. NULL: they are dropped. */
    void (*log)(void *state, const char *line);
    void *log_state;
};

/* options may be NULL. */
enum trident_status trident_runtime_create(const struct trident_options *options,
                                           struct trident_runtime **runtime,
                                           struct trident_error *error);
/* After its models: while one is left it does nothing. NULL is fine. */
void trident_runtime_destroy(struct trident_runtime *runtime);
/* 1 when nothing but its destruction is left to do, and of NULL. */
int trident_runtime_is_broken(const struct trident_runtime *runtime);

/* ---- a model --------------------------------------------------------------------------------- */

/* A new model with the initial weights that `config` (YAML, docs/config.md) says, laid out as it
 * says, or where it says `auto` as the planner chooses with the file of plan.cluster. The keys of a
 * run (its folder, data files, number of steps, batch, learning rates, checkpoints, evaluation) and
 * comm.timeout_seconds have no meaning here: what the caller waits for has no limit of time. A
 * runtime of several ranks has room for 254 models or one more. Memory is not planned ahead: a
 * model that does not fit breaks the runtime. */
enum trident_status trident_model_create(struct trident_runtime *runtime, const char *config,
                                         struct trident_model **model, struct trident_error *error);
enum trident_use {
    TRIDENT_ANSWERS, /* weights alone */
    TRIDENT_TRAINS   /* gradients and the optimizer's state too; refused where weights alone of a
                        model that has taken steps were saved */
};
/* The model of a run's newest whole checkpoint, or of one checkpoint. changes: "key=value" of its
 * config, ended by NULL, or NULL. Without changes of `parallel` it is laid out as it was trained
 * where that fits the ranks, else by data alone. */
enum trident_status trident_model_load(struct trident_runtime *runtime, const char *path,
                                       enum trident_use use, const char *const *changes,
                                       struct trident_model **model, struct trident_error *error);
/* A checkpoint at exactly path, which any layout and `trident` itself read: weights, and of a model
 * that trains the optimizer's state. Folders above it are made. A checkpoint that is there is
 * replaced, and where path is a link to one, so is the link; anything else that is there is
 * refused. */
enum trident_status trident_model_save(struct trident_model *model, const char *path,
                                       struct trident_error *error);
/* NULL is fine. */
void trident_model_destroy(struct trident_model *model);

/* Of NULL these three are 0. */
int64_t trident_model_vocabulary(const struct trident_model *model);
/* Tokens that a row may have. */
int64_t trident_model_longest(const struct trident_model *model);
/* Steps that made it what it is; never waits. */
int64_t trident_model_steps(const struct trident_model *model);

/* logits [rows, length, vocabulary]: of what follows each token of tokens [rows, length]. */
enum trident_status trident_model_forward(struct trident_model *model, const int32_t *tokens,
                                          int64_t rows, int64_t length, float *logits,
                                          struct trident_error *error);

struct trident_step {
    double loss;          /* with the weighted balance losses of the router */
    double cross_entropy; /* the mean over the targets that count, in nats */
    double grad_norm;     /* before clipping */
    int64_t targets;
    int updated; /* 0: loss or gradient was not finite, and no weight has changed */
};

/* One step of AdamW on targets [rows, length], -1 where none counts (perhaps nowhere: the step then
 * has no loss but the routers'); clipping, decay and the rest are the config's. Any number of rows
 * is one batch, which every rank takes its share of, train.micro_batch rows at a time. report may
 * be NULL. */
enum trident_status trident_model_step(struct trident_model *model, const int32_t *tokens,
                                       const int32_t *targets, int64_t rows, int64_t length,
                                       double learning_rate, struct trident_step *report,
                                       struct trident_error *error);

#ifdef __cplusplus
}
#endif

#endif
