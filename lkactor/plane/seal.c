/* SRTP with AES-GCM (RFC 3711, RFC 7714) for RTP, one direction of one peer connection. It does what libsrtp does, with the
   same answers, where everything that a packet needs lies side by side and can be fetched ahead. RTCP, and profiles
   that are not GCM, stay with libsrtp. */

#include "octets.h"

#define SRTP_AUTH 7                 /* srtp_err_status_t */
#define SRTP_NO_MEMORY 3
#define SRTP_REPLAY 9
#define SRTP_OLD 10
#define SRTP_PARSE 21
#define SENT_WINDOW 512             /* lkactor/srtp/session.py */
#define OPENED_WINDOW 1024
#define SEEN_WORDS 32               /* a ring of bits, wider than the window */
#define MOST_FLOWS 8192             /* that a peer may begin; our own are as many as it subscribes to */
#define FEW_FLOWS 4
#define DERIVED 32                  /* octets of a derived key, at most */

#ifdef GCM

/* What of one SSRC has to be known. `highest`: the packet index, RFC 3711 section 3.3.1. */
typedef struct {
    uint32_t ssrc, known;
    int64_t highest;
    uint64_t *seen;                 /* of what is opened: which indices were */
} lk_flow;

struct lk_cipher {
    uint8_t salt[12], opens;
    uint32_t used, room;            /* of `flows`; room is a power of two */
    lk_flow *flows, few[FEW_FLOWS]; /* `few`, until they are not enough */
    gcm_key key;
};

/* RFC 3711 section 4.3.1, key derivation rate 0; a salt of 12 octets is filled up on the right (RFC 7714 section 11). */
GCM_CODE void derive(const gcm_key *master, const uint8_t *salt, uint8_t label, uint8_t *out) {
    uint8_t block[16] = {0};
    memcpy(block, salt, 12);
    block[7] ^= label;
    memset(out, 0, DERIVED);
    counter_mode(master, reversed(load(block)), out, DERIVED);
}

GCM_CODE void set_keys(lk_cipher *cipher, const uint8_t *secret, uint32_t size, const uint8_t *salt) {
    gcm_key master;
    uint8_t out[DERIVED];
    expand_key(&master, secret, (int)size);
    derive(&master, salt, 0, out);
    gcm_init(&cipher->key, out, (int)size);
    derive(&master, salt, 2, out);
    memcpy(cipher->salt, out, sizeof cipher->salt);
    explicit_bzero(&master, sizeof master);
    explicit_bzero(out, sizeof out);
}

lk_cipher *lk_cipher_new(const uint8_t *secret, uint32_t size, const uint8_t *salt, int opens) {
    lk_cipher *cipher;
    if (!gcm_available() || (size != 16 && size != 32)) return NULL;
    cipher = aligned_alloc(64, (sizeof *cipher + 63) & ~(size_t)63);
    if (cipher == NULL) return NULL;
    memset(cipher, 0, sizeof *cipher);
    cipher->opens = opens != 0;
    cipher->room = FEW_FLOWS;
    cipher->flows = cipher->few;
    set_keys(cipher, secret, size, salt);
    return cipher;
}

void lk_cipher_free(lk_cipher *cipher) {
    for (uint32_t i = 0; i < cipher->room; i++) free(cipher->flows[i].seen);
    if (cipher->flows != cipher->few) free(cipher->flows);
    explicit_bzero(cipher, sizeof *cipher);
    free(cipher);
}

/* Its place, taken or not. */
static lk_flow *place_of(lk_flow *flows, uint32_t room, uint32_t ssrc) {
    uint32_t at = ssrc * 2654435769u >> 7;
    while (flows[at & (room - 1)].known && flows[at & (room - 1)].ssrc != ssrc) at++;
    return &flows[at & (room - 1)];
}

static int grow_flows(lk_cipher *cipher) {
    uint32_t room = cipher->room * 2;
    lk_flow *flows = calloc(room, sizeof *flows);
    if (flows == NULL) return -1;
    for (uint32_t i = 0; i < cipher->room; i++)
        if (cipher->flows[i].known) *place_of(flows, room, cipher->flows[i].ssrc) = cipher->flows[i];
    if (cipher->flows != cipher->few) free(cipher->flows);
    cipher->flows = flows;
    cipher->room = room;
    return 0;
}

/* NULL: no memory, or too many. */
static lk_flow *begin_flow(lk_cipher *cipher, uint32_t ssrc, int64_t index) {
    lk_flow *flow;
    if ((cipher->opens && cipher->used >= MOST_FLOWS) || (cipher->used * 4 >= cipher->room * 3 && grow_flows(cipher) < 0)) return NULL;
    flow = place_of(cipher->flows, cipher->room, ssrc);
    if (cipher->opens && (flow->seen = calloc(SEEN_WORDS, sizeof *flow->seen)) == NULL) return NULL;
    flow->ssrc = ssrc;
    flow->known = 1;
    flow->highest = index;
    cipher->used++;
    return flow;
}

