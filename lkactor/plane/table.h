/* The forwarding table: what the control plane decides and the forwarding plane reads. Read by kernel.c and by cffi. */

#define LK_HISTORY 512
#define LK_SLOTS 256
#define LK_SLOT_SIZE 1664
#define LK_NO_TYPE 255
#define LK_SOURCES 64               /* streams of one peer that are received without Python */
#define LK_ARRIVALS 512
#define LK_LEVELS 64
#define LK_LOSSES 32
#define LK_DATAGRAM 2048            /* what is longer is cut */
#define LK_HELD 1024                /* octets of reports of one peer that wait for others of it */
/* What the payload types of a source hold: */
#define LK_UP 0                     /* anything: every packet is Python's to look at */
#define LK_AUDIO 1
#define LK_VP8 2
#define LK_H264 3

/* One UDP socket of the process. `gso` 0: the route cannot segment. `divert` 1: everything goes the Python way, where
   the injected faults are. The counters are read and never reset. */
typedef struct {
    int fd;
    int gso;
    int divert;
    uint64_t packets, bytes, buffer_full, errors;
    uint64_t packets_in, bytes_in, receive_errors;
    struct lk_routes *routes;       /* by remote address; NULL: none yet */
} lk_socket;

/* The keys of one direction of a peer connection, for RTP, and what is known of its streams (seal.c). */
typedef struct lk_cipher lk_cipher;

