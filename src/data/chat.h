/* How a chat is laid out as text and special tokens, as the families of models were taught it. */
#ifndef TRIDENT_DATA_CHAT_H
#define TRIDENT_DATA_CHAT_H

#include "base/status.h"
#include "data/record.h"
#include "data/string.h"
#include "data/tokenizer.h"

#include <stdbool.h>
#include <stddef.h>

/* A stretch of text, or the name of a special token. */
struct tri_chat_piece {
    bool special, counts; /* counts: its tokens are learned */
    size_t at, bytes;     /* in the layout's text */
};

/* Zeros to begin with; kept from chat to chat, for its memory. */
struct tri_pieces {
    struct tri_chat_piece *pieces;
    size_t num_pieces, pieces_room;
    struct tri_string text;
};

void tri_pieces_clear(struct tri_pieces *layout);
void tri_pieces_fini(struct tri_pieces *layout);
void tri_pieces_add(struct tri_pieces *layout, bool special, bool counts, const char *text,
                    size_t bytes);

struct tri_template;

enum { TRI_SPECIAL_BYTES = 64, TRI_SYSTEM_BYTES = 512 };

/* A template, and what it calls a text's begin and end. */
struct tri_chat {
    const struct tri_template *template;
    char begin[TRI_SPECIAL_BYTES], end[TRI_SPECIAL_BYTES]; /* special tokens; "": none */
    char system[TRI_SYSTEM_BYTES]; /* what a system says that says nothing; "": it is not there */
    bool no_tools;                 /* turns of tools are refused */
};

/* The template of a name, with the names its family gives the tokens. BAD_INPUT lists all. */
enum tri_status tri_chat_create(const char *name, struct tri_chat *chat,
                                struct tri_error *error) TRI_NODISCARD;
/* Finds the special tokens that the template needs in a tokenizer called `where`, and an end of
 * text where the template would have any. BAD_INPUT names one that is not there. Of `byte`, which
 * has no special tokens, nothing is asked. */
enum tri_status tri_chat_resolve(struct tri_chat *chat, const struct tri_tokenizer *tokenizer,
                                 const char *where, struct tri_error *error) TRI_NODISCARD;

/* What a text begins with. */
enum tri_begin { TRI_BEGIN_NONE, TRI_BEGIN_BOS, TRI_BEGIN_EOS };
/* *chat <- the template that a Hugging Face chat template means, by marks that are in no other
 * family's, with the system's turn that it puts where there is none; *begin: what begin it puts.
 * false: it is none that is known here. bytes of jinja. */
bool tri_chat_recognise(const char *jinja, size_t bytes, struct tri_chat *chat,
                        enum tri_begin *begin);
/* name <- what such a template itself says that a token is called, {% set bos_token = '…' %}; stays
 * where it says nothing. */
void tri_chat_take_set(const char *jinja, size_t bytes, const char *variable,
                       char name[TRI_SPECIAL_BYTES]);
/* Appends a chat template that lays out the same, without the turn that a system is given where it
 * has none. */
void tri_chat_write_jinja(const struct tri_chat *chat, struct tri_string *text);
const char *tri_chat_name(const struct tri_chat *chat);

/* Appends the turns. false, and the reason, where the template has no place for one. */
bool tri_chat_lay_out(const struct tri_chat *chat, const struct tri_turn *turns, size_t count,
                      struct tri_pieces *layout, char reason[TRI_REASON_BYTES]);
/* Appends turns that wait for an answer, and what stands before that: a text to go on from. The
 * same false. */
bool tri_chat_invite(const struct tri_chat *chat, const struct tri_turn *turns, size_t count,
                     struct tri_pieces *layout, char reason[TRI_REASON_BYTES]);
/* What an answer ends with: a special token's name, or a newline. */
const char *tri_chat_stop(const struct tri_chat *chat);
/* Whether it begins with a space that is no part of what is said. */
bool tri_chat_spaces(const struct tri_chat *chat);

#endif
