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
/* What a session is made with: NULL where nothing is asked for. */
const struct tri_active *tri_active_get(const struct tri_active_request *request);
/* Notes that a model of so many steps was trained for fewer experts than it is used with. */
void tri_active_tell(const struct tri_active_request *request, const struct tri_config *config,
                     int64_t steps);
/* The part of all experts' work that was done since. Collective over the session's mesh. */
double tri_active_share(const struct tri_session *session);

#endif
