/* Chats have the tokens that transformers' templates give, and what the assistant says counts. */
#include "files.h"

#include "base/file.h"
#include "base/memory.h"
#include "data/chat.h"
#include "data/chat_folder.h"
#include "data/encode.h"
#include "data/tokenize.h"
#include "data/tokenizer.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char CHATS[] = TESTDATA_DIR "/chats";
static const char *const names[] = {"chatml", "llama3", "mistral", "olmo", "qwen", "qwen2.5"};
enum { NUM_NAMES = sizeof(names) / sizeof(*names) };
/* What a folder with such a template is found to have. */
static const char *const found[] = {"chatml", "llama3", "mistral", "olmo", "chatml", "chatml"};

static json_t *load(const char *name)
{
    char path[512];
    (void)snprintf(path, sizeof(path), "%s/%s", CHATS, name);
    json_t *root = json_load_file(path, 0, NULL);
    assert_non_null(root);
    return root;
}

static struct tri_tokenize_result tokenize(const char *tokenizer, const char *template, char *file)
{
    struct tri_error error = {0};
    struct tri_tokenize_result result;
    char *files[] = {file};
    const struct tri_tokenize_args args = {.tokenizer = tokenizer,
                                           .folder = "out",
                                           .num_files = 1,
                                           .files = files,
                                           .separator = -1,
                                           .template = template};
    if (tri_tokenize_files(&args, &result, &error) != TRI_OK) {
        fail_msg("%s", error.message);
    }
    return result;
}

/* What out/train_000000 has is the documents of a list of {"ids", "counts"}. */
static void expect_documents(const char *name, const json_t *documents)
{
    size_t bytes, mask_bytes, docs_bytes, at = 0, document;
    unsigned char *tokens = files_read("out/train_000000.bin", &bytes);
    unsigned char *mask = files_read("out/train_000000.mask", &mask_bytes);
    unsigned char *docs = files_read("out/train_000000.docs", &docs_bytes);
    const json_t *entry;
    assert_int_equal(docs_bytes, 1024 + 8 * json_array_size(documents));
    json_array_foreach(documents, document, entry)
    {
        const json_t *ids = json_object_get(entry, "ids");
        const json_t *counts = json_object_get(entry, "counts");
        uint64_t place;
        memcpy(&place, docs + 1024 + 8 * document, sizeof(place));
        assert_int_equal(place, at);
        for (size_t i = 0; i < json_array_size(ids); i++, at++) {
            assert_true(1024 + 2 * at + 2 <= bytes);
            int id = tokens[1024 + 2 * at] | tokens[1025 + 2 * at] << 8;
            int counted = mask[1024 + at / 8] >> (at % 8) & 1;
            if (id != json_integer_value(json_array_get(ids, i)) ||
                counted != json_integer_value(json_array_get(counts, i))) {
                fail_msg("%s, chat %zu, token %zu: %d, counted %d", name, document, i, id, counted);
            }
        }
    }
    assert_int_equal(bytes, 1024 + 2 * at);
    tri_free(tokens);
    tri_free(mask);
    tri_free(docs);
}

static void templates_are_those_of_transformers(void **state)
{
    (void)state;
    files_enter("chat_golden");
    char file[512];
    (void)snprintf(file, sizeof(file), "%s/chats.jsonl", CHATS);
    json_t *golden = load("golden.json");
    for (int i = 0; i < 4; i++) {
        struct tri_tokenize_result result = tokenize(CHATS, names[i], file);
        assert_string_equal(result.template, names[i]);
        expect_documents(names[i], json_object_get(golden, names[i]));
    }
    json_decref(golden);
}

static void copy_tokenizer(const char *folder)
{
    char path[512];
    size_t bytes;
    struct tri_error error = {0};
    (void)snprintf(path, sizeof(path), "%s/tokenizer.json", CHATS);
    unsigned char *data = files_read(path, &bytes);
    assert_int_equal(tri_file_make_dirs(folder, &error), TRI_OK);
    (void)snprintf(path, sizeof(path), "%s/tokenizer.json", folder);
    files_write(path, data, bytes);
    tri_free(data);
}

static void write_config(const json_t *config)
{
    assert_int_equal(json_dump_file(config, "model/tokenizer_config.json", 0), 0);
}

