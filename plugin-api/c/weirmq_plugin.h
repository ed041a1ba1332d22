/* The interface of native WeirMQ plugins, version 1.1. C99, and nothing but three standard headers.
 *
 * A native plugin is a shared library that exports one table, `weirmq_plugin_v1`. It is trusted like the
 * broker itself: it runs in the broker's process, nothing stops it, and when it crashes the broker crashes.
 * Load only what you would link in. Where that is not so, write a WebAssembly plugin (../README.md).
 *
 *   #include "weirmq_plugin.h"
 *
 *   static void authorize(void *instance, const weirmq_identity *who, const weirmq_action *what,
 *                         const weirmq_host *host, weirmq_reply *reply) {
 *       host->allow(reply);
 *   }
 *
 *   WEIRMQ_EXPORT const weirmq_plugin weirmq_plugin_v1 = {
 *       WEIRMQ_PLUGIN_HEAD, .name = WEIRMQ_TEXT("open"), .version = WEIRMQ_TEXT("1.0.0"),
 *       .authorize = authorize,
 *   };
 *
 *   cc -std=c99 -shared -fPIC -O2 -o open.so open.c
 *
 * Who owns what. Nothing is ever freed by the other side.
 *   - What a hook is given belongs to the broker and is there until the hook returns. Copy what is needed longer.
 *   - What a hook answers is copied by the broker while `host->...` runs. It may lie on the stack.
 *   - `instance` belongs to the plugin, from `create` to `destroy`.
 *
 * Threads. The broker makes several instances of a plugin and uses each for one call at a time, on whatever
 * thread it likes. Global variables are shared by all of them: guard them. With `instances_max = 1` in the
 * configuration there is one instance, and one call at a time.
 *
 * Answers. A hook answers by calling one of the functions of `host` that its comment names, with the `reply` that
 * it was given, on the thread that called it, before it returns. One that returns without an answer, answers
 * twice, or gives an answer that MQTT does not allow has failed: the answer is not used, the failure policy of the
 * plugin applies, and the failure is counted and logged. So is one that takes longer than its deadline: the
 * broker cannot cut it off, but it does not take its answer either.
 *
 * Versions. The number after `v` in the table's name is the major version; a broker of another major version does
 * not load the plugin. Within a major version no structure changes but `weirmq_plugin` and `weirmq_host`, which
 * grow at their ends, and a newer broker loads an older plugin. What has come since 1.0 says so:
 *   1.1  the hook point store-backend: weirmq_change, `value`, `entry`, `full`, `backend_...`
 */
