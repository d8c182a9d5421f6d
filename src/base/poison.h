/* Marks memory that is ours but not to be touched, for AddressSanitizer; nothing in other builds.
 * Only base/ includes it. */
#ifndef TRIDENT_BASE_POISON_H
#define TRIDENT_BASE_POISON_H

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#define TRI_POISON(at, bytes)   __asan_poison_memory_region((at), (bytes))
#define TRI_UNPOISON(at, bytes) __asan_unpoison_memory_region((at), (bytes))
#else
#define TRI_POISON(at, bytes)   ((void)(at), (void)(bytes))
#define TRI_UNPOISON(at, bytes) ((void)(at), (void)(bytes))
#endif

#endif
