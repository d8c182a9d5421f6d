#include "base/memory.h"
#include "data/bpe_file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char BLOCK[] = "\xE2\x96\x81"; /* U+2581 */
const char tri_bpe_byte_level_pattern[] =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

enum { NESTED_MOST = 8 };

/* Calls read for each part of a Sequence, or for what is none. */
typedef enum tri_status reader(struct tri_bpe_file *file, const char *key, const json_t *object,
                               struct tri_error *error);

static enum tri_status for_each(struct tri_bpe_file *file, const char *key, const json_t *object,
                                const char *list, reader *read, int depth, struct tri_error *error)
{
    if (!object || json_is_null(object)) {
        return TRI_OK;
    }
    if (strcmp(tri_bpe_type(object), "Sequence") != 0) {
        return read(file, key, object, error);
    }
    const json_t *parts = json_object_get(object, list);
    if (!json_is_array(parts) || depth == NESTED_MOST) {
        return tri_bpe_refuse(file, key, object, "expected a list of its parts", error);
    }
    for (size_t i = 0; i < json_array_size(parts); i++) {
        char inner[128];
        (void)snprintf(inner, sizeof(inner), "%.80s.%s[%zu]", key, list, i);
        TRI_TRY(for_each(file, inner, json_array_get(parts, i), list, read, depth + 1, error));
    }
    return TRI_OK;
}

/* ---- normalizer ------------------------------------------------------------------------------ */

static enum tri_status get_string_pattern(const struct tri_bpe_file *file, const char *key,
                                          const json_t *object, const char **text,
                                          struct tri_error *error)
{
    const json_t *pattern = json_object_get(object, "pattern");
    const char *found = json_string_value(json_object_get(pattern, "String"));
    if (!found || !*found) {
        return tri_bpe_refuse(file, key, object, "only a String pattern is supported", error);
    }
    *text = found;
    return TRI_OK;
}

static enum tri_status read_normalizer(struct tri_bpe_file *file, const char *key,
                                       const json_t *object, struct tri_error *error)
{
    static const char *const forms[] = {"NFC", "NFD", "NFKC", "NFKD"};
    struct tri_normalizer *normalizer = &file->bpe->normalizer;
    const char *type = tri_bpe_type(object);
    struct tri_normal_step step = {.kind = TRI_NORMAL_FORM};
    const char *from = NULL;
    const char *to = NULL;
    bool known = false;
    for (int i = 0; i < 4; i++) {
        if (strcmp(type, forms[i]) == 0) {
            step.form = (enum tri_form)i;
            known = true;
        }
    }
    if (strcmp(type, "Prepend") == 0) {
        step.kind = TRI_NORMAL_PREPEND;
        TRI_TRY(tri_bpe_get_text(file, key, object, "prepend", &to, error));
        known = true;
    } else if (strcmp(type, "Replace") == 0) {
        step.kind = TRI_NORMAL_REPLACE;
        TRI_TRY(get_string_pattern(file, key, object, &from, error));
        TRI_TRY(tri_bpe_get_text(file, key, object, "content", &to, error));
        known = true;
    }
    if (!known || normalizer->count == TRI_NORMAL_STEPS) {
        return tri_bpe_refuse(file, key, object,
                              "supported are at most 16 of NFC, NFD, NFKC, NFKD, Prepend, Replace",
                              error);
    }
    step.from = from ? tri_strdup(from) : NULL;
    step.to = to ? tri_strdup(to) : NULL;
    normalizer->step[normalizer->count++] = step;
    return TRI_OK;
}

/* ---- pre_tokenizer --------------------------------------------------------------------------- */

static enum tri_status set_pattern(const struct tri_bpe_file *file, const char *key,
                                   const char *text, struct tri_bpe_step *step,
                                   struct tri_error *error)
{
    char place[512];
    (void)snprintf(place, sizeof(place), "%.380s: %.120s", file->path, key);
    return tri_pattern_create(place, text, &step->pattern, error);
}

