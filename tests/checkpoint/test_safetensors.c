/* The safetensors reader against files that the safetensors package wrote and against every rule of
 * the format broken on purpose; the writer against the reader. */
#include "checkpoint/safetensors.h"

#include "base/memory.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static char dir[256];

static const char *scratch(const char *name)
{
    static char path[512];
    (void)snprintf(path, sizeof(path), "%s/%s", dir, name);
    return path;
}

/* A file of this header and data; header_bytes < 0: the header's own length. */
static const char *craft(long long header_bytes, const char *header, const void *data, size_t bytes)
{
    const char *path = scratch("crafted.safetensors");
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    uint64_t length = header_bytes < 0 ? strlen(header) : (uint64_t)header_bytes;
    assert_int_equal(fwrite(&length, 1, 8, file), 8);
    assert_int_equal(fwrite(header, 1, strlen(header), file), strlen(header));
    assert_int_equal(fwrite(data, 1, bytes, file), bytes);
    assert_int_equal(fclose(file), 0);
    return path;
}

static void expect_open(const char *path)
{
    struct tri_safetensors *file;
    struct tri_error error = {0};
    if (tri_safetensors_open(path, &file, &error) != TRI_OK) {
        fail_msg("%s", error.message);
    }
    tri_safetensors_close(file);
}

/* Opening must fail with a message that names the file and holds `words`. */
static void expect_refused(const char *path, const char *words)
{
    struct tri_safetensors *file;
    struct tri_error error = {0};
    assert_int_equal(tri_safetensors_open(path, &file, &error), TRI_BAD_INPUT);
    assert_null(file);
    if (!strstr(error.message, words) || !strstr(error.message, path)) {
        fail_msg("'%s' lacks '%s' or the path", error.message, words);
    }
}

#define ONE(rest) "{\"a\":{\"dtype\":\"F32\"," rest "}"
#define GOOD      ONE("\"shape\":[2],\"data_offsets\":[0,8]")

static void test_accepts(void **state)
{
    (void)state;
    static const float zeros[64];
    expect_open(craft(-1, "{}", zeros, 0));
    expect_open(craft(-1, "{}     ", zeros, 0));
    expect_open(craft(-1, GOOD "}", zeros, 8));
    expect_open(craft(-1, "{\"__metadata__\":{\"x\":\"y\"}}", zeros, 0));
    expect_open(craft(-1, ONE("\"shape\":[],\"data_offsets\":[0,4]") "}", zeros, 4));
    /* Extents of zero, before, between and after others. */
    expect_open(
        craft(-1,
              ONE("\"shape\":[0,7],\"data_offsets\":[0,0]") ",\"b\":{\"dtype\":\"U8\",\"shape\":[3]"
                                                            ",\"data_offsets\":[0,3]}"
                                                            ",\"c\":{\"dtype\":\"I64\",\"shape\":["
                                                            "0],\"data_offsets\":[3,3]}}",
              zeros, 3));
    /* Two values of four bits to a byte. */
    expect_open(
        craft(-1, "{\"a\":{\"dtype\":\"F4\",\"shape\":[6],\"data_offsets\":[0,3]}}", zeros, 3));
}

static void test_refuses_headers(void **state)
{
    (void)state;
    static const float zeros[64];
    expect_refused(scratch("absent"), "cannot open");
    FILE *file = fopen(scratch("crafted.safetensors"), "wb");
    assert_int_equal(fwrite("1234567", 1, 7, file), 7);
    assert_int_equal(fclose(file), 0);
    expect_refused(scratch("crafted.safetensors"), "7 bytes are too few");
    expect_refused(craft(100000001, GOOD "}", zeros, 8), "at most 100000000");
    expect_refused(craft(INT64_MAX, GOOD "}", zeros, 8), "at most 100000000");
    expect_refused(craft(4000, GOOD "}", zeros, 8), "truncated: header of 4000 bytes");
    expect_refused(craft(0, "", zeros, 0), "not a safetensors file");
    expect_refused(craft(-1, " {}", zeros, 0), "without '{'");
    expect_refused(craft(-1, "[1]", zeros, 0), "without '{'");
    expect_refused(craft(-1, GOOD, zeros, 8), "header, byte");
    expect_refused(craft(-1, "{}x", zeros, 0), "header, byte");
    expect_refused(craft(-1,
                         GOOD ",\"a\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[8,8]}}",
                         zeros, 8),
                   "duplicate");
    expect_refused(craft(-1, "{\"__metadata__\":{\"x\":1}}", zeros, 0), "'x' is not a string");
    expect_refused(craft(-1, "{\"__metadata__\":3}", zeros, 0), "__metadata__ is not an object");
}

