/* Who may publish and subscribe where: every client below a topic of its own, such as `devices/CLIENT_ID/#`. */
#include <stdlib.h>

#include "weirmq_plugin.h"

/* Where the clients' topics begin, without a slash at the end: "devices". */
typedef struct own_topics {
    char prefix[128];
    size_t bytes;
} own_topics;

static void create(const weirmq_host *host, const weirmq_context *context, weirmq_text config, void **instance,
                   weirmq_reply *reply) {
    /* A JSON string: with its quotes, which are left out below. */
    weirmq_text prefix = host->config(context, weirmq_text_of("prefix"));
    own_topics *self;
    (void)config;
    if (prefix.data == NULL || prefix.bytes < 3 || prefix.data[0] != '"' ||
        prefix.bytes - 2 >= sizeof self->prefix || memchr(prefix.data, '\\', prefix.bytes) != NULL) {
        host->refuse(reply, weirmq_text_of("`prefix` must be a topic of 1 to 127 bytes, such as \"devices\""));
        return;
    }
    self = calloc(1, sizeof *self);
    if (self == NULL) {
        host->refuse(reply, weirmq_text_of("there is no memory left"));
        return;
    }
    self->bytes = prefix.bytes - 2;
    memcpy(self->prefix, prefix.data + 1, self->bytes);
    *instance = self;
}

static void destroy(void *instance) { free(instance); }

/* Takes `part` off the front of `text`; answers whether it was there. */
static int take(weirmq_text *text, const char *part, size_t bytes) {
    if (text->bytes < bytes || memcmp(text->data, part, bytes) != 0) {
        return 0;
    }
    text->data += bytes;
    text->bytes -= bytes;
    return 1;
}

static void authorize(void *instance, const weirmq_identity *who, const weirmq_action *what,
                      const weirmq_host *host, weirmq_reply *reply) {
    const own_topics *self = instance;
    weirmq_text rest = what->topic;
    size_t at;
    for (at = 0; at < who->client_id.bytes; at++) {
        /* A client called "+" would have everybody's topics. */
        if (strchr("+#/", who->client_id.data[at]) != NULL) {
            host->deny(reply, WEIRMQ_NOT_AUTHORIZED, weirmq_text_of("a client identifier must not have +, # or /"));
            return;
        }
    }
    if (take(&rest, self->prefix, self->bytes) && take(&rest, "/", 1) &&
        take(&rest, who->client_id.data, who->client_id.bytes) && (rest.bytes == 0 || rest.data[0] == '/')) {
        host->allow(reply);
    } else {
        host->deny(reply, WEIRMQ_NOT_AUTHORIZED, weirmq_text_of("the topic is not below the client's own"));
    }
}

WEIRMQ_EXPORT const weirmq_plugin weirmq_plugin_v1 = {
    WEIRMQ_PLUGIN_HEAD,
    .name = WEIRMQ_TEXT("own-topics"),
    .version = WEIRMQ_TEXT("1.0.0"),
    .create = create,
    .destroy = destroy,
    .authorize = authorize,
};
