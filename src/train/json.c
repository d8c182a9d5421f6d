#include "train/json.h"

#include "base/status.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

json_t *tri_json_number(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

json_t *tri_json_text(const char *text)
{
    json_t *string = json_string(text);
    if (string) {
        return string;
    }
    char *copy = strdup(text);
    TRI_REQUIRE(copy);
    for (char *c = copy; *c; c++) {
        *c = (unsigned char)*c < 0x80 ? *c : '?';
    }
    string = json_string(copy);
    free(copy);
    return string;
}

void tri_json_add_times(json_t *object, const struct tri_step_time *time)
{
    json_t *parts = json_object();
    for (int part = 0; part < TRI_PART_COUNT; part++) {
        (void)json_object_set_new(parts, tri_part_name((enum tri_part)part),
                                  tri_json_number(1e3 * time->part[part]));
    }
    (void)json_object_set_new(object, "step_ms", tri_json_number(1e3 * time->step));
    (void)json_object_set_new(object, "exposed_ms", tri_json_number(1e3 * time->exposed));
    (void)json_object_set_new(object, "parts_ms", parts);
}

void tri_print_json(json_t *root)
{
    char *text = json_dumps(root, JSON_COMPACT);
    (void)printf("%s\n", text ? text : "null");
    (void)fflush(stdout);
    free(text);
    json_decref(root);
}
