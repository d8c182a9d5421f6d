/* A report's page against what the run's folder holds: every step is in its curves, experts are
 * called by name, and nothing that a folder says becomes markup. */
#include "report/report.h"

#include "base/file.h"
#include "base/memory.h"
#include "report/thin.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define EVIL "</script><script>alert(1)</script><img src=x onerror='alert(2)'>\\\"\\u0007"

enum { STEPS = 1500, EXPERTS = 4 };

static char folder[256];

/* ---- curves ---------------------------------------------------------------------------------- */

/* A million points: the one that stands out is still there, and what the buckets hold is all. */
static void test_thin(void **state)
{
    (void)state;
    enum { POINTS = 1000000, SPIKE = 777777 };
    struct tri_thin *thin = tri_alloc(TRI_MEMORY_OTHER, sizeof(*thin));
    double sum = 0.0;
    for (int64_t step = 1; step <= POINTS; step++) {
        double value = step == SPIKE ? 50.0 : 1.0 + (double)(step % 7);
        sum += value;
        tri_thin_add(thin, step, value);
    }
    tri_thin_add(thin, POINTS + 1, (double)NAN);
    int64_t count = 0, next = 1;
    double held = 0.0;
    for (int i = 0; i < tri_thin_count(thin); i++) {
        const struct tri_thin_bucket *b = &thin->bucket[i];
        assert_true(b->first == next && b->last >= b->first);
        assert_int_equal(b->count, b->last - b->first + 1);
        assert_true(b->least == 1.0);
        assert_true(b->most == (b->first <= SPIKE && SPIKE <= b->last ? 50.0 : 7.0));
        next = b->last + 1;
        count += b->count;
        held += b->sum;
    }
    assert_int_equal(count, POINTS);
    assert_int_equal(thin->points, POINTS);
    assert_int_equal(thin->not_finite, 1);
    assert_true(held == sum);
    assert_true(tri_thin_most(thin) == 50.0 && tri_thin_least(thin) == 1.0);
    assert_true(thin->width == 2048 && thin->latest == 1.0 + POINTS % 7);
    tri_free(thin);
}

/* ---- a run ----------------------------------------------------------------------------------- */

static double loss_of(int step)
{
    return 5.0 - 0.002 * step + 0.1 * (step % 5);
}

/* Expert 1 of the second layer never has a token; expert 3 has most of them. */
static void write_metrics(void)
{
    char path[300];
    (void)snprintf(path, sizeof(path), "%s/run/metrics.jsonl", folder);
    FILE *file = fopen(path, "we");
    assert_non_null(file);
    for (int step = 1; step <= STEPS; step++) {
        (void)fprintf(file,
                      "{\"step\":%d,\"loss\":%.17g,\"learning_rate\":%.17g,\"grad_norm\":%s,"
                      "\"tokens_per_second\":%d,\"step_ms\":10,\"step_split_ms\":{\"attention\":4,"
                      "\"router\":1,\"exchange\":0.5,\"experts\":2,\"optimizer\":1.25,"
                      "\"exposed_communication\":0.75},\"expert_load\":",
                      step, loss_of(step), 1e-3 / step, step == 7 ? "null" : "2.5", 1000 + step);
        (void)fprintf(file, step % 10 == 0 ? "[[10,11,10,9],[5,0,5,30]]}\n" : "null}\n");
        if (step % 500 == 0) {
            (void)fprintf(file, "{\"step\":%d,\"valid_loss\":%.17g}\n", step, 3.0 - step * 1e-3);
        }
    }
    (void)fprintf(file, "no line\n{\"step\":9999,\"loss\":1.0");
    assert_int_equal(fclose(file), 0);
}

static void save(const char *name, const char *text)
{
    char path[300];
    struct tri_error error;
    (void)snprintf(path, sizeof(path), "%s/run/%s", folder, name);
    assert_int_equal(tri_file_save(path, text, strlen(text), &error), TRI_OK);
}

