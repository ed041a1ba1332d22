//! What clients can do to a broker, as a story: made at random, shrunk, and printed so that it can be read.

use std::fmt;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use weirmq_core::broker::Settings;
use weirmq_core::limits::QueueFull;
use weirmq_wire::{RetainHandling, Version};

/// The clients, by their identifiers.
pub(crate) const NAMES: [&str; 3] = ["a", "b", "c"];

/// What is published to. `will` only by wills: then no two messages of one moment are retained, and the order of
/// retained messages is known.
pub(crate) const TOPICS: [&str; 6] = ["x", "x/y", "x/z", "y/y", "/", "$SYS/x"];
pub(crate) const WILL_TOPIC: &str = "will";

const PLAIN: [&str; 10] = ["x", "x/y", "x/+", "x/#", "+/y", "#", "+/+", "$SYS/#", "will", "+"];

/// No topic is matched by two of these filters: of one message a client gets by them, the order is not fixed.
const SHARED: [&str; 3] = ["$share/g/x/y", "$share/h/x/y", "$share/g/y/#"];

/// Above this are the packet identifiers of what a deaf client asks for.
pub(crate) const ASKED_UNHEARD: u16 = 1_000;

/// What a client without a session on the broker would acknowledge.
pub(crate) const STRANGE_ID: u16 = 60_000;

/// A broker, and what happens to it.
#[derive(Clone)]
pub(crate) struct Story {
    pub(crate) broker: Tightness,
    pub(crate) ops: Vec<Op>,
}

/// Which limits of the broker are small.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tightness {
    pub(crate) inflight: bool,
    pub(crate) queue: Option<QueueFull>,
    pub(crate) outbox: bool,
    pub(crate) subscriptions: bool,
    pub(crate) receive: bool,
    pub(crate) retained: bool,
    pub(crate) sessions: bool,
    pub(crate) times: bool,
}

impl Tightness {
    pub(crate) fn settings(self) -> Settings {
        let mut settings = Settings::default();
        let limits = &mut settings.limits;
        if self.inflight {
            limits.inflight_max = 2;
        }
        if let Some(policy) = self.queue {
            (limits.queue_messages_max, limits.queue_bytes_max, limits.queue_full) = (3, 100, policy);
        }
        if self.outbox {
            limits.outbox_bytes_max = 250;
        }
        if self.subscriptions {
            limits.subscriptions_max = 3;
        }
        if self.receive {
            limits.receive_max = 2;
        }
        if self.retained {
            limits.retained_messages_max = 2;
        }
        if self.sessions {
            limits.sessions_max = 2;
        }
        if self.times {
            limits.session_expiry_s_max = 30;
            limits.session_expiry_v311_s = 15;
            limits.message_expiry_s_max = 10;
            limits.will_delay_s_max = 5;
        }
        settings
    }
}

impl Connecting {
    /// What of it goes with small limits. How far a batch has got when a will comes in between, and what a topic
    /// alias saves, is nothing that the reference would count.
    pub(crate) fn fitting(mut self, broker: Tightness) -> Self {
        if broker.outbox {
            self.will = self.will.map(|will| WillWish { qos: 0, retain: false, ..will });
        }
        if broker.retained {
            // What has expired makes room sooner or later: when, nobody promises.
            self.will = self.will.map(|will| WillWish { retain: false, ..will });
        }
        self.aliases &= !broker.outbox && self.packet_bytes_max.is_none();
        self
    }
}

/// One thing that happens. What cannot happen then (a client that is not connected does something) is passed over.
#[derive(Clone)]
pub(crate) enum Op {
    Connect {
        who: usize,
        how: Connecting,
    },
    Cut {
        who: usize,
    },
    Disconnect {
        who: usize,
        with_will: bool,
        expiry_s: Option<u32>,
    },
    Subscribe {
        who: usize,
        packet_id: u16,
        identifier: Option<u32>,
        filters: Vec<Wish>,
    },
    Unsubscribe {
        who: usize,
        packet_id: u16,
        filters: Vec<&'static str>,
    },
    Publish {
        who: usize,
        what: Publishing,
    },
    /// Publishes several messages one after the other; those of QoS 2 it releases.
    Burst {
        who: usize,
        count: u16,
        what: Publishing,
    },
    /// PUBREL.
    Release {
        who: usize,
        packet_id: u16,
    },
    /// Acknowledges one of the messages that have come.
    Acknowledge {
        who: usize,
        which: usize,
        how: How,
    },
    /// Acknowledges everything, also what comes thereupon.
    AcknowledgeAll {
        who: usize,
    },
    /// Stops reading, or reads on.
    Deaf {
        who: usize,
        deaf: bool,
    },
    Ping {
        who: usize,
    },
    Pass {
        seconds: u32,
    },
}

