/* What the folder of a tokenizer says of chats: tokenizer_config.json, chat_template.jinja. */
#ifndef TRIDENT_DATA_CHAT_FOLDER_H
#define TRIDENT_DATA_CHAT_FOLDER_H

#include "data/chat.h"

/* The names that the folder has for a text's begin and end go to chat; a begin only where its
 * template puts one. A folder that says nothing changes nothing. BAD_INPUT: a file that is there
 * and damaged. */
enum tri_status tri_chat_read_names(const char *folder, struct tri_chat *chat,
                                    struct tri_error *error) TRI_NODISCARD;
/* *chat <- the template that the folder's is, with its names; *found false: it has none. BAD_INPUT:
 * also one that is none of those known here. */
enum tri_status tri_chat_find(const char *folder, struct tri_chat *chat, bool *found,
                              struct tri_error *error) TRI_NODISCARD;

#endif
