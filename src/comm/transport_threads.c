/* Messages between ranks that are threads of one process. For each pair of a group there is a box
 * in which the ends of a message meet: the first to come leaves a letter that says where its data
 * is, the second adds where its own is; then whichever of the two waits first copies, straight from
 * the sender's memory to the receiver's. So a rank that computes is never waited for by one that
 * could do its work, and nothing is copied twice.
 *
 * A rank that waits looks a few times whether its bell was rung, then offers its core to others,
 * and then sleeps. Who sleeps is woken late, on a virtual machine with idle cores very late; but
 * who does not takes the core from threads that have work. So a rank goes on offering for long, and
 * sleeps at once when somebody takes the offer: it then comes back late. */
#include "comm/threads_internal.h"

#include "base/clock.h"

#include <linux/futex.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* BATCH: letters that a box takes at once, so that it has soon had all that it needs. PATIENCE and
 * TAKEN, in nanoseconds: how long a rank offers its core, and from when on somebody took it. */
enum { LOOKS = 100, BATCH = 16, PATIENCE = 20000000, TAKEN = 20000 };

enum state {
    ALONE,  /* one end has come */
    UNLIKE, /* both have, and are not of one length: the receiver says so */
    BOTH,   /* both have: whoever looks after it copies */
    BUSY,   /* one of them does */
    HERE    /* has arrived */
};

/* A letter in the list of those that one rank looks after; only that rank's thread reads it. */
struct tri_letter_end {
    struct letter *letter;
    struct tri_letter_end *next, **before; /* before: what points at this one */
};

struct letter {
    const void *from;
    void *to;
    size_t bytes, room; /* that are sent, and that are received */
    _Atomic int state;
    _Atomic int ends; /* that have not been told yet that it has arrived */
    struct tri_bell *sender, *receiver;
    struct tri_letter_end sends, receives;
    struct box *box;
    struct letter *next;
};

struct batch {
    struct batch *next;
    struct letter letter[BATCH];
};

/* From one rank to one other. Under lock: letters whose other end has not come, of one kind always,
 * and free ones. */
struct box {
    pthread_mutex_t lock;
    struct letter *first, **last;
    struct letter *free;
    struct batch *batches;
};

/* A group, while it has an open end. */
struct tri_meeting {
    uint64_t number; /* of the calls that opened it */
    int first;       /* its lowest rank */
    int size, ends;
    struct box *box; /* [(lane * size + to) * size + from] */
    struct tri_meeting *next;
};

struct endpoint {
    struct tri_endpoint base;
    struct tri_meeting *meeting;
    /* This rank's: its bell, and its messages of all groups that are under way. */
    struct tri_bell *bell;
    struct tri_letter_end **open;
};

/* Not counted, as little as what MPI takes. */
static void *take(size_t bytes)
{
    void *block = calloc(1, bytes);
    if (!block) {
        tri_panic(TRI_FAILED, "out of memory: %zu bytes for messages between threads", bytes);
    }
    return block;
}

/* ---- bells ----------------------------------------------------------------------------------- */

