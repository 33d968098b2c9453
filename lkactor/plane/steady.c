/* The receiving half of the hot step: what goes from the sockets to the rows without Python.

   A datagram of a known peer is opened (SRTP) here. If it is a *steady* packet it goes to the rows at once: RTP of a
   known stream, newer than all that came, no key frame. Everything else goes up to Python: as it came, or, of a known
   peer's RTP, opened. A packet behind a gap is steady only if nothing of its stream is in Python's hands, and what is
   missing is left for Python to ask for. So all that follows one in Python's hands waits with it until Python has numbered
   it: nothing overtakes. What has only waited then goes to the rows when Python comes to take it (receive.c). It is the same
   for a row: one that has a decision to make, or cannot be written to from here, is left, and Python serves it with this
   packet, and with all that follow until it has caught up.

   Whatever Python and this thread share is touched under the kernel's lock, for one batch at a time. */

#include <poll.h>
#include <math.h>
#include <sched.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#ifndef UDP_GRO
#define UDP_GRO 104
#endif
#define SOCKETS 1024
#define MESSAGES 64                 /* of one recvmmsg */
#define BUFFER 65536                /* of one message: a run that the kernel has merged, or one datagram */
#define BURST 512                   /* steady packets that are written together */
#define UP_ROOM (1 << 20)
#define TURN 0.002                  /* seconds under the lock, about */
#define FEWEST 4                    /* messages of a turn */
#define LOAD_SPAN 0.02              /* seconds over which the load is measured */
#define LONGEST_WINDOW 0.002
#define LIGHT_LOAD 0.3              /* share of time at work up to which nothing waits */
#define FULL_LOAD 0.8
#define SLICE 100000                /* nanoseconds; the shortest that Linux takes */
#define NEWS_AT 100                 /* arrivals that are not kept waiting for the next look */
#define HELD_FOR 1.0                /* seconds for which what says nothing new waits for more of its peer, */
#define LONGEST_WAIT 0.1            /* what need not be read at once for others, */
#define LOSSES_WAIT 0.01            /* and losses: they are to be asked for after 0.02 (lkactor/sfu/nack.py) */
#define MAX_GAP 2000                /* packets; Python decides what becomes of a longer one (lkactor/sfu/receiver.py) */

/* What a batch has of one stream, and how far it has come with it. */
typedef struct {
    int64_t next;                   /* the order of the next row's egress; INT64_MAX: there is none */
    int at;                         /* that row */
    lk_source *source;
    lk_burst burst;
} lk_course;

struct lk_pump {
    lk_kernel *kernel;
    protect_fn unprotect, unprotect_rtcp;
    double clock_offset, began;
    int told_fd, stop_fd, running, sockets;
    pthread_t thread;
    lk_socket *socket[SOCKETS];
    uint16_t number[SOCKETS];
    struct pollfd polled[SOCKETS + 1];
    struct mmsghdr messages[MESSAGES];
    struct iovec parts[MESSAGES];
    struct sockaddr_storage from[MESSAGES];
    control controls[MESSAGES];
    uint8_t *buffers;               /* MESSAGES * BUFFER */
    const uint8_t *arena;           /* where the packets of this batch lie: `buffers` or `up` */
    double since;                   /* when they came, of the monotonic clock */
    uint64_t batch;
    int steady;
    lk_packet packets[BURST], run[BURST];
    lk_source *sources[BURST];
    int64_t before[BURST];          /* what the source of each had come to */
    lk_course courses[BURST];
    double cost, cost_again;        /* seconds a message: of what comes, and of what has waited for Python */
    double busy, busy_since, ended; /* at work since; of the last batch */
    double window;                  /* seconds from the beginning of one batch to that of the next, at least */
    int behind;                     /* the last batch may have left something in a socket */
    uint8_t *up, told, sleeping;
    int up_used, up_taken;
    double others_due, losses_due;  /* when Python has to be told, of the monotonic clock; INFINITY: of nothing */
    int patience;                   /* milliseconds until then, -1: for ever */
    uint64_t dropped;
    lk_ingress *news;
    lk_ingress *held_first, *held_last;
};

