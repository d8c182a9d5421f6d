/* What stands beside a model's weights in its folder, and is handed on. */
#include "base/file.h"
#include "base/path.h"
#include "checkpoint/hf.h"

enum { PATH_BYTES = 2048, MOST_BYTES = 1 << 28 };

static const char *const names[] = {
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "chat_template.jinja",
    "chat_template.json",
    "generation_config.json",
};

/* The file, if the folder has it. */
static enum tri_status copy(const char *from, const char *to, const char *name, bool *found,
                            struct tri_error *error)
{
    char source[PATH_BYTES], target[PATH_BYTES];
    struct tri_mapping file;
    *found = false;
    TRI_TRY(tri_path_format(source, sizeof(source), error, "%s/%s", from, name));
    TRI_TRY(tri_path_format(target, sizeof(target), error, "%s/%s", to, name));
    if (!tri_file_exists(source) || tri_file_is_dir(source)) {
        return TRI_OK;
    }
    *found = true;
    TRI_TRY(tri_file_read(source, MOST_BYTES, &file, error));
    enum tri_status status = tri_file_save(target, file.data, file.size, error);
    tri_file_unmap(&file);
    return status;
}

enum tri_status tri_hf_copy_files(const char *dir, const struct tri_hf_origin *origin,
                                  struct tri_error *error)
{
    const char *const folders[] = {origin->checkpoint, origin->folder};
    for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
        bool found = false;
        for (int f = 0; f < 2 && !found; f++) {
            if (folders[f] && folders[f][0]) {
                TRI_TRY(copy(folders[f], dir, names[i], &found, error));
            }
        }
    }
    return TRI_OK;
}