static void test_refuses_tensors(void **state)
{
    (void)state;
    static const float zeros[64];
    expect_refused(craft(-1, "{\"a\":3}", zeros, 0), "tensor a: its entry");
    expect_refused(craft(-1, "{\"a\":{\"shape\":[2],\"data_offsets\":[0,8]}}", zeros, 8),
                   "tensor a: dtype");
    expect_refused(
        craft(-1, "{\"a\":{\"dtype\":\"F33\",\"shape\":[2],\"data_offsets\":[0,8]}}", zeros, 8),
        "unknown dtype 'F33'");
    expect_refused(craft(-1, ONE("\"data_offsets\":[0,8]") "}", zeros, 8), "tensor a: shape");
    expect_refused(craft(-1, ONE("\"shape\":[2.0],\"data_offsets\":[0,8]") "}", zeros, 8),
                   "something else");
    expect_refused(craft(-1, ONE("\"shape\":[-2],\"data_offsets\":[0,8]") "}", zeros, 8),
                   "something else");
    expect_refused(
        craft(-1, ONE("\"shape\":[1,1,1,1,1,1,1,1,2],\"data_offsets\":[0,8]") "}", zeros, 8),
        "9 dimensions, at most 8");
    expect_refused(craft(-1, ONE("\"shape\":[2]") "}", zeros, 8), "data_offsets");
    expect_refused(craft(-1, ONE("\"shape\":[2],\"data_offsets\":[0,8,9]") "}", zeros, 8),
                   "data_offsets");
    expect_refused(craft(-1, ONE("\"shape\":[2],\"data_offsets\":[0,8.0]") "}", zeros, 8),
                   "data_offsets");
    /* Products that overflow 64 bits, to zero and to a small number. */
    expect_refused(
        craft(-1, ONE("\"shape\":[4294967296,4294967296],\"data_offsets\":[0,0]") "}", zeros, 0),
        "too large");
    expect_refused(
        craft(-1, ONE("\"shape\":[4611686018427387904,2],\"data_offsets\":[0,8]") "}", zeros, 8),
        "too large");
    expect_refused(
        craft(-1, ONE("\"shape\":[9223372036854775808],\"data_offsets\":[0,8]") "}", zeros, 8),
        "header, byte");
}

static void test_refuses_offsets(void **state)
{
    (void)state;
    static const float zeros[64];
    expect_refused(craft(-1, ONE("\"shape\":[2],\"data_offsets\":[0,9]") "}", zeros, 9),
                   "9 bytes, but F32");
    expect_refused(craft(-1, ONE("\"shape\":[2],\"data_offsets\":[0,4]") "}", zeros, 4),
                   "4 bytes, but F32");
    expect_refused(craft(-1, ONE("\"shape\":[2],\"data_offsets\":[8,0]") "}", zeros, 8), "outside");
    expect_refused(craft(-1, ONE("\"shape\":[2],\"data_offsets\":[-8,0]") "}", zeros, 8),
                   "outside");
    expect_refused(craft(-1, GOOD "}", zeros, 7), "outside the 7 bytes");
    expect_refused(craft(-1, GOOD "}", zeros, 9), "end at byte 8 of the data, but there are 9");
    expect_refused(craft(-1, ONE("\"shape\":[2],\"data_offsets\":[4,12]") "}", zeros, 12),
                   "a hole");
    expect_refused(craft(-1,
                         GOOD ",\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[12,16]}}",
                         zeros, 16),
                   "tensor b: begins at byte 12 of the data, expected 8 (a hole)");
    expect_refused(craft(-1,
                         GOOD ",\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}",
                         zeros, 8),
                   "an overlap");
    expect_refused(
        craft(-1, "{\"a\":{\"dtype\":\"F4\",\"shape\":[3],\"data_offsets\":[0,1]}}", zeros, 1),
        "1 bytes, but F4");
}

