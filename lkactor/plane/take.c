/* What went up and waits for Python. What followed a packet that Python had to look at has waited only until that one was
   numbered. Then it goes to the rows, by whoever comes first, Python or the thread: otherwise a loop that was late once
   would stay so, with all packets of all streams behind it. */

/* The stream of RTP of this peer, opened; NULL: not known. */
static lk_source *source_of(const lk_ingress *ingress, const uint8_t *data) {
    for (int i = 0; i < ingress->source_count; i++)
        if (ingress->sources[i]->ssrc == get32(data + 8)) return ingress->sources[i];
    return NULL;
}

static void begin_batch(lk_pump *pump, const uint8_t *arena, double since) {
    pump->batch++;
    pump->arena = arena;
    pump->since = since;
}

/* Where a datagram came from, if that is still so. */
static const lk_entry *route_of(const lk_pump *pump, const lk_up *up) {
    uint8_t key[22], size = key_of(up->address, up->address_size, key);
    for (int i = 0; i < pump->sockets; i++) {
        const lk_entry *entry = pump->number[i] == up->socket ? find_entry(pump->socket[i]->routes, key, size) : NULL;
        if (entry != NULL) return entry->id == up->route ? entry : NULL;
    }
    return NULL;
}

static lk_up *first_up(const lk_pump *pump) {
    return pump->up_taken < pump->up_used ? (lk_up *)(pump->up + pump->up_taken) : NULL;
}

/* It stays where it is as long as nothing new is put up. */
static void take_off(lk_pump *pump, const lk_up *up) {
    pump->up_taken += room_of(up->size);
    pump->kernel->taken++;
    if (pump->up_taken == pump->up_used) pump->up_taken = pump->up_used = 0;
}

/* RTP that went up, opened: the peer's stream, NULL: not known. */
static lk_source *source_of_up(const lk_pump *pump, const lk_up *up, lk_ingress **ingress) {
    const lk_entry *route = up->opened == LK_OPENED ? route_of(pump, up) : NULL;
    if (route == NULL || route->ingress == NULL) return NULL;
    *ingress = route->ingress;
    return source_of(route->ingress, (const uint8_t *)(up + 1));
}

/* The first of them: what becomes of it, as of `take_steady`; 0 of what went up as it came. */
static int take_again(lk_pump *pump, const lk_up *up) {
    lk_ingress *ingress;
    lk_source *source = source_of_up(pump, up, &ingress);
    if (source == NULL) return up->opened;
    return take_steady(pump, ingress, source, (const uint8_t *)(up + 1), up->size, up->arrival, 0);
}

static void begin_again(lk_pump *pump) {
    const lk_up *up = first_up(pump);
    if (up != NULL) begin_batch(pump, pump->up, up->arrival - pump->clock_offset);
}

/* The thread's, before it reads what is new: where the core is busy Python comes seldom, and few at a time cost more.
   How many went to the rows. */
static int pass_again(lk_pump *pump, int most) {
    int passed = 0;
    lk_lock(pump->kernel);
    begin_again(pump);
    for (lk_up *up; passed < most && (up = first_up(pump)) != NULL && up->opened == LK_OPENED; passed++) {
        int rest = take_again(pump, up);
        if (rest) {
            up->opened = (uint8_t)rest;
            break;
        }
        take_off(pump, up);
    }
    if (pump->steady) flush_steady(pump);
    lk_unlock(pump->kernel);
    return passed;
}

/* For Python, which is to number it. */
static void give(lk_pump *pump, const lk_up *up, int rest, uint8_t *buffer) {
    lk_ingress *ingress;
    lk_source *source = rest == LK_OPENED ? source_of_up(pump, up, &ingress) : NULL;
    if (source != NULL) note_taken(source, (uint16_t)get16((const uint8_t *)(up + 1) + 2));
    memcpy(buffer, up, (size_t)room_of(up->size));
    ((lk_up *)buffer)->opened = (uint8_t)rest;
}

int lk_take(lk_pump *pump, uint8_t *buffer, int size, int most, int *more) {
    uint64_t count;
    int taken = 0, left = most * LK_RECORDS;
    if (read(pump->told_fd, &count, sizeof count) < 0) count = 0;
    lk_lock(pump->kernel);
    pump->told = 0;
    pump->others_due = INFINITY;
    begin_again(pump);
    for (lk_up *up; left > 0 && (up = first_up(pump)) != NULL && taken + room_of(up->size) <= size;) {
        int rest = take_again(pump, up);
        left -= up->opened == LK_RTCP || *(const uint8_t *)(up + 1) == LK_DTLS_DATA ? 1 : LK_RECORDS;
        take_off(pump, up);
        if (rest == 0 && up->opened) continue;
        give(pump, up, rest, buffer + taken);
        taken += room_of(up->size);
    }
    flush_steady(pump);
    *more = first_up(pump) != NULL;
    lk_unlock(pump->kernel);
    return taken;
}

void lk_ring(lk_pump *pump) {
    lk_lock(pump->kernel);
    tell(pump);
    lk_unlock(pump->kernel);
}
