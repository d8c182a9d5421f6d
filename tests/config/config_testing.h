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

#define DEFAULT_SHAPE                                                                              \
    "; no key of model is given, so its shape is the default one (init_from takes that of a "      \
    "folder or run)"

/* A text that is refused, and the one line. */
struct bad {
    const char *text;
    const char *message;
};

static inline void check_all(const struct bad *cases, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct tri_config config;
        struct tri_error error = {0};
        if (parse(cases[i].text, &config, &error) != TRI_BAD_INPUT) {
            fail_msg("accepted: %s", cases[i].text);
        }
        assert_int_equal(error.status, TRI_BAD_INPUT);
        assert_string_equal(error.message, cases[i].message);
    }
}

#endif
