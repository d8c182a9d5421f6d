#include "report/parts.h"

#include <math.h>

/* A chart: one or two series of every run. Lines are drawn in units of 1000 x 1000, which the page
 * stretches; labels are HTML beside them, in letters of their own size. */
struct chart {
    const char *title, *id, *unit;
    enum tri_series series[2];
    const char *names[2]; /* NULL: there is but one */
};

static const struct chart charts[] = {
    {"Loss", "loss", "", {TRI_SERIES_LOSS, TRI_SERIES_VALID}, {"train", "valid"}},
    {"Learning rate", "rate", "", {TRI_SERIES_RATE}, {NULL, NULL}},
    {"Gradient norm, before clipping", "gradient", "", {TRI_SERIES_GRADIENT}, {NULL, NULL}},
    {"Tokens per second", "speed", "", {TRI_SERIES_SPEED}, {NULL, NULL}},
};

enum { CHARTS = sizeof(charts) / sizeof(*charts), SIDE = 1000, ROWS = 24, TICKS = 5 };

struct frame {
    double last;        /* step at the right edge */
    double least, most; /* value at the lower and upper edge */
};

static int series_of(const struct chart *chart)
{
    return chart->names[1] ? 2 : 1;
}

static struct frame find_frame(const struct chart *chart, int count,
                               const struct tri_report_run *runs)
{
    struct frame frame = {1.0, (double)INFINITY, -(double)INFINITY};
    for (int r = 0; r < count; r++) {
        for (int s = 0; s < series_of(chart); s++) {
            const struct tri_thin *thin = &runs[r].series[chart->series[s]];
            if (thin->points > 0) {
                int buckets = tri_thin_count(thin);
                frame.last = fmax(frame.last, (double)thin->bucket[buckets - 1].last);
                frame.least = fmin(frame.least, tri_thin_least(thin));
                frame.most = fmax(frame.most, tri_thin_most(thin));
            }
        }
    }
    /* Ticks would not move in a range of last digits. */
    if (frame.most - frame.least <= 1e-9 * fmax(fabs(frame.least), fabs(frame.most))) {
        double room = frame.most == 0.0 ? 1.0 : 0.1 * fabs(frame.most);
        frame.least -= room;
        frame.most += room;
    }
    double room = 0.04 * (frame.most - frame.least);
    frame.least = frame.least >= 0.0 && frame.least < room ? 0.0 : frame.least - room;
    frame.most += room;
    return frame;
}

/* Between least and most, also where the sum is beyond a double. */
static double mean_of(const struct tri_thin_bucket *b)
{
    return fmin(fmax(b->sum / (double)b->count, b->least), b->most);
}

static double x_of(const struct frame *frame, double step)
{
    return SIDE * step / frame->last;
}

static double y_of(const struct frame *frame, double value)
{
    return SIDE * (frame->most - value) / (frame->most - frame->least);
}

/* 1, 2 or 5 times a power of ten: the range has about TICKS of them. */
static double tick_of(double range)
{
    double raw = range / TICKS;
    double power = pow(10.0, floor(log10(raw)));
    double lead = raw / power;
    return power * (lead > 5.0 ? 10.0 : lead > 2.0 ? 5.0 : lead > 1.0 ? 2.0 : 1.0);
}

static void print_ticks(FILE *out, const struct frame *frame)
{
    const double high = tick_of(frame->most - frame->least), wide = tick_of(frame->last);
    (void)fputs("<div class=\"y\" aria-hidden=\"true\">", out);
    for (double v = high * ceil(frame->least / high); v <= frame->most; v += high) {
        v = fabs(v) < 1e-9 * high ? 0.0 : v;
        (void)fprintf(out, "<span style=\"top:%.2f%%\">%g</span>", y_of(frame, v) / 10.0, v);
    }
    (void)fputs("</div><div class=\"x\" aria-hidden=\"true\">", out);
    for (double step = 0.0; step <= frame->last; step += wide) {
        (void)fprintf(out, "<span style=\"left:%.2f%%\">%g</span>", x_of(frame, step) / 10.0, step);
    }
    (void)fputs("</div>", out);
}

