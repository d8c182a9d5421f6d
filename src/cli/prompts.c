#include "cli/prompts.h"

#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "config/config.h"
#include "data/encode.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { WHERE_BYTES = TRI_PATH_MAX + 32 };

static void add(struct tri_prompts *prompts, struct tri_prompt prompt)
{
    void *list = prompts->prompt;
    tri_array_grow(&list, &prompts->room, sizeof(*prompts->prompt), prompts->count, 1);
    prompts->prompt = list;
    prompts->prompt[prompts->count++] = prompt;
}

void tri_prompts_fini(struct tri_prompts *prompts)
{
    for (size_t i = 0; i < prompts->count; i++) {
        tri_free(prompts->prompt[i].tokens);
    }
    tri_free(prompts->prompt);
    *prompts = (struct tri_prompts){0};
}

enum tri_status tri_prompts_add_ids(const char *text, struct tri_prompts *prompts,
                                    struct tri_error *error)
{
    struct tri_prompt prompt = {0};
    prompt.tokens = tri_alloc(TRI_MEMORY_OTHER, (strlen(text) + 1) * sizeof(*prompt.tokens));
    for (const char *at = text; *at;) {
        char *end;
        long long id = strtoll(at, &end, 10);
        if (end == at || id < 0 || id > INT32_MAX) {
            tri_free(prompt.tokens);
            return tri_fail(error, TRI_BAD_INPUT,
                            "command line: --prompt: found '%s', expected token ids", at);
        }
        prompt.tokens[prompt.count++] = (int32_t)id;
        at = end + strspn(end, " ,");
    }
    add(prompts, prompt);
    return TRI_OK;
}

enum tri_status tri_prompts_add_turns(const struct tri_prompt_style *style, const char *where,
                                      const struct tri_turn *turns, size_t count,
                                      struct tri_prompts *prompts, struct tri_error *error)
{
    char reason[TRI_REASON_BYTES];
    size_t systems = style->system && !(count > 0 && turns[0].role == TRI_SPEAKER_SYSTEM);
    struct tri_turn *all = tri_alloc(TRI_MEMORY_OTHER, (count + 1) * sizeof(*all));
    struct tri_pieces pieces = {0};
    struct tri_encoded encoded = {0};
    if (systems) {
        all[0] = (struct tri_turn){
            .role = TRI_SPEAKER_SYSTEM, .text = style->system, .bytes = strlen(style->system)};
    }
    memcpy(all + systems, turns, count * sizeof(*all));
    enum tri_status status = TRI_OK;
    if (!tri_chat_invite(style->chat, all, count + systems, &pieces, reason)) {
        status = tri_fail(error, TRI_BAD_INPUT, "%s: %s", where, reason);
    } else {
        struct tri_text_encoder *encoder = tri_text_encoder_create(style->tokenizer);
        status = tri_pieces_encode(&pieces, style->tokenizer, encoder, true, &encoded, error);
        tri_text_encoder_destroy(encoder);
    }
    if (status == TRI_OK) {
        struct tri_prompt prompt = {.count = (int64_t)encoded.size, .begin = (int64_t)encoded.size};
        prompt.tokens = tri_alloc(TRI_MEMORY_OTHER, (encoded.size + 1) * sizeof(*prompt.tokens));
        memcpy(prompt.tokens, encoded.tokens, encoded.size * sizeof(*prompt.tokens));
        add(prompts, prompt);
    }
    tri_encoded_fini(&encoded);
    tri_pieces_fini(&pieces);
    tri_free(all);
    return status;
}

enum tri_status tri_prompts_add_text(const struct tri_prompt_style *style, const char *where,
                                     const char *text, size_t bytes, struct tri_prompts *prompts,
                                     struct tri_error *error)
{
    const struct tri_tokenizer *tokenizer = style->tokenizer;
    if (style->chat) {
        const struct tri_turn turn = {.role = TRI_SPEAKER_USER, .text = text, .bytes = bytes};
        return tri_prompts_add_turns(style, where, &turn, 1, prompts, error);
    }
    struct tri_prompt prompt = {.begin = tokenizer->num_begin};
    int32_t *own;
    int64_t count;
    TRI_TRY(tri_tokenizer_encode(tokenizer, text, bytes, &own, &count, error));
    prompt.count = prompt.begin + count;
    prompt.tokens = tri_alloc(TRI_MEMORY_OTHER, ((size_t)prompt.count + 1) * sizeof(*own));
    memcpy(prompt.tokens, tokenizer->begin, (size_t)prompt.begin * sizeof(*own));
    memcpy(prompt.tokens + prompt.begin, own, (size_t)count * sizeof(*own));
    tri_free(own);
    add(prompts, prompt);
    return TRI_OK;
}