/* The index that is nearest to the highest one, RFC 3711 section 3.3.1. There is none before the first round; until half of
   that is over libsrtp takes each number for one of it, and so do we. */
static int64_t index_of(const lk_flow *flow, uint16_t sequence) {
    if (!flow->known || flow->highest <= 1 << 15) return sequence;
    return flow->highest + (int16_t)(sequence - (uint16_t)flow->highest);
}

static int is_seen(const lk_flow *flow, int64_t index) {
    return index <= flow->highest && flow->seen[index / 64 % SEEN_WORDS] >> index % 64 & 1;
}

static void set_seen(lk_flow *flow, int64_t index) {
    int64_t word = flow->highest / 64, last = index / 64;
    if (last - word > SEEN_WORDS) word = last - SEEN_WORDS;
    while (word < last) flow->seen[++word % SEEN_WORDS] = 0;
    flow->seen[index / 64 % SEEN_WORDS] |= 1ull << index % 64;
    if (index > flow->highest) flow->highest = index;
}

/* With contributing sources and extension; 0: it is longer than the packet. */
static uint32_t header_size(const uint8_t *data, uint32_t size) {
    uint32_t end = 12 + 4 * (data[0] & 15u);
    if (data[0] & 0x10) end += end + 4 <= size ? 4 + 4 * get16(data + end + 2) : size;
    return end <= size ? end : 0;
}

/* RFC 7714 section 8.1. */
static void write_iv(uint8_t *iv, const lk_cipher *cipher, const uint8_t *data, int64_t index) {
    memset(iv, 0, 2);
    memcpy(iv + 2, data + 8, 4);
    put32(iv + 6, (uint32_t)(index >> 16));
    put16(iv + 10, (uint32_t)index & 0xFFFF);
    for (int i = 0; i < 12; i++) iv[i] ^= cipher->salt[i];
}

int lk_seal(lk_cipher *cipher, void *packet, int *size) {
    uint8_t *data = packet, iv[12];
    uint32_t header = *size >= 12 ? header_size(data, (uint32_t)*size) : 0;
    lk_flow *flow;
    int64_t index;
    if (header == 0) return SRTP_PARSE;
    flow = place_of(cipher->flows, cipher->room, get32(data + 8));
    index = index_of(flow, (uint16_t)get16(data + 2));
    if (!flow->known && (flow = begin_flow(cipher, get32(data + 8), index)) == NULL) return SRTP_NO_MEMORY;
    if (flow->highest - index >= SENT_WINDOW) return SRTP_OLD;
    if (index > flow->highest) flow->highest = index;
    write_iv(iv, cipher, data, index);
    gcm_seal(&cipher->key, iv, data, header, data + header, (uint32_t)*size - header);
    *size += TAG;
    return 0;
}

int lk_open(lk_cipher *cipher, void *packet, int *size) {
    uint8_t *data = packet, iv[12];
    uint32_t end = (uint32_t)*size - TAG, header = *size >= 12 + TAG ? header_size(data, end) : 0;
    lk_flow *flow;
    int64_t index;
    if (header == 0) return SRTP_PARSE;
    flow = place_of(cipher->flows, cipher->room, get32(data + 8));
    index = index_of(flow, (uint16_t)get16(data + 2));
    if (flow->known && flow->highest - index >= OPENED_WINDOW) return SRTP_OLD;
    if (flow->known && is_seen(flow, index)) return SRTP_REPLAY;
    write_iv(iv, cipher, data, index);
    if (gcm_open(&cipher->key, iv, data, header, data + header, end - header) < 0) return SRTP_AUTH;
    if (!flow->known && (flow = begin_flow(cipher, get32(data + 8), index)) == NULL) return SRTP_NO_MEMORY;
    set_seen(flow, index);
    *size = (int)end;
    return 0;
}

/* What `lk_seal` will read, where few flows and a key of 16 octets are all there is. */
static void fetch_cipher(const lk_cipher *cipher) {
    for (size_t line = 0; line < offsetof(lk_cipher, key.round_keys[11]); line += 64)
        __builtin_prefetch((const uint8_t *)cipher + line);
}

#else

lk_cipher *lk_cipher_new(const uint8_t *secret, uint32_t size, const uint8_t *salt, int opens) {
    (void)secret, (void)size, (void)salt, (void)opens;
    return NULL;
}

void lk_cipher_free(lk_cipher *cipher) { (void)cipher; }

int lk_seal(lk_cipher *cipher, void *packet, int *size) {
    (void)cipher, (void)packet, (void)size;
    return SRTP_PARSE;
}

int lk_open(lk_cipher *cipher, void *packet, int *size) { return lk_seal(cipher, packet, size); }

static void fetch_cipher(const lk_cipher *cipher) { (void)cipher; }

#endif
