/* The words of a config, as values. config/table.c is the one table that names every key, its
 * type, default and help text; the reader, `key=value` overrides, the resolved config.yaml,
 * suggestions and docs all read that table. Defaults of the form "follows another key" are resolved
 * by tri_config_finish. */
#ifndef TRIDENT_CONFIG_CONFIG_H
#define TRIDENT_CONFIG_CONFIG_H

#include "base/file.h"
#include "base/status.h"
#include "config/strategy.h"

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* Bytes of a path with its zero, and those without it of a folder that others are made in: what
 * Trident names below it fits. */
enum { TRI_PATH_MAX = 1024, TRI_FOLDER_PATH_MAX = 896 };
enum {
    TRI_LAYERS_MAX = 1024,
    TRI_KEYS_MAX = 128,
    TRI_GROUPS_MAX = 64,
    TRI_CHUNKS_MAX = 1024,
    TRI_LINE_COMMAND = -1
};

enum tri_precision { TRI_PRECISION_F32, TRI_PRECISION_BF16 };
enum tri_norm_kind { TRI_NORM_RMS, TRI_NORM_LAYER };
enum tri_position_kind { TRI_POSITION_ROPE, TRI_POSITION_LEARNED };
/* TRI_ROPE_PLAIN: none */
enum tri_rope_scaling {
    TRI_ROPE_PLAIN,
    TRI_ROPE_LINEAR,
    TRI_ROPE_DYNAMIC,
    TRI_ROPE_LLAMA3,
    TRI_ROPE_YARN
};
enum tri_mlp_kind { TRI_MLP_SWIGLU, TRI_MLP_GELU, TRI_MLP_GELU_ERF };
enum tri_qk_norm { TRI_QK_NORM_NONE, TRI_QK_NORM_HEAD, TRI_QK_NORM_FULL };
enum tri_bias { TRI_BIAS_NONE, TRI_BIAS_QKV, TRI_BIAS_ALL };
enum tri_score { TRI_SCORE_SOFTMAX, TRI_SCORE_SIGMOID };
enum tri_aux_scope { TRI_AUX_LAYER, TRI_AUX_MODEL };
enum tri_window { TRI_WINDOW_SEQUENCE, TRI_WINDOW_STEP, TRI_WINDOW_RANK };
enum tri_drop_policy { TRI_DROP_POSITION, TRI_DROP_PROBABILITY, TRI_DROP_RANDOM };
enum tri_sparsemixer_form {
    TRI_SPARSEMIXER_PAPER,
    TRI_SPARSEMIXER_RELEASED,
    TRI_SPARSEMIXER_CORRECTED
};
enum tri_lr_schedule { TRI_LR_COSINE, TRI_LR_LINEAR, TRI_LR_WSD, TRI_LR_CONSTANT };
enum tri_data_format { TRI_DATA_LLMC, TRI_DATA_U16, TRI_DATA_U32, TRI_DATA_MEGATRON };
enum tri_rows_kind { TRI_ROWS_WINDOWS, TRI_ROWS_DOCUMENTS };
enum tri_choice { TRI_CHOICE_AUTO, TRI_CHOICE_TRUE, TRI_CHOICE_FALSE };

/* What another value of a key does to a run that goes on, from little to much: nothing but to
 * speed, memory and files; another training; other results from the same weights. */
enum tri_key_effect { TRI_EFFECT_NONE, TRI_EFFECT_TRAINING, TRI_EFFECT_OUTPUT };

