/* A store backend in memory, for one process and its lifetime, that fails where the test tells it to. */
#include <stdlib.h>
#include <unistd.h>

#include "weirmq_plugin.h"

#ifndef VERSION
#define VERSION "1.0.0"
#endif

#define ENTRIES_MAX 10000

typedef struct entry {
    uint8_t *key, *value;
    size_t key_bytes, value_bytes;
} entry;

/* What outlives the instances, as a file would. */
static entry entries[ENTRIES_MAX];
static size_t entries_count;
static int is_open;

typedef struct plugin {
    char fault[32];
    int opened;
} plugin;

static int is(const plugin *self, const char *fault) { return strcmp(self->fault, fault) == 0; }

static void create(const weirmq_host *host, const weirmq_context *context, weirmq_text config, void **instance,
                   weirmq_reply *reply) {
    weirmq_text fault = host->config(context, weirmq_text_of("fault"));
    plugin *self = calloc(1, sizeof *self);
    (void)config;
    (void)reply;
    /* Without the quotes of JSON. */
    if (fault.data != NULL && fault.bytes > 2 && fault.bytes - 2 < sizeof self->fault) {
        memcpy(self->fault, fault.data + 1, fault.bytes - 2);
    }
    *instance = self;
}

static void destroy(void *instance) {
    plugin *self = instance;
    if (self->opened) {
        is_open = 0;
    }
    free(self);
}

static void backend_open(void *instance, const weirmq_host *host, weirmq_reply *reply) {
    plugin *self = instance;
    if (is(self, "refuses")) {
        host->refuse(reply, weirmq_text_of("the drive is not mounted"));
    } else if (is(self, "is silent")) {
        return;
    } else if (is(self, "opens slowly")) {
        sleep(60);
    } else if (is_open) {
        host->refuse(reply, weirmq_text_of("it is in use"));
    } else {
        self->opened = is_open = 1;
        host->pass(reply);
    }
}

static int compare(weirmq_bytes key, const entry *other) {
    size_t common = key.bytes < other->key_bytes ? key.bytes : other->key_bytes;
    int order = memcmp(key.data, other->key, common);
    return order != 0 ? order : (key.bytes > other->key_bytes) - (key.bytes < other->key_bytes);
}

/* The first entry whose key is not less than `key`. */
static size_t lower_bound(weirmq_bytes key) {
    size_t low = 0, high = entries_count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (compare(key, &entries[middle]) > 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

static uint8_t *copy(weirmq_bytes bytes) {
    uint8_t *own = malloc(bytes.bytes + 1);
    if (bytes.bytes > 0) {
        memcpy(own, bytes.data, bytes.bytes);
    }
    return own;
}

static void backend_get(void *instance, weirmq_bytes key, const weirmq_host *host, weirmq_reply *reply) {
    size_t at = lower_bound(key);
    (void)instance;
    if (at < entries_count && compare(key, &entries[at]) == 0) {
        host->value(reply, weirmq_bytes_of(entries[at].value, entries[at].value_bytes));
    } else {
        host->value(reply, weirmq_bytes_of(NULL, 0));
    }
}

static void change(const weirmq_change *change) {
    size_t at = lower_bound(change->key);
    int there = at < entries_count && compare(change->key, &entries[at]) == 0;
    size_t behind = (entries_count - at - (size_t)there) * sizeof(entry);
    if (there) {
        free(entries[at].key);
        free(entries[at].value);
    }
    if (change->value.data == NULL) {
        if (there) {
            memmove(&entries[at], &entries[at + 1], behind);
            entries_count--;
        }
        return;
    }
    if (!there) {
        memmove(&entries[at + 1], &entries[at], behind);
        entries_count++;
    }
    entries[at].key = copy(change->key);
    entries[at].key_bytes = change->key.bytes;
    entries[at].value = copy(change->value);
    entries[at].value_bytes = change->value.bytes;
}

static void backend_write(void *instance, const weirmq_change *changes, size_t count, const weirmq_host *host,
                          weirmq_reply *reply) {
    plugin *self = instance;
    size_t i;
    if (is(self, "is full") || count > ENTRIES_MAX - entries_count) {
        host->full(reply, weirmq_text_of("no room"));
        return;
    } else if (is(self, "cannot write")) {
        host->refuse(reply, weirmq_text_of("the drive is gone"));
        return;
    } else if (is(self, "forgets to answer")) {
        return;
    } else if (is(self, "answers otherwise")) {
        host->next(reply);
        return;
    } else if (is(self, "hangs")) {
        sleep(60);
    }
    for (i = 0; i < count; i++) {
        change(&changes[i]);
    }
    host->pass(reply);
}

static void backend_scan(void *instance, weirmq_bytes from, size_t entries_max, const weirmq_host *host,
                         weirmq_reply *reply) {
    plugin *self = instance;
    size_t at = lower_bound(from), given = 0;
    while (at < entries_count && given < entries_max) {
        const entry *found = &entries[at];
        uint8_t more = host->entry(reply, weirmq_bytes_of(found->key, found->key_bytes),
                                   weirmq_bytes_of(found->value, found->value_bytes));
        if (is(self, "breaks off")) {
            host->refuse(reply, weirmq_text_of("the rest is unreadable"));
            return;
        }
        if (!more && !is(self, "does not stop")) {
            return;
        }
        at++;
        given += !is(self, "does not stop");
    }
}

WEIRMQ_EXPORT const weirmq_plugin weirmq_plugin_v1 = {
    WEIRMQ_PLUGIN_HEAD,
    .name = WEIRMQ_TEXT("memory-store"),
    .version = WEIRMQ_TEXT(VERSION),
    .create = create,
    .destroy = destroy,
    .backend_open = backend_open,
    .backend_get = backend_get,
    .backend_write = backend_write,
    .backend_scan = backend_scan,
};