enum tri_status tri_prompt_check(const struct tri_prompt *prompt, int64_t vocab_size,
                                 int64_t context, const char *where, struct tri_error *error)
{
    for (int64_t i = 0; i < prompt->count; i++) {
        if (prompt->tokens[i] >= vocab_size) {
            return tri_fail(error, TRI_BAD_INPUT,
                            "%s: token %d is not below the vocabulary size %lld", where,
                            prompt->tokens[i], (long long)vocab_size);
        }
    }
    if (prompt->count == 0) {
        return tri_fail(error, TRI_BAD_INPUT, "%s is empty", where);
    }
    if (prompt->count > context) {
        return tri_fail(error, TRI_BAD_INPUT,
                        "%s: found %lld tokens, expected at most %lld, the model's context "
                        "(model.max_position, or --context)",
                        where, (long long)prompt->count, (long long)context);
    }
    return TRI_OK;
}

/* ---- files ----------------------------------------------------------------------------------- */

static enum tri_status add_record(const struct tri_prompt_style *style, const char *where,
                                  struct tri_record *record, const char *line, size_t bytes,
                                  struct tri_prompts *prompts, struct tri_error *error)
{
    char reason[TRI_REASON_BYTES];
    if (!tri_record_read(record, TRI_RECORDS_PROMPTS, line, bytes, reason)) {
        return tri_fail(error, TRI_BAD_INPUT, "%s: %s", where, reason);
    }
    size_t count = record->num_turns;
    if (record->kind != TRI_RECORD_CHAT) {
        return tri_prompts_add_text(style, where, record->turns[0].text, record->turns[0].bytes,
                                    prompts, error);
    }
    if (!style->chat) {
        return tri_fail(error, TRI_BAD_INPUT, "%s: found messages, expected --chat with them",
                        where);
    }
    if (count > 1 && record->turns[count - 1].role == TRI_SPEAKER_ASSISTANT) {
        prompts->answered++;
        count--;
    }
    return tri_prompts_add_turns(style, where, record->turns, count, prompts, error);
}

static bool is_blank(const char *line, size_t bytes)
{
    while (bytes > 0 && memchr(" \t\r", line[bytes - 1], 3)) {
        bytes--;
    }
    return bytes == 0;
}

static bool has_records(const char *path)
{
    const char *dot = strrchr(path, '.');
    return dot && strcmp(dot, ".jsonl") == 0;
}

enum tri_status tri_prompts_read(const struct tri_prompt_style *style, const char *path,
                                 struct tri_prompts *prompts, struct tri_error *error)
{
    enum { BYTES_MOST = 1 << 28 };
    struct tri_mapping file;
    struct tri_record record = {0};
    char where[WHERE_BYTES];
    enum tri_status status = TRI_OK;
    TRI_TRY(tri_file_read(path, BYTES_MOST, &file, error));
    const char *at = (const char *)file.data, *end = at + file.size;
    for (int64_t line = 1; at < end && status == TRI_OK; line++) {
        const char *newline = memchr(at, '\n', (size_t)(end - at));
        size_t bytes = (size_t)((newline ? newline : end) - at);
        (void)snprintf(where, sizeof(where), "%.*s:%lld", TRI_PATH_MAX, path, (long long)line);
        if (!is_blank(at, bytes)) {
            bytes -= at[bytes - 1] == '\r';
            status = has_records(path)
                         ? add_record(style, where, &record, at, bytes, prompts, error)
                         : tri_prompts_add_text(style, where, at, bytes, prompts, error);
        }
        at = newline ? newline + 1 : end;
    }
    if (status == TRI_OK && prompts->count == 0) {
        status = tri_fail(error, TRI_BAD_INPUT, "%s: has no prompts, expected one a line", path);
    }
    if (status == TRI_OK && prompts->answered > 0) {
        tri_log_note("%s: %zu of %zu chats end with the assistant's words, which are left out: the "
                     "model says its own",
                     path, prompts->answered, prompts->count);
    }
    tri_record_fini(&record);
    tri_file_unmap(&file);
    return status;
}
