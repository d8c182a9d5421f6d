/* Lines of JSON, packed or not, become documents; what is no document gets one line. */
#include "files.h"

#include "base/file.h"
#include "base/memory.h"
#include "data/shard_writer.h"
#include "data/tokenize.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>

static struct tri_tokenize_args args_of(char *file[1])
{
    return (struct tri_tokenize_args){
        .tokenizer = "byte", .folder = "out", .num_files = 1, .files = file, .separator = -1};
}

static struct tri_tokenize_result tokenize(const struct tri_tokenize_args *args)
{
    struct tri_error error = {0};
    struct tri_tokenize_result result;
    if (tri_tokenize_files(args, &result, &error) != TRI_OK) {
        fail_msg("%s", error.message);
    }
    return result;
}

static void write_text(const char *path, const char *text)
{
    files_write(path, text, strlen(text));
}

/* A shard's tokens as text, what counts in brackets, a bar where a document begins. */
static void show(const char *stem, char *text, size_t room)
{
    char path[64];
    size_t bytes, mask_bytes, docs_bytes, at = 0;
    (void)snprintf(path, sizeof(path), "out/%s.bin", stem);
    unsigned char *tokens = files_read(path, &bytes), *mask = NULL, *docs = NULL;
    size_t count = (bytes - 1024) / 2;
    assert_int_equal(*(int32_t *)(void *)(tokens + 8), count);
    (void)snprintf(path, sizeof(path), "out/%s.mask", stem);
    if (tri_file_exists(path)) {
        mask = files_read(path, &mask_bytes);
        assert_int_equal(mask_bytes, 1024 + (count + 7) / 8);
        const int32_t *head = (void *)mask;
        assert_int_equal(head[0], 20261129);
        assert_int_equal(head[1], 1);
        assert_int_equal(head[4], count);
        assert_int_equal(head[5], 0);
    }
    (void)snprintf(path, sizeof(path), "out/%s.docs", stem);
    size_t places = 0, next = 0;
    if (tri_file_exists(path)) {
        docs = files_read(path, &docs_bytes);
        const int32_t *head = (void *)docs;
        assert_int_equal(head[0], 20261130);
        assert_int_equal(head[1], 1);
        places = (size_t)head[4];
        assert_int_equal(docs_bytes, 1024 + 8 * places);
    }
    bool counted = false;
    for (size_t i = 0; i < count; i++) {
        assert_true(at + 5 < room);
        uint64_t place = UINT64_MAX;
        if (next < places) {
            memcpy(&place, docs + 1024 + 8 * next, sizeof(place));
        }
        bool counts = !mask || (mask[1024 + i / 8] >> (i % 8) & 1);
        if (counted && (!counts || place == i)) {
            text[at++] = ']';
        }
        counted = counted && place != i;
        if (place == i) {
            text[at++] = '|';
            next++;
        }
        if (counts && !counted) {
            text[at++] = '[';
        }
        counted = counts;
        text[at++] = (char)tokens[1024 + 2 * i];
    }
    assert_int_equal(next, places);
    if (counted) {
        text[at++] = ']';
    }
    text[at] = '\0';
    tri_free(tokens);
    tri_free(mask);
    tri_free(docs);
}

static void expect_shard(const char *stem, const char *expected)
{
    char text[2000];
    show(stem, text, sizeof(text));
    assert_string_equal(text, expected);
}

/* ---- formats --------------------------------------------------------------------------------- */

