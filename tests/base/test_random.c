/* Philox 4x32-10 against the vectors that its authors publish (Random123, kat_vectors). */
#include "base/random.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static const struct vector {
    uint64_t index, stream, seed; /* the counter's halves, the key: lower word first */
    uint32_t words[4];
} vectors[] = {
    {0, 0, 0, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
    {UINT64_MAX, UINT64_MAX, UINT64_MAX, {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
    {0x85a308d3243f6a88,
     0x0370734413198a2e,
     0x299f31d0a4093822,
     {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
};

static void test_bits(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(vectors) / sizeof(*vectors); i++) {
        const struct vector *v = &vectors[i];
        uint64_t want = (uint64_t)v->words[1] << 32 | v->words[0];
        assert_true(tri_random_bits(v->seed, v->stream, v->index) == want);
        double uniform = tri_random_uniform(v->seed, v->stream, v->index);
        assert_true(fabs(uniform - ldexp((double)want, -64)) <= 0x1p-52);
    }
}

/* All four words of the first vector, as two pairs of normal numbers. */
static void test_normals(void **state)
{
    (void)state;
    const uint32_t *word = vectors[0].words;
    float got[4];
    tri_random_normals(0, 0, 0, 4, got);
    for (int i = 0; i < 4; i++) {
        int pair = i & ~1;
        double radius = sqrt(-2.0 * log(ldexp((double)word[pair] + 0.5, -32)));
        double angle = ldexp((double)word[pair + 1], -32) * 6.283185307179586;
        double want = radius * (i % 2 == 0 ? cos(angle) : sin(angle));
        assert_true(fabs((double)got[i] - want) <= 1e-5);
        assert_true((double)got[i] == tri_random_normal(0, 0, (uint64_t)i));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bits),
        cmocka_unit_test(test_normals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
