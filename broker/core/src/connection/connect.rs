//! CONNECT, the login, and AUTH: MQTT 5's enhanced authentication and its renewal.

use std::num::NonZeroU16;
use std::sync::Arc;

use bytes::Bytes;
use tracing::info;
use weirmq_wire::{Auth, ConnAck, Connect, DecodeError, Packet, PacketType, QoS, ReasonCode, Version};

use super::owed::Owe;
use super::pace::Pace;
use super::{Connection, Enhanced, Open, Peer, Phase, Resolved};
use crate::answer::Terms;
use crate::broker::{Broker, Opening, TooManySessions};
use crate::chain::{self, Verdict};
use crate::counters::Limit;
use crate::hook::{
    Action, AuthExchange, AuthenticateRequest, Authentication, Denial, Event, Identity, Lease,
};
use crate::session::{Aliases, Live, SessionExpiry, Will};
use crate::time::Now;
use crate::topic::{Subscribable, TopicName};

/// A login under way.
pub(super) struct Handshake {
    connect: Connect,
    client_id: Arc<str>,
    will: Option<Box<Will>>,
    exchange: Option<Exchange>,
}

/// Where an exchange of AUTH packets stands.
#[derive(Debug, Clone)]
pub(super) struct Exchange {
    id: u64,
    step: u32,
    method: Box<str>,
}

impl Handshake {
    /// Whether the client authenticates with AUTH packets.
    pub(super) fn is_enhanced(&self) -> bool {
        self.exchange.is_some()
    }
}

impl Exchange {
    fn request(&self, data: Option<Bytes>, renewal: bool) -> AuthExchange {
        AuthExchange { id: self.id, step: self.step, method: self.method.clone(), data, renewal }
    }
}

/// What the hooks have decided about a CONNECT.
pub(super) enum Login {
    Allowed {
        lease: Lease,
        data: Option<Bytes>,
        /// Of the subscriptions that wait for the client, those that it may no longer have.
        lost: Vec<Subscribable>,
    },
    Denied(Denial),
    Continue {
        data: Option<Bytes>,
    },
}

/// What a session's expiry comes to.
pub(super) fn granted_expiry(broker: &Broker, asked_s: u32) -> SessionExpiry {
    let max_s = broker.limits().session_expiry_s_max;
    if asked_s > max_s {
        broker.counters().limits.count(Limit::SessionExpiry);
    }
    SessionExpiry::from_seconds(asked_s.min(max_s))
}

impl Connection {
    pub(super) fn connect(&mut self, connect: Connect, now: Now) {
        let Phase::Connecting { until } = self.phase else { return };
        self.terms = Terms::of(&connect);
        let client_id: Arc<str> = if connect.client_id.is_empty() {
            if connect.version == Version::V311 && !connect.clean_start {
                let reason = "empty client id without Clean Session";
                return self.refuse(ReasonCode::ClientIdentifierNotValid, reason, now);
            }
            self.assigned_id()
        } else {
            Arc::from(&*connect.client_id)
        };
        let will = match self.will_of(&connect) {
            Ok(will) => will,
            Err((code, reason)) => return self.refuse(code, &reason, now),
        };
        let exchange = connect.authentication_method.as_ref().map(|method| Exchange {
            id: self.broker.next_number(),
            step: 0,
            method: method.clone(),
        });
        let data = connect.authentication_data.clone();
        let handshake = Handshake { connect, client_id, will, exchange };
        self.phase = Phase::LoggingIn { until, handshake: Box::new(handshake) };
        self.ask_login(data, now);
    }

    /// AUTH before CONNACK: the client answers what it was asked `[MQTT-4.12.0-3]`.
    pub(super) fn login_goes_on(&mut self, auth: Auth, now: Now) {
        let Phase::LoggingIn { handshake, .. } = &mut self.phase else { return };
        let expected = handshake.exchange.as_mut().filter(|exchange| {
            auth.code == ReasonCode::ContinueAuthentication
                && auth.method.as_deref() == Some(&*exchange.method)
        });
        let Some(exchange) = expected else {
            let reason = "AUTH that does not go on with the exchange";
            return self.refuse(ReasonCode::ProtocolError, reason, now);
        };
        exchange.step += 1;
        self.ask_login(auth.data, now);
    }