static double monotonic(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

/* -- telling Python ----------------------------------------------------------------------------------------------- */

static void tell(lk_pump *pump) {
    uint64_t one = 1;
    if (pump->told) return;
    pump->told = 1;
    if (write(pump->told_fd, &one, sizeof one) < 0) pump->told = 0;
}

static void has_news(lk_pump *pump, lk_ingress *ingress) {
    if (ingress->has_news) return;
    ingress->has_news = 1;
    ingress->pump = pump;
    ingress->next = pump->news;
    pump->news = ingress;
    if (pump->sleeping) {
        pump->sleeping = 0;
        tell(pump);
    }
}

static int room_of(uint32_t size) { return (int)sizeof(lk_up) + (int)((size + 7u) & ~7u); }

/* Room for one datagram for Python, the last one; NULL: there is none. */
static uint8_t *put_behind(lk_pump *pump, int room) {
    if (pump->up_used + room > UP_ROOM && pump->up_taken) {
        pump->up_used -= pump->up_taken;
        memmove(pump->up, pump->up + pump->up_taken, (size_t)pump->up_used);
        pump->up_taken = 0;
    }
    if (pump->up_used + room > UP_ROOM) {
        pump->dropped++;
        return NULL;
    }
    pump->up_used += room;
    pump->kernel->put_up++;
    return pump->up + pump->up_used - room;
}

static void write_up(const lk_pump *pump, uint8_t *to, int at, const struct msghdr *from, const lk_entry *route,
                     const uint8_t *data, uint32_t size, int opened, double now) {
    lk_up *up = (lk_up *)to;
    *up = (lk_up){.arrival = now, .route = route ? route->id : 0, .socket = pump->number[at], .size = (uint16_t)size,
                  .opened = (uint8_t)opened,
                  .address_size = (uint8_t)(from->msg_namelen > sizeof up->address ? 0 : from->msg_namelen)};
    memcpy(up->address, from->msg_name, up->address_size);
    memcpy(to + sizeof *up, data, size);
}

/* For when Python comes. */
static void put_up(lk_pump *pump, int at, const struct msghdr *from, const lk_entry *route, const uint8_t *data,
                   uint32_t size, int opened, double now) {
    uint8_t *to;
    if (size > LK_DATAGRAM) size = LK_DATAGRAM;
    to = put_behind(pump, room_of(size));
    if (to != NULL) write_up(pump, to, at, from, route, data, size, opened, now);
}

static void hand_up(lk_pump *pump, int at, const struct msghdr *from, const lk_entry *route, const uint8_t *data,
                    uint32_t size, int opened, double now) {
    put_up(pump, at, from, route, data, size, opened, now);
    tell(pump);
}

int lk_take_news(lk_pump *pump, uint32_t *ids, int size) {
    int taken = 0;
    lk_lock(pump->kernel);
    while (pump->news != NULL && taken < size) {
        ids[taken++] = pump->news->id;
        pump->news->has_news = 0;
        pump->news = pump->news->next;
    }
    pump->sleeping = taken == 0;
    pump->losses_due = INFINITY;
    lk_unlock(pump->kernel);
    return taken;
}

int lk_rings(const lk_pump *pump) { return pump->sleeping; }

int lk_has_losses(const lk_pump *pump) { return pump->losses_due != INFINITY; }

uint64_t lk_dropped(const lk_pump *pump) { return pump->dropped; }

/* -- steady packets ----------------------------------------------------------------------------------------------- */

static void look_ahead(lk_course *course) {
    const lk_fanout *fanout = course->source->fanout;
    course->next = course->at < fanout->count ? fanout->rows[course->at]->egress->order : INT64_MAX;
}

/* The packets of `first`'s stream, put behind those that are in `run`. */
static lk_course begin_course(lk_pump *pump, int first, int begun, const lk_burst *burst) {
    lk_source *source = pump->sources[first];
    lk_course course = {.source = source, .burst = *burst};
    int end = begun;
    for (int i = first; i < pump->steady; i++) {
        if (pump->sources[i] != source) continue;
        pump->run[end++] = pump->packets[i];
        pump->sources[i] = NULL;
    }
    course.burst.before = pump->before[first];
    course.burst.packets = pump->run + begun;
    course.burst.count = end - begun;
    course.burst.layer = source->layer;
    course.burst.video = source->fanout->video;
    look_ahead(&course);
    return course;
}

/* Where the first of them goes that still have a row to serve, and how many packets in all; INT64_MAX: all is done. */
static int64_t next_destination(const lk_course *courses, int count, int *packets) {
    int64_t next = INT64_MAX;
    for (int i = 0; i < count; i++) {
        if (courses[i].next > next) continue;
        if (courses[i].next < next) *packets = 0;
        next = courses[i].next;
        *packets += courses[i].burst.count;
    }
    return next;
}

/* The rows that go to its next destination. */
static void go_on(lk_pump *pump, lk_course *course) {
    const lk_fanout *fanout = course->source->fanout;
    int64_t destination = course->next;
    while (course->next == destination) {
        fetch_ahead(fanout->rows + course->at, fanout->count - course->at, course->burst.packets);
        serve(pump->kernel, fanout->rows[course->at++], &course->burst);
        look_ahead(course);
    }
}

/* One destination after the other: what the batch has for it, of all streams, leaves in as few messages as it fits into. */
static void flush_steady(lk_pump *pump) {
    double now = monotonic() + pump->clock_offset;
    const lk_burst burst = {.arena = pump->arena, .next = 1, .now = now,
                            .stamp = (uint32_t)(uint64_t)(now * 262144) & 0xFFFFFF};
    lk_course *courses = pump->courses;
    int count = 0, begun = 0, packets = 0;
    for (int first = 0; first < pump->steady; first++) {
        if (pump->sources[first] == NULL) continue;
        courses[count] = begin_course(pump, first, begun, &burst);
        begun += courses[count++].burst.count;
    }
    for (int64_t to; (to = next_destination(courses, count, &packets)) != INT64_MAX;) {
        flush_before(pump->kernel, packets);
        for (int i = 0; i < count; i++)
            if (courses[i].next == to) go_on(pump, &courses[i]);
    }
    flush(pump->kernel);
    now = monotonic();
    for (int i = 0; i < count; i++) courses[i].source->latency = now - pump->since;
    pump->steady = 0;
}

/* How many rows cannot have this packet without Python. Rows do not change within a batch, and what is next for one of
   them stays so for what follows; only another payload type has to be looked at anew. */
static int count_left(lk_pump *pump, lk_source *source, const lk_packet *packet) {
    const lk_fanout *fanout = source->fanout;
    if (source->checked == pump->batch && source->checked_type == packet->payload_type) return source->leaving;
    if (source->checked == pump->batch) flush_steady(pump);
    source->leaving = 0;
    for (int i = 0; i < fanout->count; i++) {
        lk_row *row = fanout->rows[i];
        if (i + AHEAD < fanout->count) fetch_row(fanout->rows[i + AHEAD]);
        if (i + AHEAD / 2 < fanout->count) __builtin_prefetch(fanout->rows[i + AHEAD / 2]->egress);
        if (!is_open(row) || (fanout->video && row->layer != source->layer)) continue;
        source->leaving += !is_steady(pump->kernel, row, packet, 1, source->layer) || !is_next(row, source->highest);
    }
    source->checked = pump->batch;
    source->checked_type = packet->payload_type;
    return source->leaving;
}

static void note_statistics(lk_source *source, const lk_packet *packet, uint32_t size, double now) {
    double transit = now * source->clock_rate - packet->timestamp, step = fabs(transit - source->last_transit);
    /* RFC 3550 A.8; a timestamp that wraps shows as a huge step and is left out, the first packet as none. */
    if (step < source->clock_rate * 10) source->jitter += (step - source->jitter) / 16;
    source->last_transit = transit;
    source->last_arrival = now;
    source->highest = packet->extended;
    source->packets++;
    source->bytes += size;
    source->steady++;
}

static void note_extensions(lk_pump *pump, lk_ingress *ingress, lk_source *source, const lk_packet *packet,
                            const uint8_t *at, const uint8_t *end, double now) {
    uint32_t size = 0;
    const uint8_t *value;
    if (ingress->transport_cc_id && (value = extension(at, end, ingress->transport_cc_id, &size)) != NULL && size >= 2) {
        if (ingress->arrival_count < LK_ARRIVALS)
            ingress->arrivals[ingress->arrival_count++] = (lk_arrival){
                .arrival = now, .ssrc = source->ssrc, .sequence = (uint16_t)get16(value), .marker = packet->marker};
        has_news(pump, ingress);
        if (ingress->arrival_count == NEWS_AT) tell(pump);
    }
    if (source->level_id && (value = extension(at, end, source->level_id, &size)) != NULL) {
        if (source->level_count < LK_LEVELS)
            source->levels[source->level_count++] = (lk_level){packet->timestamp, value[0] & 127u};
        has_news(pump, ingress);
    }
}

/* -- the order -- */

/* Some of this stream may wait for Python. */
static int waits(const lk_kernel *kernel, const lk_source *source) { return source->waits > kernel->taken; }

/* The number that Python will give to a packet, as far as can be told; -1: it is late, or too far off. */
static int64_t likely_number(const lk_source *source, uint16_t sequence) {
    uint16_t ahead = (uint16_t)(sequence - (uint16_t)source->highest);
    return source->highest < 0 || ahead == 0 || ahead > MAX_GAP ? -1 : source->highest + ahead;
}

/* A packet is about to go up. */
static void note_up(const lk_kernel *kernel, lk_source *source, uint16_t sequence) {
    int64_t number = likely_number(source, sequence);
    if (!waits(kernel, source) || number > source->up) source->up = number;
    source->waits = kernel->put_up + 1;
}

/* Python has it, and is to number it. */
static void note_taken(lk_source *source, uint16_t sequence) {
    int64_t number = likely_number(source, sequence);
    if (number > source->taken) source->taken = number;
}

/* A packet's number, if it is newer than all that came, and nothing that it would overtake or follow is in Python's hands;
   -1: it is Python's to give. `behind`: some of the stream waits for Python, and is older than this packet. */
static int64_t number_of(const lk_source *source, uint16_t sequence, int behind) {
    int64_t number = likely_number(source, sequence), held = source->taken;
    if (behind && source->up > held) held = source->up;
    if (number < 0 || held >= number) return -1;
    if (number > source->highest + 1 && (behind || held > source->highest || source->loss_count == LK_LOSSES)) return -1;
    return number;
}

/* What is missing before this packet. */
static void note_loss(lk_pump *pump, lk_ingress *ingress, lk_source *source, int64_t extended, double now) {
    source->losses[source->loss_count++] = (lk_loss){source->highest + 1, extended - 1, now};
    if (pump->losses_due == INFINITY) pump->losses_due = monotonic() + LOSSES_WAIT;
    has_news(pump, ingress);
}

/* LK_OPENED: Python has to look at it, and nothing has been noted. LK_REST: it is forwarded, or will be with the batch,
   and Python has to serve the rows that are left. 0: nothing is left. `behind`: as of `number_of`. */
static int take_steady(lk_pump *pump, lk_ingress *ingress, lk_source *source, const uint8_t *data, uint32_t size,
                       double now, int behind) {
    lk_packet packet = {.picture_at = -1, .tl0_at = -1, .keyidx_at = -1, .picture = -1, .tl0 = -1, .keyidx = -1};
    const uint8_t *extensions, *payload;
    int temporal = 0, begins = 0, kind, left = 0;
    int64_t before = source->highest;
    packet.extended = number_of(source, (uint16_t)get16(data + 2), behind);
    if (packet.extended < 0) return LK_OPENED;
    if (!read_header(data, size, &packet, &extensions)) return LK_OPENED;
    kind = source->kinds[packet.payload_type];
    payload = data + packet.payload;
    if (kind == LK_UP) return LK_OPENED;
    if (kind == LK_VP8 && !read_vp8(&packet, payload, &temporal, &begins)) return LK_OPENED;
    if (kind == LK_H264 && !is_plain_h264(payload, packet.size)) return LK_OPENED;
    if (!source->fanout->muted) left = count_left(pump, source, &packet);
    if (left && packet.extended > before + 1) return LK_OPENED;     /* such a row may want what is missing (RED) */
    if (keep(source, packet.extended, data, size, now) < 0) return LK_OPENED;
    if (packet.extended > before + 1) note_loss(pump, ingress, source, packet.extended, now);
    note_statistics(source, &packet, size, now);
    if (kind == LK_VP8) {
        source->spread[temporal] += packet.size;
        source->begun[temporal] += (uint64_t)begins;
    } else if (kind == LK_H264) {
        source->begun[0] += packet.marker;
    }
    if (extensions != NULL) note_extensions(pump, ingress, source, &packet, extensions, payload, now);
    if (!source->fanout->muted && source->fanout->count > left) {
        packet.payload += (uint32_t)(data - pump->arena);
        pump->packets[pump->steady] = packet;
        pump->before[pump->steady] = before;
        pump->sources[pump->steady++] = source;
        if (pump->steady == BURST) flush_steady(pump);
    }
    return left ? LK_REST : 0;
}