impl Op {
    /// Who sends something on the connection that it has.
    pub(crate) fn speaker(&self) -> Option<usize> {
        match self {
            Self::Disconnect { who, .. }
            | Self::Subscribe { who, .. }
            | Self::Unsubscribe { who, .. }
            | Self::Publish { who, .. }
            | Self::Release { who, .. }
            | Self::Acknowledge { who, .. }
            | Self::Ping { who } => Some(*who),
            _ => None,
        }
    }
}

/// The terms of a CONNECT.
#[derive(Clone)]
pub(crate) struct Connecting {
    pub(crate) version: Version,
    pub(crate) clean: bool,
    pub(crate) expiry_s: Option<u32>,
    pub(crate) will: Option<WillWish>,
    pub(crate) receive_max: Option<u16>,
    pub(crate) packet_bytes_max: Option<u32>,
    pub(crate) keep_alive_s: u16,
    pub(crate) aliases: bool,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct WillWish {
    pub(crate) qos: u8,
    pub(crate) retain: bool,
    pub(crate) delay_s: u32,
    pub(crate) expiry_s: Option<u32>,
}

/// One filter of a SUBSCRIBE.
#[derive(Clone, Copy)]
pub(crate) struct Wish {
    pub(crate) filter: &'static str,
    pub(crate) qos: u8,
    pub(crate) no_local: bool,
    pub(crate) retain_as_published: bool,
    pub(crate) handling: RetainHandling,
}

/// One PUBLISH.
#[derive(Clone)]
pub(crate) struct Publishing {
    pub(crate) topic: &'static str,
    pub(crate) qos: u8,
    pub(crate) packet_id: u16,
    pub(crate) retain: bool,
    pub(crate) expiry_s: Option<u32>,
    pub(crate) size: Size,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Size {
    Small,
    Large,
    Empty,
}

/// How a message is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    /// With what is due.
    Well,
    /// With a PUBREC that refuses.
    Refuse,
    PubAck,
    PubRec,
    PubComp,
    /// With what would be due, but for a packet identifier that is not in use.
    Strange,
}

pub(crate) fn story() -> impl Strategy<Value = Story> {
    (tightness(), vec(op(), 1..80)).prop_map(|(broker, ops)| Story { broker, ops })
}

fn tightness() -> impl Strategy<Value = Tightness> {
    let seldom = || prop::bool::weighted(0.25);
    let queue = prop_oneof![
        2 => Just(None),
        1 => Just(Some(QueueFull::RefuseNewest)),
        1 => Just(Some(QueueFull::DropOldest)),
    ];
    (seldom(), queue, seldom(), seldom(), seldom(), seldom(), seldom(), seldom()).prop_map(
        |(inflight, queue, outbox, subscriptions, receive, retained, sessions, times)| Tightness {
            inflight,
            queue,
            outbox,
            subscriptions,
            receive,
            retained,
            sessions,
            times,
        },
    )
}

fn op() -> impl Strategy<Value = Op> {
    let who = || 0..NAMES.len();
    let packet_id = || 1_u16..4;
    prop_oneof![
        7 => (who(), connecting()).prop_map(|(who, how)| Op::Connect { who, how }),
        3 => who().prop_map(|who| Op::Cut { who }),
        1 => (who(), any::<bool>(), option::weighted(0.3, prop_oneof![Just(0_u32), Just(5), Just(50)]))
            .prop_map(|(who, with_will, expiry_s)| Op::Disconnect { who, with_will, expiry_s }),
        8 => (who(), packet_id(), option::weighted(0.3, 1_u32..200), vec(wish(), 1..4))
            .prop_map(|(who, packet_id, identifier, filters)| Op::Subscribe {
                who,
                packet_id,
                identifier,
                filters,
            }),
        2 => (who(), packet_id(), vec(filter(), 1..3))
            .prop_map(|(who, packet_id, filters)| Op::Unsubscribe { who, packet_id, filters }),
        12 => (who(), publishing()).prop_map(|(who, what)| Op::Publish { who, what }),
        4 => (who(), 2_u16..9, publishing()).prop_map(|(who, count, what)| Op::Burst { who, count, what }),
        3 => (who(), packet_id()).prop_map(|(who, packet_id)| Op::Release { who, packet_id }),
        8 => (who(), 0_usize..8, how()).prop_map(|(who, which, how)| Op::Acknowledge { who, which, how }),
        1 => who().prop_map(|who| Op::AcknowledgeAll { who }),
        3 => (who(), any::<bool>()).prop_map(|(who, deaf)| Op::Deaf { who, deaf }),
        1 => who().prop_map(|who| Op::Ping { who }),
        2 => prop_oneof![Just(1_u32), Just(3), Just(7), Just(40)].prop_map(|seconds| Op::Pass { seconds }),
    ]
}

fn connecting() -> impl Strategy<Value = Connecting> {
    let version = prop_oneof![1 => Just(Version::V311), 2 => Just(Version::V5)];
    let will = (0_u8..3, any::<bool>(), prop_oneof![Just(0_u32), Just(4)], expiry())
        .prop_map(|(qos, retain, delay_s, expiry_s)| WillWish { qos, retain, delay_s, expiry_s });
    (
        version,
        prop::bool::weighted(0.3),
        option::weighted(
            0.8,
            prop_oneof![1 => Just(0_u32), 1 => Just(6), 3 => Just(50), 1 => Just(u32::MAX)],
        ),
        option::weighted(0.4, will),
        option::weighted(0.3, 1_u16..4),
        option::weighted(0.1, Just(70_u32)),
        prop_oneof![5 => Just(0_u16), 1 => Just(4)],
        prop::bool::weighted(0.2),
    )
        .prop_map(
            |(version, clean, expiry_s, will, receive_max, packet_bytes_max, keep_alive_s, aliases)| {
                Connecting {
                    version,
                    clean,
                    expiry_s,
                    will,
                    receive_max,
                    packet_bytes_max,
                    keep_alive_s,
                    aliases,
                }
            },
        )
}

fn filter() -> impl Strategy<Value = &'static str> {
    prop_oneof![
        4 => prop::sample::select(&PLAIN[..]),
        2 => Just("x/y"),
        2 => prop::sample::select(&SHARED[..]),
    ]
}