struct tri_config_model {
    int64_t vocab_size, num_layers, hidden_size, num_heads, num_kv_heads, head_dim,
        intermediate_size, max_position;
    enum tri_norm_kind norm;
    double norm_epsilon;
    enum tri_position_kind position;
    double rope_theta;
    enum tri_rope_scaling rope_scaling;
    double rope_factor;
    int64_t rope_original;     /* positions that the model was trained on before it was scaled */
    double rope_llama3[2];     /* low, high */
    double rope_betas[2];      /* of yarn: fast, slow */
    double rope_attention;     /* of yarn: cosines and sines are multiplied by it */
    bool rope_truncate;        /* of yarn: its range is of whole dimensions */
    int64_t sliding_window;    /* keys that a query sees, its own among them; 0: all before it */
    int64_t num_window_layers; /* how many entries of window_layers are set; 0: all layers */
    int64_t window_layers[TRI_LAYERS_MAX];
    enum tri_mlp_kind mlp;
    enum tri_qk_norm qk_norm;
    enum tri_bias bias;
    bool tie_embeddings;
    double init_std;
};

struct tri_config_moe {
    int64_t num_experts; /* 0: the model is dense */
    int64_t top_k, every, intermediate_size;
    int64_t num_layers; /* how many entries of `layers` are set; 0: `every` decides */
    int64_t layers[TRI_LAYERS_MAX];
    bool normalize_top_k;
    double aux_loss;
    enum tri_aux_scope aux_scope;
    enum tri_window aux_window;
    double z_loss;
    double mutual_information; /* coefficient of the loss by that name, of a dense router */
    int64_t sharpen_step;      /* from which on it trains top_k experts of a token; 0: none */
    double capacity_factor;    /* 0: none (dropless) */
    double eval_capacity_factor;
    int64_t min_capacity;
    enum tri_window capacity_window;
    enum tri_drop_policy drop_policy;
    const struct tri_schedule_kind *schedule;
    int64_t chunks, chunks_backward; /* of a layer's rows, in an overlapped schedule */
    double headroom;
    int64_t shared_intermediate_size; /* 0: no shared expert */
    bool shared_gate;
    double jitter;        /* router input times U(1 - jitter, 1 + jitter), in training */
    double noise;         /* std of the normal noise added to the logits that choose, in training */
    double upcycle_noise; /* std of what is added to experts that begin as a dense MLP */
    double bias_balancing; /* DeepSeek-V3's update rate; 0: off */
    const struct tri_router_kind *router;
    enum tri_score score;
    int64_t groups, groups_top; /* experts of the best groups_top of so many groups are chosen */
    double routed_scaling;      /* times the weights */
    bool deepspeed_rts;         /* random token selection of deepspeed_top1 */
    bool deepspeed_second_sampling; /* Gumbel noise on the second choice of deepspeed_top2 */
    enum tri_sparsemixer_form sparsemixer_form;
    double mask_range; /* of sparsemixer: which experts are near enough to the best one */
};

struct tri_config_parallel {
    int64_t tensor, expert, expert_tensor;
    int64_t tensor_grid[3]; /* of the tensor ranks; 0: [tensor, 1, 1] */
};

struct tri_config_data {
    char train[TRI_PATH_MAX], valid[TRI_PATH_MAX]; /* tri_config_sets reads them; "" when absent */
    int64_t sequence_length;
    enum tri_data_format format; /* headerless shards need u16 or u32 */
    int64_t separator; /* token between documents; -1: none. Attention does not cross it. */
    enum tri_rows_kind packing;
    enum tri_choice document_positions; /* tri_config_document_positions says which */
};

/* Which weights have low-rank pairs. */
enum tri_lora_target {
    TRI_LORA_ATTENTION, /* q, k, v and o */
    TRI_LORA_EXPERTS,
    TRI_LORA_SHARED, /* the shared expert */
    TRI_LORA_MLP,    /* of blocks without experts */
    TRI_LORA_TARGETS
};

/* Low-rank pairs beside weights. */
struct tri_config_lora {
    int64_t rank; /* 0: none */
    double alpha;
    char targets[TRI_PATH_MAX]; /* the words of some targets, between commas */
    char adapter[TRI_PATH_MAX]; /* a folder of PEFT's that they begin with; "": none */
};

