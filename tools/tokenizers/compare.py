"""Holds Trident's tokens against those of the `tokenizers` package, and its speed.

    tools/tokenizers/compare.sh        makes the virtual environment and runs this

Of each kind of tokenizer.json: a vocabulary trained here, a mixed text (code, many scripts, emoji,
long runs of spaces, special tokens inside text), the ids of both, what both decode them to, the
bytes back of the text with broken UTF-8 among it, and megabytes a second on one thread and on all.
Then the merges that `trident tokenize --train-vocab` finds in a text, and those of the trainer
there.
"""

import argparse
import array
import json
import os
import pathlib
import random
import re
import subprocess
import time
import unicodedata

os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")

ROOT = pathlib.Path(__file__).resolve().parents[2]
BLOCK = "\u2581"
GPT2 = r"""'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""
TAIL = r"""| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"""
LLAMA3 = r"""(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}""" + TAIL
QWEN2 = r"""(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}""" + TAIL
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
KINDS = ["gpt2", "neox", "llama3", "qwen2", "digits", "llama2", "mixtral"]


# ---- text ----------------------------------------------------------------------------------------


def read_code(limit):
    parts = []
    for folder in ["src", "tests", "docs", "bench", "scripts"]:
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in {".c", ".h", ".md", ".sh", ".txt", ".py"}:
                parts.append(path.read_text(encoding="utf-8", errors="replace"))
    return "".join(parts)[:limit]


SCRIPTS = [
    (0x41, 0x7A), (0xC0, 0x24F), (0x250, 0x2AF), (0x300, 0x36F), (0x370, 0x3FF), (0x400, 0x52F),
    (0x531, 0x58A), (0x590, 0x5FF), (0x600, 0x6FF), (0x900, 0x97F), (0x980, 0x9FF), (0xB80, 0xBFF),
    (0xE00, 0xE7F), (0x1000, 0x109F), (0x10A0, 0x10FF), (0x1100, 0x11FF), (0x1200, 0x137F),
    (0x1E00, 0x1EFF), (0x1F00, 0x1FFF), (0x2000, 0x206F), (0x2070, 0x20CF), (0x2100, 0x218F),
    (0x2460, 0x24FF), (0x2580, 0x25FF), (0x3040, 0x30FF), (0x3400, 0x34FF), (0x4E00, 0x9FFF),
    (0xAC00, 0xD7A3), (0xF900, 0xFAFF), (0xFB00, 0xFDFF), (0xFF00, 0xFFEF), (0x10000, 0x100FF),
    (0x1D400, 0x1D7FF), (0x1F300, 0x1F6FF), (0x1F900, 0x1F9FF), (0x20000, 0x200FF), (0x0, 0x40),
]  # fmt: skip


def make_word(rng, script):
    low, high = script
    return "".join(chr(rng.randint(low, high)) for _ in range(rng.randint(1, 9)))


def make_scripts(rng, size):
    parts, total = [], 0
    while total < size:
        script = rng.choice(SCRIPTS)
        line = " ".join(make_word(rng, script) for _ in range(rng.randint(1, 12)))
        if rng.random() < 0.1:
            line += rng.choice(SPECIAL + ["<think>", "</think>  ", "  <think>"])
        if rng.random() < 0.05:
            line += " " * rng.randint(1, 400) + "\t" * rng.randint(0, 9) + "\n" * rng.randint(0, 9)
        if rng.random() < 0.05:
            line += rng.choice("ab1.-=~é漢") * rng.randint(1, 900)
        line += rng.choice(["\n", " ", "\r\n", "'ll ", "'S ", "\u3000", "\u00a0", ""])
        parts.append(line)
        total += len(line.encode())
    return "".join(parts)


def make_text(size, seed):
    rng = random.Random(seed)
    code = read_code(size // 2)
    return code + make_scripts(rng, size - len(code.encode()))


# ---- tokenizers ----------------------------------------------------------------------------------


def added(token, **flags):
    from tokenizers import AddedToken

    return AddedToken(token, **flags)


def build(kind, text, size):
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    pre = pre_tokenizers
    level = pre.ByteLevel(add_prefix_space=kind == "digits", use_regex=kind in {"gpt2", "neox"})
    steps = {
        "llama3": [pre.Split(Regex(LLAMA3), "isolated"), level],
        "qwen2": [pre.Split(Regex(QWEN2), "isolated"), level],
        "digits": [pre.Digits(individual_digits=True), pre.ByteLevel(add_prefix_space=True)],
    }
    pieces = [text[at : at + 5000] for at in range(0, len(text), 5000)]
    if kind in {"llama2", "mixtral"}:
        return build_characters(kind, pieces, size)
    tokenizer = Tokenizer(models.BPE(ignore_merges=kind == "llama3"))
    tokenizer.pre_tokenizer = pre.Sequence(steps[kind]) if kind in steps else level
    if kind in {"neox", "qwen2"}:
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=size, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(pieces, trainer)
    special = [added(token, special=True, normalized=False) for token in SPECIAL]
    tokenizer.add_special_tokens(special)
    tokenizer.add_tokens([added("<think>", normalized=False, lstrip=True)])
    tokenizer.add_tokens([added("</think>", normalized=False, rstrip=True)])
    if kind == "neox":
        tokenizer.add_tokens([added(" " * n, normalized=True) for n in range(2, 25)])
    return json.loads(tokenizer.to_str())


def build_characters(kind, pieces, size):
    import fixtures
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    trainer = trainers.BpeTrainer(vocab_size=size, limit_alphabet=1000, show_progress=False)
    tokenizer.train_from_iterator([piece.replace("\0", "") for piece in pieces], trainer)
    model = json.loads(tokenizer.to_str())["model"]
    whole = fixtures.build(model["vocab"], model["merges"])
    if kind == "llama2":
        steps = [{"type": "Prepend", "prepend": BLOCK}]
        steps += [{"type": "Replace", "pattern": {"String": " "}, "content": BLOCK}]
        whole["normalizer"] = {"type": "Sequence", "normalizers": steps}
    else:
        whole["pre_tokenizer"] = {"type": "Metaspace", "replacement": BLOCK}
        whole["pre_tokenizer"].update({"prepend_scheme": "first", "split": False})
    return whole


# ---- comparing -----------------------------------------------------------------------------------


def ours(args, folder, path, threads=0, rounds=1):
    """Seconds; ids and text are left in the folder."""
    command = [args.program, str(folder), str(path), "--rounds", str(rounds)]
    command += ["--ids", str(folder / "ids.bin"), "--text", str(folder / "back.txt")]
    if threads:
        command += ["--threads", str(threads)]
    line = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return float(re.search(r"([0-9.]+) s,", line)[1])


def read_ids(folder):
    found = array.array("i")
    found.frombytes((folder / "ids.bin").read_bytes())
    return found.tolist()


def make_broken(kind, text, seed):
    """What comes back: no tokens that take spaces with them or get one behind them, normal already,
    and broken UTF-8."""
    tokens = ["<think>", "</think>"]
    if kind in {"neox", "qwen2"}:
        text = unicodedata.normalize("NFC", text)
    if kind in {"llama2", "mixtral"}:
        tokens = ["<s>", "</s>", "<unk>", "<tool>", "[INST]", BLOCK]
    for token in tokens:
        text = text.replace(token, "")
    rng = random.Random(seed)
    data = text.encode()
    places = sorted(rng.randrange(len(data)) for _ in range(len(data) // 500))
    parts = []
    for begin, end in zip([0] + places, places + [len(data)]):
        # Of these no character consists, whatever is beside them: what was normal stays so.
        parts += [data[begin:end], bytes([rng.choice([0xC0, 0xC1, 0xF5, 0xFE, 0xFF])])]
    return b"".join(parts)


def comes_back(args, kind, folder, text):
    if kind == "digits":
        return True  # its file puts a space before every number
    path = folder / "broken.txt"
    data = make_broken(kind, text, args.seed)
    path.write_bytes(data)
    ours(args, folder, path)
    return (folder / "back.txt").read_bytes() == data


def show_difference(tokenizer, mine, theirs):
    shorter = min(len(mine), len(theirs))
    at = next((i for i in range(shorter) if mine[i] != theirs[i]), shorter)
    before = tokenizer.decode(theirs[max(0, at - 8) : at], skip_special_tokens=False)
    print(f"    first difference at token {at}: {mine[at : at + 8]} and {theirs[at : at + 8]}")
    print("    behind", repr(before))
    for ids in (mine, theirs):
        print("        ", [tokenizer.id_to_token(i) for i in ids[at : at + 8]])


def time_theirs(text, tokenizer, threads):
    """As they like it: a batch of documents, of which each thread takes some."""
    documents = [text[at : at + 20000] for at in range(0, len(text), 20000)]
    program = (
        "import json, sys, time; from tokenizers import Tokenizer\n"
        "t = Tokenizer.from_file(sys.argv[1]); d = json.load(open(sys.argv[2]))\n"
        "best = 1e9\n"
        "for _ in range(2):\n"
        "    a = time.perf_counter(); t.encode_batch_fast(d, add_special_tokens=False)\n"
        "    best = min(best, time.perf_counter() - a)\n"
        "print(best)\n"
    )
    path = tokenizer.parent / "documents.json"
    path.write_text(json.dumps(documents))
    environment = dict(os.environ, RAYON_NUM_THREADS=str(threads))
    command = [os.sys.executable, "-c", program, str(tokenizer), str(path)]
    found = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    return float(found.stdout)


def compare(args, kind, text):
    from tokenizers import Tokenizer

    folder = pathlib.Path(args.folder) / kind
    folder.mkdir(parents=True, exist_ok=True)
    whole = build(kind, text[: args.train], args.vocabulary)
    name = folder / "tokenizer.json"
    name.write_text(json.dumps(whole, ensure_ascii=False), encoding="utf-8")
    path = folder / "text.txt"
    path.write_bytes(text.encode())
    tokenizer = Tokenizer.from_file(str(name))
    theirs = tokenizer.encode(text, add_special_tokens=False).ids
    ours(args, folder, path)
    mine = read_ids(folder)
    same = mine == theirs
    if not same:
        show_difference(tokenizer, mine, theirs)
    decoded = tokenizer.decode(theirs, skip_special_tokens=False).encode()
    text_same = (folder / "back.txt").read_bytes() == decoded
    back = comes_back(args, kind, folder, text)
    line = f"{kind:8} {len(theirs)} tokens {'equal' if same else 'DIFFERENT'}, "
    line += f"decoded {'equal' if text_same else 'DIFFERENT'}, "
    line += f"broken UTF-8 {'comes back' if back else 'IS LOST'}"
    for count in sorted({1, args.threads}):
        seconds, others = 1e9, 1e9  # the fastest, in turn, for others may use the machine too
        for _ in range(args.rounds):
            seconds = min(seconds, ours(args, folder, path, count, 3))
            others = min(others, time_theirs(text, name, count))
        line += f"; {count} threads {len(text.encode()) / seconds / 1e6:.1f} MB/s,"
        line += f" {others / seconds:.1f} times theirs"
    print(line, flush=True)
    return same and text_same and back


def compare_training(args, text):
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    folder = pathlib.Path(args.folder) / "trained"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "text.txt"
    path.write_bytes(text.encode())
    begin = time.perf_counter()
    command = [args.trident, "tokenize", "--train-vocab", str(args.vocabulary)]
    command += ["--out", str(folder / "shards"), str(path)]
    subprocess.run(command, check=True, capture_output=True)
    mine = json.loads((folder / "shards/tokenizer/tokenizer.json").read_text())["model"]
    middle = time.perf_counter()
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=args.vocabulary - 1,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([text], trainer)
    theirs = json.loads(tokenizer.to_str())["model"]
    end = time.perf_counter()
    same = mine["merges"] == theirs["merges"] and mine["vocab"] == theirs["vocab"]
    print(
        f"trained  {len(theirs['merges'])} merges {'equal' if same else 'DIFFERENT'};"
        f" {middle - begin:.1f} s, and tokenized, beside {end - middle:.1f} s"
    )
    return same


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--program", default=str(ROOT / "build/release/bin/tokens"))
    parser.add_argument("--trident", default=str(ROOT / "build/release/bin/trident"))
    parser.add_argument("--folder", default="/tmp/trident-tokenizers")
    parser.add_argument("--megabytes", type=float, default=10)
    parser.add_argument("--train", type=int, default=2_000_000, help="characters")
    parser.add_argument("--vocabulary", type=int, default=32000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--kinds", default=",".join(KINDS))
    args = parser.parse_args()
    text = make_text(int(args.megabytes * 1e6), args.seed)
    begin = time.time()
    good = [compare(args, kind, text) for kind in args.kinds.split(",")]
    good.append(compare_training(args, text[: args.train]))
    print(f"{sum(good)} of {len(good)} equal, {time.time() - begin:.0f} s")
    raise SystemExit(0 if all(good) else 1)


if __name__ == "__main__":
    main()
