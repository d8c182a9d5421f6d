#include "config/schema.h"

#include <assert.h>
#include <float.h>
#include <limits.h>
#include <math.h>

/* Shorthands for the columns; they end at this file. */
#define AT(field)     .offset = offsetof(struct tri_config, field)
#define INT(from, to) .type = TRI_KEY_INT, .min = (from), .max = (to)
#define NUMBER_FROM(from, to)                                                                      \
    .type = TRI_KEY_FLOAT, .low = (from), .low_in = true, .high = (to), .high_in = (to) <= DBL_MAX
#define NUMBER_ABOVE(from, to)                                                                     \
    .type = TRI_KEY_FLOAT, .low = (from), .high = (to), .high_in = (to) <= DBL_MAX
#define BOOL .type = TRI_KEY_BOOL
#define WORDS(...)                                                                                 \
    .type = TRI_KEY_ENUM, .words = (const char *const[])                                           \
    {                                                                                              \
        __VA_ARGS__, NULL                                                                          \
    }
#define STRATEGY(of)   .type = TRI_KEY_STRATEGY, .list = offsetof(struct tri_strategies, of)
#define TEXT(shortest) .type = TRI_KEY_TEXT, .min = (shortest), .max = TRI_PATH_MAX - 1
#define FOLDER(shortest)                                                                           \
    .type = TRI_KEY_TEXT, .min = (shortest), .max = TRI_FOLDER_PATH_MAX, .folder = true
#define TEXTS       TEXT(0), .texts = true
#define NO_LIMIT    ((double)INFINITY)
#define OR_NONE(as) .none = true, .none_as = (as)
#define WINDOWS     WORDS("sequence", "step", "rank")
#define TRAINS      .effect = TRI_EFFECT_TRAINING
#define OUTPUT      .effect = TRI_EFFECT_OUTPUT

enum { LONGEST = 1 << 24, MOST = 1 << 16, STEPS = 1000000000 };

static_assert(sizeof(enum tri_norm_kind) == sizeof(unsigned), "words are stored as unsigned");
static_assert(offsetof(struct tri_router_kind, strategy) == 0 &&
                  offsetof(struct tri_schedule_kind, strategy) == 0,
              "a pointer to a kind is one to its strategy");
static_assert(offsetof(struct tri_config, moe.layers) ==
                  offsetof(struct tri_config, moe.num_layers) + sizeof(int64_t),
              "the list and its length are one value");
static_assert(offsetof(struct tri_config, model.window_layers) ==
                  offsetof(struct tri_config, model.num_window_layers) + sizeof(int64_t),
              "the list and its length are one value");
static_assert(offsetof(struct tri_config, train.recompute_layers) ==
                  offsetof(struct tri_config, train.recompute) + sizeof(int64_t),
              "the list and its length are one value");

const struct tri_section tri_sections[] = {
    {"", .help = "The run as a whole."},
    {"model", .help = "The transformer. Its weights have the shapes of the Hugging Face families."},
    {"moe", .help = "Mixture of experts. Without this section every layer is dense; with it "
                    "`num_experts` must "
                    "be given."},
    {"parallel",
     .help = "How the ranks are arranged. The data degree follows: ranks / (tensor x expert). "
             "`parallel: auto` leaves all of it to the planner.",
     .autos = TRI_AUTO_LAYOUT},
    {"data", .help = "Token shards, as `trident tokenize` writes them."},
    {"train", .help = "The optimisation."},
    {"eval", .help = "Evaluation on `data.valid` while training."},
    {"metrics", .help = "What a step writes down: metrics.jsonl in the run folder."},
    {"trace", .help = "What each rank did when, of a few steps: trace-FIRST-LAST.json in the run "
                      "folder, for ui.perfetto.dev or chrome://tracing."},
    {"checkpoint", .help = "Checkpoints while training. The last step is always saved."},
    {"comm", .help = "The exchange between ranks."},
    {"plan",
     .help =
         "How the planner chooses what is `auto`: what `trident plan --cluster` predicts to be the "
         "fastest and to fit."},
};
const size_t tri_sections_count = sizeof(tri_sections) / sizeof(*tri_sections);

