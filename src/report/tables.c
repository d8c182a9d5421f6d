#include "report/parts.h"

#include <math.h>
#include <string.h>

static const char *text_of(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text ? text : "";
}

static double number_of(const json_t *object, const char *key)
{
    return json_number_value(json_object_get(object, key));
}

static void print_bar(FILE *out, double share)
{
    (void)fprintf(out, "<td class=\"bar\"><span style=\"width:%.1f%%\"></span></td>",
                  100.0 * fmin(fmax(share, 0.0), 1.0));
}

/* ---- the runs -------------------------------------------------------------------------------- */

static void print_run(FILE *out, int index, const struct tri_report_run *run)
{
    const struct tri_run_status *status = &run->look.status;
    char state[1200];
    tri_run_seen_say(&run->look, state, sizeof(state));
    (void)fprintf(out, "<tr><th scope=\"row\"><a href=\"#run%d\">", index + 1);
    tri_html(out, run->look.path);
    (void)fputs("</a></th><td>", out);
    tri_html_number(out, (double)status->parameters);
    (void)fputs("</td><td>", out);
    tri_html_number(out, (double)status->active);
    (void)fprintf(out, "</td><td>%lld</td><td>%lld = %lld × %lld × %lld</td><td>%lld of %lld</td>",
                  (long long)status->experts, (long long)status->ranks,
                  (long long)(status->tensor * status->cross * status->depth),
                  (long long)status->expert, (long long)status->data, (long long)run->look.step,
                  (long long)status->steps);
    (void)fputs("<td>", out);
    tri_html_number(out, run->look.loss);
    (void)fputs("</td><td>", out);
    const struct tri_thin *valid = &run->series[TRI_SERIES_VALID];
    tri_html_number(out, valid->points ? valid->latest : (double)NAN);
    (void)fputs("</td><td>", out);
    tri_html_number(out, run->look.tokens_per_second);
    (void)fputs("</td><td class=\"text\">", out);
    tri_html(out, state);
    (void)fputs("</td></tr>\n", out);
}

void tri_part_summary(FILE *out, int count, const struct tri_report_run *runs)
{
    (void)fputs(
        "<div class=\"wide\"><table id=\"runs\"><caption>Runs</caption><thead><tr>"
        "<th>run</th><th>parameters</th><th>active</th><th>experts</th>"
        "<th>ranks = tensor × expert × data</th><th>step</th><th>loss</th>"
        "<th>validation</th><th>tokens/s</th><th class=\"text\">state</th></tr></thead><tbody>\n",
        out);
    for (int i = 0; i < count; i++) {
        print_run(out, i, &runs[i]);
    }
    (void)fputs("</tbody></table></div>\n", out);
}

/* ---- where a step's time, bytes and memory went ---------------------------------------------- */

static void print_time_row(FILE *out, const char *name, double ms, double step)
{
    (void)fprintf(out, "<tr><th scope=\"row\">%s</th><td>%.2f</td><td>%.1f %%</td>", name, ms,
                  step > 0.0 ? 100.0 * ms / step : 0.0);
    print_bar(out, step > 0.0 ? ms / step : 0.0);
    (void)fputs("</tr>\n", out);
}

static void print_time(FILE *out, const struct tri_report_run *run)
{
    const double lines = (double)run->lines;
    double rest = run->step_ms / lines;
    (void)fputs("<table class=\"time\"><caption>Time of a step, ms, the mean of all steps"
                "</caption><thead><tr><th>part</th><th>ms</th><th>share</th><td></td></tr></thead>"
                "<tbody>\n",
                out);
    for (int s = 0; s < TRI_SPLIT_EXPOSED; s++) {
        print_time_row(out, tri_split_name((enum tri_split)s), run->split_ms[s] / lines,
                       run->step_ms / lines);
        rest -= run->split_ms[s] / lines;
    }
    print_time_row(out, "rest", fmax(rest, 0.0), run->step_ms / lines);
    print_time_row(out, "step", run->step_ms / lines, run->step_ms / lines);
    print_time_row(out, "of which communication that nothing hid",
                   run->split_ms[TRI_SPLIT_EXPOSED] / lines, run->step_ms / lines);
    (void)fputs("</tbody></table>\n", out);
}

