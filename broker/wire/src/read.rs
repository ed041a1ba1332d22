//! The cursor that every packet is parsed with.
//!
//! A packet is parsed front to back, each rule is applied at the first byte that can break it, and the cursor
//! tells "not arrived yet" ([`Stop::Incomplete`]) from "not there" ([`DecodeError::Truncated`]). So the same
//! parser reads packets that are whole and the beginnings of packets that are not, and answers the same.

use std::num::{NonZeroU16, NonZeroU32};
use std::ops::Range;

use bytes::{Buf, Bytes};

use crate::basic::{PacketId, PacketType, Side, Version};
use crate::error::DecodeError;
use crate::property::{PropertyId, UserProperties};
use crate::reason::ReasonCode;
use crate::text::{self, Text};

/// Why a parser went no further.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// The packet is good so far and its next byte has not arrived.
    Incomplete,
    /// It is refused.
    Fault(DecodeError),
}

impl From<DecodeError> for Stop {
    fn from(error: DecodeError) -> Self {
        Self::Fault(error)
    }
}

/// A place in the body of one packet.
pub(crate) struct Cursor {
    /// What has arrived of the packet, fixed header included.
    bytes: Bytes,
    at: usize,
    /// Where the innermost thing ends that declared its length: a property list, or the packet.
    end: usize,
    packet_end: usize,
    kind: PacketType,
    sender: Side,
    user_properties_left: usize,
    /// Of the connection; CONNECT sets it as soon as it has told.
    pub(crate) version: Option<Version>,
}

impl Cursor {
    /// A cursor at the first byte behind the fixed header.
    pub(crate) fn new(
        bytes: Bytes,
        body: Range<usize>,
        kind: PacketType,
        sender: Side,
        version: Option<Version>,
        user_properties_max: usize,
    ) -> Self {
        Self {
            bytes,
            at: body.start,
            end: body.end,
            packet_end: body.end,
            kind,
            sender,
            user_properties_left: user_properties_max,
            version,
        }
    }

    pub(crate) fn is_v5(&self) -> bool {
        self.version == Some(Version::V5)
    }

    pub(crate) fn sender(&self) -> Side {
        self.sender
    }

    /// How many bytes the packet declares behind this place, arrived or not.
    pub(crate) fn left(&self) -> usize {
        self.end.saturating_sub(self.at)
    }

