#include "config/text.h"

#include <stdint.h>
#include <string.h>

enum { COMPARED_MOST = 80 };

/* Bytes of the UTF-8 character at text and its code; 0 when it is none. */
static int decode(const unsigned char *text, uint32_t *code)
{
    static const uint32_t smallest[5] = {0, 0, 0x80, 0x800, 0x10000};
    int bytes = 0;
    if (text[0] < 0x80) {
        bytes = 1;
    } else if (text[0] >> 5 == 6) {
        bytes = 2;
    } else if (text[0] >> 4 == 14) {
        bytes = 3;
    } else if (text[0] >> 3 == 30) {
        bytes = 4;
    }
    *code = bytes == 1 ? text[0] : text[0] & (0x7fU >> bytes);
    for (int i = 1; i < bytes; i++) {
        if (text[i] >> 6 != 2) {
            return 0;
        }
        *code = *code << 6 | (text[i] & 0x3fU);
    }
    return bytes && *code >= smallest[bytes] ? bytes : 0;
}

/* What may stand in a message or a file of one line each, and in YAML. */
static bool is_printable(uint32_t code)
{
    return code >= ' ' && !(code >= 0x7f && code < 0xa0) && code != 0x2028 && code != 0x2029 &&
           !(code >= 0xd800 && code < 0xe000) && code != 0xfeff && code != 0xfffe &&
           code != 0xffff && code < 0x110000;
}

int tri_text_next(const char *at, bool *printable)
{
    uint32_t code;
    int bytes = decode((const unsigned char *)at, &code);
    *printable = bytes > 0 && is_printable(code);
    return bytes > 0 ? bytes : 1;
}

bool tri_text_is_clean(const char *text)
{
    bool printable = true;
    while (*text && printable) {
        text += tri_text_next(text, &printable);
    }
    return printable;
}

bool tri_text_ends_with(const char *text, const char *end)
{
    size_t n = strlen(text);
    size_t m = strlen(end);
    return n >= m && strcmp(text + n - m, end) == 0;
}

static int smallest(int a, int b, int c)
{
    int ab = a < b ? a : b;
    return ab < c ? ab : c;
}

int tri_text_distance(const char *a, const char *b)
{
    int row[COMPARED_MOST + 1];
    int columns = (int)strnlen(b, COMPARED_MOST);
    for (int j = 0; j <= columns; j++) {
        row[j] = j;
    }
    for (int i = 0; i < COMPARED_MOST && a[i]; i++) {
        int diagonal = row[0];
        row[0] = i + 1;
        for (int j = 0; j < columns; j++) {
            int changed = diagonal + (a[i] != b[j]);
            diagonal = row[j + 1];
            row[j + 1] = smallest(changed, row[j] + 1, diagonal + 1);
        }
    }
    return row[columns];
}

void tri_nearest_consider(struct tri_nearest *nearest, const char *written, const char *name)
{
    int distance = tri_text_distance(written, name);
    if (!nearest->name || distance < nearest->distance) {
        *nearest = (struct tri_nearest){name, distance};
    }
}

bool tri_text_is_slip(int distance, const char *written)
{
    return distance <= 2 || distance <= (int)strnlen(written, COMPARED_MOST) / 3;
}
