/* Low-rank pairs as PEFT's adapters: adapter_model.safetensors and adapter_config.json. */
#ifndef TRIDENT_CHECKPOINT_PEFT_H
#define TRIDENT_CHECKPOINT_PEFT_H

#include "checkpoint/hf.h"

/* How an adapter's tensors hold pairs. PEFT has one pair for one matrix, and some matrices are
 * several weights here: GPT-2's q, k and v; gate and up of an expert where the adapter is for
 * transformers 5, in which all experts of a layer are one parameter. The pair is then one of
 *
 *     shared   A                B [q; k; v]                       weights that have one A
 *     blocks   A [q; k; v]      B, in blocks, else zero:  q . .   each has an A of its own,
 *                                                         . k .   and the pair has the rank of
 *                                                         . . v   all of them together
 */
struct tri_peft_form {
    enum tri_hf_family family;
    int64_t experts; /* of the model */
    int64_t rank;    /* of a pair for a matrix that is one weight */
    int64_t wide;    /* of one for a matrix that is several, */
    bool shared;     /* which have one A */
    bool fused;      /* the pairs of a layer's experts are one tensor: ranks times experts */
    double dropout;  /* that PEFT trains it with */
};

/* Where a half of a weight's pair lies in an adapter's tensor: its element (i, j), of the first
 * `rows` and `columns`, is element (row + i, column + j * stride). */
enum { TRI_PEFT_NAME = 256 };
struct tri_peft_piece {
    char name[TRI_PEFT_NAME]; /* "base_model.model.MODULE.lora_A.weight" */
    int64_t shape[2];
    const struct tri_param *param;
    int64_t rows, columns, row, column, stride;
};
/* All of a model, params->count at most, sorted by name; their number. Pure. */
int tri_peft_pieces(const struct tri_peft_form *form, const struct tri_params *params,
                    struct tri_peft_piece *pieces);
/* The weights of the matrix that a weight belongs to, in which it has this index. Pure. */
int tri_peft_matrix(const struct tri_peft_form *form, const struct tri_param *weight, int *index);

/* Rank, alpha and targets of DIR/adapter_config.json and the names of the tensors beside it; form:
 * all of it but family and experts, or NULL. BAD_INPUT names what Trident would compute
 * otherwise, and a tensor that has another rank. Local. */
enum tri_status tri_peft_load_config(const char *dir, struct tri_config_lora *lora,
                                     struct tri_peft_form *form,
                                     struct tri_error *error) TRI_NODISCARD;
/* Warns where the adapter says that its base is another folder, which is there, than `model`: of a
 * name of the Hub nothing is known. On one rank. */
void tri_peft_compare_base(const char *dir, const char *model);
/* The headers of DIR/adapter_model.safetensors. Local. */
enum tri_status tri_peft_open_set(const char *dir, struct tri_safetensors_set **set,
                                  struct tri_error *error) TRI_NODISCARD;
/* The pairs of DIR into params, built from config with the section above and allocated; pairs that
 * DIR does not have stay as they are, with a warning. All tensors must be used, in their shapes.
 * Collective over the mesh's world; the status is the same on all ranks. */
enum tri_status tri_peft_load(const char *dir, const struct tri_config *config,
                              struct tri_params *params, struct tri_error *error) TRI_NODISCARD;

/* What is written, whether experts are fused, and for which base: the folder of the model, of rank
 * 0, or "". */
struct tri_peft_target {
    enum tri_hf_family family;
    bool fused;
    const char *base;
};
/* Whether the config's pairs can be written fused. Pure. */
enum tri_status tri_peft_check_fused(const struct tri_config *config,
                                     struct tri_error *error) TRI_NODISCARD;
/* Writes dir, which must not be there yet: the pairs alone, f32. Collective over the mesh's world;
 * the status is the same on all ranks, and after a failure nothing is left. */
enum tri_status tri_peft_save(const char *dir, const struct tri_config *config,
                              const struct tri_peft_target *target, const struct tri_params *params,
                              struct tri_error *error) TRI_NODISCARD;

/* values [rows, columns], a part of a weight, += scale (alpha / rank) up [rows, rank] down [rank,
 * columns], the same part of its pair. Local. */
void tri_peft_merge(int64_t rows, int64_t columns, int64_t rank, double scale, const float *up,
                    const float *down, float *values);

#endif
