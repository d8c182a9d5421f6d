/* Keys of moe that do not go together, and the one line that each gives. */
#include "config_testing.h"

static void test_combinations(void **state)
{
    (void)state;
    static const struct bad cases[] = {
        {"moe: {}\n",
         "c.yaml:1: key 'moe.num_experts': found nothing, expected an integer: a model "
         "with keys of moe needs it" DEFAULT_SHAPE},
        {"seed: 1\nmoe: {top_k: 1}\n",
         "c.yaml:2: key 'moe.num_experts': found nothing, expected an "
         "integer: a model with keys of moe needs it" DEFAULT_SHAPE},
        {"moe:\n  num_experts: 1\n",
         "c.yaml:2: key 'moe.top_k': found 2, expected at most num_experts (1)"},
        {"moe:\n  num_experts: 4\n  top_k: 5\n",
         "c.yaml:3: key 'moe.top_k': found 5, expected at most num_experts (4)"},
        {"moe: {num_experts: 4, every: 5}\n",
         "c.yaml:1: key 'moe.every': found 5, expected at most "
         "model.num_layers (4): no layer would be MoE"},
        {"moe: {num_experts: 4, every: 2, layers: [1]}\n",
         "c.yaml:1: key 'moe.every': found 2, expected 1 or nothing beside moe.layers"},
        {"moe: {num_experts: 4, layers: [1, 4]}\n",
         "c.yaml:1: key 'moe.layers': found layer 4, expected less than model.num_layers (4): "
         "layers "
         "are counted from 0"},
        {"moe: {num_experts: 4, layers: [1, 1]}\n",
         "c.yaml:1: key 'moe.layers': found 1 after 1, expected rising numbers"},
        {"moe: {num_experts: 4, router: deepspeed_top1}\n",
         "c.yaml:1: key 'moe.top_k': found 2, expected 1: router is deepspeed_top1"},
        {"moe: {num_experts: 4, router: deepspeed_top2, top_k: 3}\n",
         "c.yaml:1: key 'moe.top_k': found 3, expected 2: router is deepspeed_top2"},
        {"moe: {num_experts: 4, router: deepspeed_topk, aux_scope: model}\n",
         "c.yaml:1: key 'moe.aux_scope': found model, expected layer: router deepspeed_topk "
         "balances each layer"},
        {"moe: {num_experts: 4, router: sparsemixer, capacity_factor: 1.25}\n",
         "c.yaml:1: key 'moe.capacity_factor': found 1.25, expected none: router sparsemixer drops "
         "no token"},
        {"moe: {num_experts: 4, router: sparsemixer, eval_capacity_factor: 2}\n",
         "c.yaml:1: key 'moe.eval_capacity_factor': found 2, expected none: router sparsemixer "
         "drops no token"},
        {"moe: {num_experts: 4, router: sparsemixer, noise: 0.5}\n",
         "c.yaml:1: key 'moe.noise': found 0.5, expected 0: router sparsemixer does not "
         "read it, as top_k does"},
        {"moe: {num_experts: 4, router: balanced, noise: 0.5}\n",
         "c.yaml:1: key 'moe.noise': found 0.5, expected 0: router balanced does not read it, as "
         "top_k does"},
        {"moe:\n  num_experts: 4\n  router: deepspeed_topk\n  noise: 0.25\n",
         "c.yaml:4: key 'moe.noise': found 0.25, expected 0: router deepspeed_topk does not read "
         "it, as top_k does"},
        {"moe: {num_experts: 4, router: sparsemixer, normalize_top_k: false}\n",
         "c.yaml:1: key 'moe.normalize_top_k': found false, expected true: router sparsemixer does "
         "not read it, as top_k does"},
        {"moe: {num_experts: 4, sparsemixer_form: released}\n",
         "c.yaml:1: key 'moe.sparsemixer_form': found released, expected paper: router top_k does "
         "not read it, as sparsemixer does"},
        {"moe: {num_experts: 4, sharpen_step: 5}\n",
         "c.yaml:1: key 'moe.sharpen_step': found 5, expected 0: router top_k does not read it, as "
         "dense does"},
        {"moe: {num_experts: 4, router: sparsemixer, bias_balancing: 0.1}\n",
         "c.yaml:1: key 'moe.bias_balancing': found 0.1, expected 0: router sparsemixer chooses by "
         "no bias"},
        {"reproducible: true\nmoe: {num_experts: 4, router: sparsemixer, aux_window: step}\n",
         "c.yaml:2: key 'moe.aux_window': found step, expected sequence: reproducible takes each "
         "row by itself"},
        {"moe: {num_experts: 4, router: sparsemixer, mask_range: 1.5}\n",
         "c.yaml:1: key 'moe.mask_range': found '1.5', expected a number from 0 to 1"},
        {"moe: {num_experts: 4, router: balanced, bias_balancing: 0.001}\n",
         "c.yaml:1: key 'moe.bias_balancing': found 0.001, expected 0: router balanced chooses "
         "by no bias"},
        {"moe: {num_experts: 4, router: balanced, score: sigmoid}\n",
         "c.yaml:1: key 'moe.score': expected its default: router balanced scores and weighs in "
         "its "
         "own way"},
        {"moe: {num_experts: 4, router: deepspeed_topk, groups: 2}\n",
         "c.yaml:1: key 'moe.groups': expected its default: router deepspeed_topk scores and "
         "weighs "
         "in its own way"},
        {"moe: {num_experts: 4, router: balanced, routed_scaling: 2.5}\n",
         "c.yaml:1: key 'moe.routed_scaling': expected its default: router balanced scores and "
         "weighs in its own way"},
        {"moe: {num_experts: 4, score: sigmoid, z_loss: 0.001}\n",
         "c.yaml:1: key 'moe.z_loss': found 0.001, expected 0: it keeps the sum of a softmax "
         "small, "
         "and score is sigmoid"},
        {"moe: {num_experts: 8, groups: 3}\n", "c.yaml:1: key 'moe.groups': found 3, expected a "
                                               "divisor of num_experts (8) that leaves two "
                                               "experts or more to a group"},
        {"moe: {num_experts: 8, groups: 8}\n", "c.yaml:1: key 'moe.groups': found 8, expected a "
                                               "divisor of num_experts (8) that leaves two "
                                               "experts or more to a group"},
        {"moe: {num_experts: 8, groups: 2, groups_top: 4}\n",
         "c.yaml:1: key 'moe.groups_top': found 4, expected at most groups (2), and top_k (2) "
         "experts or more in so many groups"},
        {"moe: {num_experts: 8, groups: 4, groups_top: 1, top_k: 3}\n",
         "c.yaml:1: key 'moe.groups_top': found 1, expected at most groups (4), and top_k (3) "
         "experts or more in so many groups"},
        {"moe: {num_experts: 4, router: dense, schedule: ted}\n",
         "c.yaml:1: key 'moe.schedule': found ted, expected dense: router is dense"},
        {"moe: {num_experts: 4, schedule: overlapped}\n"
         "train: {duplicate_token_dropping: false}\n",
         "c.yaml:2: key 'train.duplicate_token_dropping': found false, expected true: schedule "
         "overlapped sends no duplicates"},
        {"reproducible: true\nmodel: {bias: all}\nmoe: {num_experts: 4, schedule: s2}\n",
         "c.yaml:3: key 'moe.schedule': found s2, expected ted: with model.bias all, reproducible "
         "adds an expert's bias after its shards"},
        {"moe: {num_experts: 4, schedule: dense}\n",
         "c.yaml:1: key 'moe.schedule': found dense, expected ted: router is top_k"},
        {"moe: {num_experts: 4, mutual_information: 0.1}\n",
         "c.yaml:1: key 'moe.mutual_information': found 0.1, expected 0: router top_k does not "
         "read it, as dense does"},
        {"moe: {num_experts: 4, router: dense, capacity_factor: 1.5}\n",
         "c.yaml:1: key 'moe.capacity_factor': found 1.5, expected none: router dense drops no "
         "token"},
        {"moe: {num_experts: 4, router: dense, eval_capacity_factor: 2}\n",
         "c.yaml:1: key 'moe.eval_capacity_factor': found 2, expected none: router dense drops no "
         "token"},
        {"moe: {num_experts: 4, router: dense, aux_scope: model}\n",
         "c.yaml:1: key 'moe.aux_scope': found model, expected layer: router dense balances each "
         "layer"},
        {"moe: {num_experts: 4, router: dense, bias_balancing: 0.001}\n",
         "c.yaml:1: key 'moe.bias_balancing': found 0.001, expected 0: router dense chooses by no "
         "bias"},
        {"moe: {num_experts: 4, router: expert_choice, capacity_window: step}\n",
         "c.yaml:1: key 'moe.capacity_window': found step, expected sequence: router expert_choice "
         "has experts choose in each row"},
        {"moe: {num_experts: 4, router: expert_choice, score: sigmoid}\n",
         "c.yaml:1: key 'moe.score': expected its default: router expert_choice scores and weighs "
         "in its own way"},
        {"moe: {num_experts: 4, shared_gate: true}\n",
         "c.yaml:1: key 'moe.shared_gate': found true, expected a shared_intermediate_size with "
         "it"},
    };
    check_all(cases, COUNT(cases));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_combinations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
