/* Texts that are gone on with, several at once. */
#ifndef TRIDENT_INFER_GENERATE_H
#define TRIDENT_INFER_GENERATE_H

#include "infer/decoder.h"

/* One text: the same on all ranks. */
struct tri_sequence {
    int32_t *tokens; /* [prompt + most]; those of the prompt are there */
    int64_t prompt;  /* 1 to the generator's capacity */
    int64_t count;   /* how many there are; the prompt's at first */
    bool ended;      /* the last one is a token that ends a text */
};

struct tri_generation {
    int64_t most; /* tokens to add to each text */
    /* A text at place i in the list draws with the seed + i, by the token's place in it. */
    struct tri_sampling sampling;
    const int32_t *stops; /* tokens that end a text */
    int num_stops;
    bool without_cache; /* feeds all of the context for each token: the same texts, slowly */
    /* Told of every token that comes to text `index`, on world rank 0; false: nobody listens, and
     * all end where they are. NULL: nobody is told. */
    bool (*take)(void *state, int64_t index, int32_t token);
    void *state;
};

/* Seconds, and tokens of all texts, that the prompts and what came after them took. */
struct tri_generated {
    double prompt_seconds, seconds;
    int64_t prompt_tokens, tokens;
};

struct tri_generator;

/* Of `rows` texts at once, with a context of `capacity` tokens, at most the model's max_position;
 * decoder.h says what rows may be. model is borrowed. Local. */
struct tri_generator *tri_generator_create(struct tri_model *model, int64_t rows, int64_t capacity);
void tri_generator_destroy(struct tri_generator *generator);

/* Goes on with each of the generator's texts until it ends or has `most` tokens more. Where the
 * context is full all go on from the last half of a context. A single text that begins as the one
 * before did is read from where they part. Collective over the model's mesh. */
struct tri_generated tri_generate(struct tri_generator *generator,
                                  const struct tri_generation *generation,
                                  struct tri_sequence *sequences);

#endif
