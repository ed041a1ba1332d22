//! What a hook is given. All of it belongs to the broker, and lives until the hook returns.

use crate::abi;
use crate::answer::Draft;

/// What `view` shows, as text; empty where it is absent.
fn text<'a>(view: abi::Text<'a>) -> &'a str {
    optional(view).unwrap_or_default()
}

fn optional<'a>(view: abi::Text<'a>) -> Option<&'a str> {
    // The broker's texts are UTF-8: what is shown here comes from it.
    bytes(view).and_then(|bytes| std::str::from_utf8(bytes).ok())
}

fn bytes<'a>(view: abi::Bytes<'a>) -> Option<&'a [u8]> {
    // SAFETY: the broker has made it, and it lives until the hook returns; `'a` ends there.
    unsafe { view.get() }
}

fn pairs<'a>(first: *const abi::Pair<'a>, count: usize) -> impl Iterator<Item = (&'a str, &'a str)> {
    // SAFETY: as in `bytes`.
    let pairs: &'a [abi::Pair<'a>] = unsafe { abi::several(first, count) };
    pairs.iter().map(|pair| (text(pair.name), text(pair.value)))
}

/// What a client shows of itself when it connects.
#[derive(Debug, Clone, Copy)]
pub struct Login<'a>(pub(crate) &'a abi::Login<'a>);

impl<'a> Login<'a> {
    /// Its client identifier.
    #[must_use]
    pub fn client_id(self) -> &'a str {
        text(self.0.client_id)
    }

    /// User Name.
    #[must_use]
    pub fn username(self) -> Option<&'a str> {
        optional(self.0.username)
    }

    /// Password: any bytes.
    #[must_use]
    pub fn password(self) -> Option<&'a [u8]> {
        bytes(self.0.password)
    }

    /// Where it connects from, as `address:port`.
    #[must_use]
    pub fn peer(self) -> Option<&'a str> {
        optional(self.0.peer)
    }

    /// The name of the listener that it came through.
    #[must_use]
    pub fn listener(self) -> &'a str {
        text(self.0.listener)
    }

    /// The Authentication Method and Data, where it asks for enhanced authentication.
    #[must_use]
    pub fn exchange(self) -> Option<(&'a str, Option<&'a [u8]>)> {
        // SAFETY: as in `bytes`; null where there is none.
        let exchange = unsafe { self.0.exchange.as_ref() }?;
        Some((text(exchange.method), bytes(exchange.data)))
    }
}

/// A client that was let in.
#[derive(Debug, Clone, Copy)]
pub struct Identity<'a>(pub(crate) &'a abi::Identity<'a>);

impl<'a> Identity<'a> {
    /// Its client identifier.
    #[must_use]
    pub fn client_id(self) -> &'a str {
        text(self.0.client_id)
    }

    /// User Name as sent in CONNECT.
    #[must_use]
    pub fn username(self) -> Option<&'a str> {
        optional(self.0.username)
    }

    /// Who it logged in as.
    #[must_use]
    pub fn principal(self) -> &'a str {
        text(self.0.principal)
    }

    /// What else its login said about it.
    pub fn attributes(self) -> impl Iterator<Item = (&'a str, &'a str)> {
        pairs(self.0.attributes, self.0.attributes_count)
    }
}

/// What a client wants to do.
#[derive(Debug, Clone, Copy)]
pub struct Action<'a>(pub(crate) &'a abi::Action<'a>);

impl<'a> Action<'a> {
    /// Whether it wants to publish; otherwise it wants to subscribe.
    #[must_use]
    pub const fn is_publish(self) -> bool {
        self.0.kind == abi::PUBLISH
    }

    /// The topic name, or the filter without its share name.
    #[must_use]
    pub fn topic(self) -> &'a str {
        text(self.0.topic)
    }

    /// 0, 1 or 2.
    #[must_use]
    pub const fn qos(self) -> u8 {
        self.0.qos
    }

    /// Whether the message is to be retained.
    #[must_use]
    pub const fn retain(self) -> bool {
        self.0.retain != 0
    }
}

/// A message on its way.
#[derive(Debug, Clone, Copy)]
pub struct Message<'a>(pub(crate) &'a abi::Message<'a>);

impl<'a> Message<'a> {
    /// Its topic name.
    #[must_use]
    pub fn topic(self) -> &'a str {
        text(self.0.topic)
    }

    /// Its payload.
    #[must_use]
    pub fn payload(self) -> &'a [u8] {
        bytes(self.0.payload).unwrap_or_default()
    }

    /// 0, 1 or 2.
    #[must_use]
    pub const fn qos(self) -> u8 {
        self.0.qos
    }

    /// Whether it is to be retained.
    #[must_use]
    pub const fn retain(self) -> bool {
        self.0.retain != 0
    }

    /// Who the client that published it logged in as; `None` where it was no client.
    #[must_use]
    pub fn principal(self) -> Option<&'a str> {
        optional(self.0.principal)
    }

    /// Its User Properties.
    pub fn user_properties(self) -> impl Iterator<Item = (&'a str, &'a str)> {
        pairs(self.0.properties.user, self.0.properties.user_count)
    }

    /// A draft that repeats it.
    #[must_use]
    pub fn draft(self) -> Draft<'a> {
        Draft::of(self.0)
    }
}

/// What happened.
#[derive(Debug, Clone, Copy)]
pub struct Event<'a>(pub(crate) &'a abi::Event<'a>);

impl<'a> Event<'a> {
    /// [`abi::CONNECTED`] and its like.
    #[must_use]
    pub const fn kind(self) -> u8 {
        self.0.kind
    }

    /// Whose.
    #[must_use]
    pub fn client_id(self) -> &'a str {
        text(self.0.client_id)
    }

    /// Who it is about, where that is somebody who is, or was, connected.
    #[must_use]
    pub fn identity(self) -> Option<Identity<'a>> {
        // SAFETY: as in `bytes`; null where there is none.
        unsafe { self.0.identity.as_ref() }.map(Identity)
    }

    /// The topic of the message that it is about.
    #[must_use]
    pub fn topic(self) -> Option<&'a str> {
        optional(self.0.topic)
    }

    /// Why.
    #[must_use]
    pub fn reason(self) -> Option<&'a str> {
        optional(self.0.reason)
    }
}
