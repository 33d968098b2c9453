/* Random tables and bursts through the kernel, for AddressSanitizer, UBSan and valgrind: test_plane_sanitizers.py.

   Usage: fuzz_kernel SEED ROUNDS [thread]. What it feeds to `lk_forward` keeps to what lkactor/plane/native.py promises
   (sizes, positions inside the payload); everything else is random, closed and broken sockets included. What it sends to
   the receiving half is random altogether. With `thread` that half runs on its own thread, for ThreadSanitizer. */

#include "gcm.c"
#include "seal.c"
#include "kernel.c"
#include "routes.c"
#include "reading.c"
#include "steady.c"
#include "consent.c"
#include "reports.c"
#include "take.c"
#include "receive.c"

#include <arpa/inet.h>
#include <stdio.h>
#include <unistd.h>

#define ROWS 12
#define PACKETS 20
#define PEERS 3
#define STREAMS 4

static unsigned long long state;

static unsigned rnd(unsigned below) {
    state = state * 6364136223846793005ull + 1442695040888963407ull;
    return (unsigned)(state >> 33) % below;
}

/* A trailer like GCM's; now and then it fails. */
static int protect_badly(void *context, void *packet, int *size) {
    (void)context;
    if (((uint8_t *)packet)[3] % 50 == 0) return 7;
    memset((uint8_t *)packet + *size, 0xEE, 16);
    *size += 16;
    return 0;
}

static void fill_row(lk_row *row, lk_egress *egress) {
    row->egress = egress;
    row->layer = (int)rnd(4) - 1;
    row->started = rnd(8) != 0;
    row->need_switch = rnd(8) == 0;
    row->paused = rnd(12) == 0;
    row->revoked = rnd(12) == 0;
    row->plain = rnd(10) != 0;
    row->abs_send_time_id = (uint8_t)(rnd(2) * 3);
    row->playout_delay = rnd(2) * (0x42000000u | rnd(1u << 24));
    row->ssrc = rnd(1u << 30);
    for (int i = 0; i < 128; i++) row->payload_types[i] = rnd(30) ? (uint8_t)rnd(128) : LK_NO_TYPE;
    row->type_in = LK_NO_TYPE;
    row->newest = (int64_t)rnd(70000) - 100;
    row->offset = (int64_t)rnd(200000) - 100000;
    row->timestamp_offset = rnd(1u << 30);
    row->picture_offset = (int)rnd(70000) - 35000;
    row->tl0_offset = (int)rnd(512) - 256;
    row->keyidx_offset = (int)rnd(64) - 32;
}

static int fill_packets(lk_packet *packets, uint8_t *arena) {
    int count = 1 + (int)rnd(PACKETS);
    uint32_t at = 0;
    int64_t extended = (int64_t)rnd(80000);
    unsigned same = rnd(2) ? 0 : 1 + rnd(1480);
    for (int i = 0; i < count; i++) {
        lk_packet *packet = &packets[i];
        uint32_t size = same ? same : 1 + rnd(1480);
        memset(packet, 0, sizeof *packet);
        packet->extended = extended += 1 + rnd(3);
        packet->payload = at;
        packet->size = size;
        packet->timestamp = rnd(1u << 31);
        packet->payload_type = (uint8_t)rnd(128);
        packet->marker = (uint8_t)rnd(2);
        packet->has_ids = (uint8_t)(size > 8 && rnd(2));
        packet->wide = (uint8_t)rnd(2);
        packet->picture_at = (int16_t)(rnd(4) ? 2 : -1);
        packet->picture = packet->picture_at < 0 ? -1 : (int)rnd(32768);
        packet->tl0_at = (int16_t)(rnd(4) ? 4 : -1);
        packet->tl0 = packet->tl0_at < 0 ? -1 : (int)rnd(256);
        packet->keyidx_at = (int16_t)(rnd(4) ? 5 : -1);
        packet->keyidx = packet->keyidx_at < 0 ? -1 : (int)rnd(32);
        for (uint32_t n = 0; n < size; n++) arena[at + n] = (uint8_t)n;
        at += size;
    }
    return count;
}

