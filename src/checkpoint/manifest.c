#include "checkpoint/manifest.h"

#include "base/file.h"
#include "base/memory.h"
#include "base/meter.h"
#include "base/path.h"
#include "base/work.h"
#include "checkpoint/checkpoint_dir.h"
#include "base/json.h"
#include "checkpoint/safetensors.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

enum { VERSION = 1, PATH_BYTES = 2048, CHECK_BYTES = 64, LONGEST = 1 << 30 };

static const char *const part_names[] = {"model", "optimizer", "state", "tokenizer"};

static int by_name(const void *a, const void *b)
{
    const struct tri_manifest_tensor *x = a, *y = b;
    return strcmp(x->name, y->name);
}

static void sort_tensors(struct tri_checkpoint_manifest *m)
{
    if (m->count > 0) {
        qsort(m->tensor, (size_t)m->count, sizeof(*m->tensor), by_name);
    }
}

uint64_t tri_manifest_digest(struct tri_checkpoint_manifest *m)
{
    XXH3_state_t *state = XXH3_createState();
    TRI_REQUIRE(state);
    (void)XXH3_64bits_reset(state);
    sort_tensors(m);
    for (int64_t i = 0; i < m->count; i++) {
        const struct tri_manifest_tensor *t = &m->tensor[i];
        int64_t dims = t->dims;
        (void)XXH3_64bits_update(state, t->name, strlen(t->name) + 1);
        (void)XXH3_64bits_update(state, &dims, sizeof(dims));
        (void)XXH3_64bits_update(state, t->shape, (size_t)t->dims * sizeof(*t->shape));
        (void)XXH3_64bits_update(state, &t->hash, sizeof(t->hash));
    }
    uint64_t digest = XXH3_64bits_digest(state);
    (void)XXH3_freeState(state);
    return digest;
}

/* ---- writing --------------------------------------------------------------------------------- */

static json_t *hash_text(uint64_t hash)
{
    char text[17];
    (void)snprintf(text, sizeof(text), "%016" PRIx64, hash);
    return json_string(text);
}

static json_t *to_json(const struct tri_checkpoint_manifest *m)
{
    json_t *files = json_array(), *tensors = json_object();
    for (int i = 0; i < m->files; i++) {
        const struct tri_manifest_file *f = &m->file[i];
        (void)json_array_append_new(
            files, json_pack("{s:s, s:s, s:I, s:o}", "name", f->name, "part", part_names[f->part],
                             "bytes", (json_int_t)f->bytes, "xxh3", hash_text(f->hash)));
    }
    for (int64_t i = 0; i < m->count; i++) {
        const struct tri_manifest_tensor *t = &m->tensor[i];
        json_t *shape = json_array();
        for (int d = 0; d < t->dims; d++) {
            (void)json_array_append_new(shape, json_integer(t->shape[d]));
        }
        json_t *entry = json_pack("{s:o, s:s, s:o}", "shape", shape, "file", t->file, "xxh3",
                                  hash_text(t->hash));
        if (t->frozen) {
            (void)json_object_set_new(entry, "frozen", json_true());
        }
        (void)json_object_set_new(tensors, t->name, entry);
    }
    return json_pack("{s:s, s:i, s:I, s:b, s:o, s:o, s:I, s:o}", "format", "trident checkpoint",
                     "version", VERSION, "step", (json_int_t)m->step, "optimizer", m->optimizer,
                     "digest", hash_text(m->digest), "files", files, "count", (json_int_t)m->count,
                     "tensors", tensors);
}

/* The end of every manifest whose text up to there is `text`. */
static void check_line(const char *text, size_t bytes, char line[CHECK_BYTES])
{
    (void)snprintf(line, CHECK_BYTES, ",\n \"check\": \"%016" PRIx64 "\"\n}\n",
                   XXH3_64bits(text, bytes));
}

enum tri_status tri_manifest_save(const char *dir, struct tri_checkpoint_manifest *m,
                                  struct tri_error *error)
{
    m->digest = tri_manifest_digest(m);
    json_t *root = to_json(m);
    char *json = root ? json_dumps(root, JSON_INDENT(1)) : NULL;
    json_decref(root);
    TRI_REQUIRE(json);
    size_t bytes = strlen(json) - strlen("\n}");
    char line[CHECK_BYTES];
    check_line(json, bytes, line);
    char *text = tri_alloc(TRI_MEMORY_OTHER, bytes + CHECK_BYTES);
    memcpy(text, json, bytes);
    memcpy(text + bytes, line, strlen(line));
    free(json);
    char path[PATH_BYTES];
    tri_path_make(path, sizeof(path), "%s/manifest.json", dir);
    enum tri_status status = tri_file_save(path, text, bytes + strlen(line), error);
    tri_free(text);
    return status;
}