struct tri_config_train {
    int64_t global_batch, micro_batch, steps;
    double learning_rate, min_learning_rate;
    int64_t warmup_steps, decay_steps; /* decay_steps: the last part of warm-up-stable-decay */
    enum tri_lr_schedule schedule;
    double weight_decay, betas[2], epsilon, clip; /* clip 0: off */
    int64_t max_skipped;    /* this many non-finite steps in a row end the run */
    int64_t optimizer_tile; /* parameters; 0: none, all at once */
    int64_t recompute; /* how many entries of recompute_layers are set; 0: none, -1: all blocks */
    int64_t recompute_layers[TRI_LAYERS_MAX];
    bool communication_aware_checkpointing, duplicate_token_dropping, sequence_parallel;
    enum tri_precision gradient_dtype; /* of weights that are stored in bf16 */
    char freeze[TRI_PATH_MAX]; /* patterns of names, between commas; with low-rank pairs all else is
                                  frozen anyway */
    struct tri_config_lora lora;
};

/* What the word `auto` leaves to the planner. */
enum tri_auto {
    TRI_AUTO_LAYOUT = 1, /* all keys of parallel */
    TRI_AUTO_SCHEDULE = 2,
    TRI_AUTO_CHUNKS = 4,
    TRI_AUTO_CHUNKS_BACKWARD = 8
};

struct tri_config_plan {
    char cluster[TRI_PATH_MAX]; /* the file that `auto` is chosen with; "" when absent */
    bool again;                 /* a run that goes on chooses anew */
};

struct tri_config {
    char path[TRI_PATH_MAX];            /* where it was read from */
    const struct tri_strategies *known; /* what it was read with */
    int64_t seed;
    enum tri_precision precision;
    bool reproducible; /* the same bits on every layout */
    char run_dir[TRI_PATH_MAX];
    char resume[TRI_PATH_MAX];    /* another run to continue from; "" when absent */
    char init_from[TRI_PATH_MAX]; /* where the first weights are; "" when absent */
    struct tri_config_model model;
    struct tri_config_moe moe;
    struct tri_config_parallel parallel;
    struct tri_config_data data;
    struct tri_config_train train;
    int64_t eval_every;         /* 0: only at the end */
    int64_t eval_batches;       /* 0: the whole validation set */
    bool eval_at_start;         /* before the first step too */
    int64_t metrics_every;      /* steps between lines of metrics.jsonl */
    int64_t metrics_load_every; /* between expert loads in them; 0: none */
    bool metrics_tensorboard;   /* event files too */
    int64_t trace_steps[2];     /* the first and the last that are traced; 0, 0: none */
    int64_t trace_events;       /* that each thread of a rank keeps of them */
    int64_t checkpoint_every;   /* 0: only the last step */
    int64_t checkpoint_keep_last;
    double comm_timeout_seconds;
    bool comm_overlap;
    int64_t comm_max_message;    /* elements a single MPI message may carry */
    int64_t comm_ranks_per_host; /* consecutive ones; 0: hosts are as MPI finds them */
    int64_t threads;             /* per rank; 0: cores / local ranks */
    struct tri_config_plan plan;
    /* Of enum tri_auto, or-ed: nobody has chosen these yet (train/auto.h does), and their values
     * are the defaults. */
    unsigned autos;
    /* By key, in the table's order: the line that set it, TRI_LINE_COMMAND, or 0 for a default.
     * Messages read it, and tri_config_to_yaml. */
    int32_t lines[TRI_KEYS_MAX];
    /* By key: whether what it is comes from other weights (tri_config_complete), whose path is
     * source. */
    bool adopted[TRI_KEYS_MAX];
    char source[TRI_PATH_MAX];
    int32_t moe_line;      /* of the section moe, or 0 */
    int32_t parallel_line; /* of `parallel: auto`, likewise */
    /* The length of rows that dynamic rope_scaling is for, where what is fed at once is another; 0:
     * data.sequence_length. */
    int64_t rope_length;
};

