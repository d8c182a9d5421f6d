"""Writes tests/data/chats: chats, and their tokens as transformers' chat templates lay them out.

    python3 -m venv /tmp/venv && /tmp/venv/bin/pip install transformers tokenizers jinja2
    /tmp/venv/bin/python tools/chats/golden.py

tokenizer.json   a byte-level BPE with Llama 3's pattern, trained here on examples/data
templates.json   the templates as Qwen2-7B-Instruct, Meta-Llama-3-8B-Instruct,
                 Mixtral-8x7B-Instruct-v0.1 and OLMoE-1B-7B-0924-Instruct have them in
                 tokenizer_config.json (chatml: qwen without its default system turn; qwen2.5 as
                 Qwen2.5-7B-Instruct has it, the instructions for tools shortened)
chats.jsonl      what `trident tokenize` reads
golden.json      for each template, for each chat its ids, which of them count, and the ids of what
                 stands before its last answer; mixtral: of the template mistral by the tokenizer
                 in tests/data/golden/tokenizers/mixtral
kept             what `trident tokenize --template NAME` leaves beside its shards, written by it:
                 only looked at here
"""
import json
import pathlib

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

ROOT = pathlib.Path(__file__).resolve().parents[2]
OUT = ROOT / "tests/data/chats"
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|begin_of_text|>",
           "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<s>", "</s>"]
PATTERN = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
           r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
