/* What can wait, so that Python reads many at once: who watches says several times a second how that goes, and to be woken
   for each costs more than to read it. RTCP is opened by the thread, so that it can tell which that is. */

enum { SR = 200, RR = 201, SDES = 202, PSFB = 206, XR = 207, AFB = 15 };

static int is_rtcp(const uint8_t *data, uint32_t size) {
    return size >= 12 && data[0] >> 6 == 2 && data[1] >= 192 && data[1] <= 223;    /* RFC 7983, RFC 5761 section 4 */
}

/* Bits per second. */
static uint64_t estimate_of(const uint8_t *remb) {
    uint32_t value = get32(remb + 16), exponent = value >> 18 & 63;
    return exponent > 45 ? UINT64_MAX : (uint64_t)(value & 0x3FFFF) << exponent;
}

/* Reports and estimates of the bitrate (REMB), no requests (lkactor/wire/rtcp.py: urgency). An estimate that is no less than
   the last one, and reports of who receives, tell nothing as long as nothing is short. */
enum { USUAL, SOON, URGENT };

static int urgency(lk_ingress *ingress, const uint8_t *data, uint32_t size) {
    uint32_t at = 0;
    int found = USUAL;
    while (at + 4 <= size) {
        uint32_t kind = data[at + 1], end = at + 4 + 4 * get16(data + at + 2);
        int estimate = kind == PSFB && (data[at] & 31) == AFB && end >= at + 20;
        if (data[at] >> 6 != 2 || end > size) return URGENT;
        if (estimate && memcmp(data + at + 12, "REMB", 4) != 0) return URGENT;
        if (!estimate && kind != SR && kind != RR && kind != SDES && kind != XR) return URGENT;
        if (kind == SR) found = SOON;
        if (estimate) {
            uint64_t before = ingress->estimate;
            ingress->estimate = estimate_of(data + at);
            if (ingress->estimate < before) found = SOON;
        }
        at = end;
    }
    return at == size ? found : URGENT;
}

static void wait_for_others(lk_pump *pump) {
    if (pump->others_due == INFINITY) pump->others_due = monotonic() + LONGEST_WAIT;
}

static void unlink_held(lk_pump *pump, lk_ingress *ingress) {
    if (ingress->held_used == 0) return;
    *(ingress->held_before ? &ingress->held_before->held_behind : &pump->held_first) = ingress->held_behind;
    *(ingress->held_behind ? &ingress->held_behind->held_before : &pump->held_last) = ingress->held_before;
    ingress->held_before = ingress->held_behind = NULL;
    ingress->held_used = 0;
}

/* Nothing of this peer waits for more of it any longer. */
static void release(lk_pump *pump, lk_ingress *ingress) {
    uint32_t at = 0, used = ingress->held_used;
    unlink_held(pump, ingress);
    while (at < used) {
        const lk_up *up = (const lk_up *)(ingress->held + at);
        int room = room_of(up->size);
        uint8_t *to = put_behind(pump, room);
        if (to != NULL) memcpy(to, up, (size_t)room);
        at += (uint32_t)room;
    }
    if (used) wait_for_others(pump);
}

/* All that an older compound says is in this one, as it is now: reports on the same streams, and else the same octets. */
static int supersedes(const uint8_t *data, const uint8_t *older, uint32_t size) {
    for (uint32_t at = 0; at < size;) {
        uint32_t count = data[at] & 31, end = at + 4 + 4 * get16(data + at + 2);
        if (data[at + 1] == XR || memcmp(data + at, older + at, 4) != 0) return 0;
        if (data[at + 1] != RR && memcmp(data + at, older + at, end - at) != 0) return 0;
        if (data[at + 1] == RR && end != at + 8 + 24 * count) return 0;
        for (uint32_t block = 0; data[at + 1] == RR && block <= count; block++) {
            uint32_t ssrc = block ? at + 8 + 24 * (block - 1) : at + 4;
            if (get32(data + ssrc) != get32(older + ssrc)) return 0;
        }
        at = end;
    }
    return 1;
}

