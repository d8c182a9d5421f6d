/* How long a thread of libgomp that waits for the others spins before it sleeps. By default it is
 * some milliseconds: on cores that other jobs share, or under a quota of processor time, those are
 * taken from the threads that are waited for, and a step takes ten times as long. libgomp asks the
 * environment for GOMP_SPINCOUNT while it is loaded, before anything of ours runs, and can be told
 * in no other way: OpenMP's own calls know nothing of it, and the variable set later is not read. A
 * program that sets it and executes itself anew would load everything twice, and lose who runs it
 * inside: an emulator, Valgrind. So the program has a getenv of its own, which knows a default for
 * that variable; other OpenMP libraries don't ask for it. What the user sets wins. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char *find(const char *name)
{
    size_t length = strlen(name);
    for (char **entry = environ; entry && *entry; entry++) {
        if (strncmp(*entry, name, length) == 0 && (*entry)[length] == '=') {
            return *entry + length + 1;
        }
    }
    return NULL;
}

char *getenv(const char *name)
{
    static char spins[] = "5000"; /* some 0.1 to 0.2 ms */
    char *value = find(name);
    if (!value && strcmp(name, "GOMP_SPINCOUNT") == 0 && !find("OMP_WAIT_POLICY")) {
        return spins;
    }
    return value;
}
