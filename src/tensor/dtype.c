#include "tensor/dtype.h"

size_t tri_dtype_size(enum tri_dtype dtype)
{
    static const size_t sizes[TRI_DTYPE_COUNT] = {4, 2, 8, 4, 8, 1};
    return sizes[dtype];
}

const char *tri_dtype_name(enum tri_dtype dtype)
{
    static const char *const names[TRI_DTYPE_COUNT] = {"F32", "BF16", "F64", "I32", "I64", "U8"};
    return names[dtype];
}