static void print_memory(FILE *out, const json_t *memory)
{
    const char *name;
    json_t *row;
    double planned = 0.0, peak = 0.0, most = 1.0;
    json_object_foreach((json_t *)(uintptr_t)memory, name, row)
    {
        most = fmax(most, fmax(number_of(row, "planned"), number_of(row, "peak")));
    }
    (void)fputs("<table class=\"memory\"><caption>Memory of rank 0, by category</caption><thead>"
                "<tr><th>category</th><th>planned</th><th>peak</th><td></td></tr></thead><tbody>\n",
                out);
    json_object_foreach((json_t *)(uintptr_t)memory, name, row)
    {
        planned += number_of(row, "planned");
        peak += number_of(row, "peak");
        (void)fputs("<tr><th scope=\"row\">", out);
        tri_html(out, name);
        (void)fputs("</th><td>", out);
        tri_html_megabytes(out, number_of(row, "planned"));
        (void)fputs("</td><td>", out);
        tri_html_megabytes(out, number_of(row, "peak"));
        (void)fprintf(out,
                      "</td><td class=\"bar\"><span class=\"planned\" style=\"width:%.1f%%\">"
                      "</span><span style=\"width:%.1f%%\"></span></td></tr>\n",
                      100.0 * fmax(number_of(row, "planned"), 0.0) / most,
                      100.0 * fmax(number_of(row, "peak"), 0.0) / most);
    }
    (void)fputs("<tr><th scope=\"row\">all</th><td>", out);
    tri_html_megabytes(out, planned);
    (void)fputs("</td><td>", out);
    tri_html_megabytes(out, peak);
    (void)fputs("</td><td></td></tr></tbody></table>\n", out);
}

/* Sums of the rows of one group. */
struct traffic {
    const char *group;
    double bytes, all, exposed, calls;
};

enum { GROUPS_MOST = 64 };

static int sum_groups(const json_t *rows, struct traffic sums[GROUPS_MOST])
{
    int count = 0;
    for (size_t i = 0; i < json_array_size(rows); i++) {
        const json_t *row = json_array_get(rows, i);
        const char *group = text_of(row, "group");
        int at = 0;
        while (at < count && strcmp(sums[at].group, group) != 0) {
            at++;
        }
        if (at == GROUPS_MOST) {
            continue;
        }
        count = at == count ? count + 1 : count;
        sums[at].group = group;
        sums[at].bytes += number_of(row, "bytes");
        sums[at].all += number_of(row, "bytes_all_ranks");
        sums[at].exposed += number_of(row, "seconds_exposed");
        sums[at].calls += number_of(row, "calls");
    }
    return count;
}

static void print_traffic(FILE *out, const json_t *ledger)
{
    struct traffic sums[GROUPS_MOST] = {{0}};
    const double steps = fmax(number_of(ledger, "steps"), 1.0);
    const int count = sum_groups(json_object_get(ledger, "collectives"), sums);
    double most = 1.0;
    for (int i = 0; i < count; i++) {
        most = fmax(most, sums[i].bytes);
    }
    (void)fprintf(out,
                  "<table class=\"traffic\"><caption>Sent by rank 0 over each group, a step (of "
                  "%.0f; evaluations and checkpoints included)</caption><thead><tr><th>group</th>"
                  "<th>bytes</th><th>calls</th><th>exposed ms</th><td></td></tr></thead><tbody>\n",
                  steps);
    for (int i = 0; i < count; i++) {
        (void)fputs("<tr><th scope=\"row\">", out);
        tri_html(out, sums[i].group);
        (void)fputs("</th><td>", out);
        tri_html_megabytes(out, sums[i].bytes / steps);
        (void)fprintf(out, "</td><td>%.1f</td><td>%.2f</td>", sums[i].calls / steps,
                      1e3 * sums[i].exposed / steps);
        print_bar(out, sums[i].bytes / most);
        (void)fputs("</tr>\n", out);
    }
    (void)fputs("</tbody></table>\n", out);
}

void tri_part_costs(FILE *out, const struct tri_report_run *run)
{
    const json_t *memory = json_object_get(run->ledger, "memory");
    (void)fputs("<h3>Where a step went</h3>\n<div class=\"costs\">\n", out);
    if (run->lines > 0) {
        print_time(out, run);
    }
    if (json_is_object(memory)) {
        print_memory(out, memory);
    }
    if (json_is_object(run->ledger)) {
        print_traffic(out, run->ledger);
    } else {
        (void)fputs("<p>No ledger.json: bytes and memory are written when a run ends.</p>\n", out);
    }
    (void)fputs("</div>\n", out);
}

/* ---- the ledger ------------------------------------------------------------------------------ */

