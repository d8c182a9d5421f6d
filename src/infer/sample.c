#include "base/random.h"
#include "infer/decoder.h"

#include <math.h>
#include <stdlib.h>

/* Sorts ids by falling logit, ties by rising id: what qsort_r compares through. */
static int falling(const void *left, const void *right, void *context)
{
    const float *logits = context;
    int32_t a = *(const int32_t *)left;
    int32_t b = *(const int32_t *)right;
    if (logits[a] != logits[b]) {
        return logits[a] > logits[b] ? -1 : 1;
    }
    return a < b ? -1 : a > b;
}

static int32_t most_likely(const float *logits, int64_t vocab)
{
    int64_t best = 0;
    for (int64_t i = 1; i < vocab; i++) {
        if (logits[i] > logits[best]) {
            best = i;
        }
    }
    return (int32_t)best;
}

int32_t tri_sample(const float *logits, int64_t vocab, const struct tri_sampling *sampling,
                   uint64_t index, int32_t *scratch)
{
    if (sampling->temperature <= 0.0) {
        return most_likely(logits, vocab);
    }
    for (int64_t i = 0; i < vocab; i++) {
        scratch[i] = (int32_t)i;
    }
    qsort_r(scratch, (size_t)vocab, sizeof(*scratch), falling, (void *)(uintptr_t)logits);
    int64_t kept = sampling->top_k > 0 && sampling->top_k < vocab ? sampling->top_k : vocab;
    double top = (double)logits[scratch[0]];
    double total = 0.0;
    for (int64_t i = 0; i < kept; i++) {
        total += exp(((double)logits[scratch[i]] - top) / sampling->temperature);
    }
    /* The smallest set of the likeliest tokens whose share reaches top_p. */
    double limit = total * (sampling->top_p < 1.0 ? sampling->top_p : 1.0);
    double mass = 0.0;
    int64_t nucleus = 0;
    while (nucleus < kept && (nucleus == 0 || mass < limit)) {
        mass += exp(((double)logits[scratch[nucleus++]] - top) / sampling->temperature);
    }
    double point = tri_random_uniform(sampling->seed, tri_random_stream("sample"), index) * mass;
    for (int64_t i = 0; i < nucleus; i++) {
        point -= exp(((double)logits[scratch[i]] - top) / sampling->temperature);
        if (point <= 0.0) {
            return scratch[i];
        }
    }
    return scratch[nucleus - 1];
}
