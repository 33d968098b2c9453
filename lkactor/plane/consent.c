/* The checks of a peer whose path works (RFC 8445 section 7.3, RFC 7675): nearly all that an idle peer sends. One that
   is as those before it, and signed, is answered by the thread; all others go up, so that only `lkactor.ice` has rules.
   The signature is the caller's function: OpenSSL's HMAC. */

#define STUN_HEADER 20
#define COOKIE 0x2112A442u
#define BINDING_REQUEST 0x0001
#define BINDING_SUCCESS 0x0101
#define USERNAME 0x0006
#define MESSAGE_INTEGRITY 0x0008
#define XOR_MAPPED_ADDRESS 0x0020
#define PRIORITY 0x0024
#define USE_CANDIDATE 0x0025
#define FINGERPRINT 0x8028
#define ICE_CONTROLLED 0x8029
#define ICE_CONTROLLING 0x802A
#define OPTIONAL 0x8000             /* from here on attributes may be skipped (RFC 8489 section 14) */
#define DIGEST 20                   /* SHA-1 */
#define LONGEST_CHECK 512
#define LONGEST_ANSWER (STUN_HEADER + 24 + 4 + DIGEST + 8)

void lk_sign_with(lk_kernel *kernel, uintptr_t hmac, uintptr_t digest) {
    kernel->hmac = (hmac_fn)hmac;
    kernel->digest = (const void *)digest;
}

void lk_set_consent(lk_kernel *kernel, lk_ingress *ingress, const lk_socket *socket, const uint8_t *address,
                    uint32_t size, const uint8_t *user, uint32_t user_size, const uint8_t *password,
                    uint32_t password_size, int controlling, int nominated) {
    lk_consent *consent = &ingress->consent;
    lk_lock(kernel);
    consent->socket = socket;
    consent->key_size = 0;
    if (user_size <= sizeof consent->user && password_size <= sizeof consent->password && kernel->hmac != NULL)
        consent->key_size = key_of(address, size, consent->key);
    if (consent->key_size) {
        memcpy(consent->user, user, user_size);
        memcpy(consent->password, password, password_size);
        consent->user_size = (uint16_t)user_size;
        consent->password_size = (uint16_t)password_size;
        consent->controlling = (uint8_t)controlling;
        consent->nominated = (uint8_t)nominated;
    }
    lk_unlock(kernel);
}

/* RFC 8489 section 14.7. */
static uint32_t fingerprint(const uint8_t *at, uint32_t size) {
    uint32_t crc = ~0u;
    for (uint32_t i = 0; i < size; i++) {
        crc ^= at[i];
        for (int bit = 0; bit < 8; bit++) crc = crc >> 1 ^ (crc & 1 ? 0xEDB88320u : 0);
    }
    return ~crc ^ 0x5354554Eu;
}

/* Of a message up to MESSAGE-INTEGRITY at `end`, whose length field says that this attribute is the last one. */
static int sign(const lk_kernel *kernel, const lk_consent *consent, const uint8_t *message, uint32_t end, uint8_t *digest) {
    unsigned size = 0;
    return kernel->hmac(kernel->digest, consent->password, consent->password_size, message, end, digest, &size) != NULL &&
           size == DIGEST;
}

static int is_signed(const lk_kernel *kernel, const lk_consent *consent, const uint8_t *data, uint32_t integrity) {
    uint8_t message[LONGEST_CHECK], digest[64], differs = 0;
    memcpy(message, data, integrity);
    put16(message + 2, integrity + 4 + DIGEST - STUN_HEADER);
    if (!sign(kernel, consent, message, integrity, digest)) return 0;
    for (int i = 0; i < DIGEST; i++) differs |= digest[i] ^ data[integrity + 4 + i];
    return !differs;
}

/* May this attribute be in a check that changes nothing? `integrity`: where the signature is, 0: still to come. */
static int is_usual(const lk_consent *consent, uint32_t kind, const uint8_t *value, uint32_t size, uint32_t integrity) {
    if (integrity) return kind == FINGERPRINT && size == 4;
    switch (kind) {
    case USERNAME: return size == consent->user_size && memcmp(value, consent->user, size) == 0;
    case PRIORITY: return size == 4;
    case USE_CANDIDATE: return consent->nominated;
    case MESSAGE_INTEGRITY: return size == DIGEST;
    case ICE_CONTROLLING: return !consent->controlling && size == 8;
    case ICE_CONTROLLED: return consent->controlling && size == 8;
    default: return kind >= OPTIONAL && kind != FINGERPRINT;
    }
}