static void open_sockets(lk_socket *sockets, struct sockaddr_in *to) {
    socklen_t size = sizeof *to;
    int sink = socket(AF_INET, SOCK_DGRAM, 0);
    to->sin_family = AF_INET;
    to->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    bind(sink, (struct sockaddr *)to, sizeof *to);
    getsockname(sink, (struct sockaddr *)to, &size);
    sockets[0] = (lk_socket){.fd = socket(AF_INET, SOCK_DGRAM, 0), .gso = 1};
    sockets[1] = (lk_socket){.fd = socket(AF_INET, SOCK_DGRAM, 0), .gso = 0};
    sockets[2] = (lk_socket){.fd = -1, .gso = 1};              /* closed */
    sockets[3] = (lk_socket){.fd = socket(AF_UNIX, SOCK_STREAM, 0), .gso = 1}; /* refuses everything */
}

/* -- receiving */

static int unprotect_badly(void *context, void *packet, int *size) {
    (void)context;
    if (((uint8_t *)packet)[*size - 1] % 16 == 0) return 7 + ((uint8_t *)packet)[2] % 6;
    return 0;
}

/* No HMAC, but one that both sides can write; now and then it fails. */
static unsigned char *sign_badly(const void *digest, const void *key, int key_size, const unsigned char *data, size_t size,
                                 unsigned char *out, unsigned *out_size) {
    (void)digest;
    memset(out, data[size - 1] + ((const uint8_t *)key)[key_size - 1], DIGEST);
    *out_size = DIGEST;
    return data[size - 1] % 40 == 39 ? NULL : out;
}

typedef struct {
    int sock;
    struct sockaddr_in address;
    lk_ingress *ingress;
    lk_cipher *seals;               /* NULL: what `unprotect_badly` takes */
    lk_source sources[STREAMS];
    uint16_t sequences[STREAMS];
} peer;

typedef struct {
    lk_kernel *kernel;
    lk_pump *pump;
    lk_socket socket;
    struct sockaddr_in to;
    peer peers[PEERS];
    lk_fanout fanout;
    unsigned long long sent, taken, refused, answered;
} stage;

static int open_udp(struct sockaddr_in *address) {
    socklen_t size = sizeof *address;
    int sock = socket(AF_INET, SOCK_DGRAM, 0);
    memset(address, 0, sizeof *address);
    address->sin_family = AF_INET;
    address->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    bind(sock, (struct sockaddr *)address, sizeof *address);
    getsockname(sock, (struct sockaddr *)address, &size);
    return sock;
}

static const uint8_t secret[] = "an octet is as good as another one, in these keys";

static void open_peer(stage *on, peer *who, uint32_t id) {
    who->sock = open_udp(&who->address);
    who->ingress = lk_ingress_new(on->kernel);
    who->ingress->ready = 1;
    who->ingress->id = id;
    who->ingress->srtp = 1;
    who->ingress->transport_cc_id = 5;
    if (id > 1) {
        uint32_t size = id == 2 ? 16 : 32;
        who->seals = lk_cipher_new(secret, size, secret + size, 0);
        who->ingress->cipher = lk_cipher_new(secret, size, secret + size, 1);
    }
    for (int i = 0; i < STREAMS; i++) {
        lk_source *source = &who->sources[i];
        source->fanout = &on->fanout;
        source->ssrc = (uint32_t)i;
        source->layer = i % 3;
        source->level_id = (uint8_t)(i % 2 * 6);
        source->clock_rate = 90000;
        source->highest = i ? 65536 : -1;
        source->kept_count = 16;
        source->kept = calloc(16, sizeof(lk_kept));
        for (int type = 0; type < 128; type++) source->kinds[type] = (uint8_t)((type + i) % 4);
        lk_attach(on->kernel, who->ingress, source);
    }
    lk_route(on->kernel, &on->socket, (uint8_t *)&who->address, sizeof who->address, who->ingress, id);
}

static void want_checks(stage *on, peer *who) {
    uint8_t user[300] = "ours:theirs";
    uint32_t size = rnd(20) ? 11 : rnd(300), secret = rnd(20) ? 8 : 1 + rnd(90);
    lk_set_consent(on->kernel, who->ingress, rnd(20) ? &on->socket : NULL, (uint8_t *)&who->address,
                   rnd(20) ? sizeof who->address : rnd(sizeof who->address), user, size, user, secret, (int)rnd(2), (int)rnd(2));
}

