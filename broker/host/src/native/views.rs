//! What the broker shows, as C structures. They point into what the call was given and live as long.

use weirmq_native::abi;

use crate::bindings::exports::weirmq::plugin as hooks;
use crate::bindings::weirmq::plugin::types;

/// Pairs as they are passed.
pub(super) fn pairs<'a>(pairs: &'a [types::PairParam<'a>]) -> Vec<abi::Pair<'a>> {
    let view = |pair: &types::PairParam<'a>| abi::Pair {
        name: abi::Text::text(pair.name),
        value: abi::Text::text(pair.value),
    };
    pairs.iter().map(view).collect()
}

fn text(text: Option<&str>) -> abi::Text<'_> {
    abi::Text::optional(text.map(str::as_bytes))
}

pub(super) const fn qos(qos: types::Qos) -> u8 {
    match qos {
        types::Qos::AtMostOnce => 0,
        types::Qos::AtLeastOnce => 1,
        types::Qos::ExactlyOnce => 2,
    }
}

pub(super) const fn version(version: types::Version) -> u8 {
    match version {
        types::Version::V311 => abi::V3_1_1,
        types::Version::V50 => abi::V5_0,
    }
}

/// `who` as it is passed; `attributes` are its attributes.
pub(super) fn identity<'a>(who: &types::Identity<'a>, attributes: &'a [abi::Pair<'a>]) -> abi::Identity<'a> {
    abi::Identity {
        client_id: abi::Text::text(who.client_id),
        username: text(who.username),
        peer: text(who.peer),
        listener: abi::Text::text(who.listener),
        principal: abi::Text::text(who.principal),
        attributes: attributes.as_ptr(),
        attributes_count: attributes.len(),
    }
}

/// `message` as it is passed; `user` are its User Properties.
pub(super) fn message<'a>(message: &types::Message<'a>, user: &'a [abi::Pair<'a>]) -> abi::Message<'a> {
    let properties = &message.properties;
    let (publisher_kind, publisher, principal) = match &message.publisher {
        types::Publisher::Client(client) => (abi::BY_CLIENT, Some(client.client_id), Some(client.principal)),
        types::Publisher::Rule(name) => (abi::BY_RULE, Some(*name), None),
        types::Publisher::Plugin(name) => (abi::BY_PLUGIN, Some(*name), None),
        types::Publisher::Broker => (abi::BY_BROKER, None, None),
    };
    abi::Message {
        topic: abi::Text::text(message.topic),
        payload: abi::Bytes::of(message.payload),
        properties: abi::Properties {
            content_type: text(properties.content_type),
            response_topic: text(properties.response_topic),
            correlation_data: abi::Bytes::optional(properties.correlation_data),
            user: user.as_ptr(),
            user_count: user.len(),
            payload_format: match properties.payload_is_utf8 {
                None => abi::FORMAT_ABSENT,
                Some(false) => abi::FORMAT_BYTES,
                Some(true) => abi::FORMAT_UTF8,
            },
        },
        publisher: text(publisher),
        principal: text(principal),
        received_unix_ms: message.received_unix_ms,
        expires_in_ms: message.expires_in_ms.unwrap_or(0),
        has_expires_in: message.expires_in_ms.is_some().into(),
        publisher_kind,
        qos: qos(message.qos),
        retain: message.retain.into(),
        hops: message.hops,
    }
}

/// `exchange` as it is passed.
pub(super) fn exchange<'a>(exchange: &hooks::authenticate::Exchange<'a>) -> abi::Exchange<'a> {
    abi::Exchange {
        id: exchange.id,
        method: abi::Text::text(exchange.method),
        data: abi::Bytes::optional(exchange.data),
        step: exchange.step,
        renewal: exchange.renewal.into(),
    }
}

/// `request` as it is passed; `user` are its User Properties.
pub(super) fn login<'a>(
    request: &hooks::authenticate::Request<'a>,
    user: &'a [abi::Pair<'a>],
    exchange: Option<&'a abi::Exchange<'a>>,
) -> abi::Login<'a> {
    abi::Login {
        client_id: abi::Text::text(request.client_id),
        username: text(request.username),
        password: abi::Bytes::optional(request.password),
        peer: text(request.peer),
        listener: abi::Text::text(request.listener),
        user_properties: user.as_ptr(),
        user_properties_count: user.len(),
        exchange: exchange.map_or(std::ptr::null(), std::ptr::from_ref),
        version: version(request.version),
        clean_start: request.clean_start.into(),
    }
}

/// `action` as it is passed.
pub(super) fn action<'a>(action: &hooks::authorize::Action<'a>) -> abi::Action<'a> {
    use hooks::authorize::Action;
    match action {
        Action::Publish(action) => abi::Action {
            topic: abi::Text::text(action.topic),
            share: abi::Text::ABSENT,
            kind: abi::PUBLISH,
            qos: qos(action.qos),
            retain: action.retain.into(),
        },
        Action::Subscribe(action) => abi::Action {
            topic: abi::Text::text(action.filter),
            share: text(action.share),
            kind: abi::SUBSCRIBE,
            qos: qos(action.qos),
            retain: 0,
        },
    }
}

/// Whom `event` is about, where that is somebody who is, or was, connected.
pub(super) fn concerned<'e, 'a>(event: &'e hooks::lifecycle::Event<'a>) -> Option<&'e types::Identity<'a>> {
    use hooks::lifecycle::Event;
    match event {
        Event::Connected(event) => Some(&event.identity),
        Event::Disconnected(event) => Some(&event.identity),
        _ => None,
    }
}

/// `event` as it is passed; `identity` is whom it is about.
pub(super) fn event<'a>(
    event: &hooks::lifecycle::Event<'a>,
    identity: Option<&'a abi::Identity<'a>>,
    at_unix_ms: u64,
) -> abi::Event<'a> {
    use hooks::lifecycle::Event;
    let told =
        |kind, client_id: Option<&'a str>, topic: Option<&'a str>, reason: Option<&'a str>| abi::Event {
            identity: identity.map_or(std::ptr::null(), std::ptr::from_ref),
            client_id: text(client_id),
            topic: text(topic),
            reason: text(reason),
            at_unix_ms,
            kind,
            version: 0,
        };
    match event {
        Event::Connected(event) => abi::Event {
            version: version(event.version),
            ..told(abi::CONNECTED, Some(event.identity.client_id), None, None)
        },
        Event::Disconnected(event) => {
            told(abi::DISCONNECTED, Some(event.identity.client_id), None, Some(event.reason))
        }
        Event::SessionEnded(client_id) => told(abi::SESSION_ENDED, Some(client_id), None, None),
        Event::MessageDropped(event) => {
            told(abi::MESSAGE_DROPPED, event.client_id, Some(event.topic), Some(event.reason))
        }
        Event::MessageDelivered(event) => {
            told(abi::MESSAGE_DELIVERED, Some(event.client_id), Some(event.topic), None)
        }
        Event::MessageAcked(event) => {
            told(abi::MESSAGE_ACKED, Some(event.client_id), Some(event.topic), None)
        }
    }
}