    fn ask_login(&mut self, data: Option<Bytes>, now: Now) {
        let Phase::LoggingIn { handshake, .. } = &self.phase else { return };
        let exchange = handshake.exchange.as_ref().map(|exchange| exchange.request(data, false));
        let request = Arc::new(self.authenticate_request(handshake, exchange));
        let will = handshake.will.as_ref().map(|will| Action::Publish {
            topic: will.topic.clone(),
            qos: will.qos,
            retain: will.retain,
        });
        let (broker, chains) = (Arc::clone(&self.broker), self.broker.chains());
        let Peer { address: peer, listener } = self.peer();
        let question = async move {
            let (lease, data) = match chain::authenticate(&chains, &request).await {
                Authentication::Allow { lease, data } => (lease, data),
                Authentication::Deny(denial) => return Resolved::Login(Box::new(Login::Denied(denial))),
                Authentication::Continue { data } => {
                    return Resolved::Login(Box::new(Login::Continue { data }));
                }
                Authentication::Next => {
                    let denial = Denial::new(ReasonCode::NotAuthorized, "nobody decided");
                    return Resolved::Login(Box::new(Login::Denied(denial)));
                }
            };
            let identity = || {
                Arc::new(Identity {
                    client_id: Arc::clone(&request.client_id),
                    username: request.username.clone(),
                    peer,
                    listener: Arc::clone(&listener),
                    lease: lease.clone(),
                })
            };
            // A will that may not be published is refused now, while the client is there to be told.
            if let Some(action) = will {
                let identity = identity();
                if let Verdict::Denied(denial) = chain::authorize(&chains, &identity, action).await {
                    return Resolved::Login(Box::new(Login::Denied(denial)));
                }
            }
            let waiting = if request.clean_start {
                Vec::new()
            } else {
                broker.waiting_subscriptions(&request.client_id)
            };
            let lost = if waiting.is_empty() {
                Vec::new()
            } else {
                chain::denied_subscriptions(&chains, &identity(), waiting).await
            };
            Resolved::Login(Box::new(Login::Allowed { lease, data, lost }))
        };
        self.ask(Box::pin(question), now);
    }

    fn authenticate_request(
        &self,
        handshake: &Handshake,
        exchange: Option<AuthExchange>,
    ) -> AuthenticateRequest {
        let connect = &handshake.connect;
        let Peer { address: peer, listener } = self.peer();
        AuthenticateRequest {
            client_id: Arc::clone(&handshake.client_id),
            username: connect.username.as_deref().map(Box::from),
            password: connect.password.clone(),
            version: connect.version,
            clean_start: connect.clean_start,
            peer,
            listener,
            user_properties: connect.user_properties.clone(),
            exchange,
        }
    }

    /// The will of a CONNECT, checked like a message.
    fn will_of(&self, connect: &Connect) -> Result<Option<Box<Will>>, (ReasonCode, String)> {
        let Some(will) = &connect.will else { return Ok(None) };
        let topic = TopicName::new(&will.topic)
            .map_err(|error| (ReasonCode::MalformedPacket, format!("the topic of the will: {error}")))?;
        if let Some(fault) = self.broker.topic_fault(&topic) {
            return Err((ReasonCode::TopicNameInvalid, format!("the topic of the will {fault}")));
        }
        let capabilities = &self.broker.capabilities;
        if will.qos > capabilities.qos_max {
            return Err((ReasonCode::QoSNotSupported, "the QoS of the will is turned off".to_owned()));
        }
        if will.retain && !capabilities.retain {
            return Err((ReasonCode::RetainNotSupported, "retained messages are turned off".to_owned()));
        }
        let delay_s_max = self.broker.limits().will_delay_s_max;
        if will.delay_interval_s > delay_s_max {
            self.broker.counters().limits.count(Limit::WillDelay);
        }
        Ok(Some(Box::new(Will {
            topic,
            // It is kept for long, and must not keep the read buffer that it came in.
            payload: Bytes::copy_from_slice(&will.payload),
            qos: will.qos,
            retain: will.retain,
            properties: will.properties.clone(),
            expiry_s: will.message_expiry_interval_s,
            delay_s: will.delay_interval_s.min(delay_s_max),
        })))
    }

