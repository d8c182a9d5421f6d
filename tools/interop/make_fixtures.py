#!/usr/bin/env python3
"""Reference values of transformers for tiny random models with scaled rope and sliding windows.

    python3 -m venv venv && venv/bin/pip install torch transformers safetensors numpy
    venv/bin/python tools/interop/make_fixtures.py tests/data/golden

Writes a folder for each: config.json, model.safetensors, reference.safetensors, as README.md in
tests/data/golden describes them. The config of a folder is that of the one it is named after, with
the keys below.
"""
import json
import os
import re
import sys

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, CONFIG_MAPPING

VARIANTS = {
    "llama_llama3": ("llama", {
        "rope_parameters": {"rope_type": "llama3", "rope_theta": 10000.0, "factor": 4.0,
                            "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                            "original_max_position_embeddings": 16}}),
    "qwen3_yarn": ("qwen3", {
        "rope_parameters": {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0,
                            "original_max_position_embeddings": 16},
        "use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1,
        "layer_types": None}),
    "mixtral_linear": ("mixtral", {
        "rope_parameters": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.5},
        "sliding_window": 7}),
    # Rows of 24 are longer than what it knows: the base grows. No greedy text: each of its steps
    # would have another base.
    "qwen2_moe_dynamic": ("qwen2_moe", {
        "rope_parameters": {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 3.0},
        "max_position_embeddings": 16, "use_sliding_window": True, "sliding_window": 6,
        "max_window_layers": 2, "layer_types": None}),
}
ROWS, SEQ = 2, 24


def read_config(golden, base, changes):
    """(model_type, config) of the folder base, with other keys."""
    with open(os.path.join(golden, base, "config.json")) as file:
        keys = json.load(file)
    keys.update(changes)
    kind = keys.pop("model_type")
    for key in ("architectures", "transformers_version", "dtype"):
        keys.pop(key, None)
    keys = {key: value for key, value in keys.items() if value is not None}
    config = CONFIG_MAPPING[kind](**keys)
    config._attn_implementation = "eager"
    return kind, config


def make_model(config, generator):
    """Every weight far from its trivial value."""
    model = AutoModelForCausalLM.from_config(config).float().eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            noise = torch.randn(weight.shape, generator=generator)
            if "norm" in name or ".ln_" in name and name.endswith("weight"):
                weight.copy_(1 + 0.2 * noise)
            else:
                weight.copy_(0.15 * noise)
    return model


def split(name, value, mixtral):
    """Experts that are one tensor in memory, under the names of the files."""
    place = re.match(r"(.*)\.mlp\.experts\.(gate_up_proj|down_proj)$", name)
    if not place:
        if mixtral:
            name = re.sub(r"\.mlp\.gate\.weight$", ".block_sparse_moe.gate.weight", name)
        return {name: value}
    parts = {}
    for e in range(value.shape[0]):
        if place[2] == "down_proj":
            named = {"w2" if mixtral else "down_proj": value[e]}
        else:
            half = value.shape[1] // 2
            named = {"w1" if mixtral else "gate_proj": value[e, :half],
                     "w3" if mixtral else "up_proj": value[e, half:]}
        for last, part in named.items():
            block = "block_sparse_moe" if mixtral else "mlp"
            parts[f"{place[1]}.{block}.experts.{e}.{last}.weight"] = part
    return parts


def balance(config, result, values):
    """The balance loss; router logits go to values."""
    from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func
    experts = getattr(config, "num_local_experts", None) or config.num_experts
    step = getattr(config, "decoder_sparse_step", 1)
    dense = getattr(config, "mlp_only_layers", None) or []
    layers = [i for i in range(config.num_hidden_layers)
              if (i + 1) % step == 0 and i not in dense]
    assert len(layers) == len(result.router_logits)
    for layer, logits in zip(layers, result.router_logits):
        values[f"router_logits.{layer}"] = logits.detach().reshape(*values["input_ids"].shape,
                                                                   experts)
    return load_balancing_loss_func(result.router_logits, experts, config.num_experts_per_tok)


def reference(model, kind, inputs, targets):
    """Losses, logits, router logits and gradients of a batch, as reference.safetensors has them."""
    config = model.config
    values = {"input_ids": inputs, "targets": targets}
    moe = hasattr(config, "router_aux_loss_coef") and hasattr(config, "num_experts_per_tok")
    model.zero_grad()
    result = model(inputs, output_router_logits=True) if moe else model(inputs)
    cross = torch.nn.functional.cross_entropy(
        result.logits.reshape(-1, config.vocab_size), targets.reshape(-1))
    aux = balance(config, result, values) if moe else torch.zeros(())
    loss = cross + (config.router_aux_loss_coef * aux if moe else 0)
    loss.backward()
    values.update(logits=result.logits.detach(), cross_entropy=cross.detach().reshape(1),
                  aux_loss=aux.detach().reshape(1), loss=loss.detach().reshape(1))
    for name, weight in model.named_parameters():
        for part, gradient in split(name, weight.grad, kind == "mixtral").items():
            values["grad." + part] = gradient.contiguous()
    return values


def masked(model, kind, generator):
    """Rows of several documents, each of which runs alone, of which few targets count."""
    bounds = [[0, 1, 10, SEQ], [0, 13, SEQ], [0, SEQ]]
    rows = len(bounds)
    inputs = torch.randint(model.config.vocab_size, (rows, SEQ), generator=generator)
    targets = torch.randint(model.config.vocab_size, (rows, SEQ), generator=generator)
    targets[torch.rand((rows, SEQ), generator=generator) < 0.6] = -100
    targets[-1] = -100
    documents, positions = torch.zeros_like(inputs), torch.zeros_like(inputs)
    logits = []
    model.zero_grad()
    for row, ends in enumerate(bounds):
        for index, (begin, end) in enumerate(zip(ends, ends[1:])):
            documents[row, begin:end] = index
            positions[row, begin:end] = torch.arange(end - begin)
            logits.append(model(inputs[row:row + 1, begin:end]).logits[0])
    logits = torch.cat(logits).reshape(rows, SEQ, -1)
    cross = torch.nn.functional.cross_entropy(
        logits.reshape(rows * SEQ, -1), targets.reshape(-1), ignore_index=-100)
    cross.backward()
    values = {"input_ids": inputs, "targets": targets, "documents": documents,
              "positions": positions, "logits": logits.detach(),
              "counted": (targets >= 0).sum().reshape(1),
              "cross_entropy": cross.detach().reshape(1)}
    for name, weight in model.named_parameters():
        for part, gradient in split(name, weight.grad, kind == "mixtral").items():
            values["grad." + part] = gradient
    return values


def save_values(folder, values, name="reference"):
    save_file({name: value.contiguous() for name, value in values.items()},
              os.path.join(folder, name + ".safetensors"))


def make(golden, folder, base, changes):
    kind, config = read_config(golden, base, changes)
    generator = torch.Generator().manual_seed(20261129)
    model = make_model(config, generator)
    out = os.path.join(golden, folder)
    model.save_pretrained(out)
    if os.path.exists(os.path.join(out, "generation_config.json")):
        os.remove(os.path.join(out, "generation_config.json"))
    rows = torch.randint(config.vocab_size, (ROWS, SEQ + 1), generator=generator)
    values = reference(model, kind, rows[:, :-1].contiguous(), rows[:, 1:].contiguous())
    saved = load_file(os.path.join(out, "model.safetensors"))
    for name, value in values.items():
        if name.startswith("grad."):
            assert saved[name[len("grad."):]].shape == value.shape, name
    if config.rope_parameters["rope_type"] != "dynamic":
        text = values["input_ids"][:1, :8]
        for _ in range(24):
            with torch.no_grad():
                text = torch.cat([text, model(text).logits[:, -1:].argmax(-1)], 1)
        values["greedy"] = text
    save_values(out, values)
    if folder == "qwen3_yarn":
        save_values(out, masked(model, kind, generator), "masked")
    print(folder, values["loss"].item())


if __name__ == "__main__":
    for folder, (base, changes) in VARIANTS.items():
        make(sys.argv[1], folder, base, changes)
