/* Threads that the system does not start. A program that links trident_thread_fault has the
 * library's pthread_create behind one of ours; sanitizers, which have their own, are without. */
#ifndef TRIDENT_TESTS_SUPPORT_THREAD_FAULT_H
#define TRIDENT_TESTS_SUPPORT_THREAD_FAULT_H

#include <stdbool.h>

/* From now on the next `started` threads can be started, and then one cannot, or none can. */
void thread_fault_after(int started, bool all);

#endif
