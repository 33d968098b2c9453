/* What can wait a moment, so that Python reads many at once: who watches says several times a second how that goes, and
   to be woken for each costs more than to read it. RTCP is opened by the thread, so that it can tell which that is. */

enum { SR = 200, RR = 201, SDES = 202, PSFB = 206, XR = 207, AFB = 15 };

static int is_rtcp(const uint8_t *data, uint32_t size) {
    return size >= 12 && data[0] >> 6 == 2 && data[1] >= 192 && data[1] <= 223;    /* RFC 7983, RFC 5761 section 4 */
}

/* Reports and estimates of the bitrate (REMB), no requests (lkactor/wire/rtcp.py: can_wait). */
static int can_wait(const uint8_t *data, uint32_t size) {
    uint32_t at = 0;
    while (at + 4 <= size) {
        uint32_t kind = data[at + 1], end = at + 4 + 4 * get16(data + at + 2);
        int estimate = kind == PSFB && (data[at] & 31) == AFB && end >= at + 20;
        if (data[at] >> 6 != 2 || end > size) return 0;
        if (estimate && memcmp(data + at + 12, "REMB", 4) != 0) return 0;
        if (!estimate && kind != SR && kind != RR && kind != SDES && kind != XR) return 0;
        at = end;
    }
    return at == size;
}

static void wait_for_others(lk_pump *pump) {
    if (pump->others_due == INFINITY) pump->others_due = monotonic() + LONGEST_WAIT;
}

/* Under the lock, after something has come: the ring for what has waited long enough, or how long it still can. */
static void ring_for_waiting(lk_pump *pump) {
    double due = pump->losses_due, left;
    if (pump->sleeping && pump->others_due < due) due = pump->others_due;   /* else Python looks, and takes it along */
    pump->patience = -1;
    if (due == INFINITY) return;
    left = due - monotonic();
    if (left <= 0) tell(pump);
    else pump->patience = (int)(left * 1000) + 1;
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
    int length = (int)size;
    if (!ingress->ready || !is_rtcp(data, size) || size > LK_DATAGRAM) return 0;
    memcpy(opened, data, size);
    if (pump->unprotect_rtcp != NULL && pump->unprotect_rtcp((void *)ingress->srtp, opened, &length) != 0) return 0;
    put_up(pump, at, from, route, opened, (uint32_t)length, LK_RTCP, now);
    if (!can_wait(opened, (uint32_t)length)) tell(pump);
    else wait_for_others(pump);
    return 1;
}
