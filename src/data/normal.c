#include "data/normal.h"

#include "base/memory.h"
#include "base/status.h"
#include "data/utf8.h"

#include <string.h>
#include <utf8proc.h>

void tri_bytes_append(struct tri_bytes *text, const void *data, size_t bytes)
{
    if (text->room - text->bytes < bytes) {
        size_t room = text->room + text->room / 2;
        room = room < text->bytes + bytes ? text->bytes + bytes : room;
        room = room < 256 ? 256 : room;
        unsigned char *all = tri_alloc(TRI_MEMORY_OTHER, room);
        if (text->bytes > 0) {
            memcpy(all, text->data, text->bytes);
        }
        tri_free(text->data);
        text->data = all;
        text->room = room;
    }
    if (bytes > 0) {
        memcpy(text->data + text->bytes, data, bytes);
        text->bytes += bytes;
    }
}

void tri_normalizer_fini(struct tri_normalizer *normalizer)
{
    for (int i = 0; i < normalizer->count; i++) {
        tri_free(normalizer->step[i].from);
        tri_free(normalizer->step[i].to);
    }
}

void tri_normal_scratch_fini(struct tri_normal_scratch *scratch)
{
    tri_free(scratch->text[0].data);
    tri_free(scratch->text[1].data);
    tri_free(scratch->points);
    tri_free(scratch->sorted);
}

/* ---- normal forms ---------------------------------------------------------------------------- */

static utf8proc_option_t options_of(enum tri_form form)
{
    bool compose = form == TRI_NFC || form == TRI_NFKC;
    bool compatible = form == TRI_NFKC || form == TRI_NFKD;
    int options = UTF8PROC_STABLE | (compose ? UTF8PROC_COMPOSE : UTF8PROC_DECOMPOSE) |
                  (compatible ? UTF8PROC_COMPAT : 0);
    return (utf8proc_option_t)options;
}

/* Characters from U+0300 begin with this byte or a larger one; those before are in form C, and no
 * mark is among them. Other forms leave ASCII alone. */
static unsigned char first_byte(enum tri_form form)
{
    return form == TRI_NFC ? 0xCC : 0x80;
}

/* Ranges with what came after Unicode 9, which the package `tokenizers` knows: marks are not
 * sorted there, nothing is taken apart or put together, whatever the utf8proc at hand does. */
static const int32_t LATER[][2] = {
    {0x558, 0x558},     {0x58B, 0x58C},     {0x5C8, 0x5C9},     {0x7FD, 0x7FD},
    {0x897, 0x8D3},     {0x9FE, 0x9FE},     {0xC3C, 0xC3C},     {0xD3B, 0xD3C},
    {0xEBA, 0xEBA},     {0x1715, 0x1715},   {0x1ABF, 0x1AF0},   {0x1DF6, 0x1DFA},
    {0x209D, 0x209F},   {0x32FF, 0x32FF},   {0xA7F1, 0xA7F4},   {0xA82C, 0xA82C},
    {0xAB69, 0xAB69},   {0x105C9, 0x107BF}, {0x10D24, 0x10F85}, {0x11070, 0x11070},
    {0x1133B, 0x1133B}, {0x11382, 0x113D0}, {0x1145E, 0x1145E}, {0x11839, 0x11A99},
    {0x11D42, 0x1612F}, {0x16D63, 0x1B126}, {0x1CCD6, 0x1D128}, {0x1D250, 0x1D281},
    {0x1D6A6, 0x1D6A6}, {0x1DF95, 0x1DFFF}, {0x1E030, 0x1E6F5}, {0x1F16C, 0x1F16C},
    {0x1FBF0, 0x1FBF9}};

static bool is_later(int32_t c)
{
    size_t low = 0;
    size_t high = sizeof(LATER) / sizeof(*LATER);
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (c > LATER[middle][1]) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low < sizeof(LATER) / sizeof(*LATER) && c >= LATER[low][0];
}

