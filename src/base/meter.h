/* Long work that shows itself on standard error of rank 0: on a terminal a line that is written
 * over, else, or where the runtime's sink takes lines, a plain line now and then.
 *
 *   evaluating   45 %  120 of 268 rows  33.1 rows/s  4s left
 *
 * Who begins a piece of work says how much there is; whoever gets on with it, layers below, adds
 * what is done, and need not know whether anybody counts. Work in work is part of the outer, which
 * is what shows. No rank asks another: what rank 0 has done stands for all. */
#ifndef TRIDENT_BASE_METER_H
#define TRIDENT_BASE_METER_H

#include "base/status.h"

#include <stdint.h>

enum tri_meter_unit {
    TRI_METER_BYTES,
    TRI_METER_TENSORS,
    TRI_METER_TOKENS,
    TRI_METER_ROWS,
    TRI_METER_QUESTIONS,
    TRI_METER_STEPS,
    TRI_METER_LAYOUTS,
    TRI_METER_OPTIONS,
    TRI_METER_MEASUREMENTS,
    /* Of a training step, whose own line stands while the step is short. */
    TRI_METER_MICRO_BATCHES
};

enum { TRI_METER_NAME = 96 };

/* A runtime's (base/runtime.h). */
struct tri_meter {
    int depth; /* begun and not ended */
    enum tri_meter_unit unit;
    char name[TRI_METER_NAME];
    int64_t done, total;
    double began, shown; /* shown 0: not yet */
};

/* total: how much there is, 0 where that is not known; the text is what is done, "evaluating". Each
 * begin has its end, also where the work fails. Local. */
void tri_meter_begin(enum tri_meter_unit unit, int64_t total, const char *format, ...)
    TRI_PRINTF(3, 4);
/* So much more is done. Nothing where no work in this unit has begun. */
void tri_meter_add(enum tri_meter_unit unit, int64_t amount);
/* Takes the line of a terminal away. */
void tri_meter_end(void);

/* Seconds as people say them: "1h02m", "3m20s", "12s". */
void tri_meter_time(double seconds, char text[32]);

/* ---- the line of a terminal ------------------------------------------------------------------ */

/* Whether there is one: standard error is a terminal, and no sink takes the lines. */
bool tri_live_is_there(void);
/* Writes the text over it, no wider than the terminal. */
void tri_live_show(const char *text);
/* Takes it away, so that another line can stand there: whoever prints one calls this first. */
void tri_live_hide(void);
/* Leaves it standing and goes on below it. */
void tri_live_keep(void);

#endif
