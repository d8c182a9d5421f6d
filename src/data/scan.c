#include "data/scan.h"

#include <stdint.h>
#include <string.h>

static bool fail(struct tri_scan *scan, const char *at, const char *expected)
{
    scan->at = at;
    if (!scan->expected) {
        scan->expected = expected;
    }
    return false;
}

static void skip_space(struct tri_scan *scan)
{
    while (scan->at < scan->end &&
           (*scan->at == ' ' || *scan->at == '\t' || *scan->at == '\r' || *scan->at == '\n')) {
        scan->at++;
    }
}

char tri_scan_peek(struct tri_scan *scan)
{
    skip_space(scan);
    return scan->at < scan->end ? *scan->at : '\0';
}

bool tri_scan_take(struct tri_scan *scan, char byte, const char *expected)
{
    skip_space(scan);
    if (scan->at == scan->end || *scan->at != byte) {
        return fail(scan, scan->at, expected);
    }
    scan->at++;
    return true;
}

bool tri_scan_finish(struct tri_scan *scan)
{
    skip_space(scan);
    return scan->at == scan->end || fail(scan, scan->at, "the line's end behind the object");
}

/* ---- strings --------------------------------------------------------------------------------- */

/* Bytes of the UTF-8 character at data[0], above 127; 0: there is none. */
static int character_bytes(const unsigned char *data, size_t left)
{
    unsigned char first = data[0];
    int bytes = first >= 0xc2 && first <= 0xdf   ? 2
                : first >= 0xe0 && first <= 0xef ? 3
                : first >= 0xf0 && first <= 0xf4 ? 4
                                                 : 0;
    if (bytes == 0 || left < (size_t)bytes) {
        return 0;
    }
    for (int i = 1; i < bytes; i++) {
        if ((data[i] & 0xc0) != 0x80) {
            return 0;
        }
    }
    bool overlong = (first == 0xe0 && data[1] < 0xa0) || (first == 0xf0 && data[1] < 0x90);
    bool surrogate = first == 0xed && data[1] > 0x9f;
    bool beyond = first == 0xf4 && data[1] > 0x8f;
    return overlong || surrogate || beyond ? 0 : bytes;
}

/* Four hexadecimal digits at `at`; -1: there are none. */
static int32_t read_hex(const char *at, const char *end)
{
    int32_t value = 0;
    if (end - at < 4) {
        return -1;
    }
    for (int i = 0; i < 4; i++) {
        char c = at[i];
        int digit = c >= '0' && c <= '9'   ? c - '0'
                    : c >= 'a' && c <= 'f' ? c - 'a' + 10
                    : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                           : -1;
        if (digit < 0) {
            return -1;
        }
        value = value * 16 + digit;
    }
    return value;
}

static void append_character(struct tri_string *text, int32_t code)
{
    unsigned char bytes[4];
    size_t count;
    if (code < 0x80) {
        bytes[0] = (unsigned char)code;
        count = 1;
    } else if (code < 0x800) {
        bytes[0] = (unsigned char)(0xc0 | (code >> 6));
        bytes[1] = (unsigned char)(0x80 | (code & 0x3f));
        count = 2;
    } else if (code < 0x10000) {
        bytes[0] = (unsigned char)(0xe0 | (code >> 12));
        bytes[1] = (unsigned char)(0x80 | ((code >> 6) & 0x3f));
        bytes[2] = (unsigned char)(0x80 | (code & 0x3f));
        count = 3;
    } else {
        bytes[0] = (unsigned char)(0xf0 | (code >> 18));
        bytes[1] = (unsigned char)(0x80 | ((code >> 12) & 0x3f));
        bytes[2] = (unsigned char)(0x80 | ((code >> 6) & 0x3f));
        bytes[3] = (unsigned char)(0x80 | (code & 0x3f));
        count = 4;
    }
    tri_string_append(text, bytes, count);
}

/* The code of an escape "\uXXXX" at `at`; -1: there is none. */
static int32_t peek_code(const char *at, const char *end)
{
    return end - at >= 6 && at[0] == '\\' && at[1] == 'u' ? read_hex(at + 2, end) : -1;
}

/* Half a surrogate pair is no character: U+FFFD stands for it. */
static bool take_code(struct tri_scan *scan, struct tri_string *text)
{
    int32_t code = peek_code(scan->at, scan->end);
    if (code < 0) {
        return fail(scan, scan->at, "four hexadecimal digits behind \\u");
    }
    scan->at += 6;
    if (code >= 0xd800 && code <= 0xdfff) {
        int32_t low = code < 0xdc00 ? peek_code(scan->at, scan->end) : -1;
        bool pair = low >= 0xdc00 && low <= 0xdfff;
        code = pair ? 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00) : 0xfffd;
        scan->at += pair ? 6 : 0;
    }
    if (text) {
        append_character(text, code);
    }
    return true;
}

static bool take_escape(struct tri_scan *scan, struct tri_string *text)
{
    static const char names[] = "\"\\/bfnrt", values[] = "\"\\/\b\f\n\r\t";
    char name = scan->end - scan->at >= 2 ? scan->at[1] : '\0';
    if (name == 'u') {
        return take_code(scan, text);
    }
    const char *found = name ? strchr(names, name) : NULL;
    if (!found) {
        return fail(scan, scan->at, "an escape of JSON: \\\" \\\\ \\/ \\b \\f \\n \\r \\t or \\u");
    }
    if (text) {
        tri_string_append(text, &values[found - names], 1);
    }
    scan->at += 2;
    return true;
}

