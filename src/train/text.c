#include "train/text.h"

#include "base/log.h"
#include "base/memory.h"
#include "base/path.h"
#include "train/alike.h"

#include <string.h>
#include <xxhash.h>

static bool is_root(const struct tri_session *session)
{
    return session->mesh->rank == 0;
}

static void tell_set(const char *path, bool evaluation, const struct tri_tokens *tokens,
                     const struct tri_loader *loader)
{
    const struct tri_loader_counts counts = tri_loader_counts(loader);
    const struct tri_packing_counts *packing = &counts.packing;
    if (packing->rows > 0) {
        tri_log_info("packing  %s: %lld documents in %lld rows, %.1f%% padding; %lld longer than a "
                     "row, cut into pieces",
                     path, (long long)packing->documents, (long long)packing->rows,
                     100.0 * (double)packing->padding /
                         (double)(packing->padding + packing->tokens),
                     (long long)packing->cut);
    }
    if (packing->rows == 0 && !evaluation && tri_tokens_documented(tokens)) {
        tri_log_info("rows     %s: windows over its documents, wherever these begin and end "
                     "(data.packing documents: rows of whole ones)",
                     path);
    }
    if (tri_tokens_masked(tokens)) {
        tri_log_info("masks    %s: %lld of %lld targets count", path, (long long)counts.counted,
                     (long long)counts.targets);
    }
}

/* Ids that would fit a model of another shape than the default. */
static enum tri_status hint(const struct tri_config *config, const char *path,
                            enum tri_status status, struct tri_error *error)
{
    struct tri_tokens *tokens = NULL;
    struct tri_error ignored;
    if (status != TRI_BAD_INPUT || !tri_config_lacks_shape(config) ||
        tri_tokens_create(path, config->data.format, 0, &tokens, &ignored) != TRI_OK) {
        return status;
    }
    tri_tokens_destroy(tokens);
    return tri_config_hint_shape(config, status, error);
}

/* The plan reads no data, and cannot know how many documents there are. */
static void tell_index(const char *path, int64_t bytes)
{
    if (bytes >= 1000000) {
        tri_log_info("index    %s: %.1f MB a rank for its documents, beside the memory planned",
                     path, (double)bytes / 1e6);
    }
}

/* One set; number: in a mixture. Collective. */
static enum tri_status open_set(const struct tri_session *session, const char *path, int number,
                                bool evaluation, struct tri_tokens **tokens,
                                struct tri_loader **loader, struct tri_error *error)
{
    const struct tri_config *config = session->config;
    struct tri_group *all = tri_mesh_group(session->mesh, TRI_ON_ALL);
    const int64_t before = tri_memory_get().current[TRI_MEMORY_OTHER];
    enum tri_status status =
        tri_tokens_create(path, config->data.format, config->model.vocab_size, tokens, error);
    status = hint(config, path, status, error);
    if (status == TRI_OK && is_root(session) && config->data.format == TRI_DATA_U16 &&
        config->model.vocab_size > 1 << 16) {
        tri_log_warn("%s: data.format u16 holds no ids above 65535, and model.vocab_size is %lld",
                     path, (long long)config->model.vocab_size);
    }
    if (status == TRI_OK) {
        struct tri_loader_args args = {
            .tokens = *tokens,
            .seed = config->seed,
            .sequence_length = config->data.sequence_length,
            .global_batch = config->train.global_batch,
            .separator = config->data.separator,
            .document_positions = tri_config_document_positions(config),
            .packs = config->data.packing == TRI_ROWS_DOCUMENTS,
            .set = number,
        };
        status = evaluation ? tri_loader_create_eval(&args, loader, error)
                            : tri_loader_create(&args, loader, error);
    }
    TRI_TRY(tri_comm_agree(all, status, error));
    TRI_TRY(tri_alike_tokens(all, path, *tokens, error));
    if (is_root(session)) {
        tell_set(path, evaluation, *tokens, *loader);
        tell_index(path, tri_memory_get().current[TRI_MEMORY_OTHER] - before);
    }
    return TRI_OK;
}

static void make_room(struct tri_text *text, int sets)
{
    *text = (struct tri_text){.sets = sets};
    text->tokens = tri_alloc(TRI_MEMORY_OTHER, (size_t)sets * sizeof(struct tri_tokens *));
}

void tri_text_close(struct tri_text *text)
{
    tri_loader_destroy(text->loader);
    for (int i = 0; i < text->sets; i++) {
        tri_tokens_destroy(text->tokens[i]);
    }
    tri_free(text->tokens);
    *text = (struct tri_text){0};
}

/* ---- training -------------------------------------------------------------------------------- */

