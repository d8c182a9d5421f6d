/* What the config tests share. */
#ifndef TRIDENT_TESTS_CONFIG_TESTING_H
#define TRIDENT_TESTS_CONFIG_TESTING_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "config/config.h"
#include "moe/strategies.h"

#include <string.h>

#define COUNT(array) (sizeof(array) / sizeof(*(array)))

static inline enum tri_status parse(const char *text, struct tri_config *config,
                                    struct tri_error *error)
{
    return tri_config_parse(&tri_strategies, "c.yaml", text, strlen(text), 0, NULL, config, error);
}

/* Parses and shows the message when that fails. */
static inline void parse_well(const char *text, struct tri_config *config)
{
    struct tri_error error = {0};
    if (parse(text, config, &error) != TRI_OK) {
        fail_msg("%s", error.message);
    }
}

#endif
