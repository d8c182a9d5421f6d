#include "base/memory.h"
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

/* A cell of milliseconds; "–": nobody planned it. */
static void print_ms(FILE *out, double ms)
{
    (void)fprintf(out, isfinite(ms) ? "<td>%.2f</td>" : "<td>–</td>", ms);
}

/* planned: of the same part; NaN where no plan says. plan: whether there is one. */
static void print_time_row(FILE *out, const char *name, double ms, double step, bool plan,
                           double planned)
{
    (void)fprintf(out, "<tr><th scope=\"row\">%s</th><td>%.2f</td><td>%.1f %%</td>", name, ms,
                  step > 0.0 ? 100.0 * ms / step : 0.0);
    if (plan) {
        print_ms(out, planned);
    }
    print_bar(out, step > 0.0 ? ms / step : 0.0);
    (void)fputs("</tr>\n", out);
}

static double finite_of(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    return json_is_number(value) ? json_number_value(value) : (double)NAN;
}

static void print_time(FILE *out, const struct tri_report_run *run)
{
    const double lines = (double)run->lines, step = run->step_ms / lines;
    const json_t *plan = json_object_get(run->plan, "time");
    const json_t *parts = json_object_get(plan, "parts_ms");
    const bool planned = json_is_object(parts);
    double rest = step, planned_rest = finite_of(plan, "step_ms");
    (void)fputs("<table class=\"time\"><caption>Time of a step, ms, the mean of all steps", out);
    if (planned) {
        (void)fputs("; planned for balanced routing on ", out);
        tri_html(out, text_of(plan, "cluster"));
    }
    (void)fprintf(out,
                  "</caption><thead><tr><th>part</th><th>ms</th><th>share</th>%s<td></td></tr>"
                  "</thead><tbody>\n",
                  planned ? "<th>planned ms</th>" : "");
    for (int s = 0; s < TRI_SPLIT_EXPOSED; s++) {
        const char *name = tri_split_name((enum tri_split)s);
        print_time_row(out, name, run->split_ms[s] / lines, step, planned, finite_of(parts, name));
        rest -= run->split_ms[s] / lines;
        planned_rest -= finite_of(parts, name);
    }
    print_time_row(out, "rest", fmax(rest, 0.0), step, planned,
                   planned_rest < 0.0 ? 0.0 : planned_rest);
    print_time_row(out, "step", step, step, planned, finite_of(plan, "step_ms"));
    print_time_row(out, "of which communication that nothing hid",
                   run->split_ms[TRI_SPLIT_EXPOSED] / lines, step, planned,
                   finite_of(plan, "exposed_ms"));
    (void)fputs("</tbody></table>\n", out);
}

/* Of one category, bytes; held and peak are NaN while the run has not said. */
static void print_memory_row(FILE *out, const char *name, double planned, double held, double peak,
                             double most)
{
    const double bytes[] = {planned, held, peak};
    (void)fputs("<tr><th scope=\"row\">", out);
    tri_html(out, name);
    (void)fputs("</th>", out);
    for (int i = 0; i < 3; i++) {
        (void)fputs("<td>", out);
        if (isfinite(bytes[i])) {
            tri_html_megabytes(out, bytes[i]);
        } else {
            (void)fputs("–", out);
        }
        (void)fputs("</td>", out);
    }
    (void)fputs("<td class=\"bar\">", out);
    if (most > 0.0) {
        (void)fprintf(out,
                      "<span class=\"planned\" style=\"width:%.1f%%\"></span><span "
                      "style=\"width:%.1f%%\"></span>",
                      100.0 * fmax(planned, 0.0) / most, 100.0 * fmax(peak, 0.0) / most);
    }
    (void)fputs("</td></tr>\n", out);
}

static double add(double sum, double value)
{
    return isfinite(value) ? sum + value : sum;
}

/* The categories of the ledger, which is written at a run's end; before, those of the plan. */
static void print_memory(FILE *out, const struct tri_report_run *run)
{
    const json_t *memory = json_object_get(run->ledger, "memory");
    const bool ended = json_is_object(memory);
    const json_t *process = json_object_get(run->ledger, "process");
    double planned = 0.0, held = 0.0, peak = 0.0, most = 1.0;
    const char *name;
    json_t *row;
    memory = ended ? memory : json_object_get(run->plan, "memory");
    if (json_object_size(memory) == 0) {
        return;
    }
    json_object_foreach((json_t *)(uintptr_t)memory, name, row)
    {
        most = fmax(most, ended ? fmax(number_of(row, "planned"), number_of(row, "peak"))
                                : json_number_value(row));
    }
    const char *load = text_of(run->plan, "memory_for");
    (void)fputs("<table class=\"memory\"><caption>Memory of rank 0, by category", out);
    if (load[0]) {
        (void)fputs(", planned for ", out);
        tri_html(out, load);
    }
    (void)fputs("</caption><thead><tr><th>category</th><th>planned</th><th>at the end</th>"
                "<th>peak</th><td></td></tr></thead><tbody>\n",
                out);
    json_object_foreach((json_t *)(uintptr_t)memory, name, row)
    {
        const double of_plan = ended ? finite_of(row, "planned") : json_number_value(row);
        print_memory_row(out, name, of_plan, finite_of(row, "held"), finite_of(row, "peak"), most);
        planned = add(planned, of_plan);
        held = add(held, finite_of(row, "held"));
        peak = add(peak, finite_of(row, "peak"));
    }
    print_memory_row(out, "all", planned, ended ? held : (double)NAN, ended ? peak : (double)NAN,
                     0.0);
    if (json_is_object(process)) {
        print_memory_row(out, "the process, libraries and MPI too", finite_of(process, "planned"),
                         finite_of(process, "held"), finite_of(process, "peak"), 0.0);
    }
    (void)fputs("</tbody></table>\n", out);
}