/* ---- reading --------------------------------------------------------------------------------- */

static enum tri_status check_bytes(const char *path, struct tri_error *error)
{
    struct tri_mapping text;
    TRI_TRY(tri_file_map(path, &text, error));
    char line[CHECK_BYTES];
    check_line("", 0, line);
    size_t tail = strlen(line);
    bool good = text.size >= tail;
    if (good) {
        check_line((const char *)text.data, text.size - tail, line);
        good = memcmp(text.data + text.size - tail, line, tail) == 0;
    }
    tri_file_unmap(&text);
    if (!good) {
        return tri_fail(error, TRI_BAD_INPUT,
                        "%s: damaged or truncated: its check does not fit its bytes", path);
    }
    return TRI_OK;
}

static enum tri_status read_file(const char *path, const json_t *entry,
                                 struct tri_manifest_file *file, struct tri_error *error)
{
    const char *part = "";
    int64_t bytes = 0;
    TRI_TRY(tri_json_get_text(path, entry, "name", true, &file->name, error));
    TRI_TRY(tri_json_get_text(path, entry, "part", true, &part, error));
    TRI_TRY(tri_json_get_int_in(path, entry, "bytes", 0, INT64_MAX, &bytes, error));
    TRI_TRY(tri_json_get_hash(path, entry, "xxh3", &file->hash, error));
    file->bytes = (uint64_t)bytes;
    for (int i = 0; i < TRI_MANIFEST_PARTS; i++) {
        if (strcmp(part, part_names[i]) == 0) {
            file->part = (enum tri_manifest_part)i;
            return strchr(file->name, '/') || file->name[0] == '.' || file->name[0] == '\0'
                       ? tri_fail(error, TRI_BAD_INPUT, "%s: files: '%s' is no file name", path,
                                  file->name)
                       : TRI_OK;
        }
    }
    return tri_fail(error, TRI_BAD_INPUT, "%s: files: unknown part '%s'", path, part);
}

static enum tri_status read_tensor(const char *path, const char *name, const json_t *entry,
                                   struct tri_manifest_tensor *tensor, struct tri_error *error)
{
    const json_t *shape = json_object_get(entry, "shape");
    size_t dims = json_array_size(shape);
    tensor->name = name;
    tensor->dims = (int)dims;
    if (dims < 1 || dims > 2) {
        return tri_fail(error, TRI_BAD_INPUT, "%s: tensor %s: no shape of one or two dimensions",
                        path, name);
    }
    tensor->shape[1] = 1;
    for (size_t i = 0; i < dims; i++) {
        tensor->shape[i] = json_integer_value(json_array_get(shape, i));
        if (tensor->shape[i] < 1 || tensor->shape[i] > LONGEST) {
            return tri_fail(error, TRI_BAD_INPUT,
                            "%s: tensor %s: shape: found %" PRId64 ", expected 1 to %d", path, name,
                            tensor->shape[i], LONGEST);
        }
    }
    tensor->frozen = json_is_true(json_object_get(entry, "frozen"));
    TRI_TRY(tri_json_get_text(path, entry, "file", true, &tensor->file, error));
    return tri_json_get_hash(path, entry, "xxh3", &tensor->hash, error);
}

static enum tri_status read_lists(const char *path, struct tri_checkpoint_manifest *m,
                                  struct tri_error *error)
{
    json_t *files = json_object_get(m->root, "files"),
           *tensors = json_object_get(m->root, "tensors");
    m->file = tri_alloc(TRI_MEMORY_OTHER, json_array_size(files) * sizeof(*m->file));
    m->tensor = tri_alloc(TRI_MEMORY_OTHER, json_object_size(tensors) * sizeof(*m->tensor));
    for (size_t i = 0; i < json_array_size(files); i++) {
        TRI_TRY(read_file(path, json_array_get(files, i), &m->file[m->files], error));
        m->files++;
    }
    const char *name;
    json_t *entry;
    json_object_foreach(tensors, name, entry)
    {
        TRI_TRY(read_tensor(path, name, entry, &m->tensor[m->count], error));
        m->count++;
    }
    sort_tensors(m);
    int64_t count = 0;
    TRI_TRY(tri_json_get_int(path, m->root, "count", true, &count, error));
    if (count != m->count || m->files == 0) {
        return tri_fail(error, TRI_BAD_INPUT,
                        "%s: %d files and %" PRId64 " tensors, expected %" PRId64, path, m->files,
                        m->count, count);
    }
    return TRI_OK;
}

