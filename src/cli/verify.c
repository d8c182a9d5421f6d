#include "train/verify.h"

#include "cli/command.h"
#include "comm/comm.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct request {
    struct tri_config config;
    struct tri_verify_options options;
    char plant[TRI_PATH_MAX];
    bool json;
};

/* PARAMETER=FACTOR */
static enum tri_status read_plant(const char *text, struct request *request,
                                  struct tri_error *error)
{
    const char *equals = text ? strrchr(text, '=') : NULL;
    if (!text) {
        return TRI_OK;
    }
    char *end = NULL;
    request->options.factor = equals ? strtod(equals + 1, &end) : 0.0;
    if (!equals || end == equals + 1 || *end || !isfinite(request->options.factor)) {
        return tri_fail(error, TRI_BAD_INPUT,
                        "command line: option '--plant': found '%s', expected PARAMETER=FACTOR",
                        text);
    }
    (void)snprintf(request->plant, sizeof(request->plant), "%.*s", (int)(equals - text), text);
    request->options.plant = request->plant;
    return TRI_OK;
}

static enum tri_status read_request(const struct tri_arguments *arguments, struct request *request,
                                    struct tri_error *error)
{
    TRI_TRY(
        tri_arguments_int(arguments, "--steps", 0, 1000000, 50, &request->options.steps, error));
    TRI_TRY(
        tri_arguments_int(arguments, "--compare", 1, 1000, 2, &request->options.compared, error));
    TRI_TRY(read_plant(tri_arguments_get(arguments, "--plant"), request, error));
    request->json = tri_arguments_has(arguments, "--json");
    return tri_arguments_config(arguments, false, tri_comm_size(arguments->comm), &request->config,
                                error);
}

static void print_json(const struct tri_verify_result *result)
{
    json_t *root = json_object();
    json_t *worst = json_object();
    json_t *change = json_object();
    (void)json_object_set_new(worst, "parameter", json_string(result->worst_parameter));
    (void)json_object_set_new(worst, "relative_l2", tri_json_number(result->worst_relative_l2));
    (void)json_object_set_new(root, "passed", json_boolean(result->passed));
    (void)json_object_set_new(change, "parameter", json_string(result->worst_changed));
    (void)json_object_set_new(change, "relative_l2", tri_json_number(result->worst_change));
    (void)json_object_set_new(root, "worst", worst);
    (void)json_object_set_new(root, "worst_change", change);
    (void)json_object_set_new(root, "near_ties", json_integer(result->near_ties));
    (void)json_object_set_new(root, "wrong_routes", json_integer(result->wrong_routes));
    (void)json_object_set_new(root, "parameters", json_integer(result->parameters));
    (void)json_object_set_new(root, "compared_steps", json_integer(result->compared));
    (void)json_object_set_new(root, "worst_loss", tri_json_number(result->worst_loss));
    (void)json_object_set_new(root, "steps", json_integer(result->steps));
    (void)json_object_set_new(root, "worst_training_loss",
                              tri_json_number(result->worst_training_loss));
    (void)json_object_set_new(root, "windows_as_dealt", json_boolean(result->layout_rows > 0));
    (void)json_object_set_new(root, "reference_bytes", json_integer(result->reference_bytes));
    tri_print_json(root);
}

static void print_text(const struct tri_config *config, int ranks,
                       const struct tri_verify_result *result)
{
    int64_t replica = config->parallel.tensor * config->parallel.expert;
    TRI_ASSERT(replica > 0);
    (void)printf(
        "layout     %d rank%s = tensor %lld x expert %lld x data %lld, expert_tensor %lld\n", ranks,
        ranks == 1 ? "" : "s", (long long)config->parallel.tensor,
        (long long)config->parallel.expert, (long long)(ranks / replica),
        (long long)config->parallel.expert_tensor);
    (void)printf("compared   %lld parameters' gradients at %lld steps, against one rank\n",
                 (long long)result->parameters, (long long)result->compared);
    (void)printf("worst      %s: relative L2 %.3g\n", result->worst_parameter,
                 result->worst_relative_l2);
    (void)printf("loss       %.3g relative\n", result->worst_loss);
    if (result->steps) {
        (void)printf(
            "followed   %lld steps, each from equal weights and moments: loss %.3g, change "
            "of %s %.3g\n",
            (long long)result->steps, result->worst_training_loss, result->worst_changed,
            result->worst_change);
    }
    if (result->layout_rows) {
        (void)printf(
            "windows    of 'step' are counted as this layout deals the rows, %lld at once; "
            "one rank, %lld at once, counts others\n",
            (long long)result->layout_rows, (long long)config->train.micro_batch);
    }
    (void)printf("routes     %lld near ties decided otherwise, %lld wrong\n",
                 (long long)result->near_ties, (long long)result->wrong_routes);
    (void)printf("memory     %.1f MB more on rank 0, for the reference\n",
                 (double)result->reference_bytes / 1e6);
    (void)printf("%s\n", result->passed ? "passed" : "FAILED");
}

enum tri_status tri_command_verify(const struct tri_arguments *arguments, struct tri_error *error)
{
    struct request request = {0};
    enum tri_status status = read_request(arguments, &request, error);
    TRI_TRY(tri_agree_on_config(arguments, status, &request.config, error));
    struct tri_verify_result result;
    TRI_TRY(tri_verify(arguments->comm, &request.config, &request.options, &result, error));
    if (tri_comm_rank(arguments->comm) == 0) {
        if (request.json) {
            print_json(&result);
        } else {
            print_text(&request.config, tri_comm_size(arguments->comm), &result);
        }
    }
    return result.passed ? TRI_OK : TRI_CHECK_FAILED;
}