fn wish() -> impl Strategy<Value = Wish> {
    let handling = prop_oneof![
        2 => Just(RetainHandling::Send),
        1 => Just(RetainHandling::SendIfNew),
        1 => Just(RetainHandling::DoNotSend)
    ];
    (filter(), quality(), prop::bool::weighted(0.2), prop::bool::weighted(0.3), handling).prop_map(
        |(filter, qos, no_local, retain_as_published, handling)| Wish {
            filter,
            qos,
            no_local: no_local && !filter.starts_with("$share/"),
            retain_as_published,
            handling,
        },
    )
}

fn publishing() -> impl Strategy<Value = Publishing> {
    let size = prop_oneof![6 => Just(Size::Small), 1 => Just(Size::Large), 1 => Just(Size::Empty)];
    (prop::sample::select(&TOPICS[..]), quality(), 1_u16..4, prop::bool::weighted(0.3), expiry(), size)
        .prop_map(|(topic, qos, packet_id, retain, expiry_s, size)| Publishing {
            topic,
            qos,
            packet_id,
            retain,
            expiry_s,
            size,
        })
}

/// QoS 0 has no story to tell.
fn quality() -> impl Strategy<Value = u8> {
    prop_oneof![1 => Just(0_u8), 2 => Just(1), 3 => Just(2)]
}

fn expiry() -> impl Strategy<Value = Option<u32>> {
    option::weighted(0.2, prop_oneof![Just(0_u32), Just(2), Just(20)])
}

fn how() -> impl Strategy<Value = How> {
    prop_oneof![
        6 => Just(How::Well),
        1 => Just(How::Refuse),
        1 => Just(How::PubAck),
        1 => Just(How::PubRec),
        1 => Just(How::PubComp),
        1 => Just(How::Strange),
    ]
}

