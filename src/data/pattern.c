#include "data/pattern.h"

#include "base/memory.h"
#include "data/word_scan.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

/* Unicode grows, and PCRE2 knows the version of its own day: what later ones, up to 17, have added.
 * Ranges that it knows already do no harm. */
static const char LETTERS[] =
    "\\p{L}\\x{1c89}-\\x{1c8a}\\x{a7cb}-\\x{a7cd}\\x{a7da}-\\x{a7dc}\\x{105c0}-\\x{105f3}"
    "\\x{10d4a}-\\x{10d65}\\x{10d6f}-\\x{10d85}\\x{10ec2}-\\x{10ec4}\\x{1123f}-\\x{11240}"
    "\\x{11380}-\\x{11389}\\x{1138b}\\x{1138e}\\x{11390}-\\x{113b5}\\x{113b7}\\x{113d1}\\x{113d3}"
    "\\x{11bc0}-\\x{11be0}\\x{11f02}\\x{11f04}-\\x{11f10}\\x{11f12}-\\x{11f33}\\x{1342f}"
    "\\x{13441}-\\x{13446}\\x{13460}-\\x{143fa}\\x{16100}-\\x{1611d}\\x{16d40}-\\x{16d6c}"
    "\\x{18cff}\\x{1b132}\\x{1b155}\\x{1df25}-\\x{1df2a}\\x{1e030}-\\x{1e06d}\\x{1e4d0}-\\x{1e4eb}"
    "\\x{1e5d0}-\\x{1e5ed}\\x{1e5f0}\\x{2b739}\\x{2ebf0}-\\x{2ee5d}\\x{31350}-\\x{323af}";
static const char NUMBERS[] =
    "\\p{N}\\x{10d40}-\\x{10d49}\\x{116d0}-\\x{116e3}\\x{11bf0}-\\x{11bf9}\\x{11f50}-\\x{11f59}"
    "\\x{16130}-\\x{16139}\\x{16d70}-\\x{16d79}\\x{1ccf0}-\\x{1ccf9}\\x{1d2c0}-\\x{1d2d3}"
    "\\x{1e4f0}-\\x{1e4f9}\\x{1e5f1}-\\x{1e5fa}";
/* White_Space; PCRE2's own takes U+180E as well, which has not been one for long. */
static const char SPACES[] = "\\x{9}-\\x{d} \\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}"
                             "\\x{2029}\\x{202f}\\x{205f}\\x{3000}";

/* What a word of GPT-4o, Llama 4 and gpt-oss ends with, and a letter of it. */
#define WORD_TAIL  "(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
#define WORD_UPPER "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define WORD_LOWER "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"

/* GPT-2's, Llama 3's and Qwen's, GPT-4o's, and what digits are split by. Of each no match goes on
 * behind a letter with a space or line feed, and none looks back. */
static const char *const WORD_PATTERNS[] = {
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+",
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}|"
    " ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}|"
    " ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
    "[^\\r\\n\\p{L}\\p{N}]?" WORD_UPPER "*" WORD_LOWER "+" WORD_TAIL
    "[^\\r\\n\\p{L}\\p{N}]?" WORD_UPPER "+" WORD_LOWER "*" WORD_TAIL
    "\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
    "\\p{N}",
    "\\p{N}+",
    "\\p{N}{1,3}"};

enum {
    SCANNED = 3,     /* the first so many, in the order of enum tri_word_style, are scanned for */
    SPLIT_SPACES = 4 /* and so many split spaces */
};

enum { STACK_MOST = 64 << 20, PATTERN_MOST = 1 << 16 };

struct tri_pattern {
    pcre2_code *code;
    bool compiled; /* to machine code, else it is interpreted */
    bool ends_words, splits_spaces;
    enum tri_word_style style;
    struct tri_character_classes *classes; /* NULL: the pattern itself is looked for */
};

/* The pattern as PCRE2 is given it. */
struct writing {
    char *text;
    size_t used;
    bool in_class;
};

static void put(struct writing *to, const char *text, size_t bytes)
{
    memcpy(to->text + to->used, text, bytes);
    to->used += bytes;
}

static void put_class(struct writing *to, const char *members, bool negated)
{
    if (!to->in_class) {
        put(to, negated ? "[^" : "[", negated ? 2 : 1);
    }
    put(to, members, strlen(members));
    if (!to->in_class) {
        put(to, "]", 1);
    }
}