/* All defaults; a key that follows others is 0 (integers) or -1 (numbers) until tri_config_finish.
 * The routers and schedules that there are, `known`, are borrowed. */
void tri_config_init(const struct tri_strategies *known, struct tri_config *config);

/* Reads a YAML file, then applies `count` overrides "section.key=value". Fails with one line that
 * names file, line, key, what was found, what was expected and, for an unknown key, the nearest
 * known one. */
enum tri_status tri_config_load(const struct tri_strategies *known, const char *path, int count,
                                char *const *overrides, struct tri_config *config,
                                struct tri_error *error) TRI_NODISCARD;
/* The same from text already in memory; path is for messages. */
enum tri_status tri_config_parse(const struct tri_strategies *known, const char *path,
                                 const char *text, size_t length, int count, char *const *overrides,
                                 struct tri_config *config, struct tri_error *error) TRI_NODISCARD;
/* The text of such a file; tri_file_unmap it. A pipe gives it once. */
enum tri_status tri_config_map(const char *path, struct tri_mapping *file,
                               struct tri_error *error) TRI_NODISCARD;

/* tri_config_load in two parts: a config that is only read, from `file`, the text that there is
 * already, or where that is NULL from path, and the rest. What its sections model
 * and moe leave out is taken from `source`, the finished config of weights that there are (NULL:
 * there are none); BAD_INPUT names a key of which the weights have another value. A dense source
 * and a config with experts go together: then section moe is the config's alone. */
enum tri_status tri_config_read(const struct tri_strategies *known, const char *path,
                                const struct tri_mapping *file, int count, char *const *overrides,
                                struct tri_config *config, struct tri_error *error) TRI_NODISCARD;
enum tri_status tri_config_complete(struct tri_config *config, const struct tri_config *source,
                                    struct tri_error *error) TRI_NODISCARD;

/* BAD_INPUT names a key that was given and is read by nothing in the finished config. */
enum tri_status tri_config_check_given(const struct tri_config *config,
                                       struct tri_error *error) TRI_NODISCARD;

/* Whether "section.key=value" is about a key that there is; BAD_INPUT names the nearest one. */
enum tri_status tri_config_check_override(const char *text, struct tri_error *error) TRI_NODISCARD;

/* Fills the defaults that follow other keys and checks every combination that needs no rank count.
 * tri_config_load calls it; code that fills a config by hand (tests, import) calls it itself. */
enum tri_status tri_config_finish(struct tri_config *config, struct tri_error *error) TRI_NODISCARD;

/* Whether nobody has said what the model is: of a config that was read, and of no other. */
bool tri_config_lacks_shape(const struct tri_config *config);
/* Where that is why something was refused, says so too. Returns the status. */
enum tri_status tri_config_hint_shape(const struct tri_config *config, enum tri_status status,
                                      struct tri_error *error) TRI_NODISCARD;

/* Checks the layout against a number of ranks: tensor x expert divides it, heads, experts. */
enum tri_status tri_config_check_layout(const struct tri_config *config, int ranks,
                                        struct tri_error *error) TRI_NODISCARD;

/* The resolved config as YAML that tri_config_parse reads back to the same values. A default that
 * follows another key is a comment, so that it follows what is written there later. tri_free it. */
char *tri_config_to_yaml(const struct tri_config *config);
/* Of a config that an older program printed, with all defaults as values: those that other keys
 * would make the same count as not given. */
void tri_config_forget_followed(struct tri_config *config);
/* Of a config that weights exist for: what shapes them counts as given. */
void tri_config_keep_shapes(struct tri_config *config);

/* The values of what is left to the planner, from a config that has them, as if they had been
 * given. */
void tri_config_settle(struct tri_config *config, const struct tri_config *from);
/* tri_config_refuse, by the first key that is left to the planner: "found auto, WHY". */
enum tri_status tri_config_refuse_auto(const struct tri_config *config, const char *why,
                                       struct tri_error *error);

