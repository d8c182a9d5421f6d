#include "cli/answer.h"

#include <string.h>

void tri_answer_begin(struct tri_answer *answer, const struct tri_tokenizer *tokenizer,
                      const struct tri_chat *chat, FILE *out)
{
    *answer = (struct tri_answer){.tokenizer = tokenizer, .chat = chat, .out = out};
}

/* Bytes at the end of the text that the stop begins with. */
static size_t held_back(const struct tri_answer *answer)
{
    const char *stop = answer->chat ? tri_chat_stop(answer->chat) : "";
    size_t bytes = strlen(stop);
    size_t most = bytes < answer->text.size ? bytes : answer->text.size;
    for (; most > 0; most--) {
        if (memcmp(answer->text.data + answer->text.size - most, stop, most) == 0) {
            return most;
        }
    }
    return 0;
}

static void show(struct tri_answer *answer, size_t end)
{
    if (answer->out && end > answer->shown) {
        (void)fwrite(answer->text.data + answer->shown, 1, end - answer->shown, answer->out);
        (void)fflush(answer->out);
    }
    answer->shown = end;
}

static void take(struct tri_answer *answer, const unsigned char *text, size_t bytes)
{
    for (size_t i = 0; i < bytes && !answer->ended; i++) {
        bool space = !answer->begun && answer->chat && tri_chat_spaces(answer->chat);
        answer->begun = true;
        if (space && text[i] == ' ') {
            continue;
        }
        tri_string_append(&answer->text, (const char *)text + i, 1);
        size_t held = held_back(answer);
        if (held > 0 && held == strlen(tri_chat_stop(answer->chat))) {
            answer->text.size -= held;
            answer->ended = true;
        }
    }
    show(answer, answer->text.size - (answer->ended ? 0 : held_back(answer)));
}

void tri_answer_add(struct tri_answer *answer, int32_t token)
{
    size_t bytes;
    const unsigned char *text =
        tri_token_stream_add(&answer->stream, answer->tokenizer, token, &bytes);
    take(answer, text, bytes);
}

void tri_answer_end(struct tri_answer *answer)
{
    size_t bytes;
    const unsigned char *text = tri_token_stream_end(&answer->stream, &bytes);
    take(answer, text, bytes);
    show(answer, answer->text.size);
}

void tri_answer_fini(struct tri_answer *answer)
{
    tri_token_stream_fini(&answer->stream);
    tri_string_fini(&answer->text);
}
