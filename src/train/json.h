/* JSON that metrics and commands write. */
#ifndef TRIDENT_TRAIN_JSON_H
#define TRIDENT_TRAIN_JSON_H

#include "plan/timing.h"

#include <jansson.h>

/* The value as a JSON number, null when it is not finite: a key is never left out. */
json_t *tri_json_number(double value);
/* The text, which may be anybody's, as a JSON string: bytes that are no UTF-8 become '?'. */
json_t *tri_json_text(const char *text);
/* Adds step_ms, exposed_ms and parts_ms of a planned step. */
void tri_json_add_times(json_t *object, const struct tri_step_time *time);
/* Prints root on one line of standard output and releases it. */
void tri_print_json(json_t *root);

#endif
