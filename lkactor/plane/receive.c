/* The pump: a thread that reads the sockets, opens what known peers send, and passes it on (steady.c). */

/* -- receiving ---------------------------------------------------------------------------------------------------- */

static int is_rtp(const uint8_t *data, uint32_t size) {
    return size >= 12 && data[0] >> 6 == 2 && !is_rtcp(data, size);
}

static void refuse(lk_pump *pump, lk_ingress *ingress, int status) {
    ingress->refused[status == 7 ? 0 : status == 9 ? 1 : status == 10 ? 2 : 3]++;  /* srtp_err_status_t */
    has_news(pump, ingress);
}

static int unprotect(const lk_pump *pump, const lk_ingress *ingress, uint8_t *packet, int *size) {
    if (ingress->cipher != NULL) return lk_open(ingress->cipher, packet, size);
    return pump->unprotect != NULL ? pump->unprotect((void *)ingress->srtp, packet, size) : 0;
}

static void receive_one(lk_pump *pump, int at, const struct msghdr *from, const lk_entry *route, uint8_t *data,
                        uint32_t size, double now) {
    lk_socket *socket = pump->socket[at];
    lk_ingress *ingress = route != NULL ? route->ingress : NULL;
    lk_source *source;
    int length = (int)size, status, rest;
    socket->packets_in++;
    socket->bytes_in += size;
    if (size == 0) return;
    if (socket->divert) ingress = NULL;
    if (ingress != NULL && answer_check(pump->kernel, socket, ingress, from, data, size, now)) return;
    if (ingress != NULL && put_up_rtcp(pump, at, from, route, data, size, now)) return;
    if (ingress != NULL && is_answer(ingress, socket, from, data, size)) {
        put_up(pump, at, from, route, data, size, 0, now);
        wait_for_others(pump);
        return;
    }
    if (ingress == NULL || !ingress->ready || !is_rtp(data, size) || size > LK_DATAGRAM) {
        hand_up(pump, at, from, route, data, size, 0, now);
        return;
    }
    status = unprotect(pump, ingress, data, &length);
    if (status != 0) {
        refuse(pump, ingress, status);
        return;
    }
    source = source_of(ingress, data);
    rest = LK_OPENED;
    if (source != NULL)
        rest = take_steady(pump, ingress, source, data, (uint32_t)length, now, waits(pump->kernel, source));
    if (rest == LK_OPENED && source != NULL) note_up(pump->kernel, source, (uint16_t)get16(data + 2));
    if (rest) hand_up(pump, at, from, route, data, (uint32_t)length, rest, now);
}

/* One message: a datagram, or several of one peer that the kernel has merged (UDP_GRO). */
static void receive_message(lk_pump *pump, int at, int index, double now) {
    struct msghdr *message = &pump->messages[index].msg_hdr;
    uint8_t key[22], *data = pump->parts[index].iov_base;
    uint32_t left = pump->messages[index].msg_len, segment = left;
    const lk_entry *route =
        find_entry(pump->socket[at]->routes, key, key_of(message->msg_name, message->msg_namelen, key));
    for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c != NULL; c = CMSG_NXTHDR(message, c))
        if (c->cmsg_level == IPPROTO_UDP && c->cmsg_type == UDP_GRO) {
            int size;
            memcpy(&size, CMSG_DATA(c), sizeof size);
            if (size > 0) segment = (uint32_t)size;
        }
    while (left > 0) {
        uint32_t size = left < segment ? left : segment;
        receive_one(pump, at, message, route, data, size, now);
        data += size;
        left -= size;
    }
}

/* The first `count`, which the system has written to. */
static void prepare_messages(lk_pump *pump, int count) {
    for (int i = 0; i < count; i++) {
        pump->parts[i] = (struct iovec){.iov_base = pump->buffers + (size_t)i * BUFFER, .iov_len = BUFFER};
        pump->messages[i].msg_hdr = (struct msghdr){
            .msg_name = &pump->from[i], .msg_namelen = sizeof pump->from[i], .msg_iov = &pump->parts[i],
            .msg_iovlen = 1, .msg_control = pump->controls[i].bytes, .msg_controllen = sizeof pump->controls[i].bytes};
    }
}

