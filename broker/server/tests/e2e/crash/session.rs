//! A client's side of a connection that never waits, and of a session that outlives connections and processes.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};

use bytes::{Bytes, BytesMut};
use fastrand::Rng;
use weirmq_wire::{
    Connect, Decoder, Packet, PacketId, Properties, Publish, QoS, ReasonCode, Subscribe, SubscribeOptions,
    Text, Version, Will,
};

use crate::support::{Broker, eventually};

pub(crate) fn text(text: &str) -> Text {
    Text::new(text).unwrap()
}

/// A SUBSCRIBE of these filters.
pub(crate) fn subscribe<'a>(filters: impl IntoIterator<Item = &'a str>, qos: QoS) -> Packet {
    let options = SubscribeOptions { qos, ..SubscribeOptions::default() };
    let filters = filters.into_iter().map(|filter| (text(filter), options)).collect();
    let (packet_id, user_properties) = (PacketId::MIN, Vec::new());
    Packet::Subscribe(Subscribe { packet_id, subscription_id: None, user_properties, filters })
}

/// A message at QoS 1.
pub(crate) fn message(topic: &str, packet_id: u16, payload: String) -> Publish {
    Publish {
        dup: false,
        qos: QoS::AtLeastOnce,
        retain: false,
        topic: text(topic),
        packet_id: PacketId::new(packet_id),
        extras: None,
        payload: Bytes::from(payload),
    }
}

/// A will at QoS 2.
pub(crate) fn will(topic: &str, delay_interval_s: u32) -> Will {
    Will {
        topic: text(topic),
        payload: Bytes::from("0"),
        qos: QoS::ExactlyOnce,
        retain: false,
        delay_interval_s,
        message_expiry_interval_s: None,
        properties: Properties::default(),
    }
}

/// A session `offline` that is subscribed to `queue/#` and not connected.
pub(crate) fn leave_a_session(broker: &Broker) {
    let (mut link, _) = Link::enter(broker.address, &lasting(Version::V5, "offline"));
    link.send(&subscribe(["queue/#"], QoS::AtLeastOnce));
    assert!(matches!(link.wait(), Packet::SubAck(_)));
    drop(link);
    broker.log.wait_for(&["disconnected", "offline"]);
}

/// One connection.
pub(crate) struct Link {
    socket: TcpStream,
    version: Version,
    decoder: Decoder,
    unread: BytesMut,
    unsent: Vec<u8>,
}

/// What there is to be read.
pub(crate) enum Came {
    Packet(Packet),
    /// The session is open, and what it owes is to be sent again.
    Open,
    Nothing,
    /// The connection is over, and everything that had come was read.
    End,
}

impl Link {
    pub(crate) fn open(address: SocketAddr, connect: &Connect) -> Self {
        let socket = TcpStream::connect(address).unwrap();
        socket.set_nonblocking(true).unwrap();
        socket.set_nodelay(true).unwrap();
        let version = connect.version;
        let decoder = Decoder::client(version, u32::MAX);
        let mut link = Self { socket, version, decoder, unread: BytesMut::new(), unsent: Vec::new() };
        link.send(&Packet::Connect(Box::new(connect.clone())));
        link
    }

    pub(crate) fn send(&mut self, packet: &Packet) {
        packet.encode(self.version, &mut self.unsent).unwrap();
    }

