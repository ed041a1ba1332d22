//! Text that was checked once.

use std::borrow::Borrow;
use std::fmt;
use std::ops::Deref;

use bytes::Bytes;
use bytestring::ByteString;

/// A UTF-8 encoded string of MQTT: at most 65,535 bytes, no U+0000 `[MQTT-1.5.4-2]`. U+FEFF is kept where it
/// stands `[MQTT-1.5.4-3]`.
///
/// Decoded texts are slices of the read buffer: cheap to clone, and whoever keeps one keeps the whole buffer.
/// What is to outlive the handling of its packet should be copied out.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Text(ByteString);

/// Why a string is not a [`Text`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    /// It is not UTF-8 `[MQTT-1.5.4-1]`.
    #[error("it is not UTF-8")]
    Utf8,
    /// U+0000 `[MQTT-1.5.4-2]`.
    #[error("it contains the null character U+0000")]
    Null,
    /// Longer than a string of MQTT can be.
    #[error("it is longer than 65,535 bytes")]
    TooLong,
}

impl Text {
    /// Copies `text`.
    ///
    /// # Errors
    /// [`TextError`] where it cannot be a string of MQTT.
    pub fn new(text: &str) -> Result<Self, TextError> {
        check_whole(text.as_bytes())?;
        Ok(Self(ByteString::from(text)))
    }

    /// A copy that keeps nothing but itself.
    pub(crate) fn detached(&self) -> Self {
        Self(ByteString::from(self.as_str()))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<Bytes> for Text {
    type Error = TextError;

    fn try_from(bytes: Bytes) -> Result<Self, TextError> {
        if bytes.len() > TEXT_BYTES_MAX {
            return Err(TextError::TooLong);
        }
        // The fault nearest the front is the one that is told, so that a string that arrives in pieces is
        // refused for the same reason as one that arrives whole.
        if bytes.contains(&0) {
            check_start(&bytes)?;
            return Err(TextError::Null);
        }
        ByteString::try_from(bytes).map(Self).map_err(|_| TextError::Utf8)
    }
}

impl TryFrom<String> for Text {
    type Error = TextError;

    fn try_from(text: String) -> Result<Self, TextError> {
        check_whole(text.as_bytes())?;
        Ok(Self(ByteString::from(text)))
    }
}

impl TryFrom<&str> for Text {
    type Error = TextError;

    fn try_from(text: &str) -> Result<Self, TextError> {
        Self::new(text)
    }
}

impl Deref for Text {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Text {
    fn borrow(&self) -> &str {
        self
    }
}

impl AsRef<str> for Text {
    fn as_ref(&self) -> &str {
        self
    }
}

impl PartialEq<str> for Text {
    fn eq(&self, other: &str) -> bool {
        self.as_str() == other
    }
}

impl PartialEq<&str> for Text {
    fn eq(&self, other: &&str) -> bool {
        self.as_str() == *other
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), out)
    }
}

impl fmt::Display for Text {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self)
    }
}

/// Whether bytes that begin a string can still become one: what is there has no fault that more bytes could
/// not mend.
pub(crate) fn check_start(bytes: &[u8]) -> Result<(), TextError> {
    let (good, fault) = match std::str::from_utf8(bytes) {
        Ok(text) => (text.as_bytes(), Ok(())),
        Err(error) => {
            let good = bytes.get(..error.valid_up_to()).unwrap_or_default();
            (good, if error.error_len().is_some() { Err(TextError::Utf8) } else { Ok(()) })
        }
    };
    if good.contains(&0) { Err(TextError::Null) } else { fault }
}

/// The longest string that MQTT can carry, in bytes.
const TEXT_BYTES_MAX: usize = u16::MAX as usize;

fn check_whole(text: &[u8]) -> Result<(), TextError> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(TextError::TooLong);
    }
    if text.contains(&0) {
        return Err(TextError::Null);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(bytes: &'static [u8]) -> Result<Text, TextError> {
        Text::try_from(Bytes::from_static(bytes))
    }

    #[test]
    fn v5_1_5_4_1_ill_formed_utf8_is_refused() {
        for bytes in [
            &b"\xc0\xaf"[..],    // overlong '/'
            b"\xe0\x80\xaf",     // overlong, three bytes
            b"\xed\xa0\x80",     // surrogate U+D800
            b"\xed\xbf\xbf",     // surrogate U+DFFF
            b"\xf4\x90\x80\x80", // above U+10FFFF
            b"\xff",
            b"a\x80",
            b"a\xe2\x82", // cut short
        ] {
            assert_eq!(decoded(bytes), Err(TextError::Utf8), "{bytes:x?}");
        }
    }

    #[test]
    fn v5_1_5_4_2_the_null_character_is_refused() {
        assert_eq!(decoded(b"a\0b"), Err(TextError::Null));
        assert_eq!(Text::new("\0"), Err(TextError::Null));
        assert_eq!(Text::try_from("a\0".to_owned()), Err(TextError::Null));
    }

    #[test]
    fn v5_1_5_4_3_a_byte_order_mark_is_kept() {
        assert_eq!(decoded(b"\xef\xbb\xbfa").unwrap().as_bytes(), b"\xef\xbb\xbfa");
    }

    #[test]
    fn the_fault_nearest_the_front_is_told() {
        assert_eq!(decoded(b"\0\xff"), Err(TextError::Null));
        assert_eq!(decoded(b"\xff\0"), Err(TextError::Utf8));
        assert_eq!(decoded(b"\xe2\x82\0"), Err(TextError::Utf8));
    }

    #[test]
    fn a_start_is_good_while_more_bytes_can_mend_it() {
        assert_eq!(check_start(b"a\xe2\x82"), Ok(()));
        assert_eq!(check_start(b"a\xe2\x28"), Err(TextError::Utf8));
        assert_eq!(check_start(b"\0\xe2"), Err(TextError::Null));
    }

    #[test]
    fn a_text_is_as_long_as_its_length_field_can_say() {
        assert!(Text::new(&"x".repeat(65_535)).is_ok());
        assert_eq!(Text::new(&"x".repeat(65_536)), Err(TextError::TooLong));
    }
}
