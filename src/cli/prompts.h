/* What `generate` goes on from, as tokens: texts as they are, or turns of a chat. */
#ifndef TRIDENT_CLI_PROMPTS_H
#define TRIDENT_CLI_PROMPTS_H

#include "data/chat.h"
#include "data/record.h"
#include "data/tokenizer.h"

struct tri_prompt_style {
    const struct tri_tokenizer *tokenizer;
    const struct tri_chat *chat; /* NULL: a prompt is text as it is */
    const char *system;          /* what a chat begins with; NULL: nothing */
};

struct tri_prompt {
    int32_t *tokens;
    int64_t count;
    int64_t begin; /* those at its beginning that nobody has written: the tokenizer's, or all of a
                    * chat */
};

/* Zeros to begin with. */
struct tri_prompts {
    struct tri_prompt *prompt;
    size_t count, room;
    size_t answered; /* chats of a file whose last turn, an assistant's, is left out */
};

/* "12 7 300" */
enum tri_status tri_prompts_add_ids(const char *text, struct tri_prompts *prompts,
                                    struct tri_error *error) TRI_NODISCARD;
/* A text, or a user's turn; `where` is what errors begin with. */
enum tri_status tri_prompts_add_text(const struct tri_prompt_style *style, const char *where,
                                     const char *text, size_t bytes, struct tri_prompts *prompts,
                                     struct tri_error *error) TRI_NODISCARD;
/* Turns that wait for an answer, behind the style's system; style->chat is there. */
enum tri_status tri_prompts_add_turns(const struct tri_prompt_style *style, const char *where,
                                      const struct tri_turn *turns, size_t count,
                                      struct tri_prompts *prompts,
                                      struct tri_error *error) TRI_NODISCARD;
/* The lines of a file, one prompt each; of a name that ends in .jsonl objects with prompt, text or
 * messages, without the answer that is their last. Lines of blanks are left out. BAD_INPUT names
 * the file and the line. Local. */
enum tri_status tri_prompts_read(const struct tri_prompt_style *style, const char *path,
                                 struct tri_prompts *prompts,
                                 struct tri_error *error) TRI_NODISCARD;
/* BAD_INPUT: it is empty, longer than `context`, or has tokens that the vocabulary has not. */
enum tri_status tri_prompt_check(const struct tri_prompt *prompt, int64_t vocab_size,
                                 int64_t context, const char *where,
                                 struct tri_error *error) TRI_NODISCARD;
void tri_prompts_fini(struct tri_prompts *prompts);

#endif