/* Name of the first key that differs and with which no run goes on (what shapes weights that these
 * models have; when they are trained, also the seed and what shapes rows), with both values in
 * text; NULL when none does. */
const char *tri_config_first_difference(const struct tri_config *a, const struct tri_config *b,
                                        bool trained, char *text, size_t text_bytes);

/* "KEY A → B, …" of the keys that differ with at least this effect, cut to text_bytes; returns how
 * many do. A default that follows another key is not named beside it. */
int tri_config_list_changes(const struct tri_config *before, const struct tri_config *now,
                            enum tri_key_effect least, char *text, size_t text_bytes);

/* Bad input that a key is to blame for, found later than the reader could: fills error with
 * "FILE:LINE: key 'KEY': TEXT", the place being that which set the key. Returns TRI_BAD_INPUT. */
enum tri_status tri_config_refuse(const struct tri_config *config, struct tri_error *error,
                                  const char *key, const char *format, ...) TRI_PRINTF(4, 5);

/* The table's help: one line a key, "section.key  type  default  what it does", and one for each
 * strategy. */
void tri_config_print_help(const struct tri_strategies *known, FILE *out);
/* The same as docs/config.md. */
void tri_config_print_markdown(const struct tri_strategies *known, FILE *out);

/* Parts that reproducible mode cuts every sum over what tensor cuts into, whatever the layout: the
 * largest power of two, at most 8, that divides num_kv_heads. tensor must divide it. */
int tri_config_reproducible_parts(const struct tri_config *config);
/* Of the parallel.tensor ranks, what parallel.tensor_grid says of what is no expert: how many cut
 * heads and inner sizes, how many the hidden size, and how many share the rows of a weight and of a
 * micro-batch. */
int64_t tri_config_cross(const struct tri_config_parallel *parallel);
int64_t tri_config_depth(const struct tri_config_parallel *parallel);
int64_t tri_config_cut(const struct tri_config_parallel *parallel);
/* Keys that a query of the layer sees at most; 0: all. */
int64_t tri_config_layer_window(const struct tri_config *config, int64_t layer);
/* The sets of shards that a value of data.train or data.valid names: globs, with weights or names;
 * of a plain text one, without a name and of weight 1; of "" none. The value must be a config's. */
enum { TRI_SETS_MAX = 32, TRI_SET_NAME_MAX = 32 };
struct tri_set {
    char name[TRI_SET_NAME_MAX], path[TRI_PATH_MAX];
    double weight;
};
struct tri_sets {
    int count;
    struct tri_set set[TRI_SETS_MAX];
};
void tri_config_sets(const char *text, struct tri_sets *sets);
const char *tri_lora_target_word(enum tri_lora_target target);
/* Whether train.lora.targets has it. */
bool tri_config_lora_targets(const struct tri_config *config, enum tri_lora_target target);
/* Experts that a token chooses, of which there are records: none where the router is dense, and
 * all of them, chosen or not, where experts choose tokens. And experts that a token may visit, each
 * with a weight. */
int64_t tri_config_routes(const struct tri_config_moe *moe);
int64_t tri_config_visits(const struct tri_config_moe *moe);
/* Experts of a token that a dense router records as well, once it sharpens; else its routes. */
int64_t tri_config_choices(const struct tri_config_moe *moe);
/* Whether step `step`, counted from 1, trains top_k experts of each token of a dense router. */
bool tri_config_is_sharp(const struct tri_config_moe *moe, int64_t step);
bool tri_config_layer_is_moe(const struct tri_config *config, int64_t layer);
/* Whether positions count from 0 in each document, and not in each row. */
bool tri_config_document_positions(const struct tri_config *config);
/* Whether train.recompute names the block. */
bool tri_config_layer_recomputes(const struct tri_config *config, int64_t layer);

#endif