static void tell_mixture(const struct tri_session *session, const struct tri_sets *sets,
                         const struct tri_loader *loader)
{
    const struct tri_config_train *train = &session->config->train;
    for (int i = 0; i < sets->count; i++) {
        struct tri_loader_share share =
            tri_loader_share(loader, i, train->steps * train->global_batch);
        tri_log_info("mixture  %.2f%% of the rows from %s: %lld rows, %.2f epochs, in all steps",
                     100.0 * share.share, sets->set[i].path, (long long)share.samples,
                     (double)share.samples / (double)share.epoch);
    }
}

static enum tri_status open_sets(const struct tri_session *session, const struct tri_sets *sets,
                                 struct tri_text *text, struct tri_error *error)
{
    struct tri_loader *loaders[TRI_SETS_MAX] = {0};
    double weights[TRI_SETS_MAX];
    enum tri_status status = TRI_OK;
    for (int i = 0; i < sets->count && status == TRI_OK; i++) {
        weights[i] = sets->set[i].weight;
        status =
            open_set(session, sets->set[i].path, i, false, &text->tokens[i], &loaders[i], error);
    }
    if (status == TRI_OK) {
        text->loader =
            sets->count == 1 ? loaders[0] : tri_loader_mix(sets->count, loaders, weights);
        return TRI_OK;
    }
    for (int i = 0; i < sets->count; i++) {
        tri_loader_destroy(loaders[i]);
    }
    return status;
}

enum tri_status tri_text_open_training(const struct tri_session *session, struct tri_text *text,
                                       struct tri_error *error)
{
    struct tri_sets *sets = tri_alloc(TRI_MEMORY_OTHER, sizeof(*sets));
    tri_config_sets(session->config->data.train, sets);
    make_room(text, sets->count);
    enum tri_status status = open_sets(session, sets, text, error);
    if (status != TRI_OK) {
        tri_text_close(text);
    } else if (sets->count > 1 && is_root(session)) {
        tell_mixture(session, sets, text->loader);
    }
    tri_free(sets);
    return status;
}

enum tri_status tri_text_describe(const struct tri_text *text, struct tri_checkpoint_state *state,
                                  struct tri_error *error)
{
    state->data_tokens = tri_tokens_count(text->tokens[0]);
    TRI_TRY(tri_tokens_contents(text->tokens[0], &state->data_contents, error));
    for (int i = 1; i < text->sets; i++) {
        struct {
            uint64_t contents;
            double share;
        } set = {.share = tri_loader_share(text->loader, i, 0).share};
        TRI_TRY(tri_tokens_contents(text->tokens[i], &set.contents, error));
        state->data_tokens += tri_tokens_count(text->tokens[i]);
        state->data_contents = XXH3_64bits_withSeed(&set, sizeof(set), state->data_contents);
    }
    return TRI_OK;
}

/* ---- evaluation ------------------------------------------------------------------------------ */

static enum tri_status open_one(const struct tri_session *session, const char *path,
                                struct tri_text *text, struct tri_error *error)
{
    make_room(text, 1);
    enum tri_status status =
        open_set(session, path, 0, true, &text->tokens[0], &text->loader, error);
    if (status != TRI_OK) {
        tri_text_close(text);
    }
    return status;
}

enum tri_status tri_texts_open(const struct tri_session *session, const char *path,
                               struct tri_texts *texts, struct tri_error *error)
{
    struct tri_sets *sets = tri_alloc(TRI_MEMORY_OTHER, sizeof(*sets));
    if (path) {
        sets->count = 1;
        tri_path_make(sets->set[0].path, TRI_PATH_MAX, "%s", path);
    } else {
        tri_config_sets(session->config->data.valid, sets);
    }
    *texts = (struct tri_texts){0};
    texts->text = tri_alloc(TRI_MEMORY_OTHER, (size_t)sets->count * sizeof(*texts->text));
    texts->name = tri_alloc(TRI_MEMORY_OTHER, (size_t)sets->count * sizeof(*texts->name));
    enum tri_status status = TRI_OK;
    for (int i = 0; i < sets->count && status == TRI_OK; i++) {
        memcpy(texts->name[i], sets->set[i].name, TRI_SET_NAME_MAX);
        status = open_one(session, sets->set[i].path, &texts->text[i], error);
        texts->count += status == TRI_OK;
    }
    tri_free(sets);
    if (status != TRI_OK) {
        tri_texts_close(texts);
    }
    return status;
}

void tri_texts_close(struct tri_texts *texts)
{
    for (int i = 0; i < texts->count; i++) {
        tri_text_close(&texts->text[i]);
    }
    tri_free(texts->text);
    tri_free(texts->name);
    *texts = (struct tri_texts){0};
}
