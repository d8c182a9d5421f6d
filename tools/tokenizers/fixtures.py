"""Makes tests/data/golden/tokenizers/{llama2,mixtral}: byte-pair encodings in characters as Llama
2's and Mixtral's files have them, small, with what the `tokenizers` package makes of many texts;
and trained.json, the merges that its trainer finds in them.

    python3 -m venv /tmp/venv && /tmp/venv/bin/pip install tokenizers
    /tmp/venv/bin/python tools/tokenizers/fixtures.py

The texts are those of the recorded byte-level ones (tests/data/golden/tokenizers/gpt2/ids.jsonl);
on them the merges are trained, too.
"""

import json
import pathlib

from tokenizers import Tokenizer, models, pre_tokenizers, trainers

ROOT = pathlib.Path(__file__).resolve().parents[2] / "tests/data/golden/tokenizers"
BLOCK = "\u2581"
MERGES = 1000
TRAINED = 1999


def read_texts():
    with open(ROOT / "gpt2/ids.jsonl", encoding="utf-8") as file:
        return [json.loads(line)["text"] for line in file]


def train(texts):
    """Characters and merges, learned on words that begin with the block."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    trainer = trainers.BpeTrainer(
        vocab_size=100 + MERGES, limit_alphabet=100, min_frequency=2, show_progress=False
    )
    words = [text for text in texts if len(text) < 4000 and "\0" not in text]
    tokenizer.train_from_iterator(words, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    return model["vocab"], model["merges"]


def added(identity, content, **flags):
    token = {"id": identity, "content": content, "single_word": False, "lstrip": False}
    token.update({"rstrip": False, "normalized": False, "special": True})
    token.update(flags)
    return token


def build(vocab, merges):
    """The order of SentencePiece: control tokens, bytes, merged pieces, characters."""
    names = ["<unk>", "<s>", "</s>"] + [f"<0x{byte:02X}>" for byte in range(256)]
    merged = ["".join(pair) for pair in merges]
    names += merged + [name for name in vocab if name not in set(merged)]
    names = list(dict.fromkeys(names))
    model = {"type": "BPE", "dropout": None, "unk_token": "<unk>"}
    model.update({"continuing_subword_prefix": None, "end_of_word_suffix": None})
    model.update({"fuse_unk": True, "byte_fallback": True, "ignore_merges": False})
    model["vocab"] = {name: identity for identity, name in enumerate(names)}
    model["merges"] = merges
    tokens = [added(identity, names[identity]) for identity in range(3)]
    tokens.append(added(len(names), "<tool>", special=False, normalized=True, lstrip=True))
    tokens.append(added(len(names) + 1, "[INST]", special=False, single_word=True))
    decoders = [{"type": "Replace", "pattern": {"String": BLOCK}, "content": " "}]
    decoders += [{"type": "ByteFallback"}, {"type": "Fuse"}]
    decoders += [{"type": "Strip", "content": " ", "start": 1, "stop": 0}]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": tokens,
        "normalizer": None,
        "pre_tokenizer": None,
        "post_processor": None,
        "decoder": {"type": "Sequence", "decoders": decoders},
        "model": model,
    }


def write(name, whole, texts):
    folder = ROOT / name
    folder.mkdir(exist_ok=True)
    text = json.dumps(whole, ensure_ascii=False)
    (folder / "tokenizer.json").write_text(text, encoding="utf-8")
    tokenizer = Tokenizer.from_str(text)
    with open(folder / "ids.jsonl", "w", encoding="utf-8") as file:
        for one in texts:
            ids = tokenizer.encode(one, add_special_tokens=False).ids
            decoded = tokenizer.decode(ids, skip_special_tokens=False)
            record = {"text": one, "ids": ids, "decoded": decoded}
            file.write(json.dumps(record) + "\n")
    print(name, len(whole["model"]["vocab"]), "tokens")


def write_trained(texts):
    """What the trainer merges: byte-level words of each text by itself."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=TRAINED, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    text = json.dumps({"vocab": model["vocab"], "merges": model["merges"]}, ensure_ascii=False)
    (ROOT / "trained.json").write_text(text, encoding="utf-8")
    print("trained", len(model["merges"]), "merges")


def main():
    texts = read_texts()
    write_trained(texts)
    texts += ["<s> [INST] do [/INST]</s>", "x[INST]y", "a <tool> b", "  two", "\n \n", BLOCK + "a"]
    vocab, merges = train(texts)
    whole = build(vocab, merges)
    whole["normalizer"] = {
        "type": "Sequence",
        "normalizers": [
            {"type": "Prepend", "prepend": BLOCK},
            {"type": "Replace", "pattern": {"String": " "}, "content": BLOCK},
        ],
    }
    write("llama2", whole, texts)
    whole["normalizer"] = None
    whole["pre_tokenizer"] = {"type": "Metaspace", "replacement": BLOCK}
    whole["pre_tokenizer"].update({"prepend_scheme": "first", "split": False})
    write("mixtral", whole, texts)


if __name__ == "__main__":
    main()
