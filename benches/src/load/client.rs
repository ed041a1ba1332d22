//! Connecting and subscribing, one client after the other: before the load, and not part of what is measured.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::num::NonZeroU16;
use std::time::Duration;

use bytes::BytesMut;
use weirmq_wire::{
    Connect, Decoder, Packet, PacketId, QoS, ReasonCode, RetainHandling, Subscribe, SubscribeOptions, Text,
    Version,
};

use super::LoadError;

/// How long a broker may take for an answer before the load begins.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// How many filters are put into one SUBSCRIBE.
const FILTERS_PER_PACKET: usize = 100;
/// How long a session that is to outlive its connection does.
const SESSION_EXPIRY_S: u32 = 3_600;
/// Longer than any run, so that nobody has to ping. Not 0: rumqttd lets in only clients with a keep alive.
const KEEP_ALIVE_S: u16 = 3_600;
const PACKET_BYTES_MAX: u32 = 268_435_455;

/// How to connect.
#[derive(Debug, Clone, Copy)]
pub struct Hello<'a> {
    /// Where the broker listens.
    pub address: SocketAddr,
    /// Which MQTT.
    pub version: Version,
    /// Who connects.
    pub client_id: &'a str,
    /// Whether the session outlives the connection.
    pub keeps_session: bool,
}

impl Hello<'_> {
    /// The CONNECT that says so.
    ///
    /// # Errors
    /// [`LoadError::Text`] where the client identifier cannot be one.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), LoadError> {
        let mut connect = Connect::new(self.version, Text::new(self.client_id)?);
        connect.clean_start = !self.keeps_session;
        connect.keep_alive_s = KEEP_ALIVE_S;
        connect.session_expiry_interval_s = self.keeps_session.then_some(SESSION_EXPIRY_S);
        Ok(Packet::Connect(Box::new(connect)).encode(self.version, out)?)
    }
}

/// A client that is let in. Reads and writes block.
#[derive(Debug)]
pub struct Client {
    stream: TcpStream,
    version: Version,
    decoder: Decoder,
    input: BytesMut,
    receive_max: NonZeroU16,
    next_id: PacketId,
}

impl Client {
    /// Connects, and waits to be let in.
    ///
    /// # Errors
    /// [`LoadError`]: there is no broker, or it refuses.
    pub fn connect(hello: &Hello<'_>) -> Result<Self, LoadError> {
        let stream = TcpStream::connect(hello.address).map_err(LoadError::io("connect"))?;
        stream.set_nodelay(true).map_err(LoadError::io("TCP_NODELAY"))?;
        stream.set_read_timeout(Some(ANSWER_MAX)).map_err(LoadError::io("read timeout"))?;
        let mut client = Self {
            stream,
            version: hello.version,
            decoder: Decoder::client(hello.version, PACKET_BYTES_MAX),
            input: BytesMut::new(),
            receive_max: NonZeroU16::MAX,
            next_id: PacketId::MIN,
        };
        let mut bytes = Vec::new();
        hello.encode(&mut bytes)?;
        client.write(&bytes)?;
        match client.read()? {
            Packet::ConnAck(answer) if answer.code == ReasonCode::Success => {
                client.receive_max = answer.receive_max.unwrap_or(NonZeroU16::MAX);
                Ok(client)
            }
            other => Err(LoadError::Broker(format!("CONNECT was answered with {other:?}"))),
        }
    }

    /// How many unacknowledged messages the broker takes.
    #[must_use]
    pub fn receive_max(&self) -> NonZeroU16 {
        self.receive_max
    }

    /// Subscribes to all `filters`, and waits until every one is granted with `qos`.
    ///
    /// # Errors
    /// [`LoadError`]: a filter was refused or granted with less.
    pub fn subscribe(&mut self, filters: &[String], qos: QoS) -> Result<(), LoadError> {
        for chunk in filters.chunks(FILTERS_PER_PACKET) {
            let packet_id = self.next_id;
            self.next_id = packet_id.checked_add(1).unwrap_or(PacketId::MIN);
            let mut bytes = Vec::new();
            Packet::Subscribe(subscribe(packet_id, chunk, qos)?).encode(self.version, &mut bytes)?;
            self.write(&bytes)?;
            let Packet::SubAck(answer) = self.read()? else {
                return Err(LoadError::Broker("SUBSCRIBE was answered with another packet".to_owned()));
            };
            if answer.codes.len() != chunk.len() || answer.codes.iter().any(|code| *code as u8 != qos.as_u8())
            {
                return Err(LoadError::Broker(format!("SUBSCRIBE was answered with {:?}", answer.codes)));
            }
        }
        Ok(())
    }

    /// Writes packets.
    ///
    /// # Errors
    /// [`LoadError::Io`].
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), LoadError> {
        self.stream.write_all(bytes).map_err(LoadError::io("write"))
    }

    /// Waits for the next packet.
    ///
    /// # Errors
    /// [`LoadError`]: it did not come, or the broker has ended the connection.
    pub fn read(&mut self) -> Result<Packet, LoadError> {
        loop {
            if let Some(packet) = self.decoder.decode(&mut self.input)? {
                return Ok(packet);
            }
            let mut chunk = [0; 16 * 1024];
            let count = self.stream.read(&mut chunk).map_err(no_answer)?;
            if count == 0 {
                return Err(LoadError::Broker("the broker has ended the connection".to_owned()));
            }
            self.input.extend_from_slice(chunk.get(..count).unwrap_or_default());
        }
    }

    /// Says goodbye, and waits until the broker has closed the connection.
    ///
    /// # Errors
    /// [`LoadError`]: it did not.
    pub fn disconnect(mut self) -> Result<(), LoadError> {
        self.write(&[0xE0, 0])?;
        let mut rest = [0; 1024];
        while self.stream.read(&mut rest).map_err(no_answer)? > 0 {}
        Ok(())
    }

    /// The socket, and what was read and not looked at.
    #[must_use]
    pub fn into_parts(self) -> (TcpStream, BytesMut) {
        (self.stream, self.input)
    }
}

fn no_answer(error: io::Error) -> LoadError {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            LoadError::Broker(format!("what is waited for has not come within {} s", ANSWER_MAX.as_secs()))
        }
        _ => LoadError::io("read")(error),
    }
}

fn subscribe(packet_id: PacketId, filters: &[String], qos: QoS) -> Result<Subscribe, LoadError> {
    let options = SubscribeOptions {
        qos,
        no_local: false,
        retain_as_published: false,
        retain_handling: RetainHandling::default(),
    };
    let filters =
        filters.iter().map(|filter| Ok((Text::new(filter)?, options))).collect::<Result<_, LoadError>>()?;
    Ok(Subscribe { packet_id, subscription_id: None, user_properties: Vec::new(), filters })
}