static int receive(lk_pump *pump, int at, int count) {
    lk_socket *socket = pump->socket[at];
    count = recvmmsg(socket->fd, pump->messages, (unsigned)count, MSG_DONTWAIT, NULL);
    if (count < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR) socket->receive_errors++;
    if (count <= 0) return 0;                   /* an ICMP error of an earlier send surfaces here once */
    lk_lock(pump->kernel);
    pump->began = monotonic();
    begin_batch(pump, pump->buffers, pump->began);
    for (int i = 0; i < count; i++) receive_message(pump, at, i, pump->began + pump->clock_offset);
    flush_steady(pump);
    ring_for_waiting(pump);
    lk_unlock(pump->kernel);
    prepare_messages(pump, count);
    return count;
}

/* -- turns -------------------------------------------------------------------------------------------------------- */

/* How many messages make a turn, of which one takes `cost` seconds. */
static int allowance(double cost) {
    double count = TURN / cost;
    return count < FEWEST ? FEWEST : count > MESSAGES ? MESSAGES : (int)count;
}

/* Who waits for the lock gets it: without this the thread could take it again before the other one is awake. */
static void give_way(const lk_kernel *kernel) {
    while (atomic_load(&kernel->waiting) > 0) sched_yield();
}

/* Under load packets are gathered: several for one destination leave together, which costs little more than one does. */
static void choose_window(lk_pump *pump, double spent) {
    double span = pump->ended - pump->busy_since, load;
    pump->busy += spent;
    if (span < LOAD_SPAN) return;
    load = (pump->busy / span - LIGHT_LOAD) / (FULL_LOAD - LIGHT_LOAD);
    pump->window = LONGEST_WINDOW * (load < 0 ? 0 : load > 1 ? 1 : load);
    pump->busy = 0;
    pump->busy_since = pump->ended;
}

/* A turn that has ended: `cost` is the average. */
static void note_turn(lk_pump *pump, double *cost, double began, int count) {
    double spent;
    pump->ended = monotonic();
    spent = pump->ended - began;
    choose_window(pump, spent);
    *cost += (spent / count - *cost) / 4;
    if (*cost < 1e-6) *cost = 1e-6;
}

static void gather(const lk_pump *pump) {
    double left = pump->window > 0 && !pump->behind ? pump->began + pump->window - monotonic() : 0;
    struct timespec wait = {.tv_nsec = (long)(left * 1e9)};
    if (left > 20e-6) nanosleep(&wait, NULL);
}

static int receive_all(lk_pump *pump) {
    int received = 0;
    pump->behind = 0;
    for (int at = 0; at < pump->sockets; at++) {
        double began;
        int count;
        if (!pump->polled[at].revents) continue;
        began = monotonic();
        count = receive(pump, at, allowance(pump->cost));
        pump->behind |= count == allowance(pump->cost);
        received += count;
        if (count > 0) note_turn(pump, &pump->cost, began, count);
    }
    return received;
}

/* Something has come: but what has waited goes first, and may take all of the turn. */
static int turn(lk_pump *pump) {
    double began = monotonic();
    int most = allowance(pump->cost_again), passed = pass_again(pump, most);
    if (passed > 0) note_turn(pump, &pump->cost_again, began, passed);
    pump->behind = passed == most;
    return pump->behind ? passed : passed + receive_all(pump);
}

int lk_pump_once(lk_pump *pump) {
    if (poll(pump->polled, (nfds_t)pump->sockets, 0) > 0) return turn(pump);
    look_after_waiting(pump);
    return 0;
}

/* -- the thread --------------------------------------------------------------------------------------------------- */

/* sched_setattr(2), which libc has no wrapper for. */
struct scheduling {
    uint32_t size, policy;
    uint64_t flags;
    int32_t nice;
    uint32_t priority;
    uint64_t runtime, deadline, period;
};

/* A short slice: where Python has the core, this thread gets it within SLICE of a packet's coming, not after some
   milliseconds. Its share of the core stays what it was. Since Linux 6.12; before, it is a wish that nobody hears. */
static void ask_for_short_slices(void) {
    struct scheduling wanted = {.size = 0};
    if (syscall(SYS_sched_getattr, 0, &wanted, sizeof wanted, 0) != 0 || wanted.policy != SCHED_OTHER) return;
    wanted.runtime = SLICE;
    (void)!syscall(SYS_sched_setattr, 0, &wanted, 0);
}

static void *pump_main(void *context) {
    lk_pump *pump = context;
    ask_for_short_slices();
    for (;;) {
        int ready = poll(pump->polled, (nfds_t)(pump->sockets + 1), pump->patience);
        if (ready < 0 && errno != EINTR) return NULL;
        if (ready == 0) look_after_waiting(pump);
        if (ready <= 0) continue;
        if (pump->polled[pump->sockets].revents) return NULL;
        gather(pump);
        turn(pump);
        give_way(pump->kernel);
    }
}

