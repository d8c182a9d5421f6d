/* The templates as Hugging Face folders have them: whoever chats with a model that was trained on
 * one must lay out turns the same way. */
#include "data/chat.h"

#include <string.h>

static const struct {
    const char *name, *body;
} BODIES[] = {
    {"chatml", "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + "
               "message['content'] + '<|im_end|>' + '\\n' }}{% endfor %}"
               "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"},
    {"llama3", "{{ bos_token }}{% for message in messages %}{{ '<|start_header_id|>' + "
               "message['role'] + '<|end_header_id|>\\n\\n' + message['content'] | trim + "
               "'<|eot_id|>' }}{% endfor %}{% if add_generation_prompt %}"
               "{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"},
    {"mistral", "{% if messages[0]['role'] == 'system' %}{% set system_message = "
                "messages[0]['content'] %}{% set loop_messages = messages[1:] %}{% else %}"
                "{% set loop_messages = messages %}{% endif %}{{ bos_token }}"
                "{% for message in loop_messages %}"
                "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
                "{{ raise_exception('user and assistant must take turns') }}{% endif %}"
                "{% if message['role'] == 'user' %}"
                "{% if loop.first and system_message is defined %}"
                "{{ ' [INST] ' + system_message + '\\n\\n' + message['content'] + ' [/INST]' }}"
                "{% else %}{{ ' [INST] ' + message['content'] + ' [/INST]' }}{% endif %}"
                "{% else %}{{ ' ' + message['content'] + eos_token }}{% endif %}{% endfor %}"},
    {"olmo", "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'system' %}"
             "{{ '<|system|>\\n' + message['content'] + '\\n' }}"
             "{% elif message['role'] == 'user' %}"
             "{{ '<|user|>\\n' + message['content'] + '\\n' }}"
             "{% elif message['role'] == 'assistant' %}{% if not loop.last %}"
             "{{ '<|assistant|>\\n' + message['content'] + eos_token + '\\n' }}{% else %}"
             "{{ '<|assistant|>\\n' + message['content'] + eos_token }}{% endif %}{% endif %}"
             "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}"},
    {"plain", "{% for message in messages %}{{ message['role'] | capitalize + ': ' + "
              "message['content'] }}{% if message['role'] == 'assistant' %}{{ eos_token }}"
              "{% endif %}{{ '\\n' }}{% endfor %}{% if add_generation_prompt %}"
              "{{ 'Assistant:' }}{% endif %}"},
};

static void append(struct tri_string *text, const char *part)
{
    tri_string_append(text, part, strlen(part));
}

/* What the body calls a token by; what the model's tokenizer says of that does not matter then. */
static void append_name(struct tri_string *text, const char *body, const char *variable,
                        const char *name)
{
    if (!strstr(body, variable)) {
        return;
    }
    append(text, "{% set ");
    append(text, variable);
    append(text, " = '");
    for (; *name; name++) {
        if (*name == '\'' || *name == '\\') {
            append(text, "\\");
        }
        tri_string_append(text, name, 1);
    }
    append(text, "' %}");
}

void tri_chat_write_jinja(const struct tri_chat *chat, struct tri_string *text)
{
    size_t i = 0;
    while (strcmp(BODIES[i].name, tri_chat_name(chat)) != 0) {
        i++;
    }
    append_name(text, BODIES[i].body, "bos_token", chat->begin);
    append_name(text, BODIES[i].body, "eos_token", chat->end);
    append(text, BODIES[i].body);
}
