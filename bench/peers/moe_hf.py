#!/usr/bin/env python3
"""Training speed of Hugging Face's own MoE models on the CPU (OLMoE, Mixtral), random weights.
usage: moe_hf.py --model {olmoe,mixtral} --dtype {f32,bf16,autocast}
    --experts-impl {eager,grouped_mm} --threads N [sizes: see --help]
bf16 = weights, gradients and moments in bf16; autocast = f32 weights, bf16 products."""

# Written for this project's comparisons: Hugging Face's models as they come.
import argparse, statistics, time, resource

p = argparse.ArgumentParser()
p.add_argument("--model", default="olmoe")
p.add_argument("--dtype", default="f32")
p.add_argument("--experts-impl", default="grouped_mm")
p.add_argument("--attn", default="sdpa")
p.add_argument("--compile", type=int, default=0)
for n, d in dict(
    threads=2,
    layers=8,
    hidden=512,
    heads=8,
    ffn=512,
    experts=64,
    topk=8,
    vocab=8192,
    seq=512,
    batch=4,
    steps=5,
    warm=2,
).items():
    p.add_argument("--" + n, type=int, default=d)
a = p.parse_args()
t0 = time.perf_counter()
import torch
from transformers import MixtralConfig, MixtralForCausalLM, OlmoeConfig, OlmoeForCausalLM

torch.set_num_threads(a.threads)
torch.manual_seed(0)
common = dict(
    vocab_size=a.vocab,
    hidden_size=a.hidden,
    intermediate_size=a.ffn,
    num_hidden_layers=a.layers,
    num_attention_heads=a.heads,
    num_key_value_heads=a.heads,
    max_position_embeddings=a.seq,
    num_experts_per_tok=a.topk,
    output_router_logits=True,
    use_cache=False,
    pad_token_id=None,
    eos_token_id=None,
    bos_token_id=None,
    attn_implementation=a.attn,
)
if a.model == "olmoe":
    m = OlmoeForCausalLM(OlmoeConfig(num_experts=a.experts, **common))
else:
    m = MixtralForCausalLM(MixtralConfig(num_local_experts=a.experts, **common))
m.set_experts_implementation(a.experts_impl)
if a.dtype == "bf16":
    m = m.to(torch.bfloat16)
m.train()
opt = torch.optim.AdamW(m.parameters(), lr=3e-4, weight_decay=0.1, fused=True)
total = sum(q.numel() for q in m.parameters())
expert = 3 * a.hidden * a.ffn
active = a.layers * (4 * a.hidden**2 + a.topk * expert + a.hidden * a.experts) + a.hidden * a.vocab
flops = 6 * active + 12 * a.layers * a.hidden * a.seq
x = torch.randint(0, a.vocab, (a.batch, a.seq))
f = torch.compile(m) if a.compile else m


def step():
    t = time.perf_counter()
    c = time.process_time()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=a.dtype == "autocast"):
        out = f(input_ids=x, labels=x)
    t1 = time.perf_counter()
    out.loss.backward()
    t2 = time.perf_counter()
    torch.nn.utils.clip_grad_norm_(m.parameters(), 1.0)
    opt.step()
    opt.zero_grad(set_to_none=True)
    t3 = time.perf_counter()
    cpu.append(time.process_time() - c)
    return t3 - t, t1 - t, t2 - t1, t3 - t2, out.loss.item()


first = None
cpu = []
for i in range(a.warm):
    r = step()
    first = first or time.perf_counter() - t0
rs = [step() for _ in range(a.steps)]
md = [1e3 * statistics.median(c) for c in list(zip(*rs))[:4]]
tok = a.batch * a.seq
print(
    f"{a.model} {a.dtype} {a.experts_impl} compile={a.compile} threads={a.threads} "
    f"params={total/1e6:.1f}M active={active/1e6:.1f}M  "
    f"step {md[0]:.0f} ms (fwd {md[1]:.0f} bwd {md[2]:.0f} opt {md[3]:.0f}) "
    f"{tok/md[0]*1e3:.0f} tok/s {flops*tok/md[0]/1e6:.1f} GFLOP/s  "
    f"first step after {first:.1f} s  processor ms {1e3*statistics.mean(cpu[a.warm:]):.0f} "
    f"peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/1e6:.2f} GB loss {rs[-1][4]:.3f}",
    flush=True,
)