static int class_of(int32_t c)
{
    return utf8proc_get_property(c)->combining_class;
}

enum { CLASSES = 256, SHORT_RUN = 24 };

static void sort_short(int32_t *points, size_t count)
{
    for (size_t i = 1; i < count; i++) {
        const int32_t point = points[i];
        const int class = class_of(point);
        size_t to = i;
        for (; to > 0 && class_of(points[to - 1]) > class; to--) {
            points[to] = points[to - 1];
        }
        points[to] = point;
    }
}

static void sort_long(struct tri_normal_scratch *scratch, int32_t *points, size_t count)
{
    size_t next[CLASSES + 1] = {0};
    (void)tri_grow(TRI_MEMORY_OTHER, (void **)&scratch->sorted, &scratch->sorted_room,
                   count * sizeof(*points));
    for (size_t i = 0; i < count; i++) {
        next[class_of(points[i]) + 1]++;
    }
    for (int i = 0; i < CLASSES; i++) {
        next[i + 1] += next[i];
    }
    for (size_t i = 0; i < count; i++) {
        scratch->sorted[next[class_of(points[i])]++] = points[i];
    }
    memcpy(points, scratch->sorted, count * sizeof(*points));
}

/* Marks that follow each other, by their class; those of one class stay as they were. A text may be
 * one run of them, which utf8proc_decompose sorts by insertion. */
static void sort_marks(struct tri_normal_scratch *scratch, int32_t *points, size_t count)
{
    for (size_t at = 0; at < count; at++) {
        size_t begin = at;
        while (at < count && class_of(points[at]) > 0) {
            at++;
        }
        if (at - begin > SHORT_RUN) {
            sort_long(scratch, points + begin, at - begin);
        } else {
            sort_short(points + begin, at - begin);
        }
    }
}

/* Writes at most room points, and returns how many there are. */
static utf8proc_ssize_t decompose(const unsigned char *text, size_t bytes, int32_t *points,
                                  utf8proc_ssize_t room, utf8proc_option_t options)
{
    utf8proc_ssize_t count = 0;
    for (size_t at = 0; at < bytes;) {
        int32_t c;
        int unused = 0;
        at += tri_utf8_next(text + at, bytes - at, &c);
        utf8proc_ssize_t left = count < room ? room - count : 0;
        utf8proc_ssize_t more =
            utf8proc_decompose_char(c, points + (room - left), left, options, &unused);
        TRI_REQUIRE(more >= 0);
        count += more;
    }
    return count;
}

static void append_known(struct tri_normal_scratch *scratch, enum tri_form form,
                         const unsigned char *text, size_t bytes, struct tri_bytes *to)
{
    if (bytes == 0) {
        return;
    }
    utf8proc_option_t options = options_of(form);
    utf8proc_ssize_t room = (utf8proc_ssize_t)bytes + 64;
    for (;;) {
        (void)tri_grow(TRI_MEMORY_OTHER, (void **)&scratch->points, &scratch->points_room,
                       ((size_t)room + 1) * sizeof(*scratch->points));
        utf8proc_ssize_t count = decompose(text, bytes, scratch->points, room, options);
        if (count <= room) {
            sort_marks(scratch, scratch->points, (size_t)count);
            count = utf8proc_reencode(scratch->points, count, options);
            TRI_REQUIRE(count >= 0);
            tri_bytes_append(to, scratch->points, (size_t)count);
            return;
        }
        room = count;
    }
}

/* The text between later characters, each by itself. */
static void append_form(struct tri_normal_scratch *scratch, enum tri_form form,
                        const unsigned char *text, size_t bytes, struct tri_bytes *to)
{
    size_t done = 0;
    for (size_t at = 0; at < bytes;) {
        int32_t c;
        size_t length = tri_utf8_next(text + at, bytes - at, &c);
        if (is_later(c)) {
            append_known(scratch, form, text + done, at - done, to);
            tri_bytes_append(to, text + at, length);
            done = at + length;
        }
        at += length;
    }
    append_known(scratch, form, text + done, bytes - done, to);
}