/* As a string, as one of a list, and as a file of its own. */
static void a_folder_says_which_template_it_has(void **state)
{
    (void)state;
    files_enter("chat_folder");
    copy_tokenizer("model");
    char file[512];
    (void)snprintf(file, sizeof(file), "%s/chats.jsonl", CHATS);
    json_t *golden = load("golden.json"), *templates = load("templates.json");
    for (int i = 0; i < NUM_NAMES; i++) {
        json_t *config = json_object_get(templates, names[i]);
        const char *jinja = json_string_value(json_object_get(config, "chat_template"));
        write_config(config);
        assert_string_equal(tokenize("model", NULL, file).template, found[i]);
        expect_documents(names[i], json_object_get(golden, names[i]));
        json_t *list = json_pack("[{s:s,s:s},{s:s,s:s}]", "name", "tool_use", "template", "x",
                                 "name", "default", "template", jinja);
        assert_non_null(list);
        json_t *other = json_copy(config);
        assert_int_equal(json_object_set_new(other, "chat_template", list), 0);
        json_t *end =
            json_pack("{s:s,s:b}", "content",
                      json_string_value(json_object_get(config, "eos_token")), "lstrip", 0);
        assert_int_equal(json_object_set_new(other, "eos_token", end), 0);
        write_config(other);
        assert_string_equal(tokenize("model", NULL, file).template, found[i]);
        expect_documents(names[i], json_object_get(golden, names[i]));
        assert_int_equal(json_object_set_new(other, "chat_template", json_string("x")), 0);
        write_config(other);
        files_write("model/chat_template.jinja", jinja, strlen(jinja));
        assert_string_equal(tokenize("model", NULL, file).template, found[i]);
        expect_documents(names[i], json_object_get(golden, names[i]));
        assert_int_equal(remove("model/chat_template.jinja"), 0);
        json_decref(other);
    }
    json_decref(golden);
    json_decref(templates);
}

static void expect_refusal(const char *tokenizer, const char *template, char *file,
                           const char *first, const char *second)
{
    struct tri_error error = {0};
    struct tri_tokenize_result result;
    char *files[] = {file};
    const struct tri_tokenize_args args = {.tokenizer = tokenizer,
                                           .folder = "none",
                                           .num_files = 1,
                                           .files = files,
                                           .separator = -1,
                                           .format = TRI_FORMAT_CHAT,
                                           .template = template};
    assert_int_equal(tri_tokenize_files(&args, &result, &error), TRI_BAD_INPUT);
    files_expect_line(&error, first, second, NULL);
    assert_false(tri_file_exists("none"));
}

static void other_folders_are_asked_for_a_template(void **state)
{
    (void)state;
    files_enter("chat_other");
    copy_tokenizer("model");
    char file[512];
    (void)snprintf(file, sizeof(file), "%s/chats.jsonl", CHATS);
    /* Zephyr's looks like OLMo's, Llama 2's and Mistral's third like Mixtral's, Phi's like
     * Qwen's. */
    static const char *const others[] = {
        "{{ '<|user|>\n' + message['content'] + eos_token }}{{ '<|assistant|>\n' + "
        "message['content'] + eos_token }}",
        "{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}",
        "{{ ' [INST] <<SYS>>' }}{{ ' [INST] ' }}{{ ' [/INST]' }}",
        "{{ '[INST] ' + message['content'] + '[/INST]' }}",
        "{{ '<|im_start|>user<|im_sep|>' + content + '<|im_end|>' }}",
        "{{ '<|im_start|><|im_end|><think>' }}",
        "{{ '<|im_start|>' + message['content'] | trim + '<|im_end|>' }}",
        "{{ '<|im_start|>system\\nNow: ' + time + '<|im_end|>' }}",
        "{{ '<|start_header_id|><|end_header_id|><|eot_id|>' + content | trim + date_string }}",
        "{{ '<|start_header_id|><|end_header_id|><|eot_id|>' + content }}",
        /* Tulu's, without a line's end behind an answer. */
        "{{ '<|user|>\n' + message['content'] + '\n' }}{{ '<|assistant|>\n' + "
        "message['content'] + eos_token }}",
        "<start_of_turn>", ""};
    for (size_t i = 0; i < sizeof(others) / sizeof(*others); i++) {
        json_t *config = json_pack("{s:s}", "chat_template", others[i]);
        write_config(config);
        json_decref(config);
        expect_refusal("model", NULL, file, "model: its chat template is none", "--template");
    }
    files_write("model/tokenizer_config.json", "{}", 2);
    expect_refusal("model", NULL, file, "model has no chat template", "--template");
    files_write("model/tokenizer_config.json", "{\"chat_template\":", 17);
    expect_refusal("model", NULL, file, "tokenizer_config.json", "expected");
    expect_refusal(TESTDATA_DIR "/golden/tokenizers/gpt2", "chatml", file,
                   "has no token '<|im_end|>', which the template chatml needs", "gpt2");
}

