#include "data/utf8.h"
#include "report/parts.h"

#include <math.h>
#include <string.h>

void tri_html_bytes(FILE *out, const char *text, size_t bytes)
{
    const unsigned char *at = (const unsigned char *)text, *end = at + bytes;
    while (at < end) {
        size_t valid = tri_utf8_valid(at, (size_t)(end - at));
        for (const unsigned char *c = at; c < at + valid; c++) {
            switch (*c) {
            case '<':
                (void)fputs("&lt;", out);
                break;
            case '>':
                (void)fputs("&gt;", out);
                break;
            case '&':
                (void)fputs("&amp;", out);
                break;
            case '"':
                (void)fputs("&quot;", out);
                break;
            case '\'':
                (void)fputs("&#39;", out);
                break;
            default:
                (void)fputc((*c < ' ' && *c != '\n') || *c == 0x7f ? '?' : *c, out);
            }
        }
        at += valid;
        if (at < end) {
            (void)fputc('?', out);
            at++;
        }
    }
}

void tri_html(FILE *out, const char *text)
{
    tri_html_bytes(out, text, strlen(text));
}

void tri_html_number(FILE *out, double value)
{
    const double size = fabs(value);
    if (!isfinite(value)) {
        (void)fputs("none", out);
    } else if (size >= 1e7 || (size < 1e-3 && size > 0.0)) {
        (void)fprintf(out, "%.3e", value);
    } else if (size >= 1000.0 || value == floor(value)) {
        (void)fprintf(out, "%.0f", value);
    } else {
        (void)fprintf(out, "%.4g", value);
    }
}

void tri_html_megabytes(FILE *out, double bytes)
{
    if (bytes == 0.0) {
        (void)fputs("0", out);
        return;
    }
    (void)fprintf(out,
                  bytes >= 1e10  ? "%.1f GB"
                  : bytes >= 1e5 ? "%.1f MB"
                                 : "%.1f kB",
                  bytes >= 1e10  ? bytes / 1e9
                  : bytes >= 1e5 ? bytes / 1e6
                                 : bytes / 1e3);
}
