//! What is counted: what came, what went, and every message that was not delivered, by reason.

use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

/// Why a message did not reach a subscriber that matched, or was not taken at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum DropReason {
    /// The session's queue was full.
    QueueFull,
    /// Its connection takes less than comes, and QoS 0 does not wait.
    SlowConsumer,
    /// It expired before it could be sent.
    Expired,
    /// Larger than the Maximum Packet Size of the receiver `[MQTT-3.1.2-25]`.
    PacketTooLarge,
    /// QoS 0, and nobody was online to receive it.
    NoReceiverOnline,
    /// The session ended while it waited.
    SessionEnded,
    /// The publisher may not publish it.
    Denied,
    /// A transform or an on-deliver hook dropped it.
    HookDropped,
    /// A hook failed, and its policy is deny.
    HookFailed,
    /// What a hook made of it is no valid message.
    Invalid,
    /// Rules that call each other went round too often, or made too much of one message.
    Loop,
    /// The limits on retained messages are reached: it was delivered but not retained.
    RetainedFull,
    /// QoS 0, and its publisher's connection ended before a hook had answered.
    PublisherGone,
    /// QoS 2, and it could not be kept: without that it might be delivered twice.
    NotKept,
}

impl DropReason {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::QueueFull,
        Self::SlowConsumer,
        Self::Expired,
        Self::PacketTooLarge,
        Self::NoReceiverOnline,
        Self::SessionEnded,
        Self::Denied,
        Self::HookDropped,
        Self::HookFailed,
        Self::Invalid,
        Self::Loop,
        Self::RetainedFull,
        Self::PublisherGone,
        Self::NotKept,
    ];

    /// Its name in `$SYS/` and in logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::SlowConsumer => "slow_consumer",
            Self::Expired => "expired",
            Self::PacketTooLarge => "packet_too_large",
            Self::NoReceiverOnline => "no_receiver_online",
            Self::SessionEnded => "session_ended",
            Self::Denied => "denied",
            Self::HookDropped => "hook_dropped",
            Self::HookFailed => "hook_failed",
            Self::Invalid => "invalid",
            Self::Loop => "loop",
            Self::RetainedFull => "retained_full",
            Self::PublisherGone => "publisher_gone",
            Self::NotKept => "not_kept",
        }
    }
}

impl fmt::Display for DropReason {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// One more.
    pub fn add_one(&self) {
        self.add(1);
    }

    /// So many more.
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// How many so far.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A number that comes and goes.
#[derive(Debug, Default)]
pub struct Gauge(AtomicI64);

impl Gauge {
    /// More, or less when `change` is negative.
    pub fn change(&self, change: i64) {
        self.0.fetch_add(change, Ordering::Relaxed);
    }

    /// How many now.
    #[must_use]
    pub fn get(&self) -> u64 {
        u64::try_from(self.0.load(Ordering::Relaxed)).unwrap_or(0)
    }
}

/// The dropped messages by reason.
#[derive(Debug, Default)]
pub struct Drops([Counter; DropReason::ALL.len()]);

impl Drops {
    /// Counts one.
    pub fn count(&self, reason: DropReason) {
        self.count_many(reason, 1);
    }

    /// Counts so many.
    pub fn count_many(&self, reason: DropReason, messages: u64) {
        if let Some(counter) = self.0.get(reason as usize) {
            counter.add(messages);
        }
    }

    /// How many so far.
    #[must_use]
    pub fn get(&self, reason: DropReason) -> u64 {
        self.0.get(reason as usize).map_or(0, Counter::get)
    }

    /// How many so far, for whatever reason.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.iter().map(Counter::get).sum()
    }
}

/// The dropped messages of one session: most have none, and then it takes no memory.
#[derive(Debug, Default)]
pub(crate) struct SessionDrops(OnceLock<Box<Drops>>);

impl SessionDrops {
    /// Counts so many.
    pub(crate) fn count_many(&self, reason: DropReason, messages: u64) {
        self.0.get_or_init(Box::default).count_many(reason, messages);
    }

    /// How many so far.
    pub(crate) fn get(&self, reason: DropReason) -> u64 {
        self.0.get().map_or(0, |drops| drops.get(reason))
    }
}

/// A limit that was run into; what follows then stands with it in [`crate::limits::Limits`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Limit {
    /// A packet was too large, from a client that was not let in yet.
    ConnectPacketBytes,
    /// A packet was too large.
    PacketBytes,
    /// A topic name or filter was too long.
    TopicBytes,
    /// A topic name or filter had too many levels.
    TopicLevels,
    /// A packet had too many User Properties.
    UserProperties,
    /// A session had too many subscriptions.
    Subscriptions,
    /// A client had too many QoS 1 and 2 messages under way.
    ReceiveMaximum,
    /// There were too many sessions.
    Sessions,
    /// A client was not let in in time.
    ConnectTimeout,
    /// A keep-alive was shortened.
    KeepAlive,
    /// A will delay was shortened.
    WillDelay,
    /// A session expiry was shortened.
    SessionExpiry,
    /// A message expiry was shortened.
    MessageExpiry,
    /// There were too many connections.
    Connections,
    /// There were too many connections from one address.
    ConnectionsPerAddress,
    /// Connections came too fast, and the next had to wait.
    ConnectRate,
    /// Rules and transforms made too much of one message.
    Derived,
}

