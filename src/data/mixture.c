#include "data/mixture.h"

#include "base/memory.h"
#include "base/status.h"

enum { PERIOD = TRI_MIXTURE_PERIOD };

struct tri_mixture {
    int count;
    int64_t quota[TRI_MIXTURE_SETS];
    uint8_t set[PERIOD];
    uint16_t before[PERIOD]; /* samples of the same set earlier in the period */
};

/* Largest remainders; equal ones to the earlier set. */
static void share_out(struct tri_mixture *mixture, const double *weights)
{
    double rest[TRI_MIXTURE_SETS];
    double most = 0.0;
    double sum = 0.0;
    int64_t left = PERIOD;
    for (int i = 0; i < mixture->count; i++) {
        TRI_REQUIRE(weights[i] > 0.0);
        most = weights[i] > most ? weights[i] : most;
    }
    for (int i = 0; i < mixture->count; i++) {
        sum += weights[i] / most; /* the sum of weights may be too large for a double */
    }
    for (int i = 0; i < mixture->count; i++) {
        double exact = weights[i] / most / sum * PERIOD;
        int64_t whole = (int64_t)exact;
        rest[i] = whole > 0 ? exact - (double)whole : -1.0;
        mixture->quota[i] = whole > 0 ? whole : 1;
        left -= mixture->quota[i];
    }
    for (; left > 0; left--) {
        int best = 0;
        for (int i = 1; i < mixture->count; i++) {
            best = rest[i] > rest[best] ? i : best;
        }
        mixture->quota[best]++;
        rest[best] = -1.0;
    }
    for (; left < 0; left++) { /* the ones of tiny weights are the largest's */
        int largest = 0;
        for (int i = 1; i < mixture->count; i++) {
            largest = mixture->quota[i] > mixture->quota[largest] ? i : largest;
        }
        mixture->quota[largest]--;
    }
}

static void order(struct tri_mixture *mixture)
{
    int64_t taken[TRI_MIXTURE_SETS] = {0};
    for (int64_t p = 0; p < PERIOD; p++) {
        int next = -1;
        int64_t most = 0;
        for (int i = 0; i < mixture->count; i++) {
            int64_t lag = mixture->quota[i] * (p + 1) - taken[i] * PERIOD;
            if (taken[i] < mixture->quota[i] && (next < 0 || lag > most)) {
                next = i;
                most = lag;
            }
        }
        mixture->set[p] = (uint8_t)next;
        mixture->before[p] = (uint16_t)taken[next]++;
    }
}

struct tri_mixture *tri_mixture_create(int count, const double *weights)
{
    TRI_REQUIRE(count >= 1 && count <= TRI_MIXTURE_SETS);
    struct tri_mixture *mixture = tri_alloc(TRI_MEMORY_OTHER, sizeof(*mixture));
    mixture->count = count;
    share_out(mixture, weights);
    order(mixture);
    return mixture;
}

void tri_mixture_destroy(struct tri_mixture *mixture)
{
    tri_free(mixture);
}

int tri_mixture_pick(const struct tri_mixture *mixture, int64_t sample, int64_t *own)
{
    int64_t place = sample % PERIOD;
    int set = mixture->set[place];
    *own = sample / PERIOD * mixture->quota[set] + mixture->before[place];
    return set;
}

int64_t tri_mixture_quota(const struct tri_mixture *mixture, int set)
{
    return mixture->quota[set];
}

int64_t tri_mixture_taken(const struct tri_mixture *mixture, int set, int64_t samples)
{
    int64_t taken = samples / PERIOD * mixture->quota[set];
    for (int64_t p = 0; p < samples % PERIOD; p++) {
        taken += mixture->set[p] == set;
    }
    return taken;
}
