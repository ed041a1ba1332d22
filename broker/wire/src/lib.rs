//! MQTT 3.1.1 and 5.0 packets and codec: bytes in, packets out. No IO, no clock.
#![forbid(unsafe_code)]

/// Quality of Service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum QoS {
    /// 0
    AtMostOnce = 0,
    /// 1
    AtLeastOnce = 1,
    /// 2
    ExactlyOnce = 2,
}

/// Protocol version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Version {
    /// MQTT 3.1.1
    V311,
    /// MQTT 5.0
    V5,
}

/// Reason codes of MQTT 5.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ReasonCode {
    /// 0x00
    Success = 0x00,
    /// 0x87
    NotAuthorized = 0x87,
}
