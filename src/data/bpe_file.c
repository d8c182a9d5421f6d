#include "data/bpe_file.h"

#include "base/file.h"
#include "base/memory.h"

#include <inttypes.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

enum { FILE_MOST = 256 << 20, THREADS_MOST = 256, NEAR = 1 << 10 };

/* ---- keys ------------------------------------------------------------------------------------ */

enum tri_status tri_bpe_refuse(const struct tri_bpe_file *file, const char *key,
                               const json_t *found, const char *expected, struct tri_error *error)
{
    char *text = found ? json_dumps(found, JSON_ENCODE_ANY | JSON_COMPACT) : NULL;
    enum tri_status status = tri_fail(error, TRI_BAD_INPUT, "%s: %s: found %.100s, %s", file->path,
                                      key, text ? text : "nothing that it can be", expected);
    free(text);
    return status;
}

const char *tri_bpe_type(const json_t *object)
{
    const char *type = json_string_value(json_object_get(object, "type"));
    return type ? type : "";
}

enum tri_status tri_bpe_get_text(const struct tri_bpe_file *file, const char *key,
                                 const json_t *object, const char *name, const char **text,
                                 struct tri_error *error)
{
    *text = json_string_value(json_object_get(object, name));
    return *text ? TRI_OK : tri_bpe_refuse(file, key, object, "expected a string more", error);
}

enum tri_status tri_bpe_get_flag(const struct tri_bpe_file *file, const char *key,
                                 const json_t *object, const char *name, bool fallback, bool *value,
                                 struct tri_error *error)
{
    const json_t *found = json_object_get(object, name);
    *value = found && !json_is_null(found) ? json_is_true(found) : fallback;
    if (found && !json_is_null(found) && !json_is_boolean(found)) {
        return tri_fail(error, TRI_BAD_INPUT, "%s: %s: %s: expected true or false", file->path, key,
                        name);
    }
    return TRI_OK;
}

/* ---- the whole file -------------------------------------------------------------------------- */

/* What a caller of `tokenizers` may switch on and a trainer has no use for. */
static enum tri_status refuse_strays(const struct tri_bpe_file *file, struct tri_error *error)
{
    static const char *const keys[] = {"truncation", "padding"};
    const json_t *model = json_object_get(file->root, "model");
    const char *type = tri_bpe_type(model);
    if (!json_is_object(model) || (*type && strcmp(type, "BPE") != 0)) {
        return tri_bpe_refuse(file, "model", json_object_get(model, "type"),
                              "expected type BPE, the only one supported", error);
    }
    for (size_t i = 0; i < sizeof(keys) / sizeof(*keys); i++) {
        const json_t *found = json_object_get(file->root, keys[i]);
        if (found && !json_is_null(found)) {
            return tri_bpe_refuse(file, keys[i], found, "not supported, expected null", error);
        }
    }
    return TRI_OK;
}

/* Where a text may be cut is known when all steps end their words alike. */
static void find_cuts(struct tri_bpe *bpe)
{
    bool patterns = true;
    bool split = false; /* words of bytes are cut by a pattern, those of characters by blocks */
    for (int i = 0; i < bpe->steps; i++) {
        const struct tri_pattern *pattern = bpe->step[i].pattern;
        patterns = patterns && (!pattern || tri_pattern_ends_words(pattern));
        split = split || (pattern && tri_pattern_splits_spaces(pattern));
    }
    bool words = bpe->rules.characters ? bpe->spaces_begin_words : split;
    for (int i = 0; i < bpe->normalizer.count; i++) {
        const struct tri_normal_step *step = &bpe->normalizer.step[i];
        words = words && (step->kind != TRI_NORMAL_REPLACE ||
                          (bpe->rules.characters && strcmp(step->from, " ") == 0));
    }
    bpe->cuts_raw = !tri_added_ends_words(bpe->raw);
    bpe->cuts_normal = !tri_added_ends_words(bpe->normal);
    /* Tokens that are near a place are looked for there; in a text that a normal form will change
     * they cannot be seen yet. */
    bpe->cuts = patterns && words && (!bpe->cuts_normal || bpe->normalizer.count == 0) &&
                tri_added_longest(bpe->raw) <= NEAR && tri_added_longest(bpe->normal) <= NEAR;
    bpe->cuts_lines = !bpe->rules.characters;
}

