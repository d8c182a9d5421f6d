#include "train/events.h"

#include "base/file.h"
#include "base/memory.h"
#include "events.pb-c.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define STEM TRI_EVENTS_STEM

struct tri_events {
    const struct tri_run_folder *folder;
    const struct tri_config *config;
    char name[192];
    unsigned char *records; /* not written yet */
    size_t size, room;
    int64_t sent[TRI_GROUP_COUNT]; /* when the last step was written */
};

/* ---- records --------------------------------------------------------------------------------- */

/* Half a byte at once: the remainders of the polynomial 0x82f63b78 (reflected). */
static const uint32_t remainders[16] = {
    0x00000000, 0x105ec76f, 0x20bd8ede, 0x30e349b1, 0x417b1dbc, 0x5125dad3, 0x61c69362, 0x7198540d,
    0x82f63b78, 0x92a8fc17, 0xa24bb5a6, 0xb21572c9, 0xc38d26c4, 0xd3d3e1ab, 0xe330a81a, 0xf36e6f75};

uint32_t tri_events_crc(const void *data, size_t bytes)
{
    const unsigned char *at = data;
    uint32_t crc = 0xffffffffU;
    for (size_t i = 0; i < bytes; i++) {
        crc ^= at[i];
        crc = (crc >> 4) ^ remainders[crc & 15];
        crc = (crc >> 4) ^ remainders[crc & 15];
    }
    crc = ~crc;
    return ((crc >> 15) | (crc << 17)) + 0xa282ead8U;
}

/* Puts a record behind those that wait for flush. */
static void append(struct tri_events *events, const Tri__Tensorboard__Event *event)
{
    enum { HEADER = 12, CRC = 4 };
    uint64_t bytes = tri__tensorboard__event__get_packed_size(event);
    size_t size = events->size + HEADER + (size_t)bytes + CRC;
    if (size > events->room) {
        events->room = 2 * size;
        events->records = events->records ? tri_resize(events->records, events->room)
                                          : tri_alloc(TRI_MEMORY_OTHER, events->room);
    }
    unsigned char *record = events->records + events->size;
    memcpy(record, &bytes, sizeof(bytes));
    uint32_t crc = tri_events_crc(record, sizeof(bytes));
    memcpy(record + sizeof(bytes), &crc, sizeof(crc));
    (void)tri__tensorboard__event__pack(event, record + HEADER);
    crc = tri_events_crc(record + HEADER, (size_t)bytes);
    memcpy(record + HEADER + bytes, &crc, sizeof(crc));
    events->size = size;
}

/* In one piece: the file is opened once a step, and has whole steps. */
static enum tri_status flush(struct tri_events *events, struct tri_error *error)
{
    size_t size = events->size;
    events->size = 0;
    return tri_run_folder_append(events->folder, events->name, events->records, size, error);
}

