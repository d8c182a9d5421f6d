#!/usr/bin/env python3
"""Reference values of the router of transformers' DeepSeek-V3.

    python3 -m venv venv && venv/bin/pip install torch transformers safetensors
    venv/bin/python tools/interop/make_router_values.py tests/data/golden/deepseek_router

Writes a file for each case, as README.md in tests/data/golden describes them: a router with random
weights and biases reads random hidden states, and a random combination of its weights and a
sequence-wise balance loss (DeepSeek-V3's report, 17 to 20, in torch: transformers has none) are
taken back to its logits. A token whose choice is within 1e-4 of another one is drawn again.
"""
import os
import sys

import torch
from safetensors.torch import save_file
from transformers import DeepseekV3Config
from transformers.models.deepseek_v3 import modeling_deepseek_v3 as deepseek

# experts, top_k, groups, groups_top, normalize, scaling, size of the biases
CASES = {
    "plain": (8, 2, 1, 1, True, 1.0, 0.0),
    "biased": (8, 2, 1, 1, True, 1.0, 0.2),
    "scaled": (12, 3, 1, 1, False, 2.5, 0.2),
    "groups": (16, 4, 4, 2, True, 2.5, 0.1),
    "groups_8": (32, 6, 8, 3, True, 1.8, 0.1),
    "groups_tight": (16, 4, 8, 2, False, 1.0, 0.1),
    "groups_all": (18, 5, 6, 6, True, 1.0, 0.1),
    "large": (64, 8, 8, 4, True, 2.5, 0.05),
}
HIDDEN, TOKENS = 24, 40


def margin(scores, groups, top, k):
    """The distance of each token's choice from another one."""
    by_group = scores.view(len(scores), groups, -1)
    sums = by_group.topk(2, dim=-1)[0].sum(-1).sort(dim=-1, descending=True)[0]
    between = sums[:, top - 1] - sums[:, top] if top < groups else torch.full((len(scores),), 9.0)
    opened = by_group.topk(2, dim=-1)[0].sum(-1).topk(top, dim=-1)[1]
    rest = by_group.gather(1, opened[..., None].expand(-1, -1, by_group.shape[-1])).flatten(1)
    order = rest.sort(dim=-1, descending=True)[0]
    if k == order.shape[1]:
        return between / 2
    return torch.minimum(between / 2, order[:, k - 1] - order[:, k])


def make(case, generator):
    experts, k, groups, top, normalize, scaling, deviation = case
    config = DeepseekV3Config(
        hidden_size=HIDDEN, moe_intermediate_size=8, n_routed_experts=experts, n_shared_experts=1,
        num_experts_per_tok=k, n_group=groups, topk_group=top, norm_topk_prob=normalize,
        routed_scaling_factor=scaling)
    gate = deepseek.DeepseekV3TopkRouter(config).float()
    with torch.no_grad():
        gate.weight.copy_(0.3 * torch.randn(gate.weight.shape, generator=generator))
        noise = torch.randn(experts, generator=generator)
        gate.e_score_correction_bias.copy_(deviation * noise)
    bias = gate.e_score_correction_bias
    kept = []
    while len(kept) < TOKENS:
        hidden = torch.randn(1, HIDDEN, generator=generator)
        scores = gate(hidden)[0].detach().sigmoid() + bias
        if margin(scores, groups, top, k).item() > 1e-4:
            kept.append(hidden)
    logits, weights, indices = gate(torch.cat(kept))
    upstream = torch.randn(weights.shape, generator=generator)
    (from_weights,) = torch.autograd.grad((weights * upstream).sum(), logits, retain_graph=True)
    scores = logits.sigmoid()
    share = (scores / scores.sum(-1, keepdim=True)).mean(0)
    counts = torch.zeros(experts).scatter_add_(0, indices.flatten(), torch.ones(indices.numel()))
    balance = (counts * experts / (k * TOKENS) * share).sum()
    (from_balance,) = torch.autograd.grad(balance, logits)
    tensors = {
        "logits": logits, "bias": bias, "scores": scores, "indices": indices.to(torch.int64),
        "weights": weights, "upstream": upstream, "grad_weights": from_weights,
        "balance": balance.reshape(1), "grad_balance": from_balance,
    }
    keys = {"top_k": k, "groups": groups, "groups_top": top, "normalize": normalize,
            "scaling": scaling}
    return ({name: value.detach().contiguous().clone() for name, value in tensors.items()},
            {name: str(value) for name, value in keys.items()})


def main():
    folder = sys.argv[1]
    os.makedirs(folder, exist_ok=True)
    generator = torch.Generator().manual_seed(20241)
    for name, case in CASES.items():
        tensors, keys = make(case, generator)
        save_file(tensors, os.path.join(folder, name + ".safetensors"), metadata=keys)


if __name__ == "__main__":
    main()
