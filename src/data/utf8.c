#include "data/utf8.h"

#include <string.h>
#include <utf8proc.h>

/* Bytes of the character that text begins with; 0: it begins with none. */
static size_t character_bytes(const unsigned char *text, size_t bytes)
{
    unsigned char c = text[0];
    size_t length = c < 0x80 ? 1 : c < 0xC2 ? 0 : c < 0xE0 ? 2 : c < 0xF0 ? 3 : c < 0xF5 ? 4 : 0;
    if (length > bytes) {
        return 0;
    }
    for (size_t i = 1; i < length; i++) {
        if ((text[i] & 0xC0) != 0x80) {
            return 0;
        }
    }
    /* Longer than need be, halves of surrogates, beyond U+10FFFF. */
    bool wrong = (c == 0xE0 && text[1] < 0xA0) || (c == 0xED && text[1] > 0x9F) ||
                 (c == 0xF0 && text[1] < 0x90) || (c == 0xF4 && text[1] > 0x8F);
    return wrong ? 0 : length;
}

size_t tri_utf8_valid(const unsigned char *text, size_t bytes)
{
    size_t at = 0;
    while (at < bytes) {
        uint64_t eight;
        if (bytes - at >= sizeof(eight)) {
            memcpy(&eight, text + at, sizeof(eight));
            if ((eight & 0x8080808080808080u) == 0) {
                at += sizeof(eight);
                continue;
            }
        }
        size_t length = character_bytes(text + at, bytes - at);
        if (length == 0) {
            break;
        }
        at += length;
    }
    return at;
}

size_t tri_utf8_invalid(const unsigned char *text, size_t bytes)
{
    size_t at = 0;
    while (at < bytes && character_bytes(text + at, bytes - at) == 0) {
        at++;
    }
    return at;
}

size_t tri_utf8_next(const unsigned char *text, size_t bytes, int32_t *character)
{
    *character = 0;
    size_t length = bytes > 0 ? character_bytes(text, bytes) : 0;
    if (length > 0) {
        *character = length == 1 ? text[0] : text[0] & (0x7F >> length);
        for (size_t i = 1; i < length; i++) {
            *character = (*character << 6) | (text[i] & 0x3F);
        }
    }
    return length;
}

size_t tri_utf8_last(const unsigned char *text, size_t bytes, int32_t *character)
{
    size_t at = bytes;
    while (at > 0 && bytes - at < 4) {
        at--;
        if ((text[at] & 0xC0) != 0x80) {
            break;
        }
    }
    size_t length = tri_utf8_next(text + at, bytes - at, character);
    return length == bytes - at ? length : 0;
}

bool tri_is_space(int32_t c)
{
    return (c >= 0x9 && c <= 0xD) || c == ' ' || c == 0x85 || c == 0xA0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F ||
           c == 0x205F || c == 0x3000;
}

bool tri_is_letter(int32_t c)
{
    utf8proc_category_t category = utf8proc_category(c);
    return category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_LO;
}

bool tri_is_word(int32_t c)
{
    utf8proc_category_t category = utf8proc_category(c);
    return tri_is_letter(c) || category == UTF8PROC_CATEGORY_MN ||
           category == UTF8PROC_CATEGORY_MC || category == UTF8PROC_CATEGORY_ME ||
           category == UTF8PROC_CATEGORY_ND || category == UTF8PROC_CATEGORY_NL ||
           category == UTF8PROC_CATEGORY_PC || c == 0x200C || c == 0x200D ||
           (c >= 0x24B6 && c <= 0x24E9); /* circled letters are alphabetic */
}
