/* The hot step of the forwarding plane: for each row rewrite, protect, send. No Python, no allocation per packet.

   It mirrors lkactor/sfu (forwarder, munger) for a row in its steady state; whatever else a row needs is Python's.
   tests/lkactor/plane runs the same cases through both. */

#include "octets.h"

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif
#define AHEAD 6                     /* rows */
#define TRAILER 144                 /* SRTP_MAX_TRAILER_LEN */
#define GSO_SEGMENTS 64
#define TOGETHER 32                 /* packets of one send: as many as stay in the cache until it reads them */
#define GSO_BYTES 65000

typedef int (*protect_fn)(void *context, void *packet, int *size);
typedef unsigned char *(*hmac_fn)(const void *digest, const void *key, int key_size, const unsigned char *data, size_t size,
                                  unsigned char *out, unsigned *out_size);

typedef union {
    char bytes[CMSG_SPACE(sizeof(uint16_t))];
    struct cmsghdr align;
} control;

struct lk_kernel {
    protect_fn protect;
    hmac_fn hmac;
    const void *digest;
    pthread_mutex_t lock;
    atomic_int users;
    atomic_int waiting;             /* for the lock, in Python: the pump gives way */
    uint64_t put_up, taken;         /* datagrams for Python, in one order: so many, and so many of them it has taken */
    int used;
    lk_egress *to[LK_SLOTS];
    struct iovec parts[LK_SLOTS];
    struct mmsghdr messages[LK_SLOTS];
    control controls[LK_SLOTS];
    uint8_t slots[LK_SLOTS][LK_SLOT_SIZE];
};

lk_kernel *lk_new(uintptr_t protect) {
    lk_kernel *kernel = calloc(1, sizeof(lk_kernel));
    pthread_mutexattr_t recursive;
    if (kernel == NULL) return NULL;
    kernel->protect = (protect_fn)protect;
    kernel->users = 1;
    pthread_mutexattr_init(&recursive);
    pthread_mutexattr_settype(&recursive, PTHREAD_MUTEX_RECURSIVE);
    pthread_mutex_init(&kernel->lock, &recursive);
    pthread_mutexattr_destroy(&recursive);
    return kernel;
}

void lk_free(lk_kernel *kernel) {
    if (atomic_fetch_sub(&kernel->users, 1) > 1) return;
    pthread_mutex_destroy(&kernel->lock);
    free(kernel);
}

void lk_lock(lk_kernel *kernel) {
    if (pthread_mutex_trylock(&kernel->lock) == 0) return;
    atomic_fetch_add(&kernel->waiting, 1);
    pthread_mutex_lock(&kernel->lock);
    atomic_fetch_sub(&kernel->waiting, 1);
}

void lk_unlock(lk_kernel *kernel) { pthread_mutex_unlock(&kernel->lock); }

/* -- sending ------------------------------------------------------------------------------------------------------ */

/* Slots `from`.. that can share one message: same destination, same size, the last one may be shorter. */
static int run_length(const lk_kernel *kernel, int from) {
    size_t size = kernel->parts[from].iov_len;
    int limit = GSO_BYTES / (int)size, end = from + 1;
    if (limit > GSO_SEGMENTS) limit = GSO_SEGMENTS;
    if (!kernel->to[from]->socket->gso) return 1;
    while (end < kernel->used && end - from < limit && kernel->to[end] == kernel->to[from]) {
        size_t next = kernel->parts[end].iov_len;
        if (next > size) break;
        end++;
        if (next < size) break;
    }
    return end - from;
}

static void prepare(lk_kernel *kernel, int message, int from, int count) {
    lk_egress *to = kernel->to[from];
    struct msghdr *header = &kernel->messages[message].msg_hdr;
    memset(header, 0, sizeof *header);
    header->msg_name = to->address_size ? to->address : NULL;
    header->msg_namelen = to->address_size;
    header->msg_iov = &kernel->parts[from];
    header->msg_iovlen = (size_t)count;
    if (count > 1) {
        uint16_t size = (uint16_t)kernel->parts[from].iov_len;
        struct cmsghdr *cmsg;
        header->msg_control = kernel->controls[message].bytes;
        header->msg_controllen = sizeof kernel->controls[message].bytes;
        cmsg = CMSG_FIRSTHDR(header);
        cmsg->cmsg_level = IPPROTO_UDP;
        cmsg->cmsg_type = UDP_SEGMENT;
        cmsg->cmsg_len = CMSG_LEN(sizeof size);
        memcpy(CMSG_DATA(cmsg), &size, sizeof size);
    }
}