/* The file beside shards whose template was named: recorded, for golden.py holds it against
 * transformers. Then the folder says itself what template it has. */
static void a_named_template_is_kept_beside_the_shards(void **state)
{
    (void)state;
    files_enter("chat_kept");
    static const char *const named[] = {"chatml", "llama3", "mistral", "olmo", "plain"};
    char file[512], path[512];
    (void)snprintf(file, sizeof(file), "%s/chats.jsonl", CHATS);
    json_t *golden = load("golden.json");
    for (int i = 0; i < 5; i++) {
        size_t bytes, expected_bytes;
        (void)tokenize(CHATS, named[i], file);
        (void)snprintf(path, sizeof(path), "%s/kept/%s.jinja", CHATS, named[i]);
        unsigned char *kept = files_read("out/tokenizer/chat_template.jinja", &bytes);
        unsigned char *expected = files_read(path, &expected_bytes);
        assert_int_equal(bytes, expected_bytes);
        assert_memory_equal(kept, expected, bytes);
        unsigned char *tokens = files_read("out/train_000000.bin", &expected_bytes);
        assert_string_equal(tokenize("out/tokenizer", NULL, file).template, named[i]);
        unsigned char *again = files_read("out/train_000000.bin", &bytes);
        assert_int_equal(bytes, expected_bytes);
        assert_memory_equal(again, tokens, bytes);
        if (i < 4) {
            expect_documents(named[i], json_object_get(golden, named[i]));
        }
        tri_free(kept);
        tri_free(expected);
        tri_free(tokens);
        tri_free(again);
    }
    json_decref(golden);
}

/* For whoever runs the model elsewhere; what else the file says stays. */
static void a_template_s_stop_ends_a_text(void **state)
{
    (void)state;
    files_enter("chat_stops");
    char file[512];
    (void)snprintf(file, sizeof(file), "%s/chats.jsonl", CHATS);
    copy_tokenizer("model");
    json_t *config = json_pack("{s:s}", "eos_token", "<|endoftext|>");
    write_config(config);
    json_decref(config);
    static const char said[] = "{\"top_p\": 0.5, \"eos_token_id\": 7}";
    for (int i = 0; i < 3; i++) {
        struct tri_error error = {0};
        struct tri_tokenizer *tokenizer;
        if (i > 0) {
            files_write("model/generation_config.json", said, sizeof(said) - 1);
        }
        (void)tokenize(i < 2 ? "model" : "out/tokenizer", "chatml", file);
        assert_int_equal(tri_tokenizer_create("out/tokenizer", &tokenizer, &error), TRI_OK);
        int32_t end = tri_tokenizer_find_special(tokenizer, "<|endoftext|>");
        int32_t stop = tri_tokenizer_find_special(tokenizer, "<|im_end|>");
        tri_tokenizer_destroy(tokenizer);
        json_t *root = json_load_file("out/tokenizer/generation_config.json", 0, NULL);
        const json_t *ids = json_object_get(root, "eos_token_id");
        assert_int_equal(json_array_size(ids), 2);
        assert_int_equal(json_integer_value(json_array_get(ids, 0)), i > 0 ? 7 : end);
        assert_int_equal(json_integer_value(json_array_get(ids, 1)), stop);
        assert_true((json_real_value(json_object_get(root, "top_p")) > 0.4) == (i > 0));
        json_decref(root);
    }
}

static void tools_that_a_folder_has_otherwise_are_refused(void **state)
{
    (void)state;
    files_enter("chat_tools");
    copy_tokenizer("model");
    json_t *templates = load("templates.json");
    static const char chat[] = "{\"messages\":[{\"role\":\"user\",\"content\":\"U\"},"
                               "{\"role\":\"tool\",\"content\":\"T\"}]}";
    files_write("a.jsonl", chat, sizeof(chat) - 1);
    write_config(json_object_get(templates, "qwen2.5"));
    expect_refusal("model", NULL, "a.jsonl", "a.jsonl:1: messages[1].role: found tool", "folder");
    write_config(json_object_get(templates, "qwen"));
    (void)tokenize("model", NULL, "a.jsonl");
    json_decref(templates);
}

