#include "plan/cgroup.h"

#include "base/status.h"
#include "config/config.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PLACE_BYTES = 4096, FOLDER_BYTES = 3 * PLACE_BYTES, LINE_BYTES = 4 * PLACE_BYTES };

/* The files of one version. */
struct version {
    const char *limit, *use;
    const char *cache; /* the key of memory.stat that counts what can be dropped, with children */
    const char
        *inherited; /* the key of memory.stat that is the least limit of all above, or NULL */
};

static const struct version first = {"memory.limit_in_bytes", "memory.usage_in_bytes",
                                     "total_inactive_file", "hierarchical_memory_limit"};
static const struct version second = {"memory.max", "memory.current", "inactive_file", NULL};

/* Where a hierarchy is mounted, which of its groups is seen there, and where this process is. */
struct hierarchy {
    char mount[PLACE_BYTES], top[PLACE_BYTES], place[PLACE_BYTES];
    bool mounted, joined;
};

int64_t tri_number_of_file(const char *path)
{
    char text[64] = "";
    FILE *file = fopen(path, "re");
    if (!file) {
        return -1;
    }
    bool read = fgets(text, sizeof(text), file) != NULL;
    (void)fclose(file);
    char *end;
    long long value = strtoll(text, &end, 10);
    return read && end != text ? value : -1;
}

/* The value of a line "key value", or -1. */
static int64_t number_of_key(const char *path, const char *key)
{
    char line[256];
    int64_t value = -1;
    size_t n = strlen(key);
    FILE *file = fopen(path, "re");
    while (file && fgets(line, sizeof(line), file)) {
        if (strncmp(line, key, n) == 0 && line[n] == ' ') {
            value = strtoll(line + n, NULL, 10);
        }
    }
    if (file) {
        (void)fclose(file);
    }
    return value;
}

/* Whether a list "a,b,c" holds a word. */
static bool lists(const char *list, const char *word)
{
    size_t n = strlen(word);
    for (const char *at = list; at; at = strchr(at, ',') ? strchr(at, ',') + 1 : NULL) {
        if (strncmp(at, word, n) == 0 && (at[n] == ',' || at[n] == '\0')) {
            return true;
        }
    }
    return false;
}

/* "ID:controllers:/place"; version 2 has ID 0 and no controllers. */
static void read_places(const char *root, struct hierarchy *v1, struct hierarchy *v2)
{
    char path[FOLDER_BYTES];
    char line[LINE_BYTES];
    (void)snprintf(path, sizeof(path), "%s/proc/self/cgroup", root);
    FILE *file = fopen(path, "re");
    while (file && fgets(line, sizeof(line), file)) {
        char *controllers = strchr(line, ':');
        char *place = controllers ? strchr(controllers + 1, ':') : NULL;
        if (!place) {
            continue;
        }
        *place++ = '\0';
        place[strcspn(place, "\n")] = '\0';
        bool is_second = strcmp(line, "0:") == 0 || strcmp(controllers, ":") == 0;
        struct hierarchy *h = is_second ? v2 : lists(controllers + 1, "memory") ? v1 : NULL;
        if (h && strlen(place) < sizeof(h->place)) {
            h->joined = true;
            (void)snprintf(h->place, sizeof(h->place), "%s", strcmp(place, "/") ? place : "");
        }
    }
    if (file) {
        (void)fclose(file);
    }
}

/* "id parent major:minor TOP MOUNT options … - type source options". */
static void read_mounts(const char *root, struct hierarchy *v1, struct hierarchy *v2)
{
    char path[FOLDER_BYTES];
    char line[LINE_BYTES];
    (void)snprintf(path, sizeof(path), "%s/proc/self/mountinfo", root);
    FILE *file = fopen(path, "re");
    while (file && fgets(line, sizeof(line), file)) {
        char top[PLACE_BYTES];
        char mount[PLACE_BYTES];
        char type[32];
        char options[1024] = "";
        const char *tail = strstr(line, " - ");
        if (!tail || sscanf(line, "%*s %*s %*s %4095s %4095s", top, mount) != 2 ||
            sscanf(tail, " - %31s %*s %1023s", type, options) < 1) {
            continue;
        }
        struct hierarchy *h = strcmp(type, "cgroup2") == 0                              ? v2
                              : strcmp(type, "cgroup") == 0 && lists(options, "memory") ? v1
                                                                                        : NULL;
        if (h && !h->mounted) {
            h->mounted = true;
            (void)snprintf(h->mount, sizeof(h->mount), "%s", mount);
            (void)snprintf(h->top, sizeof(h->top), "%s", strcmp(top, "/") ? top : "");
        }
    }
    if (file) {
        (void)fclose(file);
    }
}

/* Room under the limit of one group's folder. */
static int64_t room_in(const char *folder, const struct version *version)
{
    char path[FOLDER_BYTES + 64];
    (void)snprintf(path, sizeof(path), "%s/%s", folder, version->limit);
    int64_t limit = tri_number_of_file(path);
    (void)snprintf(path, sizeof(path), "%s/%s", folder, version->use);
    int64_t used = tri_number_of_file(path);
    (void)snprintf(path, sizeof(path), "%s/memory.stat", folder);
    int64_t inherited = version->inherited ? number_of_key(path, version->inherited) : -1;
    if (inherited >= 0 && (limit < 0 || inherited < limit)) {
        limit = inherited;
    }
    if (limit < 0 || used < 0) {
        return INT64_MAX;
    }
    int64_t cache = number_of_key(path, version->cache);
    used -= cache < 0 ? 0 : cache < used ? cache : used;
    return limit > used ? limit - used : 0;
}

static int64_t least_room(const char *root, const struct hierarchy *h,
                          const struct version *version)
{
    char folder[FOLDER_BYTES];
    int64_t least = INT64_MAX;
    if (!h->mounted || !h->joined) {
        return least;
    }
    /* In a container what is mounted may be a group further down than the hierarchy's own top, and
     * this process's place may be told from there, or lie outside of what can be seen. */
    size_t n = strlen(h->top);
    bool below = strncmp(h->place, h->top, n) == 0 && (h->place[n] == '/' || h->place[n] == '\0');
    const char *place = below ? h->place + n : h->place;
    size_t base = (size_t)snprintf(folder, sizeof(folder), "%s%s", root, h->mount);
    (void)snprintf(folder + base, sizeof(folder) - base, "%s",
                   strncmp(place, "/..", 3) == 0 ? "" : place);
    for (;;) {
        int64_t here = room_in(folder, version);
        least = here < least ? here : least;
        char *slash = strrchr(folder + base, '/');
        if (!slash) {
            return least;
        }
        *slash = '\0';
    }
}

int64_t tri_cgroup_room(const char *root)
{
    struct hierarchy h[2] = {0};
    read_places(root, &h[0], &h[1]);
    read_mounts(root, &h[0], &h[1]);
    int64_t v1 = least_room(root, &h[0], &first);
    int64_t v2 = least_room(root, &h[1], &second);
    return v1 < v2 ? v1 : v2;
}
