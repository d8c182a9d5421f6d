#include "base/cgroup.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PLACE_BYTES = 4096, FOLDER_BYTES = 3 * PLACE_BYTES, LINE_BYTES = 4 * PLACE_BYTES };

/* Where a hierarchy is mounted, which of its groups is seen there, and where this process is. */
struct hierarchy {
    char mount[PLACE_BYTES], top[PLACE_BYTES], place[PLACE_BYTES];
    bool mounted, joined;
};

/* What one group's folder leaves; INFINITY without a limit. */
typedef double (*measure)(const char *folder);

/* ---- files ----------------------------------------------------------------------------------- */

static bool read_line(const char *path, char text[128])
{
    FILE *file = fopen(path, "re");
    bool read = file && fgets(text, 128, file);
    if (file) {
        (void)fclose(file);
    }
    return read;
}

int64_t tri_number_of_file(const char *path)
{
    char text[128];
    char *end = text;
    long long value = read_line(path, text) ? strtoll(text, &end, 10) : -1;
    return end != text ? value : -1;
}

int64_t tri_number_of_key(const char *path, const char *key)
{
    char line[256];
    int64_t value = -1;
    size_t n = strlen(key);
    FILE *file = fopen(path, "re");
    while (file && fgets(line, sizeof(line), file)) {
        if (strncmp(line, key, n) == 0 && (line[n] == ' ' || line[n] == ':')) {
            value = strtoll(line + n + 1, NULL, 10);
        }
    }
    if (file) {
        (void)fclose(file);
    }
    return value;
}

static int64_t number_in(const char *folder, const char *name)
{
    char path[FOLDER_BYTES + 64];
    (void)snprintf(path, sizeof(path), "%s/%s", folder, name);
    return tri_number_of_file(path);
}

static int64_t memory_stat(const char *folder, const char *key)
{
    char path[FOLDER_BYTES + 64];
    (void)snprintf(path, sizeof(path), "%s/memory.stat", folder);
    return tri_number_of_key(path, key);
}

/* ---- groups ---------------------------------------------------------------------------------- */

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

/* "ID:controllers:/place"; version 2 has no controllers there. */
static void read_places(const char *root, const char *controller, struct hierarchy version[2])
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
        bool second = controllers[1] == '\0';
        bool wanted = second || lists(controllers + 1, controller);
        if (wanted && strlen(place) < PLACE_BYTES) {
            struct hierarchy *h = &version[second];
            h->joined = true;
            (void)snprintf(h->place, sizeof(h->place), "%s", strcmp(place, "/") ? place : "");
        }
    }
    if (file) {
        (void)fclose(file);
    }
}

/* "id parent major:minor TOP MOUNT options … - type source options". */
static void read_mounts(const char *root, const char *controller, struct hierarchy version[2])
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
        bool second = strcmp(type, "cgroup2") == 0;
        bool wanted = second || (strcmp(type, "cgroup") == 0 && lists(options, controller));
        if (wanted && !version[second].mounted) {
            struct hierarchy *h = &version[second];
            h->mounted = true;
            (void)snprintf(h->mount, sizeof(h->mount), "%s", mount);
            (void)snprintf(h->top, sizeof(h->top), "%s", strcmp(top, "/") ? top : "");
        }
    }
    if (file) {
        (void)fclose(file);
    }
}

/* From the process's group up to the top that is seen. */
static double least_of(const char *root, const struct hierarchy *h, measure left)
{
    char folder[FOLDER_BYTES];
    double least = (double)INFINITY;
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
        double here = left(folder);
        least = here < least ? here : least;
        char *slash = strrchr(folder + base, '/');
        if (!slash) {
            return least;
        }
        *slash = '\0';
    }
}

/* Of both versions: a machine may have one for some controllers and the other for the rest. */
static double least_left(const char *root, const char *controller, measure first, measure second)
{
    struct hierarchy version[2] = {0};
    read_places(root, controller, version);
    read_mounts(root, controller, version);
    return fmin(least_of(root, &version[0], first), least_of(root, &version[1], second));
}

/* ---- processor time -------------------------------------------------------------------------- */

static double processors(double quota, double period)
{
    return quota > 0.0 && period > 0.0 ? quota / period : (double)INFINITY;
}

static double quota_first(const char *folder)
{
    return processors((double)number_in(folder, "cpu.cfs_quota_us"),
                      (double)number_in(folder, "cpu.cfs_period_us"));
}

/* "QUOTA PERIOD"; a quota "max" is no number. */
static double quota_second(const char *folder)
{
    char path[FOLDER_BYTES + 64];
    char text[128];
    char *rest = text;
    (void)snprintf(path, sizeof(path), "%s/cpu.max", folder);
    double whole = read_line(path, text) ? strtod(text, &rest) : -1.0;
    return processors(whole, whole > 0.0 ? strtod(rest, NULL) : 0.0);
}

double tri_cgroup_processors(const char *root)
{
    return least_left(root, "cpu", quota_first, quota_second);
}

/* ---- memory ---------------------------------------------------------------------------------- */

/* Pages of files that were read once go when memory is asked for. */
static double room(int64_t limit, int64_t used, int64_t cache)
{
    if (limit < 0 || used < 0) {
        return (double)INFINITY;
    }
    used -= cache < 0 ? 0 : cache < used ? cache : used;
    return limit > used ? (double)(limit - used) : 0.0;
}

/* memory.stat counts with the groups below, and tells the least limit of all above. */
static double room_first(const char *folder)
{
    int64_t limit = number_in(folder, "memory.limit_in_bytes");
    int64_t inherited = memory_stat(folder, "hierarchical_memory_limit");
    if (inherited >= 0 && (limit < 0 || inherited < limit)) {
        limit = inherited;
    }
    return room(limit, number_in(folder, "memory.usage_in_bytes"),
                memory_stat(folder, "total_inactive_file"));
}

static double room_below(const char *folder, const char *limit)
{
    return room(number_in(folder, limit), number_in(folder, "memory.current"),
                memory_stat(folder, "inactive_file"));
}

static double room_second(const char *folder)
{
    return room_below(folder, "memory.max");
}

static double fast_second(const char *folder)
{
    return room_below(folder, "memory.high");
}

/* Version 1 slows nobody down: its memory.soft_limit_in_bytes only says whose pages go first. */
static double fast_first(const char *folder)
{
    (void)folder;
    return (double)INFINITY;
}

static int64_t to_bytes(double bytes)
{
    return bytes < 0x1p62 ? (int64_t)bytes : INT64_MAX;
}

int64_t tri_cgroup_room(const char *root)
{
    return to_bytes(least_left(root, "memory", room_first, room_second));
}

int64_t tri_cgroup_fast_room(const char *root)
{
    return to_bytes(least_left(root, "memory", fast_first, fast_second));
}
