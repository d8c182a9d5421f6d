/* What stands beside a model's weights in its folder, and is handed on. */
#include "base/file.h"
#include "checkpoint/hf.h"
#include "data/tokenizer_files.h"

enum { PATH_BYTES = 2048 };

enum tri_status tri_hf_copy_files(const char *dir, const struct tri_hf_origin *origin,
                                  struct tri_error *error)
{
    char own[PATH_BYTES];
    bool found =
        origin->checkpoint && tri_tokenizer_files_find(origin->checkpoint, own, sizeof(own));
    const char *from = found ? own : origin->folder;
    return from && tri_file_is_dir(from) ? tri_tokenizer_files_add(from, dir, error) : TRI_OK;
}
