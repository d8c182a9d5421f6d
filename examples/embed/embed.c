/* A model inside a program of one's own: made from a config, taught eight bytes that repeat, saved,
 * loaded by a second runtime, asked what follows. Prints what it learned and exits 0 when that is
 * right.
 *
 *     cc embed.c $(pkg-config --cflags --libs trident) -o embed && ./embed [RANKS] */
#include <trident/trident.h>

#include <stdio.h>
#include <stdlib.h>

enum { ROWS = 4, LENGTH = 32, STEPS = 60, BYTES = 256 };

static const char config[] =
    "model: {vocab_size: 256, num_layers: 2, hidden_size: 32, num_heads: 4}\n"
    "moe: {num_experts: 4, top_k: 2}\n"
    "data: {sequence_length: 32}\n"
    "train: {global_batch: 4, micro_batch: 2}\n";
static const char lesson[] = "trident ";

static int fail(const struct trident_error *error)
{
    (void)fprintf(stderr, "embed: %s\n", error->message);
    return 1;
}

/* The lesson from another letter on in each row; targets are one ahead. */
static void write_rows(int32_t *tokens, int32_t *targets)
{
    for (int i = 0; i < ROWS * LENGTH; i++) {
        int at = i / LENGTH + i % LENGTH;
        tokens[i] = (unsigned char)lesson[at % 8];
        targets[i] = (unsigned char)lesson[(at + 1) % 8];
    }
}

static enum trident_status teach(struct trident_runtime *runtime, const char *path,
                                 struct trident_error *error)
{
    struct trident_model *model;
    int32_t tokens[ROWS * LENGTH], targets[ROWS * LENGTH];
    write_rows(tokens, targets);
    enum trident_status status = trident_model_create(runtime, config, &model, error);
    for (int i = 0; i < STEPS && status == TRIDENT_OK; i++) {
        struct trident_step step;
        status = trident_model_step(model, tokens, targets, ROWS, LENGTH, 3e-3, &step, error);
        if (status == TRIDENT_OK && (i + 1) % 20 == 0) {
            (void)printf("step %d loss %.4f\n", i + 1, step.loss);
        }
    }
    if (status == TRIDENT_OK) {
        status = trident_model_save(model, path, error);
    }
    trident_model_destroy(model);
    return status;
}

/* The likeliest byte after the first `length` of the text. */
static enum trident_status ask(struct trident_model *model, const char *text, int length, int *byte,
                               struct trident_error *error)
{
    int32_t tokens[LENGTH];
    float *logits = malloc(sizeof(float) * (size_t)length * BYTES);
    if (!logits) {
        abort();
    }
    for (int i = 0; i < length; i++) {
        tokens[i] = (unsigned char)text[i];
    }
    enum trident_status status = trident_model_forward(model, tokens, 1, length, logits, error);
    const float *last = logits + (size_t)(length - 1) * BYTES;
    *byte = 0;
    for (int i = 1; i < BYTES && status == TRIDENT_OK; i++) {
        *byte = last[i] > last[*byte] ? i : *byte;
    }
    free(logits);
    return status;
}

static enum trident_status answer(struct trident_runtime *runtime, const char *path, int *right,
                                  struct trident_error *error)
{
    struct trident_model *model;
    enum trident_status status =
        trident_model_load(runtime, path, TRIDENT_ANSWERS, NULL, &model, error);
    char text[17] = "trid";
    for (int length = 4; length < 16 && status == TRIDENT_OK; length++) {
        int byte;
        status = ask(model, text, length, &byte, error);
        text[length] = (char)byte;
        *right += byte == lesson[length % 8];
    }
    (void)printf("trid|%s|\n", text + 4);
    trident_model_destroy(model);
    return status;
}

int main(int argc, char **argv)
{
    struct trident_options options = {.ranks = argc > 1 ? (int)strtol(argv[1], NULL, 10) : 1,
                                      .threads = 1};
    struct trident_error error;
    struct trident_runtime *first;
    struct trident_runtime *second;
    int right = 0;
    if (trident_runtime_create(&options, &first, &error) != TRIDENT_OK ||
        trident_runtime_create(NULL, &second, &error) != TRIDENT_OK ||
        teach(first, "embed_checkpoint", &error) != TRIDENT_OK ||
        answer(second, "embed_checkpoint", &right, &error) != TRIDENT_OK) {
        return fail(&error);
    }
    trident_runtime_destroy(first);
    trident_runtime_destroy(second);
    return right == 12 ? 0 : 1;
}