/* What an escape stands for: NULL where PCRE2 reads it as it is. */
static const char *members_of(const char *escape, bool *negated)
{
    *negated = escape[1] == 'S' || escape[1] == 'P';
    if (escape[1] == 's' || escape[1] == 'S') {
        return SPACES;
    }
    bool property = strncmp(escape + 2, "{L}", 3) == 0 || strncmp(escape + 2, "{N}", 3) == 0;
    return !property ? NULL : escape[3] == 'L' ? LETTERS : NUMBERS;
}

static size_t escape_bytes(const char *escape)
{
    if (escape[1] && strchr("pPx", escape[1]) && escape[2] == '{') {
        return strcspn(escape, "}") + (strchr(escape, '}') != NULL);
    }
    return 2;
}

/* Escapes that both read alike, and those that are rewritten. */
static enum tri_status put_escape(const char *place, struct writing *to, const char *escape,
                                  struct tri_error *error)
{
    bool negated;
    size_t bytes = escape_bytes(escape);
    if (!escape[1] || (isalnum((unsigned char)escape[1]) && !strchr("sSpPrntdDxfv", escape[1]))) {
        return tri_fail(error, TRI_BAD_INPUT, "%s: \\%.1s in a pattern is not supported", place,
                        escape + 1);
    }
    const char *members = strchr("sSpP", escape[1]) ? members_of(escape, &negated) : NULL;
    if (members && negated && to->in_class) {
        return tri_fail(error, TRI_BAD_INPUT, "%s: \\%c inside [] is not supported", place,
                        escape[1]);
    }
    if (members) {
        put_class(to, members, negated);
    } else {
        put(to, escape, bytes);
    }
    return TRI_OK;
}

/* What only one of the two knows, or reads in another way: sets of classes, an option that holds to
 * the end of its group, verbs, an interval that gives nothing back. */
static bool is_foreign(const char *at, bool in_class)
{
    if (in_class) {
        return strncmp(at, "&&", 2) == 0 || *at == '[';
    }
    bool group = strncmp(at, "(?", 2) == 0;
    bool option = group && at[2] == 'i';
    return (group && (!at[2] || !strchr(":=!i>", at[2]))) || (option && at[3] != ':') ||
           strncmp(at, "(*", 2) == 0 || strncmp(at, "}+", 2) == 0;
}

static enum tri_status rewrite(const char *place, const char *text, struct writing *to,
                               struct tri_error *error)
{
    for (const char *at = text; *at;) {
        if (is_foreign(at, to->in_class)) {
            return tri_fail(error, TRI_BAD_INPUT, "%s: '%.3s' in a pattern is not supported", place,
                            at);
        }
        if (*at == '\\') {
            TRI_TRY(put_escape(place, to, at, error));
            at += escape_bytes(at);
            continue;
        }
        bool opens = *at == '[' && !to->in_class;
        size_t bytes = opens ? 1 + (size_t)(at[1] == '^') : 1;
        bytes += opens && at[bytes] == ']';
        put(to, at, bytes);
        to->in_class = opens || (to->in_class && *at != ']');
        at += bytes;
    }
    return TRI_OK;
}

/* The ranges behind the property in LETTERS or NUMBERS. */
static size_t parse_ranges(const char *members, int32_t *range)
{
    size_t count = 0;
    const char *at = strchr(members, '}') + 1;
    while (*at) {
        char *end;
        range[2 * count] = (int32_t)strtol(at + 3, &end, 16);
        bool more = strncmp(end, "}-", 2) == 0;
        range[2 * count + 1] = more ? (int32_t)strtol(end + 5, &end, 16) : range[2 * count];
        at = end + 1;
        count++;
    }
    return count;
}

static struct tri_character_classes *make_classes(void)
{
    int32_t letters[2 * sizeof(LETTERS) / 6];
    int32_t numbers[2 * sizeof(NUMBERS) / 6];
    size_t letter_ranges = parse_ranges(LETTERS, letters);
    size_t number_ranges = parse_ranges(NUMBERS, numbers);
    struct tri_character_classes *classes = tri_alloc(TRI_MEMORY_OTHER, sizeof(*classes));
    tri_character_classes_init(classes, letters, letter_ranges, numbers, number_ranges);
    return classes;
}

