#include "base/meter.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/runtime.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum { TEXT = 256 };

/* ---- the line of a terminal ------------------------------------------------------------------ */

bool tri_live_is_there(void)
{
    return !tri_runtime_get()->log.sink && isatty(STDERR_FILENO) == 1;
}

/* Bytes of the text that stand on one line, whole characters: a cell for each. */
static int fit(const char *text)
{
    struct winsize size;
    bool known = ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 1;
    int room = known ? size.ws_col - 1 : TEXT;
    int at = 0;
    for (; text[at]; at++) {
        bool begins = ((unsigned char)text[at] & 0xc0) != 0x80;
        if (begins && room-- == 0) {
            break;
        }
    }
    return at;
}

void tri_live_show(const char *text)
{
    (void)fprintf(stderr, "\r\033[K%.*s", fit(text), text);
    (void)fflush(stderr);
    tri_runtime_get()->log.live = true;
}

void tri_live_hide(void)
{
    if (tri_runtime_get()->log.live) {
        tri_runtime_get()->log.live = false;
        (void)fputs("\r\033[K", stderr);
        (void)fflush(stderr);
    }
}

void tri_live_keep(void)
{
    if (tri_runtime_get()->log.live) {
        tri_runtime_get()->log.live = false;
        (void)fputc('\n', stderr);
    }
}

/* ---- what it says ---------------------------------------------------------------------------- */

void tri_meter_time(double seconds, char text[32])
{
    long total = lround(fmin(fmax(seconds, 0.0), 1e9));
    if (total >= 3600) {
        (void)snprintf(text, 32, "%ldh%02ldm", total / 3600, total / 60 % 60);
    } else if (total >= 60) {
        (void)snprintf(text, 32, "%ldm%02lds", total / 60, total % 60);
    } else {
        (void)snprintf(text, 32, "%lds", total);
    }
}

static const char *const units[] = {"MB",    "tensors", "tokens",  "rows",         "questions",
                                    "steps", "layouts", "options", "measurements", "micro-batches"};

static void format(const struct tri_meter *meter, double now, char text[TEXT])
{
    const bool bytes = meter->unit == TRI_METER_BYTES;
    const double scale = bytes ? 1e-6 : 1.0;
    const double seconds = now - meter->began;
    const double rate = seconds > 0.0 ? (double)meter->done / seconds : 0.0;
    const char *unit = units[meter->unit];
    int n = snprintf(text, TEXT, "%s", meter->name);
    if (meter->total > 0) {
        /* More than was expected is no more than all. */
        int64_t most = meter->done < meter->total ? meter->done : meter->total;
        n += snprintf(text + n, (size_t)(TEXT - n), "  %3d %%  %.*f of %.*f %s",
                      (int)(100.0 * (double)most / (double)meter->total), bytes,
                      scale * (double)meter->done, bytes, scale * (double)meter->total, unit);
    } else {
        n += snprintf(text + n, (size_t)(TEXT - n), "  %.*f %s", bytes, scale * (double)meter->done,
                      unit);
    }
    if (rate > 0.0) {
        n += snprintf(text + n, (size_t)(TEXT - n), "  %.1f %s/s", scale * rate, unit);
    }
    if (rate > 0.0 && meter->total > meter->done) {
        char left[32];
        tri_meter_time((double)(meter->total - meter->done) / rate, left);
        (void)snprintf(text + n, (size_t)(TEXT - n), "  %s left", left);
    }
}

/* ---- when ------------------------------------------------------------------------------------ */

/* Seconds until it first shows, and between two times. */
static double pause_of(const struct tri_meter *meter, bool live)
{
    const double plain = 10.0, first = 0.5, often = 0.1, step = 5.0;
    if (!live) {
        return plain;
    }
    if (meter->shown > 0.0) {
        return often;
    }
    return meter->unit == TRI_METER_MICRO_BATCHES ? step : first;
}

static void show(struct tri_meter *meter)
{
    const struct tri_runtime *runtime = tri_runtime_get();
    double now = tri_clock_now();
    bool live = tri_live_is_there();
    double since = meter->shown > 0.0 ? meter->shown : meter->began;
    if (runtime->rank != 0 || now - since < pause_of(meter, live)) {
        return;
    }
    char text[TEXT];
    format(meter, now, text);
    if (live) {
        tri_live_show(text);
    } else {
        tri_log_info("%s", text);
    }
    meter->shown = now;
}

void tri_meter_begin(enum tri_meter_unit unit, int64_t total, const char *format_, ...)
{
    struct tri_meter *meter = &tri_runtime_get()->meter;
    if (meter->depth++ > 0) {
        return;
    }
    va_list args;
    va_start(args, format_);
    (void)vsnprintf(meter->name, sizeof(meter->name), format_, args);
    va_end(args);
    tri_text_flatten(meter->name);
    meter->unit = unit;
    meter->total = total;
    meter->done = 0;
    meter->shown = 0.0;
    meter->began = tri_clock_now();
}

void tri_meter_add(enum tri_meter_unit unit, int64_t amount)
{
    struct tri_meter *meter = &tri_runtime_get()->meter;
    if (meter->depth > 0 && meter->unit == unit) {
        meter->done += amount;
        show(meter);
    }
}

void tri_meter_end(void)
{
    struct tri_meter *meter = &tri_runtime_get()->meter;
    TRI_REQUIRE(meter->depth > 0);
    if (--meter->depth == 0 && meter->shown > 0.0) {
        tri_live_hide();
    }
}
