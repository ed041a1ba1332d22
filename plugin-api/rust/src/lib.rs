//! Write WeirMQ plugins in Rust.
//!
//! A plugin is a type that is made from its configuration ([`Plugin`]), answers at one or several hook points
//! ([`Authenticate`], [`Authorize`], [`OnPublish`], [`OnDeliver`], [`OnSubscribe`], [`OnUnsubscribe`],
//! [`Persistence`], [`Lifecycle`], [`Timer`], [`StoreBackend`]) and is
//! handed to the broker with [`export!`], which names those hook points. A login plugin:
//!
//! ```
//! use weirmq_plugin::*;
//! # use std::collections::HashMap;
//!
//! struct Login(HashMap<String, String>);
//!
//! impl Plugin for Login {
//!     type Config = HashMap<String, String>;
//!     fn new(passwords: Self::Config) -> Result<Self, String> {
//!         Ok(Self(passwords))
//!     }
//! }
//!
//! impl Authenticate for Login {
//!     fn authenticate(&mut self, request: AuthenticateRequest) -> Answer {
//!         match (&request.username, &request.password) {
//!             (Some(name), Some(word)) if self.0.get(name).is_some_and(|known| known.as_bytes() == word) => {
//!                 Answer::allow(Lease::new(name))
//!             }
//!             _ => Answer::deny(BAD_USER_NAME_OR_PASSWORD, "unknown user or wrong password"),
//!         }
//!     }
//! }
//!
//! export!(Login: authenticate);
//! ```
//!
//! (Keep password hashes rather than passwords, as the `login` plugin that ships with the broker does.)
//!
//! The broker makes several instances of a plugin and uses each for one call at a time, so a plugin has no need
//! of locks, and what one instance remembers another does not know. A panic costs its own call: its text goes
//! to the broker's log and a new instance is made.
//!
//! # Features
//! `allocator`, on by default, gives the plugin a global allocator that is quick with the texts of a call. A plugin that
//! brings an allocator of its own, or would rather have Rust's, takes this crate with `default-features = false`.
//!
//! # Layout
//! - this file: the traits, [`export!`], and constructors for the contract's types
//! - [`host`]: what the broker offers to a plugin
//! - [`topic`]: templates for topic filters, and which filter covers what
//! - [`rights`]: rights as the configuration of a login plugin writes them
//! - `allocator`: memory for the texts that come with each call
//! - `bindings`: generated from `plugin-api/wit`
//! - `glue`: from the exported functions to the traits

#[cfg(any(test, all(feature = "allocator", target_family = "wasm")))]
mod allocator;
#[doc(hidden)]
pub mod bindings;
mod glue;
pub mod host;
pub mod rights;
pub mod topic;

use serde::de::DeserializeOwned;

pub use bindings::authenticate::exports::weirmq::plugin::authenticate::{
    Answer, Exchange, Request as AuthenticateRequest, Welcome,
};
pub use bindings::authorize::exports::weirmq::plugin::authorize::{
    Action, Decision, PublishAction, SubscribeAction,
};
pub use bindings::base::weirmq::plugin::types::{
    ClientPublisher, Content, Denial, Draft, FilterVerdict, Identity, Lease, Message, Pair, Properties,
    PublishRight, Publisher, Qos, Quotas, Rights, SubscribeRight, Version,
};
pub use bindings::lifecycle::exports::weirmq::plugin::lifecycle::{
    Connected, Delivery, Disconnected, Dropped, Event, EventKind,
};
pub use bindings::on_deliver::exports::weirmq::plugin::on_deliver::Verdict as DeliverVerdict;
pub use bindings::on_publish::exports::weirmq::plugin::on_publish::Verdict;
pub use bindings::persistence::exports::weirmq::plugin::persistence::Stored;

pub use bindings::store_backend::exports::weirmq::plugin::store_backend::{Change, Refusal};

/// The configuration of a plugin that has none: whatever is there is ignored.
pub use serde::de::IgnoredAny as NoConfig;

#[doc(hidden)]
pub use glue::{Export, Registered, Slot};

#[cfg(all(feature = "allocator", target_family = "wasm"))]
#[global_allocator]
static ALLOCATOR: allocator::BySize = allocator::BySize::new();

