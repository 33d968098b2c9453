/* What forwarding alone costs on this machine: no signalling, no retransmission, no reports, no Python.
 *
 * One socket in; per datagram one AES-128-GCM unprotect, then per leg but the sender's own a copy, a rewritten header
 * (SSRC, sequence, transport-wide number), one AES-128-GCM protect with the leg's own key, and a send: sendmmsg over
 * all legs, or one UDP_SEGMENT send per leg for datagrams of equal size that wait together (of one sender, who has no
 * leg). The cipher is the OpenSSL that the server uses, too: its functions are handed over, so nothing is linked. The
 * tag is computed and not compared. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <poll.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

enum { BATCH = 32, SLOT = 1536, SENDS = 64, HEADER = 24, TAG = 16, GET_TAG = 0x10, SET_TAG = 0x11 };

struct crypto {
    void *(*new_context)(void);
    void *(*aes_128_gcm)(void);
    int (*encrypt_init)(void *, void *, void *, const uint8_t *, const uint8_t *);
    int (*encrypt_update)(void *, uint8_t *, int *, const uint8_t *, int);
    int (*encrypt_final)(void *, uint8_t *, int *);
    int (*decrypt_init)(void *, void *, void *, const uint8_t *, const uint8_t *);
    int (*decrypt_update)(void *, uint8_t *, int *, const uint8_t *, int);
    int (*control)(void *, int, int, void *);
};

struct leg {
    struct sockaddr_in to;
    void *cipher;
    uint32_t ssrc;
    uint16_t sequence, transport_wide;
    uint64_t packets, bytes;
};

/* Opened datagrams, and the ports that they came from. */
struct received {
    uint8_t plain[BATCH][SLOT];
    int lengths[BATCH];
    in_port_t from[BATCH];
    int count;
};

static void initial_vector(uint8_t *iv, const uint8_t *packet)
{
    memset(iv, 0x5a, 12);
    for (int n = 0; n < 4; n++)
        iv[2 + n] ^= packet[8 + n]; /* SSRC */
    iv[10] ^= packet[2];
    iv[11] ^= packet[3];
}

static int protect(const struct crypto *c, struct leg *leg, const uint8_t *in, int length, uint8_t *out)
{
    uint8_t iv[12];
    int written, rest;
    memcpy(out, in, HEADER);
    uint16_t sequence = htons(leg->sequence++), wide = htons(leg->transport_wide++);
    memcpy(out + 2, &sequence, 2);
    memcpy(out + 8, &leg->ssrc, 4);
    memcpy(out + 18, &wide, 2);
    initial_vector(iv, out);
    c->encrypt_init(leg->cipher, NULL, NULL, NULL, iv);
    c->encrypt_update(leg->cipher, NULL, &written, out, HEADER);
    c->encrypt_update(leg->cipher, out + HEADER, &written, in + HEADER, length - HEADER);
    c->encrypt_final(leg->cipher, out + length, &rest);
    c->control(leg->cipher, GET_TAG, TAG, out + length);
    leg->packets++;
    leg->bytes += length + TAG;
    return length + TAG;
}

static struct mmsghdr sends[SENDS];
static struct iovec send_vectors[SENDS];
static uint8_t arena[SENDS][SLOT];
static int pending;

static void flush(int out)
{
    for (int done = 0; done < pending;) {
        int n = sendmmsg(out, sends + done, pending - done, 0);
        done += n > 0 ? n : 1;
    }
    pending = 0;
}

static void each_alone(const struct crypto *c, int out, struct leg *leg, const struct received *in)
{
    for (int i = 0; i < in->count; i++) {
        if (in->from[i] == leg->to.sin_port)
            continue;
        send_vectors[pending].iov_base = arena[pending];
        send_vectors[pending].iov_len = protect(c, leg, in->plain[i], in->lengths[i], arena[pending]);
        sends[pending].msg_hdr = (struct msghdr){.msg_name = &leg->to, .msg_namelen = sizeof leg->to,
                                                 .msg_iov = &send_vectors[pending], .msg_iovlen = 1};
        if (++pending == SENDS)
            flush(out);
    }
}

