//! The types of `plugin-api/c/weirmq_plugin.h`, member by member. That header says what they mean; a test of the
//! host holds every size and offset to it.

use std::ffi::c_void;
use std::marker::PhantomData;
use std::mem::offset_of;
use std::slice;

/// The major version of the interface. It is part of the name of the table that a plugin exports.
pub const MAJOR: u16 = 1;
/// The minor version of the interface.
pub const MINOR: u16 = 1;
/// Both, as tables carry them.
pub const ABI: u32 = (MAJOR as u32) << 16 | MINOR as u32;
/// The name of the table that a plugin exports.
pub const TABLE: &str = "weirmq_plugin_v1";

/// [`Login::version`] and [`Event::version`]: MQTT 3.1.1.
pub const V3_1_1: u8 = 4;
/// [`Login::version`] and [`Event::version`]: MQTT 5.0.
pub const V5_0: u8 = 5;
/// [`Properties::payload_format`]: not said.
pub const FORMAT_ABSENT: u8 = 0;
/// [`Properties::payload_format`]: any bytes.
pub const FORMAT_BYTES: u8 = 1;
/// [`Properties::payload_format`]: UTF-8 text.
pub const FORMAT_UTF8: u8 = 2;
/// [`Message::publisher_kind`]: a client.
pub const BY_CLIENT: u8 = 0;
/// [`Message::publisher_kind`]: a rule.
pub const BY_RULE: u8 = 1;
/// [`Message::publisher_kind`]: a plugin.
pub const BY_PLUGIN: u8 = 2;
/// [`Message::publisher_kind`]: the broker.
pub const BY_BROKER: u8 = 3;
/// [`Action::kind`]: publish a message.
pub const PUBLISH: u8 = 0;
/// [`Action::kind`]: subscribe to a filter.
pub const SUBSCRIBE: u8 = 1;
/// [`Event::kind`]: a client was let in.
pub const CONNECTED: u8 = 0;
/// [`Event::kind`]: a connection ended.
pub const DISCONNECTED: u8 = 1;
/// [`Event::kind`]: a session ended.
pub const SESSION_ENDED: u8 = 2;
/// [`Event::kind`]: a message was not delivered.
pub const MESSAGE_DROPPED: u8 = 3;
/// [`Event::kind`]: a message was handed to the connection of a client.
pub const MESSAGE_DELIVERED: u8 = 4;
/// [`Event::kind`]: a client has acknowledged a message.
pub const MESSAGE_ACKED: u8 = 5;

/// Bytes that belong to the other side, as a C structure has them: `T` is [`c_char`](std::ffi::c_char) or `u8`.
/// What is absent has no `data`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// The first byte; null where it is absent.
    pub data: *const u8,
    /// How many.
    pub bytes: usize,
    owner: PhantomData<&'a [u8]>,
}

/// UTF-8 text.
pub type Text<'a> = View<'a>;
/// Any bytes.
pub type Bytes<'a> = View<'a>;

impl<'a> View<'a> {
    /// Absent.
    pub const ABSENT: Self = Self { data: std::ptr::null(), bytes: 0, owner: PhantomData };

    /// Of `bytes`.
    #[must_use]
    pub const fn of(bytes: &'a [u8]) -> Self {
        Self { data: bytes.as_ptr(), bytes: bytes.len(), owner: PhantomData }
    }

    /// Of `text`.
    #[must_use]
    pub const fn text(text: &'a str) -> Self {
        Self::of(text.as_bytes())
    }

    /// Of `text`, where there is one.
    #[must_use]
    pub fn optional(bytes: Option<&'a [u8]>) -> Self {
        bytes.map_or(Self::ABSENT, Self::of)
    }

    /// What it shows; `None` where it is absent.
    ///
    /// # Safety
    /// `data` is null, or points to `bytes` bytes that stay as they are for `'a`.
    #[must_use]
    pub const unsafe fn get(self) -> Option<&'a [u8]> {
        if self.data.is_null() {
            return None;
        }
        // SAFETY: as the caller promises.
        Some(unsafe { slice::from_raw_parts(self.data, self.bytes) })
    }
}

