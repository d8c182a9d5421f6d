"""GGUF files that Trident writes, as others see them: check.py TRIDENT DIR, called by check.sh.

Trains small models of each family a little, exports them and compares
- how many numbers the `gguf` package reads with the model's parameters,
- the perplexity by llama.cpp with that of `trident eval`, over the same rows,
- tokens by llama.cpp with those that the `tokenizers` package made (tests/data/golden)."""

import ctypes
import glob
import importlib.util
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile

import gguf
import numpy as np

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
GOLDEN = os.path.join(ROOT, "tests/data/golden/tokenizers")
SEQUENCE = 64
BOUND = 1e-4
DENSE = {"num_layers": 3, "hidden_size": 64, "num_heads": 4, "num_kv_heads": 2,
         "intermediate_size": 160}
EVEN = dict(DENSE, num_kv_heads=4)
MOE = {"num_experts": 8, "top_k": 2, "intermediate_size": 96}
GPT2 = dict(EVEN, norm="layernorm", position="learned", bias="all", mlp="gelu",
            tie_embeddings=True, max_position=SEQUENCE)

# name: sections model and moe.
MODELS = {
    "llama": (DENSE, None),
    "llama_tied": (dict(DENSE, tie_embeddings=True, bias="all"), None),
    "llama_linear": (dict(DENSE, rope_scaling="linear", rope_factor=2.0), None),
    "llama_llama3": (dict(DENSE, head_dim=32, rope_scaling="llama3", rope_factor=8.0,
                          rope_original=16), None),
    "mixtral": (DENSE, MOE),
    "olmoe": (dict(EVEN, qk_norm="full"), dict(MOE, normalize_top_k=False)),
    "qwen2_moe": (dict(DENSE, bias="qkv"),
                  dict(MOE, normalize_top_k=False, shared_intermediate_size=128,
                       shared_gate=True)),
    "qwen3_moe": (dict(DENSE, qk_norm="head", head_dim=32), MOE),
    "qwen3": (dict(DENSE, qk_norm="head", head_dim=32), None),
    "llama_yarn": (dict(DENSE, rope_scaling="yarn", rope_factor=4.0, rope_original=16), None),
    "gpt2": (GPT2, None),
}

# Which this llama.cpp, of April 2025, does not know yet: read by `gguf` alone.
NEWER = ("qwen3", "qwen3_moe")