static void lines_are_documents(void **state)
{
    (void)state;
    files_enter("documents_lines");
    /* A mark of order, blank lines, Windows' ends of lines, other keys, none at the end. */
    write_text("a.jsonl", "\xef\xbb\xbf{\"text\": \"one\"}\r\n\r\n  \t\n"
                          "{\"id\": [1, {\"a\": null, \"b\": -1.5e+3}], \"text\": \"t\\u0077o\"}\n"
                          "{\"text\": \"\"}\n"
                          "{\"completion\": \"4!\", \"prompt\": \"2+2=\"}");
    char *file[] = {"a.jsonl"};
    struct tri_tokenize_args args = args_of(file);
    struct tri_tokenize_result result = tokenize(&args);
    expect_shard("train_000000", "|[one]|[two]|2+2=[4!]");
    assert_int_equal(result.counts.documents, 3);
    assert_int_equal(result.counts.empty, 1);
    assert_int_equal(result.counts.tokens, 12);
    assert_int_equal(result.counts.counted, 8);
    assert_int_equal(result.counts.longest, 6);
    assert_int_equal(result.counts.files[TRI_FORMAT_JSONL], 1);
    args.separator = '#';
    result = tokenize(&args);
    expect_shard("train_000000", "|[one#]|[two#]|2+2=[4!]");
    /* All the file is one document when it is said to be text. */
    args.format = TRI_FORMAT_TEXT;
    result = tokenize(&args);
    assert_int_equal(result.counts.documents, 1);
    assert_false(tri_file_exists("out/train_000000.docs"));
    assert_false(tri_file_exists("out/train_000000.mask"));
}

static void strings_are_decoded_as_json_says(void **state)
{
    (void)state;
    files_enter("documents_strings");
    write_text("a.jsonl",
               "{\"text\":\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u00e9\\u20ac\\ud83d\\ude00\xc3\xa9\"}");
    char *file[] = {"a.jsonl"};
    struct tri_tokenize_args args = args_of(file);
    (void)tokenize(&args);
    expect_shard("train_000000", "|[\"\\/\b\f\n\r\t\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\xc3\xa9]");
}

/* Crawls hold them, and Python reads them: zero bytes, halves of surrogate pairs. */
static void odd_escapes_are_characters(void **state)
{
    (void)state;
    files_enter("documents_odd");
    write_text("a.jsonl", "{\"text\":\"\\ud83d|\\uD83D\\u0041|\\ude00|\\ud83d"
                          "\\ud83d\\ude00|\\udbff\\n\\u0000\", \"text\\u0000\": 1}\n");
    char *file[] = {"a.jsonl"};
    struct tri_tokenize_args args = args_of(file);
    assert_int_equal(tokenize(&args).train_tokens, 26);
    /* The byte 0 ends what is compared: no bracket is there. */
    expect_shard("train_000000", "|[\xef\xbf\xbd|\xef\xbf\xbd"
                                 "A|\xef\xbf\xbd|\xef\xbf\xbd\xf0\x9f\x98\x80|\xef\xbf\xbd\n");
}

static void names_and_first_lines_say_what_a_file_is(void **state)
{
    (void)state;
    assert_int_equal(tri_format_guess("a.txt"), TRI_FORMAT_TEXT);
    assert_int_equal(tri_format_guess("a.gz"), TRI_FORMAT_TEXT);
    assert_int_equal(tri_format_guess("json"), TRI_FORMAT_TEXT);
    assert_int_equal(tri_format_guess("a.JSONL"), TRI_FORMAT_JSONL);
    assert_int_equal(tri_format_guess("a.json.gz"), TRI_FORMAT_JSONL);
    assert_int_equal(tri_format_guess("d.x/a.ndjson.zst"), TRI_FORMAT_JSONL);
    files_enter("documents_guess");
    write_text("a.txt", "plain ");
    write_text("b.jsonl", "\n{\"messages\":[{\"role\":\"user\",\"content\":\"q\"},"
                          "{\"role\":\"assistant\",\"content\":\"a\"}]}\n");
    write_text("c.json", "{\"text\":\"t\"}\n");
    char *files[] = {"a.txt", "b.jsonl", "c.json"};
    struct tri_tokenize_args args = args_of(files);
    args.num_files = 3;
    args.template = "plain";
    struct tri_tokenize_result result = tokenize(&args);
    expect_shard("train_000000", "|[plain ]|User: q\nAssistant:[ a\n]|[t]");
    assert_int_equal(result.counts.files[TRI_FORMAT_TEXT], 1);
    assert_int_equal(result.counts.files[TRI_FORMAT_JSONL], 1);
    assert_int_equal(result.counts.files[TRI_FORMAT_CHAT], 1);
    assert_string_equal(result.template, "plain");
}