#ifndef WEIRMQ_PLUGIN_H
#define WEIRMQ_PLUGIN_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifdef __cplusplus
extern "C" {
#endif

#define WEIRMQ_ABI_MAJOR 1
#define WEIRMQ_ABI_MINOR 1
#define WEIRMQ_ABI (((uint32_t)WEIRMQ_ABI_MAJOR << 16) | (uint32_t)WEIRMQ_ABI_MINOR)

#if defined(__GNUC__)
#define WEIRMQ_EXPORT __attribute__((visibility("default")))
#else
#define WEIRMQ_EXPORT
#endif

/* ---- Values --------------------------------------------------------------------------------------------- */

/* UTF-8 text without U+0000 inside, and without one at its end. Absent where `data` is NULL; empty text that is
 * there has a `data` that is not NULL. */
typedef struct weirmq_text {
    const char *data;
    size_t bytes;
} weirmq_text;

/* Any bytes. Absent where `data` is NULL. */
typedef struct weirmq_bytes {
    const uint8_t *data;
    size_t bytes;
} weirmq_bytes;

/* A literal as the initial value of a weirmq_text. */
#define WEIRMQ_TEXT(literal) { literal, sizeof(literal) - 1 }

/* A C string as text; NULL is absent. */
static inline weirmq_text weirmq_text_of(const char *text) {
    weirmq_text view;
    view.data = text;
    view.bytes = text == NULL ? 0 : strlen(text);
    return view;
}

/* Bytes as they lie in memory. */
static inline weirmq_bytes weirmq_bytes_of(const void *data, size_t bytes) {
    weirmq_bytes view;
    view.data = (const uint8_t *)data;
    view.bytes = bytes;
    return view;
}

/* Whether `text` is there and says `literal`. */
static inline int weirmq_text_is(weirmq_text text, const char *literal) {
    return text.data != NULL && text.bytes == strlen(literal) && memcmp(text.data, literal, text.bytes) == 0;
}

/* A name and a value. Names may repeat, and order is kept. */
typedef struct weirmq_pair {
    weirmq_text name;
    weirmq_text value;
} weirmq_pair;

/* Fields called `qos` and `qos_max` hold 0, 1 or 2. Fields called `retain` or `has_...` hold 0 or 1. A structure
 * whose bytes are all 0 says that everything optional is absent. */

enum { WEIRMQ_V3_1_1 = 4, WEIRMQ_V5_0 = 5 };

enum {
    WEIRMQ_NOT_AUTHORIZED = 0x87,
    WEIRMQ_BAD_USER_NAME_OR_PASSWORD = 0x86,
    WEIRMQ_IMPLEMENTATION_ERROR = 0x83,
    WEIRMQ_QUOTA_EXCEEDED = 0x97,
    WEIRMQ_PAYLOAD_FORMAT_INVALID = 0x99
};

/* Payload Format Indicator of MQTT 5: absent, any bytes, UTF-8 text. */
enum { WEIRMQ_FORMAT_ABSENT = 0, WEIRMQ_FORMAT_BYTES = 1, WEIRMQ_FORMAT_UTF8 = 2 };

/* The properties of MQTT 5 that travel with a message. */
typedef struct weirmq_properties {
    weirmq_text content_type;
    weirmq_text response_topic;
    weirmq_bytes correlation_data;   /* at most 65,535 bytes */
    const weirmq_pair *user;         /* User Properties, in order */
    size_t user_count;
    uint8_t payload_format;          /* WEIRMQ_FORMAT_... */
} weirmq_properties;

enum { WEIRMQ_BY_CLIENT = 0, WEIRMQ_BY_RULE = 1, WEIRMQ_BY_PLUGIN = 2, WEIRMQ_BY_BROKER = 3 };

/* A message as the broker accepted it, or as the transform before this one made it. */
typedef struct weirmq_message {
    weirmq_text topic;
    weirmq_bytes payload;
    weirmq_properties properties;
    weirmq_text publisher;           /* client identifier, or name of the rule or plugin; absent for the broker */
    weirmq_text principal;           /* who the client logged in as; absent for others */
    uint64_t received_unix_ms;       /* milliseconds since 1970-01-01T00:00:00Z */
    uint64_t expires_in_ms;          /* how long it stays deliverable, where has_expires_in is 1 */
    uint8_t has_expires_in;
    uint8_t publisher_kind;          /* WEIRMQ_BY_... */
    uint8_t qos;
    uint8_t retain;
    uint8_t hops;                    /* how many rules stand between it and the client that caused it */
} weirmq_message;

/* The parts of a message that a plugin may choose. weirmq_draft_of copies those of a message. */
typedef struct weirmq_draft {
    weirmq_text topic;               /* another than the message had: the publisher's rights are checked again */
    weirmq_bytes payload;            /* absent is empty */
    weirmq_properties properties;
    uint64_t expires_in_ms;          /* where has_expires_in is 1; otherwise as the message that it replaces */
    uint8_t has_expires_in;
    uint8_t qos;
    uint8_t retain;
} weirmq_draft;

static inline weirmq_draft weirmq_draft_of(const weirmq_message *message) {
    weirmq_draft draft;
    memset(&draft, 0, sizeof draft);
    draft.topic = message->topic;
    draft.payload = message->payload;
    draft.properties = message->properties;
    draft.qos = message->qos;
    draft.retain = message->retain;
    return draft;
}

/* A client that was let in. */
typedef struct weirmq_identity {
    weirmq_text client_id;
    weirmq_text username;            /* absent when it sent none */
    weirmq_text peer;                /* "address:port"; absent when the transport has no address */
    weirmq_text listener;            /* the name of the listener that it came through */
    weirmq_text principal;           /* who it logged in as */
    const weirmq_pair *attributes;   /* what else its login said about it */
    size_t attributes_count;
} weirmq_identity;

/* One step of MQTT 5 enhanced authentication. */
typedef struct weirmq_exchange {
    uint64_t id;                     /* the same for all steps; they may reach different instances */
    weirmq_text method;
    weirmq_bytes data;
    uint32_t step;                   /* 0 for what came with CONNECT or opens a re-authentication */
    uint8_t renewal;                 /* 1: it is connected already and renews its authentication */
} weirmq_exchange;

/* What a client shows of itself when it connects. */
typedef struct weirmq_login {
    weirmq_text client_id;
    weirmq_text username;
    weirmq_bytes password;
    weirmq_text peer;
    weirmq_text listener;
    const weirmq_pair *user_properties;
    size_t user_properties_count;
    const weirmq_exchange *exchange; /* NULL unless it asks for enhanced authentication */
    uint8_t version;                 /* WEIRMQ_V3_1_1 or WEIRMQ_V5_0 */
    uint8_t clean_start;
} weirmq_login;

/* The right to publish to the topics that a filter matches. */
typedef struct weirmq_publish_right {
    weirmq_text filter;
    uint8_t qos_max;
    uint8_t retain;                  /* 1: messages may be retained */
} weirmq_publish_right;

/* The right to subscribe to what a filter covers. */
typedef struct weirmq_subscribe_right {
    weirmq_text filter;
    uint8_t qos_max;
} weirmq_subscribe_right;

/* The terms on which a client is let in. */
typedef struct weirmq_lease {
    weirmq_text principal;           /* at least one character */
    const weirmq_pair *attributes;
    size_t attributes_count;
    const weirmq_publish_right *publish;     /* read where has_rights is 1 */
    size_t publish_count;
    const weirmq_subscribe_right *subscribe; /* read where has_rights is 1 */
    size_t subscribe_count;
    uint32_t expires_in_seconds;     /* where has_expires_in is 1; otherwise as long as the connection */
    uint32_t publish_rate_max;       /* messages per second that it may publish; 0 is no bound */
    uint32_t subscriptions_max;      /* subscriptions that it may have at a time; 0 is no bound */
    uint8_t has_expires_in;
    uint8_t has_rights;              /* 1: the rights above are the whole answer; 0: authorize is asked */
} weirmq_lease;

enum { WEIRMQ_PUBLISH = 0, WEIRMQ_SUBSCRIBE = 1 };

/* What a client wants to do. */
typedef struct weirmq_action {
    weirmq_text topic;               /* the topic name, or the filter without its share name */
    weirmq_text share;               /* the share name of `$share/{name}/{filter}` */
    uint8_t kind;                    /* WEIRMQ_PUBLISH or WEIRMQ_SUBSCRIBE */
    uint8_t qos;
    uint8_t retain;                  /* of a message */
} weirmq_action;

enum {
    WEIRMQ_CONNECTED = 0,
    WEIRMQ_DISCONNECTED = 1,
    WEIRMQ_SESSION_ENDED = 2,
    WEIRMQ_MESSAGE_DROPPED = 3,
    WEIRMQ_MESSAGE_DELIVERED = 4,
    WEIRMQ_MESSAGE_ACKED = 5
};

/* A kind of event as a bit of weirmq_plugin.events. */
#define WEIRMQ_EVENT(kind) (UINT32_C(1) << (kind))

/* What happened. */
typedef struct weirmq_event {
    const weirmq_identity *identity; /* connected, disconnected; otherwise NULL */
    weirmq_text client_id;           /* whose; absent for a message that was dropped for everybody */
    weirmq_text topic;               /* of a message */
    weirmq_text reason;              /* disconnected, dropped: why */
    uint64_t at_unix_ms;
    uint8_t kind;                    /* WEIRMQ_CONNECTED, ... */
    uint8_t version;                 /* connected: WEIRMQ_V3_1_1 or WEIRMQ_V5_0 */
} weirmq_event;

/* Since 1.1. A change of one key of a store. */
typedef struct weirmq_change {
    weirmq_bytes key;
    weirmq_bytes value;              /* its new value; absent: the key is removed */
} weirmq_change;

/* ---- What the broker offers ----------------------------------------------------------------------------- */

/* What the broker knows of one plugin. There until the last `destroy` has returned. */
typedef struct weirmq_context weirmq_context;

/* Where one call's answer goes. There until the hook returns. */
typedef struct weirmq_reply weirmq_reply;

enum { WEIRMQ_ERROR = 0, WEIRMQ_WARN = 1, WEIRMQ_INFO = 2, WEIRMQ_DEBUG = 3, WEIRMQ_TRACE = 4 };

typedef struct weirmq_host {
    uint32_t abi;                    /* the broker's WEIRMQ_ABI */
    uint32_t bytes;                  /* the size of the broker's weirmq_host */

    /* These may be called on any thread, from `create` until `destroy` returns. */

    /* Writes to the broker's log under the plugin's name. Text beyond 4,096 bytes is cut. */
    void (*log)(const weirmq_context *context, uint8_t level, weirmq_text text);
    /* The value of a key of the plugin's `[plugin.config]` as JSON text; absent where it is not set. */
    weirmq_text (*config)(const weirmq_context *context, weirmq_text key);
    /* Milliseconds since 1970-01-01T00:00:00Z, as the machine's calendar has it. May jump. */
    uint64_t (*now_unix_ms)(void);
    /* Microseconds since some moment. Never goes back. */
    uint64_t (*monotonic_us)(void);

    /* These answer a call. */

    /* Yes; nobody further down the chain is asked. */
    void (*allow)(weirmq_reply *reply);
    /* Let the client in on these terms; `data` is Authentication Data for the end of an exchange. */
    void (*welcome)(weirmq_reply *reply, const weirmq_lease *lease, weirmq_bytes data);
    /* No. `code` is an MQTT 5 reason code of 0x80 or above for the client, `reason` a text for the log. */
    void (*deny)(weirmq_reply *reply, uint8_t code, weirmq_text reason);
    /* Not mine to decide: ask the next. */
    void (*next)(weirmq_reply *reply);
    /* One more step of enhanced authentication, with this Authentication Data for the client. */
    void (*proceed)(weirmq_reply *reply, weirmq_bytes data);
    /* As it is. */
    void (*pass)(weirmq_reply *reply);
    /* This message in its place. May be called several times: these messages in its place, in this order. */
    void (*emit)(weirmq_reply *reply, const weirmq_draft *draft);
    /* This filter in its place. The client needs the right to it. */
    void (*rewrite)(weirmq_reply *reply, weirmq_text filter);
    /* This payload in its place. */
    void (*replace)(weirmq_reply *reply, weirmq_bytes payload);
    /* Do not make it durable: who is connected gets it, and nobody later. */
    void (*skip)(weirmq_reply *reply);
    /* `create`, `health` and `backend_open`: not fit to serve, for this reason, which the operator is shown.
     * `after_load`: what was stored cannot be read, which counts as a failure. `backend_...`: it could not be done. */
    void (*refuse)(weirmq_reply *reply, weirmq_text reason);
    /* `publish_topics` and its like: a filter whose messages the plugin wants to see. May be called
     * several times. */
    void (*want)(weirmq_reply *reply, weirmq_text filter);

    /* Since 1.1: answers of a store backend. */

    /* `backend_get`: what stands under the key; absent where nothing does. */
    void (*value)(weirmq_reply *reply, weirmq_bytes value);
    /* `backend_scan`: a key and its value. Called for one after the other, as long as it returns 1; 0 is enough for
     * this call. */
    uint8_t (*entry)(weirmq_reply *reply, weirmq_bytes key, weirmq_bytes value);
    /* `backend_write`: refused because a disk or a quota is full, for this reason. */
    void (*full)(weirmq_reply *reply, weirmq_text reason);
} weirmq_host;

/* ---- What a plugin offers ------------------------------------------------------------------------------- */

/* A hook that is NULL is not served, and costs nothing. */
typedef struct weirmq_plugin {
    uint32_t abi;                    /* WEIRMQ_ABI */
    uint32_t bytes;                  /* sizeof(weirmq_plugin) */
    weirmq_text name;                /* its own name */
    weirmq_text version;             /* its own version */
    uint32_t events;                 /* what on_event is told of: WEIRMQ_EVENT(...) | ...; those about single messages
                                      * cost a little for every message */
    uint32_t timer_interval_ms;      /* how long lies between two calls of on_timer; less than 1,000 is 1,000 */

    /* Makes an instance and puts it into `*instance`, which is NULL before. `config` is the plugin's table of the
     * configuration as the text of a JSON object. `host` and `context` stay where they are until `destroy`.
     * To refuse, call host->refuse, which names the key that is wrong; then `destroy` is not called.
     * Where `create` is NULL, `instance` is NULL in every call. */
    void (*create)(const weirmq_host *host, const weirmq_context *context, weirmq_text config,
                   void **instance, weirmq_reply *reply);
    /* Ends an instance: its threads have ended and its memory is given back when this returns. */
    void (*destroy)(void *instance);
    /* After the first `create`, before the plugin is taken into service: host->refuse keeps it from that. */
    void (*health)(void *instance, const weirmq_host *host, weirmq_reply *reply);

    /* Who is this? Answers: welcome, deny, proceed (where there is an exchange), next. May take its time: only the
     * connection that asks waits. */
    void (*authenticate)(void *instance, const weirmq_login *login, const weirmq_host *host,
                         weirmq_reply *reply);
    /* May they? An allow or a deny may be remembered for as long as the lease holds. Answers: allow, deny, next.
     * This and the hooks below run on the thread that moves messages: they must not wait. */
    void (*authorize)(void *instance, const weirmq_identity *who, const weirmq_action *what,
                      const weirmq_host *host, weirmq_reply *reply);
    /* Which messages on_publish is to see; asked once, after `create`. Answers: want. Where it is NULL: all except
     * those of topics that begin with '$'. */
    void (*publish_topics)(void *instance, const weirmq_host *host, weirmq_reply *reply);
    /* What is to become of this message? Answers: pass, emit, deny. */
    void (*on_publish)(void *instance, const weirmq_message *message, const weirmq_host *host,
                       weirmq_reply *reply);
    /* Which messages on_deliver is to see: as for publish_topics. */
    void (*deliver_topics)(void *instance, const weirmq_host *host, weirmq_reply *reply);
    /* What is this receiver to get? Answers: pass, emit (once; payload and properties are taken), deny. */
    void (*on_deliver)(void *instance, const weirmq_message *message, const weirmq_identity *receiver,
                       const weirmq_host *host, weirmq_reply *reply);
    /* One filter of a SUBSCRIBE, as the client sent it. Answers: pass, rewrite, deny. */
    void (*on_subscribe)(void *instance, const weirmq_identity *who, weirmq_text filter, uint8_t qos,
                         const weirmq_host *host, weirmq_reply *reply);
    /* One filter of an UNSUBSCRIBE. Answers: pass, rewrite, deny. */
    void (*on_unsubscribe)(void *instance, const weirmq_identity *who, weirmq_text filter,
                           const weirmq_host *host, weirmq_reply *reply);
    /* Which messages before_store and after_load are to see: as for publish_topics. */
    void (*store_topics)(void *instance, const weirmq_host *host, weirmq_reply *reply);
    /* Something is about to be made durable. Answers: pass, replace, skip. */
    void (*before_store)(void *instance, const weirmq_message *message, const weirmq_host *host,
                         weirmq_reply *reply);
    /* It was read back, with the payload that before_store of the plugin of this name put in its place: give back the
     * one before. Served together with it. Answers: pass, replace, refuse. */
    void (*after_load)(void *instance, const weirmq_message *message, const weirmq_host *host,
                       weirmq_reply *reply);
    /* Something happened. No answer. */
    void (*on_event)(void *instance, const weirmq_event *event, const weirmq_host *host);
    /* Again and again, beside the threads that move messages. No answer. */
    void (*on_timer)(void *instance, uint64_t now_unix_ms, const weirmq_host *host);

    /* Since 1.1: store-backend. The plugin keeps all that must outlive the broker: sessions, queues, retained messages,
     * sink records, what plugins and rules remember. Served where all four functions are there, and used where the
     * configuration says `[store] backend = "NAME"`.
     *
     * It is an ordered map from keys to values, both any bytes. Keys are compared byte by byte, and a shorter one
     * comes before a longer one that begins with it. A value may be empty, which is not the same as absent. Keys have
     * up to about 130 KiB, values a little more than the largest message (`packet_bytes_max`).
     *
     * The broker makes one instance for it and uses it on one thread, from `create` to `destroy`. It reads everything
     * once when it starts, holds it in memory and from then on only writes. These functions may take their time, up to
     * `deadline_ms.store-backend` of the configuration. Where one of them fails or is late, the broker acknowledges
     * nothing more that it would have to keep, says so, and goes on with what needs no keeping until it is started
     * again: there is no second try. */

    /* Opens the store: after `create` and `health`, before anything else. `create` must not: it is called also to look at
     * the plugin while another process uses the store. One process at a time: where another has it open, refuse.
     * `destroy` closes it. Answers: pass, refuse. */
    void (*backend_open)(void *instance, const weirmq_host *host, weirmq_reply *reply);
    /* What stands under a key. Answers: value, refuse. */
    void (*backend_get)(void *instance, weirmq_bytes key, const weirmq_host *host, weirmq_reply *reply);
    /* Makes these changes, all or none, also where the process or the machine stops in the middle. No key is in it twice.
     * Passing promises that they are durable: clients are sent acknowledgements because of it, so do not pass what a
     * crash can take back. After a refusal they may have been made or not, but wholly. Answers: pass, full, refuse. */
    void (*backend_write)(void *instance, const weirmq_change *changes, size_t count, const weirmq_host *host,
                          weirmq_reply *reply);
    /* The keys that are not less than `from`, in order, with their values: at most `entries_max`, and at least one where
     * there is one. Nothing where there is none. Answers: entry, refuse. */
    void (*backend_scan)(void *instance, weirmq_bytes from, size_t entries_max, const weirmq_host *host,
                         weirmq_reply *reply);
} weirmq_plugin;

/* The first two members of a weirmq_plugin. */
#define WEIRMQ_PLUGIN_HEAD .abi = WEIRMQ_ABI, .bytes = sizeof(weirmq_plugin)

/* The table that every plugin defines. */
extern WEIRMQ_EXPORT const weirmq_plugin weirmq_plugin_v1;

#ifdef __cplusplus
}
#endif

#endif