/// Reason code 0x86: the user name or the password is wrong.
pub const BAD_USER_NAME_OR_PASSWORD: u8 = 0x86;
/// Reason code 0x87: the client is not allowed to do this.
pub const NOT_AUTHORIZED: u8 = 0x87;
/// Reason code 0x8C: the Authentication Method is not supported, or does not fit.
pub const BAD_AUTHENTICATION_METHOD: u8 = 0x8c;
/// Reason code 0x83: refused for a reason that has no code of its own.
pub const IMPLEMENTATION_SPECIFIC_ERROR: u8 = 0x83;
/// Reason code 0x99: the payload is not what it should be.
pub const PAYLOAD_FORMAT_INVALID: u8 = 0x99;

/// What every plugin is.
pub trait Plugin: Sized + 'static {
    /// The plugin's table in the broker's configuration. Derive [`serde::Deserialize`] with
    /// `#[serde(deny_unknown_fields)]`, so that a misspelt key is an error that names it.
    type Config: DeserializeOwned;

    /// Makes an instance. The broker makes several, each for one call at a time.
    ///
    /// # Errors
    /// Why this configuration cannot be served, in words for the operator.
    fn new(config: Self::Config) -> Result<Self, String>;

    /// Is it fit to serve? Asked once after [`Plugin::new`].
    ///
    /// # Errors
    /// Why not, in words for the operator. The version that served before goes on serving.
    fn health(&mut self) -> Result<(), String> {
        Ok(())
    }
}

/// Hook point `authenticate`.
pub trait Authenticate: Plugin {
    /// Who is this? May take its time: only the connection that asks waits.
    fn authenticate(&mut self, request: AuthenticateRequest) -> Answer;
}

/// Hook point `authorize`.
pub trait Authorize: Plugin {
    /// May this client do that? An allow or a deny may be remembered for as long as the lease holds.
    fn authorize(&mut self, identity: Identity, action: Action) -> Decision;
}

/// Hook point `on-publish`.
pub trait OnPublish: Plugin {
    /// The topic filters whose messages it wants to see. Others cost nothing.
    fn topics(&mut self) -> Vec<String>;

    /// What is to become of this message?
    fn on_publish(&mut self, message: Message) -> Verdict;
}

/// Hook point `on-subscribe`.
pub trait OnSubscribe: Plugin {
    /// What is to become of this subscription? `filter` is as the client sent it.
    fn on_subscribe(&mut self, identity: Identity, filter: String, qos: Qos) -> FilterVerdict;
}

/// Hook point `on-unsubscribe`.
pub trait OnUnsubscribe: Plugin {
    /// What is to become of this? `filter` is as the client sent it.
    fn on_unsubscribe(&mut self, identity: Identity, filter: String) -> FilterVerdict;
}

/// Hook point `on-deliver`.
pub trait OnDeliver: Plugin {
    /// The topic filters whose messages it wants to see. Others cost nothing.
    fn topics(&mut self) -> Vec<String>;

    /// What is `receiver` to get of this message?
    fn on_deliver(&mut self, message: Message, receiver: Identity) -> DeliverVerdict;
}

/// Hook point `persistence`.
pub trait Persistence: Plugin {
    /// The topic filters whose messages it wants to see. Others cost nothing.
    fn topics(&mut self) -> Vec<String>;

    /// The message is about to be made durable. What is delivered now stays as it is.
    fn before_store(&mut self, message: Message) -> Stored;

    /// The message was read back as [`Persistence::before_store`] left it: answers the payload as it was before.
    ///
    /// # Errors
    /// Why it cannot be had, in words for the operator. The message is not delivered and stays where it is.
    fn after_load(&mut self, message: Message) -> Result<Vec<u8>, String>;
}

/// Hook point `lifecycle`.
pub trait Lifecycle: Plugin {
    /// The kinds of events that it wants to be told of. What nobody asks for costs nothing.
    fn events(&mut self) -> Vec<EventKind> {
        vec![EventKind::Connected, EventKind::Disconnected, EventKind::SessionEnded]
    }

