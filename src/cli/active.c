#include "cli/active.h"

#include "base/log.h"
#include "moe/moe.h"

static const char *const options[] = {
    [TRI_ACTIVE_TOP] = "--active",
    [TRI_ACTIVE_THRESHOLD] = "--active-threshold",
    [TRI_ACTIVE_AVERAGE] = "--active-average",
};
enum { OPTIONS = sizeof(options) / sizeof(*options) };

enum tri_status tri_active_read(const struct tri_arguments *arguments,
                                const struct tri_config *config, struct tri_active_request *request,
                                struct tri_error *error)
{
    const struct tri_config_moe *moe = &config->moe;
    struct tri_active *active = &request->active;
    *request = (struct tri_active_request){0};
    for (int i = 0; i < OPTIONS; i++) {
        if (!tri_arguments_has(arguments, options[i])) {
            continue;
        }
        if (request->given) {
            return tri_fail(error, TRI_BAD_INPUT, "command line: found %s with %s",
                            options[active->kind], options[i]);
        }
        request->given = true;
        active->kind = (enum tri_active_kind)i;
    }
    if (!request->given) {
        return TRI_OK;
    }
    if (moe->num_experts == 0 || !moe->router->dense) {
        return tri_fail(error, TRI_BAD_INPUT,
                        "command line: %s: expected a model that was trained with moe.router "
                        "dense, found %s",
                        options[active->kind],
                        moe->num_experts > 0 ? moe->router->strategy.name : "one without experts");
    }
    if (active->kind == TRI_ACTIVE_TOP) {
        bool number = tri_arguments_get(arguments, options[TRI_ACTIVE_TOP])[0];
        active->n = moe->top_k;
        return number ? tri_arguments_int(arguments, options[TRI_ACTIVE_TOP], 1, moe->num_experts,
                                          0, &active->n, error)
                      : TRI_OK;
    }
    return tri_arguments_real(arguments, options[active->kind], 0, (double)moe->num_experts, 0,
                              &active->epsilon, error);
}

const struct tri_active *tri_active_get(const struct tri_active_request *request)
{
    return request->given ? &request->active : NULL;
}

void tri_active_tell(const struct tri_active_request *request, const struct tri_config *config,
                     int64_t steps)
{
    const struct tri_config_moe *moe = &config->moe;
    if (!request->given && tri_config_is_sharp(moe, steps)) {
        tri_log_note("all experts work, and from step %lld on it was trained for %lld of a token: "
                     "--active",
                     (long long)moe->sharpen_step, (long long)moe->top_k);
    }
}

double tri_active_share(const struct tri_session *session)
{
    struct tri_expert_work work = tri_moe_work(tri_model_moe(session->engine->model));
    int64_t sums[2] = {work.done, work.all};
    tri_all_reduce_sum(tri_mesh_group(session->mesh, TRI_ON_EXPERT | TRI_ON_DATA),
                       (struct tri_where){TRI_PHASE_EVAL, TRI_KIND_META}, sums, 2, TRI_I64);
    return sums[1] > 0 ? (double)sums[0] / (double)sums[1] : 1.0;
}
