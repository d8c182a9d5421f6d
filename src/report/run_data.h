/* What a page shows of a run, from its folder, whatever is in it. */
#ifndef TRIDENT_REPORT_RUN_DATA_H
#define TRIDENT_REPORT_RUN_DATA_H

#include "report/thin.h"
#include "train/run_look.h"

#include <jansson.h>

enum tri_series {
    TRI_SERIES_LOSS,
    TRI_SERIES_VALID,
    TRI_SERIES_RATE,
    TRI_SERIES_GRADIENT,
    TRI_SERIES_SPEED,
    TRI_SERIES_COUNT
};

enum tri_split {
    TRI_SPLIT_ATTENTION,
    TRI_SPLIT_ROUTER,
    TRI_SPLIT_EXCHANGE,
    TRI_SPLIT_EXPERTS,
    TRI_SPLIT_OPTIMIZER,
    TRI_SPLIT_EXPOSED, /* communication that nothing hid; part of the others */
    TRI_SPLIT_COUNT
};

/* The experts' loads in columns of equal numbers of steps. */
enum { TRI_HEAT_COLUMNS = 48 };
struct tri_heat {
    int64_t layers, experts, width; /* width: steps of a column; 0: none yet */
    int64_t first[TRI_HEAT_COLUMNS], last[TRI_HEAT_COLUMNS]; /* steps; 0: an empty column */
    int64_t *load; /* [TRI_HEAT_COLUMNS][layers][experts] */
};

struct tri_report_run {
    struct tri_run_look look;
    struct tri_thin series[TRI_SERIES_COUNT];
    double split_ms[TRI_SPLIT_COUNT], step_ms; /* sums over the lines of steps */
    int64_t lines, torn;                       /* of metrics.jsonl: steps' lines, unreadable ones */
    struct tri_heat heat;
    json_t *ledger, *plan, *environment; /* NULL: not there, or unreadable */
    char *config;                        /* config.yaml's text; NULL */
};

/* "loss", …; as metrics.jsonl calls them */
const char *tri_split_name(enum tri_split split);

/* BAD_INPUT when path is no run's folder. tri_report_run_fini. */
enum tri_status tri_report_run_load(const char *path, struct tri_report_run *run,
                                    struct tri_error *error) TRI_NODISCARD;
void tri_report_run_fini(struct tri_report_run *run);
/* The load of a column's layer, [experts]. */
const int64_t *tri_heat_get(const struct tri_heat *heat, int column, int64_t layer);

#endif