/* ---- shards ---------------------------------------------------------------------------------- */

static void documents_go_on_in_the_next_shard(void **state)
{
    (void)state;
    files_enter("documents_shards");
    write_text("a.jsonl", "{\"text\":\"abcde\"}\n{\"prompt\":\"fghijk\",\"completion\":\"lm\"}\n"
                          "{\"text\":\"no\"}\n{\"text\":\"pqrs\"}\n");
    char *file[] = {"a.jsonl"};
    struct tri_tokenize_args args = args_of(file);
    args.per_shard = 4;
    (void)tokenize(&args);
    expect_shard("train_000000", "|[abcd]");
    expect_shard("train_000001", "[e]|fgh");
    expect_shard("train_000002", "ijk[l]");
    expect_shard("train_000003", "[m]|[no]|[p]");
    expect_shard("train_000004", "[qrs]");
    /* Of 19 tokens a quarter: the borders are at 5, 13 and 15. */
    args.valid = 0.25;
    struct tri_tokenize_result result = tokenize(&args);
    assert_int_equal(result.train_tokens, 13);
    expect_shard("train_000002", "ijk[l]");
    expect_shard("train_000003", "[m]");
    expect_shard("valid_000000", "|[no]|[pq]");
    expect_shard("valid_000001", "[rs]");
    assert_false(tri_file_exists("out/train_000004.bin"));
    /* What was beside the old ones goes with them. */
    write_text("a.jsonl", "{\"text\":\"xyz\"}\n");
    write_text("out/train_notes.mask", "x");
    args.valid = 0.0;
    (void)tokenize(&args);
    expect_shard("train_000000", "|[xyz]");
    assert_false(tri_file_exists("out/train_000001.docs"));
    assert_false(tri_file_exists("out/train_000001.mask"));
    assert_false(tri_file_exists("out/valid_000000.docs"));
    assert_true(tri_file_exists("out/train_notes.mask"));
}

static void text_is_split_by_tokens_and_its_files_are_documents(void **state)
{
    (void)state;
    files_enter("documents_text");
    write_text("a.txt", "abcdef");
    write_text("b.txt", "ghij");
    char *files[] = {"a.txt", "b.txt"};
    struct tri_tokenize_args args = args_of(files);
    args.num_files = 2;
    args.valid = 0.5;
    (void)tokenize(&args);
    expect_shard("train_000000", "|[abcde]");
    expect_shard("valid_000000", "|[f]|[ghij]");
}

/* Many lines, on several threads, in blocks: all there, in order. */
static void many_documents_stay_in_order(void **state)
{
    (void)state;
    files_enter("documents_many");
    enum { LINES = 60000 }; /* more than two blocks */
    FILE *file = fopen("a.jsonl", "wb");
    assert_non_null(file);
    for (int i = 0; i < LINES; i++) {
        assert_true(fprintf(file,
                            "{\"n\":%d,\"prompt\":\"%d:\",\"completion\":\"%x;\","
                            "\"pad\":\"%*s\"}\n",
                            i, i, i, i % 600, "") > 0);
    }
    assert_int_equal(fclose(file), 0);
    char *files[] = {"a.jsonl"};
    struct tri_tokenize_args args = args_of(files);
    struct tri_tokenize_result result = tokenize(&args);
    assert_int_equal(result.counts.documents, LINES);
    size_t bytes, docs_bytes, mask_bytes;
    unsigned char *tokens = files_read("out/train_000000.bin", &bytes);
    unsigned char *docs = files_read("out/train_000000.docs", &docs_bytes);
    unsigned char *mask = files_read("out/train_000000.mask", &mask_bytes);
    assert_int_equal(docs_bytes, 1024 + 8 * LINES);
    uint64_t at = 0;
    for (int i = 0; i < LINES; i++) {
        uint64_t place;
        char text[64];
        memcpy(&place, docs + 1024 + 8 * i, sizeof(place));
        assert_int_equal(place, at);
        int head = snprintf(text, sizeof(text), "%d:", i);
        int all = head + snprintf(text + head, sizeof(text) - (size_t)head, "%x;", i);
        for (int j = 0; j < all; j++, at++) {
            if (tokens[1024 + 2 * at] != text[j] ||
                (mask[1024 + at / 8] >> (at % 8) & 1) != (j >= head)) {
                fail_msg("document %d, byte %d", i, j);
            }
        }
    }
    assert_int_equal(bytes, 1024 + 2 * at);
    tri_free(tokens);
    tri_free(docs);
    tri_free(mask);
}

