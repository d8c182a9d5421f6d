/* Every key of the table, changed on one rank, is found and named on all. */
#include "train/alike.h"

#include "config/schema.h"
#include "config/value.h"
#include "moe/strategies.h"
#include "support/job.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            tri_panic(TRI_FAILED, "%s:%d: not true: %s", __FILE__, __LINE__, #condition);          \
        }                                                                                          \
    } while (0)

static bool has_one_word(const struct tri_key *key)
{
    return tri_key_word(key, &tri_strategies, 0) && !tri_key_word(key, &tri_strategies, 1);
}

/* Another value than the one there, in range where a range is wide enough. */
static void change(const struct tri_key *key, struct tri_config *config)
{
    union tri_value value = {0};
    memcpy(&value, tri_key_at(key, config), tri_key_bytes(key));
    switch (key->type) {
    case TRI_KEY_INT:
        value.integer += value.integer < key->max ? 1 : -1;
        break;
    case TRI_KEY_FLOAT:
        value.number = value.number == key->low + 0.5 ? key->low + 0.25 : key->low + 0.5;
        break;
    case TRI_KEY_BOOL:
        value.truth = !value.truth;
        break;
    case TRI_KEY_ENUM:
        value.word = key->words[value.word + 1] ? value.word + 1 : 0;
        break;
    case TRI_KEY_STRATEGY:
        value.strategy = tri_key_strategies(key, config->known)[!has_one_word(key)];
        break;
    case TRI_KEY_TEXT:
        (void)snprintf(value.text, sizeof(value.text), "another");
        break;
    case TRI_KEY_PAIR:
        value.pair[1] = 0.5;
        break;
    default:
        value.layers.count = value.layers.count == 1 ? 2 : 1;
        break;
    }
    memcpy(tri_key_at(key, config), &value, tri_key_bytes(key));
}

static void check_key(const struct tri_key *key, const struct tri_config *config, int odd)
{
    struct tri_group *world;
    struct tri_mesh *mesh;
    struct tri_error error = {0};
    struct tri_config own = *config;
    CHECK(tri_mesh_create(job(), 1, 1, 1, 1, &mesh, &error) == TRI_OK);
    world = tri_mesh_group(mesh, TRI_ON_ALL);
    if (mesh->rank == odd) {
        change(key, &own);
    }
    enum tri_status status = tri_alike_config(world, &own, &error);
    if (has_one_word(key)) {
        CHECK(status == TRI_OK);
    } else {
        char where[16];
        (void)snprintf(where, sizeof(where), "%d", odd);
        char *before = tri_value_to_text(key, tri_key_view(key, config));
        CHECK(status == TRI_BAD_INPUT);
        CHECK(strstr(error.message, key->name) && strstr(error.message, before));
        CHECK(strstr(error.message, where));
        free(before);
    }
    tri_mesh_destroy(mesh);
}

static int run_job(int argc, char **argv)
{
    (void)argc;
    (void)argv;
    static const char text[] = "moe: {num_experts: 4}\n";
    struct tri_config config;
    struct tri_error error = {0};
    if (tri_config_parse(&tri_strategies, "c.yaml", text, strlen(text), 0, NULL, &config, &error) !=
        TRI_OK) {
        tri_panic(TRI_FAILED, "%s", error.message);
    }
    for (size_t i = 0; i < tri_keys_count; i++) {
        check_key(&tri_keys[i], &config, 1 + (int)i % (job_size() - 1));
    }
    return 0;
}

int main(int argc, char **argv)
{
    return job_run(argc, argv, run_job);
}
