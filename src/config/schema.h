/* The one table of all keys: name, type, range, default, place in struct tri_config, help.
 * Everything that knows keys (reader, overrides, printing, help, docs, suggestions) loops over
 * it. */
#ifndef TRIDENT_CONFIG_SCHEMA_H
#define TRIDENT_CONFIG_SCHEMA_H

#include "config/config.h"

enum tri_key_type {
    TRI_KEY_INT,
    TRI_KEY_FLOAT,
    TRI_KEY_BOOL,
    TRI_KEY_ENUM,
    TRI_KEY_STRATEGY,
    TRI_KEY_TEXT,
    TRI_KEY_LAYERS,   /* a list of integers */
    TRI_KEY_PAIR,     /* two numbers */
    TRI_KEY_GRID,     /* three integers */
    TRI_KEY_SPAN,     /* two integers, from and to; none is 0, 0 */
    TRI_KEY_RECOMPUTE /* none, full or a list of integers */
};

/* How a TEXT that names a set of shards may name several. */
enum tri_sets_kind { TRI_SETS_ONE, TRI_SETS_WEIGHTED, TRI_SETS_NAMED };

/* A value as it lies in struct tri_config: each key's bytes there are those of one member here. */
union tri_value {
    int64_t integer;
    double number;
    bool truth;
    unsigned word;                       /* of an enum */
    const struct tri_strategy *strategy; /* or what begins with one */
    char text[TRI_PATH_MAX];
    struct {
        int64_t count; /* of a RECOMPUTE: 0 is none, -1 is full */
        int64_t items[TRI_LAYERS_MAX];
    } layers;
    double pair[2];
    int64_t grid[3];
    int64_t span[2];
};

struct tri_key {
    const char *name; /* "section.key", or "key" at the top */
    enum tri_key_type type;
    size_t offset;
    int64_t min, max; /* INT; items of LAYERS, GRID, SPAN and RECOMPUTE; bytes of TEXT */
    double low,
        high; /* FLOAT and both of a PAIR; low itself is allowed when low_in, high when high_in */
    bool low_in, high_in;
    unsigned autos; /* of enum tri_auto: the word `auto` leaves the value to the planner */
    bool none;      /* the word `none` is allowed and stored as none_as */
    int64_t none_as;
    const char *const *words; /* ENUM, ends in NULL; a value is its index */
    size_t list;              /* STRATEGY: where struct tri_strategies has those to choose from */
    const char *initial;      /* the default as one writes it (STRATEGY: the list's first); NULL: it
                                 follows other keys, and until tri_config_finish the value is 0
                                 (INT), -1 (FLOAT) or UINT_MAX (ENUM) */
    const char *follows;      /* how, in words */
    bool folder;              /* TEXT that is a path: a slash at its end goes */
    enum tri_sets_kind sets;  /* TEXT that may be several sets (config/sets.h) */
    bool texts;               /* TEXT that is several, between commas: may be written as a list */
    bool shapes;              /* a run cannot be continued with another value */
    enum tri_key_effect effect;
    const char *help;
};

struct tri_section {
    const char *name; /* "" for the top */
    const char *help;
    unsigned autos; /* of enum tri_auto: `auto` instead of it leaves all its keys to the planner */
};

extern const struct tri_key tri_keys[];
extern const size_t tri_keys_count;
extern const struct tri_section tri_sections[];
extern const size_t tri_sections_count;

/* Index in tri_keys of a full name; -1 when there is none. */
int tri_key_find(const char *name);
/* NULL when there is none. */
const struct tri_section *tri_section_find(const char *name);
/* Whether a full name, or a word of a key, is kept for what is planned and is not built yet. */
bool tri_key_is_reserved(const char *name);
bool tri_word_is_reserved(const struct tri_key *key, const char *word);
/* Whether the key lies in the section ("" is the top). */
bool tri_key_in_section(const struct tri_key *key, const char *section);
/* The name without its section. */
const char *tri_key_last(const struct tri_key *key);
/* The strategies that a key of that type chooses from, ends in NULL; NULL of other keys. */
const struct tri_strategy *const *tri_key_strategies(const struct tri_key *key,
                                                     const struct tri_strategies *known);
/* Word i of those that an ENUM or STRATEGY chooses from, NULL behind the last one and of other
 * keys. */
const char *tri_key_word(const struct tri_key *key, const struct tri_strategies *known, size_t i);
/* The default as one writes it; NULL: it follows other keys. */
const char *tri_key_initial(const struct tri_key *key, const struct tri_strategies *known);

/* Where the key's value lies. */
void *tri_key_at(const struct tri_key *key, struct tri_config *config);
const void *tri_key_view(const struct tri_key *key, const struct tri_config *config);
/* Bytes of the value there. */
size_t tri_key_bytes(const struct tri_key *key);
/* Whether the value is still to be found from other keys. */
bool tri_key_is_unset(const struct tri_key *key, const void *value);
/* Gives the value that the key has when nobody gives one. */
void tri_key_reset(const struct tri_key *key, struct tri_config *config);
/* Takes the value away: it is to be found from other keys. */
void tri_key_unset(const struct tri_key *key, void *value);
/* Whether nobody gave the value and it is what the other keys make it: with others it would be
 * another one. A value that code set to just that counts as such. */
bool tri_key_is_followed(const struct tri_key *key, const struct tri_config *config);

/* tri_config_finish; hints: of what somebody wrote, so that tri_config_hint_shape fits. */
enum tri_status tri_config_finish_read(struct tri_config *config, bool hints,
                                       struct tri_error *error) TRI_NODISCARD;

/* What a config leaves to the planner, beside what it gives. */
enum tri_status tri_config_check_auto(struct tri_config *config,
                                      struct tri_error *error) TRI_NODISCARD;
/* Leaves a section's keys to the planner: what lines of the file gave of them goes. */
void tri_config_open_section(struct tri_config *config, const struct tri_section *section,
                             int line);
/* The key parallel.tensor_grid. */
enum tri_status tri_config_check_grid(const struct tri_config *config,
                                      struct tri_error *error) TRI_NODISCARD;
/* The first schedule that goes with the router. */
const struct tri_schedule_kind *tri_config_schedule_for(const struct tri_config *config);
/* Whether other routers say that they read the key, and this one does not. */
bool tri_key_is_unread(const struct tri_key *key, const struct tri_router_kind *router,
                       const struct tri_strategies *known);
/* The section moe, of a config with experts. */
enum tri_status tri_config_check_moe(const struct tri_config *config,
                                     struct tri_error *error) TRI_NODISCARD;
/* The section train.lora. */
enum tri_status tri_config_check_lora(const struct tri_config *config,
                                      struct tri_error *error) TRI_NODISCARD;

/* Sections model and moe of a config that is not finished: what nobody gave becomes that of source.
 * As tri_config_complete. */
enum tri_status tri_config_adopt(struct tri_config *config, const struct tri_config *source,
                                 struct tri_error *error) TRI_NODISCARD;

/* The full name (or section) nearest to what was written, by edit distance; *close says whether it
 * is near enough to be a slip of the pen. A section is sought when want_section. */
const char *tri_key_nearest(const char *written, bool want_section, bool *close);

/* tri_config_refuse, with the line of `other` when the file does not set `key`. */
enum tri_status tri_key_refuse(const struct tri_config *config, struct tri_error *error,
                               const char *key, const char *other, const char *format, ...)
    TRI_PRINTF(5, 6);

#endif
