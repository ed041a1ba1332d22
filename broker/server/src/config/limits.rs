//! The tables `[limits]` and `[capabilities]`: the fields of [`Limits`] and [`Capabilities`], key by key.

use serde::Deserialize;
use weirmq_core::limits::{Capabilities, Limits, QueueFull};
use weirmq_core::message::QoS;

/// What one packet can carry at most: a four-byte Remaining Length, and the bytes before it.
const PACKET_BYTES_MAX: u64 = 268_435_455 + 5;

/// Makes the table from a line per limit: its type, the least and the most that it may be. A limit of the core
/// that has no line does not compile.
macro_rules! limits {
    ($($key:ident: $type:ty, $least:expr, $most:expr;)+) => {
        #[derive(Debug, Clone, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub(super) struct LimitsTable {
            queue_full: QueueFullWord,
            $($key: $type,)+
        }

        impl Default for LimitsTable {
            fn default() -> Self {
                let Limits { queue_full, $($key,)+ } = Limits::default();
                Self { queue_full: queue_full.into(), $($key,)+ }
            }
        }

        impl From<&LimitsTable> for Limits {
            fn from(table: &LimitsTable) -> Self {
                Self { queue_full: table.queue_full.into(), $($key: table.$key,)+ }
            }
        }

        impl LimitsTable {
            /// Every key but `queue_full`, with its value.
            #[cfg(test)]
            pub(super) fn numbers(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($key), self.$key as u64)),+]
            }

            /// The keys whose values make no sense, and why.
            pub(super) fn faults(&self) -> Vec<(&'static str, String)> {
                let numbers: &[(&'static str, u64, u64, u64)] =
                    &[$((stringify!($key), self.$key as u64, $least, $most)),+];
                numbers
                    .iter()
                    .filter_map(|(key, value, least, most)| Some((*key, fault(key, *value, *least, *most)?)))
                    .collect()
            }
        }
    };
}

const ANY: u64 = u64::MAX;

limits! {
    connect_packet_bytes_max: u32, 64, PACKET_BYTES_MAX;
    packet_bytes_max: u32, 64, PACKET_BYTES_MAX;
    topic_bytes_max: usize, 1, 65_535;
    topic_levels_max: usize, 1, 1_000;
    user_properties_max: usize, 0, ANY;
    subscriptions_max: usize, 1, ANY;
    receive_max: u16, 1, ANY;
    inflight_max: u16, 1, ANY;
    topic_alias_max: u16, 0, ANY;
    topic_alias_out_max: u16, 0, ANY;
    queue_messages_max: usize, 1, ANY;
    queue_bytes_max: usize, 1, ANY;
    outbox_bytes_max: usize, 1, ANY;
    retained_messages_max: usize, 0, ANY;
    retained_bytes_max: usize, 0, ANY;
    sessions_max: usize, 1, ANY;
    connections_max: usize, 1, ANY;
    connections_per_address_max: usize, 1, ANY;
    connect_rate_max: u32, 1, ANY;
    connect_timeout_ms: u64, 1, ANY;
    keep_alive_s_max: u16, 0, ANY;
    will_delay_s_max: u32, 0, ANY;
    session_expiry_s_max: u32, 0, ANY;
    session_expiry_v311_s: u32, 0, ANY;
    message_expiry_s_max: u32, 0, ANY;
    derived_messages_max: usize, 1, ANY;
    derived_bytes_max: usize, 1, ANY;
    backlog_packets_max: usize, 1, ANY;
    plans_per_connection_max: usize, 1, ANY;
}

fn fault(key: &str, value: u64, least: u64, most: u64) -> Option<String> {
    if value < least {
        Some(format!("`{key}` in [limits] is {value}; it must be at least {least}"))
    } else if value > most {
        Some(format!("`{key}` in [limits] is {value}; it must be at most {most}"))
    } else {
        None
    }
}

/// [`QueueFull`] as it is written.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum QueueFullWord {
    RefuseNewest,
    DropOldest,
}

impl From<QueueFull> for QueueFullWord {
    fn from(queue_full: QueueFull) -> Self {
        match queue_full {
            QueueFull::RefuseNewest => Self::RefuseNewest,
            QueueFull::DropOldest => Self::DropOldest,
        }
    }
}

impl From<QueueFullWord> for QueueFull {
    fn from(word: QueueFullWord) -> Self {
        match word {
            QueueFullWord::RefuseNewest => Self::RefuseNewest,
            QueueFullWord::DropOldest => Self::DropOldest,
        }
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct CapabilitiesTable {
    qos_max: u8,
    retain: bool,
    wildcard_subscriptions: bool,
    subscription_identifiers: bool,
    shared_subscriptions: bool,
}

impl Default for CapabilitiesTable {
    fn default() -> Self {
        let Capabilities {
            qos_max,
            retain,
            wildcard_subscriptions,
            subscription_identifiers,
            shared_subscriptions,
        } = Capabilities::default();
        let qos_max = match qos_max {
            QoS::AtMostOnce => 0,
            QoS::AtLeastOnce => 1,
            QoS::ExactlyOnce => 2,
        };
        Self { qos_max, retain, wildcard_subscriptions, subscription_identifiers, shared_subscriptions }
    }
}

impl From<&CapabilitiesTable> for Capabilities {
    fn from(table: &CapabilitiesTable) -> Self {
        Self {
            qos_max: match table.qos_max {
                0 => QoS::AtMostOnce,
                1 => QoS::AtLeastOnce,
                _ => QoS::ExactlyOnce,
            },
            retain: table.retain,
            wildcard_subscriptions: table.wildcard_subscriptions,
            subscription_identifiers: table.subscription_identifiers,
            shared_subscriptions: table.shared_subscriptions,
        }
    }
}

impl CapabilitiesTable {
    pub(super) fn faults(&self) -> Vec<(&'static str, String)> {
        if self.qos_max <= 2 {
            return Vec::new();
        }
        vec![("qos_max", format!("`qos_max` in [capabilities] is {}; it must be 0, 1 or 2", self.qos_max))]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_table_has_the_defaults_of_the_core() {
        assert_eq!(Limits::from(&LimitsTable::default()), Limits::default());
        assert_eq!(Capabilities::from(&CapabilitiesTable::default()), Capabilities::default());
        assert!(LimitsTable::default().faults().is_empty());
    }
}