/* A valid file cut anywhere is refused, and never read past its end. */
static void test_refuses_truncation(void **state)
{
    (void)state;
    struct tri_mapping whole;
    struct tri_error error;
    assert_int_equal(tri_file_map(TESTDATA_DIR "/golden/llama/model.safetensors", &whole, &error),
                     TRI_OK);
    for (size_t at = 0; at < whole.size; at += at < 3000 ? 61 : 9973) {
        FILE *file = fopen(scratch("cut.safetensors"), "wb");
        assert_int_equal(fwrite(whole.data, 1, at, file), at);
        assert_int_equal(fclose(file), 0);
        expect_refused(scratch("cut.safetensors"), "");
    }
    tri_file_unmap(&whole);
}

static void test_reads_foreign(void **state)
{
    (void)state;
    struct tri_safetensors *file;
    struct tri_error error;
    const char *path = TESTDATA_DIR "/golden/mixtral/reference.safetensors";
    assert_int_equal(tri_safetensors_open(path, &file, &error), TRI_OK);
    const struct tri_safetensor *ids = tri_safetensors_find(file, "input_ids");
    const struct tri_safetensor *targets = tri_safetensors_find(file, "targets");
    assert_non_null(ids);
    assert_non_null(targets);
    static const int64_t shape[] = {2, 24}, other[] = {24, 2};
    assert_int_equal(tri_safetensor_expect_shape(ids, 2, shape, &error), TRI_OK);
    assert_int_equal(tri_safetensor_expect_shape(ids, 2, other, &error), TRI_BAD_INPUT);
    assert_non_null(strstr(error.message, "input_ids: shape [2, 24], expected [24, 2]"));
    /* Targets are the inputs moved by one. */
    int64_t a[48], b[48];
    float f[48];
    assert_int_equal(tri_safetensor_read_i64(ids, 0, 48, a, &error), TRI_OK);
    assert_int_equal(tri_safetensor_read_i64(targets, 0, 48, b, &error), TRI_OK);
    assert_int_equal(tri_safetensor_read_f32(ids, 24, 24, f + 24, &error), TRI_OK);
    for (int i = 24; i < 47; i++) {
        assert_int_equal(a[i + 1], b[i]);
        assert_true(a[i] >= 0 && a[i] < 128);
        assert_true((float)a[i] == f[i]);
    }
    const struct tri_safetensor *loss = tri_safetensors_find(file, "cross_entropy");
    assert_non_null(loss);
    assert_int_equal(tri_safetensor_read_f32(loss, 0, 1, f, &error), TRI_OK);
    assert_true(f[0] > 4.0F && f[0] < 7.0F); /* near ln 128 = 4.85 */
    assert_int_equal(tri_safetensor_read_i64(loss, 0, 1, a, &error), TRI_BAD_INPUT);
    assert_null(tri_safetensors_find(file, "input_id"));
    tri_safetensors_close(file);

    path = TESTDATA_DIR "/golden/mixtral/model.safetensors";
    assert_int_equal(tri_safetensors_open(path, &file, &error), TRI_OK);
    assert_string_equal(tri_safetensors_metadata(file, "format"), "pt");
    assert_null(tri_safetensors_metadata(file, "other"));
    tri_safetensors_close(file);
}

