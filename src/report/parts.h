/* The parts of the page. Each prints its section; text of a run goes through tri_html alone. */
#ifndef TRIDENT_REPORT_PARTS_H
#define TRIDENT_REPORT_PARTS_H

#include "report/run_data.h"

#include <stdio.h>

/* Text as HTML's, in an element or between quotes; bytes that are no UTF-8, and controls, become
 * '?'. */
void tri_html(FILE *out, const char *text);
/* Of so many bytes. */
void tri_html_bytes(FILE *out, const char *text, size_t bytes);
/* A number as people read it: four digits that count. */
void tri_html_number(FILE *out, double value);
void tri_html_megabytes(FILE *out, double bytes);

/* All runs over each other. */
void tri_part_curves(FILE *out, int count, const struct tri_report_run *runs);
/* The table of runs at the page's head. */
void tri_part_summary(FILE *out, int count, const struct tri_report_run *runs);
/* Of one run; number: its place on the page. */
void tri_part_heat(FILE *out, const struct tri_report_run *run);
void tri_part_costs(FILE *out, const struct tri_report_run *run);
void tri_part_ledger(FILE *out, const struct tri_report_run *run);
void tri_part_mesh(FILE *out, const struct tri_report_run *run);
void tri_part_settings(FILE *out, const struct tri_report_run *run);

/* In pieces, ended by NULL. */
extern const char *const tri_report_style[];
extern const char *const tri_report_script[];

#endif
