//! The sink that every packet is written to.
//!
//! A packet says once how it is written ([`Body::write`], [`PropertyList::write`]) and is run twice: into
//! [`Count`], which measures and refuses, then into the buffer, which has room by then and cannot fail. So
//! lengths and bytes cannot disagree, and nothing is written of a packet that cannot be.

use crate::basic::{QoS, Version};
use crate::error::EncodeError;
use crate::property::{PropertyId, UserProperties};

/// The largest variable byte integer.
pub(crate) const VAR_INT_MAX: usize = 268_435_455;

/// A packet, or all of one but its payload.
pub(crate) trait Body {
    /// Type and flags.
    fn first_byte(&self) -> u8;

    /// How many bytes the caller appends by itself.
    fn payload_len(&self) -> usize {
        0
    }

    /// Everything between the fixed header and the payload.
    fn write<S: Sink>(&self, version: Version, sink: &mut S);
}

/// The properties of a packet or of a will, without their length.
pub(crate) trait PropertyList {
    fn write<S: Sink>(&self, sink: &mut S);
}

/// The size of the whole packet, payload included.
pub(crate) fn encoded_len(body: &impl Body, version: Version) -> Result<usize, EncodeError> {
    let lengths = Lengths::of(body, version)?;
    Ok(1 + var_int_len(lengths.remaining) + lengths.remaining)
}

/// Appends the packet without its payload.
pub(crate) fn encode(body: &impl Body, version: Version, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    let lengths = Lengths::of(body, version)?;
    out.reserve(1 + var_int_len(lengths.remaining) + lengths.written);
    out.push(body.first_byte());
    out.var_int(lengths.remaining);
    body.write(version, out);
    Ok(())
}

struct Lengths {
    /// The body without the payload.
    written: usize,
    /// The body with the payload: what the fixed header says.
    remaining: usize,
}

impl Lengths {
    fn of(body: &impl Body, version: Version) -> Result<Self, EncodeError> {
        let mut count = Count::default();
        body.write(version, &mut count);
        if let Some(fault) = count.fault {
            return Err(fault);
        }
        let remaining = count.len.saturating_add(body.payload_len());
        if remaining > VAR_INT_MAX {
            return Err(EncodeError::PacketTooLarge);
        }
        Ok(Self { written: count.len, remaining })
    }
}

/// Where a packet is written to.
pub(crate) trait Sink: Sized {
    /// Appends.
    fn put(&mut self, bytes: &[u8]);

    /// Says that the packet cannot be written.
    fn refuse(&mut self, fault: EncodeError);

    /// Whether `text` needs a look for U+0000; once is enough.
    fn check_text(&mut self, text: &str);

    fn u8(&mut self, value: u8) {
        self.put(&[value]);
    }

    fn u16(&mut self, value: u16) {
        self.put(&value.to_be_bytes());
    }

    fn u32(&mut self, value: u32) {
        self.put(&value.to_be_bytes());
    }

    fn var_int(&mut self, mut value: usize) {
        if value > VAR_INT_MAX {
            return self.refuse(EncodeError::PacketTooLarge);
        }
        while value > 0x7F {
            self.u8((value & 0x7F) as u8 | 0x80);
            value >>= 7;
        }
        self.u8(value as u8);
    }

    fn binary(&mut self, bytes: &[u8]) {
        let Ok(len) = u16::try_from(bytes.len()) else {
            return self.refuse(EncodeError::FieldTooLong);
        };
        self.u16(len);
        self.put(bytes);
    }

    /// A string that is known to be one of MQTT's.
    fn text(&mut self, text: &str) {
        self.binary(text.as_bytes());
    }

    fn property_list(&mut self, list: &impl PropertyList) {
        let mut count = Count::default();
        list.write(&mut count);
        self.var_int(count.len);
        list.write(self);
    }

    fn property_u8(&mut self, property: PropertyId, value: Option<u8>) {
        if let Some(value) = value {
            self.put(&[property as u8, value]);
        }
    }

    fn property_flag(&mut self, property: PropertyId, value: Option<bool>) {
        self.property_u8(property, value.map(u8::from));
    }

    fn property_qos(&mut self, property: PropertyId, value: Option<QoS>) {
        self.property_u8(property, value.map(QoS::as_u8));
    }

    fn property_u16(&mut self, property: PropertyId, value: Option<u16>) {
        if let Some(value) = value {
            self.u8(property as u8);
            self.u16(value);
        }
    }

    fn property_u32(&mut self, property: PropertyId, value: Option<u32>) {
        if let Some(value) = value {
            self.u8(property as u8);
            self.u32(value);
        }
    }

    fn property_text(&mut self, property: PropertyId, value: Option<&str>) {
        if let Some(value) = value {
            self.u8(property as u8);
            self.check_text(value);
            self.text(value);
        }
    }

    fn property_binary(&mut self, property: PropertyId, value: Option<&[u8]>) {
        if let Some(value) = value {
            self.u8(property as u8);
            self.binary(value);
        }
    }

    fn subscription_id(&mut self, id: u32) {
        let number = usize::try_from(id).unwrap_or(usize::MAX);
        if number == 0 || number > VAR_INT_MAX {
            return self.refuse(EncodeError::SubscriptionId);
        }
        self.u8(PropertyId::SubscriptionIdentifier as u8);
        self.var_int(number);
    }

    fn user_properties(&mut self, list: &UserProperties) {
        for (name, value) in list {
            self.u8(PropertyId::UserProperty as u8);
            for text in [name, value] {
                self.check_text(text);
                self.text(text);
            }
        }
    }
}

impl Sink for Vec<u8> {
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }

    // The same packet has been through `Count`, which refuses for both.
    fn refuse(&mut self, _: EncodeError) {}

    fn check_text(&mut self, _: &str) {}
}

/// Measures, and keeps the first reason why the packet cannot be written.
#[derive(Default)]
struct Count {
    len: usize,
    fault: Option<EncodeError>,
}

impl Sink for Count {
    fn put(&mut self, bytes: &[u8]) {
        self.len = self.len.saturating_add(bytes.len());
    }

    fn refuse(&mut self, fault: EncodeError) {
        self.fault.get_or_insert(fault);
    }

    fn check_text(&mut self, text: &str) {
        if text.as_bytes().contains(&0) {
            self.refuse(EncodeError::NullCharacter);
        }
    }
}

pub(crate) const fn var_int_len(value: usize) -> usize {
    match value {
        0..=0x7F => 1,
        0x80..=0x3FFF => 2,
        0x4000..=0x1F_FFFF => 3,
        _ => 4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn v5_1_5_5_variable_byte_integers_of_the_table() {
        for (value, bytes) in [
            (0, &[0x00][..]),
            (127, &[0x7F]),
            (128, &[0x80, 0x01]),
            (16_383, &[0xFF, 0x7F]),
            (16_384, &[0x80, 0x80, 0x01]),
            (2_097_151, &[0xFF, 0xFF, 0x7F]),
            (2_097_152, &[0x80, 0x80, 0x80, 0x01]),
            (268_435_455, &[0xFF, 0xFF, 0xFF, 0x7F]),
        ] {
            let mut out = Vec::new();
            out.var_int(value);
            assert_eq!(out, bytes);
            assert_eq!(var_int_len(value), bytes.len());
        }
    }
}