/* Every conversion on values whose f32 is known, at an odd address. */
static void test_converts(void **state)
{
    (void)state;
    static const uint16_t half[] = {0x0000, 0x8000, 0x3c00, 0xc000, 0x7bff,
                                    0x0001, 0x83ff, 0x0400, 0x7c00};
    static const float of_half[] = {
        0.0F, -0.0F, 1.0F, -2.0F, 65504.0F, 0x1p-24F, -1023 * 0x1p-24F, 0x1p-14F, INFINITY};
    static const uint16_t brain[] = {0x3f80, 0xc049, 0xff80};
    static const float of_brain[] = {1.0F, -3.140625F, -INFINITY};
    static const double wide[] = {0.1, -1e300};
    static const int32_t whole[] = {-7, 1 << 20};
    static const int64_t longer[] = {-9, (int64_t)1 << 40};
    char header[1024];
    (void)snprintf(header, sizeof(header),
                   "{\"p\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},"
                   "\"h\":{\"dtype\":\"F16\",\"shape\":[9],\"data_offsets\":[1,19]},"
                   "\"b\":{\"dtype\":\"BF16\",\"shape\":[3],\"data_offsets\":[19,25]},"
                   "\"d\":{\"dtype\":\"F64\",\"shape\":[2],\"data_offsets\":[25,41]},"
                   "\"i\":{\"dtype\":\"I32\",\"shape\":[2],\"data_offsets\":[41,49]},"
                   "\"l\":{\"dtype\":\"I64\",\"shape\":[2],\"data_offsets\":[49,65]}}");
    unsigned char data[65] = {0};
    memcpy(data + 1, half, 18);
    memcpy(data + 19, brain, 6);
    memcpy(data + 25, wide, 16);
    memcpy(data + 41, whole, 8);
    memcpy(data + 49, longer, 16);
    struct tri_safetensors *file;
    struct tri_error error;
    assert_int_equal(tri_safetensors_open(craft(-1, header, data, sizeof(data)), &file, &error),
                     TRI_OK);
    float out[9];
    assert_int_equal(tri_safetensor_read_f32(tri_safetensors_find(file, "h"), 0, 9, out, &error),
                     TRI_OK);
    assert_memory_equal(out, of_half, sizeof(of_half));
    assert_int_equal(tri_safetensor_read_f32(tri_safetensors_find(file, "b"), 0, 3, out, &error),
                     TRI_OK);
    assert_memory_equal(out, of_brain, sizeof(of_brain));
    assert_int_equal(tri_safetensor_read_f32(tri_safetensors_find(file, "d"), 0, 2, out, &error),
                     TRI_OK);
    assert_true(out[0] == 0.1F && out[1] == -INFINITY);
    assert_int_equal(tri_safetensor_read_f32(tri_safetensors_find(file, "i"), 1, 1, out, &error),
                     TRI_OK);
    assert_true(out[0] == 1048576.0F);
    assert_int_equal(tri_safetensor_read_f32(tri_safetensors_find(file, "l"), 0, 2, out, &error),
                     TRI_OK);
    assert_true(out[0] == -9.0F && out[1] == 0x1p40F);
    int64_t integers[2];
    assert_int_equal(
        tri_safetensor_read_i64(tri_safetensors_find(file, "i"), 0, 2, integers, &error), TRI_OK);
    assert_true(integers[0] == -7 && integers[1] == 1 << 20);
    assert_int_equal(tri_safetensor_read_f32(tri_safetensors_find(file, "p"), 0, 1, out, &error),
                     TRI_BAD_INPUT);
    assert_non_null(strstr(error.message, "tensor p: dtype U8"));
    tri_safetensors_close(file);
}

/* ---- writing --------------------------------------------------------------------------------- */

static void write_file(const char *path, int64_t count, struct tri_safetensors_spec *specs,
                       const void *(*data_of)(const char *name, size_t *bytes))
{
    struct tri_safetensors_writer *writer;
    struct tri_error error;
    assert_int_equal(tri_safetensors_writer_create(path, count, specs, &writer, &error), TRI_OK);
    for (int64_t i = 0; i < count; i++) {
        size_t bytes;
        const void *data = data_of(specs[i].name, &bytes);
        assert_int_equal(tri_safetensors_writer_write(writer, data, bytes, &error), TRI_OK);
    }
    assert_int_equal(tri_safetensors_writer_close(&writer, &error), TRI_OK);
}

static const float floats[] = {1.5F, -2.5F, 3.5F, 4.0F, 5.0F, 6.0F};
static const double doubles[] = {0.25};
static const unsigned char octets[] = {1, 2, 3};

static const void *data_of(const char *name, size_t *bytes)
{
    switch (name[0]) {
    case 'm':
        *bytes = sizeof(floats);
        return floats;
    case 'd':
        *bytes = sizeof(doubles);
        return doubles;
    case 'o':
        *bytes = sizeof(octets);
        return octets;
    default:
        *bytes = 0;
        return octets;
    }
}