/* A pattern's text, escaped when it is a plain string; *quoted is the caller's to free. */
static const char *split_pattern(const json_t *object, char **quoted)
{
    const json_t *pattern = json_object_get(object, "pattern");
    const char *regex = json_string_value(json_object_get(pattern, "Regex"));
    const char *plain = json_string_value(json_object_get(pattern, "String"));
    *quoted = NULL;
    if (regex || !plain || !*plain) {
        return regex;
    }
    char *to = *quoted = tri_alloc(TRI_MEMORY_OTHER, 2 * strlen(plain) + 1);
    for (; *plain; plain++) {
        if (strchr("\\^$.[]|()?*+{}#-&", *plain)) {
            *to++ = '\\';
        }
        *to++ = *plain;
    }
    return *quoted;
}

static enum tri_status read_split(struct tri_bpe_file *file, const char *key, const json_t *object,
                                  struct tri_bpe_step *step, struct tri_error *error)
{
    const char *behavior = json_string_value(json_object_get(object, "behavior"));
    bool invert;
    TRI_TRY(tri_bpe_get_flag(file, key, object, "invert", false, &invert, error));
    bool isolated = behavior && strcmp(behavior, "Isolated") == 0;
    bool keeps_matches = behavior && strcmp(behavior, "Removed") == 0 && invert;
    if (!isolated && !keeps_matches) {
        char inner[160];
        (void)snprintf(inner, sizeof(inner), "%s.behavior", key);
        return tri_bpe_refuse(file, inner, json_object_get(object, "behavior"),
                              "supported are Isolated, and Removed with invert", error);
    }
    step->drops = keeps_matches;
    char *quoted;
    const char *text = split_pattern(object, &quoted);
    enum tri_status status =
        text ? set_pattern(file, key, text, step, error)
             : tri_bpe_refuse(file, key, object, "expected a Regex or String pattern", error);
    tri_free(quoted);
    return status;
}

static enum tri_status read_byte_level(struct tri_bpe_file *file, const char *key,
                                       const json_t *object, struct tri_bpe_step *step,
                                       struct tri_error *error)
{
    bool space;
    bool regex;
    TRI_TRY(tri_bpe_get_flag(file, key, object, "add_prefix_space", true, &space, error));
    TRI_TRY(tri_bpe_get_flag(file, key, object, "use_regex", true, &regex, error));
    step->prefix = space ? TRI_PREFIX_ALWAYS : TRI_PREFIX_NONE;
    file->bytes = true;
    return regex ? set_pattern(file, key, tri_bpe_byte_level_pattern, step, error) : TRI_OK;
}

static enum tri_status read_metaspace(struct tri_bpe_file *file, const char *key,
                                      const json_t *object, struct tri_bpe_step *step,
                                      struct tri_error *error)
{
    bool space;
    const char *block = json_string_value(json_object_get(object, "replacement"));
    const char *scheme = json_string_value(json_object_get(object, "prepend_scheme"));
    TRI_TRY(tri_bpe_get_flag(file, key, object, "add_prefix_space", true, &space, error));
    TRI_TRY(tri_bpe_get_flag(file, key, object, "split", true, &step->splits, error));
    scheme = scheme ? scheme : space ? "always" : "never";
    bool first = strcmp(scheme, "first") == 0;
    bool always = strcmp(scheme, "always") == 0;
    if (!block || strcmp(block, BLOCK) != 0 ||
        (!first && !always && strcmp(scheme, "never") != 0)) {
        return tri_bpe_refuse(
            file, key, object,
            "expected replacement U+2581 and prepend_scheme first, always or never", error);
    }
    step->metaspace = true;
    step->prefix = first ? TRI_PREFIX_FIRST : always ? TRI_PREFIX_ALWAYS : TRI_PREFIX_NONE;
    return TRI_OK;
}

static enum tri_status read_pre_tokenizer(struct tri_bpe_file *file, const char *key,
                                          const json_t *object, struct tri_error *error)
{
    struct tri_bpe *bpe = file->bpe;
    const char *type = tri_bpe_type(object);
    bool last = file->bytes || (bpe->steps > 0 && bpe->step[bpe->steps - 1].metaspace);
    if (last || bpe->steps == TRI_BPE_STEPS) {
        return tri_bpe_refuse(
            file, key, object,
            "supported are at most 8 steps, and none after ByteLevel or Metaspace", error);
    }
    struct tri_bpe_step *step = &bpe->step[bpe->steps++];
    if (strcmp(type, "Split") == 0) {
        return read_split(file, key, object, step, error);
    }
    if (strcmp(type, "ByteLevel") == 0) {
        return read_byte_level(file, key, object, step, error);
    }
    if (strcmp(type, "Metaspace") == 0) {
        return read_metaspace(file, key, object, step, error);
    }
    if (strcmp(type, "Digits") == 0) {
        bool each;
        TRI_TRY(tri_bpe_get_flag(file, key, object, "individual_digits", false, &each, error));
        return set_pattern(file, key, each ? "\\p{N}" : "\\p{N}+", step, error);
    }
    return tri_bpe_refuse(file, key, object,
                          "supported are Split, Digits, ByteLevel, Metaspace and Sequence", error);
}