static uint32_t put_attribute(uint8_t *at, uint32_t kind, uint32_t size) {
    put16(at, kind);
    put16(at + 2, rnd(60) ? size : rnd(70000));
    for (uint32_t i = 0; i < ((size + 3) & ~3u); i++) at[4 + i] = (uint8_t)rnd(256);
    return 4 + ((size + 3) & ~3u);
}

/* Most often a check as it should be. */
static int write_check(uint8_t *at) {
    static const uint16_t kinds[] = {USERNAME, PRIORITY, ICE_CONTROLLING, ICE_CONTROLLED, USE_CANDIDATE, 0xC057, 0x0019};
    uint8_t digest[64];
    uint32_t end = STUN_HEADER;
    unsigned size;
    put32(at, BINDING_REQUEST << 16);
    put32(at + 4, COOKIE);
    memcpy(at + end + 4, "ours:theirs", 12);
    put_attribute(at + end, USERNAME, 0);
    put16(at + end + 2, 11);
    end += 16;
    end += put_attribute(at + end, rnd(2) ? ICE_CONTROLLING : ICE_CONTROLLED, 8);
    for (unsigned more = rnd(3); more > 0; more--) end += put_attribute(at + end, kinds[rnd(7)], rnd(30) ? 4 : rnd(200));
    sign_badly(NULL, "ours:the", 8, at, end, digest, &size);
    put_attribute(at + end, MESSAGE_INTEGRITY, DIGEST);
    if (rnd(20)) memcpy(at + end + 4, digest, DIGEST);
    end += 4 + DIGEST;
    put16(at + 2, end + 8 - STUN_HEADER);
    put32(at + end, (uint32_t)FINGERPRINT << 16 | 4);
    put32(at + end + 4, rnd(20) ? fingerprint(at, end) : rnd(1u << 30));
    end += 8;
    if (rnd(20) == 0) put16(at + 2, rnd(end));
    return (int)(rnd(20) ? end : rnd(end));
}

/* Most often reports and estimates as they should be. */
static int write_report(uint8_t *at) {
    int size = 0;
    for (unsigned more = 1 + rnd(3); more > 0; more--) {
        uint32_t kind = rnd(8) ? (rnd(2) ? RR : PSFB) : SR + rnd(8), count = kind == PSFB ? AFB : rnd(4);
        uint32_t words = kind == RR ? 1 + 6 * count : kind == PSFB ? 5 : rnd(9);
        memset(at + size, (int)rnd(2), 4 + 4 * words);
        at[size] = (uint8_t)(0x80 | count);
        at[size + 1] = (uint8_t)kind;
        put16(at + size + 2, rnd(30) ? words : rnd(70000));
        if (kind == PSFB && rnd(20)) memcpy(at + size + 12, "REMB", 4);
        size += 4 + 4 * (int)words;
    }
    return rnd(20) ? size : (int)rnd((unsigned)size);
}

/* Often the next packet of a stream, with whatever inside. */
static int write_datagram(peer *who, uint8_t *at) {
    int size = rnd(4) ? 12 + (int)rnd(60) : (int)rnd(1600), stream = (int)rnd(STREAMS);
    for (int i = 0; i < size; i++) at[i] = (uint8_t)rnd(256);
    if (size < 12 || rnd(6) == 0) return size;
    at[0] = rnd(3) ? (rnd(2) ? 0x90 : 0x80) : (uint8_t)(0x80 | rnd(64));
    at[1] = (uint8_t)rnd(256);
    if (rnd(10)) who->sequences[stream]++;
    put16(at + 2, (uint32_t)who->sequences[stream] + (rnd(20) ? 0 : rnd(4)));
    put32(at + 8, (uint32_t)stream);
    if (at[0] == 0x90 && size > 24 && rnd(4)) {
        put16(at + 12, 0xBEDE);
        put16(at + 14, rnd(3));
        at[16] = rnd(2) ? 0x51 : 0x60;
    }
    return size;
}