static void print_grid(FILE *out, const struct frame *frame)
{
    const double high = tick_of(frame->most - frame->least);
    (void)fputs("<path class=\"grid\" d=\"", out);
    for (double v = high * ceil(frame->least / high); v <= frame->most; v += high) {
        (void)fprintf(out, "M0 %.1fH%d", y_of(frame, v), SIDE);
    }
    (void)fputs("\"/>\n", out);
}

/* The mean of each bucket as a line, least and most as a band about it. */
static void print_curve(FILE *out, const struct frame *frame, const struct tri_thin *thin, int run,
                        int series)
{
    const int buckets = tri_thin_count(thin);
    if (thin->width > 1) {
        (void)fprintf(out, "<path class=\"band s%d\" d=\"", run);
        const char *lead = "M";
        for (int i = 0; i < buckets; i++) {
            const struct tri_thin_bucket *b = &thin->bucket[i];
            if (b->count) {
                (void)fprintf(out, "%s%.1f %.1f", lead,
                              x_of(frame, 0.5 * (double)(b->first + b->last)),
                              y_of(frame, b->most));
                lead = "L";
            }
        }
        for (int i = buckets - 1; i >= 0; i--) {
            const struct tri_thin_bucket *b = &thin->bucket[i];
            if (b->count) {
                (void)fprintf(out, "L%.1f %.1f", x_of(frame, 0.5 * (double)(b->first + b->last)),
                              y_of(frame, b->least));
            }
        }
        (void)fputs("Z\"/>\n", out);
    }
    (void)fprintf(out, "<path class=\"line s%d%s\" d=\"", run, series ? " dashed" : "");
    const char *lead = "M";
    for (int i = 0; i < buckets; i++) {
        const struct tri_thin_bucket *b = &thin->bucket[i];
        if (b->count) {
            (void)fprintf(out, "%s%.1f %.1f", lead, x_of(frame, 0.5 * (double)(b->first + b->last)),
                          y_of(frame, mean_of(b)));
            lead = "L";
        }
    }
    /* A lone point has no line: a stroke's round end shows it. */
    (void)fputs(thin->points == 1 ? "h0\"/>\n" : "\"/>\n", out);
}

static void print_name(FILE *out, const struct chart *chart, const struct tri_report_run *run,
                       int series)
{
    tri_html(out, run->look.path);
    if (chart->names[series]) {
        (void)fprintf(out, ", %s", chart->names[series]);
    }
}

/* What the script shows under the pointer: [step, step, mean, least, most] of each bucket. */
static void print_points(FILE *out, const struct tri_thin *thin)
{
    const char *lead = "";
    (void)fputc('[', out);
    for (int i = 0; i < tri_thin_count(thin); i++) {
        const struct tri_thin_bucket *b = &thin->bucket[i];
        if (b->count) {
            (void)fprintf(out, "%s[%lld,%lld,%.6g,%.6g,%.6g]", lead, (long long)b->first,
                          (long long)b->last, mean_of(b), b->least, b->most);
            lead = ",";
        }
    }
    (void)fputc(']', out);
}

/* The curve in words and rows: every so many buckets joined. */
static void print_rows(FILE *out, const struct chart *chart, const struct tri_report_run *run,
                       int series)
{
    const struct tri_thin *thin = &run->series[chart->series[series]];
    const int buckets = tri_thin_count(thin);
    const int each = buckets / ROWS + 1;
    (void)fprintf(out, "<table class=\"figures\" data-series=\"%s\"><caption>",
                  chart->names[series] ? chart->names[series] : chart->id);
    print_name(out, chart, run, series);
    (void)fprintf(out, ": %lld values, the last <b>", (long long)thin->points);
    tri_html_number(out, thin->latest);
    (void)fputs("</b>", out);
    if (thin->not_finite > 0) {
        (void)fprintf(out, "; %lld not finite", (long long)thin->not_finite);
    }
    (void)fputs("</caption><thead><tr><th>steps</th><th>mean</th><th>least</th><th>most</th></tr>"
                "</thead><tbody>\n",
                out);
    for (int i = 0; i < buckets; i += each) {
        struct tri_thin_bucket all = {0};
        for (int j = i; j < buckets && j < i + each; j++) {
            const struct tri_thin_bucket *b = &thin->bucket[j];
            if (b->count) {
                all.least = all.count ? fmin(all.least, b->least) : b->least;
                all.most = all.count ? fmax(all.most, b->most) : b->most;
                all.first = all.count ? all.first : b->first;
                all.last = b->last;
                all.sum += b->sum;
                all.count += b->count;
            }
        }
        if (all.count) {
            (void)fprintf(out, "<tr><td>%lld–%lld</td><td>", (long long)all.first,
                          (long long)all.last);
            tri_html_number(out, mean_of(&all));
            (void)fputs("</td><td>", out);
            tri_html_number(out, all.least);
            (void)fputs("</td><td>", out);
            tri_html_number(out, all.most);
            (void)fputs("</td></tr>\n", out);
        }
    }
    (void)fputs("</tbody></table>\n", out);
}

