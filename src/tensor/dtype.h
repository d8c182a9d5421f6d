#ifndef TRIDENT_TENSOR_DTYPE_H
#define TRIDENT_TENSOR_DTYPE_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum tri_dtype { TRI_F32, TRI_BF16, TRI_F64, TRI_I32, TRI_I64, TRI_U8, TRI_DTYPE_COUNT };

size_t tri_dtype_size(enum tri_dtype dtype);
/* The name safetensors gives it: "F32", "BF16", … */
const char *tri_dtype_name(enum tri_dtype dtype);

static inline float tri_bf16_to_f32(uint16_t value)
{
    uint32_t bits = (uint32_t)value << 16;
    float result;
    memcpy(&result, &bits, sizeof(result));
    return result;
}

/* Rounds to nearest, ties to even; a NaN stays a (quiet) NaN. */
static inline uint16_t tri_f32_to_bf16(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof(bits));
    uint32_t rounded = (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
    uint32_t nan = bits >> 16 | 0x40u;
    return (uint16_t)((bits & 0x7fffffffu) > 0x7f800000u ? nan : rounded);
}

#endif