static void write_run(void)
{
    char path[300];
    struct tri_error error;
    (void)snprintf(path, sizeof(path), "%s/run", folder);
    assert_int_equal(tri_file_make_dirs(path, &error), TRI_OK);
    write_metrics();
    save("status.json", "{\"state\": \"failed\", \"reason\": \"" EVIL "\", \"host\": \"" EVIL
                        "\", \"step\": 1500, \"steps\": 2000, \"model\": {\"parameters\": 123456}, "
                        "\"layout\": {\"ranks\": 4, \"tensor\": 1, \"cross\": 1, \"depth\": 1, "
                        "\"expert\": 2, \"data\": 2}}");
    save("environment.json",
         "{\"version\": \"1.2.3\", \"" EVIL "\": \"" EVIL
         "\", \"ranks\": [{\"rank\": 0, \"cores\": "
         "\"" EVIL "\"}, {\"rank\": 1}, {\"rank\": 2}, {\"rank\": 3, \"cores\": \"h3: 0-7\"}]}");
    save(
        "ledger.json",
        "{\"rank\": 0, \"steps\": 10, \"memory\": {\"weights\": {\"planned\": 1500000, \"peak\": "
        "2500000}, \"" EVIL "\": {}}, \"collectives\": [{\"operation\": \"all_to_all\", \"group\": "
        "\"expert\", \"phase\": \"forward\", \"kind\": \"moe\", \"calls\": 30, \"bytes\": 4000000, "
        "\"bytes_all_ranks\": 16000000, \"bytes_between_hosts\": 3000000, "
        "\"messages_between_hosts\": 20, \"seconds\": 0.5, \"seconds_exposed\": 0.25}, "
        "{\"operation\": \"" EVIL "\", \"group\": \"" EVIL "\", \"calls\": \"" EVIL "\"}, "
        "{\"operation\": \"send\", \"group\": \"world\", \"phase\": \"eval\", \"calls\": 2, "
        "\"bytes\": 9000000}, 7]}");
    save("plan.json",
         "{\"memory_for\": \"" EVIL "\", \"memory\": {\"weights\": 1}, \"collectives\": "
         "[{\"group\": \"expert\", \"phase\": \"forward\", \"calls\": 4, \"bytes\": 500000}, "
         "{\"group\": \"data\", \"phase\": \"optimizer\", \"calls\": 1, \"bytes\": 700000}, "
         "{\"group\": \"world\", \"phase\": \"setup\", \"calls\": 1, \"bytes\": 4}, {}, 7], "
         "\"time\": {\"cluster\": \"" EVIL "\", \"step_ms\": 9, \"exposed_ms\": 0.5, \"parts_ms\": "
         "{\"rest\": 1.5, \"head\": 0.5, \"attention\": 3.5, \"router\": 1, \"exchange\": 0.5, "
         "\"experts\": 1.5, \"optimizer\": \"" EVIL "\"}}}");
    save("config.yaml", "seed: 7\nprecision: f32\nmodel:\n  num_layers: 3\n  # head_dim: 8  (x)\n"
                        "data:\n  train: \"</script><script>alert(1)</script>\"\n"
                        "moe:\n  num_experts: 4\n</table><script>alert(3)</script>: 1\n");
}

static char *make_page(char *const *runs, int count)
{
    char path[300];
    struct tri_error error;
    struct tri_mapping file;
    (void)snprintf(path, sizeof(path), "%s/page.html", folder);
    assert_int_equal(tri_report_write(count, runs, path, &error), TRI_OK);
    assert_int_equal(tri_file_map(path, &file, &error), TRI_OK);
    char *page = tri_alloc(TRI_MEMORY_OTHER, file.size + 1);
    memcpy(page, file.data, file.size);
    tri_file_unmap(&file);
    return page;
}

static int count_of(const char *text, const char *what)
{
    int count = 0;
    for (const char *at = strstr(text, what); at; at = strstr(at + 1, what)) {
        count++;
    }
    return count;
}

static void expect_text(const char *page, const char *what)
{
    if (!strstr(page, what)) {
        print_error("not on the page: %s\n", what);
    }
    assert_non_null(strstr(page, what));
}