    /// Writes as much as the socket takes. That nobody is there any more is seen by reading.
    fn flush(&mut self) {
        while !self.unsent.is_empty() {
            match self.socket.write(&self.unsent) {
                Ok(count) => drop(self.unsent.drain(..count)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => self.unsent.clear(),
            }
        }
    }

    pub(crate) fn next(&mut self) -> Came {
        let mut chunk = [0; 16 * 1024];
        loop {
            if let Some(packet) = self.decoder.decode(&mut self.unread).unwrap() {
                return Came::Packet(packet);
            }
            self.flush();
            match self.socket.read(&mut chunk) {
                Ok(0) => return Came::End,
                Ok(count) => self.unread.extend_from_slice(&chunk[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Came::Nothing,
                Err(_) => return Came::End,
            }
        }
    }

    /// Waits for the next packet.
    pub(crate) fn wait(&mut self) -> Packet {
        eventually("a packet from the broker", || match self.next() {
            Came::Packet(packet) => Some(packet),
            Came::Nothing => None,
            Came::Open | Came::End => panic!("the connection ended early"),
        })
    }

    /// Opens a connection and waits until it is let in. Answers whether there was a session.
    pub(crate) fn enter(address: SocketAddr, connect: &Connect) -> (Self, bool) {
        let mut link = Self::open(address, connect);
        let Packet::ConnAck(answer) = link.wait() else { panic!("a CONNACK is expected") };
        assert_eq!(answer.code, ReasonCode::Success);
        (link, answer.session_present)
    }
}

/// A session that is to be there at every CONNECT after its first CONNACK.
pub(crate) struct Session {
    connect: Connect,
    link: Option<Link>,
    is_open: bool,
    attempts: u32,
    /// There was a CONNACK.
    pub(crate) is_kept: bool,
    /// There was a PINGRESP since the last [`Session::ping`].
    pub(crate) is_answered: bool,
}

/// A CONNECT for a session that outlives its connection.
pub(crate) fn lasting(version: Version, client_id: &str) -> Connect {
    let mut connect = Connect::new(version, text(client_id));
    connect.clean_start = false;
    connect.session_expiry_interval_s = (version == Version::V5).then_some(10_000);
    connect
}

impl Session {
    pub(crate) fn new(connect: Connect) -> Self {
        Self { connect, link: None, is_open: false, attempts: 0, is_kept: false, is_answered: true }
    }

    pub(crate) fn name(&self) -> &str {
        self.connect.client_id.as_str()
    }

    /// How many connections it has had.
    pub(super) fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Connects, also where it is connected already.
    pub(crate) fn connect(&mut self, address: SocketAddr) {
        self.link = Some(Link::open(address, &self.connect));
        self.is_open = false;
        self.attempts += 1;
    }

    /// The connection is lost, with all that has come and was not read.
    pub(crate) fn cut(&mut self) {
        self.link = None;
        self.is_open = false;
    }

    pub(crate) fn is_away(&self) -> bool {
        self.link.is_none()
    }

    pub(crate) fn is_open(&self) -> bool {
        self.is_open
    }

    pub(crate) fn send(&mut self, packet: &Packet) {
        if let Some(link) = &mut self.link {
            link.send(packet);
        }
    }

    pub(crate) fn ping(&mut self) {
        self.is_answered = false;
        self.send(&Packet::PingReq);
    }

    pub(crate) fn next(&mut self) -> Came {
        let Some(link) = &mut self.link else { return Came::End };
        match link.next() {
            Came::Packet(Packet::ConnAck(answer)) => {
                let name = self.connect.client_id.as_str();
                assert_eq!(answer.code, ReasonCode::Success, "{name}");
                assert!(answer.session_present || !self.is_kept, "the session of {name} is lost");
                let may_be_kept = self.is_kept || self.attempts > 1;
                assert!(may_be_kept || !answer.session_present, "{name} was never here");
                (self.is_kept, self.is_open) = (true, true);
                Came::Open
            }
            Came::Packet(Packet::Disconnect(goodbye)) => {
                let expected = [ReasonCode::ServerShuttingDown, ReasonCode::SessionTakenOver];
                assert!(expected.contains(&goodbye.code), "{}: {goodbye:?}", self.connect.client_id.as_str());
                Came::Nothing
            }
            Came::Packet(Packet::PingResp) => {
                self.is_answered = true;
                Came::Nothing
            }
            Came::End => {
                self.cut();
                Came::End
            }
            came => came,
        }
    }
}

/// Somebody with a session.
pub(crate) trait Client {
    fn session(&mut self) -> &mut Session;

    /// The session is open: what is owed is sent again.
    fn open(&mut self);

    fn take(&mut self, packet: Packet);

    /// Does something of its own accord, or not.
    fn act(&mut self, dice: &mut Rng);

    /// Takes what has come, and acts. Answers how much has come.
    fn step(&mut self, dice: &mut Rng) -> usize {
        let came = self.listen(32);
        if self.session().is_open() {
            self.act(dice);
        }
        came
    }

    /// Takes what has come, up to so many packets.
    fn listen(&mut self, packets_max: usize) -> usize {
        for came in 0..packets_max {
            match self.session().next() {
                Came::Packet(packet) => self.take(packet),
                Came::Open => self.open(),
                Came::Nothing | Came::End => return came,
            }
        }
        packets_max
    }
}
