#include "files.h"

#include "base/file.h"
#include "base/memory.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

void files_enter(const char *name)
{
    char path[512];
    struct tri_error error = {0};
    (void)snprintf(path, sizeof(path), "%s/%s", TEST_TMP, name);
    assert_int_equal(tri_file_remove_tree(path, &error), TRI_OK);
    assert_int_equal(tri_file_make_dirs(path, &error), TRI_OK);
    assert_int_equal(chdir(path), 0);
}

void files_write(const char *path, const void *data, size_t bytes)
{
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, bytes, file), bytes);
    assert_int_equal(fclose(file), 0);
}

unsigned char *files_read(const char *path, size_t *bytes)
{
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    assert_int_equal(fseek(file, 0, SEEK_END), 0);
    *bytes = (size_t)ftell(file);
    rewind(file);
    unsigned char *data = tri_alloc(TRI_MEMORY_OTHER, *bytes + 1);
    assert_int_equal(fread(data, 1, *bytes, file), *bytes);
    assert_int_equal(fclose(file), 0);
    return data;
}

void files_write_shard(const char *path, int64_t count, int first, int step)
{
    size_t bytes = 1024 + 2 * (size_t)count;
    unsigned char *data = tri_alloc(TRI_MEMORY_OTHER, bytes);
    const unsigned char head[] = {0x88, 0xd8, 0x34, 0x01, 1, 0, 0, 0};
    memcpy(data, head, sizeof(head));
    for (int i = 0; i < 4; i++) {
        data[8 + i] = (unsigned char)(count >> (8 * i));
    }
    for (int64_t i = 0; i < count; i++) {
        int64_t token = first + i * step;
        data[1024 + 2 * i] = (unsigned char)token;
        data[1025 + 2 * i] = (unsigned char)(token >> 8);
    }
    files_write(path, data, bytes);
    tri_free(data);
}

static void write_beside(const char *path, int32_t magic, int64_t count, const void *body,
                         size_t bytes)
{
    unsigned char *data = tri_alloc(TRI_MEMORY_OTHER, 1024 + bytes);
    const int32_t one = 1;
    memcpy(data, &magic, sizeof(magic));
    memcpy(data + 4, &one, sizeof(one));
    memcpy(data + 16, &count, sizeof(count));
    if (bytes > 0) {
        memcpy(data + 1024, body, bytes);
    }
    files_write(path, data, 1024 + bytes);
    tri_free(data);
}

void files_write_mask(const char *path, int64_t count, bool (*counts)(int64_t place))
{
    size_t bytes = ((size_t)count + 7) / 8;
    unsigned char *bits = tri_alloc(TRI_MEMORY_OTHER, bytes);
    for (int64_t i = 0; i < count; i++) {
        bits[i / 8] = (unsigned char)(bits[i / 8] | counts(i) << (i % 8));
    }
    write_beside(path, 20261129, count, bits, bytes);
    tri_free(bits);
}

void files_write_documents(const char *path, int64_t count, const int64_t *places)
{
    write_beside(path, 20261130, count, places, (size_t)count * sizeof(*places));
}

void files_expect_line(const struct tri_error *error, ...)
{
    assert_int_equal(error->status, TRI_BAD_INPUT);
    assert_null(strchr(error->message, '\n'));
    va_list texts;
    va_start(texts, error);
    for (const char *text = va_arg(texts, const char *); text; text = va_arg(texts, const char *)) {
        if (!strstr(error->message, text)) {
            print_error("\"%s\" lacks \"%s\"\n", error->message, text);
            va_end(texts);
            fail();
        }
    }
    va_end(texts);
}
