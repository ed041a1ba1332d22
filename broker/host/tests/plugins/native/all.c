/* A native plugin that does at every hook point what the test tells it by what it is given. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "weirmq_plugin.h"

#ifndef VERSION
#define VERSION "1.0.0"
#endif

typedef struct plugin {
    const weirmq_context *context;
    int timer_calls;
    char greeting[64];
} plugin;

static void create(const weirmq_host *host, const weirmq_context *context, weirmq_text config, void **instance,
                   weirmq_reply *reply) {
    weirmq_text greeting = host->config(context, weirmq_text_of("greeting"));
    plugin *self;
    (void)config;
    if (weirmq_text_is(greeting, "\"refuse\"")) {
        host->refuse(reply, weirmq_text_of("greeting must not be \"refuse\""));
        return;
    }
    self = calloc(1, sizeof *self);
    self->context = context;
    snprintf(self->greeting, sizeof self->greeting, "%.*s", (int)greeting.bytes,
             greeting.data == NULL ? "" : greeting.data);
    *instance = self;
}

static void destroy(void *instance) { free(instance); }

static void authenticate(void *instance, const weirmq_login *login, const weirmq_host *host, weirmq_reply *reply) {
    plugin *self = instance;
    weirmq_lease lease;
    weirmq_pair attribute = { WEIRMQ_TEXT("room"), WEIRMQ_TEXT("7") };
    weirmq_publish_right publish = { WEIRMQ_TEXT("a/#"), 1, 1 };
    weirmq_subscribe_right subscribe = { WEIRMQ_TEXT("b/#"), 2 };
    weirmq_text command = login->username;
    memset(&lease, 0, sizeof lease);
    lease.principal = weirmq_text_of(self->greeting);
    if (weirmq_text_is(command, "rights")) {
        lease.principal = login->client_id;
        lease.attributes = &attribute;
        lease.attributes_count = 1;
        lease.publish = &publish;
        lease.publish_count = 1;
        lease.subscribe = &subscribe;
        lease.subscribe_count = 1;
        lease.has_rights = 1;
        lease.has_expires_in = 1;
        lease.expires_in_seconds = 60;
        lease.subscriptions_max = 3;
    } else if (weirmq_text_is(command, "silent")) {
        return;
    } else if (weirmq_text_is(command, "twice")) {
        host->next(reply);
    } else if (weirmq_text_is(command, "other word")) {
        host->pass(reply);
        return;
    } else if (weirmq_text_is(command, "soft denial")) {
        host->deny(reply, 0x00, weirmq_text_of("fine"));
        return;
    } else if (weirmq_text_is(command, "denial")) {
        host->deny(reply, WEIRMQ_BAD_USER_NAME_OR_PASSWORD, weirmq_text_of("no"));
        return;
    } else if (weirmq_text_is(command, "proceed")) {
        host->proceed(reply, weirmq_bytes_of("more", 4));
        return;
    } else if (weirmq_text_is(command, "null lease")) {
        host->welcome(reply, NULL, weirmq_bytes_of(NULL, 0));
        return;
    } else if (weirmq_text_is(command, "no principal")) {
        lease.principal = weirmq_text_of(NULL);
    } else if (weirmq_text_is(command, "bad utf-8")) {
        lease.principal = weirmq_text_of("\xff\xfe");
    } else if (weirmq_text_is(command, "nul")) {
        lease.principal.data = "a\0b";
        lease.principal.bytes = 3;
    } else if (weirmq_text_is(command, "huge length")) {
        lease.principal.bytes = (size_t)1 << 40;
    } else if (weirmq_text_is(command, "huge list")) {
        lease.attributes = &attribute;
        lease.attributes_count = (size_t)1 << 40;
    } else if (weirmq_text_is(command, "null list")) {
        lease.attributes_count = 2;
    } else if (weirmq_text_is(command, "bad flag")) {
        lease.has_rights = 7;
    } else if (weirmq_text_is(command, "bad filter")) {
        publish.filter = weirmq_text_of("a/#/b");
        lease.publish = &publish;
        lease.publish_count = 1;
        lease.has_rights = 1;
    } else if (weirmq_text_is(command, "slow")) {
        uint64_t begun = host->monotonic_us();
        while (host->monotonic_us() - begun < 50000) {
        }
    }
    host->welcome(reply, &lease, weirmq_bytes_of(NULL, 0));
}

static void authorize(void *instance, const weirmq_identity *who, const weirmq_action *what, const weirmq_host *host,
                      weirmq_reply *reply) {
    (void)instance;
    (void)who;
    if (weirmq_text_is(what->topic, "next")) {
        host->next(reply);
    } else if (weirmq_text_is(what->topic, "a/b") && what->kind == WEIRMQ_PUBLISH) {
        host->allow(reply);
    } else {
        host->deny(reply, WEIRMQ_NOT_AUTHORIZED, weirmq_text_of("not here"));
    }
}

static void publish_topics(void *instance, const weirmq_host *host, weirmq_reply *reply) {
    (void)instance;
    host->want(reply, weirmq_text_of("a/#"));
    host->want(reply, weirmq_text_of("c/+"));
}

static void on_publish(void *instance, const weirmq_message *message, const weirmq_host *host, weirmq_reply *reply) {
    weirmq_draft draft = weirmq_draft_of(message);
    weirmq_text payload = { (const char *)message->payload.data, message->payload.bytes };
    (void)instance;
    if (weirmq_text_is(payload, "pass")) {
        host->pass(reply);
    } else if (weirmq_text_is(payload, "drop")) {
        host->deny(reply, WEIRMQ_PAYLOAD_FORMAT_INVALID, weirmq_text_of("not wanted"));
    } else if (weirmq_text_is(payload, "several")) {
        host->emit(reply, &draft);
        draft.topic = weirmq_text_of("a/other");
        host->emit(reply, &draft);
    } else if (weirmq_text_is(payload, "wildcard")) {
        draft.topic = weirmq_text_of("a/#");
        host->emit(reply, &draft);
    } else if (weirmq_text_is(payload, "bad qos")) {
        draft.qos = 3;
        host->emit(reply, &draft);
    } else if (weirmq_text_is(payload, "null draft")) {
        host->emit(reply, NULL);
    } else {
        draft.payload = weirmq_bytes_of("seen", 4);
        host->emit(reply, &draft);
    }
}

static void on_deliver(void *instance, const weirmq_message *message, const weirmq_identity *receiver,
                       const weirmq_host *host, weirmq_reply *reply) {
    weirmq_draft draft = weirmq_draft_of(message);
    (void)instance;
    draft.payload = weirmq_bytes_of(receiver->client_id.data, receiver->client_id.bytes);
    host->emit(reply, &draft);
}

static void on_subscribe(void *instance, const weirmq_identity *who, weirmq_text filter, uint8_t qos,
                         const weirmq_host *host, weirmq_reply *reply) {
    (void)instance;
    (void)who;
    (void)qos;
    if (weirmq_text_is(filter, "rewrite")) {
        host->rewrite(reply, weirmq_text_of("other/#"));
    } else if (weirmq_text_is(filter, "bad")) {
        host->rewrite(reply, weirmq_text_of("#/other"));
    } else {
        host->pass(reply);
    }
}

static void on_unsubscribe(void *instance, const weirmq_identity *who, weirmq_text filter, const weirmq_host *host,
                           weirmq_reply *reply) {
    on_subscribe(instance, who, filter, 0, host, reply);
}

static void before_store(void *instance, const weirmq_message *message, const weirmq_host *host,
                         weirmq_reply *reply) {
    uint8_t turned[64];
    size_t at;
    (void)instance;
    for (at = 0; at < message->payload.bytes && at < sizeof turned; at++) {
        turned[at] = message->payload.data[at] ^ 0xff;
    }
    host->replace(reply, weirmq_bytes_of(turned, at));
}

static void on_event(void *instance, const weirmq_event *event, const weirmq_host *host) {
    plugin *self = instance;
    host->log(self->context, WEIRMQ_INFO, event->client_id);
}

static void on_timer(void *instance, uint64_t now_unix_ms, const weirmq_host *host) {
    plugin *self = instance;
    (void)now_unix_ms;
    (void)host;
    self->timer_calls++;
}

WEIRMQ_EXPORT const weirmq_plugin weirmq_plugin_v1 = {
    WEIRMQ_PLUGIN_HEAD,
    .name = WEIRMQ_TEXT("all"),
    .version = WEIRMQ_TEXT(VERSION),
    .events = WEIRMQ_EVENT(WEIRMQ_CONNECTED) | WEIRMQ_EVENT(WEIRMQ_SESSION_ENDED),
    .create = create,
    .destroy = destroy,
    .authenticate = authenticate,
    .authorize = authorize,
    .publish_topics = publish_topics,
    .on_publish = on_publish,
    .on_deliver = on_deliver,
    .on_subscribe = on_subscribe,
    .on_unsubscribe = on_unsubscribe,
    .before_store = before_store,
    .after_load = before_store,
    .on_event = on_event,
    .on_timer = on_timer,
};
