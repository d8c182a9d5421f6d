/* Texts generated side by side are those generated alone, with and without a cache, on every
 * layout; a text that goes on from an earlier one is the one that is read from its beginning. */
#include "support/small.h"

#include "base/memory.h"
#include "base/random.h"
#include "infer/generate.h"

#include <string.h>

enum { TEXTS = 5, CAPACITY = 12, MOST = 30 };

struct subject {
    struct tri_config config;
    struct tri_mesh *mesh;
    struct tri_engine *engine;
};

static void begin(struct subject *s, enum small_style style, const char *words,
                  struct small_layout layout)
{
    small_config(style, words, &s->config);
    small_config_lay_out(&s->config, layout);
    s->mesh = small_mesh(&s->config);
    s->engine = tri_engine_create(&s->config, s->mesh, small_kernels(&s->config), false);
}

static void end(struct subject *s)
{
    tri_engine_destroy(s->engine);
    tri_mesh_destroy(s->mesh);
}

struct texts {
    struct tri_sequence sequence[TEXTS];
    int32_t tokens[TEXTS][MOST];
};

/* Prompts of 1 to `longest` tokens; of a config with a separator some hold it. */
static void write_prompts(const struct subject *s, int64_t longest, struct texts *texts)
{
    *texts = (struct texts){0};
    for (uint64_t i = 0; i < TEXTS; i++) {
        int64_t count = 1 + (int64_t)(i * 3) % longest;
        for (int64_t j = 0; j < count; j++) {
            uint64_t bits = tri_random_bits(3, i, (uint64_t)j);
            bool separates = s->config.data.separator >= 0 && bits % 4 == 0;
            texts->tokens[i][j] = separates
                                      ? (int32_t)s->config.data.separator
                                      : (int32_t)(bits % (uint64_t)s->config.model.vocab_size);
        }
        texts->sequence[i] =
            (struct tri_sequence){.tokens = texts->tokens[i], .prompt = count, .count = count};
    }
}

static struct tri_generation sampling(int64_t most)
{
    return (struct tri_generation){.most = most,
                                   .sampling = {.temperature = 1, .top_p = 1, .seed = 5}};
}

static void generate(const struct subject *s, const struct tri_generation *generation, int64_t rows,
                     int64_t capacity, struct tri_sequence *sequences)
{
    struct tri_generator *generator = tri_generator_create(s->engine->model, rows, capacity);
    (void)tri_generate(generator, generation, sequences);
    tri_generator_destroy(generator);
}

static void expect_same(const struct tri_sequence *x, const struct tri_sequence *y)
{
    CHECK(x->count == y->count && x->ended == y->ended);
    CHECK(memcmp(x->tokens, y->tokens, (size_t)x->count * sizeof(*x->tokens)) == 0);
}

/* Each of several texts is the one that is generated alone, with the stop in some of them. */
static void check_alone(const struct subject *s)
{
    struct texts together, alone;
    struct tri_generation generation = sampling(5);
    write_prompts(s, CAPACITY - 5, &together);
    generate(s, &generation, TEXTS, CAPACITY, together.sequence);
    int32_t stop = together.tokens[2][together.sequence[2].prompt + 1];
    generation.stops = &stop;
    generation.num_stops = 1;
    write_prompts(s, CAPACITY - 5, &together);
    write_prompts(s, CAPACITY - 5, &alone);
    generate(s, &generation, TEXTS, CAPACITY, together.sequence);
    CHECK(together.sequence[2].ended);
    CHECK(together.sequence[2].count <= together.sequence[2].prompt + 2);
    for (int i = 0; i < TEXTS; i++) {
        CHECK(together.sequence[i].ended ||
              together.sequence[i].count == together.sequence[i].prompt + 5);
        generate(s, &generation, 1, CAPACITY, &alone.sequence[i]);
        expect_same(&together.sequence[i], &alone.sequence[i]);
        generation.sampling.seed++;
    }
}

/* Also where the context is full, again and again. */
static void check_without_cache(const struct subject *s)
{
    for (int64_t rows = 1; rows <= TEXTS; rows += TEXTS - 1) {
        struct texts with, without;
        struct tri_generation generation = sampling(17);
        write_prompts(s, 6, &with);
        write_prompts(s, 6, &without);
        generate(s, &generation, rows, 6, with.sequence);
        generation.without_cache = true;
        generate(s, &generation, rows, 6, without.sequence);
        for (int64_t i = 0; i < rows; i++) {
            CHECK(with.sequence[i].count == with.sequence[i].prompt + 17);
            expect_same(&with.sequence[i], &without.sequence[i]);
        }
    }
}

/* A second text with the first `kept` tokens of the first; read anew, and by who read the first. */
static void check_gone_on(const struct subject *s, int64_t kept)
{
    struct texts first, anew;
    struct tri_generation generation = sampling(4);
    struct tri_generator *generator = tri_generator_create(s->engine->model, 1, CAPACITY);
    write_prompts(s, 4, &first);
    struct tri_sequence *text = &first.sequence[3];
    (void)tri_generate(generator, &generation, text);
    kept = kept < text->count ? kept : text->count;
    text->tokens[kept] = (text->tokens[kept] + 1) % (int32_t)s->config.model.vocab_size;
    *text = (struct tri_sequence){.tokens = text->tokens, .prompt = kept + 1, .count = kept + 1};
    anew = first;
    struct tri_sequence *other = &anew.sequence[3];
    other->tokens = anew.tokens[3];
    generation.most = CAPACITY - text->count;
    (void)tri_generate(generator, &generation, text);
    tri_generator_destroy(generator);
    generate(s, &generation, 1, CAPACITY, other);
    expect_same(text, other);
}

static bool take_three(void *state, int64_t index, int32_t token)
{
    int *taken = state;
    CHECK(index == 0 && token >= 0);
    return ++*taken < 3;
}

/* Nobody listens any more. */
static void check_given_up(const struct subject *s)
{
    struct texts texts;
    int taken = 0;
    struct tri_generation generation = sampling(9);
    generation.take = take_three;
    generation.state = &taken;
    write_prompts(s, 3, &texts);
    generate(s, &generation, 1, CAPACITY, texts.sequence);
    CHECK(texts.sequence[0].count == texts.sequence[0].prompt + 3);
    CHECK(s->mesh->rank == 0 ? taken == 3 : taken == 0);
}

static void run(enum small_style style, const char *words, struct small_layout layout)
{
    struct subject s;
    begin(&s, style, words, layout);
    check_alone(&s);
    check_without_cache(&s);
    for (int64_t kept = 0; kept < CAPACITY; kept += 3) {
        check_gone_on(&s, kept);
    }
    check_given_up(&s);
    end(&s);
}

static int run_job(int argc, char **argv)
{
    (void)argc;
    (void)argv;
    struct small_layout layouts[SMALL_LAYOUTS];
    int count = small_layouts(job_size(), 8, layouts);
    for (int i = 0; i < count; i++) {
        run(SMALL_GPT, "train.micro_batch=5", layouts[i]);
        run(SMALL_GPT, "train.micro_batch=5 data.separator=7", layouts[i]);
        run(SMALL_LLAMA, "train.micro_batch=5 model.num_kv_heads=1", layouts[i]);
    }
    return 0;
}

int main(int argc, char **argv)
{
    return job_run(argc, argv, run_job);
}
