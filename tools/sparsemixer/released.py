#!/usr/bin/env python3
"""Records what the authors' code of SparseMixer-v2 (microsoft/SparseMixer,
sparsemixer/sparsemixer_v2.py, commit 1b41d56) computes, in double precision and written anew from
its formulas, for tests/moe/sparsemixer_released.h:

    tools/sparsemixer/released.py | clang-format-14 > tests/moe/sparsemixer_released.h

Which expert is drawn and what the uniform number says is given, not drawn."""
import math
import random

EXPERTS = 5
DRAWS = 2


def masked_gates(scores, left, jitter_eps):
    """Softmax of the scores that are near enough to the best of those left, and its place."""
    best = max(scores[e] for e in left)
    gates = []
    for e, z in enumerate(scores):
        factor = max(abs(z), best)
        far = factor > 0 and (best - z) / factor > 2 * jitter_eps
        gates.append(math.exp(z - best) if e in left and not far else 0.0)
    total = sum(gates)
    gates = [g / total for g in gates]
    return gates, gates.index(max(gates))


def route(case):
    """Multipliers of the chosen experts, and the gradient of the scores from those of the
    multipliers."""
    left = set(range(EXPERTS))
    weights = []
    slope = [0.0] * EXPERTS
    for d in range(DRAWS):
        gates, best = masked_gates(case["scores"], left, case["eps"])
        drawn = case["drawn"][d]
        one = drawn == best or case["uniform"][d] > 0.75
        weights.append(gates[drawn] * (0.3333 + 0.6667 * one))
        through = case["slope"][d] * gates[drawn]
        for e in range(EXPERTS):
            slope[e] -= gates[e] * through
        slope[drawn] += through
        left.remove(drawn)
    return weights, slope


def make_cases():
    draw = random.Random(20240918)
    cases = []
    for i in range(24):
        scores = [draw.randrange(-128, 129) / 64 for _ in range(EXPERTS)]
        if i % 4 == 3:
            scores = [s - 3 for s in scores]  # all below zero
        eps = [0.1, 0.3, 0.5, 1.0][i // 6]
        drawn = []
        left = set(range(EXPERTS))
        for _ in range(DRAWS):
            gates, _ = masked_gates(scores, left, eps)
            drawn.append(draw.choice([e for e in range(EXPERTS) if gates[e] > 0]))
            left.remove(drawn[-1])
        cases.append({
            "scores": scores,
            "eps": eps,
            "drawn": drawn,
            "uniform": [draw.choice([0.2, 0.9]) for _ in range(DRAWS)],
            "slope": [draw.randrange(-64, 65) / 16 for _ in range(DRAWS)],
        })
    return cases


def numbers(values):
    return "{" + ", ".join(v if isinstance(v, str) else repr(v) for v in values) + "}"


def main():
    print("/* Made by tools/sparsemixer/released.py. */")
    print("#ifndef TRIDENT_TESTS_MOE_SPARSEMIXER_RELEASED_H")
    print("#define TRIDENT_TESTS_MOE_SPARSEMIXER_RELEASED_H\n")
    print("#include <stdbool.h>")
    print("#include <stdint.h>\n")
    print(f"enum {{ RELEASED_EXPERTS = {EXPERTS}, RELEASED_DRAWS = {DRAWS} }};\n")
    print("static const struct {")
    print("    float scores[RELEASED_EXPERTS];")
    print("    double eps;")
    print("    int32_t drawn[RELEASED_DRAWS];")
    print("    bool full[RELEASED_DRAWS];")
    print("    double slope[RELEASED_DRAWS]; /* of the multipliers */")
    print("    double weight[RELEASED_DRAWS];")
    print("    double dscores[RELEASED_EXPERTS];")
    print("} released[] = {")
    for case in make_cases():
        weight, slope = route(case)
        full = ["true" if u > 0.75 else "false" for u in case["uniform"]]
        print(f"    {{{numbers([repr(s) + 'F' for s in case['scores']])},")
        print(f"     {case['eps']},")
        print(f"     {numbers(case['drawn'])},")
        print(f"     {numbers(full)},")
        print(f"     {numbers(case['slope'])},")
        print(f"     {numbers(weight)},")
        print(f"     {numbers(slope)}}},")
    print("};\n\n#endif")


if __name__ == "__main__":
    main()
