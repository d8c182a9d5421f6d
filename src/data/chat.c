/* Where each layout comes from: the chat templates in the tokenizer_config.json of Qwen (chatml),
 * Meta-Llama-3 (llama3), Mixtral-8x7B-Instruct-v0.1 (mistral) and OLMoE-1B-7B-Instruct (olmo).
 * tools/chats/golden.py holds them against these functions. */
#include "data/chat.h"

#include "base/memory.h"
#include "base/path.h"
#include "data/utf8.h"

#include <stdio.h>
#include <string.h>

void tri_pieces_clear(struct tri_pieces *layout)
{
    layout->num_pieces = 0;
    layout->text.size = 0;
}

void tri_pieces_fini(struct tri_pieces *layout)
{
    tri_free(layout->pieces);
    tri_string_fini(&layout->text);
    *layout = (struct tri_pieces){0};
}

/* Text that goes on as it was is one piece: a tokenizer sees no seam. */
void tri_pieces_add(struct tri_pieces *layout, bool special, bool counts, const char *text,
                    size_t bytes)
{
    if (bytes == 0) {
        return;
    }
    struct tri_chat_piece *last =
        layout->num_pieces > 0 ? &layout->pieces[layout->num_pieces - 1] : NULL;
    size_t at = layout->text.size;
    tri_string_append(&layout->text, text, bytes);
    if (last && !special && !last->special && last->counts == counts) {
        last->bytes += bytes;
        return;
    }
    void *pieces = layout->pieces;
    tri_array_grow(&pieces, &layout->pieces_room, sizeof(*layout->pieces), layout->num_pieces, 1);
    layout->pieces = pieces;
    layout->pieces[layout->num_pieces++] = (struct tri_chat_piece){special, counts, at, bytes};
}

static void put(struct tri_pieces *layout, const char *text)
{
    tri_pieces_add(layout, false, false, text, strlen(text));
}

static void put_special(struct tri_pieces *layout, const char *name, bool counts)
{
    tri_pieces_add(layout, true, counts, name, strlen(name));
}

static void put_content(struct tri_pieces *layout, const struct tri_turn *turn)
{
    tri_pieces_add(layout, false, turn->counts, turn->text, turn->bytes);
}

/* ---- the templates --------------------------------------------------------------------------- */

/* One turn; the others around it may matter. */
typedef void lay_out_turn(const struct tri_chat *chat, const struct tri_turn *turns, size_t count,
                          size_t index, struct tri_pieces *layout);
/* What stands before an answer. */
typedef void invite_answer(struct tri_pieces *layout);
typedef bool check_turns(const struct tri_turn *turns, size_t count, char reason[TRI_REASON_BYTES]);

struct tri_template {
    const char *name;
    const char *begin, *end; /* as the family names them; NULL: it has none of its own */
    bool ends;               /* turns end with the end of text, whatever that is called */
    bool spaces;             /* an answer is put behind a space */
    const char *stop;        /* what ends an answer; NULL: the end of text, or a newline */
    const char *needs[4];    /* other special tokens */
    lay_out_turn *lay_out;
    check_turns *check;    /* NULL: any turns will do */
    invite_answer *invite; /* NULL: nothing stands there */
};

static void chatml(const struct tri_chat *chat, const struct tri_turn *turns, size_t count,
                   size_t index, struct tri_pieces *layout)
{
    (void)count;
    if (index == 0 && turns[0].role != TRI_SPEAKER_SYSTEM && chat->system[0]) {
        const struct tri_turn system = {
            .role = TRI_SPEAKER_SYSTEM, .text = chat->system, .bytes = strlen(chat->system)};
        chatml(chat, &system, 1, 0, layout);
    }
    put_special(layout, "<|im_start|>", false);
    put(layout, tri_speaker_name(turns[index].role));
    put(layout, "\n");
    put_content(layout, &turns[index]);
    put_special(layout, "<|im_end|>", turns[index].counts);
    put(layout, "\n");
}

/* As Python's strip() has it. */
static bool is_stripped(int32_t c)
{
    return tri_is_space(c) || (c >= 0x1c && c <= 0x1f);
}

static struct tri_turn trim(const struct tri_turn *turn)
{
    struct tri_turn trimmed = *turn;
    int32_t c;
    size_t length;
    while ((length = tri_utf8_next((const unsigned char *)trimmed.text, trimmed.bytes, &c)) > 0 &&
           is_stripped(c)) {
        trimmed.text += length;
        trimmed.bytes -= length;
    }
    while ((length = tri_utf8_last((const unsigned char *)trimmed.text, trimmed.bytes, &c)) > 0 &&
           is_stripped(c)) {
        trimmed.bytes -= length;
    }
    return trimmed;
}

static void llama3(const struct tri_chat *chat, const struct tri_turn *turns, size_t count,
                   size_t index, struct tri_pieces *layout)
{
    (void)chat;
    (void)count;
    const struct tri_turn turn = trim(&turns[index]);
    put_special(layout, "<|start_header_id|>", false);
    put(layout, tri_speaker_name(turn.role));
    put_special(layout, "<|end_header_id|>", false);
    put(layout, "\n\n");
    put_content(layout, &turn);
    put_special(layout, "<|eot_id|>", turn.counts);
}