def load_llama():
    """The module of llama-cpp-cffi for processors: the package itself wants much more. It was built
    with GCC 13, of whose runtime Debian 12 lacks one function that ends a process."""
    with tempfile.TemporaryDirectory() as folder:
        with open(folder + "/end.c", "w", encoding="utf-8") as file:
            file.write("#include <stdlib.h>\nvoid __cxa_call_terminate(void *e)\n"
                       "{ (void)e; abort(); }\n")
        subprocess.run(["cc", "-shared", "-fPIC", "-o", folder + "/end.so", folder + "/end.c"],
                       check=True)
        ctypes.CDLL(folder + "/end.so", ctypes.RTLD_GLOBAL)
    path = [found for folder in sys.path
            for found in glob.glob(folder + "/llama/_llama_cpp_cpu.*.so")][0]
    spec = importlib.util.spec_from_file_location("_llama_cpp_cpu", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.ffi, module.lib


FFI, LIB = load_llama()


class Llama:
    """A file in llama.cpp, with f32 keys and values."""

    def __init__(self, path):
        self.model = LIB.llama_model_load_from_file(
            path.encode(), LIB.llama_model_default_params())
        assert self.model != FFI.NULL, path
        self.vocab = LIB.llama_model_get_vocab(self.model)
        params = LIB.llama_context_default_params()
        params.n_ctx = params.n_batch = params.n_ubatch = SEQUENCE
        params.n_seq_max = 1
        params.type_k = params.type_v = 0
        params.flash_attn = False
        params.n_threads = params.n_threads_batch = 1
        self.context = LIB.llama_init_from_model(self.model, params)
        assert self.context != FFI.NULL, path
        self.size = LIB.llama_vocab_n_tokens(self.vocab)

    def close(self):
        LIB.llama_free(self.context)
        LIB.llama_model_free(self.model)

    def losses(self, tokens):
        """Of each token but the first, given those before it."""
        inputs = len(tokens) - 1
        LIB.llama_kv_self_clear(self.context)
        batch = LIB.llama_batch_init(inputs, 0, 1)
        batch.n_tokens = inputs
        for i in range(inputs):
            batch.token[i], batch.pos[i], batch.n_seq_id[i] = int(tokens[i]), i, 1
            batch.seq_id[i][0], batch.logits[i] = 0, 1
        assert LIB.llama_decode(self.context, batch) == 0
        rows = []
        for i in range(inputs):
            data = LIB.llama_get_logits_ith(self.context, i)
            logits = np.frombuffer(FFI.buffer(data, 4 * self.size), np.float32)
            logits = logits.astype(np.float64)
            most = logits.max()
            rows.append(most + math.log(np.exp(logits - most).sum()) - logits[tokens[i + 1]])
        LIB.llama_batch_free(batch)
        return rows

    def tokenize(self, text):
        data = text.encode("utf-8", "surrogatepass")
        room = 4 * len(data) + 16
        out = FFI.new("int32_t[]", room)
        count = LIB.llama_tokenize(self.vocab, data, len(data), out, room, False, True)
        return [out[i] for i in range(count)]


def run(*words):
    result = subprocess.run(words, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        sys.exit(" ".join(words) + ":\n" + result.stderr)
    return result.stdout


def train(trident, name, shards, vocab, model, moe, steps):
    config = {
        "run_dir": name,
        "model": dict(model, vocab_size=vocab),
        "data": {"train": shards + "/train_*.bin", "valid": shards + "/valid_*.bin",
                 "sequence_length": SEQUENCE},
        "train": {"global_batch": 8, "steps": steps, "learning_rate": 3e-3,
                  "warmup_steps": min(5, steps - 1)},
    }
    if moe:
        config["moe"] = moe
    with open(name + ".yaml", "w", encoding="utf-8") as file:
        json.dump(config, file)
    run(trident, "train", name + ".yaml")


def export(trident, name, dtype):
    path = f"{name}.{dtype}.gguf"
    said = run(trident, "export", name, path, "--format", "gguf", "--dtype", dtype, "--json")
    return path, json.loads(said)["parameters"]


def perplexity(path, tokens):
    llama = Llama(path)
    losses = []
    for at in range(0, len(tokens) - 1, SEQUENCE):
        losses += llama.losses(tokens[at:at + SEQUENCE + 1])
    llama.close()
    return math.exp(sum(losses) / len(losses)), len(losses)


def read_shard(path):
    return np.fromfile(path, np.uint16, offset=1024).astype(np.int64)


def check_model(trident, name, model, moe, tokens):
    train(trident, name, "data", 512, model, moe, 40)
    ours = json.loads(run(trident, "eval", name, "--json"))
    expected, worst = ours["perplexity"], 0.0
    line = f"{name:13} trident {expected:.5f}"
    for dtype in ("f32", "bf16", "q8_0"):
        path, parameters = export(trident, name, dtype)
        reader = gguf.GGUFReader(path)
        held = sum(int(t.n_elements) for t in reader.tensors if t.name != "rope_freqs.weight")
        assert held == parameters, (held, parameters)
        if name in NEWER:
            line += f"  {dtype} read"
            continue
        found, count = perplexity(path, tokens)
        assert count == ours["tokens"], count
        off = abs(found / expected - 1)
        worst = off if dtype == "f32" else worst
        line += f"  {dtype} {found:.5f} ({off:.1e})"
    print(line, "" if worst <= BOUND else "  TOO FAR", flush=True)
    return worst <= BOUND


def check_tokenizer(trident, name):
    given = os.path.join(GOLDEN, name)
    text = os.path.join(ROOT, "examples/data/tinyshakespeare.txt")
    shards = "data_" + name
    made = json.loads(run(trident, "tokenize", "--tokenizer", given, "--out", shards, "--valid",
                          "0.05", "--json", text))
    train(trident, "tokens_" + name, shards, made["vocab_size"], DENSE, None, 1)
    llama = Llama(export(trident, "tokens_" + name, "f32")[0])
    texts = other = 0
    with open(os.path.join(given, "ids.jsonl"), encoding="utf-8") as file:
        for line in file:
            case = json.loads(line)
            texts += 1
            if llama.tokenize(case["text"]) != case["ids"]:
                other += 1
                if os.environ.get("SHOW"):
                    print(repr(case["text"][:100]), case["ids"][:20],
                          llama.tokenize(case["text"])[:20])
    prose = open(text, encoding="utf-8").read()[:200000]
    path = os.path.join(shards, "train_000000.bin")
    mine = read_shard(path)
    theirs = llama.tokenize(prose)
    same = list(mine[:len(theirs) - 8]) == theirs[:len(theirs) - 8]
    print(f"tokenizer {name:8} {texts - other} of {texts} texts have the same tokens; "
          f"{len(theirs)} tokens of prose {'too' if same else 'DIFFER'}", flush=True)
    llama.close()
    return same


def main():
    trident, folder = os.path.abspath(sys.argv[1]), sys.argv[2]
    made = os.path.join(folder, "made_by_gguf_check")
    if os.path.isdir(folder) and os.listdir(folder) and not os.path.exists(made):
        sys.exit(f"{folder} is not empty and was not made by this program: not removed")
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    open(made, "w", encoding="utf-8").close()
    os.chdir(folder)
    run(trident, "tokenize", "--train-vocab", "512", "--out", "data", "--valid", "0.01",
        os.path.join(ROOT, "examples/data/tinyshakespeare.txt"))
    tokens = read_shard("data/valid_000000.bin")
    good = [check_model(trident, name, *sections, tokens) for name, sections in MODELS.items()]
    good += [check_tokenizer(trident, name) for name in sorted(os.listdir(GOLDEN))
             if os.path.isdir(os.path.join(GOLDEN, name))]
    sys.exit(0 if all(good) else 1)


main()
