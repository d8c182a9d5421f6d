#include "train/run_status.h"

#include "base/json.h"
#include "base/path.h"
#include "train/json.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const char *const names[] = {"running", "finished", "stopped", "failed"};

enum { STATES = sizeof(names) / sizeof(*names) };

void tri_run_status_begin(const struct tri_session *session, int64_t step,
                          struct tri_run_status *status)
{
    const struct tri_config *config = session->config;
    const struct tri_mesh *mesh = session->mesh;
    *status = (struct tri_run_status){.state = TRI_RUN_RUNNING,
                                      .pid = getpid(),
                                      .began = (int64_t)time(NULL),
                                      .step = step,
                                      .steps = config->train.steps,
                                      .parameters = session->engine->params->total,
                                      .active = session->engine->params->active,
                                      .experts = config->moe.num_experts,
                                      .top_k = config->moe.num_experts ? config->moe.top_k : 0,
                                      .ranks = mesh->ranks,
                                      .tensor = mesh->size[TRI_AXIS_TENSOR],
                                      .cross = mesh->size[TRI_AXIS_CROSS],
                                      .depth = mesh->size[TRI_AXIS_DEPTH],
                                      .expert = mesh->size[TRI_AXIS_EXPERT],
                                      .data = mesh->size[TRI_AXIS_DATA]};
    (void)gethostname(status->host, sizeof(status->host) - 1);
}

/* The numbers, by the object that has them ("": the root) and their key. */
struct number {
    const char *object, *key;
    int64_t *value;
};

enum { NUMBERS = 15, LAYOUT_MOST = 1 << 20 };

static void list_numbers(struct tri_run_status *status, struct number numbers[NUMBERS])
{
    const struct number all[NUMBERS] = {{"", "pid", &status->pid},
                                        {"", "began", &status->began},
                                        {"", "ended", &status->ended},
                                        {"", "step", &status->step},
                                        {"", "steps", &status->steps},
                                        {"model", "parameters", &status->parameters},
                                        {"model", "active", &status->active},
                                        {"model", "experts", &status->experts},
                                        {"model", "top_k", &status->top_k},
                                        {"layout", "ranks", &status->ranks},
                                        {"layout", "tensor", &status->tensor},
                                        {"layout", "cross", &status->cross},
                                        {"layout", "depth", &status->depth},
                                        {"layout", "expert", &status->expert},
                                        {"layout", "data", &status->data}};
    memcpy(numbers, all, sizeof(all));
}

enum tri_status tri_run_status_save(const struct tri_run_folder *folder,
                                    const struct tri_run_status *status, struct tri_error *error)
{
    struct tri_run_status copy = *status;
    struct number numbers[NUMBERS];
    list_numbers(&copy, numbers);
    json_t *root =
        json_pack("{ss so so so so}", "state", names[copy.state], "host", tri_json_text(copy.host),
                  "reason", copy.reason[0] ? tri_json_text(copy.reason) : json_null(), "model",
                  json_object(), "layout", json_object());
    TRI_REQUIRE(root);
    for (int i = 0; i < NUMBERS; i++) {
        json_t *object = numbers[i].object[0] ? json_object_get(root, numbers[i].object) : root;
        (void)json_object_set_new(object, numbers[i].key, json_integer(*numbers[i].value));
    }
    char *text = json_dumps(root, JSON_INDENT(1));
    json_decref(root);
    TRI_REQUIRE(text);
    enum tri_status saved = tri_run_folder_save(folder, "status.json", text, error);
    free(text);
    return saved;
}

static enum tri_status get_text(const char *path, const json_t *root, const char *key, char *text,
                                size_t bytes, struct tri_error *error)
{
    const char *value = "";
    TRI_TRY(tri_json_get_text(path, root, key, false, &value, error));
    (void)snprintf(text, bytes, "%s", value);
    tri_text_flatten(text);
    return TRI_OK;
}

static enum tri_status read_root(const char *path, const json_t *root,
                                 struct tri_run_status *status, struct tri_error *error)
{
    struct number numbers[NUMBERS];
    const char *state = "";
    TRI_TRY(tri_json_get_text(path, root, "state", true, &state, error));
    int found = 0;
    while (found < STATES && strcmp(state, names[found]) != 0) {
        found++;
    }
    if (found == STATES) {
        return tri_fail(error, TRI_BAD_INPUT,
                        "%s: state: found '%.40s', expected running, finished, stopped or failed",
                        path, state);
    }
    status->state = (enum tri_run_state)found;
    TRI_TRY(get_text(path, root, "host", status->host, sizeof(status->host), error));
    TRI_TRY(get_text(path, root, "reason", status->reason, sizeof(status->reason), error));
    list_numbers(status, numbers);
    for (int i = 0; i < NUMBERS; i++) {
        const json_t *object =
            numbers[i].object[0] ? json_object_get(root, numbers[i].object) : root;
        if (object) {
            TRI_TRY(tri_json_get_int(path, object, numbers[i].key, false, numbers[i].value, error));
        }
        /* Products of the layout are printed. */
        bool vast = strcmp(numbers[i].object, "layout") == 0 && *numbers[i].value > LAYOUT_MOST;
        if (*numbers[i].value < 0 || vast) {
            return tri_fail(error, TRI_BAD_INPUT, "%s: %s: found %lld, expected %s", path,
                            numbers[i].key, (long long)*numbers[i].value,
                            vast ? "at most 1048576" : "0 or more");
        }
    }
    return TRI_OK;
}

enum tri_status tri_run_status_load(const char *run, struct tri_run_status *status,
                                    struct tri_error *error)
{
    char path[TRI_PATH_MAX + 64];
    json_t *root;
    *status = (struct tri_run_status){0};
    TRI_TRY(tri_path_format(path, sizeof(path), error, "%s/status.json", run));
    TRI_TRY(tri_json_load(path, &root, error));
    enum tri_status read = read_root(path, root, status, error);
    json_decref(root);
    return read;
}
