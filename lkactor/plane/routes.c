/* What the receiving half looks up: who speaks from an address, which streams a peer has, what they sent lately. */

typedef struct {
    uint8_t size;                   /* 0: free; KEY_GONE: was used */
    uint8_t key[22];
    uint32_t id;
    lk_ingress *ingress;
} lk_entry;

#define KEY_GONE 255

struct lk_routes {
    uint32_t capacity, used;        /* `used` counts what is gone, too */
    lk_entry *entries;
};

/* -- routes ------------------------------------------------------------------------------------------------------- */

/* What of a sockaddr tells peers apart; its size, 0 for another family. */
static uint8_t key_of(const uint8_t *address, uint32_t size, uint8_t *key) {
    uint16_t family = 0;
    if (size >= sizeof family) memcpy(&family, address, sizeof family);
    if (family == AF_INET && size >= sizeof(struct sockaddr_in)) {
        memcpy(key, address + 2, 6);                                /* port, address */
        return 6;
    }
    if (family == AF_INET6 && size >= sizeof(struct sockaddr_in6)) {
        memcpy(key, address + 2, 2);
        memcpy(key + 2, address + 8, 20);                           /* address, scope */
        return 22;
    }
    return 0;
}

static uint32_t hash_of(const uint8_t *key, uint8_t size) {
    uint32_t hash = 2166136261u;
    for (uint8_t i = 0; i < size; i++) hash = (hash ^ key[i]) * 16777619u;
    return hash ^ hash >> 15;
}

static lk_entry *find_entry(const struct lk_routes *routes, const uint8_t *key, uint8_t size) {
    if (routes == NULL || size == 0) return NULL;
    for (uint32_t at = hash_of(key, size);; at++) {
        lk_entry *entry = &routes->entries[at & (routes->capacity - 1)];
        if (entry->size == 0) return NULL;
        if (entry->size == size && memcmp(entry->key, key, size) == 0) return entry;
    }
}

static void put_entry(struct lk_routes *routes, const lk_entry *entry) {
    uint32_t at = hash_of(entry->key, entry->size);
    while (routes->entries[at & (routes->capacity - 1)].size) at++;
    routes->entries[at & (routes->capacity - 1)] = *entry;
    routes->used++;
}

static void free_routes(lk_socket *socket) {
    if (socket->routes == NULL) return;
    free(socket->routes->entries);
    free(socket->routes);
    socket->routes = NULL;
}

/* Room for one more: never more than half full, and what is gone goes. */
static int make_room(lk_socket *socket) {
    struct lk_routes *old = socket->routes, *grown;
    uint32_t live = 0, capacity = 64;
    if (old != NULL && 2 * (old->used + 1) <= old->capacity) return 0;
    for (uint32_t i = 0; old != NULL && i < old->capacity; i++) live += old->entries[i].size % KEY_GONE != 0;
    while (capacity < 4 * (live + 1)) capacity *= 2;
    grown = calloc(1, sizeof *grown);
    if (grown != NULL) grown->entries = calloc(capacity, sizeof(lk_entry));
    if (grown == NULL || grown->entries == NULL) {
        free(grown);
        return -1;
    }
    grown->capacity = capacity;
    for (uint32_t i = 0; old != NULL && i < old->capacity; i++)
        if (old->entries[i].size % KEY_GONE) put_entry(grown, &old->entries[i]);
    free_routes(socket);
    socket->routes = grown;
    return 0;
}

int lk_route(lk_kernel *kernel, lk_socket *socket, const uint8_t *address, uint32_t size, lk_ingress *ingress, uint32_t id) {
    lk_entry entry = {.id = id, .ingress = id ? ingress : NULL};
    lk_entry *known;
    lk_ingress *before = NULL;
    int done = 0;
    entry.size = key_of(address, size, entry.key);
    if (entry.size == 0) return -1;
    lk_lock(kernel);
    known = find_entry(socket->routes, entry.key, entry.size);
    if (known != NULL) {
        before = known->ingress;
        *known = entry;
    }
    if (known != NULL && id == 0) known->size = KEY_GONE;
    if (known == NULL && id != 0) {
        done = make_room(socket);
        if (done == 0) put_entry(socket->routes, &entry);
    }
    if (done == 0 && entry.ingress != NULL) entry.ingress->references++;
    lk_unlock(kernel);
    if (before != NULL) lk_ingress_free(before);
    return done;
}

void lk_forget_routes(lk_socket *socket) {
    for (uint32_t i = 0; socket->routes != NULL && i < socket->routes->capacity; i++) {
        lk_entry *entry = &socket->routes->entries[i];
        if (entry->size % KEY_GONE && entry->ingress != NULL) lk_ingress_free(entry->ingress);
    }
    free_routes(socket);
}

/* -- sources ------------------------------------------------------------------------------------------------------ */

int lk_attach(lk_kernel *kernel, lk_ingress *ingress, lk_source *source) {
    int done = -1;
    lk_detach(kernel, ingress, source);
    lk_lock(kernel);
    if (ingress->source_count < LK_SOURCES) {
        ingress->sources[ingress->source_count++] = source;
        source->waits = kernel->put_up;     /* what went up before may be of this stream, with any number */
        source->up = INT64_MAX;
        done = 0;
    }
    lk_unlock(kernel);
    return done;
}

void lk_detach(lk_kernel *kernel, lk_ingress *ingress, lk_source *source) {
    lk_lock(kernel);
    for (int i = 0; i < ingress->source_count; i++)
        if (ingress->sources[i] == source) ingress->sources[i--] = ingress->sources[--ingress->source_count];
    lk_unlock(kernel);
}

static int keep(lk_source *source, int64_t extended, const uint8_t *data, uint32_t size, double arrival) {
    lk_kept *kept = &source->kept[extended & (source->kept_count - 1)];
    kept->extended = -1;
    if (size == 0) return -1;
    if (kept->room < size) {
        uint8_t *grown = realloc(kept->data, size);
        if (grown == NULL) return -1;
        kept->data = grown;
        kept->room = size;
    }
    memcpy(kept->data, data, size);
    kept->size = size;
    kept->arrival = arrival;
    kept->extended = extended;
    return 0;
}

int lk_keep(lk_kernel *kernel, lk_source *source, int64_t extended, const uint8_t *data, uint32_t size, double arrival) {
    int done;
    lk_lock(kernel);
    done = keep(source, extended, data, size, arrival);
    lk_unlock(kernel);
    return done;
}

void lk_forget_kept(lk_source *source) {
    for (uint32_t i = 0; i < source->kept_count; i++) free(source->kept[i].data);
    source->kept_count = 0;
}
