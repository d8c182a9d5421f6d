#!/usr/bin/env python3
"""Training a shape further from its Hugging Face folder against bench/step on random weights and
random tokens: what init_from, the run around the steps and packed documents take of the speed.

    bench/finetune.py SHAPE [--rounds 3] [--steps 6] [--work DIR] [KEY=VALUE …]

Makes a folder of the shape (random weights, written by `trident export`) and shards of documents of
8 to 1,000 tokens, then in turn, so that all meet the same noise: `step SHAPE`; `trident train` from
the folder on rows of data.sequence_length tokens; the same with documents packed into rows. Prints
medians over the rounds of a step's time (the first step of each run left out) and of its speed
beside that of `step` in the same round. KEY=VALUE go to all three. One process of all cores; takes
four times the folder's bytes of disk. BUILD=DIR has bin/step and bin/trident.
"""
import argparse
import json
import os
import random
import shutil
import statistics
import struct
import subprocess
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BIN = os.path.join(os.path.abspath(os.environ.get("BUILD", os.path.join(ROOT, "build/release"))),
                   "bin")
SEPARATOR = 0


def run(work, *words):
    done = subprocess.run(words, cwd=work, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(words)}: {done.stderr[-500:]}")
    return done.stdout


def write_documents(path, vocabulary, tokens):
    """A shard of llm.c's form: random tokens, each document ends in the separator."""
    draw = random.Random(8)
    text = []
    while len(text) < tokens:
        length = draw.randrange(8, 1000)
        text += [draw.randrange(1, vocabulary) for _ in range(length)] + [SEPARATOR]
    with open(path, "wb") as file:
        file.write(struct.pack("<256i", 20240520, 1, len(text), *[0] * 253))
        file.write(struct.pack(f"<{len(text)}H", *text))


def step_ms(work):
    with open(os.path.join(work, "run", "metrics.jsonl")) as file:
        lines = [json.loads(line) for line in file]
    return statistics.median([line["step_ms"] for line in lines if "step_ms" in line][1:])


def value(yaml, key):
    return int(next(line for line in yaml.split("\n") if line.strip().startswith(key + ":"))
               .split(":")[1].split("#")[0])


def make_folder(work, shape, keys):
    yaml = run(work, os.path.join(BIN, "step"), shape, "--config", *keys)
    with open(os.path.join(work, "shape.yaml"), "w") as file:
        file.write(yaml)
    vocabulary, batch = value(yaml, "vocab_size"), value(yaml, "global_batch")
    write_documents(os.path.join(work, "tokens.bin"), vocabulary,
                    64 * batch * value(yaml, "sequence_length"))
    trident = os.path.join(BIN, "trident")
    run(work, trident, "train", "shape.yaml", "run_dir=seed", "train.steps=1",
        "data.train=tokens.bin")
    run(work, trident, "export", "seed", "model")
    shutil.rmtree(os.path.join(work, "seed"))


def finetune(work, steps, keys):
    shutil.rmtree(os.path.join(work, "run"), ignore_errors=True)
    run(work, os.path.join(BIN, "trident"), "train", "shape.yaml", "init_from=model", "run_dir=run",
        "data.train=tokens.bin", f"data.separator={SEPARATOR}", f"train.steps={steps + 1}", *keys)
    return step_ms(work)


def plain(work, shape, steps, keys):
    out = run(work, os.path.join(BIN, "step"), shape, "--json", "--no-ceiling", "--warm", "1",
              "--steps", str(steps), *keys)
    return json.loads(out)["step_ms"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("shape")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--work")
    parser.add_argument("keys", nargs="*")
    options = parser.parse_intermixed_args()
    work = tempfile.mkdtemp(prefix="trident-finetune-", dir=options.work)
    ways = {
        "bench/step": lambda: plain(work, options.shape, options.steps, options.keys),
        "from the folder": lambda: finetune(work, options.steps, options.keys),
        "packed": lambda: finetune(work, options.steps,
                                   ["data.packing=documents", *options.keys]),
    }
    times = {way: [] for way in ways}
    try:
        make_folder(work, options.shape, options.keys)
        for _ in range(options.rounds):
            for way, measure in ways.items():
                times[way].append(measure())
        first = times["bench/step"]
        for way, found in times.items():
            speeds = [a / b for a, b in zip(first, found)]
            print(f"{options.shape:12} {way:16} {statistics.median(found):9.1f} ms a step, speed "
                  f"{statistics.median(speeds):.3f} ({min(speeds):.3f} to {max(speeds):.3f})")
    finally:
        shutil.rmtree(work)


if __name__ == "__main__":
    main()
