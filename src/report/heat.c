#include "report/parts.h"

#include <math.h>

/* Of one layer in one column of time. */
struct balance {
    int64_t total, most;
    int64_t hottest, coldest, dead;
    double ratio; /* the hottest's load by the mean */
};

static struct balance balance_of(const struct tri_heat *heat, int column, int64_t layer)
{
    const int64_t *load = tri_heat_get(heat, column, layer);
    struct balance b = {0};
    for (int64_t e = 0; e < heat->experts; e++) {
        b.hottest = load[e] > load[b.hottest] ? e : b.hottest;
        b.coldest = load[e] < load[b.coldest] ? e : b.coldest;
        b.dead += load[e] == 0;
        b.total += load[e];
    }
    b.most = load[b.hottest];
    b.ratio = b.total ? (double)b.most * (double)heat->experts / (double)b.total : 0.0;
    return b;
}

static int last_column(const struct tri_heat *heat)
{
    int last = TRI_HEAT_COLUMNS - 1;
    while (last > 0 && !heat->first[last]) {
        last--;
    }
    return last;
}

static int first_column(const struct tri_heat *heat)
{
    int first = 0;
    while (first < TRI_HEAT_COLUMNS - 1 && !heat->first[first]) {
        first++;
    }
    return first;
}

/* The column behind this one's mark, which stands until the next loads that were written down. */
static int end_of_column(const struct tri_heat *heat, int column, int last)
{
    int end = column + 1;
    while (end <= last && !heat->first[end]) {
        end++;
    }
    return end;
}

/* Experts of a layer that have no tokens, or more than `times` the mean (0: those without). */
static void print_experts(FILE *out, const struct tri_heat *heat, int column, int64_t layer,
                          double times)
{
    enum { MOST = 12 };
    const int64_t *load = tri_heat_get(heat, column, layer);
    const struct balance b = balance_of(heat, column, layer);
    const double mean = (double)b.total / (double)heat->experts;
    int64_t found = 0;
    for (int64_t e = 0; e < heat->experts; e++) {
        if (times > 0.0 ? (double)load[e] > times * mean : load[e] == 0) {
            if (found < MOST) {
                (void)fprintf(out, "%s%lld", found ? ", " : "", (long long)e);
            }
            found++;
        }
    }
    if (found > MOST) {
        (void)fprintf(out, " and %lld more", (long long)(found - MOST));
    } else if (found == 0) {
        (void)fputs("none", out);
    }
}

static void print_map(FILE *out, const struct tri_heat *heat)
{
    const int first = first_column(heat), last = last_column(heat);
    (void)fprintf(out,
                  "<div class=\"plot heat\" style=\"height:%lldpx\"><svg viewBox=\"%d 0 %d %lld\" "
                  "preserveAspectRatio=\"none\" role=\"img\" aria-label=\"Load of the busiest "
                  "expert by the mean, a row for each MoE layer, time to the right; the table "
                  "below has the figures\">\n",
                  (long long)(heat->layers < 12   ? 26 * heat->layers
                              : heat->layers < 40 ? 14 * heat->layers
                                                  : 6 * heat->layers),
                  first, last + 1 - first, (long long)heat->layers);
    for (int64_t layer = 0; layer < heat->layers; layer++) {
        for (int c = first; c <= last; c = end_of_column(heat, c, last)) {
            const struct balance b = balance_of(heat, c, layer);
            double heat_of = heat->experts > 1 && b.ratio > 1.0
                                 ? log(b.ratio) / log((double)heat->experts)
                                 : 0.0;
            (void)fprintf(out,
                          "<rect x=\"%d\" y=\"%lld\" width=\"%d\" height=\"1\" "
                          "fill-opacity=\"%.2f\"><title>MoE layer %lld, steps %lld to %lld: "
                          "busiest expert %lld, %.2f times the mean; %lld dead</title></rect>\n",
                          c, (long long)layer, end_of_column(heat, c, last) - c,
                          0.06 + 0.94 * fmin(heat_of, 1.0), (long long)layer,
                          (long long)heat->first[c], (long long)heat->last[c], (long long)b.hottest,
                          b.ratio, (long long)b.dead);
        }
    }
    (void)fputs("</svg><div class=\"y\" aria-hidden=\"true\">", out);
    int64_t every = heat->layers / 12 + 1;
    for (int64_t layer = 0; layer < heat->layers; layer += every) {
        (void)fprintf(out, "<span style=\"top:%.2f%%\">layer %lld</span>",
                      100.0 * ((double)layer + 0.5) / (double)heat->layers, (long long)layer);
    }
    (void)fprintf(out,
                  "</div><div class=\"x\" aria-hidden=\"true\"><span style=\"left:0\">step "
                  "%lld</span><span style=\"left:100%%\">%lld</span></div></div>\n",
                  (long long)heat->first[first], (long long)heat->last[last]);
}

void tri_part_heat(FILE *out, const struct tri_report_run *run)
{
    const struct tri_heat *heat = &run->heat;
    const int first = first_column(heat), last = last_column(heat);
    if (heat->width == 0 || !heat->first[last]) {
        return;
    }
    (void)fprintf(
        out,
        "<h3>Expert load</h3>\n<p>The busiest expert's load by the mean, layer by layer "
        "(MoE layers alone, from 0): pale is even, full is all tokens to one of %lld. "
        "Hot: more than twice the mean; dead: no token; both in steps %lld to %lld.</p>\n",
        (long long)heat->experts, (long long)heat->first[last], (long long)heat->last[last]);
    print_map(out, heat);
    (void)fputs("<div class=\"wide\"><table class=\"sortable load\"><caption>Experts by layer"
                "</caption><thead><tr><th>MoE layer</th><th>busiest / mean, at first</th>"
                "<th>at last</th><th>busiest</th><th class=\"text\">hot experts</th><th "
                "class=\"text\">dead "
                "experts</th></tr>"
                "</thead><tbody>\n",
                out);
    for (int64_t layer = 0; layer < heat->layers; layer++) {
        const struct balance end = balance_of(heat, last, layer);
        (void)fprintf(out,
                      "<tr><td>%lld</td><td>%.2f</td><td>%.2f</td><td>%lld</td><td class=\"hot\">",
                      (long long)layer, balance_of(heat, first, layer).ratio, end.ratio,
                      (long long)end.hottest);
        print_experts(out, heat, last, layer, 2.0);
        (void)fputs("</td><td class=\"dead\">", out);
        print_experts(out, heat, last, layer, 0.0);
        (void)fputs("</td></tr>\n", out);
    }
    (void)fputs("</tbody></table></div>\n", out);
}