const struct tri_key tri_keys[] = {
    {"seed", AT(seed), INT(0, INT64_MAX), .initial = "1", .shapes = true,
     .help = "Of initial weights, shuffling and all noise; the same on every layout."},
    {"precision", AT(precision), WORDS("f32", "bf16"), .initial = "f32", TRAINS,
     .help = "Of weights and activations; bf16 keeps f32 master weights, moments and sums."},
    {"reproducible", AT(reproducible), BOOL, .initial = "false", TRAINS,
     .help = "The same bits on every layout, policy and tile, at the price of speed and memory."},
    {"run_dir", AT(run_dir), FOLDER(1), .initial = "runs/default",
     .help = "Folder of the run: resolved config, metrics, checkpoints."},
    {"resume", AT(resume), FOLDER(0), .initial = "",
     .help = "Run folder or checkpoint of another run to continue from; empty: none."},
    {"init_from", AT(init_from), FOLDER(0), .initial = "",
     .help = "Hugging Face folder, checkpoint or run whose weights a new run begins with; it has "
             "the keys of model and moe that are not given here."},
    {"threads", AT(threads), INT(0, 4096), .initial = "0",
     .help = "Threads of each rank; 0: OMP_NUM_THREADS, or the node's cores shared by its ranks."},

    {"model.vocab_size", AT(model.vocab_size), INT(1, INT_MAX), .initial = "256", .shapes = true,
     .help = "Number of token ids; 256 is the byte tokenizer's."},
    {"model.num_layers", AT(model.num_layers), INT(1, TRI_LAYERS_MAX), .initial = "4",
     .shapes = true, .help = "Transformer blocks."},
    {"model.hidden_size", AT(model.hidden_size), INT(1, 1 << 20), .initial = "128", .shapes = true,
     .help = "Width of the residual stream."},
    {"model.num_heads", AT(model.num_heads), INT(1, MOST), .initial = "4", .shapes = true, OUTPUT,
     .help = "Query heads."},
    {"model.num_kv_heads", AT(model.num_kv_heads), INT(1, MOST), .follows = "num_heads",
     .shapes = true, OUTPUT, .help = "Key and value heads; divides num_heads."},
    {"model.head_dim", AT(model.head_dim), INT(1, MOST), .follows = "hidden_size / num_heads",
     .shapes = true, OUTPUT, .help = "Width of a head; even when position is rope."},
    {"model.intermediate_size", AT(model.intermediate_size), INT(1, LONGEST),
     .follows = "swiglu: 8/3 hidden_size, up to a multiple of 64; gelu: 4 hidden_size",
     .shapes = true, .help = "Inner width of a dense MLP."},
    {"model.max_position", AT(model.max_position), INT(1, LONGEST),
     .follows = "data.sequence_length", .shapes = true,
     .help = "Longest sequence; the rows of the table when position is learned."},
    {"model.norm", AT(model.norm), WORDS("rmsnorm", "layernorm"), .initial = "rmsnorm",
     .shapes = true, OUTPUT, .help = "Normalisation before attention and MLP, and at the end."},
    {"model.norm_epsilon", AT(model.norm_epsilon), NUMBER_ABOVE(0.0, 1.0), .initial = "1e-5",
     .shapes = true, OUTPUT, .help = "Added to the variance."},
    {"model.position", AT(model.position), WORDS("rope", "learned"), .initial = "rope",
     .shapes = true, OUTPUT,
     .help = "Rotary positions, or a learned table added to the embedding."},
    {"model.rope_theta", AT(model.rope_theta), NUMBER_ABOVE(0.0, 1e12), .initial = "10000",
     .shapes = true, OUTPUT, .help = "Base of the rotary frequencies."},
    {"model.rope_scaling", AT(model.rope_scaling),
     WORDS("none", "linear", "dynamic", "llama3", "yarn"), .initial = "none", .shapes = true,
     OUTPUT,
     .help =
         "How rotary frequencies are changed for longer texts, as transformers does it; dynamic "
         "is for rows of data.sequence_length."},
    {"model.rope_factor", AT(model.rope_factor), NUMBER_FROM(1.0, 1e6), .initial = "1",
     .shapes = true, OUTPUT, .help = "So many times longer are the texts, of rope_scaling."},
    {"model.rope_original", AT(model.rope_original), INT(1, LONGEST), .follows = "max_position",
     .shapes = true, OUTPUT,
     .help = "Positions that the model had before; of dynamic, llama3 and yarn."},
    {"model.rope_llama3", AT(model.rope_llama3), .type = TRI_KEY_PAIR, .low = 0.0, .high = 1e6,
     .initial = "[1, 4]", .shapes = true, OUTPUT,
     .help = "Turns over these below which, and above which, llama3 scales all or nothing."},
    {"model.rope_betas", AT(model.rope_betas), .type = TRI_KEY_PAIR, .low = 0.0, .high = 1e6,
     .initial = "[32, 1]", .shapes = true, OUTPUT,
     .help = "Turns above which, and below which, yarn scales nothing or all."},
    {"model.rope_attention", AT(model.rope_attention), NUMBER_ABOVE(0.0, 1e6),
     .follows = "yarn: 0.1 log rope_factor + 1", .shapes = true, OUTPUT,
     .help = "Cosines and sines are multiplied by it; of yarn."},
    {"model.rope_truncate", AT(model.rope_truncate), BOOL, .initial = "true", .shapes = true,
     OUTPUT, .help = "Whether yarn's range is widened to whole dimensions."},
    {"model.sliding_window", AT(model.sliding_window), INT(1, LONGEST), OR_NONE(0),
     .initial = "none", .shapes = true, OUTPUT,
     .help = "Keys that a query sees, its own among them; none: all before it."},
    {"model.window_layers", AT(model.num_window_layers), .type = TRI_KEY_LAYERS, .min = 0,
     .max = TRI_LAYERS_MAX - 1, .follows = "all layers", .shapes = true, OUTPUT,
     .help = "Layers with a sliding_window, by number, rising."},
    {"model.mlp", AT(model.mlp), WORDS("swiglu", "gelu", "gelu_erf"), .initial = "swiglu",
     .shapes = true, OUTPUT,
     .help = "Gated silu; GPT-2's gelu in the tanh form; gelu by the error function. Experts too."},
    {"model.qk_norm", AT(model.qk_norm), WORDS("none", "head", "full"), .initial = "none",
     .shapes = true, OUTPUT,
     .help = "Normalises queries and keys: each head (Qwen3) or the whole vector (OLMoE)."},
    {"model.bias", AT(model.bias), WORDS("none", "qkv", "all"), .initial = "none", .shapes = true,
     OUTPUT,
     .help = "Which projections have a bias: none, queries, keys and values (Qwen2), all (GPT-2)."},
    {"model.tie_embeddings", AT(model.tie_embeddings), BOOL, .initial = "false", .shapes = true,
     OUTPUT, .help = "The output head is the embedding."},
    {"model.init_std", AT(model.init_std), NUMBER_FROM(0.0, 100.0), .initial = "0.02",
     .shapes = true, .help = "Standard deviation of the initial weights."},

    {"moe.num_experts", AT(moe.num_experts), INT(1, MOST), .follows = "must be given",
     .shapes = true, .help = "Experts in each MoE layer."},
    {"moe.top_k", AT(moe.top_k), INT(1, MOST), .initial = "2", OUTPUT,
     .help = "Experts a token goes to."},
    {"moe.every", AT(moe.every), INT(1, TRI_LAYERS_MAX), .initial = "1", .shapes = true, OUTPUT,
     .help = "Every so many layers one is MoE: 2 is layers 1, 3, 5, ... counted from 0."},
    {"moe.layers", AT(moe.num_layers), .type = TRI_KEY_LAYERS, .min = 0, .max = TRI_LAYERS_MAX - 1,
     .follows = "as moe.every says", .shapes = true, OUTPUT,
     .help = "The MoE layers by number, rising, instead of moe.every."},
    {"moe.intermediate_size", AT(moe.intermediate_size), INT(1, LONGEST),
     .follows = "model.intermediate_size", .shapes = true, .help = "Inner width of an expert."},
    {"moe.normalize_top_k", AT(moe.normalize_top_k), BOOL, .initial = "true", OUTPUT,
     .help =
         "Divides the chosen experts' weights by their sum; with top_k 1 every weight is then 1."},
    {"moe.aux_loss", AT(moe.aux_loss), NUMBER_FROM(0.0, 1e6), .initial = "0.01", TRAINS,
     .help = "Coefficient of the load-balancing loss."},
    {"moe.aux_scope", AT(moe.aux_scope), WORDS("layer", "model"), .initial = "layer", TRAINS,
     .help =
         "Balance of each layer, summed; or of all layers' tokens in one count (transformers)."},
    {"moe.aux_window", AT(moe.aux_window), WINDOWS,
     .follows = "sequence; router sparsemixer: step, unless reproducible", TRAINS,
     .help = "Tokens that are balanced together: each row, all rows of a micro-step over all "
             "replicas, or one replica's micro-batch."},
    {"moe.z_loss", AT(moe.z_loss), NUMBER_FROM(0.0, 1e6), .initial = "0", TRAINS,
     .help = "Coefficient of the mean squared log-sum-exp of the router's logits."},
    {"moe.mutual_information", AT(moe.mutual_information), NUMBER_FROM(0.0, 1e6), .initial = "0",
     TRAINS,
     .help = "Coefficient of router dense's loss: minus the mutual information of tokens and "
             "experts (DS-MoE), over the tokens of aux_window."},
    {"moe.sharpen_step", AT(moe.sharpen_step), INT(0, STEPS), .initial = "0", TRAINS,
     .help =
         "Router dense: from this step on, and in the evaluations after it, only the top_k most "
         "probable experts of a token weigh and learn, as with eval --active; 0: never."},
    {"moe.capacity_factor", AT(moe.capacity_factor), NUMBER_ABOVE(0.0, 1e6), OR_NONE(0),
     .initial = "none", OUTPUT,
     .help = "An expert takes at most this times its balanced share; none: no token is dropped."},
    {"moe.eval_capacity_factor", AT(moe.eval_capacity_factor), NUMBER_ABOVE(0.0, 1e6), OR_NONE(0),
     .follows = "capacity_factor", OUTPUT, .help = "The same outside training."},
    {"moe.min_capacity", AT(moe.min_capacity), INT(0, LONGEST), .initial = "4", OUTPUT,
     .help = "With a capacity factor, an expert takes at least this many tokens a window."},
    {"moe.capacity_window", AT(moe.capacity_window), WINDOWS, .initial = "sequence", OUTPUT,
     .help = "Tokens that share an expert's capacity, as for aux_window."},
    {"moe.drop_policy", AT(moe.drop_policy), WORDS("position", "probability", "random"),
     .initial = "position", OUTPUT,
     .help = "Who is dropped from a full expert: the last in order, the least probable, or any."},
    {"moe.schedule", AT(moe.schedule), STRATEGY(schedules), .autos = TRI_AUTO_SCHEDULE,
     .follows = "ted, with router dense: dense", .help = "How tokens move between ranks."},
    {"moe.chunks", AT(moe.chunks), INT(1, TRI_CHUNKS_MAX), .initial = "4", .autos = TRI_AUTO_CHUNKS,
     .help = "Chunks in which schedule overlapped moves a layer's rows; no bit depends on it."},
    {"moe.chunks_backward", AT(moe.chunks_backward), INT(1, TRI_CHUNKS_MAX), .follows = "chunks",
     .autos = TRI_AUTO_CHUNKS_BACKWARD, .help = "The same in the backward."},
    {"moe.headroom", AT(moe.headroom), NUMBER_FROM(1.0, 1e6), .initial = "2",
     .help = "Exchange buffers start at this times the balanced size; they grow when needed."},
    {"moe.shared_intermediate_size", AT(moe.shared_intermediate_size), INT(0, LONGEST),
     .initial = "0", .shapes = true,
     .help = "Inner width of an expert that every token visits (Qwen2); 0: none."},
    {"moe.shared_gate", AT(moe.shared_gate), BOOL, .initial = "false", .shapes = true, OUTPUT,
     .help = "Weighs the shared expert by a learned sigmoid gate."},
    {"moe.jitter", AT(moe.jitter), NUMBER_FROM(0.0, 1.0), .initial = "0", TRAINS,
     .help = "In training the router's input is multiplied by U(1 - jitter, 1 + jitter)."},
    {"moe.noise", AT(moe.noise), NUMBER_FROM(0.0, 1e6), .initial = "0", TRAINS,
     .help = "In training, standard deviation of normal noise on the logits that choose."},
    {"moe.upcycle_noise", AT(moe.upcycle_noise), NUMBER_FROM(0.0, 100.0), .initial = "0",
     .help =
         "Standard deviation of normal noise on the matrices of experts that begin as copies of "
         "a dense MLP (init_from): each gets its own."},
    {"moe.bias_balancing", AT(moe.bias_balancing), NUMBER_FROM(0.0, 1e6), .initial = "0", TRAINS,
     .help = "Rate of the balancing biases on the choice (DeepSeek-V3); 0: what a checkpoint has "
             "of them is kept and not adjusted."},
    {"moe.router", AT(moe.router), STRATEGY(routers), OUTPUT, .help = "How experts are chosen."},
    {"moe.score", AT(moe.score), WORDS("softmax", "sigmoid"), .initial = "softmax", OUTPUT,
     .help =
         "What an expert's logit becomes: a part of a whole, or of each by itself (DeepSeek-V3). "
         "Biases are added to it, weights are made of it."},
    {"moe.groups", AT(moe.groups), INT(1, TRI_GROUPS_MAX), .initial = "1", OUTPUT,
     .help = "Groups of neighbouring experts (DeepSeek-V3); divides num_experts."},
    {"moe.groups_top", AT(moe.groups_top), INT(1, TRI_GROUPS_MAX), .follows = "groups", OUTPUT,
     .help =
         "A token's experts are of so many groups, those whose two best scores have the largest "
         "sum."},
    {"moe.routed_scaling", AT(moe.routed_scaling), NUMBER_ABOVE(0.0, 1e6), .initial = "1", OUTPUT,
     .help = "The weights of the chosen experts are multiplied by it, after normalize_top_k."},
    {"moe.deepspeed_rts", AT(moe.deepspeed_rts), BOOL, .initial = "true", OUTPUT,
     .help = "Random token selection of deepspeed_top1."},
    {"moe.deepspeed_second_sampling", AT(moe.deepspeed_second_sampling), BOOL, .initial = "true",
     OUTPUT, .help = "Gumbel noise on the second choice of deepspeed_top2."},
    {"moe.sparsemixer_form", AT(moe.sparsemixer_form), WORDS("paper", "released", "corrected"),
     .initial = "paper", OUTPUT,
     .help = "SparseMixer-v2 by GRIN's algorithm 1, as its authors' code computes, or by algorithm "
             "2 (v2*), whose derivation is the right one."},
    {"moe.mask_range", AT(moe.mask_range), NUMBER_FROM(0.0, 1.0), .initial = "0.01", OUTPUT,
     .help = "sparsemixer draws among experts whose logit is below the best one by at most this "
             "times the sum of the two's absolute values; 0: ties alone, 1: all."},

    {"parallel.tensor", AT(parallel.tensor), INT(1, MOST), .initial = "1",
     .help = "Ranks that share each layer; divides num_heads."},
    {"parallel.tensor_grid", AT(parallel.tensor_grid), .type = TRI_KEY_GRID, .min = 1, .max = MOST,
     .follows = "[tensor, 1, 1]",
     .help = "How the tensor ranks share what is no expert, their product tensor: ranks that cut "
             "heads and inner sizes, the hidden size, and the rows of each weight, gathered for "
             "use, and of each micro-batch."},
    {"parallel.expert", AT(parallel.expert), INT(1, MOST), .initial = "1",
     .help = "Rank groups that share the experts; divides num_experts."},
    {"parallel.expert_tensor", AT(parallel.expert_tensor), INT(1, MOST), .follows = "tensor",
     .help = "Ranks that share one expert: tensor, or 1 for experts too narrow to cut."},

    {"data.train", AT(data.train), TEXT(0), .initial = "", .sets = TRI_SETS_WEIGHTED,
     .help = "Training shards: a path, a pattern with * ? [ ], or of several sets a list of {path, "
             "weight}."},
    {"data.valid", AT(data.valid), TEXT(0), .initial = "", .sets = TRI_SETS_NAMED,
     .help = "Validation shards: a path, a pattern, or of several sets {name: path}; empty: no "
             "evaluation."},
    {"data.sequence_length", AT(data.sequence_length), INT(1, LONGEST), .initial = "128",
     .shapes = true, .help = "Tokens of a row."},
    {"data.format", AT(data.format), WORDS("llmc", "u16", "u32", "megatron"), .initial = "llmc",
     .help = "Shards with llm.c's header, headerless 16-bit or 32-bit tokens, or Megatron's .bin "
             "with an .idx beside it."},
    {"data.separator", AT(data.separator), INT(0, INT_MAX), OR_NONE(-1), .initial = "none",
     .shapes = true, OUTPUT, .help = "Token between documents; attention does not cross it."},
    {"data.packing", AT(data.packing), WORDS("windows", "documents"), .initial = "windows",
     .shapes = true,
     .help = "Rows are windows over all tokens, or hold whole documents and padding behind them."},
    {"data.document_positions", AT(data.document_positions), WORDS("auto", "true", "false"),
     .initial = "auto", .shapes = true, OUTPUT,
     .help = "Positions count from 0 in each document, not in each row; auto: when packing is "
             "documents."},

    {"train.global_batch", AT(train.global_batch), INT(1, LONGEST), .initial = "32", TRAINS,
     .help = "Rows of a step, over all replicas."},
    {"train.micro_batch", AT(train.micro_batch), INT(1, LONGEST), .follows = "global_batch",
     .help = "Rows that a replica takes at once; changes memory, not the result."},
    {"train.steps", AT(train.steps), INT(1, STEPS), .initial = "1000", TRAINS,
     .help = "Steps of the run."},
    {"train.learning_rate", AT(train.learning_rate), NUMBER_FROM(0.0, 1e3), .initial = "3e-4",
     TRAINS, .help = "The highest."},
    {"train.min_learning_rate", AT(train.min_learning_rate), NUMBER_FROM(0.0, 1e3),
     .follows = "learning_rate / 10", TRAINS,
     .help = "Where the schedule ends: the rate of the last step."},
    {"train.warmup_steps", AT(train.warmup_steps), INT(0, STEPS), .initial = "0", TRAINS,
     .help = "Steps in which the rate rises from 0."},
    {"train.decay_steps", AT(train.decay_steps), INT(1, STEPS), .follows = "steps / 5", TRAINS,
     .help = "Falling steps at the end of schedule wsd; the last has min_learning_rate."},
    {"train.schedule", AT(train.schedule), WORDS("cosine", "linear", "wsd", "constant"),
     .initial = "cosine", TRAINS,
     .help = "Of the learning rate after the warm-up; wsd stays, then falls at the end."},
    {"train.weight_decay", AT(train.weight_decay), NUMBER_FROM(0.0, 1e3), .initial = "0.1", TRAINS,
     .help = "Decoupled; of weights with two dimensions or more."},
    {"train.betas", AT(train.betas), .type = TRI_KEY_PAIR, .low = 0.0, .low_in = true, .high = 1.0,
     .initial = "[0.9, 0.95]", TRAINS, .help = "AdamW's decay rates of the two moments."},
    {"train.epsilon", AT(train.epsilon), NUMBER_ABOVE(0.0, 1.0), .initial = "1e-8", TRAINS,
     .help = "AdamW's, added to the root of the second moment."},
    {"train.clip", AT(train.clip), NUMBER_FROM(0.0, 1e9), .initial = "1", TRAINS,
     .help = "Longest global gradient norm; 0: off."},
    {"train.max_skipped", AT(train.max_skipped), INT(1, STEPS), .initial = "10",
     .help = "This many steps in a row without a finite gradient end the run."},
    {"train.recompute", AT(train.recompute), .type = TRI_KEY_RECOMPUTE, .min = 0,
     .max = TRI_LAYERS_MAX - 1, .initial = "none",
     .help = "Blocks that keep only their input and compute their activations again in the "
             "backward pass."},
    {"train.communication_aware_checkpointing", AT(train.communication_aware_checkpointing), BOOL,
     .initial = "true",
     .help = "A recompute takes the results of its collectives from a stash and sends nothing."},
    {"train.duplicate_token_dropping", AT(train.duplicate_token_dropping), BOOL, .initial = "true",
     .help = "Each tensor rank sends only its part of the tokens to the experts."},
    {"train.optimizer_tile", AT(train.optimizer_tile), INT(1, (int64_t)1 << 40), OR_NONE(0),
     .initial = "1048576",
     .help = "Parameters that the optimizer updates at once; none: all of this rank's."},
    {"train.sequence_parallel", AT(train.sequence_parallel), BOOL, .initial = "false",
     .help = "Cuts norms and the residual stream between layers over tensor, by tokens."},
    {"train.gradient_dtype", AT(train.gradient_dtype), WORDS("f32", "bf16"), .initial = "f32",
     TRAINS, .help = "Of the gradients of weights that are stored in bf16, while they are summed."},
    {"train.freeze", AT(train.freeze), TEXTS, .initial = "", .shapes = true, TRAINS,
     .help = "Patterns of names (with * ? [ ]) of weights that stay as they are, as "
             "`[\"embedding.*\", \"layers.*.attention.*\"]`: without gradient and moments."},
    {"train.lora.rank", AT(train.lora.rank), INT(0, MOST), .initial = "0", .shapes = true, TRAINS,
     .help =
         "Rank of the pairs A, B that alone are trained, beside frozen weights (LoRA); 0: none."},
    {"train.lora.alpha", AT(train.lora.alpha), NUMBER_ABOVE(0.0, 1e6), .initial = "16",
     .shapes = true, OUTPUT, .help = "A pair adds alpha / rank times B A to its weight."},
    {"train.lora.targets", AT(train.lora.targets), TEXTS, .initial = "attention, experts",
     .shapes = true, OUTPUT,
     .help = "Which weights have a pair: some of attention, experts, shared, mlp."},
    {"train.lora.adapter", AT(train.lora.adapter), FOLDER(0), .initial = "",
     .help = "A folder of PEFT's whose pairs a run begins with, beside init_from; what rank, alpha "
             "and targets leave out is taken from it."},

    {"eval.every", AT(eval_every), INT(0, STEPS), .initial = "0",
     .help = "Steps between evaluations; 0: only at the end."},
    {"eval.batches", AT(eval_batches), INT(0, STEPS), .initial = "0",
     .help = "Global batches of one evaluation; 0: the whole validation set."},
    {"eval.at_start", AT(eval_at_start), BOOL, .initial = "false",
     .help = "Evaluate before the first step too."},
    {"metrics.every", AT(metrics_every), INT(1, STEPS), .initial = "1",
     .help = "Steps between lines of steps; the last step, skipped ones and those that are "
             "evaluated always have one."},
    {"metrics.expert_load_every", AT(metrics_load_every), INT(0, STEPS), .initial = "1",
     .help = "Of the lines those of steps that this divides, and of the last step, have each "
             "expert's load; others null, as all have with 0."},
    {"metrics.tensorboard", AT(metrics_tensorboard), BOOL, .initial = "false",
     .help = "Event files for TensorBoard beside metrics.jsonl."},
    {"trace.steps", AT(trace_steps), .type = TRI_KEY_SPAN, .min = 1, .max = STEPS, OR_NONE(0),
     .initial = "none", .help = "The first and the last step that are traced; none: no trace."},
    {"trace.events", AT(trace_events), INT(1, LONGEST), .initial = "65536",
     .help =
         "Events that each thread of a rank keeps, in memory that is planned; what comes beyond "
         "is dropped and counted."},
    {"checkpoint.every", AT(checkpoint_every), INT(0, STEPS), .initial = "0",
     .help = "Steps between checkpoints; 0: only the last step."},
    {"checkpoint.keep_last", AT(checkpoint_keep_last), INT(1, STEPS), .initial = "2",
     .help = "Older checkpoints are removed."},
    {"comm.timeout_seconds", AT(comm_timeout_seconds), NUMBER_ABOVE(0.0, 1e9), .initial = "600",
     .help = "So long a wait in which no rank of the node works ends the run and names who is "
             "missing."},
    {"comm.overlap", AT(comm_overlap), BOOL, .initial = "true",
     .help = "Gradients are reduced beside the backward of the next block, weights gathered beside "
             "the next step's start; tensor ranks sum beside products, and a grid's depth gathers "
             "weights ahead."},
    {"comm.max_message", AT(comm_max_message), INT(1, 1 << 30), .initial = "268435456",
     .help = "Elements of one MPI message; longer ones are cut."},
    {"comm.ranks_per_host", AT(comm_ranks_per_host), INT(0, 1 << 20), .initial = "0",
     .help = "Consecutive ranks that count as one host, for tests and plans; 0: hosts as MPI finds "
             "them."},
    {"plan.cluster", AT(plan.cluster), TEXT(0), .initial = "",
     .help = "File of what the machine does in a second, as `trident calibrate --out FILE` writes "
             "it; `auto` needs one, and `trident plan` has times with it."},
    {"plan.again", AT(plan.again), BOOL, .initial = "false",
     .help = "A run that goes on chooses what is `auto` anew, and not as it has it."},
};
const size_t tri_keys_count = sizeof(tri_keys) / sizeof(*tri_keys);

static_assert(sizeof(tri_keys) / sizeof(*tri_keys) <= TRI_KEYS_MAX, "one line number for each key");
