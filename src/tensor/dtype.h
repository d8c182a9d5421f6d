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

/* Rounds to nearest, ties to even; what is too large is infinite, a NaN stays a (quiet) NaN. */
static inline uint16_t tri_f32_to_f16(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof(bits));
    uint32_t sign = bits >> 16 & 0x8000u, size = bits & 0x7fffffffu;
    if (size >= 0x47800000u) { /* 65536 or more, or no number */
        return (uint16_t)(sign | (size > 0x7f800000u ? 0x7e00u : 0x7c00u));
    }
    if (size < 0x38800000u) { /* below the normal ones: units of 2^-24 */
        float magnitude;
        memcpy(&magnitude, &size, sizeof(magnitude));
        float shifted = magnitude + 0.5F; /* whose last bit is 2^-24: rounds just so */
        uint32_t sum;
        memcpy(&sum, &shifted, sizeof(sum));
        return (uint16_t)(sign | (sum - 0x3f000000u));
    }
    return (uint16_t)(sign | ((size - 0x38000000u + 0xfffu + (size >> 13 & 1u)) >> 13));
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
