/* A library with two symbols that break the rule, one that keeps it and one that is nobody's. */
#include "meta/planted.h"

int planted_variable = 1;

static int hidden(void)
{
    return planted_variable;
}

int planted_function(void)
{
    return hidden();
}

int tri_planted_get(void)
{
    return hidden();
}