// How it reads

impl fmt::Debug for Story {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "a story for {:?}", self.broker)?;
        for (number, op) in self.ops.iter().enumerate() {
            writeln!(out, "  {:>2}. {op:?}", number + 1)?;
        }
        Ok(())
    }
}

impl fmt::Debug for Op {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |who: &usize| NAMES[*who];
        match self {
            Self::Connect { who, how } => write!(out, "{} connects {how:?}", name(who)),
            Self::Cut { who } => write!(out, "{} is cut off", name(who)),
            Self::Disconnect { who, with_will, expiry_s } => {
                let will = if *with_will { " with will" } else { "" };
                write!(out, "{} disconnects{will}{}", name(who), seconds("expiry", *expiry_s))
            }
            Self::Subscribe { who, packet_id, identifier, filters } => {
                write!(out, "{} subscribes (packet {packet_id}", name(who))?;
                if let Some(identifier) = identifier {
                    write!(out, ", identifier {identifier}")?;
                }
                write!(out, ") to {filters:?}")
            }
            Self::Unsubscribe { who, packet_id, filters } => {
                write!(out, "{} unsubscribes (packet {packet_id}) from {filters:?}", name(who))
            }
            Self::Publish { who, what } => write!(out, "{} publishes {what:?}", name(who)),
            Self::Burst { who, count, what } => write!(out, "{} publishes {count} times {what:?}", name(who)),
            Self::Release { who, packet_id } => write!(out, "{} sends PUBREL {packet_id}", name(who)),
            Self::Acknowledge { who, which, how } => {
                write!(out, "{} acknowledges ({how:?}) number {which} of what it has", name(who))
            }
            Self::AcknowledgeAll { who } => write!(out, "{} acknowledges everything", name(who)),
            Self::Deaf { who, deaf: true } => write!(out, "{} stops reading", name(who)),
            Self::Deaf { who, deaf: false } => write!(out, "{} reads on", name(who)),
            Self::Ping { who } => write!(out, "{} sends PINGREQ", name(who)),
            Self::Pass { seconds } => write!(out, "{seconds} s pass"),
        }
    }
}

impl fmt::Debug for Connecting {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let clean = if self.clean { "clean" } else { "not clean" };
        write!(out, "({:?}, {clean}{}", self.version, seconds("expiry", self.expiry_s))?;
        if let Some(max) = self.receive_max {
            write!(out, ", Receive Maximum {max}")?;
        }
        if let Some(max) = self.packet_bytes_max {
            write!(out, ", Maximum Packet Size {max}")?;
        }
        if self.keep_alive_s > 0 {
            write!(out, ", keep-alive {} s", self.keep_alive_s)?;
        }
        if self.aliases {
            write!(out, ", with aliases")?;
        }
        if let Some(will) = &self.will {
            let retain = if will.retain { " retained" } else { "" };
            write!(out, ", will QoS {}{retain}", will.qos)?;
            if will.delay_s > 0 {
                write!(out, " after {} s", will.delay_s)?;
            }
            write!(out, "{}", seconds("expiry", will.expiry_s))?;
        }
        write!(out, ")")
    }
}

impl fmt::Debug for Wish {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} QoS {}", self.filter, self.qos)?;
        if self.no_local {
            write!(out, " no-local")?;
        }
        if self.retain_as_published {
            write!(out, " retain-as-published")?;
        }
        match self.handling {
            RetainHandling::Send => Ok(()),
            other => write!(out, " {other:?}"),
        }
    }
}

impl fmt::Debug for Publishing {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "to {} QoS {}", self.topic, self.qos)?;
        if self.qos > 0 {
            write!(out, " (packet {})", self.packet_id)?;
        }
        if self.retain {
            write!(out, " retained")?;
        }
        if self.size != Size::Small {
            write!(out, " {:?}", self.size)?;
        }
        write!(out, "{}", seconds("expiry", self.expiry_s))
    }
}

fn seconds(what: &str, seconds: Option<u32>) -> String {
    match seconds {
        None => String::new(),
        Some(u32::MAX) => format!(", {what} never"),
        Some(seconds) => format!(", {what} {seconds} s"),
    }
}
