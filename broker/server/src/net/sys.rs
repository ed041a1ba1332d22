//! `$SYS/`: the broker's figures as retained messages, under the names that mosquitto's users look for, and the
//! counts of what was not delivered under `$SYS/broker/messages/dropped/REASON`, of limits that were run into under
//! `$SYS/broker/limits/LIMIT`, the figures of the durable store under `$SYS/broker/store/`.

use std::sync::Arc;
use std::time::Duration;

use weirmq_core::broker::Broker;
use weirmq_core::counters::{DropReason, Limit};
use weirmq_core::time::{Instant, Now};
use weirmq_core::topic::TopicName;

use crate::durable::Durable;

/// How often the figures are published.
const INTERVAL: Duration = Duration::from_secs(10);
/// The spans of the load averages, in minutes.
const LOADS: [(&str, f64); 3] = [("1min", 1.0), ("5min", 5.0), ("15min", 15.0)];

/// Publishes the figures.
pub(crate) struct Sys {
    broker: Arc<Broker>,
    store: Option<Durable>,
    started: Option<Instant>,
    last: Option<Instant>,
    loads: [Load; 4],
}

/// Moving averages of a counter's growth per minute.
#[derive(Default)]
struct Load {
    before: u64,
    averages: [f64; LOADS.len()],
}

impl Load {
    fn update(&mut self, total: u64, minutes: f64) {
        let grown = total.saturating_sub(self.before);
        self.before = total;
        #[expect(clippy::cast_precision_loss, reason = "an average for people")]
        let per_minute = grown as f64 / minutes;
        for (average, (_, span)) in self.averages.iter_mut().zip(LOADS) {
            let weight = (-minutes / span).exp();
            *average = *average * weight + per_minute * (1.0 - weight);
        }
    }
}

impl Sys {
    pub(crate) fn new(broker: Arc<Broker>, store: Option<Durable>) -> Self {
        Self { broker, store, started: None, last: None, loads: Default::default() }
    }

    /// Publishes where it is time to.
    pub(crate) fn tick(&mut self, now: Now) {
        let started = *self.started.get_or_insert(now.at);
        let since = self.last.map(|last| now.at.since(last));
        if since.is_some_and(|since| since < INTERVAL) {
            return;
        }
        self.last = Some(now.at);
        let counters = Arc::clone(self.broker.counters());
        let footprint = self.broker.footprint();
        let connected = counters.clients_connected.get();
        let sessions = footprint.sessions as u64;
        let publish = |name: &str, value: String| {
            if let Ok(topic) = TopicName::new(&format!("$SYS/broker/{name}")) {
                self.broker.publish_own(&topic, value, now);
            }
        };
        publish("version", format!("WeirMQ {}", env!("CARGO_PKG_VERSION")));
        publish("uptime", format!("{} seconds", now.at.since(started).as_secs()));
        let figures: [(&str, u64); 21] = [
            ("clients/connected", connected),
            ("clients/active", connected),
            ("clients/disconnected", sessions.saturating_sub(connected)),
            ("clients/inactive", sessions.saturating_sub(connected)),
            ("clients/total", sessions),
            ("messages/received", counters.messages_received.get()),
            ("messages/sent", counters.messages_sent.get()),
            ("publish/messages/received", counters.messages_received.get()),
            ("publish/messages/sent", counters.messages_sent.get()),
            ("publish/messages/dropped", counters.dropped.total()),
            ("connections/refused", counters.connections_refused.get()),
            ("connections/bad input", counters.bad_input.get()),
            ("hooks/failures", counters.hook_failures.get()),
            ("rules/records", counters.records.get()),
            ("store/not kept", counters.not_kept.get()),
            ("plans/count", footprint.plans as u64),
            ("publish/bytes/received", counters.payload_bytes_received.get()),
            ("publish/bytes/sent", counters.payload_bytes_sent.get()),
            ("subscriptions/count", counters.subscriptions.get()),
            ("retained messages/count", footprint.retained_messages as u64),
            ("store/messages/bytes", footprint.retained_bytes as u64),
        ];
        for (name, value) in figures {
            publish(name, value.to_string());
        }
        if let Some(store) = &self.store {
            for (name, value) in store.figures() {
                publish(&format!("store/{name}"), value.to_string());
            }
        }
        for reason in DropReason::ALL {
            publish(&format!("messages/dropped/{reason}"), counters.dropped.get(reason).to_string());
        }
        for limit in Limit::ALL {
            publish(&format!("limits/{}", limit.name()), counters.limits.get(limit).to_string());
        }
        let totals = [
            ("messages/received", counters.messages_received.get()),
            ("messages/sent", counters.messages_sent.get()),
            ("publish/dropped", counters.dropped.total()),
            ("connections", counters.connections_accepted.get()),
        ];
        let minutes = since.unwrap_or(INTERVAL).as_secs_f64() / 60.0;
        for (load, (name, total)) in self.loads.iter_mut().zip(totals) {
            load.update(total, minutes);
            for (average, (span, _)) in load.averages.iter().zip(LOADS) {
                publish(&format!("load/{name}/{span}"), format!("{average:.2}"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_stream_is_its_own_average() {
        let mut load = Load::default();
        for round in 1..=1_000_u64 {
            load.update(round * 100, 1.0 / 6.0);
        }
        for average in load.averages {
            assert!((average - 600.0).abs() < 1.0, "{average}");
        }
    }
}