/* What is held of this peer and no more than this says; NULL: nothing is. */
static uint8_t *superseded(lk_ingress *ingress, const uint8_t *data, uint32_t size) {
    for (uint32_t at = 0; at < ingress->held_used;) {
        const lk_up *up = (const lk_up *)(ingress->held + at);
        if (up->size == size && supersedes(data, (const uint8_t *)(up + 1), size)) return ingress->held + at;
        at += (uint32_t)room_of(up->size);
    }
    return NULL;
}

/* 0: it is too long. */
static int hold(lk_pump *pump, int at, const struct msghdr *from, const lk_entry *route, const uint8_t *data,
                uint32_t size, double now) {
    lk_ingress *ingress = route->ingress;
    uint32_t room = (uint32_t)room_of(size);
    uint8_t *to = superseded(ingress, data, size);
    if (to != NULL) {
        write_up(pump, to, at, from, route, data, size, LK_RTCP, now);
        return 1;
    }
    if (ingress->held_used + room > LK_HELD) release(pump, ingress);
    if (room > LK_HELD) return 0;
    if (ingress->held_used == 0) {
        ingress->pump = pump;
        ingress->held_due = monotonic() + HELD_FOR;
        ingress->held_before = pump->held_last;
        *(pump->held_last ? &pump->held_last->held_behind : &pump->held_first) = ingress;
        pump->held_last = ingress;
    }
    write_up(pump, ingress->held + ingress->held_used, at, from, route, data, size, LK_RTCP, now);
    ingress->held_used += room;
    return 1;
}

/* Under the lock, after something has come: the ring for what has waited long enough, or how long it still can. */
static void ring_for_waiting(lk_pump *pump) {
    double due = pump->losses_due, now;
    pump->patience = -1;
    if (due == INFINITY && pump->others_due == INFINITY && pump->held_first == NULL) return;
    now = monotonic();
    if (pump->held_first != NULL && pump->held_first->held_due <= now)     /* and who is next needs no wake of its own */
        while (pump->held_first != NULL && pump->held_first->held_due <= now + LONGEST_WAIT) release(pump, pump->held_first);
    if (pump->sleeping && pump->others_due < due) due = pump->others_due;   /* else Python looks, and takes it along */
    if (due <= now) {
        tell(pump);
        due = INFINITY;
    }
    if (pump->held_first != NULL && pump->held_first->held_due < due) due = pump->held_first->held_due;
    if (due != INFINITY) pump->patience = (int)((due - now) * 1000) + 1;
}

static void look_after_waiting(lk_pump *pump) {
    lk_lock(pump->kernel);
    ring_for_waiting(pump);
    lk_unlock(pump->kernel);
}

/* 0: it is no RTCP, or cannot be opened: Python counts why. */
static int put_up_rtcp(lk_pump *pump, int at, const struct msghdr *from, const lk_entry *route, const uint8_t *data,
                       uint32_t size, double now) {
    lk_ingress *ingress = route->ingress;
    uint8_t opened[LK_DATAGRAM];
    int length = (int)size, found;
    if (!ingress->ready || !is_rtcp(data, size) || size > LK_DATAGRAM) return 0;
    memcpy(opened, data, size);
    if (pump->unprotect_rtcp != NULL && pump->unprotect_rtcp((void *)ingress->srtp, opened, &length) != 0) return 0;
    found = urgency(ingress, opened, (uint32_t)length);
    if (found == USUAL && !ingress->eager && hold(pump, at, from, route, opened, (uint32_t)length, now)) return 1;
    release(pump, ingress);
    put_up(pump, at, from, route, opened, (uint32_t)length, LK_RTCP, now);
    if (found == URGENT) tell(pump);
    else wait_for_others(pump);
    return 1;
}