    /// Something happened, `at_unix_ms` milliseconds after 1970-01-01T00:00:00Z.
    fn on_event(&mut self, event: Event, at_unix_ms: u64);
}

/// Hook point `timer`.
pub trait Timer: Plugin {
    /// How many milliseconds are to lie between two calls; at least 1,000.
    fn interval_ms(&mut self) -> u32;

    /// It is `at_unix_ms` milliseconds after 1970-01-01T00:00:00Z. One instance is called, whichever is free.
    fn on_timer(&mut self, at_unix_ms: u64);
}

/// Hook point `store-backend`: an ordered map from keys to values that outlives the broker. The interface says what the
/// broker relies on (`plugin-api/wit`): read it before you write one.
pub trait StoreBackend: Plugin {
    /// Opens the store; [`Plugin::new`] must not.
    ///
    /// # Errors
    /// Why it cannot be opened, in words for the operator.
    fn open(&mut self) -> Result<(), String>;

    /// What stands under a key.
    ///
    /// # Errors
    /// Why it cannot be read.
    fn get(&mut self, key: &[u8]) -> Result<Option<Vec<u8>>, Refusal>;

    /// Makes these changes, all or none, and durable before it returns. No key is in it twice.
    ///
    /// # Errors
    /// Why they were not made, or not for sure.
    fn write(&mut self, changes: &[Change]) -> Result<(), Refusal>;

    /// The keys that are not less than `start`, in the order of their bytes, with their values: at least one where
    /// there is one, at most `entries_max`, and none after those that have `bytes_max` bytes together.
    ///
    /// # Errors
    /// Why they cannot be read.
    fn scan(
        &mut self,
        start: &[u8],
        entries_max: u32,
        bytes_max: u32,
    ) -> Result<Vec<(Vec<u8>, Vec<u8>)>, Refusal>;
}

/// Hands a plugin to the broker: its type, and the hook points that it serves, out of `authenticate`,
/// `authorize`, `on_publish`, `on_deliver`, `on_subscribe`, `on_unsubscribe`, `persistence`, `lifecycle`,
/// `timer` and `store_backend`.
/// Once per crate, which must be a `cdylib`. The plugin's name and version are those of the crate.
///
/// What it needs to be granted can stand behind: `export!(Login: authenticate; manifest r#"{"http": ["idp.example.com"]}"#)`,
/// or `manifest include_str!("manifest.json")`. The keys are `http` (hosts), `publish` (topic filters), `secrets` (names),
/// `key-value` and `revoke` (`true`). A broker that does not grant it says so before the plugin is ever called.
#[macro_export]
macro_rules! export {
    ($plugin:ty: $($hook:ident),+ $(,)?; manifest $manifest:expr) => {
        $crate::export!($plugin: $($hook),+);
        const _: () = {
            const TEXT: &::core::primitive::str = $manifest;
            // A custom section of the component. Nothing refers to it.
            #[cfg_attr(target_arch = "wasm32", unsafe(link_section = "weirmq:manifest"))]
            #[used]
            static MANIFEST: [::core::primitive::u8; TEXT.len()] = {
                let mut bytes = [0; TEXT.len()];
                bytes.copy_from_slice(TEXT.as_bytes());
                bytes
            };
        };
    };
    ($plugin:ty: $($hook:ident),+ $(,)?) => {
        const _: () = {
            ::std::thread_local! {
                static INSTANCE: $crate::Slot<$plugin> = const { $crate::Slot::new() };
            }
            impl $crate::Registered for $plugin {
                const NAME: &'static str = ::core::env!("CARGO_PKG_NAME");
                const VERSION: &'static str = ::core::env!("CARGO_PKG_VERSION");
                fn slot<R>(work: impl ::core::ops::FnOnce(&$crate::Slot<Self>) -> R) -> R {
                    INSTANCE.with(work)
                }
            }
            type Exports = $crate::Export<$plugin>;
            $crate::bindings::base::export!(Exports with_types_in $crate::bindings::base);
            $($crate::bindings::$hook::export!(Exports with_types_in $crate::bindings::$hook);)+
        };
    };
}

impl Answer {
    /// Let it in on the terms of `lease`.
    #[must_use]
    pub fn allow(lease: Lease) -> Self {
        Self::Allow(Welcome { lease, data: None })
    }

