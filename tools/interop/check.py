#!/usr/bin/env python3
"""Models go from transformers to Trident and back, and every number is compared.

    cmake --preset release && cmake --build --preset release
    python3 tools/interop/check.py [--only REGEX] [--venv DIR] [--build DIR] [--keep DIR]

Where torch and transformers cannot be imported, a virtual environment with torch, transformers,
tokenizers, safetensors, peft and numpy is made in --venv first (build/interop-venv, some GB) and
used from then on.

Tiny random models of every family, with and without scaled rope and windows, are saved by
transformers in f32, bf16 and f16, in one file and in many. Of each folder:
  begin   a run that begins with it (init_from) has transformers' loss and, for every tensor, its
          gradient (relative L2 1e-5; read from Adam's first moments after one step)
  values  logits, router logits, gradients, losses by reference_check, where there is one file
  back    export of what was imported has every tensor, name, type, shape and byte of the folder
  digest  a folder in many files has the weights of the one in one file
and of those in f32 and bf16 in one file:
  train   20 steps here; the export loads in transformers with no warning and nothing missing or
          left over, and both programs compute the same logits and losses of it
  pairs   (f32, where peft is there) low-rank pairs trained here load in PEFT and have the logits of
          the merged export; pairs made by PEFT have its loss here, and its logits once merged
Prints a line for each and exits 1 when one fails.
"""
import argparse
import glob
import importlib.util
import json
import logging
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import warnings

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
GOLDEN = os.path.join(ROOT, "tests", "data", "golden")
PACKAGES = ["torch", "transformers", "tokenizers", "safetensors", "peft", "numpy"]
SEQ = 48  # and one token more: the one row that a run can cut
STEPS = 20


def parse():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", default=".", help="cases whose name matches")
    parser.add_argument("--venv", default=os.path.join(ROOT, "build", "interop-venv"))
    parser.add_argument("--build", default=os.path.join(ROOT, "build", "release"))
    parser.add_argument("--keep", help="a folder for what is made, kept")
    return parser.parse_args()