/* Runs of other characters and the ASCII one before them, which a mark may join, are put into the
 * form one by one: at an ASCII character a new one begins in every form. */
static void apply_form(struct tri_normal_scratch *scratch, enum tri_form form,
                       const unsigned char *text, size_t bytes, struct tri_bytes *to)
{
    const unsigned char least = first_byte(form);
    size_t done = 0;
    for (size_t at = 0; at < bytes; at++) {
        if (text[at] < least) {
            continue;
        }
        size_t begin = at;
        while (begin > done && text[begin - 1] >= 0x80) {
            begin--;
        }
        begin -= begin > done;
        while (at < bytes && text[at] >= 0x80) {
            at++;
        }
        tri_bytes_append(to, text + done, begin - done);
        append_form(scratch, form, text + begin, at - begin, to);
        done = at;
    }
    tri_bytes_append(to, text + done, bytes - done);
}

static bool has_form(enum tri_form form, const unsigned char *text, size_t bytes)
{
    const unsigned char least = first_byte(form);
    unsigned char largest = 0;
    for (size_t i = 0; i < bytes; i++) {
        largest = text[i] > largest ? text[i] : largest;
    }
    return largest < least;
}

/* ---- all steps ------------------------------------------------------------------------------- */

static bool append_within(struct tri_bytes *to, const void *data, size_t bytes, size_t most)
{
    if (bytes > most || to->bytes > most - bytes) {
        return false;
    }
    tri_bytes_append(to, data, bytes);
    return true;
}

/* false: it becomes more than that. */
static bool replace(const struct tri_normal_step *step, const unsigned char *text, size_t bytes,
                    size_t most, struct tri_bytes *to)
{
    const size_t from = strlen(step->from);
    const size_t by = strlen(step->to);
    const unsigned char *end = text + bytes;
    const unsigned char *at;
    while ((at = memmem(text, (size_t)(end - text), step->from, from))) {
        if (!append_within(to, text, (size_t)(at - text), most) ||
            !append_within(to, step->to, by, most)) {
            return false;
        }
        text = at + from;
    }
    return append_within(to, text, (size_t)(end - text), most);
}

static bool apply(const struct tri_normal_step *step, struct tri_normal_scratch *scratch,
                  const unsigned char *text, size_t bytes, size_t most, struct tri_bytes *to)
{
    to->bytes = 0;
    if (step->kind == TRI_NORMAL_REPLACE) {
        return replace(step, text, bytes, most, to);
    }
    if (step->kind == TRI_NORMAL_PREPEND) {
        return append_within(to, step->to, strlen(step->to), most) &&
               append_within(to, text, bytes, most);
    }
    /* A character becomes at most eleven times as many bytes, and once. */
    apply_form(scratch, step->form, text, bytes, to);
    return to->bytes <= most;
}

bool tri_normalize(const struct tri_normalizer *normalizer, struct tri_normal_scratch *scratch,
                   const unsigned char *text, size_t *bytes, size_t spare, bool begins,
                   const unsigned char **result)
{
    const size_t most = spare + TRI_NORMAL_TIMES * *bytes;
    int other = 0; /* what is not the text of now */
    for (int i = 0; i<normalizer->count && * bytes> 0; i++) {
        const struct tri_normal_step *step = &normalizer->step[i];
        if (step->kind == TRI_NORMAL_PREPEND
                ? !begins
                : step->kind == TRI_NORMAL_FORM && has_form(step->form, text, *bytes)) {
            continue;
        }
        struct tri_bytes *to = &scratch->text[other];
        if (!apply(step, scratch, text, *bytes, most, to)) {
            return false;
        }
        text = to->data;
        *bytes = to->bytes;
        other = 1 - other;
    }
    *result = text;
    return true;
}
