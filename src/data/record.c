#include "data/record.h"

#include "base/memory.h"
#include "base/status.h"
#include "data/scan.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* One line being read: where it is, what for, and what went wrong. */
struct reading {
    struct tri_record *record;
    const char *line, *end;
    char *reason;
};

static bool refuse(const struct reading *reading, const char *format, ...) TRI_PRINTF(2, 3);

static bool refuse(const struct reading *reading, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    (void)vsnprintf(reading->reason, TRI_REASON_BYTES, format, args);
    va_end(args);
    return false;
}

static bool refuse_scan(const struct reading *reading, const struct tri_scan *scan)
{
    return refuse(reading, "column %zu: expected %s", (size_t)(scan->at - reading->line) + 1,
                  scan->expected);
}

static const char *const ROLES[] = {"system", "user", "assistant", "tool"};
enum { NUM_ROLES = sizeof(ROLES) / sizeof(*ROLES) };

const char *tri_speaker_name(enum tri_speaker role)
{
    return ROLES[role];
}

/* ---- members --------------------------------------------------------------------------------- */

struct member {
    const char *key;
    const char *value; /* NULL: not there; null counts as that too */
    bool null;         /* it is there, and null */
};

static struct member *find_member(struct member *members, int count, const struct tri_string *key)
{
    for (int i = 0; i < count; i++) {
        if (strlen(members[i].key) == key->size &&
            memcmp(members[i].key, key->data, key->size) == 0) {
            return &members[i];
        }
    }
    return NULL;
}

/* Where the values of an object are that scan is at; takes all of it. where: its name for a
 * message. */
static bool find_members(const struct reading *reading, struct tri_scan *scan, const char *where,
                         struct member *members, int count)
{
    struct tri_string *key = &reading->record->key;
    bool first = true;
    if (!tri_scan_take(scan, '{', "an object, {…}")) {
        return refuse_scan(reading, scan);
    }
    for (;;) {
        key->size = 0;
        if (!tri_scan_key(scan, &first, key)) {
            break;
        }
        struct member *member = find_member(members, count, key);
        if (member && member->value) {
            return refuse(reading, "%s%s: is there twice", where, member->key);
        }
        if (member && tri_scan_peek(scan) != 'n') {
            member->value = scan->at;
        } else if (member) {
            member->null = true;
        }
        if (!tri_scan_skip(scan)) {
            break;
        }
    }
    return scan->expected ? refuse_scan(reading, scan) : true;
}

static struct tri_scan scan_from(const struct reading *reading, const char *value)
{
    return (struct tri_scan){value, reading->end, NULL};
}

/* ---- texts ----------------------------------------------------------------------------------- */

static void add_turn(struct tri_record *record, enum tri_speaker role, bool counts, size_t place)
{
    void *turns = record->turns, *places = record->places;
    tri_array_grow(&turns, &record->turns_room, sizeof(*record->turns), record->num_turns, 1);
    tri_array_grow(&places, &record->places_room, sizeof(*record->places), record->num_turns, 1);
    record->turns = turns;
    record->places = places;
    record->places[record->num_turns] = place;
    record->turns[record->num_turns++] =
        (struct tri_turn){.role = role, .counts = counts, .bytes = record->text.size - place};
}

/* The text has found its last place. */
static void place_turns(struct tri_record *record)
{
    for (size_t i = 0; i < record->num_turns; i++) {
        record->turns[i].text = record->text.data ? record->text.data + record->places[i] : "";
    }
}

static bool read_string(const struct reading *reading, const char *where, const char *key,
                        const char *value, struct tri_string *text)
{
    struct tri_scan scan = scan_from(reading, value);
    if (*value != '"') {
        return refuse(reading, "%s%s: found %s, expected a string", where, key,
                      tri_scan_kind(*value));
    }
    return tri_scan_string(&scan, text) ? true : refuse_scan(reading, &scan);
}

/* One of a list of parts: {"type": "text", "text": …}. */
static bool read_part(const struct reading *reading, struct tri_scan *scan, const char *where,
                      int index)
{
    struct member members[] = {{.key = "type"}, {.key = "text"}};
    struct tri_record *record = reading->record;
    char part[128];
    (void)snprintf(part, sizeof(part), "%scontent[%d].", where, index);
    if (!find_members(reading, scan, part, members, 2)) {
        return false;
    }
    record->key.size = 0;
    if (members[0].value && !read_string(reading, part, "type", members[0].value, &record->key)) {
        return false;
    }
    if (record->key.size != 4 || memcmp(record->key.data, "text", 4) != 0) {
        return refuse(reading, "%stype: found '%.*s', expected text, all that is known", part,
                      record->key.size < 40 ? (int)record->key.size : 40,
                      record->key.size ? record->key.data : "");
    }
    if (!members[1].value) {
        return refuse(reading, "%stext: missing", part);
    }
    return read_string(reading, part, "text", members[1].value, &record->text);
}

