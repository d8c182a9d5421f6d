/* Signs of life. Whoever works long while others may wait for it says so now and then; comm/ puts
 * the record where the ranks of the node can read it, and no rank gives up waiting while another
 * gets on. A process that is stopped gives none. */
#ifndef TRIDENT_BASE_WORK_H
#define TRIDENT_BASE_WORK_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

enum { TRI_WORK_FILE = 192 };

struct tri_work {
    _Atomic uint64_t done;      /* grows while the process gets on */
    _Atomic int64_t file_since; /* tri_clock_nanoseconds when a call on a file began; 0: in none */
    char file[TRI_WORK_FILE];   /* the end of its path; holds while file_since is not 0 */
};

/* Where this runtime's signs go from now on; NULL: where nobody reads them. Borrowed. */
void tri_work_attach(struct tri_work *work);
/* Cheap: one addition. */
void tri_work_progress(void);
/* Around a call of the system on a file that may take as long as it takes. */
void tri_work_file_begin(const char *path);
void tri_work_file_end(void);
/* XXH3-64, with a sign for every few megabytes, which a meter of bytes (base/meter.h) counts. */
uint64_t tri_work_hash(const void *data, size_t bytes);

#endif