/* Sums of the rows of one group. */
struct traffic {
    const char *group;
    double bytes, exposed, calls;        /* of steps */
    double planned_bytes, planned_calls; /* of one */
};

enum { GROUPS_MOST = 64 };

struct traffics {
    int count;
    struct traffic of[GROUPS_MOST];
    struct traffic outside; /* of steps: evaluations, checkpoints, the start */
};

static struct traffic *traffic_of(struct traffics *sums, const char *group)
{
    int at = 0;
    while (at < sums->count && strcmp(sums->of[at].group, group) != 0) {
        at++;
    }
    if (at == GROUPS_MOST) {
        return NULL;
    }
    if (at == sums->count) {
        sums->of[sums->count++] = (struct traffic){.group = group};
    }
    return &sums->of[at];
}

static bool is_outside(const json_t *row)
{
    const char *phase = text_of(row, "phase");
    return strcmp(phase, "setup") == 0 || strcmp(phase, "eval") == 0 ||
           strcmp(phase, "checkpoint") == 0;
}

static void sum_groups(const json_t *rows, struct traffics *sums)
{
    for (size_t i = 0; i < json_array_size(rows); i++) {
        const json_t *row = json_array_get(rows, i);
        struct traffic *sum =
            is_outside(row) ? &sums->outside : traffic_of(sums, text_of(row, "group"));
        if (sum) {
            sum->bytes += number_of(row, "bytes");
            sum->exposed += number_of(row, "seconds_exposed");
            sum->calls += number_of(row, "calls");
        }
    }
}

static void add_planned(const json_t *rows, struct traffics *sums)
{
    for (size_t i = 0; i < json_array_size(rows); i++) {
        const json_t *row = json_array_get(rows, i);
        struct traffic *sum = is_outside(row) ? NULL : traffic_of(sums, text_of(row, "group"));
        if (sum) {
            sum->planned_bytes += number_of(row, "bytes");
            sum->planned_calls += number_of(row, "calls");
        }
    }
}

/* steps: 0 while the run has not said what it sent. */
static void print_traffic_row(FILE *out, const struct traffic *sum, double steps, bool plan,
                              double most)
{
    (void)fputs("<tr><th scope=\"row\">", out);
    tri_html(out, sum->group);
    (void)fputs("</th>", out);
    if (steps > 0.0) {
        (void)fputs("<td>", out);
        tri_html_megabytes(out, sum->bytes / steps);
        (void)fprintf(out, "</td><td>%.1f</td><td>%.2f</td>", sum->calls / steps,
                      1e3 * sum->exposed / steps);
    } else {
        (void)fputs("<td>–</td><td>–</td><td>–</td>", out);
    }
    if (plan) {
        (void)fputs("<td>", out);
        tri_html_megabytes(out, sum->planned_bytes);
        (void)fprintf(out, "</td><td>%.1f</td>", sum->planned_calls);
    }
    print_bar(out, steps > 0.0 ? sum->bytes / steps / most : 0.0);
    (void)fputs("</tr>\n", out);
}

static void print_traffic(FILE *out, const struct tri_report_run *run)
{
    struct traffics *sums = tri_alloc(TRI_MEMORY_OTHER, sizeof(*sums));
    const json_t *plan = json_object_get(run->plan, "collectives");
    const bool planned = json_is_array(plan);
    const bool ended = json_is_object(run->ledger);
    const double steps = ended ? fmax(number_of(run->ledger, "steps"), 1.0) : 0.0;
    sum_groups(json_object_get(run->ledger, "collectives"), sums);
    add_planned(plan, sums);
    double most = 1.0;
    for (int i = 0; i < sums->count; i++) {
        const double sent = ended ? sums->of[i].bytes / steps : 0.0;
        most = fmax(most, fmax(sent, sums->of[i].planned_bytes));
    }
    (void)fputs("<div class=\"wide\"><table class=\"traffic\"><caption>Sent by rank 0 over each "
                "group, a step",
                out);
    if (ended) {
        (void)fprintf(out, " (of %.0f)", number_of(run->ledger, "steps"));
    }
    (void)fprintf(out,
                  "%s</caption><thead><tr><th>group</th><th>bytes</th><th>calls</th>"
                  "<th>exposed ms</th>%s<td></td></tr></thead><tbody>\n",
                  planned ? "; planned for balanced routing" : "",
                  planned ? "<th>planned bytes</th><th>planned calls</th>" : "");
    for (int i = 0; i < sums->count; i++) {
        print_traffic_row(out, &sums->of[i], steps, planned, most);
    }
    (void)fputs("</tbody></table></div>\n", out);
    if (sums->outside.calls > 0.0) {
        (void)fputs("<p>Outside of steps, at the start and in evaluations and checkpoints: ", out);
        tri_html_megabytes(out, sums->outside.bytes);
        (void)fprintf(out, " in %.0f calls.</p>\n", sums->outside.calls);
    }
    tri_free(sums);
}

void tri_part_costs(FILE *out, const struct tri_report_run *run)
{
    (void)fputs("<h3>Where a step went</h3>\n<div class=\"costs\">\n", out);
    if (run->lines > 0) {
        print_time(out, run);
    }
    print_memory(out, run);
    if (json_is_object(run->ledger) || json_is_object(run->plan)) {
        print_traffic(out, run);
    }
    if (!json_is_object(run->ledger)) {
        (void)fputs("<p>No ledger.json: bytes and memory are counted, and written when a run "
                    "ends.</p>\n",
                    out);
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
