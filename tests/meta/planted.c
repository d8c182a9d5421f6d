/* A library that breaks the rules: two exported symbols without the prefix, beside one that has it
 * and one that is nobody's; three variables that outlive their calls, beside a constant. */
#include "meta/planted.h"

int planted_variable = 1;
static _Thread_local int planted_own;
static const char *const planted_names[] = {"constant", "though it is relocated"};

static int hidden(void)
{
    static int calls;
    return planted_variable + ++calls + ++planted_own;
}

int planted_function(void)
{
    return hidden();
}

int tri_planted_get(void)
{
    return hidden() + planted_names[hidden() % 2][0];
}