static void count_sent(lk_socket *socket, const struct mmsghdr *message) {
    for (size_t i = 0; i < message->msg_hdr.msg_iovlen; i++) socket->bytes += message->msg_hdr.msg_iov[i].iov_len;
    socket->packets += message->msg_hdr.msg_iovlen;
}

/* A route whose packets have to be smaller than one of ours: from now on this socket's may be fragmented. 0: they may be
   already. (actors/net.py has them whole at first: a packet that is never fragmented needs no identification, which the
   system draws from a table that all of its sockets fight over.) */
static int allow_fragments(const lk_socket *socket) {
    int policy = IP_PMTUDISC_WANT;
    socklen_t size = sizeof policy;
    if (getsockopt(socket->fd, IPPROTO_IP, IP_MTU_DISCOVER, &policy, &size) != 0 || policy != IP_PMTUDISC_DO) return 0;
    policy = IP_PMTUDISC_WANT;
    return setsockopt(socket->fd, IPPROTO_IP, IP_MTU_DISCOVER, &policy, sizeof policy) == 0;
}

static ssize_t send_one(const lk_socket *socket, const struct msghdr *message) {
    ssize_t sent = sendmsg(socket->fd, message, MSG_DONTWAIT);
    if (sent < 0 && errno == EMSGSIZE && allow_fragments(socket)) sent = sendmsg(socket->fd, message, MSG_DONTWAIT);
    return sent;
}

/* One by one: a message that did not go, or on a route that cannot segment. */
static void send_singly(lk_socket *socket, const struct msghdr *run) {
    for (size_t i = 0; i < run->msg_iovlen; i++) {
        struct msghdr one = *run;
        one.msg_iov = &run->msg_iov[i];
        one.msg_iovlen = 1;
        one.msg_control = NULL;
        one.msg_controllen = 0;
        if (send_one(socket, &one) >= 0) {
            socket->packets++;
            socket->bytes += one.msg_iov->iov_len;
        } else if (errno == EAGAIN || errno == EWOULDBLOCK || errno == ENOBUFS) {
            socket->buffer_full++;
        } else {
            socket->errors++;
        }
    }
}

static void send_messages(lk_kernel *kernel, lk_socket *socket, int count) {
    int done = 0;
    while (done < count) {
        int sent = sendmmsg(socket->fd, kernel->messages + done, (unsigned)(count - done), MSG_DONTWAIT);
        if (sent > 0) {
            for (int i = done; i < done + sent; i++) count_sent(socket, &kernel->messages[i]);
            done += sent;
            continue;
        }
        struct msghdr *failed = &kernel->messages[done].msg_hdr;
        int reason = errno;
        if (reason == EINTR) continue;
        if (failed->msg_iovlen > 1 && (reason == EIO || reason == EINVAL || reason == ENOPROTOOPT)) socket->gso = 0;
        if (reason == EMSGSIZE || (failed->msg_iovlen > 1 && !socket->gso)) {
            send_singly(socket, failed);
        } else if (reason == EAGAIN || reason == EWOULDBLOCK || reason == ENOBUFS) {
            socket->buffer_full += failed->msg_iovlen; /* media that does not fit now is dropped */
        } else {
            socket->errors += failed->msg_iovlen;
        }
        done++;
    }
}

static void flush(lk_kernel *kernel) {
    int from = 0;
    while (from < kernel->used) {
        lk_socket *socket = kernel->to[from]->socket;
        int count = 0;
        while (from < kernel->used && kernel->to[from]->socket == socket) {
            int length = run_length(kernel, from);
            prepare(kernel, count++, from, length);
            from += length;
        }
        send_messages(kernel, socket, count);
    }
    kernel->used = 0;
}

/* -- writing ------------------------------------------------------------------------------------------------------ */

