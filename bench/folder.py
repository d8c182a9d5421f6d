#!/usr/bin/env python3
"""What a large Hugging Face folder takes of a rank's memory: import, 3 steps from it, export, and 3
steps of low-rank pairs beside frozen bf16 weights.

    bench/folder.py [--gb 2] [--ranks 2] [--work DIR] [--mpi] [KEY=VALUE …]

Makes a folder of random f32 weights (OLMoE's shape), of so many GB, and prints for each command the
bytes a rank planned, what it counted at its peak, what its process took, and the whole model beside
them. Ranks are threads of one process (a process's memory, divided by them), with --mpi processes
of their own, whose peak the system says. KEY=VALUE go to both runs. Takes about six times the
folder's bytes of disk, and of memory what the plan says. BUILD=DIR has bin/trident.
"""
import argparse
import array
import json
import os
import random
import re
import shutil
import struct
import subprocess
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
HIDDEN, HEADS, EXPERTS, INNER, VOCABULARY, SEQ = 1024, 16, 16, 1024, 8192, 128
BLOCK = 1 << 18


def tensors(layers):
    """(name, shape), in the order of the file."""
    found = [("model.embed_tokens.weight", (VOCABULARY, HIDDEN)), ("model.norm.weight", (HIDDEN,)),
             ("lm_head.weight", (VOCABULARY, HIDDEN))]
    for i in range(layers):
        block = f"model.layers.{i}."
        found += [(block + f"self_attn.{m}_proj.weight", (HIDDEN, HIDDEN)) for m in "qkvo"]
        found += [(block + f"self_attn.{m}_norm.weight", (HIDDEN,)) for m in "qk"]
        found += [(block + f"{m}_layernorm.weight", (HIDDEN,))
                  for m in ("input", "post_attention")]
        found += [(block + "mlp.gate.weight", (EXPERTS, HIDDEN))]
        for j in range(EXPERTS):
            expert = block + f"mlp.experts.{j}."
            found += [(expert + "gate_proj.weight", (INNER, HIDDEN)),
                      (expert + "up_proj.weight", (INNER, HIDDEN)),
                      (expert + "down_proj.weight", (HIDDEN, INNER))]
    return found


def count(shape):
    return shape[0] * (shape[1] if len(shape) > 1 else 1)


