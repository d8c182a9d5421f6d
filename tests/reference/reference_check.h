/* Compares what Trident computes with values written by other programs. */
#ifndef TRIDENT_TESTS_REFERENCE_CHECK_H
#define TRIDENT_TESTS_REFERENCE_CHECK_H

#include "checkpoint/hf.h"
#include "checkpoint/safetensors.h"
#include "support/job.h"
#include "train/engine.h"

/* Counts and prints comparisons; only world rank 0 prints. */
struct check {
    int passed, failed;
};

/* One line "ok|FAIL  what  error  limit"; passes when error <= limit (a NaN fails). */
void check_value(struct check *check, const char *what, double error, double limit);

/* Relative L2 distance of got from expected. */
double relative_l2(const float *got, const float *expected, int64_t n);
double l2_norm(const float *x, int64_t n);

/* A tensor of the file as f32 or i64, checked to exist; exits on bad input. tri_free it. */
float *read_f32(const struct tri_safetensors *file, const char *name, int64_t *count);
int64_t *read_i64(const struct tri_safetensors *file, const char *name, int64_t *count);
const struct tri_safetensor *need(const struct tri_safetensors *file, const char *name);
_Noreturn void quit(const struct tri_error *error);

/* A model of DIR on the mesh at hand. */
struct subject {
    const char *dir;
    struct tri_config config;
    enum tri_hf_family family;
    struct tri_mesh *mesh;
    struct tri_safetensors *weights; /* model.safetensors */
};

struct tri_engine *subject_engine(const struct subject *subject);

/* Values of a field of the parameter table, assembled into the HF tensor `expected` names (gathered
 * tensors are passed in table order): [count of tensor] f32; valid on world rank 0. Collective. */
float **subject_gather(const struct subject *subject, const struct tri_params *params,
                       enum tri_field field);
void subject_assemble(const struct subject *subject, const struct tri_params *params,
                      float *const *rows, const struct tri_safetensor *tensor, float *out);
void subject_release(const struct tri_params *params, float **rows);

void check_model_values(struct check *check, const struct subject *subject);
void check_masked_values(struct check *check, const struct subject *subject);
void check_adapted_values(struct check *check, const struct subject *subject);
/* Loss and logits of the one batch of a file, whose targets all count; the norm of the gradients,
 * which the engine then has. */
double check_batch(struct check *check, const struct subject *subject, struct tri_engine *engine,
                   const struct tri_safetensors *reference);
void check_training_values(struct check *check, const struct subject *subject);
void check_gates(struct check *check, const char *dir);

#endif
