/* One line of JSON Lines as what is to be learned from it. */
#ifndef TRIDENT_DATA_RECORD_H
#define TRIDENT_DATA_RECORD_H

#include "data/string.h"

#include <stdbool.h>

enum tri_speaker { TRI_SPEAKER_SYSTEM, TRI_SPEAKER_USER, TRI_SPEAKER_ASSISTANT, TRI_SPEAKER_TOOL };

/* "system", "user", … */
const char *tri_speaker_name(enum tri_speaker role);

/* What somebody says in a chat. */
struct tri_turn {
    enum tri_speaker role;
    bool counts; /* it is to be learned */
    const char *text;
    size_t bytes;
};

enum tri_record_kind {
    TRI_RECORD_TEXT,       /* one turn, without a role */
    TRI_RECORD_COMPLETION, /* two: the prompt and what follows it */
    TRI_RECORD_CHAT        /* one or more */
};

enum tri_record_format {
    TRI_RECORDS_JSONL,  /* text, or prompt and completion */
    TRI_RECORDS_CHAT,   /* messages, or prompt and completion as a user's turn and the answer */
    TRI_RECORDS_PROMPTS /* what waits for an answer: prompt (its completion is not looked at),
                         * messages, or text */
};

/* Zeros to begin with; kept from line to line, for its memory. */
struct tri_record {
    enum tri_record_kind kind;
    struct tri_turn *turns;
    size_t num_turns, turns_room;
    struct tri_string text, key; /* what the turns point into; a key, or a name */
    size_t *places;              /* of turns in text, while it grows */
    size_t places_room;
};

enum { TRI_REASON_BYTES = 256 };

/* The line's one object. Keys that nobody asks for may hold anything. false: reason says what was
 * found and what was expected. */
bool tri_record_read(struct tri_record *record, enum tri_record_format format, const char *line,
                     size_t bytes, char reason[TRI_REASON_BYTES]);
/* Whether a line has a member "messages"; false too where it is no object. */
bool tri_record_is_chat(struct tri_record *record, const char *line, size_t bytes);
void tri_record_fini(struct tri_record *record);

#endif
