#include "report/report.h"

#include "cli/command.h"

#include <stdio.h>

static enum tri_status report(const struct tri_arguments *arguments, struct tri_error *error)
{
    char out[TRI_PATH_MAX];
    TRI_TRY(tri_arguments_path(arguments, "--out", out, error));
    if (arguments->num_words > TRI_REPORT_RUNS) {
        return tri_fail(error, TRI_BAD_INPUT,
                        "command line: found %d runs, expected at most %d on a page",
                        arguments->num_words, TRI_REPORT_RUNS);
    }
    const char *path = out[0] ? out : "report.html";
    TRI_TRY(tri_report_write(arguments->num_words, arguments->words, path, error));
    if (tri_arguments_has(arguments, "--json")) {
        tri_print_json(
            json_pack("{so si}", "page", tri_json_text(path), "runs", arguments->num_words));
    } else {
        (void)printf("%s\n", path);
    }
    return TRI_OK;
}

enum tri_status tri_command_report(const struct tri_arguments *arguments, struct tri_error *error)
{
    enum tri_status status =
        tri_comm_rank(arguments->comm) == 0 ? report(arguments, error) : TRI_OK;
    return tri_agree_everywhere(arguments, status, error);
}