    pub(super) fn login_decided(&mut self, login: Login, now: Now) {
        let Phase::LoggingIn { handshake, .. } = &self.phase else { return };
        match login {
            Login::Denied(denial) => {
                let code = if denial.code.valid_in(PacketType::ConnAck) && denial.code.is_error() {
                    denial.code
                } else {
                    ReasonCode::NotAuthorized
                };
                self.refuse(code, &denial.reason, now);
            }
            Login::Continue { data } => {
                let Some(exchange) = &handshake.exchange else {
                    let reason = "a hook asks for AUTH, but the client did not offer enhanced authentication";
                    return self.refuse(ReasonCode::NotAuthorized, reason, now);
                };
                let mut auth = Auth::new(ReasonCode::ContinueAuthentication, Some(exchange.method.clone()));
                auth.data = data;
                if !self.send(Packet::Auth(Box::new(auth))) {
                    let reason = "AUTH is larger than the client's Maximum Packet Size";
                    self.refuse(ReasonCode::PacketTooLarge, reason, now);
                }
            }
            Login::Allowed { lease, data, lost } => self.let_in(lease, data, lost, now),
        }
    }

    fn let_in(&mut self, lease: Lease, data: Option<Bytes>, lost: Vec<Subscribable>, now: Now) {
        let Phase::LoggingIn { until, handshake } = std::mem::replace(&mut self.phase, Phase::Closed) else {
            return;
        };
        let Handshake { connect, client_id, will, exchange } = *handshake;
        let limits = self.broker.limits().clone();
        let version = connect.version;
        let Peer { address: peer, listener } = self.peer();
        let identity = Arc::new(Identity {
            client_id,
            username: connect.username.as_deref().map(Box::from),
            peer,
            listener,
            lease,
        });
        let asked_expiry_s = match version {
            Version::V5 => connect.session_expiry_interval_s.unwrap_or(0),
            Version::V311 if connect.clean_start => 0,
            Version::V311 => limits.session_expiry_v311_s,
        };
        let expiry = granted_expiry(&self.broker, asked_expiry_s);
        let keep_alive_s = granted_keep_alive(connect.keep_alive_s, version, limits.keep_alive_s_max);
        if keep_alive_s != connect.keep_alive_s {
            self.broker.counters().limits.count(Limit::KeepAlive);
        }
        let mut answer = self.greeting(&connect, &identity, expiry, keep_alive_s);
        answer.authentication_method = exchange.as_ref().map(|exchange| exchange.method.clone());
        answer.authentication_data = exchange.as_ref().and(data);
        if !self.takes(&answer) {
            answer.response_information = None;
            if !self.takes(&answer) {
                self.phase = Phase::Connecting { until };
                return self.close(None, "CONNACK is larger than the client's Maximum Packet Size", now);
            }
        }
        let live = Live {
            connection: self.number,
            outbox: Arc::clone(&self.outbox),
            terms: self.terms,
            receive_max: connect.receive_max.get().min(limits.inflight_max),
            unacknowledged: 0,
            aliases: Aliases::new(connect.topic_alias_max.min(limits.topic_alias_out_max)),
            outbox_bytes_max: limits.outbox_bytes_max,
        };
        let clean_start = connect.clean_start;
        let opening = Opening { identity: Arc::clone(&identity), clean_start, expiry, will, lost, live };
        let greet = |session_present| {
            let mut answer = answer.clone();
            answer.session_present = session_present;
            Packet::ConnAck(Box::new(answer))
        };
        let opened = self.broker.open_session(opening, greet, now, &mut self.batch);
        let (session, works) = match opened {
            Ok(opened) => opened,
            Err(TooManySessions) => {
                self.phase = Phase::Connecting { until };
                self.broker.counters().limits.count(Limit::Sessions);
                let reason = "there are as many sessions as there may be";
                return self.refuse(ReasonCode::QuotaExceeded, reason, now);
            }
        };
        self.leave(works);
        self.decoder.set_packet_bytes_max(limits.packet_bytes_max);
        let lease_until = identity.lease.expires_in.map(|span| now.at.after(span));
        self.peer = None;
        self.phase = Phase::Open(Box::new(Open {
            session,
            identity: Arc::clone(&identity),
            last_packet_at: now.at,
            lease_until,
            keep_alive_s,
            has_expiry: asked_expiry_s > 0,
            pace: Pace::of(&identity.lease.quotas).map(Box::new),
            enhanced: exchange.map(|exchange| Box::new(Enhanced { method: exchange.method, renewal: None })),
            taken: 0,
            topics: None,
        }));
        self.broker.counters().connections_accepted.add_one();
        info!(
            client = &*identity.client_id,
            principal = &*identity.lease.principal,
            peer = identity.peer.map(tracing::field::display),
            listener = &*identity.listener,
            ?version,
            "connected"
        );
        self.broker.tell(&Event::Connected { identity, version }, now);
        if self.must_wait() {
            // CONNACK, and all that comes behind it, is in the outbox, which is held.
            self.owe(Owe::Greeting);
        }
        self.replay_retained(now);
    }

