/* The generator's receiving half: reads all sockets behind one epoll, counts RTP, keeps what Python must see.
 *
 * A datagram that is only counted costs what the system call costs. Latency is the kernel's own time of arrival
 * (SO_TIMESTAMPNS), so that a busy generator does not show in it. */

#define _GNU_SOURCE
#include <netinet/in.h>
#include <stdint.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>

enum { BATCH = 32, SLOT = 2048, EVENTS = 256, CONTROL = 64 };

struct kept {
    int32_t descriptor;
    uint32_t length;
    uint64_t offset;
    int64_t arrived; /* CLOCK_REALTIME, nanoseconds */
    uint32_t ip;     /* network order */
    uint16_t port;   /* host order */
    uint16_t unused;
};

static int is_rtp(const uint8_t *data, unsigned length)
{
    return length >= 12 && data[0] >= 128 && data[0] < 192 && !(data[1] >= 192 && data[1] <= 223);
}

static int64_t arrival(struct msghdr *header)
{
    for (struct cmsghdr *c = CMSG_FIRSTHDR(header); c; c = CMSG_NXTHDR(header, c))
        if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_TIMESTAMPNS) {
            struct timespec at;
            memcpy(&at, CMSG_DATA(c), sizeof at);
            return (int64_t)at.tv_sec * 1000000000 + at.tv_nsec;
        }
    return 0;
}

/* Everything that waits, or until the arena of `slots` is used up (what is left is readable still). `keep` and `media`
 * are indexed by descriptor: keep RTP, too; RTP datagrams so far. Returns the number of entries in `out`, which has
 * room for `slots`. */
int pump(int epoll, const uint8_t *keep, uint64_t *media, uint8_t *arena, struct kept *out, int slots)
{
    static struct epoll_event events[EVENTS];
    static struct sockaddr_in names[BATCH];
    static uint8_t controls[BATCH][CONTROL] __attribute__((aligned(8)));
    struct mmsghdr messages[BATCH];
    struct iovec vectors[BATCH];
    int used = 0, found = 0, ready = epoll_wait(epoll, events, EVENTS, 0);

    memset(messages, 0, sizeof messages);
    for (int e = 0; e < ready; e++) {
        int descriptor = events[e].data.fd, count = BATCH;
        while (count == BATCH) {
            if (used + BATCH > slots)
                return found;
            for (int n = 0; n < BATCH; n++) {
                vectors[n].iov_base = arena + (size_t)(used + n) * SLOT;
                vectors[n].iov_len = SLOT;
                messages[n].msg_hdr.msg_iov = &vectors[n];
                messages[n].msg_hdr.msg_iovlen = 1;
                messages[n].msg_hdr.msg_name = &names[n];
                messages[n].msg_hdr.msg_namelen = sizeof names[n];
                messages[n].msg_hdr.msg_control = controls[n];
                messages[n].msg_hdr.msg_controllen = CONTROL;
            }
            count = recvmmsg(descriptor, messages, BATCH, MSG_DONTWAIT, NULL);
            int kept = 0;
            for (int n = 0; n < count; n++) {
                const uint8_t *data = vectors[n].iov_base;
                int rtp = is_rtp(data, messages[n].msg_len);
                media[descriptor] += rtp;
                if (rtp && !keep[descriptor])
                    continue;
                kept = 1;
                out[found].descriptor = descriptor;
                out[found].length = messages[n].msg_len;
                out[found].offset = (uint64_t)(used + n) * SLOT;
                out[found].arrived = arrival(&messages[n].msg_hdr);
                out[found].ip = names[n].sin_addr.s_addr;
                out[found].port = ntohs(names[n].sin_port);
                found++;
            }
            if (kept)
                used += count;
        }
    }
    return found;
}
