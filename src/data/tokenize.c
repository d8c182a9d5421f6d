#include "data/tokenize.h"

#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/meter.h"
#include "base/path.h"
#include "config/config.h"
#include "data/bpe_train.h"
#include "data/chat_folder.h"
#include "data/input.h"
#include "data/shard_split.h"
#include "data/shard_writer.h"
#include "data/tokenizer.h"
#include "data/tokenizer_files.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* Shards are written here, inside the folder asked for, and move up when all are whole. */
static const char STAGING[] = "tokenize" TRI_TEMPORARY;
/* And a tokenizer that is learned, here. */
static const char LEARNED[] = "learned" TRI_TEMPORARY;

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
    if (args->train_vocab != 0 &&
        (args->train_vocab < TRI_TRAIN_VOCAB_LEAST || args->train_vocab > TRI_TRAIN_VOCAB_MOST)) {
        return tri_fail(error, TRI_BAD_INPUT,
                        "tokenize: a vocabulary of %" PRId64 ", expected %d to %d",
                        args->train_vocab, TRI_TRAIN_VOCAB_LEAST, TRI_TRAIN_VOCAB_MOST);
    }
    if (args->train_vocab != 0 && args->template && strcmp(args->template, "plain") != 0) {
        return tri_fail(error, TRI_BAD_INPUT,
                        "tokenize: template %s: a vocabulary that is learned has no tokens of "
                        "chats, expected plain",
                        args->template);
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

/* Before anything is written. */
static enum tri_status check_inputs(const struct tri_tokenize_args *args, struct tri_error *error)
{
    for (int i = 0; i < args->num_files; i++) {
        struct tri_input *input;
        TRI_TRY(tri_input_open(args->files[i], &input, error));
        tri_input_close(input);
    }
    return TRI_OK;
}

/* Whether a document is a line of a file, in one of the files at least. */
static bool has_lines(const struct tri_tokenize_args *args)
{
    bool lines = false;
    for (int i = 0; i < args->num_files && !lines; i++) {
        enum tri_format format =
            args->format == TRI_FORMAT_GUESS ? tri_format_guess(args->files[i]) : args->format;
        lines = format != TRI_FORMAT_TEXT;
    }
    return lines;
}

/* One call at work. */
struct work {
    const struct tri_tokenize_args *args;
    struct tri_tokenizer *tokenizer;
    struct tri_chat chat, raw;
    bool has_chat;
    bool unknown_template;     /* the tokenizer's folder has one that is not known here */
    char *staging, *scratch;   /* a folder, and a path in it */
    char *learned;             /* a folder, where a tokenizer is learned */
    char folder[TRI_PATH_MAX]; /* where the tokenizer's files are; "": it has none but itself */
    struct tri_shard_set set;
    struct tri_shard_writer *writer;
    int lock;           /* the folder asked for, open; -1: not */
    bool there;         /* it was, before */
    bool last_counts;   /* the last token that was written does */
    bool keeps_staging; /* shards there are the only ones */
};

static char *join(const char *folder, const char *name)
{
    size_t room = strlen(folder) + strlen(name) + 2;
    char *path = tri_alloc(TRI_MEMORY_OTHER, room);
    tri_path_make(path, room, "%s/%s", folder, name);
    return path;
}

/* By its name, or as the tokenizer's folder has it; there need be none. */
static enum tri_status choose_template(struct work *work, const char *folder,
                                       struct tri_error *error)
{
    bool wanted = work->args->format == TRI_FORMAT_CHAT;
    if (work->args->template) {
        work->has_chat = true;
        TRI_TRY(tri_chat_create(work->args->template, &work->chat, error));
        return folder ? tri_chat_read_names(folder, &work->chat, error) : TRI_OK;
    }
    if (!folder || work->args->format == TRI_FORMAT_JSONL) {
        return TRI_OK;
    }
    /* Lines that turn out to be no chats need none. */
    enum tri_status status =
        tri_chat_find(folder, &work->chat, &work->has_chat, wanted ? error : NULL);
    work->unknown_template = work->has_chat && status != TRI_OK;
    work->has_chat = work->has_chat && status == TRI_OK;
    return wanted ? status : TRI_OK;
}

/* The special tokens of chats, and what ends a completion. */
static enum tri_status find_specials(struct work *work, struct tri_error *error)
{
    if (!has_lines(work->args)) {
        return work->args->template
                   ? tri_fail(error, TRI_BAD_INPUT,
                              "tokenize: found --template, but files that are read as plain text: "
                              "expected --format chat, or names that end in .jsonl")
                   : TRI_OK;
    }
    const char *given = work->args->tokenizer;
    const char *name = given ? given : "a vocabulary that is learned";
    const char *folder = work->folder[0] ? work->folder : NULL;
    TRI_TRY(choose_template(work, folder, error));
    if (work->args->format == TRI_FORMAT_CHAT && !work->has_chat) {
        return tri_fail(error, TRI_BAD_INPUT,
                        "tokenize: format chat: %s has no chat template; expected --template "
                        "chatml, llama3, mistral, olmo or plain",
                        name);
    }
    if (work->has_chat) {
        TRI_TRY(tri_chat_resolve(&work->chat, work->tokenizer, name, error));
    }
    TRI_TRY(tri_chat_create("plain", &work->raw, error));
    if (folder) {
        TRI_TRY(tri_chat_read_names(folder, &work->raw, error));
    }
    return tri_chat_resolve(&work->raw, work->tokenizer, name, error);
}

/* ---- learning a tokenizer -------------------------------------------------------------------- */

/* Who learns from which file. */
struct lesson {
    struct tri_bpe_trainer *trainer;
    const char *file;
};

static enum tri_status learn_text(const struct lesson *lesson, bool begins,
                                  const unsigned char *text, size_t bytes, struct tri_error *error)
{
    struct tri_error found;
    enum tri_status status = tri_bpe_trainer_add(lesson->trainer, begins, text, bytes, &found);
    return status == TRI_OK ? TRI_OK
                            : tri_fail(error, status, "%s: %s", lesson->file, found.message);
}

/* Documents come as bytes. */
static enum tri_status learn_from(void *context, bool begins, const int32_t *tokens,
                                  const unsigned char *counts, int64_t count,
                                  struct tri_error *error)
{
    (void)counts;
    unsigned char text[4096];
    for (int64_t at = 0; at < count; at += (int64_t)sizeof(text)) {
        int64_t part = count - at < (int64_t)sizeof(text) ? count - at : (int64_t)sizeof(text);
        for (int64_t i = 0; i < part; i++) {
            text[i] = (unsigned char)tokens[at + i];
        }
        TRI_TRY(learn_text(context, begins && at == 0, text, (size_t)part, error));
    }
    return TRI_OK;
}

/* As they lie on the disk, packed or not. */
static int64_t bytes_of_files(const struct tri_tokenize_args *args)
{
    int64_t sum = 0;
    for (int i = 0; i < args->num_files; i++) {
        uint64_t bytes;
        sum += tri_file_size(args->files[i], &bytes, NULL) == TRI_OK ? (int64_t)bytes : 0;
    }
    return sum;
}

static enum tri_status learn(struct work *work, struct tri_bpe_trainer *trainer,
                             struct tri_error *error)
{
    struct tri_documents_counts counts = {0};
    const struct tri_documents_args args = {.tokenizer = work->tokenizer,
                                            .chat = work->has_chat ? &work->chat : NULL,
                                            .raw = &work->raw,
                                            .format = work->args->format,
                                            .unknown_template = work->unknown_template,
                                            .scratch = work->scratch};
    enum tri_status status = TRI_OK;
    tri_meter_begin(TRI_METER_BYTES, bytes_of_files(work->args), "counting words");
    for (int i = 0; i < work->args->num_files && status == TRI_OK; i++) {
        struct lesson lesson = {trainer, work->args->files[i]};
        status = tri_documents_read(&args, lesson.file, learn_from, &lesson, &counts, error);
        if (status == TRI_OK) { /* what it ends with is counted while its name is at hand */
            status = learn_text(&lesson, true, (const unsigned char *)"", 0, error);
        }
    }
    tri_meter_end();
    TRI_TRY(status);
    return tri_bpe_trainer_finish(trainer, work->args->train_vocab, work->learned, error);
}

/* In the place of the tokenizer of bytes by which documents are read before; then the learned one
 * is one that was given. */
static enum tri_status learn_tokenizer(struct work *work, struct tri_error *error)
{
    struct tri_bpe_trainer *trainer = NULL;
    TRI_TRY(tri_file_remove_tree(work->learned, error));
    TRI_TRY(tri_file_make_dirs(work->learned, error));
    TRI_TRY(tri_file_make_dirs(work->staging, error));
    enum tri_status status = tri_bpe_trainer_create(&trainer, error);
    if (status == TRI_OK) {
        status = learn(work, trainer, error);
    }
    tri_bpe_trainer_destroy(trainer);
    enum tri_status removed = tri_file_remove_tree(work->staging, status == TRI_OK ? error : NULL);
    TRI_TRY(status);
    TRI_TRY(removed);
    tri_path_make(work->folder, sizeof(work->folder), "%s", work->learned);
    tri_tokenizer_destroy(work->tokenizer);
    TRI_TRY(tri_tokenizer_create(work->learned, &work->tokenizer, error));
    return find_specials(work, error);
}

static enum tri_status open_tokenizer(struct work *work, struct tri_error *error)
{
    const char *given = work->args->tokenizer;
    if (!given) {
        return tri_tokenizer_create("byte", &work->tokenizer, error);
    }
    if (strcmp(given, "byte") != 0 && tri_file_is_dir(given)) {
        (void)tri_tokenizer_files_find(given, work->folder, sizeof(work->folder));
    }
    return tri_tokenizer_create(given, &work->tokenizer, error);
}

/* Where the tokenizer's files are, or will be; NULL: bytes have none. */
static const char *own_files(const struct work *work)
{
    const char *given = work->args->tokenizer;
    bool bytes = given && strcmp(given, "byte") == 0;
    return bytes ? NULL : work->folder[0] ? work->folder : given ? given : work->learned;
}

/* Of two calls that wrote into one folder neither would have its shards. */
static enum tri_status take_lock(struct work *work, struct tri_error *error)
{
    const char *folder = work->args->folder;
    int code = 0;
    work->there = tri_file_exists(folder);
    TRI_TRY(tri_file_make_dirs(folder, error));
    work->lock = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (work->lock < 0) {
        return tri_fail(error, TRI_FAILED, "%s: cannot open: %s", folder, strerror(errno));
    }
    enum tri_lock lock = tri_file_lock(work->lock, folder, true, &code);
    if (lock == TRI_LOCK_BUSY) {
        return tri_fail(error, TRI_FAILED, "%s: another tokenize is writing into this folder",
                        folder);
    }
    if (lock != TRI_LOCK_TAKEN) {
        tri_log_warn("%s: cannot be locked (%s): nothing keeps a second tokenize out of it", folder,
                     strerror(code));
    }
    return TRI_OK;
}

static enum tri_status prepare(struct work *work, const struct tri_tokenize_args *args,
                               struct tri_error *error)
{
    *work = (struct work){.args = args, .lock = -1};
    TRI_TRY(check_args(args, error));
    work->staging = join(args->folder, STAGING);
    work->scratch = join(work->staging, "text");
    work->learned = join(args->folder, LEARNED);
    TRI_TRY(open_tokenizer(work, error));
    TRI_TRY(find_specials(work, error));
    TRI_TRY(tri_tokenizer_files_check(own_files(work), args->folder, error));
    TRI_TRY(check_inputs(args, error));
    TRI_TRY(take_lock(work, error));
    if (args->train_vocab) {
        TRI_TRY(learn_tokenizer(work, error));
    }
    TRI_TRY(check_separator(args, work->tokenizer, error));
    int64_t vocab_size = work->tokenizer->vocab_size;
    work->set = (struct tri_shard_set){
        .folder = work->staging,
        .vocab_size = args->separator >= vocab_size ? args->separator + 1 : vocab_size,
        .per_shard = args->per_shard ? args->per_shard : TRI_TOKENIZE_PER_SHARD,
        .documents = args->num_files > 1 || has_lines(args)};
    return TRI_OK;
}

static void finish(struct work *work, bool whole)
{
    struct tri_error error;
    if (work->learned && work->args->train_vocab &&
        tri_file_remove_tree(work->learned, &error) != TRI_OK) {
        tri_log_warn("%s", error.message);
    }
    if (work->lock >= 0) {
        if (!whole && !work->there) {
            (void)rmdir(work->args->folder); /* made for nothing; where it is empty */
        }
        (void)close(work->lock);
    }
    tri_free(work->learned);
    tri_free(work->staging);
    tri_free(work->scratch);
    tri_tokenizer_destroy(work->tokenizer);
}

/* ---- the stream ------------------------------------------------------------------------------ */

/* A separator counts where what it ends does. */
static enum tri_status take_tokens(void *context, bool begins, const int32_t *tokens,
                                   const unsigned char *counts, int64_t count,
                                   struct tri_error *error)
{
    struct work *work = context;
    if (begins && work->set.tokens > 0 && work->args->separator >= 0) {
        const int32_t separator = (int32_t)work->args->separator;
        const unsigned char separator_counts = work->last_counts;
        TRI_TRY(tri_shard_writer_write(work->writer, &separator, &separator_counts, 1, error));
        work->set.tokens++;
    }
    if (begins) {
        tri_shard_writer_begin_document(work->writer);
    }
    if (count > 0) {
        work->last_counts = !counts || counts[count - 1];
    }
    work->set.tokens += count;
    return tri_shard_writer_write(work->writer, tokens, counts, count, error);
}

static enum tri_status write_files(struct work *work, struct tri_documents_counts *counts,
                                   struct tri_error *error)
{
    const struct tri_documents_args args = {.tokenizer = work->tokenizer,
                                            .chat = work->has_chat ? &work->chat : NULL,
                                            .raw = &work->raw,
                                            .format = work->args->format,
                                            .unknown_template = work->unknown_template,
                                            .scratch = work->scratch};
    enum tri_status status = TRI_OK;
    tri_meter_begin(TRI_METER_BYTES, bytes_of_files(work->args), "tokenizing");
    for (int i = 0; i < work->args->num_files && status == TRI_OK; i++) {
        status = tri_documents_read(&args, work->args->files[i], take_tokens, work, counts, error);
    }
    tri_meter_end();
    TRI_TRY(status);
    return tri_shard_writer_finish(work->writer, error);
}

static enum tri_status write_stream(struct work *work, struct tri_documents_counts *counts,
                                    struct tri_error *error)
{
    TRI_TRY(tri_file_remove_tree(work->staging, error));
    TRI_TRY(tri_file_make_dirs(work->staging, error));
    work->writer =
        tri_shard_writer_create(&(struct tri_shard_writer_args){.folder = work->staging,
                                                                .stem = "train",
                                                                .vocab_size = work->set.vocab_size,
                                                                .per_shard = work->set.per_shard,
                                                                .documents = work->set.documents});
    enum tri_status status = write_files(work, counts, error);
    work->set.train_files = tri_shard_writer_files(work->writer);
    tri_shard_writer_destroy(work->writer);
    return status;
}

/* ---- the split ------------------------------------------------------------------------------- */

static enum tri_status split(struct work *work, struct tri_tokenize_result *result,
                             struct tri_error *error)
{
    int64_t total = work->set.tokens;
    double valid = work->args->valid;
    /* The small term undoes the rounding of 1 - valid, so that 0.9 of 10 tokens leaves 1, not 0. */
    int64_t train = (int64_t)floor((double)total * (1.0 - valid) + 1e-6);
    bool lines = has_lines(work->args);
    if (valid > 0.0 && lines) {
        TRI_TRY(tri_shard_find_border(&work->set, train, &train, error));
    }
    if (train == 0 || (valid > 0.0 && train == total)) {
        return tri_fail(error, TRI_BAD_INPUT,
                        "tokenize: %" PRId64 " %s too few for a validation fraction of %g",
                        lines ? result->counts.documents : total,
                        lines ? "documents are" : "tokens are", valid);
    }
    if (train < total) {
        TRI_TRY(tri_shard_split(&work->set, train, error));
    }
    result->vocab_size = work->set.vocab_size;
    result->train_tokens = train;
    result->valid_tokens = total - train;
    result->train_shards = work->set.train_files;
    result->valid_shards = work->set.valid_files;
    return TRI_OK;
}

/* All of them are whole there, and nowhere else by now. */
static void add_place(struct tri_error *error, const char *what, const char *folder)
{
    char message[sizeof(error->message)];
    if (error) {
        (void)snprintf(message, sizeof(message), "%s", error->message);
        (void)tri_fail(error, error->status, "%.600s; %s %s", message, what, folder);
    }
}

/* A template that was named is not what the folder says; the model will speak as it has. */
static enum tri_status keep_template(const struct work *work, const char *folder,
                                     struct tri_error *error)
{
    struct tri_string jinja = {0};
    char *path = join(folder, "chat_template.jinja");
    tri_chat_write_jinja(&work->chat, &jinja);
    enum tri_status status = tri_file_save(path, jinja.data, jinja.size, error);
    tri_string_fini(&jinja);
    tri_free(path);
    return status;
}

/* Shards are of use to who knows what their tokens stand for, and a model that has learned chats to
 * who knows where an answer ends. */
static enum tri_status prepare_tokenizer(const struct work *work, bool chats,
                                         struct tri_tokenizer_swap *swap, struct tri_error *error)
{
    TRI_TRY(tri_tokenizer_swap_prepare(swap, own_files(work), work->args->folder, error));
    if (!chats || !swap->filled) {
        return TRI_OK;
    }
    if (work->args->template) {
        TRI_TRY(keep_template(work, swap->fresh, error));
    }
    const struct tri_tokenizer *tokenizer = work->tokenizer;
    int32_t stop = tri_tokenizer_find_special(tokenizer, tri_chat_stop(&work->chat));
    int32_t end = work->chat.end[0] ? tri_tokenizer_find_special(tokenizer, work->chat.end) : -1;
    bool special = stop >= 0 && tokenizer->special && tokenizer->special[stop];
    return special ? tri_tokenizer_add_stop(swap->fresh, tokenizer, end, stop, error) : TRI_OK;
}

/* Until the old shards go all stays as it was; from then on what is whole stays, and no tokenizer
 * is beside tokens of another. */
static enum tri_status publish(struct work *work, struct tri_tokenizer_swap *swap,
                               struct tri_error *error)
{
    enum tri_status begun = tri_tokenizer_swap_begin(swap, error);
    if (begun != TRI_OK) {
        tri_tokenizer_swap_undo(swap);
        return begun;
    }
    enum tri_status status = tri_shard_publish(&work->set, work->args->folder, error);
    if (status != TRI_OK) {
        add_place(error, "the shards that are not in place are in", work->staging);
        work->keeps_staging = true;
    } else {
        status = tri_tokenizer_swap_end(swap, error);
    }
    if (status != TRI_OK && swap->filled) {
        add_place(error, "the files of their tokenizer are in", swap->fresh);
    }
    return status;
}

static enum tri_status put_in_place(struct work *work, bool chats, struct tri_error *error)
{
    struct tri_tokenizer_swap swap;
    enum tri_status status = prepare_tokenizer(work, chats, &swap, error);
    if (status == TRI_OK) {
        status = publish(work, &swap, error);
    }
    tri_tokenizer_swap_fini(&swap);
    return status;
}

static enum tri_status work_through(struct work *work, struct tri_tokenize_result *result,
                                    struct tri_error *error)
{
    enum tri_status status = write_stream(work, &result->counts, error);
    if (status == TRI_OK) {
        status = split(work, result, error);
    }
    if (status == TRI_OK) {
        status = put_in_place(work, result->counts.files[TRI_FORMAT_CHAT] > 0, error);
    }
    if (work->keeps_staging) {
        return status;
    }
    /* What failed first is what to report, not that its leftovers stay. */
    bool whole = status == TRI_OK;
    enum tri_status removed = tri_file_remove_tree(work->staging, whole ? error : NULL);
    return whole ? removed : status;
}

enum tri_status tri_tokenize_files(const struct tri_tokenize_args *args,
                                   struct tri_tokenize_result *result, struct tri_error *error)
{
    struct work work;
    *result = (struct tri_tokenize_result){0};
    enum tri_status status = prepare(&work, args, error);
    if (status == TRI_OK) {
        status = work_through(&work, result, error);
    }
    result->bytes = result->counts.bytes;
    result->template = result->counts.files[TRI_FORMAT_CHAT] > 0 && work.has_chat
                           ? tri_chat_name(&work.chat)
                           : NULL;
    finish(&work, status == TRI_OK);
    return status;
}