static int is_consent(const lk_kernel *kernel, const lk_consent *consent, const uint8_t *data, uint32_t size) {
    uint32_t at = STUN_HEADER, integrity = 0, named = 0, roles = 0;
    if (size < STUN_HEADER || size > LONGEST_CHECK || size % 4 || get16(data + 2) != size - STUN_HEADER) return 0;
    if (get16(data) != BINDING_REQUEST || get32(data + 4) != COOKIE) return 0;
    while (at + 4 <= size) {
        uint32_t kind = get16(data + at), length = get16(data + at + 2), next = at + 4 + ((length + 3) & ~3u);
        if (next > size || !is_usual(consent, kind, data + at + 4, length, integrity)) return 0;
        named += kind == USERNAME;
        roles += kind == ICE_CONTROLLING || kind == ICE_CONTROLLED;
        if (kind == MESSAGE_INTEGRITY) integrity = at;
        if (kind == FINGERPRINT && (next != size || get32(data + at + 4) != fingerprint(data, at))) return 0;
        at = next;
    }
    return named == 1 && roles == 1 && integrity && is_signed(kernel, consent, data, integrity);
}

/* XOR-MAPPED-ADDRESS, whole (RFC 8489 section 14.2); its size. */
static uint32_t write_mapped(uint8_t *out, const lk_consent *consent, const uint8_t *transaction) {
    uint32_t size = consent->key_size == 6 ? 4 : 16;
    put16(out, XOR_MAPPED_ADDRESS);
    put16(out + 2, 4 + size);
    put16(out + 4, size == 4 ? 1 : 2);
    put16(out + 6, get16(consent->key) ^ COOKIE >> 16);
    for (uint32_t i = 0; i < size; i++)             /* the cookie and the transaction follow one another */
        out[8 + i] = consent->key[2 + i] ^ transaction[(int)i - 4];
    return 8 + size;
}

static uint32_t write_answer(const lk_kernel *kernel, const lk_consent *consent, const uint8_t *request, uint8_t *out) {
    uint32_t at = STUN_HEADER;
    uint8_t digest[64];
    memcpy(out, request, STUN_HEADER);
    put16(out, BINDING_SUCCESS);
    at += write_mapped(out + at, consent, request + 8);
    put16(out + 2, at + 4 + DIGEST - STUN_HEADER);
    if (!sign(kernel, consent, out, at, digest)) return 0;
    put16(out + at, MESSAGE_INTEGRITY);
    put16(out + at + 2, DIGEST);
    memcpy(out + at + 4, digest, DIGEST);
    at += 4 + DIGEST;
    put16(out + 2, at + 8 - STUN_HEADER);
    put32(out + at + 4, fingerprint(out, at));
    put16(out + at, FINGERPRINT);
    put16(out + at + 2, 4);
    return at + 8;
}

/* From where the peer's checks come. */
static int is_its_path(const lk_consent *consent, const lk_socket *socket, const struct msghdr *from) {
    uint8_t key[22];
    if (consent->key_size == 0 || consent->socket != socket) return 0;
    return key_of(from->msg_name, from->msg_namelen, key) == consent->key_size
           && memcmp(key, consent->key, consent->key_size) == 0;
}

/* On a path that works to a check of ours: whether it is right is Python's to say, and it may say so a moment later. */
static int is_answer(const lk_ingress *ingress, const lk_socket *socket, const struct msghdr *from, const uint8_t *data,
                     uint32_t size) {
    return size >= STUN_HEADER && get16(data) == BINDING_SUCCESS && is_its_path(&ingress->consent, socket, from);
}

/* 1: that was one, and it has its answer. */
static int answer_check(const lk_kernel *kernel, lk_socket *socket, lk_ingress *ingress, const struct msghdr *from,
                        const uint8_t *data, uint32_t size, double now) {
    lk_consent *consent = &ingress->consent;
    uint8_t answer[LONGEST_ANSWER];
    struct iovec part = {.iov_base = answer};
    struct msghdr message = {.msg_name = from->msg_name, .msg_namelen = from->msg_namelen, .msg_iov = &part,
                             .msg_iovlen = 1};
    if (data[0] >= 4 || !is_its_path(consent, socket, from) || !is_consent(kernel, consent, data, size)) return 0;
    part.iov_len = write_answer(kernel, consent, data, answer);
    if (part.iov_len == 0) return 0;
    send_singly(socket, &message);
    consent->heard = now;
    consent->answered++;
    return 1;
}