    /// Refuse it: `reason_code` for the client, `reason` for the broker's log.
    pub fn deny(reason_code: u8, reason: impl Into<String>) -> Self {
        Self::Deny(Denial { reason_code, reason: reason.into() })
    }
}

impl Decision {
    /// No: `reason_code` for the client, `reason` for the broker's log.
    pub fn deny(reason_code: u8, reason: impl Into<String>) -> Self {
        Self::Deny(Denial { reason_code, reason: reason.into() })
    }
}

impl Verdict {
    /// No message: `reason_code` for the publisher, `reason` for the broker's log.
    pub fn drop(reason_code: u8, reason: impl Into<String>) -> Self {
        Self::Drop(Denial { reason_code, reason: reason.into() })
    }
}

impl FilterVerdict {
    /// Refuse it: `reason_code` for the client, `reason` for the broker's log.
    pub fn deny(reason_code: u8, reason: impl Into<String>) -> Self {
        Self::Deny(Denial { reason_code, reason: reason.into() })
    }
}

impl Lease {
    /// A lease for `principal` that says nothing about rights and does not expire.
    pub fn new(principal: impl Into<String>) -> Self {
        Self {
            principal: principal.into(),
            attributes: Vec::new(),
            expires_in_seconds: None,
            rights: None,
            quotas: None,
        }
    }

    /// The same with `rights` as the whole answer to what the client may do.
    #[must_use]
    pub fn with_rights(mut self, rights: Rights) -> Self {
        self.rights = Some(rights);
        self
    }

    /// The same, publishing at most so many messages per second.
    #[must_use]
    pub fn publishing_at_most(mut self, per_second: u32) -> Self {
        self.quotas.get_or_insert(Quotas::NONE).publish_rate_max = Some(per_second);
        self
    }

    /// The same, with at most so many subscriptions at a time.
    #[must_use]
    pub fn subscribing_at_most(mut self, subscriptions: u32) -> Self {
        self.quotas.get_or_insert(Quotas::NONE).subscriptions_max = Some(subscriptions);
        self
    }

    /// The same with one attribute more.
    #[must_use]
    pub fn with_attribute(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.attributes.push(Pair { name: name.into(), value: value.into() });
        self
    }

    /// The same, holding for `seconds`.
    #[must_use]
    pub fn expiring_in(mut self, seconds: u32) -> Self {
        self.expires_in_seconds = Some(seconds);
        self
    }
}

impl Properties {
    /// No properties at all.
    pub const NONE: Self = Self {
        payload_is_utf8: None,
        content_type: None,
        response_topic: None,
        correlation_data: None,
        user: Vec::new(),
    };

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.payload_is_utf8.is_none()
            && self.content_type.is_none()
            && self.response_topic.is_none()
            && self.correlation_data.is_none()
            && self.user.is_empty()
    }
}

impl Quotas {
    /// No bounds but the broker's own.
    pub const NONE: Self = Self { publish_rate_max: None, subscriptions_max: None };
}

impl Rights {
    /// No rights at all.
    #[must_use]
    pub fn none() -> Self {
        Self { publish: Vec::new(), subscribe: Vec::new() }
    }

    /// The same with the right to publish to the topics of `filter`, with any QoS and retained too.
    #[must_use]
    pub fn publish(mut self, filter: impl Into<String>) -> Self {
        self.publish.push(PublishRight { filter: filter.into(), qos_max: Qos::ExactlyOnce, retain: true });
        self
    }

    /// The same with the right to subscribe to what `filter` covers, with any QoS.
    #[must_use]
    pub fn subscribe(mut self, filter: impl Into<String>) -> Self {
        self.subscribe.push(SubscribeRight { filter: filter.into(), qos_max: Qos::ExactlyOnce });
        self
    }
}

/// The draft that repeats a message: change what is to be another, and answer [`Verdict::Replace`].
impl From<Message> for Draft {
    fn from(message: Message) -> Self {
        Self {
            topic: message.topic,
            payload: message.payload,
            qos: message.qos,
            retain: message.retain,
            properties: message.properties,
            expires_in_ms: message.expires_in_ms,
        }
    }
}
