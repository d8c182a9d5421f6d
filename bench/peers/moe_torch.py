#!/usr/bin/python3
"""Compact GPT-like training-speed script (dense or MoE top-1 every other layer), HF-style loop
over experts.
usage: moe_torch.py --moe {0,1} --dtype {f32,bf16} --threads N [--vocab V] [--steps S]"""

# Written for this project's comparisons: what a user of PyTorch would write.
import argparse, time, statistics, math, torch, torch.nn as nn, torch.nn.functional as F

ap = argparse.ArgumentParser()
for n, d in dict(
    moe=1,
    threads=1,
    layers=4,
    hidden=512,
    heads=8,
    ffn=2048,
    experts=8,
    topk=1,
    vocab=256,
    seq=256,
    batch=8,
    steps=8,
    warm=2,
).items():
    ap.add_argument("--" + n, type=int, default=d)
ap.add_argument("--dtype", default="f32")
ap.add_argument("--profile", type=int, default=0)
a = ap.parse_args()
torch.set_num_threads(a.threads)
torch.manual_seed(0)


class Attn(nn.Module):
    def __init__(s, d, h):
        super().__init__()
        s.h = h
        s.qkv = nn.Linear(d, 3 * d)
        s.o = nn.Linear(d, d)
        s.register_buffer(
            "mask", torch.full((a.seq, a.seq), float("-inf")).triu(1), persistent=False
        )

    def forward(s, x):
        B, T, D = x.shape
        q, k, v = s.qkv(x).view(B, T, 3, s.h, D // s.h).permute(2, 0, 3, 1, 4)
        w = (q @ k.transpose(-1, -2)) / math.sqrt(D // s.h) + s.mask[:T, :T]
        return s.o((F.softmax(w, -1).to(v.dtype) @ v).transpose(1, 2).reshape(B, T, D))


class FFN(nn.Module):
    def __init__(s, d, f):
        super().__init__()
        s.a = nn.Linear(d, f)
        s.b = nn.Linear(f, d)

    def forward(s, x):
        return s.b(F.gelu(s.a(x)))


class MoE(nn.Module):
    def __init__(s, d, f, e, k):
        super().__init__()
        s.r = nn.Linear(d, e, bias=False)
        s.k = k
        s.ex = nn.ModuleList(FFN(d, f) for _ in range(e))

    def forward(s, x):
        B, T, D = x.shape
        x = x.reshape(-1, D)
        p = F.softmax(s.r(x).float(), -1)
        w, i = p.topk(s.k, -1)
        y = torch.zeros(x.shape, dtype=torch.float32)
        for e, ff in enumerate(s.ex):
            tok, slot = torch.where(i == e)
            if tok.numel() == 0:
                continue
            o = ff(x.index_select(0, tok))
            y = y.index_add(0, tok, (o.float() * w[tok, slot, None]))
        E = len(s.ex)
        s.aux = E * (F.one_hot(i[:, 0], E).float().mean(0) * p.mean(0)).sum()
        return y.view(B, T, D)


class Block(nn.Module):
    def __init__(s, n):
        super().__init__()
        d = a.hidden
        s.l1 = nn.LayerNorm(d)
        s.l2 = nn.LayerNorm(d)
        s.at = Attn(d, a.heads)
        s.ff = MoE(d, a.ffn, a.experts, a.topk) if (a.moe and n % 2 == 1) else FFN(d, a.ffn)

    def forward(s, x):
        x = x + s.at(s.l1(x))
        return x + s.ff(s.l2(x))


class GPT(nn.Module):
    def __init__(s):
        super().__init__()
        s.e = nn.Embedding(a.vocab, a.hidden)
        s.p = nn.Embedding(a.seq, a.hidden)
        s.b = nn.ModuleList(Block(i) for i in range(a.layers))
        s.lf = nn.LayerNorm(a.hidden)
        s.h = nn.Linear(a.hidden, a.vocab, bias=False)
        s.h.weight = s.e.weight
        for m in s.modules():
            if isinstance(m, (nn.Linear, nn.Embedding)):
                nn.init.normal_(m.weight, std=0.02)

    def forward(s, x, y):
        h = s.e(x) + s.p.weight[: x.shape[1]]
        for b in s.b:
            h = b(h)
        lo = F.cross_entropy(s.h(s.lf(h)).float().view(-1, a.vocab), y.reshape(-1))
        for b in s.b:
            if isinstance(b.ff, MoE):
                lo = lo + 0.01 * b.ff.aux
        return lo


m = GPT()
opt = torch.optim.AdamW(m.parameters(), lr=3e-4)
tot = sum(p.numel() for p in m.parameters())
d, f = a.hidden, a.ffn
mm = (
    a.layers * (4 * d * d)
    + d * a.vocab
    + sum(
        (a.topk if (a.moe and i % 2 == 1) else 1) * 2 * d * f
        + (d * a.experts if (a.moe and i % 2) else 0)
        for i in range(a.layers)
    )
)  # active matmul params per token
fpt = (
    6 * mm + 12 * a.layers * d * a.seq
)  # + attention (full T, fwd 4*T*d per layer x3), not halved for causality
tk = a.batch * a.seq
ts = []
parts = []
cpu = []
x = torch.randint(0, a.vocab, (a.batch, a.seq + 1))


def step():
    t0 = time.perf_counter()
    c0 = time.process_time()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=a.dtype == "bf16"):
        lo = m(x[:, :-1], x[:, 1:])
    t1 = time.perf_counter()
    opt.zero_grad(set_to_none=True)
    lo.backward()
    t2 = time.perf_counter()
    opt.step()
    t3 = time.perf_counter()
    cpu.append(time.process_time() - c0)
    return t3 - t0, (t1 - t0, t2 - t1, t3 - t2), lo.item()


for i in range(a.warm):
    step()
for i in range(a.steps):
    t, p, l = step()
    ts.append(t)
    parts.append(p)
md = statistics.median(ts)
pr = [1e3 * statistics.median(q) for q in zip(*parts)]
print(
    f"moe={a.moe} dtype={a.dtype} thr={a.threads} vocab={a.vocab} params={tot/1e6:.2f}M "
    f"active-matmul={mm/1e6:.2f}M flop/token={fpt/1e6:.1f}M tok/step={tk}  "
    f"s/step min {min(ts):.3f} med {md:.3f} max {max(ts):.3f}  "
    f"=> {tk/md:.0f} tok/s, {fpt*tk/md/1e9:.1f} GFLOP/s  "
    f"fwd/bwd/opt ms {pr[0]:.0f}/{pr[1]:.0f}/{pr[2]:.0f} "
    f"processor ms {1e3*statistics.mean(cpu[a.warm:]):.0f} loss {l:.3f}",
    flush=True,
)
if a.profile:
    from torch.profiler import profile, ProfilerActivity

    with profile(activities=[ProfilerActivity.CPU]) as pf:
        step()
    print(
        pf.key_averages().table(
            sort_by="self_cpu_time_total", row_limit=14, max_name_column_width=40
        )
    )
