//! Every limit of the broker in one place, with its default.
//!
//! What happens at a limit stands with the limit. It is counted: messages that are dropped in
//! [`crate::counters::Drops`], under the name given here; everything else in [`crate::counters::LimitHits`].

/// What is refused when an offline queue is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum QueueFull {
    /// The message that does not fit; what waits stays.
    #[default]
    RefuseNewest,
    /// The oldest that waits makes way.
    DropOldest,
}

/// The limits of a broker. Sizes are in bytes, times in the unit that ends the name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Largest packet of a client that is not let in yet: past it the connection closes (0x95).
    pub connect_packet_bytes_max: u32,
    /// Largest packet of a client that is let in; told in CONNACK, past it the connection closes (0x95).
    pub packet_bytes_max: u32,
    /// Longest topic name or filter: a PUBLISH is refused with 0x90, a filter with 0x8F.
    pub topic_bytes_max: usize,
    /// Most levels of a topic name or filter: as for its length.
    pub topic_levels_max: usize,
    /// Most User Properties of one packet: past it the connection closes (0x97).
    pub user_properties_max: usize,
    /// Most subscriptions of one session: a filter past it is refused with 0x97.
    pub subscriptions_max: usize,
    /// Unacknowledged QoS 1 and 2 messages taken from one client, told as Receive Maximum: past it the
    /// connection closes (0x93).
    pub receive_max: u16,
    /// Unacknowledged QoS 1 and 2 messages sent to one client, also when it would take more.
    pub inflight_max: u16,
    /// Topic aliases that a client may set up, told as Topic Alias Maximum.
    pub topic_alias_max: u16,
    /// Topic aliases that the broker sets up towards a client that allows them.
    pub topic_alias_out_max: u16,
    /// QoS 1 and 2 messages that wait for one session, online or not.
    pub queue_messages_max: usize,
    /// Bytes of topics, payloads and properties that wait for one session.
    pub queue_bytes_max: usize,
    /// What is refused when a queue is full.
    pub queue_full: QueueFull,
    /// Bytes that wait to be written to one connection; past it QoS 0 messages are dropped (`slow_consumer`). Past
    /// twice as much, which only answers come to, the client is not listened to until it reads.
    pub outbox_bytes_max: usize,
    /// Retained messages in all: a further one is delivered but not retained (`retained_full`).
    pub retained_messages_max: usize,
    /// Bytes of topics, payloads and properties of retained messages: as for their number.
    pub retained_bytes_max: usize,
    /// Sessions in all, connected or not: a new one is refused with 0x97 (3 in MQTT 3.1.1).
    pub sessions_max: usize,
    /// Connections in all: past it a connection is closed as soon as it is accepted.
    pub connections_max: usize,
    /// Connections from one address: past it a connection is closed as soon as it is accepted.
    pub connections_per_address_max: usize,
    /// New connections per second in all: past it, accepting waits.
    pub connect_rate_max: u32,
    /// How long a new connection may take until it is let in; past it the connection closes.
    pub connect_timeout_ms: u64,
    /// Longest keep-alive; a client that asks for more, or for none, is told this one (v5). 0 is no bound.
    pub keep_alive_s_max: u16,
    /// Longest will delay; a longer one is shortened.
    pub will_delay_s_max: u32,
    /// Longest session expiry; a client that asks for more is told this one (v5).
    pub session_expiry_s_max: u32,
    /// How long the session of an MQTT 3.1.1 client with Clean Session 0 outlives its connection.
    pub session_expiry_v311_s: u32,
    /// Longest message expiry; a longer one, or none, is shortened. 0 is no bound.
    pub message_expiry_s_max: u32,
    /// Messages that rules publish, and transforms make, because of one message, in all: what they ask for past it
    /// is dropped (`loop`).
    pub derived_messages_max: usize,
    /// Bytes of topics and payloads of those messages: as for their number.
    pub derived_bytes_max: usize,
    /// Packets that may wait behind one that a hook has not answered yet; past it the socket is not read.
    pub backlog_packets_max: usize,
    /// Topics whose plan one connection remembers.
    pub plans_per_connection_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect_packet_bytes_max: 16 * 1024,
            packet_bytes_max: 1024 * 1024,
            topic_bytes_max: 1024,
            topic_levels_max: 32,
            user_properties_max: 64,
            subscriptions_max: 1_000,
            receive_max: 256,
            inflight_max: 256,
            topic_alias_max: 32,
            topic_alias_out_max: 32,
            queue_messages_max: 10_000,
            queue_bytes_max: 64 * 1024 * 1024,
            queue_full: QueueFull::RefuseNewest,
            outbox_bytes_max: 8 * 1024 * 1024,
            retained_messages_max: 1_000_000,
            retained_bytes_max: 1024 * 1024 * 1024,
            sessions_max: 1_000_000,
            connections_max: 100_000,
            connections_per_address_max: 100_000,
            connect_rate_max: 10_000,
            connect_timeout_ms: 10_000,
            keep_alive_s_max: 0,
            will_delay_s_max: 86_400,
            session_expiry_s_max: 604_800,
            session_expiry_v311_s: 604_800,
            message_expiry_s_max: 0,
            derived_messages_max: 256,
            derived_bytes_max: 16 * 1024 * 1024,
            backlog_packets_max: 1_024,
            plans_per_connection_max: 1_024,
        }
    }
}

/// What a configuration turns off, told in CONNACK `[MQTT-3.2.2-9]` and after.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capabilities {
    /// Highest QoS that may be published.
    pub qos_max: crate::message::QoS,
    /// Retained messages.
    pub retain: bool,
    /// Filters with wildcards.
    pub wildcard_subscriptions: bool,
    /// Subscription identifiers.
    pub subscription_identifiers: bool,
    /// Shared subscriptions.
    pub shared_subscriptions: bool,
}

impl Default for Capabilities {
    fn default() -> Self {
        Self {
            qos_max: crate::message::QoS::ExactlyOnce,
            retain: true,
            wildcard_subscriptions: true,
            subscription_identifiers: true,
            shared_subscriptions: true,
        }
    }
}
