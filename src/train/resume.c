#include "train/resume.h"

#include <string.h>

enum tri_status tri_resume_complete(const char *path, struct tri_checkpoint_state *state,
                                    struct tri_error *error)
{
    struct tri_config before;
    if (state->samples >= 0) {
        return TRI_OK;
    }
    TRI_TRY(tri_config_parse(path, state->config, strlen(state->config), 0, NULL, &before, error));
    state->samples = state->step * before.train.global_batch;
    return TRI_OK;
}
