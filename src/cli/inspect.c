#include "base/file.h"
#include "base/log.h"
#include "base/meter.h"
#include "checkpoint/checkpoint.h"
#include "cli/command.h"
#include "comm/comm.h"
#include "config/text.h"
#include "data/shards.h"
#include "data/tokenizer_files.h"
#include "train/start.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static json_t *row(const char *name, int dims, const int64_t *shape, const char *dtype)
{
    json_t *sizes = json_array();
    for (int i = 0; i < dims; i++) {
        (void)json_array_append_new(sizes, json_integer(shape[i]));
    }
    return json_pack("{ss so ss}", "name", name, "shape", sizes, "dtype", dtype);
}

static void print_row(const char *name, int dims, const int64_t *shape, const char *dtype)
{
    if (dims == 2) {
        (void)printf("%-56s %-5s [%lld, %lld]\n", name, dtype, (long long)shape[0],
                     (long long)shape[1]);
    } else {
        (void)printf("%-56s %-5s [%lld]\n", name, dtype, (long long)shape[0]);
    }
}

/* ---- a config -------------------------------------------------------------------------------- */

static enum tri_status inspect_config(const struct tri_arguments *arguments, bool json,
                                      struct tri_error *error)
{
    struct tri_config config;
    struct tri_mesh *mesh = tri_mesh_create_serial();
    enum tri_status status =
        tri_start_config(tri_mesh_group(mesh, TRI_ON_ALL), arguments->words[0], NULL,
                         arguments->num_overrides, arguments->overrides, false, 0, &config, error);
    if (status != TRI_OK) {
        tri_mesh_destroy(mesh);
        return status;
    }
    struct tri_config whole = config;
    whole.parallel = (struct tri_config_parallel){1, 1, 1, {0}};
    struct tri_params *params = tri_params_create(&whole, mesh);
    json_t *list = json_array();
    for (int p = 0; p < params->count; p++) {
        const struct tri_param *param = &params->param[p];
        (void)json_array_append_new(
            list, row(param->name, param->dims, param->shape, tri_dtype_name(param->dtype)));
        if (!json) {
            print_row(param->name, param->dims, param->shape, tri_dtype_name(param->dtype));
        }
    }
    if (json) {
        tri_print_json(json_pack("{ss sI sI so}", "kind", "config", "total",
                                 (json_int_t)params->total, "active", (json_int_t)params->active,
                                 "parameters", list));
    } else {
        json_decref(list);
        (void)printf("%d tensors, %lld parameters, %lld active\n", params->count,
                     (long long)params->total, (long long)params->active);
    }
    tri_params_destroy(params);
    tri_mesh_destroy(mesh);
    return TRI_OK;
}

/* ---- a checkpoint or a run ------------------------------------------------------------------- */

static enum tri_status read_tokenizer(const char *folder, json_t **object, struct tri_error *error)
{
    int32_t stop[TRI_STOPS];
    int stops;
    int64_t special = 0;
    struct tri_tokenizer *tokenizer;
    TRI_TRY(tri_tokenizer_create(folder, &tokenizer, error));
    enum tri_status status = tri_tokenizer_read_stops(folder, tokenizer, stop, &stops, error);
    for (int64_t i = 0; tokenizer->special && i < tokenizer->vocab_size; i++) {
        special += tokenizer->special[i] != 0;
    }
    if (status == TRI_OK) {
        json_t *ids = json_array();
        for (int i = 0; i < stops; i++) {
            (void)json_array_append_new(ids, json_integer(stop[i]));
        }
        *object = json_pack("{sI sI so}", "vocab_size", (json_int_t)tokenizer->vocab_size,
                            "special", (json_int_t)special, "stops", ids);
    }
    tri_tokenizer_destroy(tokenizer);
    return status;
}

/* {"vocab_size", "special", "stops"}; null where the checkpoint has no tokenizer, or one of a kind
 * that is only carried along. */