/* The system's words stand at the head of the first user's. */
static void mistral(const struct tri_chat *chat, const struct tri_turn *turns, size_t count,
                    size_t index, struct tri_pieces *layout)
{
    (void)count;
    const struct tri_turn *turn = &turns[index];
    if (turn->role == TRI_SPEAKER_USER) {
        put(layout, " [INST] ");
        if (index == 1 && turns[0].role == TRI_SPEAKER_SYSTEM) {
            put_content(layout, &turns[0]);
            put(layout, "\n\n");
        }
        put_content(layout, turn);
        put(layout, " [/INST]");
    } else if (turn->role == TRI_SPEAKER_ASSISTANT) {
        /* The space is a part of the answer's first token. */
        tri_pieces_add(layout, false, turn->counts, " ", 1);
        put_content(layout, turn);
        put_special(layout, chat->end, turn->counts);
    }
}

static bool check_mistral(const struct tri_turn *turns, size_t count, char reason[TRI_REASON_BYTES])
{
    size_t first = count > 0 && turns[0].role == TRI_SPEAKER_SYSTEM;
    for (size_t i = first; i < count || i == first; i++) {
        enum tri_speaker wanted = (i - first) % 2 == 0 ? TRI_SPEAKER_USER : TRI_SPEAKER_ASSISTANT;
        if (i >= count || turns[i].role != wanted) {
            (void)snprintf(reason, TRI_REASON_BYTES,
                           "messages[%zu].role: found %s, expected %s: the template mistral has a "
                           "system's words first, then user and assistant in turn",
                           i, i < count ? tri_speaker_name(turns[i].role) : "no more",
                           tri_speaker_name(wanted));
            return false;
        }
    }
    return true;
}

static void olmo(const struct tri_chat *chat, const struct tri_turn *turns, size_t count,
                 size_t index, struct tri_pieces *layout)
{
    const struct tri_turn *turn = &turns[index];
    put(layout, "<|");
    put(layout, tri_speaker_name(turn->role));
    put(layout, "|>\n");
    put_content(layout, turn);
    if (turn->role == TRI_SPEAKER_ASSISTANT) {
        put_special(layout, chat->end, turn->counts);
    }
    if (turn->role != TRI_SPEAKER_ASSISTANT || index + 1 < count) {
        put(layout, "\n");
    }
}

static bool check_olmo(const struct tri_turn *turns, size_t count, char reason[TRI_REASON_BYTES])
{
    for (size_t i = 0; i < count; i++) {
        if (turns[i].role == TRI_SPEAKER_TOOL) {
            (void)snprintf(reason, TRI_REASON_BYTES,
                           "messages[%zu].role: found tool, expected system, user or assistant: "
                           "all that the template olmo has",
                           i);
            return false;
        }
    }
    return true;
}

/* Ours: for models that were taught none. Without a token for the end, the line's end is learned as
 * that. */
static void plain(const struct tri_chat *chat, const struct tri_turn *turns, size_t count,
                  size_t index, struct tri_pieces *layout)
{
    static const char *const heads[] = {"System:", "User:", "Assistant:", "Tool:"};
    const struct tri_turn *turn = &turns[index];
    (void)count;
    put(layout, heads[turn->role]);
    tri_pieces_add(layout, false, turn->counts, " ", 1);
    put_content(layout, turn);
    if (turn->role == TRI_SPEAKER_ASSISTANT && chat->end[0]) {
        put_special(layout, chat->end, turn->counts);
        put(layout, "\n");
    } else {
        tri_pieces_add(layout, false, turn->counts, "\n", 1);
    }
}

static void invite_chatml(struct tri_pieces *layout)
{
    put_special(layout, "<|im_start|>", false);
    put(layout, "assistant\n");
}

static void invite_llama3(struct tri_pieces *layout)
{
    put_special(layout, "<|start_header_id|>", false);
    put(layout, "assistant");
    put_special(layout, "<|end_header_id|>", false);
    put(layout, "\n\n");
}

static void invite_olmo(struct tri_pieces *layout)
{
    put(layout, "<|assistant|>\n");
}

static void invite_plain(struct tri_pieces *layout)
{
    put(layout, "Assistant:");
}

static const struct tri_template TEMPLATES[] = {
    {.name = "chatml",
     .stop = "<|im_end|>",
     .needs = {"<|im_start|>", "<|im_end|>"},
     .lay_out = chatml,
     .invite = invite_chatml},
    {.name = "llama3",
     .begin = "<|begin_of_text|>",
     .stop = "<|eot_id|>",
     .needs = {"<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"},
     .lay_out = llama3,
     .invite = invite_llama3},
    {.name = "mistral",
     .begin = "<s>",
     .end = "</s>",
     .ends = true,
     .spaces = true,
     .lay_out = mistral,
     .check = check_mistral},
    {.name = "olmo",
     .begin = "<|endoftext|>",
     .end = "<|endoftext|>",
     .ends = true,
     .lay_out = olmo,
     .check = check_olmo,
     .invite = invite_olmo},
    {.name = "plain", .ends = true, .spaces = true, .lay_out = plain, .invite = invite_plain},
};
enum { NUM_TEMPLATES = sizeof(TEMPLATES) / sizeof(*TEMPLATES) };