static void test_writes(void **state)
{
    (void)state;
    struct tri_safetensors_spec specs[] = {
        {"octets", TRI_ST_U8, 1, {3}},
        {"nothing", TRI_ST_F32, 2, {0, 4}},
        {"matrix", TRI_ST_F32, 2, {2, 3}},
        {"double \"quoted\" \xc3\xa9", TRI_ST_F64, 0, {0}},
    };
    char path[512];
    (void)snprintf(path, sizeof(path), "%s", scratch("written.safetensors"));
    write_file(path, 4, specs, data_of);
    /* Widest first, then by name. */
    assert_string_equal(specs[1].name, "matrix");
    assert_string_equal(specs[3].name, "octets");
    struct tri_safetensors *file;
    struct tri_error error;
    assert_int_equal(tri_safetensors_open(path, &file, &error), TRI_OK);
    assert_int_equal(file->count, 4);
    assert_string_equal(tri_safetensors_metadata(file, "format"), "pt");
    const struct tri_safetensor *matrix = tri_safetensors_find(file, "matrix");
    const struct tri_safetensor *number = tri_safetensors_find(file, "double \"quoted\" \xc3\xa9");
    assert_non_null(matrix);
    assert_non_null(number);
    assert_int_equal((uintptr_t)matrix->data % 4, 0);
    assert_int_equal((uintptr_t)number->data % 8, 0);
    assert_memory_equal(matrix->data, floats, sizeof(floats));
    assert_memory_equal(number->data, doubles, sizeof(doubles));
    assert_memory_equal(tri_safetensors_find(file, "octets")->data, octets, sizeof(octets));
    assert_int_equal(tri_safetensors_find(file, "nothing")->count, 0);
    tri_safetensors_close(file);
    assert_false(tri_file_exists(scratch("written.safetensors.trident.tmp")));
}

/* A file of the safetensors package, written again by us, is the same bytes. */
static void test_rewrites_foreign_bytes(void **state)
{
    (void)state;
    struct tri_safetensors *file;
    struct tri_error error;
    const char *path = TESTDATA_DIR "/golden/olmoe/model.safetensors";
    assert_int_equal(tri_safetensors_open(path, &file, &error), TRI_OK);
    struct tri_safetensors_spec *specs =
        tri_alloc(TRI_MEMORY_OTHER, (size_t)file->count * sizeof(*specs));
    for (int64_t i = 0; i < file->count; i++) {
        const struct tri_safetensor *t = &file->tensor[i];
        specs[i] = (struct tri_safetensors_spec){t->name, t->dtype, t->dims, {0}};
        memcpy(specs[i].shape, t->shape, sizeof(t->shape));
    }
    struct tri_safetensors_writer *writer;
    char out[512];
    (void)snprintf(out, sizeof(out), "%s", scratch("again.safetensors"));
    assert_int_equal(tri_safetensors_writer_create(out, file->count, specs, &writer, &error),
                     TRI_OK);
    for (int64_t i = 0; i < file->count; i++) {
        const struct tri_safetensor *t = tri_safetensors_find(file, specs[i].name);
        assert_int_equal(tri_safetensors_writer_write(writer, t->data, t->bytes, &error), TRI_OK);
    }
    assert_int_equal(tri_safetensors_writer_close(&writer, &error), TRI_OK);
    struct tri_mapping mine;
    assert_int_equal(tri_file_map(out, &mine, &error), TRI_OK);
    assert_int_equal(mine.size, file->mapping.size);
    assert_memory_equal(mine.data, file->mapping.data, mine.size);
    tri_file_unmap(&mine);
    tri_free(specs);
    tri_safetensors_close(file);
}

static void test_write_fails_cleanly(void **state)
{
    (void)state;
    struct tri_safetensors_spec specs[] = {{"matrix", TRI_ST_F32, 2, {2, 3}}};
    struct tri_safetensors_writer *writer;
    struct tri_error error;
    char path[512];
    (void)snprintf(path, sizeof(path), "%s", scratch("full.safetensors"));
    assert_int_equal(setenv("TRIDENT_FILE_FAULT", "write:ENOSPC:full.safetensors:100", 1), 0);
    assert_int_equal(tri_safetensors_writer_create(path, 1, specs, &writer, &error), TRI_FAILED);
    assert_null(writer);
    assert_non_null(strstr(error.message, "No space left"));
    assert_int_equal(unsetenv("TRIDENT_FILE_FAULT"), 0);
    assert_false(tri_file_exists(path));
    assert_false(tri_file_exists(scratch("full.safetensors.trident.tmp")));
}

/* ---- sets ------------------------------------------------------------------------------------ */

static void put_text(const char *path, const char *text)
{
    struct tri_error error;
    assert_int_equal(tri_file_save(path, text, strlen(text), &error), TRI_OK);
}

static void refuse_set(const char *index, const char *words)
{
    struct tri_safetensors_set *set;
    struct tri_error error = {0};
    put_text(scratch("set/model.safetensors.index.json"), index);
    assert_int_equal(tri_safetensors_set_open(scratch("set"), NULL, &set, &error), TRI_BAD_INPUT);
    assert_null(set);
    if (!strstr(error.message, words)) {
        fail_msg("'%s' lacks '%s'", error.message, words);
    }
}

