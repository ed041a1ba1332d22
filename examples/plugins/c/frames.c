// Turns the binary frames of small sensors into JSON. A frame is 12 bytes, little-endian:
//
//   0  uint32  seconds since 1970-01-01
//   4  int16   temperature in hundredths of a degree Celsius
//   6  uint16  humidity in hundredths of a percent
//   8  uint16  battery in millivolts
//   10 uint16  CRC-16/CCITT-FALSE of the ten bytes before
//
// The topics that carry frames are named in the configuration.

#include "transform_plugin.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FRAME_BYTES = 12, TOPICS_MAX = 16, PAYLOAD_FORMAT_INVALID = 0x99 };

// The filters of `topics`, each a copy of its own.
static transform_plugin_string_t topics[TOPICS_MAX];
static size_t topic_count;

static transform_plugin_string_t text(const char *words) {
  transform_plugin_string_t copy;
  transform_plugin_string_dup(&copy, words);
  return copy;
}

static bool refuse(transform_plugin_string_t *error, const char *words) {
  *error = text(words);
  return false;
}

// Takes `["a/+", "b/#"]` apart. Escapes are not understood: a filter that needs one is refused.
static bool read_topics(const uint8_t *json, size_t length, transform_plugin_string_t *error) {
  size_t at = 0;
  bool open = false, in_text = false;
  size_t start = 0;
  for (; at < length; at++) {
    char letter = (char)json[at];
    if (in_text) {
      if (letter == '\\') return refuse(error, "topics: a backslash has no place in a topic filter");
      if (letter != '"') continue;
      in_text = false;
      if (at == start) return refuse(error, "topics: a topic filter must not be empty");
      if (topic_count == TOPICS_MAX) return refuse(error, "topics: at most 16 topic filters");
      transform_plugin_string_dup_n(&topics[topic_count++], (const char *)json + start, at - start);
    } else if (letter == '[' && !open) {
      open = true;
    } else if (letter == '"' && open) {
      in_text = true;
      start = at + 1;
    } else if (letter != ',' && letter != ']' && letter != ' ') {
      break;
    }
  }
  if (at < length || !open || topic_count == 0)
    return refuse(error, "topics: wanted a list of topic filters, such as [\"raw/+/frame\"]");
  return true;
}

void exports_weirmq_plugin_guest_info(exports_weirmq_plugin_guest_plugin_info_t *info) {
  info->name = text("example-c");
  info->version = text("0.1.0");
}

bool exports_weirmq_plugin_guest_init(transform_plugin_string_t *config, transform_plugin_string_t *error) {
  transform_plugin_string_free(config);
  transform_plugin_string_t key, value;
  transform_plugin_string_set(&key, "topics");
  if (!weirmq_plugin_config_get(&key, &value))
    return refuse(error, "topics: missing; name the topics that carry frames, such as [\"raw/+/frame\"]");
  bool fit = read_topics(value.ptr, value.len, error);
  transform_plugin_string_free(&value);
  return fit;
}

bool exports_weirmq_plugin_guest_health(transform_plugin_string_t *error) {
  (void)error;
  return true;
}

void exports_weirmq_plugin_on_publish_topics(transform_plugin_list_string_t *answer) {
  answer->len = topic_count;
  answer->ptr = calloc(topic_count, sizeof *answer->ptr);
  if (answer->ptr == NULL) abort();
  for (size_t index = 0; index < topic_count; index++)
    transform_plugin_string_dup_n(&answer->ptr[index], (const char *)topics[index].ptr, topics[index].len);
}

static uint16_t u16(const uint8_t *at) { return (uint16_t)(at[0] | at[1] << 8); }

static uint16_t crc16(const uint8_t *bytes, size_t length) {
  uint16_t crc = 0xffff;
  for (size_t index = 0; index < length; index++) {
    crc ^= (uint16_t)(bytes[index] << 8);
    for (int bit = 0; bit < 8; bit++) crc = (uint16_t)(crc & 0x8000 ? crc << 1 ^ 0x1021 : crc << 1);
  }
  return crc;
}

// Drops the message, with the reason for the log.
static void drop(exports_weirmq_plugin_on_publish_message_t *message,
                 exports_weirmq_plugin_on_publish_verdict_t *verdict, const char *reason) {
  verdict->tag = EXPORTS_WEIRMQ_PLUGIN_ON_PUBLISH_VERDICT_DROP;
  verdict->val.drop.reason_code = PAYLOAD_FORMAT_INVALID;
  verdict->val.drop.reason = text(reason);
  exports_weirmq_plugin_on_publish_message_free(message);
}

void exports_weirmq_plugin_on_publish_on_publish(exports_weirmq_plugin_on_publish_message_t *message,
                                                 exports_weirmq_plugin_on_publish_verdict_t *verdict) {
  const uint8_t *frame = message->payload.ptr;
  if (message->payload.len != FRAME_BYTES) {
    drop(message, verdict, "a frame has 12 bytes");
    return;
  }
  if (crc16(frame, FRAME_BYTES - 2) != u16(frame + 10)) {
    drop(message, verdict, "the checksum of the frame is wrong");
    return;
  }
  unsigned long at = (unsigned long)u16(frame) | (unsigned long)u16(frame + 2) << 16;
  int celsius = (int16_t)u16(frame + 4);
  char json[128];
  int length = snprintf(json, sizeof json,
                        "{\"at\":%lu,\"celsius\":%s%d.%02d,\"humidity\":%u.%02u,\"battery\":%u.%03u}", at,
                        celsius < 0 ? "-" : "", abs(celsius) / 100, abs(celsius) % 100, u16(frame + 6) / 100,
                        u16(frame + 6) % 100, u16(frame + 8) / 1000, u16(frame + 8) % 1000);

  // What the message has is handed on to the draft; only the payload and the properties are others. The broker
  // frees the draft through generated code once it has read it.
  exports_weirmq_plugin_on_publish_draft_t *draft = &verdict->val.replace;
  verdict->tag = EXPORTS_WEIRMQ_PLUGIN_ON_PUBLISH_VERDICT_REPLACE;
  draft->topic = message->topic;
  draft->qos = message->qos;
  draft->retain = message->retain;
  draft->expires_in_ms = message->expires_in_ms;
  draft->properties = message->properties;
  if (draft->properties.content_type.is_some) transform_plugin_string_free(&draft->properties.content_type.val);
  draft->properties.content_type.is_some = true;
  draft->properties.content_type.val = text("application/json");
  draft->properties.payload_is_utf8.is_some = true;
  draft->properties.payload_is_utf8.val = true;
  transform_plugin_string_t payload;
  transform_plugin_string_dup_n(&payload, json, (size_t)length);
  draft->payload.ptr = payload.ptr;
  draft->payload.len = payload.len;
  transform_plugin_list_u8_free(&message->payload);
  weirmq_plugin_types_publisher_free(&message->publisher);
}
