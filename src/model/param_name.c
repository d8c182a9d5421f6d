#include "model/param_name.h"

#include <stdio.h>

static const char *role_text(enum tri_role role)
{
    static const char *const text[TRI_ROLE_COUNT] = {
        [TRI_ROLE_EMBEDDING] = "embedding.weight",
        [TRI_ROLE_POSITION] = "position.weight",
        [TRI_ROLE_NORM1] = "norm1.weight",
        [TRI_ROLE_NORM1_BIAS] = "norm1.bias",
        [TRI_ROLE_Q] = "attention.q.weight",
        [TRI_ROLE_K] = "attention.k.weight",
        [TRI_ROLE_V] = "attention.v.weight",
        [TRI_ROLE_O] = "attention.o.weight",
        [TRI_ROLE_Q_BIAS] = "attention.q.bias",
        [TRI_ROLE_K_BIAS] = "attention.k.bias",
        [TRI_ROLE_V_BIAS] = "attention.v.bias",
        [TRI_ROLE_O_BIAS] = "attention.o.bias",
        [TRI_ROLE_Q_NORM] = "attention.q_norm.weight",
        [TRI_ROLE_K_NORM] = "attention.k_norm.weight",
        [TRI_ROLE_NORM2] = "norm2.weight",
        [TRI_ROLE_NORM2_BIAS] = "norm2.bias",
        [TRI_ROLE_GATE] = "gate.weight",
        [TRI_ROLE_UP] = "up.weight",
        [TRI_ROLE_DOWN] = "down.weight",
        [TRI_ROLE_GATE_BIAS] = "gate.bias",
        [TRI_ROLE_UP_BIAS] = "up.bias",
        [TRI_ROLE_DOWN_BIAS] = "down.bias",
        [TRI_ROLE_ROUTER] = "moe.router.weight",
        [TRI_ROLE_SHARED_GATE] = "moe.shared_gate.weight",
        [TRI_ROLE_FINAL_NORM] = "final_norm.weight",
        [TRI_ROLE_FINAL_NORM_BIAS] = "final_norm.bias",
        [TRI_ROLE_HEAD] = "head.weight",
        [TRI_ROLE_Q_A] = "attention.q.lora_a",
        [TRI_ROLE_K_A] = "attention.k.lora_a",
        [TRI_ROLE_V_A] = "attention.v.lora_a",
        [TRI_ROLE_O_A] = "attention.o.lora_a",
        [TRI_ROLE_Q_B] = "attention.q.lora_b",
        [TRI_ROLE_K_B] = "attention.k.lora_b",
        [TRI_ROLE_V_B] = "attention.v.lora_b",
        [TRI_ROLE_O_B] = "attention.o.lora_b",
        [TRI_ROLE_GATE_A] = "gate.lora_a",
        [TRI_ROLE_UP_A] = "up.lora_a",
        [TRI_ROLE_DOWN_A] = "down.lora_a",
        [TRI_ROLE_GATE_B] = "gate.lora_b",
        [TRI_ROLE_UP_B] = "up.lora_b",
        [TRI_ROLE_DOWN_B] = "down.lora_b",
    };
    return text[role];
}

void tri_param_name(enum tri_role role, enum tri_place place, int64_t layer, int64_t expert,
                    char name[TRI_NAME_MAX])
{
    const char *text = role_text(role);
    bool network = (role >= TRI_ROLE_GATE && role <= TRI_ROLE_DOWN_BIAS) || role >= TRI_ROLE_GATE_A;
    if (layer < 0) {
        (void)snprintf(name, TRI_NAME_MAX, "%s", text);
    } else if (!network) {
        (void)snprintf(name, TRI_NAME_MAX, "layers.%lld.%s", (long long)layer, text);
    } else if (place == TRI_PLACE_EXPERT) {
        (void)snprintf(name, TRI_NAME_MAX, "layers.%lld.moe.experts.%lld.%s", (long long)layer,
                       (long long)expert, text);
    } else {
        (void)snprintf(name, TRI_NAME_MAX, "layers.%lld.%s.%s", (long long)layer,
                       place == TRI_PLACE_SHARED ? "moe.shared" : "mlp", text);
    }
}