/* ---- decoder --------------------------------------------------------------------------------- */

static enum tri_status read_replace(struct tri_bpe_file *file, const char *key,
                                    const json_t *object, bool *known, struct tri_error *error)
{
    const char *from = "";
    const char *to = "";
    TRI_TRY(get_string_pattern(file, key, object, &from, error));
    TRI_TRY(tri_bpe_get_text(file, key, object, "content", &to, error));
    *known = strcmp(from, BLOCK) == 0 && strcmp(to, " ") == 0;
    file->spaces = *known;
    return TRI_OK;
}

/* One space, of the text and not of each of its pieces. */
static bool is_strip(const struct tri_bpe_file *file, const json_t *object)
{
    const char *content = json_string_value(json_object_get(object, "content"));
    return content && strcmp(content, " ") == 0 && file->fused &&
           json_integer_value(json_object_get(object, "start")) == 1 &&
           json_integer_value(json_object_get(object, "stop")) == 0;
}

static enum tri_status read_characters(struct tri_bpe_file *file, const char *key,
                                       const json_t *object, bool *known, struct tri_error *error)
{
    const char *type = tri_bpe_type(object);
    *known = true;
    if (strcmp(type, "Replace") == 0) {
        return read_replace(file, key, object, known, error);
    }
    if (strcmp(type, "ByteFallback") == 0) {
        file->names_bytes = true;
    } else if (strcmp(type, "Fuse") == 0) {
        file->fused = true;
    } else if (strcmp(type, "Strip") == 0) {
        *known = file->bpe->interface.strips_space = is_strip(file, object);
    } else if (strcmp(type, "Metaspace") == 0) {
        const char *scheme = json_string_value(json_object_get(object, "prepend_scheme"));
        bool space;
        TRI_TRY(tri_bpe_get_flag(file, key, object, "add_prefix_space", true, &space, error));
        file->spaces = true;
        file->bpe->interface.strips_space = scheme ? strcmp(scheme, "never") != 0 : space;
    } else {
        *known = false;
    }
    return TRI_OK;
}

static enum tri_status read_decoder(struct tri_bpe_file *file, const char *key,
                                    const json_t *object, struct tri_error *error)
{
    bool known = strcmp(tri_bpe_type(object), "ByteLevel") == 0;
    if (!file->bytes) {
        TRI_TRY(read_characters(file, key, object, &known, error));
    }
    return known ? TRI_OK
                 : tri_bpe_refuse(file, key, object,
                                  file->bytes ? "expected ByteLevel, as the pre_tokenizer"
                                              : "supported are Replace of U+2581 by a space, "
                                                "ByteFallback, Fuse, then Strip of one space, and "
                                                "Metaspace",
                                  error);
}

enum tri_status tri_bpe_read_steps(struct tri_bpe_file *file, struct tri_error *error)
{
    const json_t *root = file->root;
    TRI_TRY(for_each(file, "normalizer", json_object_get(root, "normalizer"), "normalizers",
                     read_normalizer, 0, error));
    TRI_TRY(for_each(file, "pre_tokenizer", json_object_get(root, "pre_tokenizer"), "pretokenizers",
                     read_pre_tokenizer, 0, error));
    for (int i = 0; !file->bytes && i < file->bpe->steps; i++) {
        if (!file->bpe->step[i].metaspace) {
            return tri_bpe_refuse(file, "pre_tokenizer", json_object_get(root, "pre_tokenizer"),
                                  "supported are Split and Digits before ByteLevel only", error);
        }
    }
    const json_t *decoder = json_object_get(root, "decoder");
    if (!decoder || json_is_null(decoder)) {
        return tri_bpe_refuse(file, "decoder", decoder, "expected one", error);
    }
    return for_each(file, "decoder", decoder, "decoders", read_decoder, 0, error);
}