static bool read_content(const struct reading *reading, const char *where, const char *value)
{
    if (*value != '[') {
        if (*value != '"') {
            return refuse(reading, "%scontent: found %s, expected a string or a list of parts",
                          where, tri_scan_kind(*value));
        }
        return read_string(reading, where, "content", value, &reading->record->text);
    }
    struct tri_scan scan = scan_from(reading, value + 1);
    bool first = true;
    for (int i = 0; tri_scan_element(&scan, &first); i++) {
        if (!read_part(reading, &scan, where, i)) {
            return false;
        }
    }
    return scan.expected ? refuse_scan(reading, &scan) : true;
}

/* ---- messages -------------------------------------------------------------------------------- */

enum { ROLE, CONTENT, WEIGHT, TOOL_CALLS, FUNCTION_CALL, NUM_MEMBERS };

static bool read_role(const struct reading *reading, const char *where, const char *value,
                      enum tri_speaker *role)
{
    struct tri_string *name = &reading->record->key;
    name->size = 0;
    if (!value) {
        return refuse(reading, "%srole: missing", where);
    }
    if (!read_string(reading, where, "role", value, name)) {
        return false;
    }
    for (int i = 0; i < NUM_ROLES; i++) {
        if (strlen(ROLES[i]) == name->size && memcmp(ROLES[i], name->data, name->size) == 0) {
            *role = (enum tri_speaker)i;
            return true;
        }
    }
    return refuse(reading, "%srole: found '%.*s', expected system, user, assistant or tool", where,
                  name->size < 40 ? (int)name->size : 40, name->size ? name->data : "");
}

/* Whether a turn is to be learned: an assistant's, unless its weight is 0. */
static bool read_weight(const struct reading *reading, const char *where, const char *value,
                        enum tri_speaker role, bool *counts)
{
    *counts = role == TRI_SPEAKER_ASSISTANT;
    if (!value) {
        return true;
    }
    struct tri_scan scan = scan_from(reading, value);
    if (!tri_scan_skip(&scan)) {
        return refuse_scan(reading, &scan);
    }
    if (scan.at != value + 1 || (*value != '0' && *value != '1')) {
        return refuse(reading, "%sweight: expected 0 or 1", where);
    }
    *counts = *counts && *value == '1';
    return true;
}

/* [] is nothing: many programs write it. */
static bool is_empty_list(const struct reading *reading, const char *value)
{
    struct tri_scan scan = scan_from(reading, value);
    return tri_scan_take(&scan, '[', "") && tri_scan_peek(&scan) == ']';
}

static bool read_message(const struct reading *reading, struct tri_scan *scan, const char *list,
                         int index)
{
    struct member members[NUM_MEMBERS] = {{.key = "role"},
                                          {.key = "content"},
                                          {.key = "weight"},
                                          {.key = "tool_calls"},
                                          {.key = "function_call"}};
    struct tri_record *record = reading->record;
    size_t place = record->text.size;
    enum tri_speaker role = TRI_SPEAKER_USER;
    bool counts = false;
    char where[64];
    (void)snprintf(where, sizeof(where), "%s[%d].", list, index);
    if (!find_members(reading, scan, where, members, NUM_MEMBERS) ||
        !read_role(reading, where, members[ROLE].value, &role) ||
        !read_weight(reading, where, members[WEIGHT].value, role, &counts)) {
        return false;
    }
    for (int i = TOOL_CALLS; i <= FUNCTION_CALL; i++) {
        if (members[i].value && !is_empty_list(reading, members[i].value)) {
            return refuse(reading, "%s%s: no template here has calls of tools; expected content",
                          where, members[i].key);
        }
    }
    if (!members[CONTENT].value) {
        return refuse(reading, "%scontent: %s", where,
                      members[CONTENT].null ? "found null, expected a string or a list of parts"
                                            : "missing");
    }
    if (!read_content(reading, where, members[CONTENT].value)) {
        return false;
    }
    add_turn(record, role, counts, place);
    return true;
}

static bool read_messages(const struct reading *reading, const char *key, const char *value)
{
    struct tri_scan scan = scan_from(reading, value);
    bool first = true;
    int count = 0;
    if (*value != '[') {
        return refuse(reading, "%s: found %s, expected a list of {\"role\", \"content\"}", key,
                      tri_scan_kind(*value));
    }
    scan.at++;
    for (; tri_scan_element(&scan, &first); count++) {
        if (!read_message(reading, &scan, key, count)) {
            return false;
        }
    }
    if (scan.expected) {
        return refuse_scan(reading, &scan);
    }
    return count > 0 ? true : refuse(reading, "%s: is empty", key);
}

/* ---- lines ----------------------------------------------------------------------------------- */

enum { TEXT, PROMPT, COMPLETION, MESSAGES, CONVERSATIONS, NUM_KINDS };

