//! UNSUBSCRIBE: filters (section 3.10).

use crate::basic::{PacketId, PacketType, Version};
use crate::error::DecodeError;
use crate::property::{PropertyId, UserProperties};
use crate::read::{Cursor, Stop};
use crate::text::Text;
use crate::write::{Body, PropertyList, Sink};

/// What a client asks no longer to receive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsubscribe {
    /// What its UNSUBACK refers to.
    pub packet_id: PacketId,
    /// User Properties.
    pub user_properties: UserProperties,
    /// The filters, at least one, unchecked.
    pub filters: Vec<Text>,
}

impl Unsubscribe {
    pub(super) fn read(cursor: &mut Cursor) -> Result<Self, Stop> {
        let mut unsubscribe =
            Self { packet_id: cursor.packet_id()?, user_properties: Vec::new(), filters: Vec::new() };
        if cursor.is_v5() {
            cursor.enter_properties()?;
            while let Some(property) = cursor.next_property()? {
                match property {
                    PropertyId::UserProperty => cursor.user_property(&mut unsubscribe.user_properties)?,
                    _ => return Err(cursor.not_allowed(property)),
                }
            }
        }
        if cursor.left() == 0 {
            return Err(DecodeError::NoEntries(PacketType::Unsubscribe).into());
        }
        while cursor.left() > 0 {
            unsubscribe.filters.push(cursor.text()?);
        }
        Ok(unsubscribe)
    }
}

impl Body for Unsubscribe {
    fn first_byte(&self) -> u8 {
        PacketType::Unsubscribe.first_byte()
    }

    fn write<S: Sink>(&self, version: Version, sink: &mut S) {
        sink.u16(self.packet_id.get());
        if version == Version::V5 {
            sink.property_list(self);
        }
        for filter in &self.filters {
            sink.text(filter);
        }
    }
}

impl PropertyList for Unsubscribe {
    fn write<S: Sink>(&self, sink: &mut S) {
        sink.user_properties(&self.user_properties);
    }
}