def enter_venv(venv):
    """Runs this script in a virtual environment that has what it needs."""
    try:
        import numpy, safetensors, torch, transformers  # noqa: F401
        return
    except ImportError:
        pass
    python = os.path.join(venv, "bin", "python")
    if os.path.realpath(sys.prefix) == os.path.realpath(venv):
        sys.exit(f"{venv}: torch or transformers cannot be imported")
    if not os.path.exists(python):
        subprocess.run([sys.executable, "-m", "venv", venv], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q"] + PACKAGES, check=True)
    os.execv(python, [python] + sys.argv)


class Checks:
    def __init__(self):
        self.passed = self.failed = 0

    def say(self, ok, case, what, text):
        self.passed, self.failed = self.passed + bool(ok), self.failed + (not ok)
        print(f"{'ok  ' if ok else 'FAIL'}  {case:28} {what:7} {text}", flush=True)


def run(args, cwd):
    if args[1] in ("train", "import", "export"):
        args = args + ["--ranks", "1"]  # without MPI, which hundreds of starts wear out
    result = subprocess.run(args, cwd=cwd, capture_output=True, text=True)
    if result.returncode != 0:
        raise RuntimeError(f"{' '.join(args[:3])} …: {result.returncode}: "
                           f"{(result.stderr or result.stdout).strip()[-300:]}")
    return result.stdout


# ---- files ------------------------------------------------------------------------------------


def tensors_of(folder):
    """{name: (dtype, shape, bytes)} of all safetensors of a folder."""
    tensors = {}
    for path in glob.glob(os.path.join(folder, "*.safetensors")):
        if os.path.basename(path) == "reference.safetensors":
            continue
        with open(path, "rb") as file:
            data = file.read()
        size, = struct.unpack("<Q", data[:8])
        for name, entry in json.loads(data[8:8 + size]).items():
            if name != "__metadata__":
                begin, end = entry["data_offsets"]
                tensors[name] = (entry["dtype"], entry["shape"],
                                 data[8 + size + begin:8 + size + end])
    return tensors


def write_tokens(path, tokens):
    """A shard as llm.c writes it."""
    header = [20240520, 1, len(tokens)] + [0] * 253
    with open(path, "wb") as file:
        file.write(struct.pack("<256i", *header) + struct.pack(f"<{len(tokens)}H", *tokens))


# ---- Trident's names --------------------------------------------------------------------------


def places(family, name, value):
    """[(Trident's name, value)] of a tensor of transformers."""
    if family == "gpt2":
        name = name.removeprefix("transformer.")
        name = re.sub(r"^h\.", "layers.", name)
        for theirs, ours in (("wte.", "embedding."), ("wpe.", "position."),
                             ("ln_f.", "final_norm."), (".ln_1.", ".norm1."),
                             (".ln_2.", ".norm2."), (".attn.c_proj.", ".attention.o."),
                             (".mlp.c_fc.", ".mlp.up."), (".mlp.c_proj.", ".mlp.down.")):
            name = name.replace(theirs, ours)
        matrix = value.dim() == 2 and ".attention." in name or ".mlp." in name and value.dim() == 2
        if ".attn.c_attn." in name:
            parts = value.chunk(3, dim=-1)
            return [(name.replace(".attn.c_attn.", f".attention.{which}."),
                     part.t() if part.dim() == 2 else part) for which, part in zip("qkv", parts)]
        return [(name, value.t() if matrix else value)]
    name = name.removeprefix("model.")
    for theirs, ours in (("embed_tokens.", "embedding."), ("lm_head.", "head."),
                         (".input_layernorm.", ".norm1."), (".self_attn.", ".attention."),
                         (".post_attention_layernorm.", ".norm2."), ("_proj.", "."),
                         (".block_sparse_moe.gate.", ".moe.router."),
                         (".block_sparse_moe.", ".moe."), (".w1.", ".gate."), (".w3.", ".up."),
                         (".w2.", ".down."),
                         (".mlp.experts.", ".moe.experts."),
                         (".mlp.shared_expert.", ".moe.shared."),
                         (".mlp.shared_expert_gate.", ".moe.shared_gate.")):
        name = name.replace(theirs, ours)
    if name.startswith("norm."):
        name = "final_" + name
    return [(name, value)]


def router_name(kind, theirs, ours):
    """Both a router and a dense MLP's matrix are called gate here and there."""
    if kind != "mixtral" and re.search(r"\.mlp\.gate\.weight$", theirs):
        return ours.replace(".mlp.gate.weight", ".moe.router.weight")
    return ours


# ---- the checks -------------------------------------------------------------------------------


class Interop:
    def __init__(self, options, work):
        self.work, self.checks = work, Checks()
        self.peft = importlib.util.find_spec("peft") is not None
        programs = os.path.join(os.path.abspath(options.build), "bin")
        self.trident = os.path.join(programs, "trident")
        self.reference_check = os.path.join(programs, "reference_check")

    def rows(self, tokens):
        return tokens[None, :-1].clone(), tokens[None, 1:].clone()

    def load(self, folder):
        """The model in f32, and what transformers had to say while it loaded."""
        import torch
        import transformers
        said = []

        class Handler(logging.Handler):
            def emit(self, record):
                said.append(record.getMessage())

        handler = Handler(level=logging.WARNING)
        logging.getLogger("transformers").addHandler(handler)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            model, info = transformers.AutoModelForCausalLM.from_pretrained(
                folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True)
        logging.getLogger("transformers").removeHandler(handler)
        said += [str(warning.message) for warning in caught]
        said += [f"{key}: {value}" for key, value in info.items() if value]
        return model.eval(), said

    def begin_run(self, case, folder, steps, run_dir, extra, rate):
        with open(os.path.join(self.work, "run.yaml"), "w") as file:
            file.write("precision: f32\nthreads: 1\n"
                       f"data: {{train: tokens.bin, sequence_length: {SEQ}}}\n"
                       f"train: {{global_batch: 1, steps: {steps}, learning_rate: {rate}, "
                       "betas: [0.9, 0.95], clip: 0, weight_decay: 0}\n")
        run([self.trident, "train", "run.yaml", f"init_from={folder}", f"run_dir={run_dir}"] +
            extra, self.work)
        with open(os.path.join(self.work, run_dir, "metrics.jsonl")) as file:
            return [line for line in map(json.loads, file) if "aux_loss" in line or "loss" in line]

    def moments(self, run_dir, step):
        """{name: m} after a step."""
        from safetensors.torch import load_file
        found = {}
        for path in glob.glob(os.path.join(self.work, run_dir, "checkpoints", f"step_{step}",
                                           "optimizer-*.safetensors")):
            found.update(load_file(path))
        return {name[2:]: value for name, value in found.items() if name.startswith("m.")}

    def check_begin(self, case, folder, kind, values, extra):
        metrics = self.begin_run(case, folder, 1, f"{case}.run", extra, 1e-3)
        loss, expected = metrics[0]["loss"], values["loss"].item()
        found = self.moments(f"{case}.run", 1)
        whole = sum(float((v.double() ** 2).sum()) for k, v in values.items()
                    if k.startswith("grad.")) ** 0.5
        worst, count, name_of_worst = 0.0, 0, ""
        for theirs, gradient in values.items():
            if not theirs.startswith("grad."):
                continue
            for ours, part in places(kind, theirs[5:], gradient):
                ours = router_name(kind, theirs[5:], ours)
                got = found.pop(ours).double().reshape(part.shape) / 0.1
                norm = float((part.double() ** 2).sum()) ** 0.5
                error = float(((got - part.double()) ** 2).sum()) ** 0.5
                relative = error / norm if norm > 1e-3 * whole else error / (1e-3 * whole)
                count += 1
                if relative >= worst:
                    worst, name_of_worst = relative, ours
        close = abs(loss - expected) <= 2e-6 * expected
        self.checks.say(close and worst <= 1e-5 and not found, case, "begin",
                        f"loss {loss:.7f} ({expected:.7f}), {count} gradients, worst {worst:.1e} "
                        f"{name_of_worst}{' left over: ' + str(list(found)) if found else ''}")

    def check_values(self, case, what, folder, values, extra):
        from make_fixtures import save_values
        save_values(folder, values)
        result = subprocess.run([self.reference_check, folder, "--ranks", "1"] + extra,
                                capture_output=True, text=True)
        os.remove(os.path.join(folder, "reference.safetensors"))
        lines = (result.stdout or result.stderr or "nothing printed").strip().split("\n")
        bad = [line for line in lines if line.startswith("FAIL")]
        self.checks.say(result.returncode == 0, case, what,
                        lines[-1] + (": " + bad[0] if bad else ""))

    def check_back(self, case, folder, dtype):
        run([self.trident, "import", folder, f"{case}.in"], self.work)
        run([self.trident, "export", f"{case}.in", f"{case}.out", "--dtype", dtype], self.work)
        before, after = tensors_of(folder), tensors_of(os.path.join(self.work, f"{case}.out"))
        wrong = [name for name in before if before[name] != after.get(name)]
        extra = [name for name in after if name not in before]
        text = (f"{len(before)} tensors, {sum(len(t[2]) for t in before.values())} bytes the same"
                if not wrong and not extra else f"differ: {(wrong + extra)[:3]}")
        self.checks.say(not wrong and not extra and before, case, "back", text)

    def digest(self, name):
        return json.loads(run([self.trident, "inspect", name, "--json"], self.work))["digest"]

    def check_trained(self, case, folder, kind, tokens, extra, here, dtype):
        from make_fixtures import reference
        self.begin_run(case, folder, STEPS, f"{case}.trained", extra, 1e-3)
        out = os.path.join(self.work, f"{case}.trained.out")
        run([self.trident, "export", f"{case}.trained", out, "--dtype", dtype], self.work)
        model, said = self.load(out)
        self.checks.say(not said, case, "train",
                        f"{STEPS} steps, exported as {dtype}, " +
                        ("loads in silence" if not said else f"transformers says: {said[:2]}"))
        values = reference(model, kind, *self.rows(tokens))
        self.check_values(case, "train", out, values, here)

    def logits(self, model, tokens):
        import torch
        with torch.no_grad():
            return model(self.rows(tokens)[0]).logits.double()

    def say_logits(self, case, what, found, expected, said=()):
        error = float((found - expected).norm() / expected.norm())
        self.checks.say(error <= 1e-5 and not said, case, "pairs",
                        f"{what}: logits {error:.1e}" + (f", said: {said[:2]}" if said else ""))

    def check_pairs(self, case, folder, tokens, extra):
        """Pairs beside attention, which both programs have in all families."""
        import peft
        import torch
        adapter, merged = f"{case}.adapter", os.path.join(self.work, f"{case}.merged")
        keys = ["train.lora.rank=3", "train.lora.alpha=5", "train.lora.targets=attention"]
        self.begin_run(case, folder, STEPS, f"{case}.tuned", extra + keys, 1e-2)
        run([self.trident, "export", f"{case}.tuned", adapter], self.work)
        run([self.trident, "export", f"{case}.tuned", merged, "--merge"], self.work)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            there = peft.PeftModel.from_pretrained(self.load(folder)[0],
                                                   os.path.join(self.work, adapter)).eval()
        self.say_logits(case, f"{STEPS} steps here, PEFT's", self.logits(there, tokens),
                        self.logits(self.load(merged)[0], tokens),
                        [str(warning.message) for warning in caught  # not what PEFT is told itself
                         if not issubclass(warning.category, (FutureWarning, DeprecationWarning))])
        made = peft.get_peft_model(self.load(folder)[0], peft.LoraConfig(
            r=3, lora_alpha=5, task_type="CAUSAL_LM",
            target_modules=["q_proj", "k_proj", "v_proj", "o_proj"])).eval()
        with torch.no_grad():
            for name, weight in made.named_parameters():
                if "lora_" in name:
                    weight.normal_(0.0, 0.2, generator=torch.Generator().manual_seed(len(name)))
        theirs = os.path.join(self.work, f"{case}.theirs")
        made.save_pretrained(theirs)
        run([self.trident, "import", folder, f"{case}.both", "--adapter", theirs], self.work)
        run([self.trident, "export", f"{case}.both", f"{case}.one", "--merge"], self.work)
        self.say_logits(case, "made by PEFT, merged here",
                        self.logits(self.load(os.path.join(self.work, f"{case}.one"))[0], tokens),
                        self.logits(made, tokens))
        metrics = self.begin_run(case, folder, 1, f"{case}.paired",
                                 extra + [f"train.lora.adapter={theirs}"], 1e-3)
        moe = hasattr(made.config, "router_aux_loss_coef")
        aux = {"output_router_logits": True} if moe else {}
        inputs, targets = self.rows(tokens)
        result = made(inputs, **aux)
        expected = torch.nn.functional.cross_entropy(result.logits[0], targets[0]).item()
        if moe:
            from make_fixtures import balance
            expected += (made.config.router_aux_loss_coef *
                         balance(made.config, result, {"input_ids": inputs}).item())
        loss = metrics[0]["loss"]
        self.checks.say(abs(loss - expected) <= 2e-6 * expected, case, "pairs",
                        f"made by PEFT, begun with here: loss {loss:.7f} ({expected:.7f})")

    def check_folder(self, case, kind, form, model, tokens):
        """Saves the model in a form and looks at it from both sides."""
        import copy
        import torch
        from make_fixtures import reference
        dtype, sharded = form.split(".")[0], form.endswith(".many")
        types = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}
        name = f"{case}.{form}"
        folder = os.path.join(self.work, name)
        copy.deepcopy(model).to(types[dtype]).save_pretrained(
            folder, max_shard_size="15KB" if sharded else "5GB")
        files = len(glob.glob(os.path.join(folder, "*.safetensors")))
        assert (files > 1) == sharded, files
        there, _ = self.load(folder)
        values = reference(there, kind, *self.rows(tokens))
        dynamic = kind != "gpt2" and there.config.rope_parameters["rope_type"] == "dynamic"
        extra = [f"model.max_position={SEQ}"] if dynamic else []
        here = [f"model.rope_original={there.config.max_position_embeddings}"] if dynamic else []
        self.check_begin(name, folder, kind, values, extra)
        if not sharded:
            self.check_values(name, "values", folder, values, extra + here)
        self.check_back(name, folder, dtype)
        if sharded:
            one, many = self.digest(f"{case}.{dtype}.in"), self.digest(f"{name}.in")
            self.checks.say(one == many, name, "digest", f"{many} in {files} files")
        elif dtype != "f16":
            self.check_trained(name, folder, kind, tokens, extra, extra + here, dtype)
            if dtype == "f32" and self.peft and kind != "gpt2":
                self.check_pairs(name, folder, tokens, extra)

    def check_case(self, case, base, changes):
        import torch
        from make_fixtures import make_model, read_config
        kind, config = read_config(GOLDEN, base, changes)
        model = make_model(config, torch.Generator().manual_seed(20261129))
        tokens = torch.randint(config.vocab_size, (SEQ + 1,),
                               generator=torch.Generator().manual_seed(7))
        write_tokens(os.path.join(self.work, "tokens.bin"), tokens.tolist())
        for form in ("f32", "f32.many", "bf16", "bf16.many", "f16"):
            try:
                self.check_folder(case, kind, form, model, tokens)
            except RuntimeError as error:
                self.checks.say(False, f"{case}.{form}", "failed", str(error))


def main():
    options = parse()
    enter_venv(options.venv)
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    import tokenizers
    import torch
    import transformers
    from make_fixtures import VARIANTS
    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(1)
    print(f"transformers {transformers.__version__}, torch {torch.__version__}, "
          f"tokenizers {tokenizers.__version__}")
    cases = {family: (family, {}) for family in
             ("mixtral", "olmoe", "qwen2_moe", "qwen3_moe", "gpt2", "llama", "qwen3")}
    cases["mistral"] = ("llama", {"model_type": "mistral", "sliding_window": 9})
    cases.update(VARIANTS)
    work = options.keep or tempfile.mkdtemp(prefix="trident-interop-")
    os.makedirs(work, exist_ok=True)
    interop = Interop(options, os.path.abspath(work))
    for case, (base, changes) in cases.items():
        if re.search(options.only, case):
            interop.check_case(case, base, changes)
    if not options.keep:
        shutil.rmtree(work)
    print(f"{interop.checks.passed} passed, {interop.checks.failed} failed")
    return 1 if interop.checks.failed or not interop.checks.passed else 0


if __name__ == "__main__":
    sys.exit(main())
