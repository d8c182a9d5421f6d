#!/usr/bin/env python3
"""Makes tests/data/golden/FAMILY/adapter and adapter_fused: PEFT's low-rank adapters.

    python3 -m venv venv && venv/bin/pip install 'transformers<5' peft
    venv/bin/python tools/interop/make_adapters.py tests/data/golden [CASE ...]

Without names those that this version of transformers makes as they are in the tree: of 4, where
experts are modules, or of 5. A folder has adapter_config.json and adapter_model.safetensors
as PEFT saves them, B drawn too and not zero; adapted.safetensors has input_ids [2, 24], logits
[2, 24, vocabulary], and of the mean cross entropy of the next tokens the gradients of the pairs,
under their names in the adapter.
"""
import json
import math
import pathlib
import sys

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM, __version__

# What is adapted, by names or by a pattern; alpha, rank, whether scaled by the root of the rank.
CASES_5 = {
    "gpt2/adapter": (["c_attn", "attn.c_proj", "c_fc", "mlp.c_proj"], 6, 4, False),
    # Names of experts' matrices, for which PEFT makes one pair of twice the rank for gate and up.
    "olmoe/adapter_fused": (["q_proj", "gate_proj", "up_proj", "down_proj"], 3, 2, False),
    # Parameters, of which each expert has one pair for gate and up.
    "mixtral/adapter_fused": (["o_proj"], 5, 2, False,
                              ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]),
}
CASES_4 = {
    "olmoe/adapter": (["q_proj", "v_proj", "gate_proj", "up_proj", "down_proj"], 6, 4, False),
    "qwen2_moe/adapter": (r".*\.(self_attn\.[qkvo]_proj|shared_expert\.(gate|up|down)_proj"
                  r"|mlp\.(gate|up|down)_proj)", 8, 3, False),
    "mixtral/adapter": (r".*(self_attn\.[qkvo]_proj|experts\.\d+\.w[123])", 5, 2, True),
}


def load(folder):
    folder = pathlib.Path(folder)
    config = AutoConfig.from_pretrained(folder)
    raw = json.loads((folder / "config.json").read_text())
    rope = raw.get("rope_parameters") or {}
    if "rope_theta" in rope:  # transformers 4 reads the older spelling alone
        config.rope_theta = rope["rope_theta"]
    return AutoModelForCausalLM.from_pretrained(
        folder, config=config, dtype=torch.float32, attn_implementation="eager")


def make(out, targets, alpha, rank, rooted, parameters=None):
    torch.manual_seed(20261129)
    model = get_peft_model(load(out.parent), LoraConfig(
        r=rank, lora_alpha=alpha, target_modules=targets, use_rslora=rooted, task_type="CAUSAL_LM",
        target_parameters=parameters))
    model.eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_" in name:
                weight.normal_(0.0, 1.0 / math.sqrt(weight.shape[1]) if "lora_A" in name else 0.05)
    model.save_pretrained(out)
    (out / "README.md").unlink()  # PEFT's empty form
    ids = torch.randint(0, model.config.vocab_size, (2, 25))
    logits = model(input_ids=ids[:, :-1]).logits
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
    loss.backward()
    values = {"input_ids": ids[:, :-1].clone(), "targets": ids[:, 1:].clone(),
              "logits": logits.detach(), "cross_entropy": loss.detach()}
    for name, weight in model.named_parameters():
        if weight.grad is not None:
            values["grad." + name.replace(".default", "")] = weight.grad.contiguous()
    save_file({k: v.contiguous() for k, v in values.items()}, out / "adapted.safetensors")
    print(out.parent.name, out.name, loss.item(), len(values))


def main():
    root = pathlib.Path(sys.argv[1])
    cases = CASES_4 if int(__version__.split(".")[0]) < 5 else CASES_5
    for case in sys.argv[2:] or cases:
        make(root / case, *cases[case])


if __name__ == "__main__":
    main()
