#include "train/json.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

json_t *tri_json_number(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

void tri_print_json(json_t *root)
{
    char *text = json_dumps(root, JSON_COMPACT);
    (void)printf("%s\n", text ? text : "null");
    (void)fflush(stdout);
    free(text);
    json_decref(root);
}