/* ---- archives -------------------------------------------------------------------------------- */

static size_t pack_gzip(const char *text, size_t bytes, unsigned char *out, size_t room)
{
    z_stream stream = {0};
    assert_int_equal(deflateInit2(&stream, 6, Z_DEFLATED, 31, 8, Z_DEFAULT_STRATEGY), Z_OK);
    unsigned char *copy = tri_alloc(TRI_MEMORY_OTHER, bytes);
    memcpy(copy, text, bytes);
    stream.next_in = copy;
    stream.avail_in = (uInt)bytes;
    stream.next_out = out;
    stream.avail_out = (uInt)room;
    assert_int_equal(deflate(&stream, Z_FINISH), Z_STREAM_END);
    size_t size = room - stream.avail_out;
    assert_int_equal(deflateEnd(&stream), Z_OK);
    tri_free(copy);
    return size;
}

static size_t pack_zstd(const char *text, size_t bytes, unsigned char *out, size_t room)
{
    size_t size = ZSTD_compress(out, room, text, bytes, 3);
    assert_false(ZSTD_isError(size));
    return size;
}

static void archives_are_read_whatever_their_names(void **state)
{
    (void)state;
    files_enter("documents_packed");
    static const char one[] = "{\"text\":\"one\"}\n", two[] = "{\"text\":\"two\"}\n";
    typedef size_t pack(const char *text, size_t bytes, unsigned char *out, size_t room);
    pack *const packs[] = {pack_gzip, pack_zstd};
    char *names[] = {"a.jsonl", "a.txt.gz"};
    for (int i = 0; i < 2; i++) {
        unsigned char data[512] = {0};
        /* Two archives behind each other are one file's; zeros behind gzip's are nothing. */
        size_t size = packs[i](one, sizeof(one) - 1, data, 200);
        size += packs[i](two, sizeof(two) - 1, data + size, 200);
        files_write(names[0], data, size + (i == 0 ? 9 : 0));
        struct tri_tokenize_args args = args_of(names);
        struct tri_tokenize_result result = tokenize(&args);
        expect_shard("train_000000", "|[one]|[two]");
        assert_int_equal(result.bytes, 30);
        size = packs[i]("a text", 6, data, 200);
        files_write(names[1], data, size);
        args.files = names + 1;
        result = tokenize(&args);
        expect_shard("train_000000", "[a text]");
        assert_int_equal(result.bytes, 6);
        assert_false(tri_file_exists("out/tokenize.trident.tmp"));
    }
}

static void expect_refusal(const struct tri_tokenize_args *args, const char *first,
                           const char *second)
{
    struct tri_error error = {0};
    struct tri_tokenize_result result;
    assert_int_equal(tri_tokenize_files(args, &result, &error), TRI_BAD_INPUT);
    files_expect_line(&error, first, second, NULL);
    assert_false(tri_file_exists("out/train_000000.bin"));
    assert_false(tri_file_exists("out/tokenize.trident.tmp"));
}