// SAFETY: it is a shared slice, or what the header promises to be one.
unsafe impl Send for View<'_> {}
// SAFETY: as for `Send`.
unsafe impl Sync for View<'_> {}

/// Several of something, as a C structure has them in two members: a pointer and a count.
///
/// # Safety
/// `first` is null, or points to `count` values that stay as they are for `'a`.
#[must_use]
pub const unsafe fn several<'a, T>(first: *const T, count: usize) -> &'a [T] {
    if first.is_null() {
        return &[];
    }
    // SAFETY: as the caller promises.
    unsafe { slice::from_raw_parts(first, count) }
}

/// `weirmq_pair`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Pair<'a> {
    /// The name.
    pub name: Text<'a>,
    /// The value.
    pub value: Text<'a>,
}

/// `weirmq_properties`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs, reason = "the header says it")]
pub struct Properties<'a> {
    pub content_type: Text<'a>,
    pub response_topic: Text<'a>,
    pub correlation_data: Bytes<'a>,
    pub user: *const Pair<'a>,
    pub user_count: usize,
    pub payload_format: u8,
}

/// `weirmq_message`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs, reason = "the header says it")]
pub struct Message<'a> {
    pub topic: Text<'a>,
    pub payload: Bytes<'a>,
    pub properties: Properties<'a>,
    pub publisher: Text<'a>,
    pub principal: Text<'a>,
    pub received_unix_ms: u64,
    pub expires_in_ms: u64,
    pub has_expires_in: u8,
    pub publisher_kind: u8,
    pub qos: u8,
    pub retain: u8,
    pub hops: u8,
}

/// `weirmq_draft`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs, reason = "the header says it")]
pub struct Draft<'a> {
    pub topic: Text<'a>,
    pub payload: Bytes<'a>,
    pub properties: Properties<'a>,
    pub expires_in_ms: u64,
    pub has_expires_in: u8,
    pub qos: u8,
    pub retain: u8,
}

/// `weirmq_identity`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs, reason = "the header says it")]
pub struct Identity<'a> {
    pub client_id: Text<'a>,
    pub username: Text<'a>,
    pub peer: Text<'a>,
    pub listener: Text<'a>,
    pub principal: Text<'a>,
    pub attributes: *const Pair<'a>,
    pub attributes_count: usize,
}

/// `weirmq_exchange`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs, reason = "the header says it")]
pub struct Exchange<'a> {
    pub id: u64,
    pub method: Text<'a>,
    pub data: Bytes<'a>,
    pub step: u32,
    pub renewal: u8,
}

/// `weirmq_login`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs, reason = "the header says it")]
pub struct Login<'a> {
    pub client_id: Text<'a>,
    pub username: Text<'a>,
    pub password: Bytes<'a>,
    pub peer: Text<'a>,
    pub listener: Text<'a>,
    pub user_properties: *const Pair<'a>,
    pub user_properties_count: usize,
    pub exchange: *const Exchange<'a>,
    pub version: u8,
    pub clean_start: u8,
}

/// `weirmq_publish_right`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs, reason = "the header says it")]
pub struct PublishRight<'a> {
    pub filter: Text<'a>,
    pub qos_max: u8,
    pub retain: u8,
}

/// `weirmq_subscribe_right`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs, reason = "the header says it")]
pub struct SubscribeRight<'a> {
    pub filter: Text<'a>,
    pub qos_max: u8,
}

/// `weirmq_lease`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs, reason = "the header says it")]
pub struct Lease<'a> {
    pub principal: Text<'a>,
    pub attributes: *const Pair<'a>,
    pub attributes_count: usize,
    pub publish: *const PublishRight<'a>,
    pub publish_count: usize,
    pub subscribe: *const SubscribeRight<'a>,
    pub subscribe_count: usize,
    pub expires_in_seconds: u32,
    pub publish_rate_max: u32,
    pub subscriptions_max: u32,
    pub has_expires_in: u8,
    pub has_rights: u8,
}

