#include "data/string.h"

#include "base/memory.h"

#include <string.h>

void tri_array_grow(void **block, size_t *room, size_t entry, size_t used, size_t more)
{
    if (*block && used + more <= *room) {
        return;
    }
    size_t wanted = used + more > 2 * *room ? used + more : 2 * *room;
    wanted = wanted < 64 ? 64 : wanted;
    *block =
        *block ? tri_resize(*block, wanted * entry) : tri_alloc(TRI_MEMORY_OTHER, wanted * entry);
    *room = wanted;
}

void tri_string_append(struct tri_string *text, const void *data, size_t bytes)
{
    void *block = text->data;
    tri_array_grow(&block, &text->room, 1, text->size, bytes);
    text->data = block;
    memcpy(text->data + text->size, data, bytes);
    text->size += bytes;
}

void tri_string_fini(struct tri_string *text)
{
    tri_free(text->data);
    *text = (struct tri_string){0};
}
