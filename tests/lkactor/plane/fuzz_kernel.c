/* Random tables and bursts through the kernel, for AddressSanitizer, UBSan and valgrind: test_plane_sanitizers.py.

   Usage: fuzz_kernel SEED ROUNDS. What it feeds keeps to what lkactor/plane/native.py promises (sizes, positions inside
   the payload); everything else is random, closed and broken sockets included. */

#include "kernel.c"

#include <arpa/inet.h>
#include <stdio.h>
#include <unistd.h>

#define ROWS 12
#define PACKETS 20

static unsigned long long state;

static unsigned rnd(unsigned below) {
    state = state * 6364136223846793005ull + 1442695040888963407ull;
    return (unsigned)(state >> 33) % below;
}

/* A trailer like GCM's; now and then it fails. */
static int protect(void *context, void *packet, int *size) {
    (void)context;
    if (rnd(50) == 0) return 7;
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
    row->ssrc = rnd(1u << 30);
    for (int i = 0; i < 128; i++) row->payload_types[i] = rnd(30) ? (uint8_t)rnd(128) : LK_NO_TYPE;
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

int main(int argc, char **argv) {
    int rounds = argc > 2 ? atoi(argv[2]) : 1000;
    lk_socket sockets[4];
    lk_egress egresses[4];
    lk_packet packets[PACKETS];
    uint8_t left[ROWS];
    struct sockaddr_in to = {0};
    lk_row *rows[ROWS];
    uint8_t *arena = malloc(PACKETS * 1480);
    lk_kernel *kernel = lk_new((uintptr_t)protect);
    unsigned long long accounted = 0;
    state = argc > 1 ? strtoull(argv[1], NULL, 10) : 1;
    open_sockets(sockets, &to);
    for (int i = 0; i < ROWS; i++) rows[i] = calloc(1, sizeof(lk_row));
    for (int round = 0; round < rounds; round++) {
        for (int i = 0; i < 4; i++) {
            egresses[i] = (lk_egress){.ready = rnd(10) != 0, .srtp = 1, .socket = rnd(9) ? &sockets[rnd(4)] : NULL};
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
    for (int i = 0; i < ROWS; i++) free(rows[i]);
    free(arena);
    lk_free(kernel);
    return accounted == 0;
}