/// `weirmq_action`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs, reason = "the header says it")]
pub struct Action<'a> {
    pub topic: Text<'a>,
    pub share: Text<'a>,
    pub kind: u8,
    pub qos: u8,
    pub retain: u8,
}

/// `weirmq_event`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs, reason = "the header says it")]
pub struct Event<'a> {
    pub identity: *const Identity<'a>,
    pub client_id: Text<'a>,
    pub topic: Text<'a>,
    pub reason: Text<'a>,
    pub at_unix_ms: u64,
    pub kind: u8,
    pub version: u8,
}

/// `weirmq_change`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs, reason = "the header says it")]
pub struct Change<'a> {
    pub key: Bytes<'a>,
    pub value: Bytes<'a>,
}

/// `weirmq_context`: the broker's own.
#[repr(C)]
#[derive(Debug)]
pub struct Context {
    private: [u8; 0],
}

/// `weirmq_reply`: the broker's own.
#[repr(C)]
#[derive(Debug)]
pub struct Reply {
    private: [u8; 0],
}

/// `weirmq_host`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs, reason = "the header says it")]
pub struct Host {
    pub abi: u32,
    pub bytes: u32,
    pub log: unsafe extern "C" fn(*const Context, u8, Text<'_>),
    pub config: unsafe extern "C" fn(*const Context, Text<'_>) -> Text<'static>,
    pub now_unix_ms: unsafe extern "C" fn() -> u64,
    pub monotonic_us: unsafe extern "C" fn() -> u64,
    pub allow: unsafe extern "C" fn(*mut Reply),
    pub welcome: unsafe extern "C" fn(*mut Reply, *const Lease<'_>, Bytes<'_>),
    pub deny: unsafe extern "C" fn(*mut Reply, u8, Text<'_>),
    pub next: unsafe extern "C" fn(*mut Reply),
    pub proceed: unsafe extern "C" fn(*mut Reply, Bytes<'_>),
    pub pass: unsafe extern "C" fn(*mut Reply),
    pub emit: unsafe extern "C" fn(*mut Reply, *const Draft<'_>),
    pub rewrite: unsafe extern "C" fn(*mut Reply, Text<'_>),
    pub replace: unsafe extern "C" fn(*mut Reply, Bytes<'_>),
    pub skip: unsafe extern "C" fn(*mut Reply),
    pub refuse: unsafe extern "C" fn(*mut Reply, Text<'_>),
    pub want: unsafe extern "C" fn(*mut Reply, Text<'_>),
    pub value: unsafe extern "C" fn(*mut Reply, Bytes<'_>),
    pub entry: unsafe extern "C" fn(*mut Reply, Bytes<'_>, Bytes<'_>) -> u8,
    pub full: unsafe extern "C" fn(*mut Reply, Text<'_>),
}

/// What `create` of a [`Table`] is.
pub type Create = unsafe extern "C" fn(*const Host, *const Context, Text<'_>, *mut *mut c_void, *mut Reply);
/// What `destroy` of a [`Table`] is.
pub type Destroy = unsafe extern "C" fn(*mut c_void);
/// What `health`, `backend_open` and the `..._topics` of a [`Table`] are.
pub type Ask = unsafe extern "C" fn(*mut c_void, *const Host, *mut Reply);
/// What `authenticate` of a [`Table`] is.
pub type Authenticate = unsafe extern "C" fn(*mut c_void, *const Login<'_>, *const Host, *mut Reply);
/// What `authorize` of a [`Table`] is.
pub type Authorize =
    unsafe extern "C" fn(*mut c_void, *const Identity<'_>, *const Action<'_>, *const Host, *mut Reply);
/// What the hooks of a [`Table`] are that are given a message and nothing else.
pub type OnMessage = unsafe extern "C" fn(*mut c_void, *const Message<'_>, *const Host, *mut Reply);
/// What `on_deliver` of a [`Table`] is.
pub type OnDeliver =
    unsafe extern "C" fn(*mut c_void, *const Message<'_>, *const Identity<'_>, *const Host, *mut Reply);
/// What `on_subscribe` of a [`Table`] is.
pub type OnSubscribe =
    unsafe extern "C" fn(*mut c_void, *const Identity<'_>, Text<'_>, u8, *const Host, *mut Reply);
/// What `on_unsubscribe` of a [`Table`] is.
pub type OnUnsubscribe =
    unsafe extern "C" fn(*mut c_void, *const Identity<'_>, Text<'_>, *const Host, *mut Reply);
/// What `on_event` of a [`Table`] is.
pub type OnEvent = unsafe extern "C" fn(*mut c_void, *const Event<'_>, *const Host);
/// What `on_timer` of a [`Table`] is.
pub type OnTimer = unsafe extern "C" fn(*mut c_void, u64, *const Host);
/// What `backend_get` of a [`Table`] is.
pub type BackendGet = unsafe extern "C" fn(*mut c_void, Bytes<'_>, *const Host, *mut Reply);
/// What `backend_write` of a [`Table`] is.
pub type BackendWrite = unsafe extern "C" fn(*mut c_void, *const Change<'_>, usize, *const Host, *mut Reply);
/// What `backend_scan` of a [`Table`] is.
pub type BackendScan = unsafe extern "C" fn(*mut c_void, Bytes<'_>, usize, *const Host, *mut Reply);

/// `weirmq_plugin`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs, reason = "the header says it")]
pub struct Table {
    pub abi: u32,
    pub bytes: u32,
    pub name: Text<'static>,
    pub version: Text<'static>,
    pub events: u32,
    pub timer_interval_ms: u32,
    pub create: Option<Create>,
    pub destroy: Option<Destroy>,
    pub health: Option<Ask>,
    pub authenticate: Option<Authenticate>,
    pub authorize: Option<Authorize>,
    pub publish_topics: Option<Ask>,
    pub on_publish: Option<OnMessage>,
    pub deliver_topics: Option<Ask>,
    pub on_deliver: Option<OnDeliver>,
    pub on_subscribe: Option<OnSubscribe>,
    pub on_unsubscribe: Option<OnUnsubscribe>,
    pub store_topics: Option<Ask>,
    pub before_store: Option<OnMessage>,
    pub after_load: Option<OnMessage>,
    pub on_event: Option<OnEvent>,
    pub on_timer: Option<OnTimer>,
    pub backend_open: Option<Ask>,
    pub backend_get: Option<BackendGet>,
    pub backend_write: Option<BackendWrite>,
    pub backend_scan: Option<BackendScan>,
}

impl Table {
    /// A table of this version that serves nothing.
    #[must_use]
    pub const fn empty(name: &'static str, version: &'static str) -> Self {
        Self {
            abi: ABI,
            bytes: size_of::<Self>() as u32,
            name: Text::text(name),
            version: Text::text(version),
            events: 0,
            timer_interval_ms: 0,
            create: None,
            destroy: None,
            health: None,
            authenticate: None,
            authorize: None,
            publish_topics: None,
            on_publish: None,
            deliver_topics: None,
            on_deliver: None,
            on_subscribe: None,
            on_unsubscribe: None,
            store_topics: None,
            before_store: None,
            after_load: None,
            on_event: None,
            on_timer: None,
            backend_open: None,
            backend_get: None,
            backend_write: None,
            backend_scan: None,
        }
    }

    /// How many bytes a table of a minor version of this major version has at least.
    #[must_use]
    pub const fn bytes_of(minor: u16) -> usize {
        if minor == 0 { offset_of!(Self, backend_open) } else { size_of::<Self>() }
    }
}