static void send_some(stage *on) {
    peer *who = &on->peers[rnd(PEERS)];
    uint8_t datagram[2048];
    for (unsigned count = rnd(12); count > 0; count--) {
        int size = rnd(4) ? write_datagram(who, datagram) : rnd(2) ? write_check(datagram) : write_report(datagram);
        if (who->seals != NULL && size >= 12 && datagram[0] >> 6 == 2 && rnd(20)) lk_seal(who->seals, datagram, &size);
        if (who->seals != NULL && rnd(20) == 0) datagram[rnd(size + 1u)] ^= (uint8_t)(1 + rnd(255));
        if (sendto(who->sock, datagram, (size_t)size, 0, (struct sockaddr *)&on->to, sizeof on->to) >= 0) on->sent++;
    }
}

static int take_all(stage *on) {
    static uint8_t buffer[1 << 16];
    uint32_t ids[2];
    int end, total = 0, more;
    do {
        end = lk_take(on->pump, buffer, (int)sizeof buffer, 3, &more);
        for (int at = 0; at < end; at += (int)sizeof(lk_up) + ((((lk_up *)(buffer + at))->size + 7) & ~7))
            total += ((lk_up *)(buffer + at))->opened != LK_REST;
    } while (more);
    while (lk_take_news(on->pump, ids, 2) > 0) {}
    on->taken += (unsigned)total;
    return total;
}

/* What Python does meanwhile: numbers what has gone up, closes and opens, moves addresses. */
static void decide(stage *on) {
    peer *who = &on->peers[rnd(PEERS)];
    lk_source *source = &who->sources[rnd(STREAMS)];
    uint8_t data[40] = {0};
    lk_lock(on->kernel);
    for (int i = 0; i < PEERS; i++)
        for (int n = 0; n < STREAMS; n++) on->peers[i].sources[n].highest = 65536 + on->peers[i].sequences[n];
    if (rnd(20) == 0) on->fanout.muted = !on->fanout.muted;
    who->ingress->arrival_count = source->level_count = 0;
    if (rnd(3) == 0) source->loss_count = 0;
    who->ingress->eager = rnd(8) == 0;
    who->ingress->ready = rnd(12) != 0;
    on->fanout.count = (int)rnd(ROWS + 1);
    for (int i = 0; i < ROWS; i++) {
        on->fanout.rows[i]->newest = 0;
        on->fanout.rows[i]->paused = rnd(5) == 0;
        on->fanout.rows[i]->need_switch = rnd(9) == 0;
        on->fanout.rows[i]->layer = (int)rnd(3);
        on->fanout.rows[i]->playout_delay = rnd(2) * 0x42000064u;
    }
    lk_unlock(on->kernel);
    lk_keep(on->kernel, source, rnd(80000), data, rnd(40), 0);
    if (rnd(4) == 0) want_checks(on, who);
    if (rnd(10) == 0) lk_detach(on->kernel, who->ingress, source);
    if (rnd(5) == 0) lk_attach(on->kernel, who->ingress, source);
    if (rnd(10) == 0) lk_route(on->kernel, &on->socket, (uint8_t *)&who->address, sizeof who->address, NULL, 0);
    else lk_route(on->kernel, &on->socket, (uint8_t *)&who->address, sizeof who->address, who->ingress, 1 + rnd(9));
}

static unsigned long long count_all(stage *on) {
    unsigned long long steady = 0;
    on->refused = on->answered = 0;
    lk_lock(on->kernel);
    for (int i = 0; i < PEERS; i++) {
        for (int n = 0; n < STREAMS; n++) steady += on->peers[i].sources[n].steady;
        for (int n = 0; n < 4; n++) on->refused += on->peers[i].ingress->refused[n];
        on->answered += on->peers[i].ingress->consent.answered;
    }
    lk_unlock(on->kernel);
    return steady;
}