enum tri_status tri_chat_create(const char *name, struct tri_chat *chat, struct tri_error *error)
{
    *chat = (struct tri_chat){0};
    for (int i = 0; i < NUM_TEMPLATES; i++) {
        const struct tri_template *template = &TEMPLATES[i];
        if (strcmp(template->name, name) == 0) {
            chat->template = template;
            tri_path_make(chat->begin, sizeof(chat->begin), "%s",
                          template->begin ? template->begin : "");
            tri_path_make(chat->end, sizeof(chat->end), "%s", template->end ? template->end : "");
            return TRI_OK;
        }
    }
    return tri_fail(error, TRI_BAD_INPUT,
                    "template '%.60s': expected chatml, llama3, mistral, olmo or plain", name);
}

static enum tri_status need(const struct tri_chat *chat, const struct tri_tokenizer *tokenizer,
                            const char *where, const char *name, struct tri_error *error)
{
    return tri_tokenizer_find_special(tokenizer, name) >= 0
               ? TRI_OK
               : tri_fail(error, TRI_BAD_INPUT,
                          "%s: has no token '%s', which the template %s needs; expected another "
                          "--template",
                          where, name, chat->template->name);
}

enum tri_status tri_chat_resolve(struct tri_chat *chat, const struct tri_tokenizer *tokenizer,
                                 const char *where, struct tri_error *error)
{
    static const char *const ends[] = {"<|endoftext|>", "</s>", "<|end_of_text|>", "<eos>"};
    const struct tri_template *template = chat->template;
    if (!tri_tokenizer_has_specials(tokenizer)) {
        return TRI_OK;
    }
    for (int i = 0; i < 4 && template->needs[i]; i++) {
        TRI_TRY(need(chat, tokenizer, where, template->needs[i], error));
    }
    if (chat->begin[0]) {
        TRI_TRY(need(chat, tokenizer, where, chat->begin, error));
    }
    for (int i = 0; i < 4 && template->ends && !chat->end[0]; i++) {
        if (tri_tokenizer_find_special(tokenizer, ends[i]) >= 0) {
            tri_path_make(chat->end, sizeof(chat->end), "%s", ends[i]);
        }
    }
    return template->ends && chat->end[0] ? need(chat, tokenizer, where, chat->end, error) : TRI_OK;
}

const char *tri_chat_name(const struct tri_chat *chat)
{
    return chat->template->name;
}

/* Whether the template has a place for each turn. */
static bool check(const struct tri_chat *chat, const struct tri_turn *turns, size_t count,
                  char reason[TRI_REASON_BYTES])
{
    for (size_t i = 0; i < count && chat->no_tools; i++) {
        if (turns[i].role == TRI_SPEAKER_TOOL) {
            (void)snprintf(reason, TRI_REASON_BYTES,
                           "messages[%zu].role: found tool, expected system, user or assistant: "
                           "the folder's template has a tool's turn in a way that is not known "
                           "here",
                           i);
            return false;
        }
    }
    return !chat->template->check || chat->template->check(turns, count, reason);
}

bool tri_chat_lay_out(const struct tri_chat *chat, const struct tri_turn *turns, size_t count,
                      struct tri_pieces *layout, char reason[TRI_REASON_BYTES])
{
    if (!check(chat, turns, count, reason)) {
        return false;
    }
    put_special(layout, chat->begin, false);
    for (size_t i = 0; i < count; i++) {
        chat->template->lay_out(chat, turns, count, i, layout);
    }
    return true;
}

bool tri_chat_invite(const struct tri_chat *chat, const struct tri_turn *turns, size_t count,
                     struct tri_pieces *layout, char reason[TRI_REASON_BYTES])
{
    const struct tri_template *template = chat->template;
    struct tri_turn *all = tri_alloc(TRI_MEMORY_OTHER, (count + 1) * sizeof(*all));
    for (size_t i = 0; i < count; i++) {
        all[i] = turns[i];
    }
    all[count] = (struct tri_turn){.role = TRI_SPEAKER_ASSISTANT, .text = ""};
    bool right = check(chat, all, count + 1, reason);
    if (right) {
        put_special(layout, chat->begin, false);
        for (size_t i = 0; i < count; i++) {
            template->lay_out(chat, all, count + 1, i, layout);
        }
        if (template->invite) {
            template->invite(layout);
        }
    }
    tri_free(all);
    return right;
}

const char *tri_chat_stop(const struct tri_chat *chat)
{
    const char *stop = chat->template->stop ? chat->template->stop : chat->end;
    return stop[0] ? stop : "\n";
}

bool tri_chat_spaces(const struct tri_chat *chat)
{
    return chat->template->spaces;
}
