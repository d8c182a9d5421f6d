#include "report/report.h"

#include "base/file.h"
#include "base/memory.h"
#include "report/parts.h"

#include <stdlib.h>
#include <string.h>

static void print_run(FILE *out, int index, const struct tri_report_run *run)
{
    (void)fprintf(out, "<section class=\"run\" id=\"run%d\">\n<h2>", index + 1);
    tri_html(out, run->look.path);
    (void)fputs("</h2>\n", out);
    if (run->look.problem[0]) {
        (void)fputs("<p class=\"problem\">", out);
        tri_html(out, run->look.problem);
        (void)fputs("</p>\n", out);
    }
    if (run->torn > 0) {
        (void)fprintf(out,
                      "<p class=\"problem\">%lld lines of metrics.jsonl could not be read</p>\n",
                      (long long)run->torn);
    }
    tri_part_heat(out, run);
    tri_part_costs(out, run);
    tri_part_ledger(out, run);
    tri_part_mesh(out, run);
    tri_part_settings(out, run);
    (void)fputs("</section>\n", out);
}

static void print_pieces(FILE *out, const char *const *piece)
{
    for (; *piece; piece++) {
        (void)fputs(*piece, out);
    }
}

static void print_page(FILE *out, int count, const struct tri_report_run *runs)
{
    (void)fputs("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
                "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
                "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; "
                "style-src 'unsafe-inline'; script-src 'unsafe-inline'\">\n<title>",
                out);
    for (int i = 0; i < count; i++) {
        (void)fputs(i ? ", " : "", out);
        tri_html(out, runs[i].look.path);
    }
    (void)fputs(" – Trident report</title>\n<style>\n", out);
    print_pieces(out, tri_report_style);
    (void)fputs("</style>\n</head>\n<body>\n<main>\n<h1>Training report</h1>\n", out);
    tri_part_summary(out, count, runs);
    tri_part_curves(out, count, runs);
    for (int i = 0; i < count; i++) {
        print_run(out, i, &runs[i]);
    }
    (void)fputs("</main>\n<script>\n", out);
    print_pieces(out, tri_report_script);
    (void)fputs("</script>\n</body>\n</html>\n", out);
}

static enum tri_status save(int count, const struct tri_report_run *runs, const char *path,
                            struct tri_error *error)
{
    char *text = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&text, &bytes);
    TRI_REQUIRE(out);
    print_page(out, count, runs);
    (void)fclose(out);
    enum tri_status status = tri_file_save(path, text, bytes, error);
    free(text);
    return status;
}

enum tri_status tri_report_write(int count, char *const *paths, const char *out,
                                 struct tri_error *error)
{
    struct tri_report_run *runs = tri_alloc(TRI_MEMORY_OTHER, (size_t)count * sizeof(*runs));
    enum tri_status status = TRI_OK;
    int loaded = 0;
    TRI_REQUIRE(count <= TRI_REPORT_RUNS);
    for (; loaded < count && status == TRI_OK; loaded++) {
        status = tri_report_run_load(paths[loaded], &runs[loaded], error);
    }
    if (status == TRI_OK) {
        status = save(count, runs, out, error);
    }
    for (int i = 0; i < loaded; i++) {
        tri_report_run_fini(&runs[i]);
    }
    tri_free(runs);
    return status;
}
