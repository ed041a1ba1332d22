//! Where hooks are asked, and what is done where they fail.

use std::fmt;

/// One place on a connection's or a message's way where somebody else may decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum HookPoint {
    /// Who is this? On CONNECT, and on each AUTH of MQTT 5 enhanced authentication.
    Authenticate,
    /// May they? On publish, on subscribe per filter, for a will, for a message that a rule publishes.
    Authorize,
    /// Every accepted message, before it is routed: pass, replace, drop, several.
    OnPublish,
    /// Every message as it will be routed: observers that yield records and further messages.
    OnMessage,
    /// Per receiver, just before delivery: pass, replace, drop.
    OnDeliver,
    /// Per filter of a SUBSCRIBE: pass, rewrite, deny.
    OnSubscribe,
    /// Per filter of an UNSUBSCRIBE: pass, rewrite, deny.
    OnUnsubscribe,
    /// Before a message is made durable, and when it is read back: keep, replace, skip.
    Persistence,
    /// What happened, told off the hot path.
    Lifecycle,
    /// Periodically.
    Timer,
}

impl HookPoint {
    /// All of them, in the order in which a connection meets them.
    pub const ALL: [Self; 10] = [
        Self::Authenticate,
        Self::Authorize,
        Self::OnPublish,
        Self::OnMessage,
        Self::OnDeliver,
        Self::OnSubscribe,
        Self::OnUnsubscribe,
        Self::Persistence,
        Self::Lifecycle,
        Self::Timer,
    ];

    /// Its name in configurations, logs and documents.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Authenticate => "authenticate",
            Self::Authorize => "authorize",
            Self::OnPublish => "on-publish",
            Self::OnMessage => "on-message",
            Self::OnDeliver => "on-deliver",
            Self::OnSubscribe => "on-subscribe",
            Self::OnUnsubscribe => "on-unsubscribe",
            Self::Persistence => "persistence",
            Self::Lifecycle => "lifecycle",
            Self::Timer => "timer",
        }
    }

    /// What is done where a hook fails here and the configuration does not say otherwise.
    #[must_use]
    pub const fn default_policy(self) -> Policy {
        match self {
            Self::Authenticate
            | Self::Authorize
            | Self::OnPublish
            | Self::OnSubscribe
            | Self::OnUnsubscribe
            | Self::Persistence => Policy::Deny,
            Self::OnMessage | Self::OnDeliver | Self::Lifecycle | Self::Timer => Policy::Skip,
        }
    }
}

impl fmt::Display for HookPoint {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

/// A set of hook points.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HookPoints(u16);

impl HookPoints {
    /// The empty set.
    pub const NONE: Self = Self(0);

    /// The set with `point` in it too.
    #[must_use]
    pub const fn with(self, point: HookPoint) -> Self {
        Self(self.0 | 1 << point as u8)
    }

    /// Whether `point` is in it.
    #[must_use]
    pub const fn contains(self, point: HookPoint) -> bool {
        self.0 & (1 << point as u8) != 0
    }

    /// Its members, in the order of [`HookPoint::ALL`].
    pub fn iter(self) -> impl Iterator<Item = HookPoint> {
        HookPoint::ALL.into_iter().filter(move |point| self.contains(*point))
    }
}

impl FromIterator<HookPoint> for HookPoints {
    fn from_iter<I: IntoIterator<Item = HookPoint>>(points: I) -> Self {
        points.into_iter().fold(Self::NONE, Self::with)
    }
}

/// What observers can be told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum EventKind {
    /// A client was let in.
    Connected,
    /// A connection ended.
    Disconnected,
    /// A session ended.
    SessionEnded,
    /// A message was not delivered.
    MessageDropped,
    /// A message was handed to a connection.
    MessageDelivered,
    /// A message was acknowledged.
    MessageAcked,
}

/// A set of kinds of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EventKinds(u8);

impl EventKinds {
    /// The empty set.
    pub const NONE: Self = Self(0);

    /// What happens to clients and sessions, not to single messages.
    pub const OF_CLIENTS: Self =
        Self::NONE.with(EventKind::Connected).with(EventKind::Disconnected).with(EventKind::SessionEnded);

    /// The set with `kind` in it too.
    #[must_use]
    pub const fn with(self, kind: EventKind) -> Self {
        Self(self.0 | 1 << kind as u8)
    }

    /// What is in one of both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The set as a number.
    pub(crate) const fn bits(self) -> u8 {
        self.0
    }

    /// The set that is this number.
    pub(crate) const fn from_bits(bits: u8) -> Self {
        Self(bits)
    }

    /// Whether `kind` is in it.
    #[must_use]
    pub const fn contains(self, kind: EventKind) -> bool {
        self.0 & (1 << kind as u8) != 0
    }
}

impl FromIterator<EventKind> for EventKinds {
    fn from_iter<I: IntoIterator<Item = EventKind>>(kinds: I) -> Self {
        kinds.into_iter().fold(Self::NONE, Self::with)
    }
}

/// What the broker does in the place of a hook that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// As if the hook had denied, or dropped the message with a reason.
    Deny,
    /// As if the hook had allowed, or passed. Never a default for a decision.
    Allow,
    /// As if the hook were not in the chain.
    Skip,
}
