/* `trident report`: runs as one HTML page that needs no network: curves of all of them over each
 * other, and of each its experts' load, time, bytes, memory, mesh, config and environment. Every
 * figure is on the page as text too. */
#ifndef TRIDENT_REPORT_REPORT_H
#define TRIDENT_REPORT_REPORT_H

#include "base/status.h"

enum { TRI_REPORT_RUNS = 8 };

/* Writes the page of `count` runs, at most TRI_REPORT_RUNS, to the file `out`, whole or not at all.
 * BAD_INPUT when a folder is no run's; what of a run cannot be read is said on the page. Local. */
enum tri_status tri_report_write(int count, char *const *runs, const char *out,
                                 struct tri_error *error) TRI_NODISCARD;

#endif
