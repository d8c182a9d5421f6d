/* --active, --active-threshold and --active-average: which experts of a dense router work. */
#ifndef TRIDENT_CLI_ACTIVE_H
#define TRIDENT_CLI_ACTIVE_H

#include "cli/command.h"
#include "moe/router.h"
#include "train/session.h"

struct tri_active_request {
    bool given;
    struct tri_active active;
};

#define TRI_ACTIVE_OPTIONS                                                                         \
    {"--active", TRI_MAYBE_NUMBER}, {"--active-threshold", true},                                  \
    {                                                                                              \
        "--active-average", true                                                                   \
    }

/* BAD_INPUT: two of them, a number out of range, or a model that chooses its experts. Local. */
enum tri_status tri_active_read(const struct tri_arguments *arguments,
                                const struct tri_config *config, struct tri_active_request *request,
                                struct tri_error *error) TRI_NODISCARD;
/* From now on the session's model works so. Local. */
void tri_active_begin(const struct tri_active_request *request, struct tri_session *session);
/* The part of all experts' work that was done since. Collective over the session's mesh. */
double tri_active_share(const struct tri_session *session);

#endif