/* Where the rows of one peer connection are written to. `ready` 0 closes all of them at once. */
typedef struct {
    int ready;
    int64_t order;                  /* by it rows are sorted */
    uintptr_t srtp;                 /* srtp_t of the sender */
    lk_cipher *cipher;              /* in its place; NULL: none */
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

/* One leg: a track on its way to a subscriber. What every packet needs comes first: it has to be fetched, each time. */
typedef struct {
    lk_egress *egress;
    int64_t newest;                 /* extended source sequence number */
    int64_t offset;                 /* out = extended - offset */
    int32_t layer;                  /* -1: none */
    uint8_t started, need_switch, paused, revoked;
    uint8_t plain;                  /* 0: this leg needs more than the kernel can do */
    uint8_t abs_send_time_id;       /* 0: not negotiated */
    uint8_t type_in, type_out;      /* of `payload_types`: the last one; LK_NO_TYPE: look */
    uint32_t playout_delay;         /* the element to write (lkactor/sfu/playout.py); 0: none now */
    uint32_t ssrc;
    uint32_t timestamp_offset, last_timestamp;
    uint32_t last_sequence;
    int32_t picture_offset, tl0_offset, keyidx_offset;
    int32_t last_picture, last_tl0, last_keyidx;
    double last_sent_at;
    uint64_t packets, octets;
    uint8_t payload_types[128];     /* the publisher's to the subscriber's, LK_NO_TYPE: none */
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

/* The legs of one track. */
typedef struct {
    lk_row **rows;                  /* by the order of their egresses, so that streams for the same ones find each other */
    int32_t count;
    uint8_t video, muted;
} lk_fanout;

/* A packet of the past, as it came, opened. */
typedef struct {
    int64_t extended;               /* -1: none */
    double arrival;
    uint8_t *data;
    uint32_t size, room;
} lk_kept;

typedef struct {
    uint32_t timestamp, level;
} lk_level;

/* Packets that did not come, and when that was seen. Extended numbers. */
typedef struct {
    int64_t first, last;
    double seen;
} lk_loss;

/* One stream of a publisher: a layer of a track (lkactor/sfu/receiver.py). Times in seconds of Trio's clock. */
typedef struct {
    lk_fanout *fanout;
    uint32_t ssrc;
    int32_t layer;
    uint8_t kinds[128];             /* by payload type */
    uint8_t level_id;               /* header extension; 0: not negotiated */
    int64_t highest;                /* extended; -1: nothing came yet */
    int64_t packets, bytes;
    double clock_rate, jitter, last_transit, last_arrival;
    double latency;                 /* of the last packet, from the socket to the sockets; 0: not known */
    uint64_t spread[12], begun[4];
    uint32_t level_count, loss_count, kept_count;
    lk_level levels[LK_LEVELS];
    lk_loss losses[LK_LOSSES];
    lk_kept *kept;                  /* kept_count, a power of two */
    uint64_t steady;                /* packets that Python never saw */
    uint64_t checked;               /* the batch in which the rows were looked at, for `checked_type` */
    uint8_t checked_type;
    int32_t leaving;                /* rows that were left in it */
    uint64_t waits;                 /* the last datagram that went up and may be of this stream; of lk_kernel.put_up */
    int64_t up, taken;              /* the highest number of what waits so, and of what Python has taken; extended */
} lk_source;

typedef struct {
    double arrival;
    uint32_t ssrc;
    uint16_t sequence;              /* transport-wide */
    uint8_t marker;
} lk_arrival;

/* What the checks of a peer look like whose path works; `key_size` 0: they go up, all of them. */
typedef struct {
    const lk_socket *socket;        /* where they come in, */
    uint8_t key_size, key[22];      /* and from (routes.c: key_of) */
    uint8_t controlling;            /* we are */
    uint8_t nominated;              /* USE-CANDIDATE tells nothing new */
    uint16_t user_size, password_size;
    uint8_t user[288], password[64];
    double heard;                   /* the last one; 0: none yet */
    uint64_t answered;
} lk_consent;

/* Where one peer connection is read. `ready` 0: everything goes up as it came. */
typedef struct lk_ingress {
    struct lk_kernel *kernel;
    int32_t references;             /* Python's and those of routes; changed under the lock */
    uint8_t ready;
    uint8_t transport_cc_id;        /* header extension; 0: not negotiated */
    uint8_t has_news;
    uint32_t id;
    uintptr_t srtp;                 /* srtp_t of the receiver */
    lk_cipher *cipher;              /* in its place; NULL: none */
    int32_t source_count;
    lk_source *sources[LK_SOURCES];
    uint64_t refused[4];            /* by SRTP: authentication, replay, too old, anything else */
    uint32_t arrival_count;
    lk_arrival arrivals[LK_ARRIVALS];
    uint8_t eager;                  /* reports that say nothing new do not wait longer than others */
    uint64_t estimate;              /* of the last REMB, bits per second */
    uint32_t held_used;
    double held_due;                /* when they have waited long enough, of the monotonic clock */
    uint8_t held[LK_HELD];          /* lk_up, one behind the other */
    struct lk_ingress *held_before, *held_behind;   /* of those with some, the first is due first */
    lk_consent consent;
    struct lk_ingress *next;        /* with news, of `pump` */
    struct lk_pump *pump;
} lk_ingress;

typedef struct lk_kernel lk_kernel;
typedef struct lk_pump lk_pump;

/* protect: srtp_protect of libsrtp 2, or 0 for no protection. NULL when there is no memory. */
lk_kernel *lk_new(uintptr_t protect);
void lk_free(lk_kernel *kernel);    /* when the last of its ingresses and pumps is gone, too */

/* Whoever touches a row, a source or an SRTP session holds this; it may be taken again by who has it. */
void lk_lock(lk_kernel *kernel);
void lk_unlock(lk_kernel *kernel);

/* Rewrite, protect and send `packets` (one layer, rising `extended`) to all `rows`. Rows that need a decision or more
   than the kernel can do are left alone and set in `left`; returns how many. `stamp`: abs-send-time of now. */
int lk_forward(lk_kernel *kernel, lk_row **rows, int row_count, const lk_packet *packets, int packet_count,
               const uint8_t *arena, int layer, int video, int keyframe, uint32_t stamp, double now, uint8_t *left);

/* -- SRTP (seal.c) -- */

/* Of a master key of 16 or 32 octets and a salt of 12: AEAD_AES_128_GCM or AEAD_AES_256_GCM. NULL: this processor has
   no instructions for it, or no memory. */
lk_cipher *lk_cipher_new(const uint8_t *secret, uint32_t size, const uint8_t *salt, int opens);
void lk_cipher_free(lk_cipher *cipher);
/* In place: 0, or libsrtp's srtp_err_status_t. Sealing wants room for 16 octets more. */
int lk_seal(lk_cipher *cipher, void *packet, int *size);
int lk_open(lk_cipher *cipher, void *packet, int *size);

/* -- receiving (receive.c) -- */

/* unprotect, unprotect_rtcp: srtp_unprotect and srtp_unprotect_rtcp of libsrtp 2, or 0. `now`: of Trio's clock. NULL
   when there is no memory or descriptor. */
lk_pump *lk_pump_new(lk_kernel *kernel, uintptr_t unprotect, uintptr_t unprotect_rtcp, double now);
void lk_pump_free(lk_pump *pump);
/* Before the start; 0, or -1 if there are too many. `number` says in `lk_up` where a datagram came in. */
int lk_pump_add(lk_pump *pump, lk_socket *socket, int number);
int lk_pump_start(lk_pump *pump);   /* a thread of its own; 0, or errno */
void lk_pump_stop(lk_pump *pump);   /* returns when the thread is gone; may be called again */
int lk_pump_fd(const lk_pump *pump); /* readable when there is something for Python */
/* What the thread does when something has come, without the thread: datagrams that were read, or passed on at last. */
int lk_pump_once(lk_pump *pump);

#define LK_OPENED 1                 /* RTP, unprotected */
#define LK_REST 2                   /* likewise, and all but some rows have it */
#define LK_RTCP 3                   /* RTCP, unprotected */

/* One datagram for Python. `size` octets follow it, and padding to 8. */
typedef struct {
    double arrival;
    uint32_t route;                 /* as given to `lk_route`; 0: unknown */
    uint16_t socket, size;
    uint8_t opened;                 /* 0: as it came, or: */
    uint8_t address_size;
    uint8_t address[28];
    uint8_t unused[2];
} lk_up;

/* Looks at up to `most` of what waits for Python, as many whole ones as fit, and hands out what still has to go up;
   octets written. Of RTCP and records of data channels LK_RECORDS count as one. `more`: if there is more. */
enum { LK_RECORDS = 4, LK_DTLS_DATA = 23 };
int lk_take(lk_pump *pump, uint8_t *buffer, int size, int most, int *more);
void lk_ring(lk_pump *pump);        /* for who leaves some of it for later */
/* The peers with arrivals, levels, losses or refusals to tell of. 0 at last: the next one rings. */
int lk_take_news(lk_pump *pump, uint32_t *ids, int size);
int lk_has_losses(const lk_pump *pump); /* among them: they are not to wait */
int lk_rings(const lk_pump *pump);  /* the last answer was 0, and nothing has come since */
uint64_t lk_dropped(const lk_pump *pump); /* datagrams that Python was too slow for */

/* From `address` (a packed sockaddr) come packets of `ingress`, NULL: not told; id 0 forgets it. 0, or -1: no memory. */
int lk_route(lk_kernel *kernel, lk_socket *socket, const uint8_t *address, uint32_t size, lk_ingress *ingress, uint32_t id);
void lk_forget_routes(lk_socket *socket);
/* NULL: no memory. It lives until it is freed and no route leads to it, and keeps the kernel alive, for Python collects
   garbage in any order. */
lk_ingress *lk_ingress_new(lk_kernel *kernel);
void lk_ingress_free(lk_ingress *ingress);
int lk_attach(lk_kernel *kernel, lk_ingress *ingress, lk_source *source); /* 0, or -1: too many */
void lk_detach(lk_kernel *kernel, lk_ingress *ingress, lk_source *source);
int lk_keep(lk_kernel *kernel, lk_source *source, int64_t extended, const uint8_t *data, uint32_t size, double arrival);
void lk_forget_kept(lk_source *source); /* and frees */

/* -- consent (consent.c) -- */

/* hmac: OpenSSL's HMAC(); digest: EVP_sha1(). Without them no check is answered here. */
void lk_sign_with(lk_kernel *kernel, uintptr_t hmac, uintptr_t digest);
/* Checks from `address` that name `user` are answered by the thread; with `size` 0, or anything too long, none. */
void lk_set_consent(lk_kernel *kernel, lk_ingress *ingress, const lk_socket *socket, const uint8_t *address,
                    uint32_t size, const uint8_t *user, uint32_t user_size, const uint8_t *password,
                    uint32_t password_size, int controlling, int nominated);