/* The VP8 numbers of a packet that is the newest of its row (lkactor/sfu/munger.py: Vp8Munger.map). */
static void map_vp8(lk_row *row, const lk_packet *packet, lk_sent *sent, uint8_t *payload) {
    int picture = (packet->picture + row->picture_offset) & (packet->wide ? 0x7FFF : 0x7F);
    int tl0 = (packet->tl0 + row->tl0_offset) & 0xFF;
    int keyidx = (packet->keyidx + row->keyidx_offset) & 31;
    if (packet->picture >= 0) row->last_picture = picture;
    if (packet->tl0 >= 0) row->last_tl0 = tl0;
    if (packet->keyidx >= 0) row->last_keyidx = keyidx;
    sent->picture = (int16_t)picture;
    sent->tl0 = (uint8_t)tl0;
    sent->keyidx = (uint8_t)keyidx;
    if (packet->picture_at >= 0) {
        if (packet->wide) put16(payload + packet->picture_at, 0x8000u | (unsigned)picture);
        else payload[packet->picture_at] = (uint8_t)picture;
    }
    if (packet->tl0_at >= 0) payload[packet->tl0_at] = (uint8_t)tl0;
    if (packet->keyidx >= 0) payload[packet->keyidx_at] = (payload[packet->keyidx_at] & 0xE0) | (uint8_t)keyidx;
}

/* LK_NO_TYPE: none. `number` is below 128. */
static uint8_t type_of(lk_row *row, uint8_t number) {
    if (row->type_in != number) {
        row->type_out = row->payload_types[number];
        row->type_in = number;
    }
    return row->type_out;
}

static int header(const lk_row *row, uint8_t *slot, uint8_t type, uint16_t sequence, uint32_t timestamp, uint32_t stamp) {
    uint32_t words = 0; /* of extensions: one-byte elements of three octets, RFC 8285 section 4.2 */
    if (row->abs_send_time_id) put32(slot + 12 + 4 * ++words, (uint32_t)row->abs_send_time_id << 28 | 0x2000000u | stamp);
    if (row->playout_delay) put32(slot + 12 + 4 * ++words, row->playout_delay);
    slot[0] = words ? 0x90 : 0x80;
    slot[1] = type;
    put16(slot + 2, sequence);
    put32(slot + 4, timestamp);
    put32(slot + 8, row->ssrc);
    if (!words) return 12;
    put32(slot + 12, 0xBEDE0000u | words);
    return 16 + 4 * (int)words;
}

static int protect(const lk_kernel *kernel, const lk_egress *egress, uint8_t *packet, int *size) {
    if (egress->cipher != NULL) return lk_seal(egress->cipher, packet, size);
    return kernel->protect != NULL ? kernel->protect((void *)egress->srtp, packet, size) : 0;
}

static void write_packet(lk_kernel *kernel, lk_row *row, const lk_packet *packet, const uint8_t *arena, int layer,
                         uint32_t stamp, double now) {
    uint16_t sequence = (uint16_t)(packet->extended - row->offset);
    uint32_t timestamp = packet->timestamp + row->timestamp_offset;
    lk_sent *sent = &row->history[sequence & (LK_HISTORY - 1)];
    uint8_t *slot = kernel->slots[kernel->used];
    uint8_t type = type_of(row, packet->payload_type) | (packet->marker ? 0x80 : 0);
    int size = header(row, slot, type, sequence, timestamp, stamp);
    row->newest = packet->extended;
    row->last_sequence = sequence;
    row->last_timestamp = timestamp;
    row->last_sent_at = now;
    *sent = (lk_sent){.extended = packet->extended, .sent_at = now, .timestamp = timestamp, .sequence = sequence,
                      .layer = (uint8_t)layer, .used = 1, .has_ids = packet->has_ids};
    memcpy(slot + size, arena + packet->payload, packet->size);
    if (packet->has_ids) map_vp8(row, packet, sent, slot + size);
    size += (int)packet->size;
    if (protect(kernel, row->egress, slot, &size) != 0) {
        row->egress->socket->errors++;
        return;
    }
    row->packets++;
    row->octets += packet->size;
    kernel->parts[kernel->used] = (struct iovec){.iov_base = slot, .iov_len = (size_t)size};
    kernel->to[kernel->used] = row->egress;
    if (++kernel->used == LK_SLOTS) flush(kernel);
}