void tri_part_ledger(FILE *out, const struct tri_report_run *run)
{
    static const char *const texts[] = {"operation", "group", "phase", "kind"};
    static const char *const numbers[] = {"calls", "bytes", "bytes_all_ranks",
                                          "bytes_between_hosts", "messages_between_hosts"};
    const json_t *rows = json_object_get(run->ledger, "collectives");
    if (json_array_size(rows) == 0) {
        return;
    }
    (void)fprintf(
        out,
        "<h3>Ledger</h3>\n<details><summary>%zu kinds of collectives</summary>"
        "<div class=\"wide\"><table class=\"sortable ledger\"><caption>Collectives of "
        "the last start, rank 0</caption><thead><tr><th class=\"text\">operation</th>"
        "<th class=\"text\">group</th><th class=\"text\">phase</th>"
        "<th class=\"text\">kind</th><th>calls</th><th>bytes</th>"
        "<th>bytes, all ranks</th><th>bytes to other hosts</th>"
        "<th>messages to other hosts</th><th>seconds</th><th>exposed</th></tr></thead><tbody>\n",
        json_array_size(rows));
    for (size_t i = 0; i < json_array_size(rows); i++) {
        const json_t *row = json_array_get(rows, i);
        (void)fputs("<tr>", out);
        for (size_t k = 0; k < 4; k++) {
            (void)fputs("<td class=\"text\">", out);
            tri_html(out, text_of(row, texts[k]));
            (void)fputs("</td>", out);
        }
        for (size_t k = 0; k < sizeof(numbers) / sizeof(*numbers); k++) {
            (void)fprintf(out, "<td>%.0f</td>", number_of(row, numbers[k]));
        }
        (void)fprintf(out, "<td>%.4f</td><td>%.4f</td></tr>\n", number_of(row, "seconds"),
                      number_of(row, "seconds_exposed"));
    }
    (void)fputs("</tbody></table></div></details>\n", out);
}

/* ---- the mesh -------------------------------------------------------------------------------- */

/* Ranks as they stand: a table for each data index, experts down, tensor ranks across. */
struct mesh {
    const json_t *ranks;
    int64_t tensor, expert, data; /* tensor: all of its grid */
    int64_t cross, depth;
};

static int64_t int_of(const json_t *object, const char *key)
{
    return json_integer_value(json_object_get(object, key));
}

static const json_t *rank_at(const struct mesh *mesh, int64_t tensor, int64_t expert, int64_t data)
{
    return json_array_get(mesh->ranks,
                          (size_t)(tensor + mesh->tensor * (expert + mesh->expert * data)));
}

static void print_replica(FILE *out, const struct mesh *mesh, int64_t data)
{
    (void)fprintf(out, "<table class=\"mesh\"><caption>data %lld</caption><thead><tr><td></td>",
                  (long long)data);
    for (int64_t t = 0; t < mesh->tensor; t++) {
        (void)fprintf(out, "<th scope=\"col\">tensor %lld</th>", (long long)t);
    }
    (void)fputs("</tr></thead><tbody>\n", out);
    for (int64_t e = 0; e < mesh->expert; e++) {
        (void)fprintf(out, "<tr><th scope=\"row\">expert %lld</th>", (long long)e);
        for (int64_t t = 0; t < mesh->tensor; t++) {
            const json_t *rank = rank_at(mesh, t, e, data);
            (void)fprintf(out, "<td><b>%lld</b> ", (long long)int_of(rank, "rank"));
            tri_html(out, text_of(rank, "cores"));
            (void)fputs("</td>", out);
        }
        (void)fputs("</tr>\n", out);
    }
    (void)fputs("</tbody></table>\n", out);
}

void tri_part_mesh(FILE *out, const struct tri_report_run *run)
{
    enum { RANKS_MOST = 512 };
    const struct tri_run_status *status = &run->look.status;
    struct mesh mesh = {.ranks = json_object_get(run->environment, "ranks"),
                        .expert = status->expert,
                        .data = status->data};
    const int64_t ranks = (int64_t)json_array_size(mesh.ranks);
    if (ranks == 0 || mesh.expert < 1 || mesh.data < 1 || mesh.expert > ranks ||
        mesh.data > ranks / mesh.expert || ranks % (mesh.expert * mesh.data) != 0) {
        return;
    }
    mesh.tensor = ranks / mesh.expert / mesh.data;
    (void)fprintf(
        out,
        "<h3>Mesh</h3>\n<p>%lld ranks: tensor %lld × expert %lld × data %lld. A cell is a "
        "rank, with its host and cores.</p>\n<div class=\"wide meshes\">\n",
        (long long)ranks, (long long)mesh.tensor, (long long)mesh.expert, (long long)mesh.data);
    int64_t shown = mesh.data;
    while (shown > 1 && shown * mesh.tensor * mesh.expert > RANKS_MOST) {
        shown--;
    }
    for (int64_t d = 0; d < shown; d++) {
        print_replica(out, &mesh, d);
    }
    (void)fputs("</div>\n", out);
    if (shown < mesh.data) {
        (void)fprintf(out, "<p>%lld more replicas like these.</p>\n",
                      (long long)(mesh.data - shown));
    }
}