static bool read_completion(const struct reading *reading, const char *prompt,
                            const char *completion)
{
    struct tri_record *record = reading->record;
    if (!prompt || !completion) {
        return refuse(reading, "%s: missing beside %s", prompt ? "completion" : "prompt",
                      prompt ? "prompt" : "completion");
    }
    record->kind = TRI_RECORD_COMPLETION;
    if (!read_string(reading, "", "prompt", prompt, &record->text)) {
        return false;
    }
    add_turn(record, TRI_SPEAKER_USER, false, 0);
    size_t place = record->text.size;
    if (!read_string(reading, "", "completion", completion, &record->text)) {
        return false;
    }
    add_turn(record, TRI_SPEAKER_ASSISTANT, true, place);
    return true;
}

/* As ShareGPT has them. */
static bool refuse_conversations(const struct reading *reading)
{
    return refuse(reading, "found conversations, expected messages: role (user, assistant) in the "
                           "place of from (human, gpt), content in that of value");
}

static bool read_prompt(const struct reading *reading, const struct member members[NUM_KINDS])
{
    struct tri_record *record = reading->record;
    int found = members[PROMPT].value ? PROMPT : members[MESSAGES].value ? MESSAGES : TEXT;
    if (!members[found].value) {
        return members[CONVERSATIONS].value
                   ? refuse_conversations(reading)
                   : refuse(reading, "found neither, expected prompt, text or messages");
    }
    record->kind = found == MESSAGES ? TRI_RECORD_CHAT : TRI_RECORD_TEXT;
    if (found == MESSAGES) {
        return read_messages(reading, "messages", members[MESSAGES].value);
    }
    if (!read_string(reading, "", members[found].key, members[found].value, &record->text)) {
        return false;
    }
    add_turn(record, TRI_SPEAKER_USER, false, 0);
    return true;
}

static bool read_kind(const struct reading *reading, enum tri_record_format format,
                      const struct member members[NUM_KINDS])
{
    if (format == TRI_RECORDS_PROMPTS) {
        return read_prompt(reading, members);
    }
    bool chat = format == TRI_RECORDS_CHAT;
    int wanted = chat ? MESSAGES : TEXT, other = chat ? TEXT : MESSAGES;
    bool completion = members[PROMPT].value || members[COMPLETION].value;
    if (members[wanted].value && completion) {
        return refuse(reading, "found both %s and %s, expected one of them", members[wanted].key,
                      members[PROMPT].value ? "prompt" : "completion");
    }
    if (completion) {
        return read_completion(reading, members[PROMPT].value, members[COMPLETION].value);
    }
    if (!members[wanted].value && members[CONVERSATIONS].value && !members[other].value) {
        return refuse_conversations(reading);
    }
    if (!members[wanted].value) {
        return refuse(reading, "found %s, expected %s, or prompt and completion%s",
                      members[other].value ? members[other].key : "neither", members[wanted].key,
                      !members[other].value ? ""
                      : chat                ? " (--format jsonl reads text)"
                                            : " (--format chat reads messages)");
    }
    struct tri_record *record = reading->record;
    if (chat) {
        record->kind = TRI_RECORD_CHAT;
        return read_messages(reading, "messages", members[MESSAGES].value);
    }
    record->kind = TRI_RECORD_TEXT;
    if (!read_string(reading, "", "text", members[TEXT].value, &record->text)) {
        return false;
    }
    add_turn(record, TRI_SPEAKER_USER, true, 0);
    return true;
}

bool tri_record_read(struct tri_record *record, enum tri_record_format format, const char *line,
                     size_t bytes, char reason[TRI_REASON_BYTES])
{
    struct member members[NUM_KINDS] = {{.key = "text"},
                                        {.key = "prompt"},
                                        {.key = "completion"},
                                        {.key = "messages"},
                                        {.key = "conversations"}};
    const struct reading reading = {record, line, line + bytes, reason};
    struct tri_scan scan = scan_from(&reading, line);
    record->num_turns = 0;
    record->text.size = 0;
    if (!find_members(&reading, &scan, "", members, NUM_KINDS)) {
        return false;
    }
    if (!tri_scan_finish(&scan)) {
        return refuse_scan(&reading, &scan);
    }
    if (!read_kind(&reading, format, members)) {
        return false;
    }
    place_turns(record);
    return true;
}

bool tri_record_is_chat(struct tri_record *record, const char *line, size_t bytes)
{
    struct member members[] = {{.key = "messages"}};
    char reason[TRI_REASON_BYTES];
    const struct reading reading = {record, line, line + bytes, reason};
    struct tri_scan scan = scan_from(&reading, line);
    return find_members(&reading, &scan, "", members, 1) && members[0].value;
}

void tri_record_fini(struct tri_record *record)
{
    tri_string_fini(&record->text);
    tri_string_fini(&record->key);
    tri_free(record->turns);
    tri_free(record->places);
    *record = (struct tri_record){0};
}