/* All of equal size in one send; the header of a run names the size of its segments. */
static void as_runs(const struct crypto *c, int out, struct leg *leg, const struct received *in)
{
    static uint8_t run[BATCH * SLOT];
    for (int i = 0; i < in->count;) {
        int first = i, size = in->lengths[i] + TAG, used = 0;
        while (i < in->count && in->lengths[i] == in->lengths[first] && used + size < 65000)
            used += protect(c, leg, in->plain[i], in->lengths[i], run + used), i++;
        struct iovec vector = {run, used};
        char control[CMSG_SPACE(sizeof(uint16_t))] = {0};
        struct msghdr message = {.msg_name = &leg->to, .msg_namelen = sizeof leg->to, .msg_iov = &vector,
                                 .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
        struct cmsghdr *segment = CMSG_FIRSTHDR(&message);
        segment->cmsg_level = SOL_UDP;
        segment->cmsg_type = UDP_SEGMENT;
        segment->cmsg_len = CMSG_LEN(sizeof(uint16_t));
        *(uint16_t *)CMSG_DATA(segment) = size;
        sendmsg(out, &message, 0);
    }
}

static void *cipher(const struct crypto *c, int number)
{
    uint8_t key[16];
    void *context = c->new_context();
    memset(key, number, sizeof key);
    c->encrypt_init(context, c->aes_128_gcm(), NULL, key, NULL);
    return context;
}

/* Until it is killed. `ports` of 127.0.0.1 are the legs. Datagrams below HEADER + TAG octets are not for us. */
void run(const struct crypto *c, int in, int out, int gso, const uint16_t *ports, int count)
{
    static uint8_t input[BATCH][SLOT];
    static struct received opened;
    struct leg *legs = calloc(count, sizeof *legs);
    uint8_t key[16] = {1}, iv[12];
    void *publisher = c->new_context();
    struct pollfd readable = {in, POLLIN, 0};

    c->decrypt_init(publisher, c->aes_128_gcm(), NULL, key, NULL);
    for (int n = 0; n < count; n++) {
        legs[n].to = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(ports[n]),
                                          .sin_addr = {htonl(INADDR_LOOPBACK)}};
        legs[n].cipher = cipher(c, n);
        legs[n].ssrc = 1000 + n;
    }
    for (;;) {
        struct mmsghdr messages[BATCH];
        struct iovec vectors[BATCH];
        struct sockaddr_in from[BATCH];
        int written;
        poll(&readable, 1, -1);
        memset(messages, 0, sizeof messages);
        for (int n = 0; n < BATCH; n++) {
            vectors[n] = (struct iovec){input[n], SLOT - TAG};
            messages[n].msg_hdr.msg_iov = &vectors[n];
            messages[n].msg_hdr.msg_iovlen = 1;
            messages[n].msg_hdr.msg_name = &from[n];
            messages[n].msg_hdr.msg_namelen = sizeof from[n];
        }
        opened.count = 0;
        int received = recvmmsg(in, messages, BATCH, MSG_DONTWAIT, NULL);
        for (int n = 0; n < received; n++) {
            int length = (int)messages[n].msg_len - TAG;
            if (length < HEADER)
                continue;
            uint8_t *plain = opened.plain[opened.count];
            memcpy(plain, input[n], HEADER);
            initial_vector(iv, input[n]);
            c->decrypt_init(publisher, NULL, NULL, NULL, iv);
            c->control(publisher, SET_TAG, TAG, input[n] + length);
            c->decrypt_update(publisher, NULL, &written, input[n], HEADER);
            c->decrypt_update(publisher, plain + HEADER, &written, input[n] + HEADER, length - HEADER);
            opened.from[opened.count] = from[n].sin_port;
            opened.lengths[opened.count++] = length;
        }
        if (opened.count)
            for (int n = 0; n < count; n++)
                (gso && opened.count > 1 ? as_runs : each_alone)(c, out, &legs[n], &opened);
        flush(out);
    }
}