static void ring(struct tri_bell *bell)
{
    (void)atomic_fetch_add(&bell->rung, 1);
    if (atomic_load(&bell->asleep)) {
        (void)syscall(SYS_futex, &bell->rung, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
    }
}

static bool is_rung(const struct tri_bell *bell, uint32_t heard)
{
    return atomic_load(&bell->rung) != heard;
}

/* Without sleep. */
static bool hears(const struct tri_bell *bell, uint32_t heard)
{
    for (int i = 0; i < LOOKS; i++) {
        if (is_rung(bell, heard)) {
            return true;
        }
    }
    int64_t now = tri_clock_nanoseconds();
    int64_t until = now + PATIENCE;
    int64_t before;
    do {
        before = now;
        (void)sched_yield();
        now = tri_clock_nanoseconds();
    } while (!is_rung(bell, heard) && now - before < TAKEN && now < until);
    return is_rung(bell, heard);
}

/* Until the bell has been rung more often than `heard` times; or now and then for nothing. */
static void listen_for(struct tri_bell *bell, uint32_t heard)
{
    if (hears(bell, heard)) {
        return;
    }
    atomic_store(&bell->asleep, 1);
    if (!is_rung(bell, heard)) {
        (void)syscall(SYS_futex, &bell->rung, FUTEX_WAIT_PRIVATE, heard, NULL, NULL, 0);
    }
    atomic_store(&bell->asleep, 0);
}

/* ---- groups ---------------------------------------------------------------------------------- */

static struct tri_meeting *find_meeting(struct tri_hub *hub, uint64_t number, int first)
{
    struct tri_meeting *meeting = hub->meetings;
    while (meeting && (meeting->number != number || meeting->first != first)) {
        meeting = meeting->next;
    }
    return meeting;
}

static struct tri_meeting *create_meeting(struct tri_hub *hub, uint64_t number, int first, int size)
{
    struct tri_meeting *meeting = take(sizeof(*meeting));
    size_t boxes = TRI_LANE_COUNT * (size_t)size * (size_t)size;
    *meeting = (struct tri_meeting){.number = number, .first = first, .size = size};
    meeting->box = take(boxes * sizeof(*meeting->box));
    for (size_t i = 0; i < boxes; i++) {
        (void)pthread_mutex_init(&meeting->box[i].lock, NULL);
        meeting->box[i].last = &meeting->box[i].first;
    }
    meeting->next = hub->meetings;
    hub->meetings = meeting;
    return meeting;
}

static void destroy_meeting(struct tri_meeting *meeting)
{
    for (int i = 0; i < (int)TRI_LANE_COUNT * meeting->size * meeting->size; i++) {
        struct box *box = &meeting->box[i];
        TRI_REQUIRE(!box->first);
        while (box->batches) {
            struct batch *batch = box->batches;
            box->batches = batch->next;
            free(batch);
        }
        (void)pthread_mutex_destroy(&box->lock);
    }
    free(meeting->box);
    free(meeting);
}

static struct tri_endpoint *open_end(struct tri_transport *self, int size, int rank, int first,
                                     const char *name)
{
    struct tri_threads_transport *threads = (struct tri_threads_transport *)(void *)self;
    struct tri_hub *hub = threads->hub;
    struct endpoint *end = take(sizeof(*end));
    (void)name;
    end->base = (struct tri_endpoint){size, rank};
    end->bell = &hub->bell[threads->rank];
    end->open = &threads->open;
    threads->opened++;
    (void)pthread_mutex_lock(&hub->lock);
    end->meeting = find_meeting(hub, threads->opened, first);
    if (!end->meeting) {
        end->meeting = create_meeting(hub, threads->opened, first, size);
    }
    end->meeting->ends++;
    (void)pthread_mutex_unlock(&hub->lock);
    return &end->base;
}

static void close_end(struct tri_transport *self, struct tri_endpoint *base)
{
    struct tri_hub *hub = ((struct tri_threads_transport *)(void *)self)->hub;
    struct endpoint *end = (struct endpoint *)base;
    struct tri_meeting *meeting = end->meeting;
    (void)pthread_mutex_lock(&hub->lock);
    bool last = --meeting->ends == 0;
    if (last) {
        struct tri_meeting **at = &hub->meetings;
        while (*at != meeting) {
            at = &(*at)->next;
        }
        *at = meeting->next;
    }
    (void)pthread_mutex_unlock(&hub->lock);
    if (last) {
        destroy_meeting(meeting);
    }
    free(end);
}

/* ---- messages -------------------------------------------------------------------------------- */

/* A free letter; under lock. */
static struct letter *take_letter(struct box *box)
{
    if (!box->free) {
        struct batch *batch = take(sizeof(*batch));
        batch->next = box->batches;
        box->batches = batch;
        for (int i = 0; i < BATCH; i++) {
            batch->letter[i].next = box->free;
            box->free = &batch->letter[i];
        }
    }
    struct letter *letter = box->free;
    box->free = letter->next;
    return letter;
}

/* One end of a message: exactly one of from and to is given. The letter that both ends share. */
static struct letter *post(const struct endpoint *end, struct box *box, const void *from, void *to,
                           size_t bytes)
{
    (void)pthread_mutex_lock(&box->lock);
    struct letter *letter = box->first;
    bool meets = letter && (from ? !letter->from : !letter->to);
    if (meets) {
        box->first = letter->next;
        box->last = box->first ? box->last : &box->first;
    } else {
        letter = take_letter(box);
        *letter = (struct letter){.state = ALONE, .ends = 2, .box = box};
        *box->last = letter;
        box->last = &letter->next;
    }
    *(from ? &letter->sender : &letter->receiver) = end->bell;
    letter->from = from ? from : letter->from;
    letter->to = to ? to : letter->to;
    *(from ? &letter->bytes : &letter->room) = bytes;
    struct tri_bell *waiting = from ? letter->receiver : letter->sender;
    if (meets) {
        atomic_store(&letter->state, letter->bytes == letter->room ? BOTH : UNLIKE);
    }
    (void)pthread_mutex_unlock(&box->lock);
    if (meets) {
        ring(waiting);
    }
    return letter;
}

/* From now on this rank looks after it. */
static struct letter *look_after(const struct endpoint *end, struct letter *letter,
                                 struct tri_letter_end *own)
{
    *own = (struct tri_letter_end){letter, *end->open, end->open};
    if (own->next) {
        own->next->before = &own->next;
    }
    *end->open = own;
    return letter;
}

static struct box *box_of(const struct endpoint *end, enum tri_lane lane, int to, int from)
{
    int size = end->base.size;
    return &end->meeting->box[((int)lane * size + to) * size + from];
}

static void receive(struct tri_endpoint *base, enum tri_lane lane, int from, void *data, int64_t n,
                    enum tri_dtype dtype, union tri_message *message)
{
    const struct endpoint *end = (const struct endpoint *)base;
    struct box *box = box_of(end, lane, base->rank, from);
    struct letter *letter = post(end, box, NULL, data, (size_t)n * tri_dtype_size(dtype));
    message->place = look_after(end, letter, &letter->receives);
}

static void send(struct tri_endpoint *base, enum tri_lane lane, int to, const void *data, int64_t n,
                 enum tri_dtype dtype, union tri_message *message)
{
    const struct endpoint *end = (const struct endpoint *)base;
    struct box *box = box_of(end, lane, to, base->rank);
    struct letter *letter = post(end, box, data, NULL, (size_t)n * tri_dtype_size(dtype));
    message->place = look_after(end, letter, &letter->sends);
}

/* This end has been told. */
static void let_go(const struct endpoint *end, struct letter *letter)
{
    struct box *box = letter->box;
    const struct tri_letter_end *own =
        letter->sender == end->bell ? &letter->sends : &letter->receives;
    *own->before = own->next;
    if (own->next) {
        own->next->before = own->before;
    }
    if (atomic_fetch_sub(&letter->ends, 1) == 1) {
        (void)pthread_mutex_lock(&box->lock);
        letter->next = box->free;
        box->free = letter;
        (void)pthread_mutex_unlock(&box->lock);
    }
}

/* Copies, where both ends have come and the other rank does not. Whether it has arrived. */
static bool move(const struct endpoint *end, struct letter *letter)
{
    int state = BOTH;
    if (atomic_compare_exchange_strong(&letter->state, &state, BUSY)) {
        struct tri_bell *other = letter->sender == end->bell ? letter->receiver : letter->sender;
        memcpy(letter->to, letter->from, letter->bytes);
        atomic_store(&letter->state, HERE);
        ring(other);
        return true;
    }
    return state == HERE;
}

/* Whether it has arrived, after what this rank can do for it. */
static bool arrives(const struct endpoint *end, union tri_message *message)
{
    struct letter *letter = message->place;
    if (!move(end, letter)) {
        if (atomic_load(&letter->state) == UNLIKE && letter->receiver == end->bell) {
            tri_panic(TRI_FAILED, "%zu bytes are received where %zu are sent", letter->room,
                      letter->bytes);
        }
        return false;
    }
    let_go(end, letter);
    message->place = NULL;
    return true;
}

/* Others that are under way. */
static void move_all(const struct endpoint *end)
{
    for (struct tri_letter_end *at = *end->open; at; at = at->next) {
        (void)move(end, at->letter);
    }
}

static bool test(struct tri_endpoint *base, union tri_message *message)
{
    const struct endpoint *end = (const struct endpoint *)base;
    bool arrived = arrives(end, message);
    if (!arrived) {
        move_all(end);
    }
    return arrived;
}

static void wait_for(struct tri_endpoint *base, union tri_message *messages, int count)
{
    const struct endpoint *end = (const struct endpoint *)base;
    for (;;) {
        uint32_t heard = atomic_load(&end->bell->rung);
        bool all = true;
        for (int i = 0; i < count; i++) {
            bool arrived = !messages[i].place || arrives(end, &messages[i]);
            all = all && arrived;
        }
        if (all) {
            return;
        }
        move_all(end);
        listen_for(end->bell, heard);
    }
}

/* ---- the hub --------------------------------------------------------------------------------- */

void tri_hub_init(struct tri_hub *hub, int ranks)
{
    *hub = (struct tri_hub){.ranks = ranks};
    hub->bell = aligned_alloc(_Alignof(struct tri_bell), (size_t)ranks * sizeof(*hub->bell));
    if (!hub->bell) {
        tri_panic(TRI_FAILED, "out of memory: no room for %d ranks", ranks);
    }
    memset(hub->bell, 0, (size_t)ranks * sizeof(*hub->bell));
    (void)pthread_mutex_init(&hub->lock, NULL);
}

void tri_hub_fini(struct tri_hub *hub)
{
    TRI_REQUIRE(!hub->meetings);
    (void)pthread_mutex_destroy(&hub->lock);
    free(hub->bell);
}

void tri_threads_transport_init(struct tri_threads_transport *transport, struct tri_hub *hub,
                                int rank)
{
    static const struct tri_transport_ops ops = {
        .open = open_end,
        .close = close_end,
        .receive = receive,
        .send = send,
        .test = test,
        .wait = wait_for,
    };
    *transport = (struct tri_threads_transport){{&ops, true}, hub, rank, 0, NULL};
}
