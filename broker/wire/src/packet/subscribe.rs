//! SUBSCRIBE: filters, each with its options (section 3.8).

use crate::basic::{PacketId, PacketType, QoS, Version};
use crate::error::DecodeError;
use crate::property::{PropertyId, UserProperties};
use crate::read::{Cursor, Stop};
use crate::text::Text;
use crate::write::{Body, PropertyList, Sink};

/// What a client asks to receive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscribe {
    /// What its SUBACK refers to.
    pub packet_id: PacketId,
    /// Subscription Identifier of all the filters, 1 to 268,435,455.
    pub subscription_id: Option<u32>,
    /// User Properties.
    pub user_properties: UserProperties,
    /// The filters, at least one, unchecked.
    pub filters: Vec<(Text, SubscribeOptions)>,
}

/// How matching messages are to be sent. MQTT 3.1.1 has only the QoS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct SubscribeOptions {
    /// The highest QoS that messages are sent with.
    pub qos: QoS,
    /// Not what this client published itself.
    pub no_local: bool,
    /// With the RETAIN flag as it was published, not cleared.
    pub retain_as_published: bool,
    /// What becomes of retained messages on subscribing.
    pub retain_handling: RetainHandling,
}

/// What becomes of retained messages on subscribing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(u8)]
pub enum RetainHandling {
    /// They are sent.
    #[default]
    Send = 0,
    /// They are sent if the subscription did not exist before.
    SendIfNew = 1,
    /// They are not sent.
    DoNotSend = 2,
}

/// How the filter of a shared subscription begins; No Local is not for those `[MQTT-3.8.3-4]`.
const SHARE_PREFIX: &str = "$share/";

impl Subscribe {
    pub(super) fn read(cursor: &mut Cursor) -> Result<Self, Stop> {
        let mut subscribe = Self {
            packet_id: cursor.packet_id()?,
            subscription_id: None,
            user_properties: Vec::new(),
            filters: Vec::new(),
        };
        if cursor.is_v5() {
            subscribe.read_properties(cursor)?;
        }
        if cursor.left() == 0 {
            return Err(DecodeError::NoEntries(PacketType::Subscribe).into());
        }
        while cursor.left() > 0 {
            let filter = cursor.text()?;
            let byte = cursor.u8()?;
            let options = if cursor.is_v5() {
                SubscribeOptions::from_v5(byte, filter.starts_with(SHARE_PREFIX))?
            } else {
                SubscribeOptions::from_v311(byte)?
            };
            subscribe.filters.push((filter, options));
        }
        Ok(subscribe)
    }

    fn read_properties(&mut self, cursor: &mut Cursor) -> Result<(), Stop> {
        cursor.enter_properties()?;
        while let Some(property) = cursor.next_property()? {
            match property {
                PropertyId::SubscriptionIdentifier => {
                    cursor.once(property, &mut self.subscription_id, Cursor::subscription_id)?;
                }
                PropertyId::UserProperty => cursor.user_property(&mut self.user_properties)?,
                _ => return Err(cursor.not_allowed(property)),
            }
        }
        Ok(())
    }
}

impl SubscribeOptions {
    fn from_v5(byte: u8, shared: bool) -> Result<Self, DecodeError> {
        if byte & 0b1100_0000 != 0 {
            return Err(DecodeError::SubscribeOptionsReserved);
        }
        let options = Self {
            qos: QoS::try_from(byte & 0b11).map_err(|_| DecodeError::SubscribeQoS)?,
            no_local: byte & 0b100 != 0,
            retain_as_published: byte & 0b1000 != 0,
            retain_handling: match byte >> 4 & 0b11 {
                0 => RetainHandling::Send,
                1 => RetainHandling::SendIfNew,
                2 => RetainHandling::DoNotSend,
                _ => return Err(DecodeError::RetainHandling),
            },
        };
        if options.no_local && shared { Err(DecodeError::NoLocalShared) } else { Ok(options) }
    }

    fn from_v311(byte: u8) -> Result<Self, DecodeError> {
        if byte & 0b1111_1100 != 0 {
            return Err(DecodeError::SubscribeOptionsReserved);
        }
        let qos = QoS::try_from(byte).map_err(|_| DecodeError::SubscribeQoSV311)?;
        Ok(Self { qos, ..Self::default() })
    }

    fn as_byte(self, version: Version) -> u8 {
        match version {
            Version::V311 => self.qos.as_u8(),
            Version::V5 => {
                self.qos.as_u8()
                    | u8::from(self.no_local) << 2
                    | u8::from(self.retain_as_published) << 3
                    | (self.retain_handling as u8) << 4
            }
        }
    }
}

impl Body for Subscribe {
    fn first_byte(&self) -> u8 {
        PacketType::Subscribe.first_byte()
    }

    fn write<S: Sink>(&self, version: Version, sink: &mut S) {
        sink.u16(self.packet_id.get());
        if version == Version::V5 {
            sink.property_list(self);
        }
        for (filter, options) in &self.filters {
            sink.text(filter);
            sink.u8(options.as_byte(version));
        }
    }
}

impl PropertyList for Subscribe {
    fn write<S: Sink>(&self, sink: &mut S) {
        if let Some(id) = self.subscription_id {
            sink.subscription_id(id);
        }
        sink.user_properties(&self.user_properties);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_a_byte_are_written_as_that_byte_or_refused() {
        for byte in 0..=u8::MAX {
            let good = byte & 0b1100_0000 == 0 && byte & 0b11 != 3 && byte >> 4 & 0b11 != 3;
            let options = SubscribeOptions::from_v5(byte, false);
            assert_eq!(options.is_ok(), good, "{byte:#010b}");
            assert!(options.is_err() || options.is_ok_and(|options| options.as_byte(Version::V5) == byte));
            assert_eq!(SubscribeOptions::from_v311(byte).is_ok(), byte < 3, "{byte:#010b}");
        }
    }

    #[test]
    fn v5_3_8_3_4_no_local_is_refused_for_shared_subscriptions_only() {
        assert_eq!(SubscribeOptions::from_v5(0b100, true), Err(DecodeError::NoLocalShared));
        assert!(SubscribeOptions::from_v5(0b100, false).is_ok());
        assert!(SubscribeOptions::from_v5(0b001, true).is_ok());
    }

    #[test]
    fn v311_has_no_options_but_the_qos() {
        let options =
            SubscribeOptions { qos: QoS::ExactlyOnce, no_local: true, ..SubscribeOptions::default() };
        assert_eq!(options.as_byte(Version::V311), 2);
    }
}
