/* What every command with a model sets up the same way: mesh, threads, tokens, memory check,
 * engine, checkpoint. */
#ifndef TRIDENT_TRAIN_SESSION_H
#define TRIDENT_TRAIN_SESSION_H

#include "checkpoint/checkpoint.h"
#include "data/loader.h"
#include "plan/layouts.h"
#include "train/engine.h"
#include "train/rehearsal.h"

struct tri_active;

struct tri_session {
    const struct tri_config *config;
    struct tri_mesh *mesh;
    enum tri_load load; /* that the plan is for: balanced when the router is, else headroom */
    struct tri_kernels *kernels;
    struct tri_memory_plan plan;
    struct tri_engine *engine;
};

/* The config of the checkpoint at path with `count` overrides "key=value", on a layout that fits
 * the ranks: the one it was trained on when that divides them, else data alone; overrides win. Rank
 * 0 warns when the weights were trained for something else. Local. */
enum tri_status tri_session_config(const char *path, int ranks, int count, char *const *overrides,
                                   struct tri_config *config,
                                   struct tri_error *error) TRI_NODISCARD;

/* Checks the layout, builds the mesh, makes the kernels, sets watchdog and message size, checks the
 * plan and `beside`, bytes that the caller will take on this rank, against free memory before
 * anything large is taken, builds the engine. active: as tri_moe_set_active. config is borrowed.
 * Collective over all ranks; the status is the same on all. */
enum tri_status tri_session_create(struct tri_comm *comm, const struct tri_config *config,
                                   bool training, int64_t beside, const struct tri_active *active,
                                   struct tri_session **session,
                                   struct tri_error *error) TRI_NODISCARD;
void tri_session_destroy(struct tri_session *session);
/* A part of that: the kernels, for so many threads on each rank, 0: as many as config and
 * environment say; on all as many as on the rank that may have the fewest. Collective over the
 * mesh; the status is of this rank. */
enum tri_status tri_session_make_kernels(struct tri_session *session, int threads,
                                         struct tri_error *error) TRI_NODISCARD;

/* This rank's, for the load that the session is planned for. Local. */
struct tri_rehearsal tri_session_rehearsal(const struct tri_session *session, bool training);

/* Loads the chosen checkpoint's weights, and moments where the choice wants them, into the engine.
 * When it fails with choice->again, the caller chooses once more. Collective. */
enum tri_status tri_session_load(struct tri_session *session, struct tri_checkpoint_choice *choice,
                                 struct tri_checkpoint_state *state,
                                 struct tri_error *error) TRI_NODISCARD;

/* What a checkpoint of the session has beside weights, moments and the numbers that its caller
 * counts: seed, bias and, on rank 0, the config; tri_free state->config. Local. */
void tri_session_describe(const struct tri_session *session, struct tri_checkpoint_state *state);

/* The start-up summary, on standard error of rank 0. Collective over all ranks. */
void tri_session_print(const struct tri_session *session);

/* After the steps: bytes planned and counted at their peak, by category, of the largest rank, and
 * the process's peak beside them; on standard error of rank 0. What a run holds beside its engine
 * (loader, checkpoints) is counted as other, and in no plan. Collective over all ranks. */
void tri_session_print_memory(const struct tri_session *session);

#endif