/* -- choosing ----------------------------------------------------------------------------------------------------- */

static int is_open(const lk_row *row) { return !row->paused && !row->revoked && row->egress->ready; }

/* No decision is due, and the kernel can write to where it goes. */
static int is_settled(const lk_kernel *kernel, const lk_row *row, int layer) {
    const lk_egress *egress = row->egress;
    if (!row->started || !row->plain || row->need_switch || row->layer != layer) return 0;
    if (egress->socket == NULL || egress->socket->divert) return 0;
    return egress->srtp != 0 || kernel->protect == NULL;
}

/* Nothing that comes before a packet is still on its way to this row. `before`: what its source had come to. */
static int is_next(const lk_row *row, int64_t before) { return row->newest == before; }

/* In its steady state: settled, and every packet is one the kernel can write. */
static int is_steady(const lk_kernel *kernel, lk_row *row, const lk_packet *packets, int count, int layer) {
    if (!is_settled(kernel, row, layer)) return 0;
    if (packets[0].extended <= row->newest) return 0;
    for (int i = 0; i < count; i++)
        if (type_of(row, packets[i].payload_type & 127) == LK_NO_TYPE) return 0;
    return 1;
}

/* Between two packets most of a row has left the cache: ask for it while others are looked at, */
static void fetch_row(const lk_row *row) {
    __builtin_prefetch(row, 1);
    __builtin_prefetch(&row->last_sent_at, 1);
}

/* and then for what it points to, and for what that points to. */
static void fetch_ahead(lk_row **rows, int left, const lk_packet *first) {
    if (left > AHEAD) fetch_row(rows[AHEAD]);
    if (left > AHEAD * 2 / 3) {
        const lk_row *near = rows[AHEAD * 2 / 3];
        __builtin_prefetch(near->egress);
        __builtin_prefetch(&near->history[(uint16_t)(first->extended - near->offset) & (LK_HISTORY - 1)], 1);
    }
    if (left > AHEAD / 3 && rows[AHEAD / 3]->egress->cipher != NULL) fetch_cipher(rows[AHEAD / 3]->egress->cipher);
}

/* Packets of one layer, with rising numbers, on their way to rows. */
typedef struct {
    const lk_packet *packets;
    int count;
    const uint8_t *arena;
    int layer, video, keyframe;
    int next;                       /* only to rows that have all up to `before` */
    int64_t before;
    uint32_t stamp;                 /* abs-send-time of now */
    double now;
} lk_burst;

/* 1: this row is left. */
static int serve(lk_kernel *kernel, lk_row *row, const lk_burst *burst) {
    if (!is_open(row) || (burst->video && row->layer != burst->layer && !burst->keyframe)) return 0;
    if (!is_steady(kernel, row, burst->packets, burst->count, burst->layer)) return 1;
    if (burst->next && !is_next(row, burst->before)) return 1;
    for (int n = 0; n < burst->count; n++)
        write_packet(kernel, row, &burst->packets[n], burst->arena, burst->layer, burst->stamp, burst->now);
    return 0;
}

/* Packets for one destination stay together. */
static void flush_before(lk_kernel *kernel, int count) {
    if (kernel->used && kernel->used + count > TOGETHER) flush(kernel);
}

int lk_forward(lk_kernel *kernel, lk_row **rows, int row_count, const lk_packet *packets, int packet_count,
               const uint8_t *arena, int layer, int video, int keyframe, uint32_t stamp, double now, uint8_t *left) {
    const lk_burst burst = {.packets = packets, .count = packet_count, .arena = arena, .layer = layer, .video = video,
                            .keyframe = keyframe, .stamp = stamp, .now = now};
    int leaving = 0;
    lk_lock(kernel);
    for (int i = 0; i < row_count; i++) {
        fetch_ahead(rows + i, row_count - i, packets);
        flush_before(kernel, packet_count);
        left[i] = (uint8_t)serve(kernel, rows[i], &burst);
        leaving += left[i];
    }
    flush(kernel);
    lk_unlock(kernel);
    return leaving;
}