    /// The end of the packet: every field has been read.
    pub(crate) fn finish(&self) -> Result<(), Stop> {
        if self.left() == 0 { Ok(()) } else { Err(DecodeError::TrailingBytes.into()) }
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Stop> {
        let [byte] = self.array()?;
        Ok(byte)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, Stop> {
        self.array().map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Stop> {
        self.array().map(u32::from_be_bytes)
    }

    /// `[MQTT-1.5.5-1]`
    pub(crate) fn var_int(&mut self) -> Result<u32, Stop> {
        let mut value = 0;
        for position in 0..4 {
            let byte = self.u8()?;
            value |= u32::from(byte & 0x7F) << (7 * position);
            if byte & 0x80 == 0 {
                let padded = byte == 0 && position > 0;
                return if padded { Err(DecodeError::VariableByteInteger.into()) } else { Ok(value) };
            }
        }
        Err(DecodeError::VariableByteInteger.into())
    }

    pub(crate) fn packet_id(&mut self) -> Result<PacketId, Stop> {
        PacketId::new(self.u16()?).ok_or_else(|| DecodeError::PacketIdZero.into())
    }

    /// A string, as a slice of the read buffer.
    pub(crate) fn text(&mut self) -> Result<Text, Stop> {
        let range = self.text_range()?;
        Text::try_from(self.bytes.slice(range)).map_err(|error| DecodeError::Text(error).into())
    }

    /// A string of its own.
    pub(crate) fn boxed_str(&mut self) -> Result<Box<str>, Stop> {
        self.text().map(|text| Box::from(text.as_str()))
    }

    /// Binary data, as a slice of the read buffer.
    pub(crate) fn binary(&mut self) -> Result<Bytes, Stop> {
        let len = usize::from(self.u16()?);
        self.fits(len)?;
        let range = self.take(len)?;
        Ok(self.bytes.slice(range))
    }

    /// Binary data of its own.
    pub(crate) fn binary_copy(&mut self) -> Result<Bytes, Stop> {
        self.binary().map(|bytes| Bytes::copy_from_slice(&bytes))
    }

    /// Everything up to the end of the packet; the cursor is of no use afterwards.
    pub(crate) fn rest(&mut self) -> Result<Bytes, Stop> {
        let range = self.take(self.left())?;
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.truncate(range.end);
        bytes.advance(range.start);
        Ok(bytes)
    }

    /// A reason code that this packet may carry from this sender.
    pub(crate) fn reason_code(&mut self) -> Result<ReasonCode, Stop> {
        let number = self.u8()?;
        let packet = self.kind;
        let Some(code) = ReasonCode::from_u8(number).filter(|code| code.valid_in(packet)) else {
            return Err(DecodeError::ReasonCode { packet, code: number }.into());
        };
        if !code.valid_from(packet, self.sender) {
            return Err(DecodeError::ReasonCodeFromWrongSide { packet, code }.into());
        }
        Ok(code)
    }

    /// Steps into the property list that begins here. [`Self::next_property`] walks it and steps out.
    pub(crate) fn enter_properties(&mut self) -> Result<usize, Stop> {
        let len = usize::try_from(self.var_int()?).unwrap_or(usize::MAX);
        self.fits(len)?;
        self.end = self.at + len;
        Ok(len)
    }

    /// The identifier of the next property, or `None` at the end of the list.
    pub(crate) fn next_property(&mut self) -> Result<Option<PropertyId>, Stop> {
        if self.left() == 0 {
            self.end = self.packet_end;
            return Ok(None);
        }
        let number = self.var_int()?;
        let known = u8::try_from(number).ok().and_then(PropertyId::from_u8);
        known.map(Some).ok_or_else(|| DecodeError::PropertyUnknown(number).into())
    }

    pub(crate) fn not_allowed(&self, property: PropertyId) -> Stop {
        DecodeError::PropertyNotAllowed { packet: self.kind, property }.into()
    }

    /// Reads a property that may be there once.
    pub(crate) fn once<T>(
        &mut self,
        property: PropertyId,
        slot: &mut Option<T>,
        read: impl FnOnce(&mut Self) -> Result<T, Stop>,
    ) -> Result<(), Stop> {
        if slot.is_some() {
            return Err(DecodeError::PropertyTwice(property).into());
        }
        *slot = Some(read(self)?);
        Ok(())
    }

    pub(crate) fn user_property(&mut self, list: &mut UserProperties) -> Result<(), Stop> {
        let left = self.user_properties_left.checked_sub(1).ok_or(DecodeError::UserProperties)?;
        self.user_properties_left = left;
        let name = self.boxed_str()?;
        let value = self.boxed_str()?;
        list.push((name, value));
        Ok(())
    }

    /// The value of a property that is 0 or 1.
    pub(crate) fn flag(&mut self, property: PropertyId) -> Result<bool, Stop> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(DecodeError::PropertyValue(property).into()),
        }
    }

    pub(crate) fn non_zero_u16(&mut self, property: PropertyId) -> Result<NonZeroU16, Stop> {
        NonZeroU16::new(self.u16()?).ok_or_else(|| DecodeError::PropertyValue(property).into())
    }

    pub(crate) fn non_zero_u32(&mut self, property: PropertyId) -> Result<NonZeroU32, Stop> {
        NonZeroU32::new(self.u32()?).ok_or_else(|| DecodeError::PropertyValue(property).into())
    }

    /// The value of a Subscription Identifier: 1 to 268,435,455.
    pub(crate) fn subscription_id(&mut self) -> Result<u32, Stop> {
        match self.var_int()? {
            0 => Err(DecodeError::PropertyValue(PropertyId::SubscriptionIdentifier).into()),
            id => Ok(id),
        }
    }

    /// The length of a string and the string behind it. Of a string that has not wholly arrived, what is
    /// there is looked at all the same.
    fn text_range(&mut self) -> Result<Range<usize>, Stop> {
        let len = usize::from(self.u16()?);
        self.fits(len)?;
        let start = self.at;
        self.take(len).map_err(|stop| {
            let arrived = self.bytes.get(start..).unwrap_or_default();
            text::check_start(arrived).err().map_or(stop, |error| DecodeError::Text(error).into())
        })
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Stop> {
        self.fits(N)?;
        let array =
            self.bytes.get(self.at..).and_then(|bytes| bytes.first_chunk()).ok_or(Stop::Incomplete)?;
        self.at += N;
        Ok(*array)
    }

    fn take(&mut self, len: usize) -> Result<Range<usize>, Stop> {
        let range = self.at..self.at + len;
        if range.end > self.bytes.len() {
            return Err(Stop::Incomplete);
        }
        self.at = range.end;
        Ok(range)
    }

    /// Whether `len` more bytes are declared. Arrived is another question, and asked second.
    fn fits(&self, len: usize) -> Result<(), Stop> {
        if len > self.left() { Err(DecodeError::Truncated.into()) } else { Ok(()) }
    }
}
