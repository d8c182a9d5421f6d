/* reference_check DIR [key=value …]: DIR holds a model and reference values (config.json,
 * model.safetensors, reference.safetensors, training.safetensors; masked.safetensors and adapter/
 * if they are there) or gate cases (*.safetensors with a `gate` in their metadata). Prints one line
 * a comparison; exits 1 when one fails. Runs on one rank or under mpirun with parallel.tensor=…,
 * parallel.expert=…. */
#include "reference_check.h"

#include "base/file.h"
#include "base/memory.h"
#include "moe/strategies.h"

#include <stdio.h>
#include <string.h>

/* The optimizer of the reference runs; the batch is read from the files. */
static void set_training(struct tri_config *config, int64_t rows, int64_t seq)
{
    config->data.sequence_length = seq;
    config->train.global_batch = rows;
    config->train.micro_batch = rows;
    config->train.steps = 10;
    config->train.schedule = TRI_LR_CONSTANT;
    config->train.learning_rate = 1e-3;
    config->train.warmup_steps = 0;
    config->train.weight_decay = 0.1;
    config->train.betas[0] = 0.9;
    config->train.betas[1] = 0.95;
    config->train.epsilon = 1e-8;
    config->train.clip = 1.0;
}

static enum tri_status prepare(struct subject *subject, int count, char *const *overrides,
                               struct tri_error *error)
{
    char path[TRI_PATH_MAX + 32];
    struct tri_config *config = &subject->config;
    TRI_TRY(tri_hf_load_config(subject->dir, config, &subject->family, error));
    (void)snprintf(path, sizeof(path), "%s/reference.safetensors", subject->dir);
    struct tri_safetensors *reference;
    TRI_TRY(tri_safetensors_open(path, &reference, error));
    const struct tri_safetensor *ids = need(reference, "input_ids");
    set_training(config, ids->shape[0], ids->shape[1]);
    tri_safetensors_close(reference);
    char *yaml = tri_config_to_yaml(config);
    enum tri_status status = tri_config_parse(&tri_strategies, subject->dir, yaml, strlen(yaml),
                                              count, overrides, config, error);
    tri_free(yaml);
    TRI_TRY(status);
    TRI_TRY(tri_config_check_layout(config, job_size(), error));
    TRI_TRY(tri_mesh_create(job(), (int)config->parallel.tensor, 1, 1, (int)config->parallel.expert,
                            &subject->mesh, error));
    (void)snprintf(path, sizeof(path), "%s/model.safetensors", subject->dir);
    return tri_safetensors_open(path, &subject->weights, error);
}

static int run_job(int argc, char **argv)
{
    struct tri_error error;
    struct check check = {0};
    if (argc < 2) {
        (void)tri_fail(&error, TRI_BAD_INPUT, "usage: reference_check DIR [key=value ...]");
        quit(&error);
    }
    char path[TRI_PATH_MAX + 32];
    (void)snprintf(path, sizeof(path), "%s/config.json", argv[1]);
    if (tri_file_exists(path)) {
        struct subject subject = {.dir = argv[1]};
        if (prepare(&subject, argc - 2, argv + 2, &error) != TRI_OK) {
            quit(&error);
        }
        check_model_values(&check, &subject);
        check_masked_values(&check, &subject);
        check_adapted_values(&check, &subject);
        check_training_values(&check, &subject);
        tri_safetensors_close(subject.weights);
        tri_mesh_destroy(subject.mesh);
    } else {
        check_gates(&check, argv[1]);
    }
    int outcome[2] = {check.passed, check.failed};
    if (job_rank() == 0) {
        (void)printf("%d passed, %d failed\n", outcome[0], outcome[1]);
    }
    return check.failed || check.passed == 0 ? TRI_CHECK_FAILED : TRI_OK;
}

int main(int argc, char **argv)
{
    return job_run(argc, argv, run_job);
}