MISTRAL = """{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content'] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}

{{- bos_token }}
{%- for message in loop_messages %}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
        {{- raise_exception('Roles must alternate user/assistant/user/assistant/...') }}
    {%- endif %}
    {%- if message['role'] == 'user' %}
        {%- if loop.first and system_message is defined %}
            {{- ' [INST] ' + system_message + '\\n\\n' + message['content'] + ' [/INST]' }}
        {%- else %}
            {{- ' [INST] ' + message['content'] + ' [/INST]' }}
        {%- endif %}
    {%- elif message['role'] == 'assistant' %}
        {{- ' ' + message['content'] + eos_token}}
    {%- else %}
        {{- raise_exception('Only user and assistant roles are supported') }}
    {%- endif %}
{%- endfor %}
"""
QWEN25 = """{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0]['role'] == 'system' %}
        {{- messages[0]['content'] }}
    {%- else %}
        {{- 'You are Qwen, created by Alibaba Cloud. You are a helpful assistant.' }}
    {%- endif %}
    {{- "\\n\\n# Tools\\n\\n<tools>" }}
    {%- for tool in tools %}
        {{- "\\n" }}
        {{- tool | tojson }}
    {%- endfor %}
    {{- "\\n</tools><|im_end|>\\n" }}
{%- else %}
    {%- if messages[0]['role'] == 'system' %}
        {{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}
    {%- else %}
        {{- '<|im_start|>system\\nYou are Qwen, created by \
Alibaba Cloud. You are a helpful assistant.<|im_end|>\\n' }}
    {%- endif %}
{%- endif %}
{%- for message in messages %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) or \
(message.role == "assistant" and not message.tool_calls) %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "tool" %}
        {%- if (loop.index0 == 0) or (messages[loop.index0 - 1].role != "tool") %}
            {{- '<|im_start|>user' }}
        {%- endif %}
        {{- '\\n<tool_response>\\n' }}
        {{- message.content }}
        {{- '\\n</tool_response>' }}
        {%- if loop.last or (messages[loop.index0 + 1].role != "tool") %}
            {{- '<|im_end|>\\n' }}
        {%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""
TEMPLATES = {
    "chatml": {
        "chat_template": "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' "
                         "+ message['content'] + '<|im_end|>' + '\\n'}}{% endfor %}"
                         "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}"
                         "{% endif %}",
        "bos_token": None, "eos_token": "<|im_end|>"},
    "qwen": {
        "chat_template": "{% for message in messages %}{% if loop.first and "
                         "messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou are a "
                         "helpful assistant.<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + "
                         "message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
                         "{% endfor %}{% if add_generation_prompt %}"
                         "{{ '<|im_start|>assistant\n' }}{% endif %}",
        "bos_token": None, "eos_token": "<|im_end|>"},
    "qwen2.5": {"chat_template": QWEN25, "bos_token": None, "eos_token": "<|im_end|>"},
    "llama3": {
        "chat_template": "{% set loop_messages = messages %}{% for message in loop_messages %}"
                         "{% set content = '<|start_header_id|>' + message['role'] + "
                         "'<|end_header_id|>\\n\\n'+ message['content'] | trim + '<|eot_id|>' %}"
                         "{% if loop.index0 == 0 %}{% set content = bos_token + content %}"
                         "{% endif %}{{ content }}{% endfor %}{% if add_generation_prompt %}"
                         "{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}",
        "bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"},
    "mistral": {"chat_template": MISTRAL, "bos_token": "<s>", "eos_token": "</s>"},
    "olmo": {
        "chat_template": "{{ bos_token }}{% for message in messages %}"
                         "{% if message['role'] == 'system' %}{{ '<|system|>\n' + "
                         "message['content'] + '\n' }}{% elif message['role'] == 'user' %}"
                         "{{ '<|user|>\n' + message['content'] + '\n' }}"
                         "{% elif message['role'] == 'assistant' %}{% if not loop.last %}"
                         "{{ '<|assistant|>\n'  + message['content'] + eos_token + '\n' }}"
                         "{% else %}{{ '<|assistant|>\n'  + message['content'] + eos_token }}"
                         "{% endif %}{% endif %}{% if loop.last and add_generation_prompt %}"
                         "{{ '<|assistant|>\n' }}{% endif %}{% endfor %}",
        "bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>"},
}
CHATS = [
    ["user", "Hello, who are you?", "assistant", "I am the king of all I see."],
    ["system", "Answer briefly.", "user", "2+2?", "assistant", "4",
     "user", "And 2 * 21?\n", "assistant", "It is 42.\n\nTrust me."],
    ["user", "Begin with a newline", "assistant", "\nlike this", "user", "more",
     "assistant", "\n\nand this"],
    ["user", "  spaces around  ", "assistant", "  are kept, or not\t \n"],
    ["system", "\u00a0Viele Gr\u00fc\u00dfe \u3000", "user", "\u4f60\u597d \U0001f44b\U0001f3fd",
     "assistant", "\U0001f600 \u043f\u0440\u0438\u0432\u0435\u0442! \u00e9\u0301"],
    ["user", "Say nothing.", "assistant", "", "user", "Why?", "assistant", "Because 12345678."],
    ["user", "code", "assistant", "def f(x):\n    return x[0] * 'a\\n'  # \"quoted\"\r\n"],
]


def train():
    tokenizer = Tokenizer(models.BPE(ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(PATTERN), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=700, special_tokens=SPECIAL, show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    text = (ROOT / "examples/data/tinyshakespeare.txt").read_text()[:200000]
    tokenizer.train_from_iterator([text, "user assistant system\n" * 50], trainer)
    return tokenizer


def spans(tokenizer, messages, name):
    """The whole text, and the stretches of it that the assistant says, ends of turns included."""
    def render(count, ask=False):
        return tokenizer.apply_chat_template(messages[:count], tokenize=False,
                                             add_generation_prompt=ask)
    whole, counted = render(len(messages)), []
    for i, message in enumerate(messages):
        if message["role"] == "assistant":
            begin = render(i, ask=name != "mistral")
            end = render(i + 1)
            if name in ("chatml", "qwen", "qwen2.5"):
                end = end[:-1]
            assert whole.startswith(begin) and whole.startswith(end), (name, begin, end)
            counted.append((len(begin), len(end)))
    return whole, counted


def check_kept(raw, chats, golden):
    for path in sorted((OUT / "kept").glob("*.jinja")):
        name = path.stem
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, chat_template=path.read_text())
        for messages, entry in zip(chats, golden.get(name, chats)):
            if name != "plain":
                assert tokenizer.apply_chat_template(
                    messages, tokenize=True, return_dict=False) == entry["ids"], name
                assert tokenizer.apply_chat_template(
                    messages[:-1], tokenize=True, return_dict=False,
                    add_generation_prompt=True) == entry["asked"], name
                continue
            text = "".join(f"{turn['role'].capitalize()}: {turn['content']}"
                           f"{'<|endoftext|>' if turn['role'] == 'assistant' else ''}\n"
                           for turn in messages)
            assert tokenizer.apply_chat_template(messages, tokenize=False) == text
            assert text.startswith(tokenizer.apply_chat_template(
                messages[:-1], tokenize=False, add_generation_prompt=True))


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    raw = train()
    raw.save(str(OUT / "tokenizer.json"), pretty=False)
    chats = [[{"role": r, "content": c} for r, c in zip(chat[::2], chat[1::2])] for chat in CHATS]
    golden = {}
    mixtral = Tokenizer.from_file(str(ROOT / "tests/data/golden/tokenizers/mixtral/tokenizer.json"))
    cases = [(name, name, raw) for name in TEMPLATES] + [("mixtral", "mistral", mixtral)]
    for key, name, encoder in cases:
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=encoder, **TEMPLATES[name])
        golden[key] = []
        for messages in chats:
            text, counted = spans(tokenizer, messages, name)
            ids = tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False)
            encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
            assert encoded["input_ids"] == ids
            counts = [int(any(b < end and e > begin for begin, end in counted))
                      for b, e in encoded["offset_mapping"]]
            asked = tokenizer.apply_chat_template(messages[:-1], tokenize=True, return_dict=False,
                                                  add_generation_prompt=True)
            golden[key].append({"ids": ids, "counts": counts, "asked": asked})
    check_kept(raw, chats, golden)
    with open(OUT / "chats.jsonl", "w") as file:
        for messages in chats:
            file.write(json.dumps({"messages": messages}) + "\n")
    (OUT / "templates.json").write_text(json.dumps(TEMPLATES, indent=1) + "\n")
    (OUT / "golden.json").write_text(json.dumps(golden) + "\n")


if __name__ == "__main__":
    main()