/* The rows of a curve's table hold each value of `of` once: mean, least and most of their steps. */
static void expect_rows(const char *page, const char *series, double (*of)(int))
{
    char begin[64];
    (void)snprintf(begin, sizeof(begin), "data-series=\"%s\"", series);
    const char *at = strstr(page, begin);
    assert_non_null(at);
    const char *end = strstr(at, "</table>");
    int next = 1, first, last;
    double mean, least, most;
    for (at = strstr(at, "<tr><td>"); at && at < end; at = strstr(at + 1, "<tr><td>")) {
        double sum = 0.0, low = (double)INFINITY, high = -(double)INFINITY;
        assert_int_equal(sscanf(at, "<tr><td>%d–%d</td><td>%lf</td><td>%lf</td><td>%lf</td>",
                                &first, &last, &mean, &least, &most),
                         5);
        assert_int_equal(first, next);
        for (int step = first; step <= last; step++) {
            sum += of(step);
            low = fmin(low, of(step));
            high = fmax(high, of(step));
        }
        sum /= last - first + 1;
        assert_true(fabs(mean - sum) < 1e-3 * sum && fabs(least - low) < 1e-3 * low &&
                    fabs(most - high) < 1e-3 * high);
        next = last + 1;
    }
    assert_int_equal(next, STEPS + 1);
}

static double speed_of(int step)
{
    return 1000.0 + step;
}

static double rate_of(int step)
{
    return 1e-3 / step;
}

static void test_figures(void **state)
{
    (void)state;
    char run[300];
    char *runs[] = {run};
    (void)snprintf(run, sizeof(run), "%s/run", folder);
    char *page = make_page(runs, 1);
    expect_rows(page, "train", loss_of);
    expect_rows(page, "speed", speed_of);
    expect_rows(page, "rate", rate_of);
    expect_text(page, ": 3 values, the last <b>1.5</b>");           /* validation */
    expect_text(page, ": 1499 values, the last <b>2.5</b>; 1 not"); /* gradient norm */
    expect_text(page, "1 lines of metrics.jsonl could not be read");
    /* Layers: 11/40 and 30/40 of the tokens times four experts. */
    expect_text(page,
                "<tr><td>0</td><td>1.10</td><td>1.10</td><td>1</td><td class=\"hot\">none</td>"
                "<td class=\"dead\">none</td></tr>");
    expect_text(page, "<tr><td>1</td><td>3.00</td><td>3.00</td><td>3</td><td class=\"hot\">3</td>"
                      "<td class=\"dead\">1</td></tr>");
    expect_text(page, "busiest expert 3, 3.00 times the mean; 1 dead");
    expect_text(page, "<th scope=\"row\">attention</th><td>4.00</td><td>40.0 %</td>"
                      "<td>3.50</td>");
    expect_text(page, "<th scope=\"row\">rest</th><td>1.25</td><td>12.5 %</td>");
    expect_text(page, "<th scope=\"row\">step</th><td>10.00</td><td>100.0 %</td><td>9.00</td>");
    expect_text(page, "<th scope=\"row\">weights</th><td>1.5 MB</td><td>–</td><td>2.5 MB</td>");
    expect_text(page, "<th scope=\"row\">expert</th><td>0.4 MB</td><td>3.0</td><td>25.00</td>"
                      "<td>0.5 MB</td><td>4.0</td>");
    expect_text(page, "<th scope=\"row\">data</th><td>0</td><td>0.0</td><td>0.00</td>"
                      "<td>0.7 MB</td><td>1.0</td>");
    expect_text(page, "at the start and in evaluations and checkpoints: 9.0 MB in 2 calls.");
    expect_text(page, "<td>30</td><td>4000000</td><td>16000000</td><td>3000000</td><td>20</td>"
                      "<td>0.5000</td>");
    expect_text(page, "4 ranks: tensor 1 × expert 2 × data 2");
    expect_text(page, "<td><b>3</b> h3: 0-7</td>");
    const char *changed = strstr(page, "<table class=\"changed\">");
    const char *kept = strstr(page, "<table class=\"kept\">");
    assert_true(changed && kept && changed < kept);
    const char *layers = strstr(changed, "model.num_layers"),
               *precision = strstr(kept, "precision");
    assert_true(layers && layers < kept && precision);
    assert_true(strstr(changed, "precision</th>") > kept && strstr(kept, "model.head_dim"));
    tri_free(page);
}

