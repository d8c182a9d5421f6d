"""Damages tokenizer.json files and hands them to Trident: fuzz.py [--program build/asan/bin/tokens]
[--count N] [--seed N]. Every one must be read or refused in one line; prints what was not."""

import argparse
import copy
import json
import pathlib
import random
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests/data/golden/tokenizers"
VALUES = [None, True, False, 0, -1, 1, 2, 255, 256, 1500, 1503, 4194303, 4194304, 2**31, 2**40, 1e9]
VALUES += ["", " ", "a", "\u2581", "ab", "\u0120", "<0x0A>", "x" * 5000, "(", "[", "\\p{L}+", "a*"]
VALUES += ["(a+)+$", "\\s", "[^\\s]*", [], {}, [[]], ["a", "b"], {"type": "Sequence"}]
TYPES = ["Sequence", "Split", "ByteLevel", "Metaspace", "Digits", "NFC", "NFKD", "Prepend"]
TYPES += ["Replace", "TemplateProcessing", "Strip", "Fuse", "ByteFallback", "BPE", "Unigram", ""]


def places(value, limit=60):
    """Objects and lists with keys of theirs; of long ones a few."""
    found = []
    if isinstance(value, (dict, list)):
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        for key in keys if len(keys) <= limit else random.sample(keys, limit):
            found.append((value, key))
            found += places(value[key], limit)
    return found


def damage(whole):
    whole = copy.deepcopy(whole)
    for _ in range(random.choice([1, 1, 1, 2, 5])):
        found = places(whole)
        if random.random() < 0.7:  # not the thousands of tokens and merges
            found = [place for place in found if len(place[0]) < 50] or found
        holder, key = random.choice(found)
        kind = random.choice([0, 1, 2, 3, 4, 4, 4, 5])
        if kind == 0 and isinstance(holder, dict):
            del holder[key]
        elif kind == 0:
            holder.append(copy.deepcopy(holder[key]))
        elif kind == 1 and isinstance(holder, dict) and "type" in holder:
            holder["type"] = random.choice(TYPES)
        elif kind == 2:
            holder[key] = copy.deepcopy(whole)
        elif kind == 3:
            other, name = random.choice(places(whole))
            holder[key] = copy.deepcopy(other[name])
        else:
            alike = [value for value in VALUES if type(value) is type(holder[key])]
            holder[key] = copy.deepcopy(random.choice(alike if alike and kind == 4 else VALUES))
        if len(json.dumps(whole)) > 2_000_000:
            break
    text = json.dumps(whole, ensure_ascii=random.random() < 0.5).encode("utf-8", "surrogatepass")
    if random.random() < 0.1:
        at = random.randrange(len(text))
        text = text[:at] + bytes([random.randrange(256)]) + text[at + 1 :]
    if random.random() < 0.05:
        text = text[: random.randrange(len(text))]
    return text


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--program", default=str(ROOT / "build/asan/bin/tokens"))
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    random.seed(args.seed)
    wholes = [json.loads(path.read_text()) for path in sorted(GOLDEN.glob("*/tokenizer.json"))]
    folder = pathlib.Path("/tmp/trident-fuzz")
    folder.mkdir(exist_ok=True)
    text = folder / "text.bin"
    mixed = "the <think> cat's  ra\u0301n 123 \U0001F600</think>  <|endoftext|>\n\n x"
    text.write_bytes(mixed.encode() + b"\xff\xc3" * 9)
    bad = taken = 0
    for i in range(args.count):
        path = folder / "tokenizer.json"
        path.write_bytes(damage(random.choice(wholes)))
        try:
            done = subprocess.run(
                [args.program, str(path), str(text), "--rounds", "1"],
                capture_output=True,
                timeout=60,
            )
            lines = done.stderr.count(b"\n")
            good = (done.returncode == 0 and lines == 0) or (done.returncode == 1 and lines == 1)
            taken += done.returncode == 0
        except subprocess.TimeoutExpired:
            good = False
        if not good:
            bad += 1
            kept = folder / f"bad-{args.seed}-{i}.json"
            kept.write_bytes(path.read_bytes())
            print(kept, done.returncode, done.stderr[-300:])
    print(f"{args.count} files, {taken} taken, {bad} bad")
    raise SystemExit(1 if bad else 0)


if __name__ == "__main__":
    main()
