#include "data/tokenize.h"

#include "cli/command.h"
#include "comm/comm.h"

#include <stdio.h>

static enum tri_status read_request(const struct tri_arguments *arguments,
                                    char folder[TRI_PATH_MAX], struct tri_tokenize_args *args,
                                    struct tri_error *error)
{
    const char *tokenizer = tri_arguments_get(arguments, "--tokenizer");
    bool learns = tri_arguments_has(arguments, "--train-vocab");
    TRI_TRY(tri_arguments_path(arguments, "--out", folder, error));
    if ((!tokenizer && !learns) || !folder[0]) {
        return tri_arguments_missing(arguments, folder[0] ? "--tokenizer T" : "--out DIR", error);
    }
    if (tokenizer && learns) {
        return tri_fail(error, TRI_BAD_INPUT,
                        "command line: --train-vocab learns a tokenizer: expected no --tokenizer");
    }
    TRI_TRY(
        tri_arguments_int(arguments, "--train-vocab", 1, INT32_MAX, 0, &args->train_vocab, error));
    args->folder = folder;
    args->tokenizer = tokenizer;
    args->files = arguments->words;
    args->num_files = arguments->num_words;
    args->template = tri_arguments_get(arguments, "--template");
    const char *format = tri_arguments_get(arguments, "--format");
    args->format = format ? tri_format_find(format) : TRI_FORMAT_GUESS;
    if (format && args->format == TRI_FORMAT_GUESS) {
        return tri_fail(error, TRI_BAD_INPUT,
                        "command line: option '--format': found '%s', expected text, jsonl or chat",
                        format);
    }
    TRI_TRY(tri_arguments_real(arguments, "--valid", 0.0, 0.999999, 0.0, &args->valid, error));
    TRI_TRY(tri_arguments_int(arguments, "--separator", 0, INT32_MAX, -1, &args->separator, error));
    return tri_arguments_int(arguments, "--shard-tokens", 1, INT32_MAX, 0, &args->per_shard, error);
}

/* What each file was taken for, and what was found in them. */
static void print_counts(const struct tri_tokenize_args *args,
                         const struct tri_tokenize_result *result)
{
    const struct tri_documents_counts *counts = &result->counts;
    (void)printf("format     ");
    const char *between = "";
    for (int i = TRI_FORMAT_TEXT; i <= TRI_FORMAT_CHAT; i++) {
        if (counts->files[i] > 0) {
            (void)printf("%s%s: %lld file%s", between, tri_format_name((enum tri_format)i),
                         (long long)counts->files[i], counts->files[i] == 1 ? "" : "s");
            between = ", ";
        }
    }
    (void)printf("%s%s%s\n", args->format == TRI_FORMAT_GUESS ? " (by name and first line)" : "",
                 result->template ? "; template " : "", result->template ? result->template : "");
    (void)printf("documents  %lld, the longest of %lld tokens; %lld without tokens left out, %lld "
                 "without one that counts\n",
                 (long long)counts->documents, (long long)counts->longest, (long long)counts->empty,
                 (long long)counts->uncounted);
    (void)printf("tokens     %lld, %lld of them count; nothing is cut short\n",
                 (long long)counts->tokens, (long long)counts->counted);
}

static json_t *counts_json(const struct tri_tokenize_result *result)
{
    const struct tri_documents_counts *counts = &result->counts;
    json_t *files = json_object();
    for (int i = TRI_FORMAT_TEXT; i <= TRI_FORMAT_CHAT; i++) {
        (void)json_object_set_new(files, tri_format_name((enum tri_format)i),
                                  json_integer(counts->files[i]));
    }
    return files;
}

static void print_object(const struct tri_tokenize_result *result)
{
    const struct tri_documents_counts *counts = &result->counts;
    json_t *root = json_object();
    (void)json_object_set_new(root, "bytes", json_integer(result->bytes));
    (void)json_object_set_new(root, "vocab_size", json_integer(result->vocab_size));
    (void)json_object_set_new(root, "train_tokens", json_integer(result->train_tokens));
    (void)json_object_set_new(root, "valid_tokens", json_integer(result->valid_tokens));
    (void)json_object_set_new(root, "train_shards", json_integer(result->train_shards));
    (void)json_object_set_new(root, "valid_shards", json_integer(result->valid_shards));
    (void)json_object_set_new(root, "files", counts_json(result));
    (void)json_object_set_new(root, "template",
                              result->template ? json_string(result->template) : json_null());
    (void)json_object_set_new(root, "documents", json_integer(counts->documents));
    (void)json_object_set_new(root, "empty_documents", json_integer(counts->empty));
    (void)json_object_set_new(root, "uncounted_documents", json_integer(counts->uncounted));
    (void)json_object_set_new(root, "longest_document", json_integer(counts->longest));
    (void)json_object_set_new(root, "tokens", json_integer(counts->tokens));
    (void)json_object_set_new(root, "counted_tokens", json_integer(counts->counted));
    tri_print_json(root);
}

static void print(const struct tri_tokenize_args *args, const struct tri_tokenize_result *result,
                  bool json)
{
    if (json) {
        print_object(result);
        return;
    }
    print_counts(args, result);
    (void)printf("%lld bytes, %lld training tokens in %lld shard%s, %lld validation tokens in "
                 "%lld; vocabulary %lld; %s\n",
                 (long long)result->bytes, (long long)result->train_tokens,
                 (long long)result->train_shards, result->train_shards == 1 ? "" : "s",
                 (long long)result->valid_tokens, (long long)result->valid_shards,
                 (long long)result->vocab_size, args->folder);
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
