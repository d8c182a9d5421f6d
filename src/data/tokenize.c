#include "data/tokenize.h"

#include "base/file.h"
#include "base/memory.h"
#include "base/path.h"
#include "data/shard_writer.h"
#include "data/tokenizer.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

static const char *const STEMS[] = {"train", "valid"};

/* Shards are written here, inside the folder asked for, and move up when all are whole. */
static const char STAGING[] = "tokenize" TRI_TEMPORARY;

/* ---- input ----------------------------------------------------------------------------------- */

static enum tri_status check_args(const struct tri_tokenize_args *args, struct tri_error *error)
{
    if (args->num_files < 1) {
        return tri_fail(error, TRI_BAD_INPUT, "tokenize: no files given");
    }
    if (!(args->valid >= 0.0 && args->valid < 1.0)) {
        return tri_fail(error, TRI_BAD_INPUT,
                        "tokenize: validation fraction %g, expected at least 0 and below 1",
                        args->valid);
    }
    if (args->per_shard < 0 || args->per_shard > TRI_SHARD_TOKENS_MAX) {
        return tri_fail(error, TRI_BAD_INPUT,
                        "tokenize: %" PRId64 " tokens to a shard, expected 1 to %d",
                        args->per_shard, TRI_SHARD_TOKENS_MAX);
    }
    return TRI_OK;
}

static enum tri_status check_separator(const struct tri_tokenize_args *args,
                                       const struct tri_tokenizer *tokenizer,
                                       struct tri_error *error)
{
    int64_t most = tokenizer->vocab_size - 1;
    most = most < TRI_TOKENIZE_SEPARATOR_MAX ? TRI_TOKENIZE_SEPARATOR_MAX : most;
    if (args->separator < -1 || args->separator > most) {
        return tri_fail(error, TRI_BAD_INPUT,
                        "tokenize: separator %" PRId64 ", expected 0 to %" PRId64, args->separator,
                        most);
    }
    return TRI_OK;
}

static enum tri_status map_inputs(const struct tri_tokenize_args *args, struct tri_mapping *inputs,
                                  struct tri_error *error)
{
    for (int i = 0; i < args->num_files; i++) {
        TRI_TRY(tri_file_map(args->files[i], &inputs[i], error));
        if (inputs[i].size == 0) {
            return tri_fail(error, TRI_BAD_INPUT, "%s: is empty", args->files[i]);
        }
    }
    return TRI_OK;
}

/* ---- the split ------------------------------------------------------------------------------- */

static enum tri_status split_stream(const struct tri_tokenize_args *args,
                                    const struct tri_tokenizer *tokenizer,
                                    const struct tri_mapping *inputs,
                                    struct tri_tokenize_result *result, struct tri_error *error)
{
    int64_t total = args->separator >= 0 ? args->num_files - 1 : 0;
    for (int i = 0; i < args->num_files; i++) {
        int64_t tokens;
        TRI_TRY(tokenizer->count(tokenizer, inputs[i].data, inputs[i].size, &tokens, error));
        total += tokens;
        result->bytes += (int64_t)inputs[i].size;
    }
    /* The small term undoes the rounding of 1 - valid, so that 0.9 of 10 tokens leaves 1, not 0. */
    result->train_tokens = (int64_t)floor((double)total * (1.0 - args->valid) + 1e-6);
    result->valid_tokens = total - result->train_tokens;
    result->vocab_size = tokenizer->vocab_size;
    if (args->separator >= result->vocab_size) {
        result->vocab_size = args->separator + 1;
    }
    if (result->train_tokens == 0 || (args->valid > 0.0 && result->valid_tokens == 0)) {
        return tri_fail(error, TRI_BAD_INPUT,
                        "tokenize: %" PRId64 " tokens are too few for a validation fraction of %g",
                        total, args->valid);
    }
    return TRI_OK;
}

/* The stream on its way into two writers. */
struct split {
    struct tri_shard_writer *writers[2];
    int64_t train_left;
};

static enum tri_status write_tokens(void *context, const int32_t *tokens, int64_t count,
                                    struct tri_error *error)
{
    struct split *split = context;
    int64_t train = count < split->train_left ? count : split->train_left;
    split->train_left -= train;
    TRI_TRY(tri_shard_writer_write(split->writers[0], tokens, train, error));
    return tri_shard_writer_write(split->writers[1], tokens + train, count - train, error);
}

static enum tri_status write_stream(const struct tri_tokenize_args *args,
                                    const struct tri_tokenizer *tokenizer,
                                    const struct tri_mapping *inputs, struct split *split,
                                    struct tri_error *error)
{
    for (int i = 0; i < args->num_files; i++) {
        if (i > 0 && args->separator >= 0) {
            int32_t separator = (int32_t)args->separator;
            TRI_TRY(write_tokens(split, &separator, 1, error));
        }
        TRI_TRY(tokenizer->encode(tokenizer, inputs[i].data, inputs[i].size, write_tokens, split,
                                  error));
    }
    return TRI_OK;
}

