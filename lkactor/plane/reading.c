/* What is read of a packet of a known stream, opened: as much as the rows need. */

#define MOST_PAYLOAD 1480

/* The value of a one-byte header extension (RFC 8285 section 4.2), NULL without; `size` of it. */
static const uint8_t *extension(const uint8_t *at, const uint8_t *end, uint8_t id, uint32_t *size) {
    while (at < end) {
        uint32_t length = (*at & 15u) + 1;
        if (*at == 0) {
            at++;
            continue;
        }
        if (*at >> 4 == 0 || *at >> 4 == 15 || at + 1 + length > end) return NULL;
        if (*at >> 4 == id) {
            *size = length;
            return at + 1;
        }
        at += 1 + length;
    }
    return NULL;
}

/* VP8's descriptor (RFC 7741 section 4.2). 0: Python has to look: cut short, or the beginning of a key frame. */
static int read_vp8(lk_packet *packet, const uint8_t *payload, int *temporal, int *begins) {
    uint32_t at = 1, size = packet->size;
    uint8_t first = payload[0], flags = 0;
    packet->has_ids = 1;
    packet->wide = 0;
    packet->picture_at = packet->tl0_at = packet->keyidx_at = -1;
    packet->picture = packet->tl0 = packet->keyidx = -1;
    *temporal = 0;
    if (size < 8) return 0;
    if (first & 0x80) flags = payload[at++];
    if (flags & 0x80) {
        packet->picture_at = (int16_t)at;
        packet->wide = payload[at] > 127;
        packet->picture = packet->wide ? (int32_t)(get16(payload + at) & 0x7FFF) : payload[at];
        at += packet->wide ? 2 : 1;
    }
    if (flags & 0x40) {
        packet->tl0_at = (int16_t)at;
        packet->tl0 = payload[at++];
    }
    if (flags & 0x30) {
        packet->keyidx_at = (int16_t)at;
        if (flags & 0x20) *temporal = payload[at] >> 6;
        if (flags & 0x10) packet->keyidx = payload[at] & 31;
        at++;
    }
    *begins = (first & 0x10) != 0 && (first & 7) == 0;
    return !(*begins && !(payload[at] & 1));
}

/* H.264: a slice of no key frame, or a fragment of one (RFC 6184 sections 5.2, 5.8). */
static int is_plain_h264(const uint8_t *payload, uint32_t size) {
    int kind = payload[0] & 31;
    if (kind == 28) return size > 1 && (payload[1] & 31) != 7;
    return kind == 1 || kind == 5;
}

/* A whole RTP packet without anything unusual. `extensions`: where they begin, NULL: none that are of use here. */
static int read_header(const uint8_t *data, uint32_t size, lk_packet *packet, const uint8_t **extensions) {
    uint32_t at = 12;
    *extensions = NULL;
    if ((data[0] & 0xEF) != 0x80) return 0;     /* another version, padding or contributing sources */
    packet->payload_type = data[1] & 127;
    packet->marker = data[1] >> 7;
    packet->timestamp = get32(data + 4);
    if (data[0] & 0x10) {
        if (size < 16) return 0;
        at = 16 + 4 * get16(data + 14);
        if (at > size) return 0;
        if (get16(data + 12) != 0xBEDE) return 0;
        *extensions = data + 16;
    }
    packet->payload = at;
    packet->size = size - at;
    return packet->size > 0 && packet->size <= MOST_PAYLOAD;
}