    fn takes(&self, answer: &ConnAck) -> bool {
        self.terms.fits(&Packet::ConnAck(Box::new(answer.clone())))
    }

    /// The CONNACK, short of whether a session was there.
    fn greeting(
        &self,
        connect: &Connect,
        identity: &Identity,
        expiry: SessionExpiry,
        keep_alive_s: u16,
    ) -> ConnAck {
        let (limits, capabilities) = (self.broker.limits(), &self.broker.capabilities);
        let mut answer = ConnAck::new(ReasonCode::Success);
        if connect.version == Version::V311 {
            return answer;
        }
        let granted_s = match expiry {
            SessionExpiry::After(seconds) => seconds,
            SessionExpiry::Never => u32::MAX,
        };
        answer.session_expiry_interval_s =
            Some(granted_s).filter(|granted| *granted != connect.session_expiry_interval_s.unwrap_or(0));
        answer.receive_max = NonZeroU16::new(limits.receive_max).filter(|max| *max != NonZeroU16::MAX);
        answer.qos_max = Some(capabilities.qos_max).filter(|max| *max != QoS::ExactlyOnce);
        answer.retain_available = Some(false).filter(|_| !capabilities.retain);
        answer.packet_size_max = std::num::NonZeroU32::new(limits.packet_bytes_max);
        answer.assigned_client_id = connect.client_id.is_empty().then(|| Box::from(&*identity.client_id));
        answer.topic_alias_max = Some(limits.topic_alias_max).filter(|max| *max > 0);
        answer.wildcard_subscription_available = Some(false).filter(|_| !capabilities.wildcard_subscriptions);
        answer.subscription_identifiers_available =
            Some(false).filter(|_| !capabilities.subscription_identifiers);
        answer.shared_subscription_available = Some(false).filter(|_| !capabilities.shared_subscriptions);
        if connect.request_response_information {
            answer.response_information = self.broker.response_information(&identity.client_id);
        }
        answer.server_keep_alive_s = Some(keep_alive_s).filter(|granted| *granted != connect.keep_alive_s);
        answer
    }

    /// CONNACK with a refusal, and the end of the connection `[MQTT-3.2.2-7]`.
    pub(super) fn refuse(&mut self, code: ReasonCode, reason: &str, now: Now) {
        if self.terms.version == Version::V5 || has_return_code(code) {
            let mut answer = ConnAck::new(code);
            answer.server_reference = self.broker.server_reference(code);
            self.send(Packet::ConnAck(Box::new(answer)));
        }
        self.close(None, reason.to_owned(), now);
    }

    /// Answers bytes that were to be a CONNECT. A client is told where it has come far enough to show which
    /// version would be understood; MQTT 3.1.1 knows no answer to a CONNECT that does not conform
    /// `[MQTT-3.1.4-1 of 3.1.1]`.
    pub(super) fn refuse_bad_connect(&mut self, error: &DecodeError, now: Now) {
        let reason = format!("bad input: {error}");
        match (error, self.decoder.version()) {
            (DecodeError::ProtocolVersion(level), _) => {
                self.terms.version = if *level > 4 { Version::V5 } else { Version::V311 };
                self.refuse(ReasonCode::UnsupportedProtocolVersion, &reason, now);
            }
            (_, Some(Version::V5)) => {
                self.terms.version = Version::V5;
                self.refuse(error.reason_code(), &reason, now);
            }
            _ => self.close(None, reason, now),
        }
    }