impl Limit {
    /// All of them.
    pub const ALL: [Self; 17] = [
        Self::ConnectPacketBytes,
        Self::PacketBytes,
        Self::TopicBytes,
        Self::TopicLevels,
        Self::UserProperties,
        Self::Subscriptions,
        Self::ReceiveMaximum,
        Self::Sessions,
        Self::ConnectTimeout,
        Self::KeepAlive,
        Self::WillDelay,
        Self::SessionExpiry,
        Self::MessageExpiry,
        Self::Connections,
        Self::ConnectionsPerAddress,
        Self::ConnectRate,
        Self::Derived,
    ];

    /// Its name in `$SYS/` and in logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ConnectPacketBytes => "connect_packet_bytes",
            Self::PacketBytes => "packet_bytes",
            Self::TopicBytes => "topic_bytes",
            Self::TopicLevels => "topic_levels",
            Self::UserProperties => "user_properties",
            Self::Subscriptions => "subscriptions",
            Self::ReceiveMaximum => "receive_maximum",
            Self::Sessions => "sessions",
            Self::ConnectTimeout => "connect_timeout",
            Self::KeepAlive => "keep_alive",
            Self::WillDelay => "will_delay",
            Self::SessionExpiry => "session_expiry",
            Self::MessageExpiry => "message_expiry",
            Self::Connections => "connections",
            Self::ConnectionsPerAddress => "connections_per_address",
            Self::ConnectRate => "connect_rate",
            Self::Derived => "derived",
        }
    }
}

/// How often each limit was run into.
#[derive(Debug, Default)]
pub struct LimitHits([Counter; Limit::ALL.len()]);

impl LimitHits {
    /// Counts one.
    pub fn count(&self, limit: Limit) {
        if let Some(counter) = self.0.get(limit as usize) {
            counter.add_one();
        }
    }

    /// How often so far.
    #[must_use]
    pub fn get(&self, limit: Limit) -> u64 {
        self.0.get(limit as usize).map_or(0, Counter::get)
    }
}

/// The counters of a broker since its start.
#[derive(Debug, Default)]
pub struct Counters {
    /// Messages that clients published, whatever became of them.
    pub messages_received: Counter,
    /// Messages handed to connections, each receiver counted.
    pub messages_sent: Counter,
    /// Bytes of their payloads.
    pub payload_bytes_received: Counter,
    /// Bytes of their payloads.
    pub payload_bytes_sent: Counter,
    /// Messages that were not delivered.
    pub dropped: Drops,
    /// Connections that were let in.
    pub connections_accepted: Counter,
    /// How often each limit was run into.
    pub limits: LimitHits,
    /// Connections that the broker closed before they were let in: refused, not understood, too slow.
    pub connections_refused: Counter,
    /// Connections that closed because of what the peer sent.
    pub bad_input: Counter,
    /// Clients connected now.
    pub clients_connected: Gauge,
    /// Subscriptions now.
    pub subscriptions: Gauge,
    /// Rule and plugin calls that failed on a message's way.
    pub hook_failures: Counter,
    /// Records that rules handed to sinks.
    pub records: Counter,
    /// What was to outlive the process and could not be kept; what depends on it was not acknowledged.
    pub not_kept: Counter,
}

/// Lets so many log lines pass per second and counts the others: what a client can cause with every message must
/// not fill the disk.
#[derive(Debug)]
pub struct LogGate {
    left: AtomicI64,
    held_back: AtomicU64,
}

impl LogGate {
    /// Lines per second.
    const LINES_MAX: i64 = 50;

    /// Whether a line may be written now; if so, how many were held back since the last one.
    pub fn pass(&self) -> Option<u64> {
        if self.left.load(Ordering::Relaxed) > 0 && self.left.fetch_sub(1, Ordering::Relaxed) > 0 {
            return Some(self.held_back.swap(0, Ordering::Relaxed));
        }
        self.held_back.fetch_add(1, Ordering::Relaxed);
        None
    }

    /// Another second has begun.
    pub(crate) fn refill(&self) {
        self.left.store(Self::LINES_MAX, Ordering::Relaxed);
    }
}

impl Default for LogGate {
    fn default() -> Self {
        Self { left: AtomicI64::new(Self::LINES_MAX), held_back: AtomicU64::new(0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_lines_is_cut_to_so_many_per_second_and_the_cut_is_told() {
        let gate = LogGate::default();
        let passed = (0..200).filter(|_| gate.pass().is_some()).count();
        assert_eq!(passed, 50);
        gate.refill();
        assert_eq!(gate.pass(), Some(150));
        assert_eq!(gate.pass(), Some(0));
    }
}
