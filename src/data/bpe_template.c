#include "data/bpe_file.h"

#include <string.h>

/* What a template puts before a text, as `tokenizers` does when it adds special tokens: kept for
 * who asks for it. What it puts behind one is read over: nobody goes on from an end. */

static enum tri_status read_ids(struct tri_bpe_file *file, const json_t *token,
                                struct tri_error *error)
{
    struct tri_tokenizer *tokenizer = &file->bpe->interface;
    const int most = (int)(sizeof(tokenizer->begin) / sizeof(*tokenizer->begin));
    const json_t *ids = json_object_get(token, "ids");
    for (size_t i = 0; i < json_array_size(ids); i++) {
        const json_t *id = json_array_get(ids, i);
        json_int_t value = json_integer_value(id);
        if (!json_is_integer(id) || value < 0 || value >= tokenizer->vocab_size ||
            tokenizer->num_begin == most) {
            return tri_bpe_refuse(file, "post_processor.special_tokens", token,
                                  "expected ids of the vocabulary, at most 4 before a text", error);
        }
        tokenizer->begin[tokenizer->num_begin++] = (int32_t)value;
    }
    return TRI_OK;
}

static enum tri_status read_template(struct tri_bpe_file *file, const json_t *object,
                                     struct tri_error *error)
{
    const json_t *single = json_object_get(object, "single");
    const json_t *tokens = json_object_get(object, "special_tokens");
    if (!json_is_array(single)) {
        return tri_bpe_refuse(file, "post_processor.single", single, "expected a list", error);
    }
    for (size_t i = 0; i < json_array_size(single); i++) {
        const json_t *special = json_object_get(json_array_get(single, i), "SpecialToken");
        const char *name = json_string_value(json_object_get(special, "id"));
        if (json_object_get(json_array_get(single, i), "Sequence")) {
            break;
        }
        if (!name || !json_is_object(json_object_get(tokens, name))) {
            return tri_bpe_refuse(file, "post_processor.single", json_array_get(single, i),
                                  "expected a SpecialToken of special_tokens, or a Sequence",
                                  error);
        }
        TRI_TRY(read_ids(file, json_object_get(tokens, name), error));
    }
    return TRI_OK;
}

static enum tri_status read_processor(struct tri_bpe_file *file, const json_t *object, int depth,
                                      struct tri_error *error)
{
    const char *type = tri_bpe_type(object);
    if (strcmp(type, "ByteLevel") == 0) {
        return TRI_OK; /* it moves offsets, of which there are none here */
    }
    if (strcmp(type, "TemplateProcessing") == 0) {
        return read_template(file, object, error);
    }
    const json_t *parts = json_object_get(object, "processors");
    if (strcmp(type, "Sequence") != 0 || !json_is_array(parts) || depth == 4) {
        return tri_bpe_refuse(file, "post_processor", object,
                              "supported are ByteLevel, TemplateProcessing and Sequence", error);
    }
    for (size_t i = 0; i < json_array_size(parts); i++) {
        TRI_TRY(read_processor(file, json_array_get(parts, i), depth + 1, error));
    }
    return TRI_OK;
}

enum tri_status tri_bpe_read_template(struct tri_bpe_file *file, struct tri_error *error)
{
    const json_t *object = json_object_get(file->root, "post_processor");
    return !object || json_is_null(object) ? TRI_OK : read_processor(file, object, 0, error);
}
