/* The simulated clock of a rank against closed forms: MoNTA's pipeline (arXiv 2411.00662; the form
 * is derived from the authors' code), FSMoE's table of cases (arXiv 2501.10714), and where Parm's
 * two schedules change places (arXiv 2407.00599; the costs are ours). */
#include "plan/lanes.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

static struct tri_transfer inside(double seconds)
{
    return (struct tri_transfer){.seconds = {[TRI_LINK_INSIDE] = seconds}, .hidden = {1.0, 1.0}};
}

static struct tri_transfer between(double seconds)
{
    return (struct tri_transfer){.seconds = {[TRI_LINK_BETWEEN] = seconds}, .hidden = {1.0, 1.0}};
}

static double larger(double a, double b)
{
    return a > b ? a : b;
}

static void expect_close(double found, double expected)
{
    if (!(fabs(found - expected) <= 1e-12 * (1.0 + fabs(expected)))) {
        fail_msg("found %.17g, expected %.17g", found, expected);
    }
}

static uint64_t state = 1;

/* Uniform in [0, 1). */
static double draw(void)
{
    state = state * 6364136223846793005U + 1442695040888963407U;
    return (double)(state >> 11) * 0x1p-53;
}

/* ---- MoNTA ----------------------------------------------------------------------------------- */

enum { CHUNKS_MOST = 64 };

/* n chunks: all exchanges are begun, then each is waited for and gathered inside the host. */
static double pipeline(struct tri_lanes lanes, int n, double exchange, double gather, double copy)
{
    double arrival[CHUNKS_MOST];
    struct tri_transfer sent = between(exchange);
    struct tri_transfer gathered = inside(gather);
    for (int i = 0; i < n; i++) {
        arrival[i] = tri_lanes_begin(&lanes, &sent, lanes.now);
    }
    for (int i = 0; i < n; i++) {
        tri_lanes_wait(&lanes, arrival[i]);
        tri_lanes_block(&lanes, &gathered);
    }
    tri_lanes_compute(&lanes, copy);
    return lanes.now;
}

/* V bytes that T tensor ranks hold, times and bytes a second of both links. */
struct monta {
    double bytes, tensor, start[2], second[2];
};

static double exchange(const struct monta *m, double bytes)
{
    return m->start[1] + bytes * m->second[1];
}

static double gather(const struct monta *m, double bytes)
{
    return m->start[0] + bytes * (m->tensor - 1.0) * m->second[0];
}

static void test_monta(void **unused)
{
    (void)unused;
    for (int round = 0; round < 200; round++) {
        const struct monta m = {1e6 * (1.0 + draw()),
                                2.0 + floor(6.0 * draw()),
                                {1e-5 * draw(), 1e-4 * draw()},
                                {1e-9 * draw(), 1e-8 * draw()}};
        double best = (double)INFINITY;
        double simulated_best = (double)INFINITY;
        int at = 0;
        int simulated_at = 0;
        for (int n = 1; n <= CHUNKS_MOST; n++) {
            double part = m.bytes / m.tensor / (double)n;
            double a = exchange(&m, part);
            double g = gather(&m, part);
            double copy = 1e-10 * m.bytes / (double)n;
            double expected = a + (double)(n - 1) * larger(a, g) + g + copy;
            double found = pipeline((struct tri_lanes){0}, n, a, g, copy);
            expect_close(found, expected);
            at = expected < best * (1.0 - 1e-9) ? n : at;
            best = expected < best ? expected : best;
            simulated_at = found < simulated_best * (1.0 - 1e-9) ? n : simulated_at;
            simulated_best = found < simulated_best ? found : simulated_best;
            /* On one link nothing overlaps. */
            expect_close(pipeline((struct tri_lanes){.one_link = true}, n, a, g, copy),
                         (double)n * (a + g) + copy);
        }
        assert_int_equal(at, simulated_at);
    }
}

/* One begun call: the rank waits for what computing does not hide, and does itself what cannot be
 * hidden. */
static void test_hidden(void **unused)
{
    (void)unused;
    for (int i = 0; i <= 4; i++) {
        double hidden = 0.25 * (double)i;
        struct tri_transfer transfer = {{2.0, 6.0}, {hidden, hidden}};
        struct tri_lanes lanes = {.now = 1.0};
        double arrival = tri_lanes_begin(&lanes, &transfer, lanes.now);
        tri_lanes_compute(&lanes, 3.0);
        tri_lanes_wait(&lanes, arrival);
        expect_close(lanes.now, 1.0 + (1.0 - hidden) * 6.0 + larger(3.0, hidden * 6.0));
    }
}

/* ---- FSMoE ----------------------------------------------------------------------------------- */

struct layer {
    double exchange, gather, scatter, experts, gradients; /* of a chunk; the last of the layer */
};

