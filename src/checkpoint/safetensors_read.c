/* Elements of a safetensors file as f32 or i64. Data of foreign files may be unaligned, so elements
 * are fetched by memcpy, which the compiler turns into plain loads. */
#include "checkpoint/safetensors.h"

#include "tensor/dtype.h"

#include <string.h>

static float f16_to_f32(uint16_t half)
{
    uint32_t sign = (uint32_t)(half & 0x8000u) << 16;
    uint32_t exponent = half >> 10 & 0x1fu, fraction = half & 0x3ffu;
    float value;
    if (exponent == 0) {
        value = (float)fraction * 0x1p-24f; /* zero or subnormal: exact */
        return sign ? -value : value;
    }
    uint32_t wide = exponent == 31 ? 255u : exponent + 112u;
    uint32_t bits = sign | wide << 23 | fraction << 13;
    memcpy(&value, &bits, sizeof(value));
    return value;
}

#define FOR_EACH(type, expression)                                                                 \
    do {                                                                                           \
        const unsigned char *from = tensor->data + (size_t)first * sizeof(type);                   \
        for (int64_t i = 0; i < count; i++) {                                                      \
            type x;                                                                                \
            memcpy(&x, from + (size_t)i * sizeof(type), sizeof(type));                             \
            out[i] = (expression);                                                                 \
        }                                                                                          \
    } while (0)

enum tri_status tri_safetensor_read_f32(const struct tri_safetensor *tensor, int64_t first,
                                        int64_t count, float *out, struct tri_error *error)
{
    TRI_REQUIRE(first >= 0 && count >= 0 && first <= tensor->count - count);
    switch (tensor->dtype) {
    case TRI_ST_F32:
        if (count > 0) {
            memcpy(out, tensor->data + (size_t)first * sizeof(float),
                   (size_t)count * sizeof(float));
        }
        return TRI_OK;
    case TRI_ST_BF16:
        FOR_EACH(uint16_t, tri_bf16_to_f32(x));
        return TRI_OK;
    case TRI_ST_F16:
        FOR_EACH(uint16_t, f16_to_f32(x));
        return TRI_OK;
    case TRI_ST_F64:
        FOR_EACH(double, (float)x);
        return TRI_OK;
    case TRI_ST_I32:
        FOR_EACH(int32_t, (float)x);
        return TRI_OK;
    case TRI_ST_I64:
        FOR_EACH(int64_t, (float)x);
        return TRI_OK;
    default:
        return tri_fail(error, TRI_BAD_INPUT,
                        "%s: tensor %s: dtype %s, expected F32, BF16, F16, F64, I32 or I64",
                        tensor->path, tensor->name, tri_safetensors_dtype_name(tensor->dtype));
    }
}

enum tri_status tri_safetensor_read_i64(const struct tri_safetensor *tensor, int64_t first,
                                        int64_t count, int64_t *out, struct tri_error *error)
{
    TRI_REQUIRE(first >= 0 && count >= 0 && first <= tensor->count - count);
    switch (tensor->dtype) {
    case TRI_ST_I64:
        FOR_EACH(int64_t, x);
        return TRI_OK;
    case TRI_ST_I32:
        FOR_EACH(int32_t, x);
        return TRI_OK;
    default:
        return tri_fail(error, TRI_BAD_INPUT, "%s: tensor %s: dtype %s, expected I64 or I32",
                        tensor->path, tensor->name, tri_safetensors_dtype_name(tensor->dtype));
    }
}