static void test_sets(void **state)
{
    (void)state;
    struct tri_safetensors_set *set;
    struct tri_error error;
    assert_int_equal(tri_file_make_dirs(scratch("set"), &error), TRI_OK);
    assert_int_equal(tri_safetensors_set_open(scratch("set"), NULL, &set, &error), TRI_BAD_INPUT);
    assert_non_null(strstr(error.message, "neither model.safetensors nor"));
    char path[512];
    struct tri_safetensors_spec first[] = {{"m.0", TRI_ST_F32, 2, {2, 3}},
                                           {"o.0", TRI_ST_U8, 1, {3}}};
    struct tri_safetensors_spec second[] = {{"m.1", TRI_ST_F32, 2, {3, 2}}};
    (void)snprintf(path, sizeof(path), "%s", scratch("set/a.safetensors"));
    write_file(path, 2, first, data_of);
    (void)snprintf(path, sizeof(path), "%s", scratch("set/b.safetensors"));
    write_file(path, 1, second, data_of);
    put_text(scratch("set/model.safetensors.index.json"),
             "{\"metadata\":{\"total_size\":51},\"weight_map\":{\"o.0\":\"a.safetensors\","
             "\"m.1\":\"b.safetensors\",\"m.0\":\"a.safetensors\"}}");
    assert_int_equal(tri_safetensors_set_open(scratch("set"), NULL, &set, &error), TRI_OK);
    assert_int_equal(set->files, 2);
    assert_int_equal(set->count, 3);
    assert_string_equal(set->tensor[1]->name, "m.1");
    assert_int_equal(tri_safetensors_set_find(set, "o.0"), 2);
    assert_int_equal(tri_safetensors_set_find(set, "x"), -1);
    tri_safetensors_set_close(set);

    refuse_set("{", "index.json");
    refuse_set("{}", "weight_map is missing");
    refuse_set("{\"weight_map\":{\"m.0\":\"../a.safetensors\"}}", "no file of this folder");
    refuse_set("{\"weight_map\":{\"m.0\":\"b/../../a.safetensors\"}}", "no file of this folder");
    refuse_set("{\"weight_map\":{\"m.0\":\"/a.safetensors\"}}", "no file of this folder");
    refuse_set("{\"weight_map\":{\"m.0\":\"\"}}", "no file of this folder");
    refuse_set("{\"weight_map\":{\"m.0\":5}}", "no file of this folder");
    refuse_set("{\"weight_map\":{\"m.0\":\"c.safetensors\"}}", "c.safetensors: cannot open");
    static const char *const twice[] = {"a.safetensors", "a.safetensors"};
    assert_int_equal(tri_safetensors_set_open_files(scratch("set"), 2, twice, true, &set, &error),
                     TRI_BAD_INPUT);
    assert_non_null(strstr(error.message, "is also in"));
}

/* Of what several ranks have written, what one of them looks at when all say that they are done. */
static void test_expects_size(void **state)
{
    (void)state;
    struct tri_error error;
    const char *path = scratch("parts.safetensors");
    assert_int_equal(tri_file_save(path, "abc", 3, &error), TRI_OK);
    assert_int_equal(tri_part_file_expect_size(path, 3, &error), TRI_OK);
    assert_int_equal(tri_part_file_expect_size(path, 4, &error), TRI_FAILED);
    assert_non_null(strstr(error.message, "has 3 bytes"));
    assert_non_null(strstr(error.message, "not all of them write to this folder"));
}

static int set_up(void **state)
{
    (void)state;
    struct tri_error error;
    (void)snprintf(dir, sizeof(dir), "%s/safetensors.%d", TEST_TMP, (int)getpid());
    return tri_file_make_dirs(dir, &error) == TRI_OK ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    struct tri_error error;
    return tri_file_remove_tree(dir, &error) == TRI_OK ? 0 : -1;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_accepts),
        cmocka_unit_test(test_refuses_headers),
        cmocka_unit_test(test_refuses_tensors),
        cmocka_unit_test(test_refuses_offsets),
        cmocka_unit_test(test_refuses_truncation),
        cmocka_unit_test(test_reads_foreign),
        cmocka_unit_test(test_converts),
        cmocka_unit_test(test_writes),
        cmocka_unit_test(test_rewrites_foreign_bytes),
        cmocka_unit_test(test_write_fails_cleanly),
        cmocka_unit_test(test_sets),
        cmocka_unit_test(test_expects_size),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