/* What needs no second look, up to a quote, a backslash or a failure. */
static bool take_plain(struct tri_scan *scan, struct tri_string *text)
{
    const char *begin = scan->at, *at = begin;
    const char *wrong = NULL;
    while (at < scan->end && *at != '"' && *at != '\\') {
        unsigned char c = (unsigned char)*at;
        int bytes = 1;
        if (c < 0x20) {
            wrong = c == 0 ? "no zero byte in a string"
                           : "no control character in a string but as an escape";
        } else if (c >= 0x80) {
            bytes = character_bytes((const unsigned char *)at, (size_t)(scan->end - at));
            wrong = bytes == 0 ? "valid UTF-8" : NULL;
        }
        if (wrong) {
            return fail(scan, at, wrong);
        }
        at += bytes;
    }
    if (text && at > begin) {
        tri_string_append(text, begin, (size_t)(at - begin));
    }
    scan->at = at;
    return true;
}

bool tri_scan_string(struct tri_scan *scan, struct tri_string *text)
{
    if (!tri_scan_take(scan, '"', "a string")) {
        return false;
    }
    for (;;) {
        if (!take_plain(scan, text)) {
            return false;
        }
        if (scan->at == scan->end) {
            return fail(scan, scan->at, "the quote that ends a string");
        }
        if (*scan->at == '"') {
            scan->at++;
            return true;
        }
        if (!take_escape(scan, text)) {
            return false;
        }
    }
}

/* ---- values ---------------------------------------------------------------------------------- */

static const char *skip_digits(const char *at, const char *end)
{
    while (at < end && *at >= '0' && *at <= '9') {
        at++;
    }
    return at;
}

static bool skip_number(struct tri_scan *scan)
{
    const char *at = scan->at, *end = scan->end;
    at += at < end && *at == '-';
    const char *digits = at;
    at = skip_digits(at, end);
    bool right = at > digits && (*digits != '0' || at == digits + 1);
    if (right && at < end && *at == '.') {
        digits = at + 1;
        at = skip_digits(digits, end);
        right = at > digits;
    }
    if (right && at < end && (*at == 'e' || *at == 'E')) {
        at++;
        at += at < end && (*at == '+' || *at == '-');
        digits = at;
        at = skip_digits(digits, end);
        right = at > digits;
    }
    if (!right) {
        return fail(scan, scan->at, "a value");
    }
    scan->at = at;
    return true;
}

static bool skip_scalar(struct tri_scan *scan)
{
    static const char *const words[] = {"true", "false", "null"};
    char first = tri_scan_peek(scan);
    if (first == '"') {
        return tri_scan_string(scan, NULL);
    }
    for (size_t i = 0; i < sizeof(words) / sizeof(*words); i++) {
        size_t length = strlen(words[i]);
        if ((size_t)(scan->end - scan->at) >= length && memcmp(scan->at, words[i], length) == 0) {
            scan->at += length;
            return true;
        }
    }
    return skip_number(scan);
}

bool tri_scan_key(struct tri_scan *scan, bool *first, struct tri_string *text)
{
    if (tri_scan_peek(scan) == '}') {
        scan->at++;
        return false;
    }
    if (!*first && !tri_scan_take(scan, ',', "a comma or the brace that ends the object")) {
        return false;
    }
    *first = false;
    return tri_scan_string(scan, text) && tri_scan_take(scan, ':', "a colon behind the key");
}

bool tri_scan_element(struct tri_scan *scan, bool *first)
{
    if (tri_scan_peek(scan) == ']') {
        scan->at++;
        return false;
    }
    if (!*first && !tri_scan_take(scan, ',', "a comma or the bracket that ends the list")) {
        return false;
    }
    *first = false;
    return tri_scan_peek(scan) != ']' || fail(scan, scan->at, "a value behind the comma");
}

bool tri_scan_skip(struct tri_scan *scan)
{
    enum { DEPTH_MAX = 128 };
    bool object[DEPTH_MAX];
    bool first = false;
    int depth = 0;
    for (;;) {
        char next = tri_scan_peek(scan);
        if (next == '{' || next == '[') {
            if (depth == DEPTH_MAX) {
                return fail(scan, scan->at, "lists and objects at most 128 deep");
            }
            scan->at++;
            object[depth++] = next == '{';
            first = true;
        } else if (!skip_scalar(scan)) {
            return false;
        }
        /* To the next value, out of all that end before it. */
        while (depth > 0 && !(object[depth - 1] ? tri_scan_key(scan, &first, NULL)
                                                : tri_scan_element(scan, &first))) {
            if (scan->expected) {
                return false;
            }
            depth--;
            first = false;
        }
        if (depth == 0) {
            return true;
        }
    }
}

const char *tri_scan_kind(char byte)
{
    return byte == '"'                  ? "a string"
           : byte == '{'                ? "an object"
           : byte == '['                ? "a list"
           : byte == 't' || byte == 'f' ? "true or false"
           : byte == 'n'                ? "null"
           : byte == '\0'               ? "nothing"
                                        : "a number";
}