static int fuzz_receiving(lk_kernel *kernel, lk_row **rows, int rounds, int threaded) {
    static stage on;
    unsigned long long steady, empty = 0, settled = 0;
    on.kernel = kernel;
    on.fanout.rows = rows;
    on.fanout.video = 1;
    on.socket = (lk_socket){.fd = open_udp(&on.to), .gso = 1};
    lk_sign_with(kernel, (uintptr_t)sign_badly, 0);
    on.pump = lk_pump_new(kernel, (uintptr_t)unprotect_badly, (uintptr_t)unprotect_badly, 5.0);
    lk_pump_add(on.pump, &on.socket, 0);
    for (uint32_t i = 0; i < PEERS; i++) open_peer(&on, &on.peers[i], i + 1);
    if (threaded && lk_pump_start(on.pump)) return 4;
    for (int round = 0; round < rounds; round++) {
        send_some(&on);
        while (!threaded && lk_pump_once(on.pump)) {}
        take_all(&on);
        decide(&on);
    }
    for (int idle = 0; idle < 100 && settled < on.sent; idle++) {
        if (threaded) usleep(2000);
        take_all(&on);
        lk_lock(kernel);
        settled = on.socket.packets_in;
        lk_unlock(kernel);
    }
    lk_pump_stop(on.pump);
    take_all(&on);
    steady = count_all(&on);
    empty = on.socket.packets_in - on.taken - steady - on.refused - on.answered - lk_dropped(on.pump); /* datagrams of no octets */
    printf("%llu steady, %llu up, %llu refused, %llu answered, %llu empty\n", steady, on.taken, on.refused, on.answered,
           empty);
    lk_pump_free(on.pump);
    for (int i = 0; i < PEERS; i++) {
        close(on.peers[i].sock);
        if (on.peers[i].seals != NULL) {
            lk_cipher_free(on.peers[i].seals);
            lk_cipher_free(on.peers[i].ingress->cipher);
        }
        lk_ingress_free(on.peers[i].ingress);
        for (int n = 0; n < STREAMS; n++) {
            lk_forget_kept(&on.peers[i].sources[n]);
            free(on.peers[i].sources[n].kept);
        }
    }
    lk_forget_routes(&on.socket);
    close(on.socket.fd);
    return steady == 0 || on.refused == 0 || on.answered == 0 || empty > on.sent / 100 + 5 ? 5 : 0;
}

int main(int argc, char **argv) {
    int rounds = argc > 2 ? atoi(argv[2]) : 1000, failed;
    lk_socket sockets[4];
    lk_egress egresses[4];
    lk_packet packets[PACKETS];
    uint8_t left[ROWS];
    struct sockaddr_in to = {0};
    lk_row *rows[ROWS];
    lk_cipher *cipher = lk_cipher_new(secret, 16, secret + 16, 0);
    uint8_t *arena = malloc(PACKETS * 1480);
    lk_kernel *kernel = lk_new((uintptr_t)protect_badly);
    unsigned long long accounted = 0;
    state = argc > 1 ? strtoull(argv[1], NULL, 10) : 1;
    open_sockets(sockets, &to);
    for (int i = 0; i < ROWS; i++) rows[i] = calloc(1, sizeof(lk_row));
    for (int round = 0; round < rounds; round++) {
        for (int i = 0; i < 4; i++) {
            egresses[i] = (lk_egress){.ready = rnd(10) != 0, .order = rnd(4), .srtp = 1, .socket = rnd(9) ? &sockets[rnd(4)] : NULL};
            egresses[i].cipher = i % 2 ? cipher : NULL;
            egresses[i].address_size = sizeof to;
            memcpy(egresses[i].address, &to, sizeof to);
        }
        for (int i = 0; i < ROWS; i++) fill_row(rows[i], &egresses[rnd(4)]);
        int count = fill_packets(packets, arena);
        int leaving = lk_forward(kernel, rows, ROWS, packets, count, arena, (int)rnd(3), (int)rnd(2), (int)rnd(2),
                                 rnd(1u << 24), round, left);
        int marked = 0;
        for (int i = 0; i < ROWS; i++) marked += left[i];
        if (marked != leaving) return 2;
        if (kernel->used != 0) return 3;
        if (round % 64 == 0) sockets[0].gso = 1;
    }
    for (int i = 0; i < 4; i++) accounted += sockets[i].packets + sockets[i].buffer_full + sockets[i].errors;
    printf("%llu packets accounted for\n", accounted);
    failed = fuzz_receiving(kernel, rows, rounds, argc > 3);
    for (int i = 0; i < ROWS; i++) free(rows[i]);
    if (cipher != NULL) lk_cipher_free(cipher);
    free(arena);
    lk_free(kernel);
    return failed ? failed : accounted == 0;
}
