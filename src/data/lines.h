/* JSON Lines to documents: a line is one. Internal to data/. */
#ifndef TRIDENT_DATA_LINES_H
#define TRIDENT_DATA_LINES_H

#include "data/documents.h"
#include "data/input.h"

/* The longest line, so that a small archive of a long one ends in a message. */
enum { TRI_LINE_BYTES_MAX = 1 << 30 };

/* As tri_documents_read, of a file that is open. *format: JSONL may become CHAT where args->format
 * leaves it open and the first line is one. */
enum tri_status tri_lines_read(const struct tri_documents_args *args, struct tri_input *input,
                               const char *path, enum tri_format *format, tri_document_sink sink,
                               void *context, struct tri_documents_counts *counts,
                               struct tri_error *error) TRI_NODISCARD;

#endif