def write_folder(folder, layers):
    """Numbers of one block, from another place in it for each tensor; norms are 1."""
    os.makedirs(folder)
    entries, at = {}, 0
    listed = tensors(layers)
    for name, shape in listed:
        end = at + 4 * count(shape)
        entries[name] = {"dtype": "F32", "shape": shape, "data_offsets": [at, end]}
        at = end
    entries["__metadata__"] = {"format": "pt"}
    header = json.dumps(entries).encode()
    header += b" " * (-len(header) % 8)
    draw = random.Random(7)
    block = array.array("f", (draw.gauss(0.0, 0.02) for _ in range(BLOCK))).tobytes()
    ones = array.array("f", [1.0] * HIDDEN).tobytes()
    with open(os.path.join(folder, "model.safetensors"), "wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        for name, shape in listed:
            left = 4 * count(shape)
            if "norm" in name:
                file.write(ones)
                continue
            begin = 4 * draw.randrange(BLOCK)
            while left > 0:
                piece = block[begin:begin + left]
                file.write(piece)
                left -= len(piece)
                begin = 0
    with open(os.path.join(folder, "config.json"), "w") as file:
        json.dump({"model_type": "olmoe", "architectures": ["OlmoeForCausalLM"],
                   "vocab_size": VOCABULARY, "hidden_size": HIDDEN, "num_hidden_layers": layers,
                   "num_attention_heads": HEADS, "num_key_value_heads": HEADS,
                   "intermediate_size": INNER, "max_position_embeddings": 4096,
                   "num_experts": EXPERTS, "num_experts_per_tok": 2, "norm_topk_prob": True,
                   "rope_theta": 10000.0, "tie_word_embeddings": False}, file)
    return at


def write_tokens(path):
    draw = random.Random(8)
    tokens = [draw.randrange(VOCABULARY) for _ in range(64 * SEQ)]
    with open(path, "wb") as file:
        file.write(struct.pack("<256i", 20240520, 1, len(tokens), *[0] * 253))
        file.write(struct.pack(f"<{len(tokens)}H", *tokens))


class Machine:
    def __init__(self, options, work):
        self.options, self.work = options, work
        build = os.environ.get("BUILD", os.path.join(ROOT, "build", "release"))
        self.trident = os.path.join(os.path.abspath(build), "bin", "trident")

    def run(self, *words):
        """Standard output, and the largest process's peak in bytes."""
        ranks = str(self.options.ranks)
        command = [self.trident, *words, "--ranks", ranks]
        if self.options.mpi:
            command = ["mpirun", "--allow-run-as-root", "--oversubscribe", "--bind-to", "none",
                       "-n", ranks, self.trident, *words]
        with tempfile.TemporaryFile("w+") as out:
            child = subprocess.Popen(command, cwd=self.work, stdout=out, stderr=subprocess.STDOUT)
            _, status, use = os.wait4(child.pid, 0)
            out.seek(0)
            text = out.read()
        if status != 0:
            raise SystemExit(f"{' '.join(command)}: {text[-500:]}")
        each = 1 if self.options.mpi else self.options.ranks
        return text, 1024 * use.ru_maxrss / each

    def row(self, what, planned, counted, peak, whole):
        print(f"{what:8} {planned:10.1f} {counted:10.1f} {peak / 1e6:10.1f} {whole / 1e6:12.1f}",
              flush=True)


def numbers(pattern, text):
    found = re.search(pattern, text)
    if not found:
        raise SystemExit(f"no figures in: {text[-500:]}")
    return [float(word) for word in found.groups()]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--gb", type=float, default=2.0)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--work")
    parser.add_argument("--mpi", action="store_true")
    parser.add_argument("keys", nargs="*")
    options = parser.parse_intermixed_args()
    work = tempfile.mkdtemp(prefix="trident-folder-", dir=options.work)
    machine = Machine(options, work)
    each = 4 * sum(count(shape) for name, shape in tensors(1) if ".layers.0." in name)
    layers = max(1, round((options.gb * 1e9 - 8 * VOCABULARY * HIDDEN) / each))
    try:
        whole = write_folder(os.path.join(work, "model"), layers)
        write_tokens(os.path.join(work, "tokens.bin"))
        print(f"{layers} layers, {whole / 1e9:.2f} GB in f32, {options.ranks} ranks as "
              f"{'processes' if options.mpi else 'threads'}; MB a rank")
        print(f"{'':8} {'planned':>10} {'counted':>10} {'process':>10} {'whole model':>12}")
        line = r"memory +([\d.]+) MB a rank planned, ([\d.]+) counted"
        text, peak = machine.run("import", "model", "in")
        machine.row("import", *numbers(line, text), peak, whole)
        shutil.rmtree(os.path.join(work, "in"))
        with open(os.path.join(work, "run.yaml"), "w") as file:
            file.write(f"init_from: model\nrun_dir: run\nthreads: 1\n"
                       f"data: {{train: tokens.bin, sequence_length: {SEQ}}}\n"
                       f"parallel: {{expert: {options.ranks}}}\n"
                       f"train: {{global_batch: {2 * options.ranks}, steps: 3}}\n")
        text, peak = machine.run("train", "run.yaml", *options.keys)
        total = r"\n *total +([\d.]+) +([\d.]+)"
        machine.row("3 steps", *numbers(total, text), peak, whole)
        text, peak = machine.run("export", "run", "out")
        machine.row("export", *numbers(line, text), peak, whole)
        text, peak = machine.run("train", "run.yaml", "run_dir=low", "precision=bf16",
                                 "train.lora.rank=8", *options.keys)
        machine.row("LoRA", *numbers(total, text), peak, whole)
    finally:
        shutil.rmtree(work)


if __name__ == "__main__":
    main()