static int count_threads(void)
{
    int count = omp_get_max_threads();
    return count < 1 ? 1 : count > THREADS_MOST ? THREADS_MOST : count;
}

static size_t token_text(const struct tri_tokenizer *tokenizer, int32_t token,
                         const unsigned char **text)
{
    const struct tri_bpe *bpe = (const struct tri_bpe *)(const void *)tokenizer;
    return tri_vocabulary_text(bpe->printed ? bpe->printed : bpe->vocabulary, token, text);
}

static int32_t find_special(const struct tri_tokenizer *tokenizer, const char *name)
{
    const struct tri_bpe *bpe = (const struct tri_bpe *)(const void *)tokenizer;
    int32_t id = tri_added_find_name(bpe->raw, name);
    return id >= 0 ? id : tri_added_find_name(bpe->normal, name);
}

void tri_bpe_destroy(struct tri_tokenizer *tokenizer)
{
    struct tri_bpe *bpe = (struct tri_bpe *)(void *)tokenizer;
    for (int i = 0; i < bpe->steps; i++) {
        tri_pattern_destroy(bpe->step[i].pattern);
    }
    tri_normalizer_fini(&bpe->normalizer);
    tri_added_destroy(bpe->raw);
    tri_added_destroy(bpe->normal);
    tri_vocabulary_destroy(bpe->vocabulary);
    tri_vocabulary_destroy(bpe->printed);
    tri_free(bpe->special);
    tri_free(bpe);
}

static enum tri_status read_file(struct tri_bpe_file *file, struct tri_error *error)
{
    uint64_t bytes;
    TRI_TRY(tri_file_size(file->path, &bytes, error));
    if (bytes > FILE_MOST) {
        return tri_fail(error, TRI_BAD_INPUT, "%s: %" PRIu64 " bytes, expected at most %d",
                        file->path, bytes, FILE_MOST);
    }
    TRI_TRY(tri_json_load(file->path, &file->root, error));
    TRI_TRY(refuse_strays(file, error));
    TRI_TRY(tri_bpe_read_steps(file, error));
    TRI_TRY(tri_bpe_read_model(file, error));
    file->bpe->interface.vocab_size = tri_vocabulary_size(file->bpe->vocabulary);
    TRI_TRY(tri_bpe_read_template(file, error));
    find_cuts(file->bpe);
    file->bpe->threads = count_threads();
    return TRI_OK;
}

enum tri_status tri_bpe_load(const char *path, struct tri_tokenizer **tokenizer,
                             struct tri_error *error)
{
    struct tri_bpe *bpe = tri_alloc(TRI_MEMORY_OTHER, sizeof(*bpe));
    struct tri_bpe_file file = {.path = path, .bpe = bpe};
    bpe->interface.name = "tokenizer.json";
    bpe->interface.encode = tri_bpe_encode;
    bpe->interface.token_text = token_text;
    bpe->interface.find_special = find_special;
    bpe->interface.encoder_create = tri_bpe_encoder_create;
    bpe->interface.encoder_destroy = tri_bpe_encoder_destroy;
    bpe->interface.encoder_encode = tri_bpe_encoder_encode;
    bpe->interface.destroy = tri_bpe_destroy;
    enum tri_status status = read_file(&file, error);
    json_decref(file.root);
    *tokenizer = status == TRI_OK ? &bpe->interface : NULL;
    if (status != TRI_OK) {
        tri_bpe_destroy(&bpe->interface);
    }
    return status;
}