lk_ingress *lk_ingress_new(lk_kernel *kernel) {
    lk_ingress *ingress = calloc(1, sizeof *ingress);
    if (ingress == NULL) return NULL;
    ingress->kernel = kernel;
    ingress->references = 1;
    atomic_fetch_add(&kernel->users, 1);
    return ingress;
}

void lk_ingress_free(lk_ingress *ingress) {
    lk_kernel *kernel = ingress->kernel;
    int gone;
    lk_lock(kernel);
    gone = --ingress->references == 0;
    if (gone) unlink_held(ingress->pump, ingress);
    if (gone && ingress->has_news) {
        lk_ingress **at = &ingress->pump->news;
        while (*at != ingress) at = &(*at)->next;
        *at = ingress->next;
    }
    lk_unlock(kernel);
    if (!gone) return;
    free(ingress);
    lk_free(kernel);
}

lk_pump *lk_pump_new(lk_kernel *kernel, uintptr_t unprotect, uintptr_t unprotect_rtcp, double now) {
    lk_pump *pump = calloc(1, sizeof *pump);
    if (pump == NULL) return NULL;
    pump->kernel = kernel;
    kernel->taken = kernel->put_up; /* what another one had never will be */
    atomic_fetch_add(&kernel->users, 1);
    pump->unprotect = (protect_fn)unprotect;
    pump->unprotect_rtcp = (protect_fn)unprotect_rtcp;
    pump->patience = -1;
    pump->others_due = pump->losses_due = INFINITY;
    pump->clock_offset = now - monotonic();
    pump->cost = TURN / MESSAGES;
    pump->cost_again = TURN / FEWEST;
    pump->sleeping = 1;
    pump->told_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    pump->stop_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    pump->buffers = malloc((size_t)MESSAGES * BUFFER);
    pump->up = malloc(UP_ROOM);
    if (pump->told_fd < 0 || pump->stop_fd < 0 || pump->buffers == NULL || pump->up == NULL) {
        lk_pump_free(pump);
        return NULL;
    }
    prepare_messages(pump, MESSAGES);
    pump->polled[0] = (struct pollfd){.fd = pump->stop_fd, .events = POLLIN};
    return pump;
}

void lk_pump_free(lk_pump *pump) {
    lk_pump_stop(pump);
    for (; pump->news != NULL; pump->news = pump->news->next) pump->news->has_news = 0;
    while (pump->held_first != NULL) unlink_held(pump, pump->held_first);
    if (pump->told_fd >= 0) close(pump->told_fd);
    if (pump->stop_fd >= 0) close(pump->stop_fd);
    free(pump->buffers);
    free(pump->up);
    lk_free(pump->kernel);
    free(pump);
}

int lk_pump_fd(const lk_pump *pump) { return pump->told_fd; }

int lk_pump_add(lk_pump *pump, lk_socket *socket, int number) {
    if (pump->sockets == SOCKETS) return -1;
    pump->polled[pump->sockets + 1] = pump->polled[pump->sockets];
    pump->polled[pump->sockets] = (struct pollfd){.fd = socket->fd, .events = POLLIN};
    pump->number[pump->sockets] = (uint16_t)number;
    pump->socket[pump->sockets++] = socket;
    return 0;
}

/* Runs of one peer come in one piece. Where that cannot be had datagrams come one by one, that is all. */
static void merge_runs(const lk_pump *pump, int on) {
    for (int i = 0; i < pump->sockets; i++)
        (void)!setsockopt(pump->socket[i]->fd, IPPROTO_UDP, UDP_GRO, &on, sizeof on);
}

int lk_pump_start(lk_pump *pump) {
    sigset_t all, before;
    int failed;
    if (pump->running) return 0;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);    /* signals are Python's */
    failed = pthread_create(&pump->thread, NULL, pump_main, pump);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pump->running = !failed;
    if (pump->running) merge_runs(pump, 1);
    return failed;
}

void lk_pump_stop(lk_pump *pump) {
    uint64_t one = 1;
    if (!pump->running) return;
    while (write(pump->stop_fd, &one, sizeof one) < 0 && errno == EINTR) {}
    pthread_join(pump->thread, NULL);
    pump->running = 0;
    merge_runs(pump, 0);
}
