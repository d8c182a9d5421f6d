/* Files to documents, and documents to tokens, on all of the process's cores and in order. */
#ifndef TRIDENT_DATA_DOCUMENTS_H
#define TRIDENT_DATA_DOCUMENTS_H

#include "data/chat.h"
#include "data/tokenizer.h"

#include <stdbool.h>
#include <stdint.h>

enum tri_format { TRI_FORMAT_GUESS, TRI_FORMAT_TEXT, TRI_FORMAT_JSONL, TRI_FORMAT_CHAT };

/* GUESS for a name that is none of text, jsonl, chat. */
enum tri_format tri_format_find(const char *name);
const char *tri_format_name(enum tri_format format);
/* What a file's name says: TEXT, or JSONL for names that end in .jsonl, .ndjson or .json, with .gz
 * or .zst behind that or not; only its first line says whether that is CHAT. */
enum tri_format tri_format_guess(const char *path);

struct tri_documents_args {
    const struct tri_tokenizer *tokenizer;
    const struct tri_chat *chat; /* how chats are laid out; NULL: any is refused */
    const struct tri_chat *raw;  /* its end is put behind a completion that is in no chat */
    enum tri_format format;      /* GUESS: for each file by itself */
    bool unknown_template;       /* chat is NULL, but the tokenizer's folder has a template */
    const char *scratch;         /* a path where a text may lie while it is unpacked */
};

struct tri_documents_counts {
    int64_t bytes;     /* of the files, unpacked */
    int64_t files[4];  /* by format */
    int64_t documents; /* that have tokens */
    int64_t empty;     /* that have none: left out */
    int64_t uncounted; /* that have none that counts */
    int64_t tokens, counted, longest;
};

/* The next tokens; begins: the first of them begins a document. counts: whether each is learned;
 * NULL: all are. A document may come in parts. */
typedef enum tri_status (*tri_document_sink)(void *context, bool begins, const int32_t *tokens,
                                             const unsigned char *counts, int64_t count,
                                             struct tri_error *error);

/* One file, all of it; counts are added to. Local. BAD_INPUT names the file, and the line. */
enum tri_status tri_documents_read(const struct tri_documents_args *args, const char *path,
                                   tri_document_sink sink, void *context,
                                   struct tri_documents_counts *counts,
                                   struct tri_error *error) TRI_NODISCARD;

#endif
