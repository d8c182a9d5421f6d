/* Event files, read by a reader of the test's own: framing, checksums by another way, every value;
 * and what is left when a run has gone on from a checkpoint, by TensorBoard's rule. */
#include "train/events.h"

#include "base/file.h"
#include "base/file_hook.h"
#include "base/memory.h"
#include "moe/strategies.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { EXPERTS = 4, VALUES = 4096 };

/* ---- the reader ------------------------------------------------------------------------------ */

/* CRC-32C bit by bit, and the mask. */
static uint32_t checksum(const unsigned char *data, size_t bytes)
{
    uint32_t crc = ~0U;
    for (size_t i = 0; i < bytes; i++) {
        crc ^= data[i];
        for (int bit = 0; bit < 8; bit++) {
            crc = crc & 1 ? (crc >> 1) ^ 0x82f63b78U : crc >> 1;
        }
    }
    return (((~crc) >> 15) | ((~crc) << 17)) + 0xa282ead8U;
}

static uint32_t u32_of(const unsigned char *at)
{
    return at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

struct bytes {
    const unsigned char *at, *end;
};

static uint64_t varint(struct bytes *in)
{
    uint64_t value = 0;
    for (int shift = 0;; shift += 7) {
        assert_true(in->at < in->end && shift < 64);
        value |= (uint64_t)(*in->at & 127) << shift;
        if (!(*in->at++ & 128)) {
            return value;
        }
    }
}

/* The next field's number; *in what it holds: 4 or 8 bytes, those of a length, or a number's. */
static int next_field(struct bytes *message, struct bytes *in, uint64_t *number)
{
    uint64_t key = varint(message);
    int type = (int)(key & 7);
    uint64_t length = type == 1 ? 8 : type == 5 ? 4 : 0;
    if (type == 0) {
        *number = varint(message);
    } else if (type == 2) {
        length = varint(message);
    }
    assert_true(type == 0 || type == 1 || type == 2 || type == 5);
    assert_true(length <= (uint64_t)(message->end - message->at));
    *in = (struct bytes){message->at, message->at + length};
    message->at += length;
    return (int)(key >> 3);
}

static float float_of(struct bytes in)
{
    float value;
    assert_int_equal(in.end - in.at, sizeof(value));
    memcpy(&value, in.at, sizeof(value));
    return value;
}

struct value {
    int64_t step;
    char tag[64];
    float number;
    double bucket[EXPERTS]; /* of a histogram */
    bool histogram;
};

struct reader {
    struct value value[VALUES];
    int count;
};

static void read_histogram(struct bytes in, struct value *value)
{
    double limit[EXPERTS];
    double sums[6] = {0};
    struct bytes field;
    uint64_t number;
    value->histogram = true;
    while (in.at < in.end) {
        int which = next_field(&in, &field, &number);
        if (which == 6 || which == 7) {
            assert_int_equal(field.end - field.at, sizeof(limit));
            memcpy(which == 6 ? limit : value->bucket, field.at, sizeof(limit));
        } else {
            assert_true(which >= 1 && which <= 5);
            memcpy(&sums[which], field.at, sizeof(double));
        }
    }
    double tokens = 0.0, weighted = 0.0;
    for (int e = 0; e < EXPERTS; e++) {
        assert_true(limit[e] == e + 1);
        tokens += value->bucket[e];
        weighted += value->bucket[e] * (e + 0.5);
    }
    assert_true(sums[1] == 0.0 && sums[2] == EXPERTS && sums[3] == tokens && sums[4] == weighted);
}

static void read_value(struct bytes in, int64_t step, struct reader *reader)
{
    struct bytes field;
    uint64_t number;
    struct value *value = &reader->value[reader->count++];
    assert_true(reader->count < VALUES);
    *value = (struct value){.step = step};
    while (in.at < in.end) {
        int which = next_field(&in, &field, &number);
        if (which == 1) {
            (void)snprintf(value->tag, sizeof(value->tag), "%.*s", (int)(field.end - field.at),
                           (const char *)field.at);
        } else if (which == 2) {
            value->number = float_of(field);
        } else {
            assert_int_equal(which, 5);
            read_histogram(field, value);
        }
    }
}

/* A start at a step: what was there of it and later is forgotten. */
static void forget(struct reader *reader, int64_t step)
{
    int kept = 0;
    for (int i = 0; i < reader->count; i++) {
        if (reader->value[i].step < step) {
            reader->value[kept++] = reader->value[i];
        }
    }
    reader->count = kept;
}

static void read_event(struct bytes in, int index, struct reader *reader)
{
    struct bytes field, inner;
    uint64_t number = 0, step = 0, status = 0;
    bool timed = false;
    while (in.at < in.end) {
        switch (next_field(&in, &field, &number)) {
        case 1:
            timed = field.end - field.at == 8;
            break;
        case 2:
            step = number;
            break;
        case 3:
            assert_int_equal(index, 0);
            assert_int_equal(field.end - field.at, 13);
            assert_memory_equal(field.at, "brain.Event:2", 13);
            break;
        case 5:
            while (field.at < field.end) {
                assert_int_equal(next_field(&field, &inner, &number), 1);
                read_value(inner, (int64_t)step, reader);
            }
            break;
        default:
            assert_int_equal(index, 1);
            assert_int_equal(next_field(&field, &inner, &status), 1);
            assert_int_equal(status, 1);
            forget(reader, (int64_t)step);
        }
    }
    assert_true(timed);
}

/* What is cut short at the end of a file is not there. */
static void read_file(const char *path, struct reader *reader)
{
    struct tri_mapping file;
    struct tri_error error;
    assert_int_equal(tri_file_map(path, &file, &error), TRI_OK);
    size_t at = 0;
    for (int index = 0; file.size - at >= 12; index++) {
        const unsigned char *record = file.data + at;
        uint64_t bytes = u32_of(record) | (uint64_t)u32_of(record + 4) << 32;
        assert_int_equal(u32_of(record + 8), checksum(record, 8));
        if (file.size - at < 16 + bytes) {
            break;
        }
        assert_int_equal(u32_of(record + 12 + bytes), checksum(record + 12, bytes));
        read_event((struct bytes){record + 12, record + 12 + bytes}, index, reader);
        at += 16 + bytes;
    }
    tri_file_unmap(&file);
}

static int list_events(const char *run, struct dirent ***names)
{
    int count = scandir(run, names, NULL, alphasort);
    int kept = 0;
    for (int i = 0; i < count; i++) {
        if (strncmp((*names)[i]->d_name, TRI_EVENTS_STEM, strlen(TRI_EVENTS_STEM)) == 0) {
            (*names)[kept++] = (*names)[i];
        } else {
            free((*names)[i]);
        }
    }
    return kept;
}

/* In the order of names, as TensorBoard does. Returns how many files there are. */
static int read_run(const char *run, struct reader *reader)
{
    struct dirent **names;
    int files = list_events(run, &names);
    reader->count = 0;
    for (int i = 0; i < files; i++) {
        char path[600];
        (void)snprintf(path, sizeof(path), "%s/%s", run, names[i]->d_name);
        read_file(path, reader);
        free(names[i]);
    }
    free(names);
    return files;
}

/* ---- the run --------------------------------------------------------------------------------- */

struct fixture {
    char run[256];
    struct tri_config config;
    struct tri_run_folder *folder;
    struct tri_ledger ledger;
    struct reader reader;
};

static int64_t tokens_of(int64_t step, int layer, int expert)
{
    return step * 100 + 10 * layer + expert;
}

/* Steps [first, last] of one start. */
static void write_steps(struct fixture *f, int64_t first, int64_t last)
{
    int64_t load[2 * EXPERTS];
    struct tri_error error;
    struct tri_events *events;
    assert_int_equal(tri_events_create(f->folder, &f->config, &f->ledger, first, &events, &error),
                     TRI_OK);
    for (int64_t step = first; step <= last; step++) {
        for (int i = 0; i < 2 * EXPERTS; i++) {
            load[i] = tokens_of(step, i / EXPERTS, i % EXPERTS);
        }
        struct tri_step_report report = {
            .loss = (double)step + 0.25, .targets = 7, .load = load, .finite = true};
        struct tri_metrics metrics = {.step = step,
                                      .batch_tokens = 64,
                                      .seconds = 0.5,
                                      .learning_rate = 1e-3,
                                      .with_load = step % 2 == 0,
                                      .report = &report};
        tri_ledger_book(&f->ledger, TRI_OP_ALL_REDUCE, tri_group_id(TRI_ON_ALL), TRI_PHASE_FORWARD,
                        TRI_KIND_META, 1000 + step, 0.0, 0.0);
        assert_int_equal(tri_events_step(events, &metrics, &f->ledger, &error), TRI_OK);
    }
    tri_events_destroy(events);
}

static const struct value *expect_once(const struct reader *reader, int64_t step, const char *tag)
{
    const struct value *found = NULL;
    for (int i = 0; i < reader->count; i++) {
        if (reader->value[i].step == step && strcmp(reader->value[i].tag, tag) == 0) {
            assert_null(found);
            found = &reader->value[i];
        }
    }
    if (!found) {
        print_error("no %s of step %d\n", tag, (int)step);
    }
    assert_non_null(found);
    return found;
}

/* Each step's values once, no other step's; loads of the steps that have them. */
static void expect_steps(const struct fixture *f, int64_t steps)
{
    const struct reader *reader = &f->reader;
    int histograms = 0;
    char sent[64];
    (void)snprintf(sent, sizeof(sent), "sent_bytes/%s", tri_groups[tri_group_id(TRI_ON_ALL)].name);
    for (int64_t step = 1; step <= steps; step++) {
        assert_true(expect_once(reader, step, "loss/train")->number == (float)step + 0.25F);
        assert_true(expect_once(reader, step, "speed/tokens_per_second")->number == 128.0F);
        assert_true(expect_once(reader, step, sent)->number == (float)(1000 + step));
        (void)expect_once(reader, step, "memory_bytes/weights");
        for (int layer = 0; layer < 2 && step % 2 == 0; layer++) {
            char tag[64];
            (void)snprintf(tag, sizeof(tag), "expert_load/layer_%d", 2 * layer + 1);
            const struct value *load = expect_once(reader, step, tag);
            assert_true(load->histogram);
            for (int e = 0; e < EXPERTS; e++) {
                assert_true(load->bucket[e] == (double)tokens_of(step, layer, e));
            }
        }
    }
    for (int i = 0; i < reader->count; i++) {
        assert_true(reader->value[i].step >= 1 && reader->value[i].step <= steps);
        histograms += reader->value[i].histogram;
    }
    assert_int_equal(histograms, 2 * (steps / 2));
}

static void test_crc(void **state)
{
    (void)state;
    const uint32_t known = 0xe3069283U; /* of the check string of every catalogue */
    assert_int_equal(tri_events_crc("123456789", 9), ((known >> 15) | (known << 17)) + 0xa282ead8U);
}

/* 1 … 9, killed; on from a checkpoint of step 6 to 12, cut short in its last record; once more from
 * 10, all within one second. */
static void test_goes_on(void **state)
{
    struct fixture *f = *state;
    write_steps(f, 1, 9);
    assert_int_equal(read_run(f->run, &f->reader), 1);
    expect_steps(f, 9);
    write_steps(f, 7, 12);
    assert_int_equal(read_run(f->run, &f->reader), 2);
    expect_steps(f, 12);
    struct dirent **names;
    char path[600];
    int files = list_events(f->run, &names);
    struct tri_mapping file;
    struct tri_error error;
    (void)snprintf(path, sizeof(path), "%s/%s", f->run, names[files - 1]->d_name);
    assert_int_equal(tri_file_map(path, &file, &error), TRI_OK);
    size_t bytes = file.size;
    tri_file_unmap(&file);
    assert_int_equal(truncate(path, (off_t)bytes - 7), 0);
    while (files-- > 0) {
        free(names[files]);
    }
    free(names);
    write_steps(f, 11, 13);
    assert_int_equal(read_run(f->run, &f->reader), 3);
    expect_steps(f, 13);
}

static int writes;

static int count_writes(const char *operation, const char *path, uint64_t done)
{
    (void)done;
    writes += strcmp(operation, "write") == 0 && strstr(path, TRI_EVENTS_STEM) != NULL;
    return 0;
}

/* However many layers there are. */
static void test_a_step_is_one_write(void **state)
{
    struct fixture *f = *state;
    tri_file_set_hook(count_writes);
    write_steps(f, 14, 17);
    tri_file_set_hook(NULL);
    assert_int_equal(writes, 1 + 4);
}

/* --fresh takes them and traces away, and nothing else. */
static void test_fresh(void **state)
{
    struct fixture *f = *state;
    struct tri_error error;
    static const char *const names[] = {"events.txt", "trace-notes.txt", "trace-1-12.json"};
    char paths[3][300];
    for (int i = 0; i < 3; i++) {
        (void)snprintf(paths[i], sizeof(paths[i]), "%s/%s", f->run, names[i]);
        assert_int_equal(tri_file_save(paths[i], "x", 1, &error), TRI_OK);
    }
    tri_run_folder_close(f->folder);
    assert_int_equal(tri_run_folder_open(f->run, true, &f->folder, &error), TRI_OK);
    assert_int_equal(read_run(f->run, &f->reader), 0);
    for (int i = 0; i < 3; i++) {
        assert_true(tri_file_exists(paths[i]) == (i < 2));
    }
}

static int prepare(void **state)
{
    static const char text[] = "model: {num_layers: 4}\nmoe: {num_experts: 4, every: 2}\n";
    struct fixture *f = tri_alloc(TRI_MEMORY_OTHER, sizeof(*f));
    struct tri_error error;
    (void)snprintf(f->run, sizeof(f->run), TEST_TMP "/events.%d", (int)getpid());
    assert_int_equal(
        tri_config_parse(&tri_strategies, "text", text, strlen(text), 0, NULL, &f->config, &error),
        TRI_OK);
    assert_int_equal(tri_run_folder_open(f->run, false, &f->folder, &error), TRI_OK);
    assert_int_equal(tri_run_folder_describe(f->folder, &f->config, "{}", &error), TRI_OK);
    *state = f;
    return 0;
}

static int release(void **state)
{
    struct fixture *f = *state;
    struct tri_error error;
    tri_run_folder_close(f->folder);
    assert_int_equal(tri_file_remove_tree(f->run, &error), TRI_OK);
    tri_free(f);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_crc),
        cmocka_unit_test(test_goes_on),
        cmocka_unit_test(test_a_step_is_one_write),
        cmocka_unit_test(test_fresh),
    };
    return cmocka_run_group_tests(tests, prepare, release);
}