static Tri__Tensorboard__Event event_at(int64_t step)
{
    struct timespec now;
    Tri__Tensorboard__Event event = TRI__TENSORBOARD__EVENT__INIT;
    (void)clock_gettime(CLOCK_REALTIME, &now);
    event.has_wall_time = 1;
    event.wall_time = (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
    event.has_step = 1;
    event.step = step;
    return event;
}

/* ---- the file -------------------------------------------------------------------------------- */

struct newest {
    long long second;
};

static enum tri_status note_name(const char *name, void *data)
{
    struct newest *newest = data;
    if (strncmp(name, STEM, strlen(STEM)) == 0) {
        long long second = strtoll(name + strlen(STEM), NULL, 10);
        bool newer = second > newest->second && second < LLONG_MAX;
        newest->second = newer ? second : newest->second;
    }
    return TRI_OK;
}

/* TensorBoard reads files in the order of their names: behind all that are there. */
static enum tri_status choose_name(struct tri_events *events, struct tri_error *error)
{
    struct newest newest = {(long long)time(NULL) - 1};
    char host[64] = "";
    TRI_TRY(tri_file_list(tri_run_folder_path(events->folder), note_name, &newest, error));
    (void)gethostname(host, sizeof(host) - 1);
    for (char *c = host; *c; c++) {
        *c = (unsigned char)*c <= ' ' || *c == '/' ? '_' : *c;
    }
    (void)snprintf(events->name, sizeof(events->name), STEM "%010lld.%s.%d.0", newest.second + 1,
                   host, (int)getpid());
    return TRI_OK;
}

static enum tri_status begin(struct tri_events *events, int64_t step, struct tri_error *error)
{
    char version[] = "brain.Event:2";
    Tri__Tensorboard__SessionLog log = TRI__TENSORBOARD__SESSION_LOG__INIT;
    TRI_TRY(choose_name(events, error));
    Tri__Tensorboard__Event event = event_at(0);
    event.what_case = TRI__TENSORBOARD__EVENT__WHAT_FILE_VERSION;
    event.file_version = version;
    append(events, &event);
    log.has_status = 1;
    log.status = TRI__TENSORBOARD__SESSION_LOG__STATUS__START;
    event = event_at(step);
    event.what_case = TRI__TENSORBOARD__EVENT__WHAT_SESSION_LOG;
    event.session_log = &log;
    append(events, &event);
    return flush(events, error);
}

enum tri_status tri_events_create(const struct tri_run_folder *folder,
                                  const struct tri_config *config, const struct tri_ledger *ledger,
                                  int64_t step, struct tri_events **events, struct tri_error *error)
{
    struct tri_events *e = tri_alloc(TRI_MEMORY_OTHER, sizeof(*e));
    e->folder = folder;
    e->config = config;
    for (int group = 0; group < TRI_GROUP_COUNT; group++) {
        e->sent[group] = tri_ledger_sum(ledger, -1, group, -1, -1).bytes;
    }
    enum tri_status status = begin(e, step, error);
    if (status != TRI_OK) {
        tri_events_destroy(e);
        e = NULL;
    }
    *events = e;
    return status;
}

void tri_events_destroy(struct tri_events *events)
{
    if (events) {
        tri_free(events->records);
        tri_free(events);
    }
}

/* ---- values ---------------------------------------------------------------------------------- */

enum { SCALARS_MOST = 96, TAG = 160 };

/* The values of an event, and where they lie. */
struct values {
    Tri__Tensorboard__Value value[SCALARS_MOST];
    Tri__Tensorboard__Value *list[SCALARS_MOST];
    char tag[SCALARS_MOST][TAG];
    int count;
};

static void add(struct values *values, double value, const char *part, const char *name)
{
    TRI_REQUIRE(values->count < SCALARS_MOST);
    int at = values->count++;
    tri__tensorboard__value__init(&values->value[at]);
    (void)snprintf(values->tag[at], TAG, "%s/%s", part, name);
    values->value[at].tag = values->tag[at];
    values->value[at].value_case = TRI__TENSORBOARD__VALUE__VALUE_SIMPLE_VALUE;
    values->value[at].simple_value = (float)value;
    values->list[at] = &values->value[at];
}

static void append_values(struct tri_events *events, int64_t step, struct values *values)
{
    Tri__Tensorboard__Summary summary = TRI__TENSORBOARD__SUMMARY__INIT;
    Tri__Tensorboard__Event event = event_at(step);
    summary.n_value = (size_t)values->count;
    summary.value = values->list;
    event.what_case = TRI__TENSORBOARD__EVENT__WHAT_SUMMARY;
    event.summary = &summary;
    append(events, &event);
}

/* Bucket e holds the tokens of expert e: [e, e + 1). */
static void append_load(struct tri_events *events, int64_t step, int64_t layer, int64_t experts,
                        const int64_t *load)
{
    Tri__Tensorboard__Histogram histogram = TRI__TENSORBOARD__HISTOGRAM__INIT;
    Tri__Tensorboard__Value value = TRI__TENSORBOARD__VALUE__INIT, *list = &value;
    Tri__Tensorboard__Summary summary = TRI__TENSORBOARD__SUMMARY__INIT;
    Tri__Tensorboard__Event event = event_at(step);
    char tag[TAG];
    double *room = tri_alloc(TRI_MEMORY_OTHER, 2 * (size_t)experts * sizeof(*room));
    for (int64_t e = 0; e < experts; e++) {
        const double tokens = (double)load[e], middle = (double)e + 0.5;
        room[e] = (double)e + 1.0;
        room[experts + e] = tokens;
        histogram.num += tokens;
        histogram.sum += tokens * middle;
        histogram.sum_squares += tokens * middle * middle;
    }
    histogram.max = (double)experts;
    histogram.has_min = histogram.has_max = histogram.has_num = histogram.has_sum =
        histogram.has_sum_squares = 1;
    histogram.n_bucket_limit = histogram.n_bucket = (size_t)experts;
    histogram.bucket_limit = room;
    histogram.bucket = room + experts;
    (void)snprintf(tag, sizeof(tag), "expert_load/layer_%lld", (long long)layer);
    value.tag = tag;
    value.value_case = TRI__TENSORBOARD__VALUE__VALUE_HISTO;
    value.histo = &histogram;
    summary.n_value = 1;
    summary.value = &list;
    event.what_case = TRI__TENSORBOARD__EVENT__WHAT_SUMMARY;
    event.summary = &summary;
    append(events, &event);
    tri_free(room);
}

static void append_loads(struct tri_events *events, const struct tri_metrics *metrics)
{
    const int64_t experts = events->config->moe.num_experts;
    const int64_t *load = metrics->report->load;
    for (int64_t layer = 0; layer < events->config->model.num_layers; layer++) {
        if (tri_config_layer_is_moe(events->config, layer)) {
            append_load(events, metrics->step, layer, experts, load);
            load += experts;
        }
    }
}

static void add_losses(const struct tri_metrics *metrics, struct values *values)
{
    const struct tri_step_report *report = metrics->report;
    if (report->targets > 0) {
        add(values, report->loss, "loss", "train");
        add(values, report->cross_entropy, "loss", "cross_entropy");
    }
    add(values, report->aux_loss, "loss", "aux");
    add(values, report->z_loss, "loss", "z");
    add(values, report->grad_norm, "optimizer", "grad_norm");
    add(values, metrics->learning_rate, "optimizer", "learning_rate");
    add(values, (double)metrics->skipped_steps, "optimizer", "skipped_steps");
}

static void add_times(const struct tri_metrics *metrics, struct values *values)
{
    const struct tri_step_report *report = metrics->report;
    add(values, (double)metrics->batch_tokens / metrics->seconds, "speed", "tokens_per_second");
    add(values, 1e3 * metrics->seconds, "time_ms", "step");
    add(values, 1e3 * report->seconds_attention, "time_ms", "attention");
    add(values, 1e3 * report->seconds_router, "time_ms", "router");
    add(values, 1e3 * report->seconds_exchange, "time_ms", "exchange");
    add(values, 1e3 * report->seconds_experts, "time_ms", "experts");
    add(values, 1e3 * report->seconds_optimizer, "time_ms", "optimizer");
    add(values, 1e3 * report->seconds_exposed, "time_ms", "exposed_communication");
}

static void add_memory(struct values *values)
{
    const struct tri_memory_counters counters = tri_memory_get();
    for (int i = 0; i < TRI_MEMORY_COUNT; i++) {
        add(values, (double)counters.current[i], "memory_bytes",
            tri_memory_name((enum tri_memory)i));
    }
}

static void add_sent(struct tri_events *events, const struct tri_ledger *ledger,
                     struct values *values)
{
    for (int group = 0; group < TRI_GROUP_COUNT; group++) {
        int64_t sent = tri_ledger_sum(ledger, -1, group, -1, -1).bytes;
        if (sent > 0) {
            add(values, (double)(sent - events->sent[group]), "sent_bytes", tri_groups[group].name);
        }
        events->sent[group] = sent;
    }
}

enum tri_status tri_events_step(struct tri_events *events, const struct tri_metrics *metrics,
                                const struct tri_ledger *ledger, struct tri_error *error)
{
    struct values *values = tri_alloc(TRI_MEMORY_OTHER, sizeof(*values));
    const bool experts = tri_model_moe_layers(events->config) > 0;
    add_losses(metrics, values);
    add_times(metrics, values);
    if (experts) {
        struct tri_balance balance = tri_balance_get(events->config, metrics->report->load);
        add(values, balance.worst, "experts", "max_over_mean");
        add(values, (double)balance.dead, "experts", "idle");
        add(values, (double)metrics->report->dropped, "experts", "dropped_tokens");
    }
    add_memory(values);
    add_sent(events, ledger, values);
    append_values(events, metrics->step, values);
    tri_free(values);
    if (experts && metrics->with_load) {
        append_loads(events, metrics);
    }
    return flush(events, error);
}

enum tri_status tri_events_evaluation(struct tri_events *events, int64_t step,
                                      const struct tri_texts *texts,
                                      const struct tri_evaluation *evaluations,
                                      struct tri_error *error)
{
    struct values *values = tri_alloc(TRI_MEMORY_OTHER, sizeof(*values));
    add(values, tri_evaluation_loss(texts->count, evaluations), "loss", "valid");
    for (int i = 0; i < texts->count && texts->name[0][0] && values->count < SCALARS_MOST; i++) {
        add(values, evaluations[i].loss, "loss/valid", texts->name[i]);
    }
    append_values(events, step, values);
    tri_free(values);
    return flush(events, error);
}