static void damaged_archives_get_one_line(void **state)
{
    (void)state;
    files_enter("documents_damaged");
    enum { LINES = 2000 };
    char *text = tri_alloc(TRI_MEMORY_OTHER, LINES * 64);
    size_t bytes = 0;
    for (int i = 0; i < LINES; i++) {
        bytes += (size_t)snprintf(text + bytes, 64, "{\"text\":\"%x %d\"}\n", i * 7919, i * i);
    }
    char *names[] = {"a.jsonl", "a.txt"};
    unsigned char *data = tri_alloc(TRI_MEMORY_OTHER, 2 * bytes);
    for (int i = 0; i < 2; i++) {
        size_t size = (i == 0 ? pack_gzip : pack_zstd)(text, bytes, data, 2 * bytes);
        for (int name = 0; name < 2; name++) {
            struct tri_tokenize_args args = args_of(names + name);
            static const int parts[] = {1, 2, 3, 9};
            for (int part = 0; part < 4; part++) {
                files_write(names[name], data, size * (size_t)parts[part] / 10);
                expect_refusal(&args, names[name], "ends too early");
            }
            files_write(names[name], data, size - 1);
            expect_refusal(&args, names[name], "ends too early");
            if (i == 0) {
                data[size - 6] ^= 1; /* of the checksum */
                files_write(names[name], data, size);
                expect_refusal(&args, names[name], "damaged");
                data[size - 6] ^= 1;
            }
            unsigned char kept = data[size];
            data[size] = 'x'; /* no archive, and no zeros */
            files_write(names[name], data, size + 1);
            expect_refusal(&args, names[name], "archive");
            data[size] = kept;
        }
    }
    tri_free(data);
    tri_free(text);
}

/* ---- refusals -------------------------------------------------------------------------------- */

static void lines_that_are_no_document_are_named(void **state)
{
    (void)state;
    files_enter("documents_refused");
    char deep[700];
    memset(deep, '[', 600);
    (void)snprintf(deep + 600, sizeof(deep) - 600, "\n");
    static const char head[] = "{\"text\":\"fine\"}\n\n";
    static const struct {
        const char *line, *expected;
    } cases[] = {
        {"nothing\n", "a.jsonl:3: column 1: expected an object"},
        {"{\"text\":\"a\"} x\n", "column 14: expected the line's end"},
        {"{\"text\":\"a\"\n", "expected a comma or the brace"},
        {"{\"text\":\"a\n", "expected the quote that ends a string"},
        {"{\"text\":\"a\tb\"}\n", "column 11: expected no control character"},
        {"{\"text\":\"a\\x\"}\n", "expected an escape of JSON"},
        {"{\"text\":\"\\u12g4\"}\n", "column 10: expected four hexadecimal digits"},
        {"{\"text\":\"\\ud83d\\u12\"}\n", "column 16: expected four hexadecimal digits"},
        {"{\"text\":\"\xc3\"}\n", "valid UTF-8"},
        {"{\"text\":\"\xed\xa0\x80\"}\n", "valid UTF-8"},
        {"{\"text\":\"\xc0\x80\"}\n", "valid UTF-8"},
        {"{\"text\":\"\xf5\x80\x80\x80\"}\n", "valid UTF-8"},
        {"{\"x\":\"\xff\",\"text\":\"a\"}\n", "valid UTF-8"},
        {"{\"text\":3}\n", "text: found a number, expected a string"},
        {"{\"text\":null}\n", "found neither, expected text, or prompt and completion"},
        {"{\"text\":\"a\",\"text\":\"b\"}\n", "text: is there twice"},
        {"{\"text\":\"a\",\"prompt\":\"b\"}\n", "found both text and prompt"},
        {"{\"prompt\":\"b\"}\n", "completion: missing beside prompt"},
        {"{\"prompt\":[],\"completion\":\"b\"}\n", "prompt: found a list, expected a string"},
        {"{\"messages\":[]}\n", "--format chat reads messages"},
        {"{\"x\":01,\"text\":\"a\"}\n", "expected a value"},
        {"{\"x\":tru,\"text\":\"a\"}\n", "expected a value"},
        {"{\"x\":[1,],\"text\":\"a\"}\n", "expected a value behind the comma"},
        {"{\"x\":[1 2],\"text\":\"a\"}\n", "expected a comma or the bracket"},
        {"{\"x\" 1}\n", "expected a colon"},
        {"{,}\n", "expected a string"},
        {"{\"text\":\"a\",}\n", "expected a string"},
        {"\xff\xfe{\n", "expected an object"},
    };
    char *file[] = {"a.jsonl"};
    struct tri_tokenize_args args = args_of(file);
    char text[2000];
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        (void)snprintf(text, sizeof(text), "%s%s", head, cases[i].line);
        write_text("a.jsonl", text);
        expect_refusal(&args, "a.jsonl:3: ", cases[i].expected);
    }
    (void)snprintf(text, sizeof(text), "%s{\"x\":%s", head, deep);
    write_text("a.jsonl", text);
    expect_refusal(&args, "a.jsonl:3: ", "at most 128 deep");
    files_write("a.jsonl", "{\"text\":\"a\0b\"}", 14);
    expect_refusal(&args, "a.jsonl:1: column 11", "no zero byte");
    write_text("a.jsonl", "\n \n");
    expect_refusal(&args, "a.jsonl", "no document");
    write_text("a.jsonl", "{\"text\":\"one\"}\n");
    args.valid = 0.5;
    expect_refusal(&args, "1 documents are too few", "0.5");
}