static json_t *describe_tokenizer(const char *path)
{
    char folder[TRI_PATH_MAX];
    struct tri_error error;
    json_t *object = json_null();
    if (tri_tokenizer_files_find(path, folder, sizeof(folder)) &&
        read_tokenizer(folder, &object, &error) != TRI_OK) {
        tri_log_warn("%s", error.message);
    }
    return object;
}

static void print_tokenizer(const json_t *tokenizer)
{
    if (json_is_object(tokenizer)) {
        char *stops = json_dumps(json_object_get(tokenizer, "stops"), JSON_COMPACT);
        (void)printf("tokenizer.json: ids below %lld, %lld special tokens; stops %s\n",
                     (long long)json_integer_value(json_object_get(tokenizer, "vocab_size")),
                     (long long)json_integer_value(json_object_get(tokenizer, "special")), stops);
        free(stops);
    }
}

static enum tri_status inspect_checkpoint(const char *given, bool json, struct tri_error *error)
{
    struct tri_checkpoint_choice choice = {.moments = true};
    const char *path = choice.path;
    char digest[32];
    struct tri_checkpoint_info info;
    enum tri_status status;
    do {
        TRI_TRY(tri_checkpoint_resolve(given, &choice, error));
        status = tri_checkpoint_inspect_choice(&choice, &info, error);
    } while (status != TRI_OK && choice.again);
    TRI_TRY(status);
    json_t *tokenizer = describe_tokenizer(path);
    (void)snprintf(digest, sizeof(digest), "%016llx", (unsigned long long)info.digest);
    json_t *list = json_array();
    for (int64_t i = 0; i < info.count; i++) {
        const struct tri_checkpoint_tensor *tensor = &info.tensor[i];
        (void)json_array_append_new(list, row(tensor->name, tensor->dims, tensor->shape, "F32"));
        if (!json) {
            print_row(tensor->name, tensor->dims, tensor->shape, "F32");
        }
    }
    if (json) {
        tri_print_json(json_pack("{ss ss sI sI sb sI sI ss so so}", "kind", "checkpoint", "path",
                                 path, "step", (json_int_t)info.step, "tokens",
                                 (json_int_t)info.tokens, "optimizer", (int)info.optimizer, "bytes",
                                 (json_int_t)info.bytes, "total", (json_int_t)info.parameters,
                                 "digest", digest, "tokenizer", tokenizer, "parameters", list));
    } else {
        json_decref(list);
        print_tokenizer(tokenizer);
        json_decref(tokenizer);
        (void)printf("%s: step %lld, %lld tensors, %lld parameters%s, %.1f MB; every size and hash "
                     "is right\n",
                     path, (long long)info.step, (long long)info.count, (long long)info.parameters,
                     info.optimizer ? " with optimizer states" : "", (double)info.bytes / 1e6);
        (void)printf("digest %s\n", digest);
    }
    tri_checkpoint_info_fini(&info);
    return TRI_OK;
}

/* ---- tokens ---------------------------------------------------------------------------------- */

static enum tri_status read_format(const struct tri_arguments *arguments,
                                   enum tri_data_format *format, struct tri_error *error)
{
    static const char *const names[] = {"llmc", "u16", "u32", "megatron"};
    const char *text = tri_arguments_get(arguments, "--format");
    *format = TRI_DATA_LLMC;
    for (int i = 0; text && i < 4; i++) {
        if (strcmp(text, names[i]) == 0) {
            *format = (enum tri_data_format)i;
            return TRI_OK;
        }
    }
    return !text ? TRI_OK
                 : tri_fail(error, TRI_BAD_INPUT,
                            "command line: option '--format': found '%s', expected llmc, u16, "
                            "u32 or megatron",
                            text);
}