/* The time of the one case that holds; the others' are in t. */
static double case_table(const struct layer *l, int chunks, double t[4])
{
    double r = (double)chunks;
    double a = l->exchange;
    double ends = l->gather + l->scatter;
    bool q1 = a > l->gather;
    bool q2 = r * l->experts > 2.0 * (r - 1.0) * a;
    bool q3 = r * l->experts > (r - 1.0) * ends;
    bool q4 = l->gradients > ends;
    bool q5 = l->gradients > r * l->experts - 2.0 * (r - 1.0) * a + ends;
    bool q6 = l->gradients > r * ends - 2.0 * (r - 1.0) * a;
    bool holds[4] = {
        (q1 && !q2 && q4) || (q1 && q2 && q5) || (!q1 && !q3 && q6) || (!q1 && q3 && q5),
        (q1 && q2 && !q5) || (!q1 && q3 && !q5),
        q1 && !q2 && !q4,
        !q1 && !q3 && !q6,
    };
    t[0] = 2.0 * r * a + l->gradients;
    t[1] = 2.0 * a + ends + r * l->experts;
    t[2] = 2.0 * r * a + ends;
    t[3] = 2.0 * a + r * ends;
    int count = 0;
    double time = 0.0;
    for (int i = 0; i < 4; i++) {
        count += holds[i] ? 1 : 0;
        time = holds[i] ? t[i] : time;
    }
    assert_int_equal(count, 1);
    return time;
}

/* The layer on two links: dispatches, gathers and experts follow each other chunk by chunk, and
 * what goes back begins when its expert is done. */
static double simulate(const struct layer *l, int chunks)
{
    struct tri_lanes lanes = {0};
    double gathered[CHUNKS_MOST];
    double last = 0.0;
    struct tri_transfer exchange = between(l->exchange);
    struct tri_transfer gather = inside(l->gather);
    struct tri_transfer scatter = inside(l->scatter);
    for (int i = 0; i < chunks; i++) {
        double sent = tri_lanes_begin(&lanes, &exchange, lanes.now);
        gathered[i] = tri_lanes_begin(&lanes, &gather, sent);
    }
    for (int i = 0; i < chunks; i++) {
        tri_lanes_wait(&lanes, gathered[i]);
        tri_lanes_compute(&lanes, l->experts);
        double scattered = tri_lanes_begin(&lanes, &scatter, lanes.now);
        last = tri_lanes_begin(&lanes, &exchange, scattered);
    }
    tri_lanes_wait(&lanes, last);
    return lanes.now;
}

/* Exactly one case holds, and its time is the largest of the four. Without gradients beside it the
 * simulated layer takes no less than its busiest lane and its longest chunk, and where one lane
 * alone has work, what that lane takes. */
static void test_fsmoe(void **unused)
{
    (void)unused;
    for (int round = 0; round < 20000; round++) {
        int r = 1 + (int)(8.0 * draw());
        double t[4];
        struct layer l = {draw(), draw(), 0.0, 2.0 * draw(), 4.0 * draw()};
        l.scatter = l.gather; /* as in the paper's derivation */
        double time = case_table(&l, r, t);
        expect_close(time, larger(larger(t[0], t[1]), larger(t[2], t[3])));
        double found = simulate(&l, r);
        double chunk = 2.0 * l.exchange + l.gather + l.scatter + l.experts;
        double lane = larger(2.0 * (double)r * l.exchange, (double)r * l.experts);
        lane = larger(lane, (double)r * (l.gather + l.scatter));
        assert_true(found >= larger(lane, chunk) * (1.0 - 1e-12));
        assert_true(found <= (double)r * chunk * (1.0 + 1e-12));
    }
    const struct layer alone[] = {{1, 0, 0, 0, 0}, {0, 1, 1, 0, 0}, {0, 0, 0, 1, 0}};
    for (int r = 1; r < 8; r++) {
        double t[4];
        for (int i = 0; i < 3; i++) {
            expect_close(simulate(&alone[i], r), case_table(&alone[i], r, t));
        }
    }
}

/* ---- Parm ------------------------------------------------------------------------------------ */

/* S1 gathers the layer's tokens at its end, S2 its routes, k times as many, beside the way back. */
static double parm(double exchange_seconds, double gather_seconds, double k, bool second)
{
    struct tri_lanes lanes = {0};
    struct tri_transfer exchange = between(k * exchange_seconds);
    struct tri_transfer gather = inside(second ? k * gather_seconds : gather_seconds);
    tri_lanes_block(&lanes, &exchange);
    double back = tri_lanes_begin(&lanes, &exchange, lanes.now);
    if (!second) {
        tri_lanes_wait(&lanes, back);
    }
    tri_lanes_block(&lanes, &gather);
    tri_lanes_wait(&lanes, back);
    return lanes.now;
}

static void test_parm(void **unused)
{
    (void)unused;
    for (int round = 0; round < 2000; round++) {
        double a = 0.1 + draw();
        double g = 0.1 + 3.0 * draw();
        double k = 1.0 + floor(8.0 * draw());
        double t1 = 2.0 * k * a + g;
        double t2 = k * a + larger(k * a, k * g);
        expect_close(parm(a, g, k, false), t1);
        expect_close(parm(a, g, k, true), t2);
    }
    /* A link that is infinitely fast leaves the other's time: between hosts gathering k times as
     * much loses for every k above 1; inside there is nothing to hide, and both are alike. */
    for (double k = 2.0; k < 9.0; k += 1.0) {
        assert_true(parm(0.0, 1.0, k, true) > parm(0.0, 1.0, k, false));
        expect_close(parm(1.0, 0.0, k, true), parm(1.0, 0.0, k, false));
    }
    /* From k = g / (g - a) on S1 wins where gathering takes longer. */
    double a = 1.0;
    double g = 1.4;
    double flip = g / (g - a);
    for (double k = 1.0; k < 9.0; k += 1.0) {
        assert_true((parm(a, g, k, true) > parm(a, g, k, false)) == (k > flip));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_monta),
        cmocka_unit_test(test_hidden),
        cmocka_unit_test(test_fsmoe),
        cmocka_unit_test(test_parm),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