static void special_tokens_in_a_text_are_text(void **state)
{
    (void)state;
    files_enter("chat_spellings");
    static const char user[] = "stop<|im_end|>\\n<|im_start|>system\\n<|endoftext|></s>";
    char line[512];
    struct tri_error error = {0};
    struct tri_tokenizer *tokenizer;
    (void)snprintf(line, sizeof(line),
                   "{\"messages\":[{\"role\":\"user\",\"content\":\"%s\"},{\"role\":\"assistant\","
                   "\"content\":\"<|im_end|>\"}]}\n",
                   user);
    files_write("a.jsonl", line, strlen(line));
    (void)tokenize(CHATS, "chatml", "a.jsonl");
    assert_int_equal(tri_tokenizer_create(CHATS, &tokenizer, &error), TRI_OK);
    int32_t begin = tri_tokenizer_find_special(tokenizer, "<|im_start|>");
    int32_t end = tri_tokenizer_find_special(tokenizer, "<|im_end|>");
    int32_t text_end = tri_tokenizer_find_special(tokenizer, "<|endoftext|>");
    assert_true(begin >= 0 && end >= 0 && text_end >= 0);
    assert_int_equal(tri_tokenizer_find_special(tokenizer, "<|im_end"), -1);
    size_t bytes;
    unsigned char *tokens = files_read("out/train_000000.bin", &bytes);
    int begins = 0, ends = 0, text_ends = 0;
    int32_t ids[512];
    int64_t count = (int64_t)(bytes - 1024) / 2;
    assert_true(count < 512);
    for (int64_t i = 0; i < count; i++) {
        ids[i] = tokens[1024 + 2 * i] | tokens[1025 + 2 * i] << 8;
        begins += ids[i] == begin;
        ends += ids[i] == end;
        text_ends += ids[i] == text_end;
    }
    assert_int_equal(begins, 2);
    assert_int_equal(ends, 2);
    assert_int_equal(text_ends, 0);
    char text[512];
    size_t length = tri_tokenizer_decode(tokenizer, ids, count, text, sizeof(text));
    static const char expected[] =
        "<|im_start|>user\nstop<|im_end|>\n<|im_start|>system\n<|endoftext|></s><|im_end|>\n"
        "<|im_start|>assistant\n<|im_end|><|im_end|>\n";
    assert_int_equal(length, sizeof(expected) - 1);
    assert_memory_equal(text, expected, length);
    tri_free(tokens);
    tri_tokenizer_destroy(tokenizer);
}

/* A completion ends with the tokenizer's end of text, which counts; so do special tokens that
 * somebody wrote into a text that is in no chat. */
static void completions_end_with_the_end_of_text(void **state)
{
    (void)state;
    files_enter("chat_completion");
    static const char lines[] = "{\"prompt\":\"2+2=\",\"completion\":\"4\"}\n"
                                "{\"text\":\"a<|endoftext|>b\"}\n";
    files_write("a.jsonl", lines, sizeof(lines) - 1);
    (void)tokenize(TESTDATA_DIR "/golden/tokenizers/gpt2", NULL, "a.jsonl");
    struct tri_error error = {0};
    struct tri_tokenizer *tokenizer;
    assert_int_equal(
        tri_tokenizer_create(TESTDATA_DIR "/golden/tokenizers/gpt2", &tokenizer, &error), TRI_OK);
    int32_t end = tri_tokenizer_find_special(tokenizer, "<|endoftext|>");
    tri_tokenizer_destroy(tokenizer);
    size_t bytes, mask_bytes;
    unsigned char *tokens = files_read("out/train_000000.bin", &bytes);
    unsigned char *mask = files_read("out/train_000000.mask", &mask_bytes);
    int64_t count = (int64_t)(bytes - 1024) / 2;
    int32_t ids[64];
    assert_true(count > 5 && count < 64);
    int ends = 0;
    for (int64_t i = 0; i < count; i++) {
        ids[i] = tokens[1024 + 2 * i] | tokens[1025 + 2 * i] << 8;
        ends += ids[i] == end;
        assert_true(ids[i] != end || (mask[1024 + i / 8] >> (i % 8) & 1));
    }
    assert_int_equal(ends, 2);
    assert_int_equal(ids[count - 2], end);
    assert_int_equal(mask[1024] & 7, 0);
    tri_free(tokens);
    tri_free(mask);
}

/* A tokenizer in characters puts no space before what follows a special token. */
static void a_tokenizer_in_characters_has_the_same_layout(void **state)
{
    (void)state;
    files_enter("chat_characters");
    char file[512];
    (void)snprintf(file, sizeof(file), "%s/chats.jsonl", CHATS);
    json_t *golden = load("golden.json");
    (void)tokenize(TESTDATA_DIR "/golden/tokenizers/mixtral", "mistral", file);
    expect_documents("mixtral", json_object_get(golden, "mixtral"));
    json_decref(golden);
}

