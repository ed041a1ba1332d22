//! What can be asked for.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use weirmq_wire::{QoS, Version};

use crate::flow::Pace;
use crate::load::Hello;

/// A kind of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// N publishers, each with a subscriber of its own
    Pairs,
    /// N publishers, one subscriber to all
    FanIn,
    /// One publisher, N subscribers
    FanOut,
    /// 4 publishers, N members of one shared subscription
    Shared,
    /// N pairs, while 100,000 other subscriptions are there
    ManySubscriptions,
    /// N pairs, while one more subscriber to all of it reads nothing
    Deaf,
    /// N clients are away while messages are published for them, and come back
    Offline,
    /// Retained messages, read back by one client after the other
    Retained,
    /// N connections that do nothing: memory for each
    Idle,
    /// N clients that connect, subscribe, publish, receive and disconnect, over and over
    Churn,
}

impl fmt::Display for Kind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.to_possible_value().as_ref().map_or("", |value| value.get_name()))
    }
}

/// One load on one broker, measured.
#[derive(Debug, Clone, Parser)]
#[command(name = "weirmq-load", version)]
pub struct Options {
    /// The kind of work
    pub scenario: Kind,
    /// Where the broker listens
    #[arg(long, default_value = "127.0.0.1:1883")]
    pub address: SocketAddr,
    /// The broker's process, whose CPU and memory are measured
    #[arg(long)]
    pub pid: Option<u32>,
    /// MQTT version
    #[arg(long, value_enum, default_value = "3.1.1")]
    pub protocol: Protocol,
    /// Of what is published and subscribed to
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=2))]
    pub qos: u8,
    /// Bytes; at least 16
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(16..=1_000_000))]
    pub payload: u32,
    /// N: pairs, publishers, subscribers or connections
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub clients: u32,
    /// Messages of one publisher under way
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=8_000))]
    pub window: u32,
    /// Messages per second in all, for latencies, instead of as many as the broker takes
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub rate: Option<u32>,
    /// Messages for each session (offline) or in all (retained)
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub messages: u32,
    /// How long is measured
    #[arg(long, default_value_t = 3.0, value_parser = seconds)]
    pub seconds: f64,
    /// How long the load runs before
    #[arg(long, default_value_t = 0.5, value_parser = seconds)]
    pub warm_up: f64,
    /// Sessions outlive their connections: what is published at QoS 1 and 2 has to be kept for them
    #[arg(long)]
    pub persistent: bool,
    /// Print a line of JSON
    #[arg(long)]
    pub json: bool,
}

/// [`Version`], as it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Protocol {
    /// MQTT 3.1.1
    #[value(name = "3.1.1")]
    V311,
    /// MQTT 5.0
    #[value(name = "5")]
    V5,
}

impl Options {
    pub(super) fn version(&self) -> Version {
        match self.protocol {
            Protocol::V311 => Version::V311,
            Protocol::V5 => Version::V5,
        }
    }

    pub(super) fn qos(&self) -> QoS {
        QoS::try_from(self.qos).unwrap_or_default()
    }

    pub(super) fn payload_bytes(&self) -> usize {
        usize::try_from(self.payload).unwrap_or(usize::MAX)
    }

    pub(super) fn pace(&self) -> Pace {
        match self.rate {
            Some(rate) => Pace::Fixed { per_s: rate.into() },
            None => Pace::Closed { window: self.window },
        }
    }

    pub(super) fn time(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }

    pub(super) fn warm_up(&self) -> Duration {
        Duration::from_secs_f64(self.warm_up)
    }

    pub(super) fn hello<'a>(&self, client_id: &'a str) -> Hello<'a> {
        Hello { address: self.address, version: self.version(), client_id, keeps_session: self.persistent }
    }
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.0..=86_400.0).contains(&seconds) => Ok(seconds),
        _ => Err("between 0 and 86400, such as 2.5".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Options::command().debug_assert();
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for bad in [
            ["--qos", "3"],
            ["--payload", "15"],
            ["--seconds", "NaN"],
            ["--seconds", "-1"],
            ["--clients", "0"],
        ] {
            assert!(Options::try_parse_from(["weirmq-load", "pairs", bad[0], bad[1]]).is_err(), "{bad:?}");
        }
    }
}