enum tri_status tri_pattern_create(const char *place, const char *text,
                                   struct tri_pattern **pattern, struct tri_error *error)
{
    *pattern = NULL;
    size_t bytes = strlen(text);
    if (bytes > PATTERN_MOST) {
        return tri_fail(error, TRI_BAD_INPUT, "%s: a pattern of %zu bytes, expected at most %d",
                        place, bytes, PATTERN_MOST);
    }
    struct writing to = {.text = tri_alloc(TRI_MEMORY_OTHER, bytes * sizeof(LETTERS) + 1)};
    enum tri_status status = rewrite(place, text, &to, error);
    if (status != TRI_OK) {
        tri_free(to.text);
        return status;
    }
    int code;
    PCRE2_SIZE at;
    pcre2_code *compiled = pcre2_compile(
        (PCRE2_SPTR)to.text, to.used,
        PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C, &code, &at, NULL);
    tri_free(to.text);
    if (!compiled) {
        PCRE2_UCHAR message[128] = {0};
        (void)pcre2_get_error_message(code, message, sizeof(message));
        return tri_fail(error, TRI_BAD_INPUT, "%s: %s", place, (const char *)message);
    }
    *pattern = tri_alloc(TRI_MEMORY_OTHER, sizeof(**pattern));
    (*pattern)->code = compiled;
    (*pattern)->compiled = pcre2_jit_compile(compiled, PCRE2_JIT_COMPLETE) == 0;
    for (size_t i = 0; i < sizeof(WORD_PATTERNS) / sizeof(*WORD_PATTERNS); i++) {
        bool same = strcmp(text, WORD_PATTERNS[i]) == 0;
        (*pattern)->ends_words |= same;
        (*pattern)->splits_spaces |= same && i < SPLIT_SPACES;
        if (same && i < SCANNED) {
            (*pattern)->style = (enum tri_word_style)i;
            (*pattern)->classes = make_classes();
        }
    }
    return TRI_OK;
}

void tri_pattern_destroy(struct tri_pattern *pattern)
{
    if (pattern) {
        pcre2_code_free(pattern->code);
        tri_free(pattern->classes);
        tri_free(pattern);
    }
}

bool tri_pattern_ends_words(const struct tri_pattern *pattern)
{
    return pattern->ends_words;
}

bool tri_pattern_splits_spaces(const struct tri_pattern *pattern)
{
    return pattern->splits_spaces;
}

struct tri_matcher {
    const struct tri_pattern *pattern;
    pcre2_match_data *data;
    pcre2_match_context *context;
    pcre2_jit_stack *stack;
};

struct tri_matcher *tri_matcher_create(const struct tri_pattern *pattern)
{
    struct tri_matcher *matcher = tri_alloc(TRI_MEMORY_OTHER, sizeof(*matcher));
    matcher->pattern = pattern;
    matcher->data = pcre2_match_data_create(1, NULL);
    matcher->context = pcre2_match_context_create(NULL);
    matcher->stack = pcre2_jit_stack_create(32 << 10, STACK_MOST, NULL);
    TRI_REQUIRE(matcher->data && matcher->context);
    pcre2_jit_stack_assign(matcher->context, NULL, matcher->stack);
    return matcher;
}

void tri_matcher_destroy(struct tri_matcher *matcher)
{
    if (matcher) {
        pcre2_jit_stack_free(matcher->stack);
        pcre2_match_context_free(matcher->context);
        pcre2_match_data_free(matcher->data);
        tri_free(matcher);
    }
}

static int match(const struct tri_matcher *matcher, const unsigned char *text, size_t bytes,
                 size_t from)
{
    const struct tri_pattern *pattern = matcher->pattern;
    return pattern->compiled ? pcre2_jit_match(pattern->code, text, bytes, from, 0, matcher->data,
                                               matcher->context)
                             : pcre2_match(pattern->code, text, bytes, from, PCRE2_NO_UTF_CHECK,
                                           matcher->data, matcher->context);
}

bool tri_matcher_find(struct tri_matcher *matcher, const unsigned char *text, size_t bytes,
                      size_t from, size_t *begin, size_t *end)
{
    *begin = *end = bytes;
    if (matcher->pattern->classes) {
        *begin = from;
        *end = from < bytes ? tri_word_scan(matcher->pattern->classes, matcher->pattern->style,
                                            text, bytes, from)
                            : bytes;
        return true;
    }
    while (from < bytes) {
        int found = match(matcher, text, bytes, from);
        if (found == PCRE2_ERROR_NOMATCH) {
            return true;
        }
        const PCRE2_SIZE *at = pcre2_get_ovector_pointer(matcher->data);
        if (found < 0 || at[1] < at[0]) {
            return false;
        }
        if (at[1] > at[0]) {
            *begin = at[0];
            *end = at[1];
            return true;
        }
        for (from = at[1] + 1; from < bytes && (text[from] & 0xC0) == 0x80;) {
            from++;
        }
    }
    return true;
}
