//! MQTT 3.1.1 and 5.0 packets and codec: bytes in, packets out. No IO, no clock, no topic rules.
//!
//! [`Decoder`] takes packets off the front of a read buffer; [`Packet::encode`], [`PublishHead`] and
//! [`encode_ack`] write them. What the two standards say about the *format* of a packet is decided here and
//! nowhere else: a [`Packet`] that was decoded is well-formed, of the right version, and allowed in its
//! direction. What they say about topics, sessions and quotas is `weirmq-core`'s business.
//!
//! # Layout
//! - [`decoder`](Decoder): framing, direction, "CONNECT first", and the rule for packets that are not whole yet
//! - `glance`: the short ways for what most packets are
//! - `read`: the cursor that every packet is parsed with; it knows "not arrived" from "not there"
//! - `write`: the sink that every packet is written to, once to count and once for good
//! - `packet/`: a file per packet type: its struct, how it is read, how it is written
//! - `property`: property identifiers, and the [`Properties`] that travel with a message
//! - `reason`: reason codes, and which packet may carry which
//! - `numbered`: enums from the standard's tables of numbers
//! - `error`: why bytes were refused ([`DecodeError`]) or a packet cannot be written ([`EncodeError`])
//! - `text`, `basic`: [`Text`], [`QoS`], [`Version`], [`PacketType`]
#![forbid(unsafe_code)]

mod basic;
mod decoder;
mod error;
mod glance;
mod numbered;
mod packet;
mod property;
mod read;
mod reason;
mod text;
mod write;

pub use basic::{PacketId, PacketType, QoS, QoSError, Side, Version};
pub use decoder::Decoder;
pub use error::{DecodeError, EncodeError};
pub use glance::{Acks, Glance};
pub use packet::{
    Ack, Auth, ConnAck, Connect, Disconnect, Packet, Publish, PublishExtras, PublishHead, RetainHandling,
    SubAck, Subscribe, SubscribeOptions, UnsubAck, Unsubscribe, Will, encode_ack,
};
pub use property::{Properties, PropertyId, UserProperties};
pub use reason::ReasonCode;
pub use text::{Text, TextError};