/* By hand, as tokens of bytes. */
static void expect_text(const char *template, const char *line, const char *expected)
{
    char text[1024];
    size_t bytes, at = 0;
    files_write("a.jsonl", line, strlen(line));
    (void)tokenize("byte", template, "a.jsonl");
    unsigned char *tokens = files_read("out/train_000000.bin", &bytes);
    for (size_t i = 1024; i < bytes; i += 2) {
        text[at++] = (char)tokens[i];
    }
    text[at] = '\0';
    assert_string_equal(text, expected);
    tri_free(tokens);
}

static void every_role_has_its_place(void **state)
{
    (void)state;
    files_enter("chat_roles");
    static const char chat[] =
        "{\"messages\":[{\"role\":\"system\",\"content\":\"S\"},{\"role\":\"user\",\"content\":"
        "\"U\"},"
        "{\"role\":\"assistant\",\"content\":\" A \",\"tool_calls\":[]},"
        "{\"role\":\"tool\",\"content\":\"T\"},{\"role\":\"assistant\",\"content\":\"B\"}]}\n";
    expect_text("chatml", chat,
                "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nU<|im_end|>\n"
                "<|im_start|>assistant\n A <|im_end|>\n<|im_start|>tool\nT<|im_end|>\n"
                "<|im_start|>assistant\nB<|im_end|>\n");
    expect_text("llama3", chat,
                "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nS<|eot_id|>"
                "<|start_header_id|>user<|end_header_id|>\n\nU<|eot_id|>"
                "<|start_header_id|>assistant<|end_header_id|>\n\nA<|eot_id|>"
                "<|start_header_id|>tool<|end_header_id|>\n\nT<|eot_id|>"
                "<|start_header_id|>assistant<|end_header_id|>\n\nB<|eot_id|>");
    expect_text("plain", chat, "System: S\nUser: U\nAssistant:  A \nTool: T\nAssistant: B\n");
    static const char turns[] =
        "{\"messages\":[{\"role\":\"system\",\"content\":\"S\"},{\"role\":\"user\",\"content\":"
        "\"U\"},"
        "{\"role\":\"assistant\",\"content\":\"A\"},{\"role\":\"user\",\"content\":\"V\"},"
        "{\"role\":\"assistant\",\"content\":\"B\"}]}\n";
    expect_text("mistral", turns, "<s> [INST] S\n\nU [/INST] A</s> [INST] V [/INST] B</s>");
    expect_text("olmo", turns,
                "<|endoftext|><|system|>\nS\n<|user|>\nU\n<|assistant|>\nA<|endoftext|>\n"
                "<|user|>\nV\n<|assistant|>\nB<|endoftext|>");
}

/* What counts is found in one pass, however often that changes. */
static void a_chat_may_have_many_turns(void **state)
{
    (void)state;
    files_enter("chat_turns");
    enum { PAIRS = 40000 };
    static const char pair[] = "{\"role\":\"user\",\"content\":\"some question\"},"
                               "{\"role\":\"assistant\",\"content\":\"an answer\"}";
    FILE *file = fopen("a.jsonl", "wb");
    assert_non_null(file);
    assert_true(fputs("{\"messages\":[", file) >= 0);
    for (int i = 0; i < PAIRS; i++) {
        assert_true(fprintf(file, "%s%s", i == 0 ? "" : ",", pair) > 0);
    }
    assert_true(fputs("]}\n", file) >= 0);
    assert_int_equal(fclose(file), 0);
    struct tri_tokenize_result result = tokenize("byte", "plain", "a.jsonl");
    assert_int_equal(result.counts.tokens, PAIRS * strlen("User: some question\nAssistant: "
                                                          "an answer\n"));
    assert_int_equal(result.counts.counted, PAIRS * strlen(" an answer\n"));
}

/* The pieces' texts are one text; their names are in it too. */
static void expect_start(const struct tri_chat *chat, const struct tri_record *record,
                         const struct tri_pieces *asked)
{
    struct tri_pieces whole = {0};
    char reason[TRI_REASON_BYTES];
    assert_true(tri_chat_lay_out(chat, record->turns, record->num_turns, &whole, reason));
    assert_true(asked->text.size < whole.text.size);
    assert_memory_equal(whole.text.data, asked->text.data, asked->text.size);
    tri_pieces_fini(&whole);
}