static enum tri_status write_shards(const struct tri_tokenize_args *args, const char *staging,
                                    const struct tri_tokenizer *tokenizer,
                                    const struct tri_mapping *inputs,
                                    struct tri_tokenize_result *result, struct tri_error *error)
{
    TRI_TRY(tri_file_remove_tree(staging, error));
    TRI_TRY(tri_file_make_dirs(staging, error));
    struct split split = {.train_left = result->train_tokens};
    for (int side = 0; side < 2; side++) {
        split.writers[side] = tri_shard_writer_create(&(struct tri_shard_writer_args){
            .folder = staging,
            .stem = STEMS[side],
            .vocab_size = result->vocab_size,
            .total = side == 0 ? result->train_tokens : result->valid_tokens,
            .per_shard = args->per_shard ? args->per_shard : TRI_TOKENIZE_PER_SHARD});
    }
    enum tri_status status = write_stream(args, tokenizer, inputs, &split, error);
    result->train_shards = tri_shard_writer_files(split.writers[0]);
    result->valid_shards = tri_shard_writer_files(split.writers[1]);
    tri_shard_writer_destroy(split.writers[0]);
    tri_shard_writer_destroy(split.writers[1]);
    return status;
}

/* ---- publishing ------------------------------------------------------------------------------ */

static char *join(const char *folder, const char *name)
{
    size_t room = strlen(folder) + strlen(name) + 2;
    char *path = tri_alloc(TRI_MEMORY_OTHER, room);
    tri_path_make(path, room, "%s/%s", folder, name);
    return path;
}

/* STEM_, six digits or more, .bin */
static bool is_shard_name(const char *name)
{
    for (int side = 0; side < 2; side++) {
        size_t length = strlen(STEMS[side]);
        if (strncmp(name, STEMS[side], length) != 0 || name[length] != '_') {
            continue;
        }
        size_t digits = strspn(name + length + 1, "0123456789");
        return digits >= 6 && strcmp(name + length + 1 + digits, ".bin") == 0;
    }
    return false;
}

struct removal {
    const char *folder;
    struct tri_error *error;
};

static enum tri_status remove_shard(const char *name, void *data)
{
    const struct removal *removal = data;
    if (!is_shard_name(name)) {
        return TRI_OK;
    }
    char *path = join(removal->folder, name);
    enum tri_status status = tri_file_remove_tree(path, removal->error);
    tri_free(path);
    return status;
}

/* One that stayed would pass for a part of the new set. */
static enum tri_status remove_old_shards(const char *folder, struct tri_error *error)
{
    struct removal removal = {folder, error};
    enum tri_status status = tri_file_list(folder, remove_shard, &removal, error);
    if (status != TRI_OK && error) {
        error->status = TRI_FAILED; /* not the input's fault: the folder is ours by now */
    }
    return status == TRI_OK ? TRI_OK : TRI_FAILED;
}

static enum tri_status publish(const char *folder, const char *staging,
                               const struct tri_tokenize_result *result, struct tri_error *error)
{
    TRI_TRY(remove_old_shards(folder, error));
    for (int side = 0; side < 2; side++) {
        int64_t files = side == 0 ? result->train_shards : result->valid_shards;
        for (int64_t i = 0; i < files; i++) {
            char name[64];
            tri_shard_name(STEMS[side], i, name, sizeof(name));
            char *from = join(staging, name);
            char *to = join(folder, name);
            enum tri_status status = tri_file_rename(from, to, error);
            tri_free(from);
            tri_free(to);
            TRI_TRY(status);
        }
    }
    return tri_file_sync_dir(folder, error);
}

/* All of them are whole there, and nowhere else by now. */
static void add_place(const char *staging, struct tri_error *error)
{
    char message[sizeof(error->message)];
    if (error) {
        (void)snprintf(message, sizeof(message), "%s", error->message);
        (void)tri_fail(error, error->status, "%.600s; the shards that are not in place are in %s",
                       message, staging);
    }
}

enum tri_status tri_tokenize_files(const struct tri_tokenize_args *args,
                                   struct tri_tokenize_result *result, struct tri_error *error)
{
    *result = (struct tri_tokenize_result){0};
    TRI_TRY(check_args(args, error));
    struct tri_tokenizer *tokenizer;
    TRI_TRY(tri_tokenizer_create(args->tokenizer, &tokenizer, error));
    struct tri_mapping *inputs =
        tri_alloc(TRI_MEMORY_OTHER, (size_t)args->num_files * sizeof(*inputs));
    char *staging = join(args->folder, STAGING);
    enum tri_status status = check_separator(args, tokenizer, error);
    if (status == TRI_OK) {
        status = map_inputs(args, inputs, error);
    }
    if (status == TRI_OK) {
        status = split_stream(args, tokenizer, inputs, result, error);
    }
    if (status == TRI_OK) {
        status = write_shards(args, staging, tokenizer, inputs, result, error);
        bool whole = status == TRI_OK;
        if (whole) {
            status = publish(args->folder, staging, result, error);
        }
        if (whole && status != TRI_OK) {
            add_place(staging, error);
        } else {
            /* What failed first is what to report, not that its leftovers stay. */
            enum tri_status removed = tri_file_remove_tree(staging, whole ? error : NULL);
            status = whole ? removed : status;
        }
    }
    for (int i = 0; i < args->num_files; i++) {
        tri_file_unmap(&inputs[i]);
    }
    tri_free(staging);
    tri_free(inputs);
    tri_tokenizer_destroy(tokenizer);
    return status;
}
