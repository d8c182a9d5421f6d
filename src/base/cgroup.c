#include "base/cgroup.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LINE = 4096 };

/* Where a hierarchy is seen, and which of its folders is seen there. */
struct mount {
    char point[LINE], top[LINE];
    bool version1;
};

static FILE *open_in(const char *root, const char *path, const char *name)
{
    char whole[4 * LINE];
    int length = snprintf(whole, sizeof(whole), "%s%s%s", root, path, name);
    return length > 0 && (size_t)length < sizeof(whole) ? fopen(whole, "re") : NULL;
}

/* Whether "cpu" is among the words, which commas part. */
static bool names_cpu(const char *list)
{
    for (const char *at = strstr(list, "cpu"); at; at = strstr(at + 1, "cpu")) {
        bool begins = at == list || at[-1] == ',';
        bool ends = at[3] == '\0' || at[3] == ',' || at[3] == '\n';
        if (begins && ends) {
            return true;
        }
    }
    return false;
}

/* A line of mountinfo: id, parent, device, top, point, options, … - type, source, options. */
static bool read_mount(char *line, struct mount *mount)
{
    enum { FIELDS = 5 };
    char *field[FIELDS];
    char *rest = NULL;
    char *behind = strstr(line, " - ");
    char options[LINE];
    char type[64];
    if (!behind || sscanf(behind, " - %63s %*s %4095s", type, options) != 2) {
        return false;
    }
    *behind = '\0';
    for (int i = 0; i < FIELDS; i++) {
        field[i] = strtok_r(i == 0 ? line : NULL, " ", &rest);
        if (!field[i]) {
            return false;
        }
    }
    (void)snprintf(mount->top, sizeof(mount->top), "%s", field[3]);
    (void)snprintf(mount->point, sizeof(mount->point), "%s", field[4]);
    mount->version1 = strcmp(type, "cgroup") == 0 && names_cpu(options);
    return mount->version1 || strcmp(type, "cgroup2") == 0;
}

/* A file's one line. */
static bool read_numbers(const char *root, const char *folder, const char *name, char text[128])
{
    FILE *file = open_in(root, folder, name);
    bool read = file && fgets(text, 128, file);
    if (file) {
        (void)fclose(file);
    }
    return read;
}

static double quota_in(const char *root, const char *folder, bool version1)
{
    char text[128];
    double quota;
    double period;
    if (version1) {
        quota = read_numbers(root, folder, "/cpu.cfs_quota_us", text) ? strtod(text, NULL) : -1.0;
        period = read_numbers(root, folder, "/cpu.cfs_period_us", text) ? strtod(text, NULL) : 0.0;
    } else {
        char *rest = text;
        quota = read_numbers(root, folder, "/cpu.max", text) ? strtod(text, &rest) : -1.0;
        period = quota > 0.0 ? strtod(rest, NULL) : 0.0; /* "max" is no number */
    }
    return quota > 0.0 && period > 0.0 ? quota / period : (double)INFINITY;
}

/* From the process's group up to the top that is seen. */
static double least_quota(const char *root, const struct mount *mount, const char *group)
{
    char folder[2 * LINE];
    double least = (double)INFINITY;
    size_t top = strcmp(mount->top, "/") == 0 ? 0 : strlen(mount->top);
    bool inside = strncmp(group, mount->top, top) == 0 && !strstr(group, "..");
    (void)snprintf(folder, sizeof(folder), "%s%s", mount->point, inside ? group + top : "");
    for (;;) {
        double here = quota_in(root, folder, mount->version1);
        least = here < least ? here : least;
        char *slash = strrchr(folder, '/');
        if (!slash || strlen(folder) <= strlen(mount->point)) {
            return least;
        }
        *slash = '\0';
    }
}

/* The group's path in a hierarchy. */
static bool find_group(const char *root, bool version1, char group[LINE])
{
    char line[LINE];
    bool found = false;
    FILE *file = open_in(root, "/proc/self/cgroup", "");
    while (file && !found && fgets(line, sizeof(line), file)) {
        char *list = strchr(line, ':');
        char *path = list ? strchr(list + 1, ':') : NULL;
        if (!path) {
            continue;
        }
        *path++ = '\0';
        path[strcspn(path, "\n")] = '\0';
        found = version1 ? names_cpu(list + 1) : list[1] == '\0';
        (void)snprintf(group, LINE, "%s", path);
    }
    if (file) {
        (void)fclose(file);
    }
    return found;
}

double tri_cgroup_processors(const char *root)
{
    char line[4 * LINE];
    double least = (double)INFINITY;
    FILE *file = open_in(root, "/proc/self/mountinfo", "");
    while (file && fgets(line, sizeof(line), file)) {
        struct mount mount;
        char group[LINE];
        if (read_mount(line, &mount) && find_group(root, mount.version1, group)) {
            double here = least_quota(root, &mount, group);
            least = here < least ? here : least;
        }
    }
    if (file) {
        (void)fclose(file);
    }
    return least;
}
