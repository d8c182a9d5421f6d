/* Which of the templates known here a Hugging Face chat template means. */
#include "data/chat.h"

#include "base/path.h"

#include <string.h>

/* Space is one blank, quotes are single, and a newline in a string is the escape. */
static void make_uniform(const char *jinja, size_t bytes, struct tri_string *text)
{
    for (size_t i = 0; i < bytes; i++) {
        char c = jinja[i] == '"' ? '\'' : jinja[i] == '\t' ? ' ' : jinja[i];
        if (c == '\n') {
            tri_string_append(text, "\\n", 2);
        } else if (c != ' ' || text->size == 0 || text->data[text->size - 1] != ' ') {
            tri_string_append(text, &c, 1);
        }
    }
}

static bool has(const struct tri_string *text, const char *mark)
{
    return text->size > 0 && memmem(text->data, text->size, mark, strlen(mark)) != NULL;
}

/* A mark must be there, or must not: whoever writes turns another way has it. */
struct mark {
    const char *text;
    bool wanted;
};

static const struct {
    const char *name;
    struct mark marks[8];
} SIGNS[] = {
    {"chatml",
     {{"<|im_start|>", true},
      {"<|im_end|>", true},
      {"<|im_sep|>", false},
      {"<end_of_utterance>", false},
      {"trim", false},
      {"strip", false},
      {"<think>", false}}},
    {"llama3",
     {{"<|start_header_id|>", true},
      {"<|end_header_id|>", true},
      {"<|eot_id|>", true},
      {"| trim", true},
      {"date_string", false}}},
    {"mistral",
     {{"' [INST] '", true},
      {"' [/INST]'", true},
      {"<<SYS>>", false},
      {"[SYSTEM_PROMPT]", false},
      {"[AVAILABLE_TOOLS]", false},
      {"strip()", false}}},
    {"olmo",
     {{"'<|user|>\\n' + message['content'] + '\\n'", true},
      {"not loop.last", true},
      {"tool_call", false},
      {"'<|assistant|>\\n' + message['content'] + eos_token", true}}},
    {"plain",
     {{"{{ message['role'] | capitalize + ': ' + message['content'] }}", true},
      {"{{ 'Assistant:' }}", true}}},
};

/* The begin is put once, before the loop or for its first message. */
static enum tri_begin find_begin(const struct tri_string *text)
{
    static const char *const forms[] = {"{{ eos_token }}", "{{eos_token}}", "{{- eos_token }}"};
    for (int i = 0; i < 3; i++) {
        size_t bytes = strlen(forms[i]);
        if (text->size >= bytes && memcmp(text->data, forms[i], bytes) == 0) {
            return TRI_BEGIN_EOS;
        }
    }
    return has(text, "bos_token") ? TRI_BEGIN_BOS : TRI_BEGIN_NONE;
}

/* Qwen's, written out between the marks of a turn; where the text is put together there is none.
 * false: there is one, and it cannot be told. */
static bool find_system(const struct tri_string *text, struct tri_chat *chat)
{
    static const char head[] = "'<|im_start|>system\\n", end[] = "<|im_end|>";
    const char *at = text->data, *all = text->data + text->size;
    while ((at = memmem(at, (size_t)(all - at), head, sizeof(head) - 1)) != NULL) {
        at += sizeof(head) - 1;
        if (at < all && *at == '\'') {
            continue;
        }
        const char *stop = memmem(at, (size_t)(all - at), end, sizeof(end) - 1);
        size_t bytes = stop ? (size_t)(stop - at) : 0;
        if (bytes == 0 || bytes >= sizeof(chat->system) || memchr(at, '\'', bytes) ||
            memchr(at, '\\', bytes) || memchr(at, '\0', bytes)) {
            return false;
        }
        tri_path_make(chat->system, sizeof(chat->system), "%.*s", (int)bytes, at);
        return true;
    }
    return true;
}

void tri_chat_take_set(const char *jinja, size_t bytes, const char *variable,
                       char name[TRI_SPECIAL_BYTES])
{
    struct tri_string text = {0};
    char head[64];
    make_uniform(jinja, bytes, &text);
    tri_path_make(head, sizeof(head), "{%% set %s = '", variable);
    const char *at = text.size > 0 ? memmem(text.data, text.size, head, strlen(head)) : NULL;
    if (at) {
        at += strlen(head);
        const char *end = memchr(at, '\'', (size_t)(text.data + text.size - at));
        size_t length = end ? (size_t)(end - at) : TRI_SPECIAL_BYTES;
        if (length < TRI_SPECIAL_BYTES && !memchr(at, '\\', length) && !memchr(at, '\0', length)) {
            tri_path_make(name, TRI_SPECIAL_BYTES, "%.*s", (int)length, at);
        }
    }
    tri_string_fini(&text);
}

bool tri_chat_recognise(const char *jinja, size_t bytes, struct tri_chat *chat,
                        enum tri_begin *begin)
{
    struct tri_string text = {0};
    const char *found = NULL;
    make_uniform(jinja, bytes, &text);
    *begin = find_begin(&text);
    for (size_t i = 0; i < sizeof(SIGNS) / sizeof(*SIGNS) && !found; i++) {
        bool right = true;
        for (size_t j = 0; j < 8 && SIGNS[i].marks[j].text; j++) {
            right = right && has(&text, SIGNS[i].marks[j].text) == SIGNS[i].marks[j].wanted;
        }
        found = right ? SIGNS[i].name : NULL;
    }
    bool known = found && tri_chat_create(found, chat, NULL) == TRI_OK;
    if (known && strcmp(found, "chatml") == 0) {
        known = find_system(&text, chat);
        chat->no_tools = has(&text, "<tool_response>");
    }
    tri_string_fini(&text);
    return known;
}
