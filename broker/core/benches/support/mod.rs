//! What benches of the broker share: one that lets everybody in, and clients without sockets. Of the store's benches too.
#![allow(dead_code, missing_docs, unreachable_pub, reason = "each bench uses its own part")]

use std::hint::black_box;
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::task::{Context, Waker};

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use weirmq_core::broker::Broker;
use weirmq_core::connection::{Connection, Peer};
use weirmq_core::hook::{
    AuthenticateRequest, Authentication, Hook, HookPoint, HookPoints, Lease, PublishRight, Reply, Rights,
    SubscribeRight,
};
use weirmq_core::outbox::{Outbox, Transport};
use weirmq_core::record::{Record, Refused, Sinks};
use weirmq_core::time::{Instant, Now};
use weirmq_core::topic::TopicFilter;
use weirmq_wire::{Connect, Packet, PacketId, Publish, QoS, Subscribe, SubscribeOptions, Text, Version};

pub const NOW: Now = Now { at: Instant::from_micros(1_000_000), unix_ms: 1_700_000_000_000 };
/// As many as a busy read finds in the buffer.
pub const MESSAGES: u16 = 100;
pub const PAYLOAD: [u8; 64] = [b'x'; 64];

/// Where most benches publish to.
pub const TOPIC: &str = "factory/a/press-1/value";

/// Lets everybody in and allows everything.
pub struct Welcome;

impl Hook for Welcome {
    fn name(&self) -> &str {
        "welcome"
    }

    fn points(&self) -> HookPoints {
        HookPoints::NONE.with(HookPoint::Authenticate)
    }

    fn authenticate(&self, _: &Arc<AuthenticateRequest>) -> Reply<Authentication> {
        let filter = TopicFilter::new("#").unwrap();
        let publish = vec![PublishRight { filter: filter.clone(), qos_max: QoS::ExactlyOnce, retain: true }];
        let subscribe = vec![SubscribeRight { filter, qos_max: QoS::ExactlyOnce }];
        let lease = Lease { rights: Some(Arc::new(Rights { publish, subscribe })), ..Lease::default() };
        Reply::ready(Authentication::Allow { lease, data: None })
    }
}

/// Takes records and forgets them.
pub struct NoSinks;

impl Sinks for NoSinks {
    fn submit(&self, _: Record) -> Result<(), Refused> {
        Ok(())
    }
}

/// A socket that takes everything. What it takes can be looked at where acknowledgements have to be made for it.
#[derive(Default)]
struct Drain {
    kept: Option<Mutex<Vec<u8>>>,
}

impl Transport for Drain {
    fn write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        if let Some(kept) = &self.kept {
            slices.iter().for_each(|slice| kept.lock().extend_from_slice(slice));
        }
        Ok(slices.iter().map(|slice| black_box(slice).len()).sum())
    }

    fn wake(&self) {}
}

/// A client, and the broker's side of it.
pub struct Client {
    connection: Connection,
    drain: Arc<Drain>,
    input: BytesMut,
}

impl Client {
    /// One whose session ends with its connection. `keeps` what it is sent, to be looked at with [`Client::got`].
    pub fn connect(broker: &Arc<Broker>, name: &str, keeps: bool) -> Self {
        Self::connect_with(broker, name, keeps, |_| {})
    }

    /// One whose session is kept.
    pub fn connect_kept(broker: &Arc<Broker>, name: &str, keeps: bool) -> Self {
        Self::connect_with(broker, name, keeps, |connect| connect.clean_start = false)
    }

    fn connect_with(
        broker: &Arc<Broker>,
        name: &str,
        keeps: bool,
        change: impl FnOnce(&mut Connect),
    ) -> Self {
        let drain = Arc::new(Drain { kept: keeps.then(Mutex::default) });
        let outbox: Arc<Outbox> = Arc::new(Outbox::new(Arc::clone(&drain)));
        let peer = Peer { address: None, listener: Arc::from("bench") };
        let connection = Connection::new(Arc::clone(broker), outbox, peer, NOW);
        let mut client = Self { connection, drain, input: BytesMut::with_capacity(64 * 1024) };
        let mut connect = Connect::new(Version::V311, Text::new(name).unwrap());
        change(&mut connect);
        client.packet(&Packet::Connect(Box::new(connect)));
        assert!(client.connection.is_open());
        client
    }

    pub fn packet(&mut self, packet: &Packet) {
        let mut bytes = Vec::new();
        packet.encode(Version::V311, &mut bytes).unwrap();
        self.bytes(&bytes);
    }

    pub fn bytes(&mut self, bytes: &[u8]) {
        self.input.reserve(bytes.len());
        self.input.extend_from_slice(bytes);
        self.connection.input(&mut self.input, NOW);
        self.connection.flush();
        while self.connection.is_waiting() {
            let _ = self.connection.poll(&mut Context::from_waker(Waker::noop()), NOW);
        }
    }

    /// What it was sent since this was asked last.
    pub fn got(&mut self, bytes: &mut Vec<u8>) {
        bytes.clear();
        if let Some(kept) = &self.drain.kept {
            std::mem::swap(&mut *kept.lock(), bytes);
        }
    }

    pub fn subscribe(&mut self, filters: impl IntoIterator<Item = String>) {
        let options = SubscribeOptions { qos: QoS::ExactlyOnce, ..SubscribeOptions::default() };
        let filters = filters.into_iter().map(|filter| (Text::new(&filter).unwrap(), options)).collect();
        let packet_id = PacketId::MIN;
        let packet = Subscribe { packet_id, subscription_id: None, user_properties: Vec::new(), filters };
        self.packet(&Packet::Subscribe(packet));
    }
}

/// Appends a PUBLISH.
pub fn publish(topic: &str, qos: QoS, id: u16, out: &mut Vec<u8>) {
    let packet = Packet::Publish(Publish {
        dup: false,
        qos,
        retain: false,
        topic: Text::new(topic).unwrap(),
        packet_id: PacketId::new(id).filter(|_| qos > QoS::AtMostOnce),
        extras: None,
        payload: Bytes::from_static(&PAYLOAD),
    });
    packet.encode(Version::V311, out).unwrap();
}

/// The packet identifiers of the PUBLISH packets to [`TOPIC`] in `bytes`, all of which have the same size.
pub fn ids(bytes: &[u8], mut each: impl FnMut(PacketId)) {
    let topic_len = TOPIC.len();
    let frame_len = 2 + 2 + topic_len + 2 + PAYLOAD.len();
    for frame in
        bytes.chunks_exact(frame_len).filter(|frame| frame.first().is_some_and(|byte| byte >> 4 == 3))
    {
        if let Some(&[high, low]) = frame.get(4 + topic_len..6 + topic_len) {
            PacketId::new(u16::from_be_bytes([high, low])).into_iter().for_each(&mut each);
        }
    }
}
