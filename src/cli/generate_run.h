/* A loaded model that goes on with texts; one after the other, or a chat. Internal to generate. */
#ifndef TRIDENT_CLI_GENERATE_RUN_H
#define TRIDENT_CLI_GENERATE_RUN_H

#include "cli/active.h"
#include "cli/command.h"
#include "cli/prompts.h"
#include "data/tokenizer_files.h"
#include "infer/generate.h"
#include "train/session.h"

enum { TRI_ENDS = TRI_STOPS + 2 };

/* What `trident generate` was asked for. */
struct tri_generate_request {
    struct tri_config config;
    struct tri_checkpoint_choice choice;
    const char *prompt, *prompts; /* NULL: not given */
    bool ids;                     /* the prompt is token ids, and ids are printed */
    bool json, chats;
    struct tri_active_request active;
    int64_t context; /* tokens, at most the model's max_position */
    int64_t batch;   /* texts at once */
    int32_t ends[TRI_ENDS];
    struct tri_generation generation; /* its stops are ends */
    struct tri_tokenizer *tokenizer;
    struct tri_chat chat;
    struct tri_prompt_style style;
};

/* Texts, and the configuration that they are generated with. */
struct tri_generate_job {
    struct tri_generate_request *request;
    const struct tri_prompts *prompts;
    struct tri_sequence *sequences; /* [count], each with room for what comes to it */
    int64_t count, rows;            /* of all, 0 of a chat turn by turn; at once */
    int64_t capacity;               /* tokens of context that they can come to need */
    struct tri_config config;
};

void tri_generated_add(struct tri_generated *sum, const struct tri_generated *more);
/* What was done, and how fast, to the log; share: of the experts' work, where not all was done. */
void tri_generated_log(const struct tri_generate_request *request, const struct tri_generated *done,
                       double share);

/* All texts of the job, written to standard output of rank 0: a single one as it grows. Collective
 * over all ranks. */
void tri_generate_texts(const struct tri_generate_job *job, struct tri_session *session);

/* The user's turns come from standard input of rank 0, a line each, and the answers go to its
 * standard output. BAD_INPUT: turns that are more than the context. Collective over all ranks. */
enum tri_status tri_converse(const struct tri_generate_request *request, struct tri_comm *comm,
                             struct tri_session *session, struct tri_error *error) TRI_NODISCARD;

#endif
