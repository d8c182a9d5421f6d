#!/usr/bin/env python3
"""Low-rank pairs go from PEFT to Trident and back; logits are compared.

    cmake --preset release && cmake --build --preset release
    python3 -m venv venv && venv/bin/pip install torch transformers peft
    venv/bin/python tools/interop/check_adapters.py [BUILD]

With transformers 4 or 5. Of mixtral, olmoe, qwen2_moe and gpt2 in tests/data/golden:
  adapter  PEFT's adapter there, imported and exported: loads in PEFT, equal logits
  merged   the same with --merge: loads in transformers, equal logits
  trained  pairs trained here for 20 steps on 3 ranks: the adapter in PEFT and the merged model
           compute the same logits, which are not the base model's
  fused    (transformers 5, attention and experts) the same with --fused
What reads PEFT's files here, and computes with them, is held to PEFT's logits, losses and gradients
by reference_check. Prints a line each (relative L2 distance); exits 1 when one fails.
"""
import os
import subprocess
import sys
import tempfile

import torch
import transformers
from peft import PeftModel
from safetensors.torch import load_file

from make_adapters import load

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
FAMILIES = {"mixtral": "attention,experts", "olmoe": "attention,experts",
            "qwen2_moe": "attention,shared,mlp", "gpt2": "attention,mlp"}
LIMIT = 1e-5


def logits(model, ids):
    model.eval()
    with torch.no_grad():
        return model(input_ids=ids).logits


def distance(a, b):
    return ((a - b).norm() / b.norm()).item()


def check(family, trident, work):
    def run(*words):
        subprocess.run([trident, *words], check=True, cwd=work, stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL)

    base = os.path.join(ROOT, "tests", "data", "golden", family)
    reference = load_file(os.path.join(base, "adapter", "adapted.safetensors"))
    ids = reference["input_ids"]

    def of_adapter(folder):
        return logits(PeftModel.from_pretrained(load(base), os.path.join(work, folder)), ids)

    def of_merged(folder):
        return logits(load(os.path.join(work, folder)), ids)

    run("import", base, "it", "--adapter", os.path.join(base, "adapter"))
    run("export", "it", "adapter")
    run("export", "it", "merged", "--merge")
    yield "adapter", distance(of_adapter("adapter"), reference["logits"])
    yield "merged", distance(of_merged("merged"), reference["logits"])
    run("train", "--ranks", "3", "run.yaml", "init_from=" + base, "threads=1",
        "data.train=tok/train_*.bin", "data.sequence_length=32", "train.global_batch=6",
        "train.steps=20", "train.learning_rate=1e-2", "train.lora.rank=4",
        "train.lora.targets=" + FAMILIES[family])
    run("export", "run", "trained")
    run("export", "run", "whole", "--merge", "--ranks", "2")
    trained = of_adapter("trained")
    moved = distance(trained, logits(load(base), ids))
    yield "trained", distance(trained, of_merged("whole")) if moved > 0.01 else float("inf")
    if FAMILIES[family] == "attention,experts" and int(transformers.__version__.split(".")[0]) > 4:
        run("export", "run", "fused", "--fused")
        yield "fused", distance(of_adapter("fused"), of_merged("whole"))


def main():
    build = sys.argv[1] if len(sys.argv) > 1 else os.path.join(ROOT, "build", "release")
    trident = os.path.join(os.path.abspath(build), "bin", "trident")
    failed = 0
    for family in FAMILIES:
        with tempfile.TemporaryDirectory() as work:
            text = os.path.join(work, "text.txt")
            with open(text, "w") as file:
                file.write("the sea and the wind rose, and fell again.\n" * 200)
            with open(os.path.join(work, "run.yaml"), "w") as file:
                file.write("run_dir: run\n")
            subprocess.run([trident, "tokenize", "--tokenizer", "byte", "--out", "tok", text],
                           check=True, cwd=work, stdout=subprocess.DEVNULL)
            for name, found in check(family, trident, work):
                failed += not found <= LIMIT
                print(f"{'ok' if found <= LIMIT else 'FAIL':4}  {family:10} {name:8} {found:.2e}")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
