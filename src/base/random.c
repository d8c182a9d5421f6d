/* Philox 4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC'11). */
#include "base/random.h"

#include <math.h>
#include <string.h>
#include <xxhash.h>

struct block {
    uint32_t word[4];
};

static struct block philox(uint64_t seed, uint64_t stream, uint64_t index)
{
    uint32_t c[4] = {(uint32_t)index, (uint32_t)(index >> 32), (uint32_t)stream,
                     (uint32_t)(stream >> 32)};
    uint32_t k0 = (uint32_t)seed;
    uint32_t k1 = (uint32_t)(seed >> 32);
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c[0];
        uint64_t p1 = (uint64_t)0xCD9E8D57u * c[2];
        uint32_t n0 = (uint32_t)(p1 >> 32) ^ c[1] ^ k0;
        uint32_t n2 = (uint32_t)(p0 >> 32) ^ c[3] ^ k1;
        c[1] = (uint32_t)p1;
        c[3] = (uint32_t)p0;
        c[0] = n0;
        c[2] = n2;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return (struct block){{c[0], c[1], c[2], c[3]}};
}

uint64_t tri_random_stream(const char *name)
{
    return XXH3_64bits(name, strlen(name));
}

uint64_t tri_random_bits(uint64_t seed, uint64_t stream, uint64_t index)
{
    struct block b = philox(seed, stream, index);
    return (uint64_t)b.word[1] << 32 | b.word[0];
}

static double open_unit(uint32_t high, uint32_t low)
{
    uint64_t bits = ((uint64_t)high << 32 | low) >> 12; /* 52 bits */
    return ((double)bits + 0.5) * 0x1p-52;
}

double tri_random_uniform(uint64_t seed, uint64_t stream, uint64_t index)
{
    struct block b = philox(seed, stream, index);
    return open_unit(b.word[1], b.word[0]);
}

/* Two standard normals from two words: never log(0), at most 6.8 standard deviations. */
static void box_muller(uint32_t radius_word, uint32_t angle_word, float *pair)
{
    const float two_pi = 6.28318530718F;
    float radius = sqrtf(-2.0F * logf(((float)radius_word + 0.5F) * 0x1p-32F));
    float angle = two_pi * ((float)angle_word * 0x1p-32F);
    pair[0] = radius * cosf(angle);
    pair[1] = radius * sinf(angle);
}

static void four_normals(uint64_t seed, uint64_t stream, uint64_t quarter, float out[4])
{
    struct block b = philox(seed, stream, quarter);
    box_muller(b.word[0], b.word[1], out);
    box_muller(b.word[2], b.word[3], out + 2);
}

double tri_random_normal(uint64_t seed, uint64_t stream, uint64_t index)
{
    float four[4];
    four_normals(seed, stream, index / 4, four);
    return (double)four[index % 4];
}

void tri_random_normals(uint64_t seed, uint64_t stream, uint64_t first, int64_t n, float *out)
{
    int64_t i = 0;
    while (i < n) {
        float four[4];
        uint64_t index = first + (uint64_t)i;
        four_normals(seed, stream, index / 4, four);
        for (uint64_t lane = index % 4; lane < 4 && i < n; lane++) {
            out[i++] = four[lane];
        }
    }
}

/* A four-round Feistel network over the smallest even number of bits that holds n; values outside
 * [0, n) are sent through again (cycle walking), fewer than four times on average. */
uint64_t tri_random_permute(uint64_t seed, uint64_t stream, uint64_t n, uint64_t position)
{
    int half = 1;
    while (half < 32 && n > (uint64_t)1 << (2 * half)) {
        half++;
    }
    uint64_t mask = ((uint64_t)1 << half) - 1;
    do {
        uint64_t left = position >> half;
        uint64_t right = position & mask;
        for (uint64_t round = 0; round < 4; round++) {
            uint64_t mixed = tri_random_bits(seed, stream, right << 2 | round) & mask;
            uint64_t next = left ^ mixed;
            left = right;
            right = next;
        }
        position = left << half | right;
    } while (position >= n);
    return position;
}
