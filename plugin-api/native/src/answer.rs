//! What a hook answers. Everything is copied by the broker at once.

use std::marker::PhantomData;

use crate::abi;

/// Where the answer to one call goes. Each method uses it up, because a call has one answer.
pub struct Answer<'a> {
    host: &'a abi::Host,
    reply: *mut abi::Reply,
}

/// Where a plugin says which topics it wants to see.
pub struct Topics<'a>(Answer<'a>);

impl<'a> Answer<'a> {
    pub(crate) const fn new(host: &'a abi::Host, reply: *mut abi::Reply) -> Self {
        Self { host, reply }
    }

    /// Yes.
    pub fn allow(self) {
        // SAFETY: the reply is that of the call that is under way; this is used up before it ends, and is not `Send`.
        unsafe { (self.host.allow)(self.reply) }
    }

    /// Let the client in on these terms.
    pub fn welcome(self, lease: &Lease<'_>) {
        // SAFETY: as in `allow`; the broker copies what it is shown.
        unsafe { (self.host.welcome)(self.reply, &lease.raw(), abi::Bytes::ABSENT) }
    }

    /// No: an MQTT 5 reason code of 0x80 or above for the client, and a text for the log.
    pub fn deny(self, code: u8, reason: &str) {
        // SAFETY: as in `welcome`.
        unsafe { (self.host.deny)(self.reply, code, abi::Text::text(reason)) }
    }

    /// Not mine to decide.
    pub fn next(self) {
        // SAFETY: as in `allow`.
        unsafe { (self.host.next)(self.reply) }
    }

    /// One more step of enhanced authentication, with this Authentication Data.
    pub fn proceed(self, data: &[u8]) {
        // SAFETY: as in `welcome`.
        unsafe { (self.host.proceed)(self.reply, abi::Bytes::of(data)) }
    }

    /// As it is.
    pub fn pass(self) {
        // SAFETY: as in `allow`.
        unsafe { (self.host.pass)(self.reply) }
    }

    /// These messages in its place, in this order.
    pub fn emit(self, drafts: &[Draft<'_>]) {
        for draft in drafts {
            // SAFETY: as in `welcome`.
            unsafe { (self.host.emit)(self.reply, &draft.0) }
        }
    }

    /// This filter in its place.
    pub fn rewrite(self, filter: &str) {
        // SAFETY: as in `welcome`.
        unsafe { (self.host.rewrite)(self.reply, abi::Text::text(filter)) }
    }

    /// This payload in its place.
    pub fn replace(self, payload: &[u8]) {
        // SAFETY: as in `welcome`.
        unsafe { (self.host.replace)(self.reply, abi::Bytes::of(payload)) }
    }

    /// Do not make it durable.
    pub fn skip(self) {
        // SAFETY: as in `allow`.
        unsafe { (self.host.skip)(self.reply) }
    }

    /// Not fit to serve, or what was stored cannot be read.
    pub fn refuse(self, reason: &str) {
        // SAFETY: as in `welcome`.
        unsafe { (self.host.refuse)(self.reply, abi::Text::text(reason)) }
    }

    /// What stands under a key, where something does.
    pub(crate) fn value(self, value: Option<&[u8]>) {
        // SAFETY: as in `welcome`.
        unsafe { (self.host.value)(self.reply, abi::Bytes::optional(value)) }
    }

    /// A key and its value. Whether another may follow.
    pub(crate) fn entry(&mut self, key: &[u8], value: &[u8]) -> bool {
        // SAFETY: as in `welcome`.
        unsafe { (self.host.entry)(self.reply, abi::Bytes::of(key), abi::Bytes::of(value)) == 1 }
    }

    /// A disk or a quota is full.
    pub(crate) fn full(self, reason: &str) {
        // SAFETY: as in `welcome`.
        unsafe { (self.host.full)(self.reply, abi::Text::text(reason)) }
    }

    pub(crate) const fn topics(self) -> Topics<'a> {
        Topics(self)
    }
}

impl Topics<'_> {
    /// A filter whose messages the plugin wants to see.
    pub fn want(&mut self, filter: &str) {
        // SAFETY: as in `Answer::welcome`.
        unsafe { (self.0.host.want)(self.0.reply, abi::Text::text(filter)) }
    }
}

/// The terms on which a client is let in.
#[derive(Debug, Clone, Default)]
pub struct Lease<'a> {
    /// Who it is: at least one character.
    pub principal: &'a str,
    /// How long it holds; `None` is as long as the connection.
    pub expires_in_seconds: Option<u32>,
    rights: Option<(Vec<abi::PublishRight<'a>>, Vec<abi::SubscribeRight<'a>>)>,
}

impl<'a> Lease<'a> {
    /// For `principal`, as long as the connection, whose rights the authorize hooks know.
    #[must_use]
    pub fn new(principal: &'a str) -> Self {
        Self { principal, ..Self::default() }
    }

    /// With the right to publish to `filter`. What no right is given for is denied from then on.
    #[must_use]
    pub fn publish(mut self, filter: &'a str, qos_max: u8, retain: bool) -> Self {
        let right = abi::PublishRight { filter: abi::Text::text(filter), qos_max, retain: retain.into() };
        self.rights.get_or_insert_default().0.push(right);
        self
    }

    /// With the right to subscribe to what `filter` covers. What no right is given for is denied from then on.
    #[must_use]
    pub fn subscribe(mut self, filter: &'a str, qos_max: u8) -> Self {
        let right = abi::SubscribeRight { filter: abi::Text::text(filter), qos_max };
        self.rights.get_or_insert_default().1.push(right);
        self
    }

    fn raw(&self) -> abi::Lease<'_> {
        let (publish, subscribe) =
            self.rights.as_ref().map_or((&[][..], &[][..]), |(publish, subscribe)| (publish, subscribe));
        abi::Lease {
            principal: abi::Text::text(self.principal),
            attributes: std::ptr::null(),
            attributes_count: 0,
            publish: publish.as_ptr(),
            publish_count: publish.len(),
            subscribe: subscribe.as_ptr(),
            subscribe_count: subscribe.len(),
            expires_in_seconds: self.expires_in_seconds.unwrap_or(0),
            publish_rate_max: 0,
            subscriptions_max: 0,
            has_expires_in: self.expires_in_seconds.is_some().into(),
            has_rights: self.rights.is_some().into(),
        }
    }
}

/// The parts of a message that a plugin may choose.
#[derive(Debug, Clone)]
pub struct Draft<'a>(abi::Draft<'a>, PhantomData<&'a abi::Message<'a>>);

impl<'a> Draft<'a> {
    pub(crate) fn of(message: &'a abi::Message<'a>) -> Self {
        let draft = abi::Draft {
            topic: message.topic,
            payload: message.payload,
            properties: message.properties,
            expires_in_ms: 0,
            has_expires_in: 0,
            qos: message.qos,
            retain: message.retain,
        };
        Self(draft, PhantomData)
    }

    /// To this topic.
    #[must_use]
    pub const fn topic(mut self, topic: &'a str) -> Self {
        self.0.topic = abi::Text::text(topic);
        self
    }

    /// With this payload. Its properties stay: a payload that is no text must not say that it is.
    #[must_use]
    pub const fn payload(mut self, payload: &'a [u8]) -> Self {
        self.0.payload = abi::Bytes::of(payload);
        self
    }
}