/* One state.json, weights, and moments where they are promised: what nobody lists nobody checks. */
static enum tri_status check_files(const char *path, const struct tri_checkpoint_manifest *m,
                                   struct tri_error *error)
{
    int count[TRI_MANIFEST_PARTS] = {0};
    for (int i = 0; i < m->files; i++) {
        count[m->file[i].part]++;
        if (m->file[i].part == TRI_MANIFEST_STATE && strcmp(m->file[i].name, "state.json") != 0) {
            return tri_fail(error, TRI_BAD_INPUT, "%s: files: state in '%s', expected state.json",
                            path, m->file[i].name);
        }
    }
    if (count[TRI_MANIFEST_STATE] != 1 || count[TRI_MANIFEST_MODEL] == 0 ||
        (count[TRI_MANIFEST_OPTIMIZER] > 0) != m->optimizer) {
        return tri_fail(error, TRI_BAD_INPUT,
                        "%s: files: %d of the model, %d of the optimizer and %d state.json, "
                        "expected %s",
                        path, count[TRI_MANIFEST_MODEL], count[TRI_MANIFEST_OPTIMIZER],
                        count[TRI_MANIFEST_STATE],
                        m->optimizer ? "some, some and one" : "some, none and one");
    }
    return TRI_OK;
}

static enum tri_status read_manifest(const char *path, struct tri_checkpoint_manifest *m,
                                     struct tri_error *error)
{
    TRI_TRY(check_bytes(path, error));
    TRI_TRY(tri_json_load(path, &m->root, error));
    const char *format = "";
    int64_t version = 0;
    TRI_TRY(tri_json_get_text(path, m->root, "format", false, &format, error));
    TRI_TRY(tri_json_get_int(path, m->root, "version", true, &version, error));
    if (strcmp(format, "trident checkpoint") != 0 || version != VERSION) {
        return tri_fail(error, TRI_BAD_INPUT,
                        "%s: format '%s' version %" PRId64 ", expected version %d", path, format,
                        version, VERSION);
    }
    TRI_TRY(tri_json_get_int_in(path, m->root, "step", 0, TRI_CHECKPOINT_STEPS, &m->step, error));
    TRI_TRY(tri_json_get_bool(path, m->root, "optimizer", true, &m->optimizer, error));
    TRI_TRY(tri_json_get_hash(path, m->root, "digest", &m->digest, error));
    TRI_TRY(read_lists(path, m, error));
    return check_files(path, m, error);
}

/* A copy under another step's name would pass for that step. */
static enum tri_status check_name(const char *dir, int64_t step, struct tri_error *error)
{
    char parent[TRI_CHECKPOINT_PATH];
    int64_t named;
    if (tri_checkpoint_split(dir, parent, &named) && named != step) {
        return tri_fail(error, TRI_BAD_INPUT,
                        "%s: the folder's name says step %" PRId64 ", its manifest.json %" PRId64,
                        dir, named, step);
    }
    return TRI_OK;
}

enum tri_status tri_manifest_load(const char *dir, struct tri_checkpoint_manifest **m,
                                  struct tri_error *error)
{
    char path[PATH_BYTES];
    *m = NULL;
    tri_path_make(path, sizeof(path), "%s/manifest.json", dir);
    if (!tri_file_exists(path)) {
        return tri_fail(error, TRI_BAD_INPUT, "%s: %s", dir,
                        tri_file_exists(dir)
                            ? "neither a run nor a whole checkpoint: manifest.json is missing"
                            : "is not there: a run that goes on removes older checkpoints "
                              "(checkpoint.keep_last)");
    }
    struct tri_checkpoint_manifest *made = tri_alloc(TRI_MEMORY_OTHER, sizeof(*made));
    enum tri_status status = read_manifest(path, made, error);
    if (status == TRI_OK) {
        status = check_name(dir, made->step, error);
    }
    if (status != TRI_OK) {
        tri_manifest_destroy(made);
        return status;
    }
    *m = made;
    return TRI_OK;
}