static enum tri_status inspect_tokens(const struct tri_arguments *arguments, bool json,
                                      struct tri_error *error)
{
    struct tri_tokens *tokens;
    enum tri_data_format format;
    TRI_TRY(read_format(arguments, &format, error));
    TRI_TRY(tri_tokens_create(arguments->words[0], format, 0, &tokens, error));
    json_t *list = json_array();
    for (int i = 0; i < tri_tokens_shards(tokens); i++) {
        struct tri_shard_info shard = tri_tokens_shard(tokens, i);
        json_t *entry =
            json_pack("{ss sI si sb sb}", "path", shard.path, "tokens", (json_int_t)shard.tokens,
                      "bytes_per_token", shard.bytes_per_token, "header", (int)shard.has_header,
                      "masked", (int)shard.masked);
        json_t *documents = shard.documents >= 0 ? json_integer(shard.documents) : json_null();
        (void)json_object_set_new(entry, "documents", documents);
        (void)json_array_append_new(list, entry);
        if (!json) {
            (void)printf("%-56s %lld tokens of %d bytes", shard.path, (long long)shard.tokens,
                         shard.bytes_per_token);
            if (shard.documents >= 0) {
                (void)printf(", %lld documents", (long long)shard.documents);
            }
            (void)printf("%s\n", shard.masked ? ", masked" : "");
        }
    }
    int64_t count = tri_tokens_count(tokens);
    tri_meter_begin(TRI_METER_TOKENS, count, "looking at the tokens");
    int64_t largest = tri_tokens_largest(tokens);
    tri_meter_end();
    if (json) {
        tri_print_json(json_pack("{ss sI sI so}", "kind", "tokens", "tokens", (json_int_t)count,
                                 "largest", (json_int_t)largest, "shards", list));
    } else {
        json_decref(list);
        (void)printf("%lld tokens, the largest %lld", (long long)count, (long long)largest);
        if (tri_tokens_masked(tokens)) {
            (void)printf("; %lld count as targets",
                         (long long)tri_tokens_counted(tokens, 0, count));
        }
        (void)printf("\n");
    }
    tri_tokens_destroy(tokens);
    return TRI_OK;
}

/* What the command was given, and what is there, must go together. */
static enum tri_status refuse_strays(const struct tri_arguments *arguments, bool config,
                                     bool tokens, struct tri_error *error)
{
    if (!config && arguments->num_overrides > 0) {
        return tri_fail(error, TRI_BAD_INPUT,
                        "command line: did not expect '%s': %s is no config (.yaml)",
                        arguments->overrides[0], arguments->words[0]);
    }
    if (!tokens && tri_arguments_has(arguments, "--format")) {
        return tri_fail(error, TRI_BAD_INPUT,
                        "command line: did not expect '--format': %s holds no token shards",
                        arguments->words[0]);
    }
    return TRI_OK;
}

static enum tri_status inspect(const struct tri_arguments *arguments, struct tri_error *error)
{
    bool json = tri_arguments_has(arguments, "--json");
    const char *what = arguments->words[0];
    bool folder = tri_file_is_dir(what);
    bool config =
        !folder && (tri_text_ends_with(what, ".yaml") || tri_text_ends_with(what, ".yml"));
    TRI_TRY(refuse_strays(arguments, config, !folder && !config, error));
    TRI_TRY(tri_file_check_access(what, error));
    if (!config && !tri_file_exists(what) && !strpbrk(what, "*?[")) {
        return tri_fail(error, TRI_BAD_INPUT,
                        "%s: no such file or folder, expected a config, a run, a checkpoint or "
                        "token shards",
                        what);
    }
    return folder   ? inspect_checkpoint(what, json, error)
           : config ? inspect_config(arguments, json, error)
                    : inspect_tokens(arguments, json, error);
}

enum tri_status tri_command_inspect(const struct tri_arguments *arguments, struct tri_error *error)
{
    enum tri_status status =
        tri_comm_rank(arguments->comm) == 0 ? inspect(arguments, error) : TRI_OK;
    return tri_agree_everywhere(arguments, status, error);
}