static void chats_that_are_none_are_named(void **state)
{
    (void)state;
    files_enter("documents_chats");
    static const struct {
        const char *line, *expected;
    } cases[] = {
        {"{\"messages\":{}}", "messages: found an object, expected a list"},
        {"{\"messages\":[]}", "messages: is empty"},
        {"{\"messages\":[3]}", "expected an object"},
        {"{\"messages\":[{\"role\":\"user\"}]}", "messages[0].content: missing"},
        {"{\"messages\":[{\"content\":\"a\"}]}", "messages[0].role: missing"},
        {"{\"messages\":[{\"role\":\"human\",\"content\":\"a\"}]}",
         "messages[0].role: found 'human', expected system, user, assistant or tool"},
        {"{\"messages\":[{\"role\":\"user\",\"content\":5}]}",
         "messages[0].content: found a number"},
        {"{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image\"}]}]}",
         "messages[0].content[0].type: found 'image', expected text"},
        {"{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\"}]}]}",
         "messages[0].content[0].text: missing"},
        {"{\"messages\":[{\"role\":\"assistant\",\"content\":\"\",\"tool_calls\":[{}]}]}",
         "messages[0].tool_calls"},
        {"{\"messages\":[{\"role\":\"assistant\",\"content\":\"a\",\"weight\":2}]}",
         "messages[0].weight: expected 0 or 1"},
        {"{\"text\":\"a\"}", "--format jsonl reads text"},
        {"{\"messages\":[{\"role\":\"assistant\",\"content\":\"a\"}]}",
         "messages[0].role: found assistant, expected user"},
        {"{\"messages\":[{\"role\":\"system\",\"content\":\"a\"}]}",
         "messages[1].role: found no more, expected user"},
    };
    char *file[] = {"a.jsonl"};
    struct tri_tokenize_args args = args_of(file);
    args.format = TRI_FORMAT_CHAT;
    args.template = "mistral";
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        write_text("a.jsonl", cases[i].line);
        expect_refusal(&args, "a.jsonl:1: ", cases[i].expected);
    }
    args.template = "llama2";
    expect_refusal(&args, "template 'llama2'", "expected chatml, llama3, mistral, olmo or plain");
    args.template = NULL;
    expect_refusal(&args, "byte has no chat template", "--template");
    args.format = TRI_FORMAT_GUESS;
    write_text("a.jsonl", "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}]}");
    expect_refusal(&args, "a.jsonl: holds chats", "--template");
}

/* Of all lines that are wrong the first is named, whichever thread finds one first. */
static void the_first_mistake_is_told(void **state)
{
    (void)state;
    files_enter("documents_first");
    FILE *file = fopen("a.jsonl", "wb");
    assert_non_null(file);
    for (int i = 1; i <= 40000; i++) {
        assert_true(
            fputs(i == 23456 || i > 30000 ? "wrong\n" : "{\"text\":\"some words\"}\n", file) >= 0);
    }
    assert_int_equal(fclose(file), 0);
    char *files[] = {"a.jsonl"};
    struct tri_tokenize_args args = args_of(files);
    for (int i = 0; i < 10; i++) {
        expect_refusal(&args, "a.jsonl:23456: ", "an object");
    }
}