void tri_manifest_destroy(struct tri_checkpoint_manifest *m)
{
    if (!m) {
        return;
    }
    tri_free(m->file);
    tri_free(m->tensor);
    json_decref(m->root);
    tri_free(m);
}

/* ---- the files ------------------------------------------------------------------------------- */

enum tri_status tri_manifest_name_damage(const char *path, const struct tri_manifest_file *file,
                                         uint64_t found, const struct tri_checkpoint_manifest *m,
                                         struct tri_error *error)
{
    struct tri_safetensors *open;
    struct tri_error ignored;
    const char *damaged = NULL;
    if (file->part == TRI_MANIFEST_MODEL && tri_safetensors_open(path, &open, &ignored) == TRI_OK) {
        for (int64_t i = 0; i < m->count && !damaged; i++) {
            const struct tri_safetensor *t = tri_safetensors_find(open, m->tensor[i].name);
            if (t && strcmp(m->tensor[i].file, file->name) == 0 &&
                tri_work_hash(t->data, t->bytes) != m->tensor[i].hash) {
                damaged = m->tensor[i].name;
            }
        }
        tri_safetensors_close(open);
    }
    return tri_fail(error, TRI_BAD_INPUT,
                    "%s: damaged%s%s: hash %016" PRIx64 ", expected %016" PRIx64, path,
                    damaged ? " in tensor " : "", damaged ? damaged : "", found, file->hash);
}

static enum tri_status expect_size(const char *path, const struct tri_manifest_file *file,
                                   uint64_t bytes, struct tri_error *error)
{
    return bytes == file->bytes
               ? TRI_OK
               : tri_fail(error, TRI_BAD_INPUT, "%s: %" PRIu64 " bytes, expected %" PRIu64, path,
                          bytes, file->bytes);
}

enum tri_status tri_manifest_check_sizes(const char *dir, const struct tri_checkpoint_manifest *m,
                                         struct tri_error *error)
{
    for (int i = 0; i < m->files; i++) {
        char path[PATH_BYTES];
        uint64_t bytes;
        TRI_TRY(tri_path_format(path, sizeof(path), error, "%s/%s", dir, m->file[i].name));
        TRI_TRY(tri_file_size(path, &bytes, error));
        TRI_TRY(expect_size(path, &m->file[i], bytes, error));
    }
    return TRI_OK;
}

static enum tri_status verify_file(const char *dir, const struct tri_manifest_file *file,
                                   const struct tri_checkpoint_manifest *m, struct tri_error *error)
{
    char path[PATH_BYTES];
    struct tri_mapping data;
    TRI_TRY(tri_path_format(path, sizeof(path), error, "%s/%s", dir, file->name));
    TRI_TRY(tri_file_map(path, &data, error));
    size_t size = data.size;
    uint64_t hash = size == file->bytes ? tri_work_hash(data.data, data.size) : 0;
    tri_file_unmap(&data);
    TRI_TRY(expect_size(path, file, size, error));
    return hash == file->hash ? TRI_OK : tri_manifest_name_damage(path, file, hash, m, error);
}

enum tri_status tri_manifest_verify_part(const char *dir, const struct tri_checkpoint_manifest *m,
                                         enum tri_manifest_part part, struct tri_error *error)
{
    for (int i = 0; i < m->files; i++) {
        if (m->file[i].part == part) {
            TRI_TRY(verify_file(dir, &m->file[i], m, error));
        }
    }
    return TRI_OK;
}

enum tri_status tri_manifest_verify_files(const char *dir, const struct tri_checkpoint_manifest *m,
                                          struct tri_error *error)
{
    uint64_t bytes = 0; /* as they are listed: whether they are so long is seen below */
    for (int i = 0; i < m->files; i++) {
        bytes += m->file[i].bytes;
    }
    enum tri_status status = TRI_OK;
    tri_meter_begin(TRI_METER_BYTES, (int64_t)bytes, "checking the files");
    for (int i = 0; i < m->files && status == TRI_OK; i++) {
        status = verify_file(dir, &m->file[i], m, error);
    }
    tri_meter_end();
    return status;
}