    /// AUTH of a client that is let in: it renews its authentication `[MQTT-4.12.1-1]`.
    pub(super) fn renew(&mut self, auth: Auth, now: Now) {
        let Phase::Open(open) = &mut self.phase else { return };
        let enhanced = open.enhanced.as_mut();
        let Some(enhanced) = enhanced.filter(|enhanced| auth.method.as_ref() == Some(&enhanced.method))
        else {
            return self.close(
                Some(ReasonCode::ProtocolError),
                "AUTH without the method of its CONNECT",
                now,
            );
        };
        let method = enhanced.method.clone();
        let exchange = match (&enhanced.renewal, auth.code) {
            (None, ReasonCode::ReAuthenticate) => Exchange { id: self.broker.next_number(), step: 0, method },
            (Some(exchange), ReasonCode::ContinueAuthentication) => {
                Exchange { step: exchange.step + 1, ..exchange.clone() }
            }
            _ => return self.close(Some(ReasonCode::ProtocolError), "AUTH out of turn", now),
        };
        let identity = Arc::clone(&open.identity);
        let request = Arc::new(AuthenticateRequest {
            client_id: Arc::clone(&identity.client_id),
            username: identity.username.clone(),
            password: None,
            version: self.terms.version,
            clean_start: false,
            peer: identity.peer,
            listener: Arc::clone(&identity.listener),
            user_properties: auth.user_properties,
            exchange: Some(exchange.request(auth.data, true)),
        });
        enhanced.renewal = Some(exchange);
        let chains = self.broker.chains();
        self.ask(
            Box::pin(async move { Resolved::Renewal(chain::authenticate(&chains, &request).await) }),
            now,
        );
    }

    pub(super) fn renewal_decided(&mut self, answer: Authentication, now: Now) {
        let Phase::Open(open) = &mut self.phase else { return };
        let Some(enhanced) = &mut open.enhanced else { return };
        let method = Some(enhanced.method.clone());
        let (code, data) = match answer {
            Authentication::Allow { lease, data } if lease.principal == open.identity.lease.principal => {
                enhanced.renewal = None;
                open.lease_until = lease.expires_in.map(|span| now.at.after(span));
                open.pace = Pace::of(&lease.quotas).map(Box::new);
                open.identity = Arc::new(Identity { lease, ..(*open.identity).clone() });
                open.session.lock().identity = Arc::clone(&open.identity);
                // What the old lease allowed is asked again.
                if let Some(topics) = &mut open.topics {
                    topics.clear();
                }
                (ReasonCode::Success, data)
            }
            Authentication::Continue { data } => (ReasonCode::ContinueAuthentication, data),
            Authentication::Deny(denial) => {
                let fits = denial.code.is_error() && denial.code.valid_in(PacketType::Disconnect);
                let code = if fits { denial.code } else { ReasonCode::NotAuthorized };
                return self.close(Some(code), "its re-authentication was refused", now);
            }
            Authentication::Allow { .. } | Authentication::Next => {
                return self.close(Some(ReasonCode::NotAuthorized), "its re-authentication was refused", now);
            }
        };
        let mut auth = Auth::new(code, method);
        auth.data = data;
        self.answer(Packet::Auth(Box::new(auth)), now);
    }

    /// A client identifier for a client that has none `[MQTT-3.2.2-16]`: not to be guessed from another one.
    fn assigned_id(&self) -> Arc<str> {
        use std::hash::{BuildHasher, RandomState};
        loop {
            let id = format!("auto-{:016x}", RandomState::new().hash_one(self.number));
            if !self.broker.has_session(&id) {
                return Arc::from(id);
            }
        }
    }
}

/// Whether MQTT 3.1.1 has a return code that says what `code` says; where it has none, nothing is sent
/// `[MQTT-3.2.2-6 of 3.1.1]`.
const fn has_return_code(code: ReasonCode) -> bool {
    !matches!(
        code,
        ReasonCode::MalformedPacket
            | ReasonCode::ProtocolError
            | ReasonCode::TopicNameInvalid
            | ReasonCode::PacketTooLarge
            | ReasonCode::PayloadFormatInvalid
            | ReasonCode::QoSNotSupported
            | ReasonCode::RetainNotSupported
    )
}

/// The keep-alive that holds: a client of MQTT 5 can be told of another than it asked for `[MQTT-3.1.2-21]`.
fn granted_keep_alive(asked_s: u16, version: Version, max_s: u16) -> u16 {
    match (version, max_s) {
        (Version::V311, _) | (_, 0) => asked_s,
        (Version::V5, max) if asked_s == 0 => max,
        (Version::V5, max) => asked_s.min(max),
    }
}
