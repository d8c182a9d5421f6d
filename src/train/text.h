/* The shards that a run trains on and is evaluated on, opened on every rank. */
#ifndef TRIDENT_TRAIN_TEXT_H
#define TRIDENT_TRAIN_TEXT_H

#include "checkpoint/checkpoint.h"
#include "train/session.h"

struct tri_text {
    int sets;                   /* of a mixture more than one */
    struct tri_tokens **tokens; /* [sets] */
    struct tri_loader *loader;
};

/* What data.train of the session's config names, for training; says on rank 0 what a mixture is
 * made of. Collective; the status is the same on all ranks. */
enum tri_status tri_text_open_training(const struct tri_session *session, struct tri_text *text,
                                       struct tri_error *error) TRI_NODISCARD;
void tri_text_close(struct tri_text *text);

/* The training set by its contents, and a mixture's shares, as a checkpoint remembers it. Local. */
enum tri_status tri_text_describe(const struct tri_text *text, struct tri_checkpoint_state *state,
                                  struct tri_error *error) TRI_NODISCARD;

/* Sets for evaluation: what data.valid of the session's config names, or the one whose path or
 * pattern is given. A set that has no name has "". Collective, as above. */
struct tri_texts {
    int count;
    struct tri_text *text;          /* [count] */
    char (*name)[TRI_SET_NAME_MAX]; /* [count] */
};
enum tri_status tri_texts_open(const struct tri_session *session, const char *path,
                               struct tri_texts *texts, struct tri_error *error) TRI_NODISCARD;
void tri_texts_close(struct tri_texts *texts);

#endif