/* One script, ours; no address of any network; nothing that a browser would run or fetch. */
static void test_hostile(void **state)
{
    (void)state;
    char run[300];
    char *runs[] = {run, run};
    (void)snprintf(run, sizeof(run), "%s/run", folder);
    char *page = make_page(runs, 2);
    assert_int_equal(count_of(page, "<script"), 1);
    assert_int_equal(count_of(page, "</script"), 1);
    assert_int_equal(count_of(page, "<img"), 0);
    assert_int_equal(count_of(page, "alert(1)'"), 0);
    assert_true(count_of(page, "&lt;script&gt;alert(1)&lt;/script&gt;") > 10);
    assert_int_equal(count_of(page, "://"), 0);
    assert_int_equal(count_of(page, " src="), count_of(page, "&lt;img src=x"));
    assert_null(strchr(page, '\a'));
    expect_text(page, "<a href=\"#run2\">");
    assert_int_equal(count_of(page, "<section class=\"run\""), 2);
    tri_free(page);
}

/* A folder with a run's name and nothing in it that makes sense; one that is none. */
static void test_broken(void **state)
{
    (void)state;
    char run[300], path[300];
    char *runs[] = {run};
    struct tri_error error;
    (void)snprintf(run, sizeof(run), "%s/run", folder);
    save("metrics.jsonl",
         "[[[[\n{\"step\":-5,\"loss\":1}\n{\"step\":3,\"loss\":\"x\",\"expert_load\":"
         "[[1],[2,3]]}\n{\"step\":4,\"expert_load\":[[-1]],\"loss\":2}\n"
         "{\"step\":9223372036854775807,\"loss\":1}\n"
         /* A range of last digits, and a sum beyond a double. */
         "{\"step\":5,\"loss\":1,\"learning_rate\":3e-5,\"tokens_per_second\":1e308}\n"
         "{\"step\":5,\"loss\":1,\"learning_rate\":3.0000000000000004e-05,"
         "\"tokens_per_second\":1e308}\n");
    save("status.json", "{");
    save("environment.json", "[]");
    save("ledger.json", "{\"memory\": [], \"collectives\": {\"a\": 1}}");
    save("config.yaml", "\xff\xfe: \n\n\t:::\n");
    char *page = make_page(runs, 1);
    expect_text(page, "status.json:1: ");
    /* One that is no JSON, and two with steps that no run has. */
    expect_text(page, "3 lines of metrics.jsonl could not be read");
    expect_text(page, "[5,5,1e+308,1e+308,1e+308]");
    assert_int_equal(count_of(page, "<script"), 1);
    tri_free(page);
    save("status.json", "{\"state\": \"finished\"}");
    save("ledger.json", "{\"memory\": ");
    page = make_page(runs, 1);
    expect_text(page, "ledger.json:1: ");
    /* What nobody has counted is no 0. */
    expect_text(page, "<th scope=\"row\">expert</th><td>–</td><td>–</td><td>–</td>"
                      "<td>0.5 MB</td><td>4.0</td>");
    tri_free(page);
    (void)snprintf(path, sizeof(path), "%s/page.html", folder);
    (void)snprintf(run, sizeof(run), "%s", folder);
    assert_int_equal(tri_report_write(1, runs, path, &error), TRI_BAD_INPUT);
    assert_non_null(strstr(error.message, "no run folder"));
}

static int prepare(void **state)
{
    (void)state;
    (void)snprintf(folder, sizeof(folder), TEST_TMP "/report.%d", (int)getpid());
    write_run();
    return 0;
}

static int release(void **state)
{
    (void)state;
    struct tri_error error;
    return tri_file_remove_tree(folder, &error) == TRI_OK ? 0 : -1;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_thin),
        cmocka_unit_test(test_figures),
        cmocka_unit_test(test_hostile),
        cmocka_unit_test(test_broken),
    };
    return cmocka_run_group_tests(tests, prepare, release);
}
