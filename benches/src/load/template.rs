//! PUBLISH packets made ahead: the generator copies one and fills in two fields.

use weirmq_wire::{EncodeError, PacketId, PublishHead, QoS, Version};

use super::stamp::{STAMP_BYTES, Stamp};

/// A PUBLISH with room for a packet identifier and a stamp.
#[derive(Debug, Clone)]
pub struct Template {
    frame: Vec<u8>,
    id_at: Option<usize>,
    stamp_at: usize,
}

impl Template {
    /// A PUBLISH to `topic` whose payload is a stamp and zeros, `payload_bytes` long and no shorter than a stamp.
    ///
    /// # Errors
    /// [`EncodeError`] where topic or payload are too long.
    pub fn new(
        version: Version,
        topic: &str,
        qos: QoS,
        retain: bool,
        payload_bytes: usize,
    ) -> Result<Self, EncodeError> {
        let payload_len = payload_bytes.max(STAMP_BYTES);
        let packet_id = (qos != QoS::AtMostOnce).then_some(PacketId::MIN);
        let head = PublishHead {
            dup: false,
            qos,
            retain,
            topic,
            packet_id,
            properties: None,
            message_expiry_interval_s: None,
            topic_alias: None,
            subscription_ids: &[],
            payload_len,
        };
        let mut frame = Vec::new();
        head.encode(version, &mut frame)?;
        let stamp_at = frame.len();
        let behind_id = if version == Version::V5 { 3 } else { 2 };
        frame.resize(stamp_at + payload_len, 0);
        Ok(Self { frame, id_at: packet_id.map(|_| stamp_at.saturating_sub(behind_id)), stamp_at })
    }

    /// Appends the packet. `id` is left out where the QoS has none.
    pub fn append(&self, id: u16, stamp: Stamp, out: &mut Vec<u8>) {
        let at = out.len();
        out.extend_from_slice(&self.frame);
        let Some(frame) = out.get_mut(at..) else { return };
        if let Some(place) = self.id_at.and_then(|id_at| frame.get_mut(id_at..id_at + 2)) {
            place.copy_from_slice(&id.to_be_bytes());
        }
        if let Some(place) = frame.get_mut(self.stamp_at..self.stamp_at + STAMP_BYTES) {
            place.copy_from_slice(&stamp.to_bytes());
        }
    }

    /// Size of the packet.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.frame.len()
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use weirmq_wire::{Decoder, Packet};

    use super::*;

    #[test]
    fn a_filled_in_template_is_the_packet_that_the_codec_reads() {
        let stamp = Stamp { publisher: 3, number: 4, at_ns: 5 };
        for version in [Version::V311, Version::V5] {
            for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
                let template = Template::new(version, "a/b", qos, true, 200).unwrap();
                let mut out = Vec::new();
                template.append(0x1234, stamp, &mut out);
                assert_eq!(out.len(), template.bytes());
                let mut input = BytesMut::from(&out[..]);
                let packet = Decoder::client(version, 1_000).decode(&mut input).unwrap().unwrap();
                let Packet::Publish(publish) = packet else { panic!("a PUBLISH") };
                assert_eq!((&*publish.topic, publish.qos, publish.retain), ("a/b", qos, true));
                assert_eq!(
                    publish.packet_id,
                    (qos != QoS::AtMostOnce).then(|| PacketId::new(0x1234).unwrap())
                );
                assert_eq!((publish.payload.len(), Stamp::read(&publish.payload)), (200, Some(stamp)));
            }
        }
    }
}
