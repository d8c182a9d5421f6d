#include "data/tokenize.h"

#include "cli/command.h"
#include "comm/comm.h"

#include <stdio.h>

static enum tri_status read_request(const struct tri_arguments *arguments,
                                    char folder[TRI_PATH_MAX], struct tri_tokenize_args *args,
                                    struct tri_error *error)
{
    const char *tokenizer = tri_arguments_get(arguments, "--tokenizer");
    TRI_TRY(tri_arguments_path(arguments, "--out", folder, error));
    if (!tokenizer || !folder[0]) {
        return tri_arguments_missing(arguments, tokenizer ? "--out DIR" : "--tokenizer T", error);
    }
    args->folder = folder;
    args->tokenizer = tokenizer;
    args->files = arguments->words;
    args->num_files = arguments->num_words;
    TRI_TRY(tri_arguments_real(arguments, "--valid", 0.0, 0.999999, 0.0, &args->valid, error));
    TRI_TRY(tri_arguments_int(arguments, "--separator", 0, INT32_MAX, -1, &args->separator, error));
    return tri_arguments_int(arguments, "--shard-tokens", 1, INT32_MAX, 0, &args->per_shard, error);
}

static void print(const struct tri_tokenize_args *args, const struct tri_tokenize_result *result,
                  bool json)
{
    if (!json) {
        (void)printf("%lld bytes, %lld training tokens in %lld shards, %lld validation tokens in "
                     "%lld; vocabulary %lld; "
                     "%s\n",
                     (long long)result->bytes, (long long)result->train_tokens,
                     (long long)result->train_shards, (long long)result->valid_tokens,
                     (long long)result->valid_shards, (long long)result->vocab_size, args->folder);
        return;
    }
    json_t *root = json_object();
    (void)json_object_set_new(root, "bytes", json_integer(result->bytes));
    (void)json_object_set_new(root, "vocab_size", json_integer(result->vocab_size));
    (void)json_object_set_new(root, "train_tokens", json_integer(result->train_tokens));
    (void)json_object_set_new(root, "valid_tokens", json_integer(result->valid_tokens));
    (void)json_object_set_new(root, "train_shards", json_integer(result->train_shards));
    (void)json_object_set_new(root, "valid_shards", json_integer(result->valid_shards));
    tri_print_json(root);
}

enum tri_status tri_command_tokenize(const struct tri_arguments *arguments, struct tri_error *error)
{
    struct tri_tokenize_args args = {0};
    struct tri_tokenize_result result;
    char folder[TRI_PATH_MAX];
    enum tri_status status = read_request(arguments, folder, &args, error);
    if (status == TRI_OK && tri_comm_rank(arguments->comm) == 0) {
        status = tri_tokenize_files(&args, &result, error);
        if (status == TRI_OK) {
            print(&args, &result, tri_arguments_has(arguments, "--json"));
        }
    }
    return tri_agree_everywhere(arguments, status, error);
}