/* A line that is longer than what is read at once. */
static void a_line_may_be_long(void **state)
{
    (void)state;
    files_enter("documents_long");
    enum { LONG = 20 << 20 };
    char *text = tri_alloc(TRI_MEMORY_OTHER, LONG + 64);
    size_t bytes = (size_t)snprintf(text, 64, "{\"text\":\"a\"}\n{\"text\":\"");
    memset(text + bytes, 'b', LONG);
    bytes += LONG;
    bytes += (size_t)snprintf(text + bytes, 32, "\"}\n{\"text\":\"c\"}\n");
    files_write("a.jsonl", text, bytes);
    tri_free(text);
    char *files[] = {"a.jsonl"};
    struct tri_tokenize_args args = args_of(files);
    struct tri_tokenize_result result = tokenize(&args);
    assert_int_equal(result.counts.documents, 3);
    assert_int_equal(result.counts.longest, LONG);
    assert_int_equal(result.bytes, bytes);
}

static void a_full_disk_leaves_nothing(void **state)
{
    (void)state;
    files_enter("documents_full");
    unsigned char data[200];
    write_text("a.jsonl", "{\"prompt\":\"abc\",\"completion\":\"def\"}\n{\"text\":\"ghi\"}\n");
    files_write("b.txt.gz", data, pack_gzip("some text", 9, data, sizeof(data)));
    char *files[] = {"a.jsonl", "b.txt.gz"};
    struct tri_tokenize_args args = args_of(files);
    args.num_files = 2;
    args.valid = 0.5;
    args.per_shard = 7;
    static const char *const faults[] = {
        "write:ENOSPC:train_000000.mask", "write:ENOSPC:train_000000.docs",
        "sync:EIO:train_000001.docs",     "write:ENOSPC:tokenize.trident.tmp/text",
        "rename:EIO:rest_000001",         "write:ENOSPC:valid_000000.docs",
        "open:EACCES:valid_000000.docs"};
    for (size_t i = 0; i < sizeof(faults) / sizeof(*faults); i++) {
        struct tri_error error = {0};
        struct tri_tokenize_result result;
        assert_int_equal(setenv("TRIDENT_FILE_FAULT", faults[i], 1), 0);
        enum tri_status status = tri_tokenize_files(&args, &result, &error);
        assert_int_equal(unsetenv("TRIDENT_FILE_FAULT"), 0);
        if (status == TRI_OK) {
            fail_msg("%s: nothing failed", faults[i]);
        }
        assert_null(strchr(error.message, '\n'));
        assert_false(tri_file_exists("out/tokenize.trident.tmp"));
        assert_false(tri_file_exists("out/train_000000.bin"));
    }
    (void)tokenize(&args);
    expect_shard("train_000000", "|abc[def]|[g]");
    expect_shard("train_000001", "[hi]");
    expect_shard("valid_000000", "|[some te]");
    expect_shard("valid_000001", "[xt]");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines_are_documents),
        cmocka_unit_test(strings_are_decoded_as_json_says),
        cmocka_unit_test(odd_escapes_are_characters),
        cmocka_unit_test(names_and_first_lines_say_what_a_file_is),
        cmocka_unit_test(documents_go_on_in_the_next_shard),
        cmocka_unit_test(text_is_split_by_tokens_and_its_files_are_documents),
        cmocka_unit_test(many_documents_stay_in_order),
        cmocka_unit_test(archives_are_read_whatever_their_names),
        cmocka_unit_test(damaged_archives_get_one_line),
        cmocka_unit_test(lines_that_are_no_document_are_named),
        cmocka_unit_test(chats_that_are_none_are_named),
        cmocka_unit_test(the_first_mistake_is_told),
        cmocka_unit_test(a_line_may_be_long),
        cmocka_unit_test(a_full_disk_leaves_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