/* Calls print for each curve that has points. */
static void print_legend(FILE *out, const struct chart *chart, int count,
                         const struct tri_report_run *runs)
{
    (void)fputs("<ul class=\"legend\">", out);
    for (int r = 0; r < count; r++) {
        for (int s = 0; s < series_of(chart); s++) {
            const struct tri_thin *thin = &runs[r].series[chart->series[s]];
            if (thin->points == 0) {
                continue;
            }
            (void)fprintf(out,
                          "<li><svg viewBox=\"0 0 30 8\" aria-hidden=\"true\"><path class=\"line "
                          "s%d%s\" d=\"M0 4H30\"/></svg>",
                          r, s ? " dashed" : "");
            print_name(out, chart, &runs[r], s);
            (void)fputs(": last ", out);
            tri_html_number(out, thin->latest);
            (void)fputs("</li>\n", out);
        }
    }
    (void)fputs("</ul>\n", out);
}

static void print_data(FILE *out, const struct chart *chart, int count,
                       const struct tri_report_run *runs)
{
    const char *lead = "";
    (void)fputs(" data-curves=\"[", out);
    for (int r = 0; r < count; r++) {
        for (int s = 0; s < series_of(chart); s++) {
            if (runs[r].series[chart->series[s]].points > 0) {
                (void)fputs(lead, out);
                print_points(out, &runs[r].series[chart->series[s]]);
                lead = ",";
            }
        }
    }
    (void)fputs("]\"", out);
}

static void print_chart(FILE *out, const struct chart *chart, int count,
                        const struct tri_report_run *runs)
{
    const struct frame frame = find_frame(chart, count, runs);
    (void)fprintf(out,
                  "<figure class=\"chart\" id=\"%s\"><figcaption>%s</figcaption>\n"
                  "<div class=\"plot\"><svg viewBox=\"0 0 %d %d\" preserveAspectRatio=\"none\" "
                  "tabindex=\"0\" role=\"img\" aria-label=\"%s over steps; arrow keys read values; "
                  "the table below has them\" data-last=\"%.0f\"",
                  chart->id, chart->title, SIDE, SIDE, chart->title, frame.last);
    print_data(out, chart, count, runs);
    (void)fputs(">\n", out);
    print_grid(out, &frame);
    for (int r = 0; r < count; r++) {
        for (int s = 0; s < series_of(chart); s++) {
            const struct tri_thin *thin = &runs[r].series[chart->series[s]];
            if (thin->points > 0) {
                print_curve(out, &frame, thin, r, s);
            }
        }
    }
    (void)fputs("<path class=\"cursor\" d=\"\"/></svg>", out);
    print_ticks(out, &frame);
    (void)fputs("</div>\n<output aria-live=\"polite\"></output>\n", out);
    print_legend(out, chart, count, runs);
    (void)fputs("<details><summary>Figures</summary>\n", out);
    for (int r = 0; r < count; r++) {
        for (int s = 0; s < series_of(chart); s++) {
            if (runs[r].series[chart->series[s]].points > 0) {
                print_rows(out, chart, &runs[r], s);
            }
        }
    }
    (void)fputs("</details></figure>\n", out);
}

void tri_part_curves(FILE *out, int count, const struct tri_report_run *runs)
{
    (void)fputs("<section class=\"curves\"><h2>Curves</h2>\n<div class=\"charts\">\n", out);
    for (int c = 0; c < CHARTS; c++) {
        bool any = false;
        for (int r = 0; r < count; r++) {
            for (int s = 0; s < series_of(&charts[c]); s++) {
                any = any || runs[r].series[charts[c].series[s]].points > 0;
            }
        }
        if (any) {
            print_chart(out, &charts[c], count, runs);
        }
    }
    (void)fputs("</div></section>\n", out);
}