static void expect_asked(const struct tri_chat *chat, const struct tri_tokenizer *tokenizer,
                         const struct tri_record *record, const json_t *ids)
{
    struct tri_pieces asked = {0};
    struct tri_encoded encoded = {0};
    struct tri_error error = {0};
    char reason[TRI_REASON_BYTES];
    struct tri_text_encoder *encoder = tri_text_encoder_create(tokenizer);
    assert_true(tri_chat_invite(chat, record->turns, record->num_turns - 1, &asked, reason));
    expect_start(chat, record, &asked);
    assert_int_equal(tri_pieces_encode(&asked, tokenizer, encoder, true, &encoded, &error), TRI_OK);
    assert_true(encoded.size > 0);
    assert_true(!ids || encoded.size == json_array_size(ids));
    for (size_t i = 0; ids && i < encoded.size; i++) {
        assert_int_equal(encoded.tokens[i], json_integer_value(json_array_get(ids, i)));
        assert_false(i + 1 == encoded.size && encoded.counts[i]);
    }
    tri_text_encoder_destroy(encoder);
    tri_encoded_fini(&encoded);
    tri_pieces_fini(&asked);
}

/* All chats of the file but their last turn, which is the assistant's. */
static void expect_all_asked(const struct tri_chat *chat, const struct tri_tokenizer *tokenizer,
                             const json_t *documents)
{
    char path[512], reason[TRI_REASON_BYTES];
    size_t bytes, index = 0;
    (void)snprintf(path, sizeof(path), "%s/chats.jsonl", CHATS);
    char *lines = (char *)files_read(path, &bytes);
    struct tri_record record = {0};
    for (char *at = lines, *end; at < lines + bytes; at = end + 1, index++) {
        end = memchr(at, '\n', (size_t)(lines + bytes - at));
        assert_true(tri_record_read(&record, TRI_RECORDS_CHAT, at, (size_t)(end - at), reason));
        expect_asked(chat, tokenizer, &record,
                     json_object_get(json_array_get(documents, index), "asked"));
    }
    assert_int_equal(index, 7);
    tri_record_fini(&record);
    tri_free(lines);
}

static void what_stands_before_an_answer_is_that_of_transformers(void **state)
{
    (void)state;
    files_enter("chat_asked");
    copy_tokenizer("model");
    json_t *golden = load("golden.json"), *templates = load("templates.json");
    struct tri_error error = {0};
    struct tri_tokenizer *tokenizer;
    struct tri_chat chat;
    bool there;
    assert_int_equal(tri_tokenizer_create("model", &tokenizer, &error), TRI_OK);
    for (int i = 0; i < NUM_NAMES; i++) {
        write_config(json_object_get(templates, names[i]));
        assert_int_equal(tri_chat_find("model", &chat, &there, &error), TRI_OK);
        assert_true(there);
        expect_all_asked(&chat, tokenizer, json_object_get(golden, names[i]));
    }
    assert_int_equal(tri_chat_create("plain", &chat, &error), TRI_OK);
    expect_all_asked(&chat, tokenizer, NULL);
    char reason[TRI_REASON_BYTES];
    const struct tri_turn answer = {.role = TRI_SPEAKER_ASSISTANT, .text = "a", .bytes = 1};
    struct tri_pieces asked = {0};
    assert_int_equal(tri_chat_create("mistral", &chat, &error), TRI_OK);
    assert_false(tri_chat_invite(&chat, &answer, 1, &asked, reason));
    assert_int_equal(asked.num_pieces, 0);
    tri_tokenizer_destroy(tokenizer);
    json_decref(golden);
    json_decref(templates);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(templates_are_those_of_transformers),
        cmocka_unit_test(a_folder_says_which_template_it_has),
        cmocka_unit_test(other_folders_are_asked_for_a_template),
        cmocka_unit_test(what_stands_before_an_answer_is_that_of_transformers),
        cmocka_unit_test(a_named_template_is_kept_beside_the_shards),
        cmocka_unit_test(a_template_s_stop_ends_a_text),
        cmocka_unit_test(tools_that_a_folder_has_otherwise_are_refused),
        cmocka_unit_test(special_tokens_in_a_text_are_text),
        cmocka_unit_test(completions_end_with_the_end_of_text),
        cmocka_unit_test(a_tokenizer_in_characters_has_the_same_layout),
        cmocka_unit_test(every_role_has_its_place),
        cmocka_unit_test(a_chat_may_have_many_turns),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
