/* The forwarding table: what the control plane decides and the forwarding plane reads. Read by kernel.c and by cffi. */

#define LK_HISTORY 512
#define LK_SLOTS 256
#define LK_SLOT_SIZE 1664
#define LK_NO_TYPE 255

/* One UDP socket of the process. `gso` 0: the route cannot segment. `divert` 1: everything goes the Python way, where
   the injected faults are. The counters are read and never reset. */
typedef struct {
    int fd;
    int gso;
    int divert;
    uint64_t packets, bytes, buffer_full, errors;
} lk_socket;

/* Where the rows of one peer connection are written to. `ready` 0 closes all of them at once. */
typedef struct {
    int ready;
    uintptr_t srtp;                 /* srtp_t of the sender */
    lk_socket *socket;              /* NULL: not a UDP path */
    uint32_t address_size;          /* 0: the socket is connected */
    uint8_t address[28];            /* struct sockaddr_in or sockaddr_in6 */
} lk_egress;

/* One packet that went out: enough to send it again. */
typedef struct {
    int64_t extended;
    double sent_at;
    uint32_t timestamp;
    uint16_t sequence;
    int16_t picture;
    uint8_t tl0, keyidx, layer, tries, used;
    uint8_t has_ids;                /* 1: VP8 numbers; 2: Python keeps what was changed */
} lk_sent;

/* One leg: a track on its way to a subscriber. */
typedef struct {
    lk_egress *egress;
    int32_t layer;                  /* -1: none */
    uint8_t started, need_switch, paused, revoked;
    uint8_t plain;                  /* 0: this leg needs more than the kernel can do */
    uint8_t abs_send_time_id;       /* 0: not negotiated */
    uint32_t ssrc;
    uint8_t payload_types[128];     /* the publisher's to the subscriber's, LK_NO_TYPE: none */
    int64_t newest;                 /* extended source sequence number */
    int64_t offset;                 /* out = extended - offset */
    uint32_t timestamp_offset, last_timestamp;
    uint32_t last_sequence;
    int32_t picture_offset, tl0_offset, keyidx_offset;
    int32_t last_picture, last_tl0, last_keyidx;
    double last_sent_at;
    uint64_t packets, octets;
    lk_sent history[LK_HISTORY];
} lk_row;

/* One packet of a burst, parsed once for all rows. `payload` is an offset into the arena. VP8: positions in the
   payload, -1 where the descriptor has no such field. */
typedef struct {
    int64_t extended;
    uint32_t payload, size, timestamp;
    uint8_t payload_type, marker, has_ids, wide;
    int16_t picture_at, tl0_at, keyidx_at, unused;
    int32_t picture, tl0, keyidx;
} lk_packet;

typedef struct lk_kernel lk_kernel;

/* protect: srtp_protect of libsrtp 2, or 0 for no protection. NULL when there is no memory. */
lk_kernel *lk_new(uintptr_t protect);
void lk_free(lk_kernel *kernel);

/* Rewrite, protect and send `packets` (one layer, rising `extended`) to all `rows`. Rows that need a decision or more
   than the kernel can do are left alone and set in `left`; returns how many. `stamp`: abs-send-time of now. */
int lk_forward(lk_kernel *kernel, lk_row **rows, int row_count, const lk_packet *packets, int packet_count,
               const uint8_t *arena, int layer, int video, int keyframe, uint32_t stamp, double now, uint8_t *left);
