//! Reason codes, and which packet may carry which.

use std::fmt;

use crate::basic::{PacketType, Side};
use crate::numbered::numbered;

numbered! {
    /// Why a packet says what it says: the reason codes of MQTT 5 (section 2.4).
    ///
    /// 0x00 is also "normal disconnection" in a DISCONNECT and "granted QoS 0" in a SUBACK.
    ReasonCode,
    /// What it says, in words.
    words;

    Success = 0x00, "success";
    GrantedQoS1 = 0x01, "granted QoS 1";
    GrantedQoS2 = 0x02, "granted QoS 2";
    DisconnectWithWill = 0x04, "disconnect with will message";
    NoMatchingSubscribers = 0x10, "no matching subscribers";
    NoSubscriptionExisted = 0x11, "no subscription existed";
    ContinueAuthentication = 0x18, "continue authentication";
    ReAuthenticate = 0x19, "re-authenticate";
    UnspecifiedError = 0x80, "unspecified error";
    MalformedPacket = 0x81, "malformed packet";
    ProtocolError = 0x82, "protocol error";
    ImplementationSpecificError = 0x83, "implementation specific error";
    UnsupportedProtocolVersion = 0x84, "unsupported protocol version";
    ClientIdentifierNotValid = 0x85, "client identifier not valid";
    BadUserNameOrPassword = 0x86, "bad user name or password";
    NotAuthorized = 0x87, "not authorized";
    ServerUnavailable = 0x88, "server unavailable";
    ServerBusy = 0x89, "server busy";
    Banned = 0x8A, "banned";
    ServerShuttingDown = 0x8B, "server shutting down";
    BadAuthenticationMethod = 0x8C, "bad authentication method";
    KeepAliveTimeout = 0x8D, "keep alive timeout";
    SessionTakenOver = 0x8E, "session taken over";
    TopicFilterInvalid = 0x8F, "topic filter invalid";
    TopicNameInvalid = 0x90, "topic name invalid";
    PacketIdentifierInUse = 0x91, "packet identifier in use";
    PacketIdentifierNotFound = 0x92, "packet identifier not found";
    ReceiveMaximumExceeded = 0x93, "receive maximum exceeded";
    TopicAliasInvalid = 0x94, "topic alias invalid";
    PacketTooLarge = 0x95, "packet too large";
    MessageRateTooHigh = 0x96, "message rate too high";
    QuotaExceeded = 0x97, "quota exceeded";
    AdministrativeAction = 0x98, "administrative action";
    PayloadFormatInvalid = 0x99, "payload format invalid";
    RetainNotSupported = 0x9A, "retain not supported";
    QoSNotSupported = 0x9B, "QoS not supported";
    UseAnotherServer = 0x9C, "use another server";
    ServerMoved = 0x9D, "server moved";
    SharedSubscriptionsNotSupported = 0x9E, "shared subscriptions not supported";
    ConnectionRateExceeded = 0x9F, "connection rate exceeded";
    MaximumConnectTime = 0xA0, "maximum connect time";
    SubscriptionIdentifiersNotSupported = 0xA1, "subscription identifiers not supported";
    WildcardSubscriptionsNotSupported = 0xA2, "wildcard subscriptions not supported";
}

impl ReasonCode {
    /// Its number.
    #[must_use]
    pub const fn as_u8(self) -> u8 {
        self as u8
    }

    /// Whether it reports a failure: 0x80 and above.
    #[must_use]
    pub const fn is_error(self) -> bool {
        self.as_u8() >= 0x80
    }

    /// Whether a packet of this type may carry it, from one side at least (the tables of sections 3.2.2.2,
    /// 3.4.2.1, 3.5.2.1, 3.6.2.1, 3.7.2.1, 3.9.3, 3.11.3, 3.14.2.1, 3.15.2.1).
    #[must_use]
    pub const fn valid_in(self, packet: PacketType) -> bool {
        match packet {
            PacketType::ConnAck => {
                matches!(self.as_u8(), 0x00 | 0x80..=0x8A | 0x8C | 0x90 | 0x95 | 0x97 | 0x99..=0x9D | 0x9F)
            }
            PacketType::PubAck | PacketType::PubRec => {
                matches!(self.as_u8(), 0x00 | 0x10 | 0x80 | 0x83 | 0x87 | 0x90 | 0x91 | 0x97 | 0x99)
            }
            PacketType::PubRel | PacketType::PubComp => matches!(self.as_u8(), 0x00 | 0x92),
            PacketType::SubAck => matches!(
                self.as_u8(),
                0x00..=0x02 | 0x80 | 0x83 | 0x87 | 0x8F | 0x91 | 0x97 | 0x9E | 0xA1 | 0xA2
            ),
            PacketType::UnsubAck => matches!(self.as_u8(), 0x00 | 0x11 | 0x80 | 0x83 | 0x87 | 0x8F | 0x91),
            // 0x8C is in the table of section 2.4 and missing in that of section 3.14.2.1.
            PacketType::Disconnect => matches!(
                self.as_u8(),
                0x00 | 0x04 | 0x80..=0x83 | 0x87 | 0x89 | 0x8B..=0x90 | 0x93..=0xA2
            ),
            PacketType::Auth => matches!(self.as_u8(), 0x00 | 0x18 | 0x19),
            PacketType::Connect
            | PacketType::Publish
            | PacketType::Subscribe
            | PacketType::Unsubscribe
            | PacketType::PingReq
            | PacketType::PingResp => false,
        }
    }

    /// Whether `side` may send it in a packet of this type: the "sent by" columns of the same tables.
    ///
    /// With one exception: 0x10, "no matching subscribers", is for servers to send, but a bridge is a server
    /// that comes as a client, and cutting it off for an acknowledgement that is as good as 0x00 helps nobody.
    pub(crate) const fn valid_from(self, packet: PacketType, side: Side) -> bool {
        match (packet, side) {
            (PacketType::Disconnect, Side::Client) => {
                matches!(self.as_u8(), 0x00 | 0x04 | 0x80..=0x83 | 0x90 | 0x93..=0x99)
            }
            (PacketType::Disconnect, Side::Server) => !matches!(self, Self::DisconnectWithWill),
            (PacketType::Auth, Side::Client) => !matches!(self, Self::Success),
            (PacketType::Auth, Side::Server) => !matches!(self, Self::ReAuthenticate),
            _ => true,
        }
    }

    /// The return code of an MQTT 3.1.1 CONNACK that says it best: 0 accepted, 1 unacceptable protocol
    /// version, 2 identifier rejected, 3 server unavailable, 4 bad user name or password, 5 not authorized.
    #[must_use]
    pub const fn connack_v311(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::UnsupportedProtocolVersion => 1,
            Self::ClientIdentifierNotValid => 2,
            Self::BadUserNameOrPassword => 4,
            // What the server would not do for this client, however often it asks.
            Self::NotAuthorized
            | Self::Banned
            | Self::BadAuthenticationMethod
            | Self::TopicNameInvalid
            | Self::PayloadFormatInvalid
            | Self::RetainNotSupported
            | Self::QoSNotSupported => 5,
            _ => 3,
        }
    }

    /// The reason code that says what a return code of an MQTT 3.1.1 CONNACK says.
    pub(crate) const fn from_connack_v311(code: u8) -> Option<Self> {
        Some(match code {
            0 => Self::Success,
            1 => Self::UnsupportedProtocolVersion,
            2 => Self::ClientIdentifierNotValid,
            3 => Self::ServerUnavailable,
            4 => Self::BadUserNameOrPassword,
            5 => Self::NotAuthorized,
            _ => return None,
        })
    }
}

impl fmt::Display for ReasonCode {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:#04x} {}", self.as_u8(), self.words())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_lead_to_their_codes_and_back() {
        let known: Vec<_> = (0..=u8::MAX).filter_map(ReasonCode::from_u8).collect();
        assert_eq!(known, ReasonCode::ALL);
        assert!(known.iter().all(|code| ReasonCode::from_u8(code.as_u8()) == Some(*code)));
        assert_eq!(known.len(), 43);
    }

    #[test]
    fn a_code_is_shown_as_number_and_words() {
        assert_eq!(ReasonCode::NotAuthorized.to_string(), "0x87 not authorized");
        assert_eq!(ReasonCode::Success.to_string(), "0x00 success");
    }

    #[test]
    fn errors_begin_at_0x80() {
        assert!(!ReasonCode::ReAuthenticate.is_error());
        assert!(ReasonCode::UnspecifiedError.is_error());
    }

    /// Section 2.4 lists for every code the packets that may carry it; this is that table, read the other way
    /// round from `valid_in`.
    #[test]
    fn v5_2_4_codes_are_valid_where_the_table_lists_them() {
        use PacketType::{Auth, ConnAck, Disconnect, PubAck, PubComp, PubRec, PubRel, SubAck, UnsubAck};
        let all_but_auth = [ConnAck, PubAck, PubRec, SubAck, UnsubAck, Disconnect];
        let table: &[(u8, &[PacketType])] = &[
            (0x00, &[ConnAck, PubAck, PubRec, PubRel, PubComp, UnsubAck, Auth, Disconnect, SubAck]),
            (0x01, &[SubAck]),
            (0x02, &[SubAck]),
            (0x04, &[Disconnect]),
            (0x10, &[PubAck, PubRec]),
            (0x11, &[UnsubAck]),
            (0x18, &[Auth]),
            (0x19, &[Auth]),
            (0x80, &all_but_auth),
            (0x81, &[ConnAck, Disconnect]),
            (0x82, &[ConnAck, Disconnect]),
            (0x83, &all_but_auth),
            (0x84, &[ConnAck]),
            (0x85, &[ConnAck]),
            (0x86, &[ConnAck]),
            (0x87, &all_but_auth),
            (0x88, &[ConnAck]),
            (0x89, &[ConnAck, Disconnect]),
            (0x8A, &[ConnAck]),
            (0x8B, &[Disconnect]),
            (0x8C, &[ConnAck, Disconnect]),
            (0x8D, &[Disconnect]),
            (0x8E, &[Disconnect]),
            (0x8F, &[SubAck, UnsubAck, Disconnect]),
            (0x90, &[ConnAck, PubAck, PubRec, Disconnect]),
            (0x91, &[PubAck, PubRec, SubAck, UnsubAck]),
            (0x92, &[PubRel, PubComp]),
            (0x93, &[Disconnect]),
            (0x94, &[Disconnect]),
            (0x95, &[ConnAck, Disconnect]),
            (0x96, &[Disconnect]),
            (0x97, &[ConnAck, PubAck, PubRec, SubAck, Disconnect]),
            (0x98, &[Disconnect]),
            (0x99, &[ConnAck, PubAck, PubRec, Disconnect]),
            (0x9A, &[ConnAck, Disconnect]),
            (0x9B, &[ConnAck, Disconnect]),
            (0x9C, &[ConnAck, Disconnect]),
            (0x9D, &[ConnAck, Disconnect]),
            (0x9E, &[SubAck, Disconnect]),
            (0x9F, &[ConnAck, Disconnect]),
            (0xA0, &[Disconnect]),
            (0xA1, &[SubAck, Disconnect]),
            (0xA2, &[SubAck, Disconnect]),
        ];
        assert_eq!(table.len(), ReasonCode::ALL.len());
        for (number, packets) in table {
            let code = ReasonCode::from_u8(*number).unwrap();
            for packet in PacketType::ALL {
                assert_eq!(code.valid_in(packet), packets.contains(&packet), "{code} in {packet}");
            }
        }
    }

    #[test]
    fn every_code_has_a_return_code_of_mqtt_3_1_1() {
        for (code, number) in [
            (ReasonCode::Success, 0),
            (ReasonCode::UnsupportedProtocolVersion, 1),
            (ReasonCode::ClientIdentifierNotValid, 2),
            (ReasonCode::ServerUnavailable, 3),
            (ReasonCode::ServerBusy, 3),
            (ReasonCode::BadUserNameOrPassword, 4),
            (ReasonCode::NotAuthorized, 5),
            (ReasonCode::Banned, 5),
        ] {
            assert_eq!(code.connack_v311(), number, "{code}");
        }
        let failures = ReasonCode::ALL.iter().filter(|code| code.is_error());
        assert!(failures.map(|code| code.connack_v311()).all(|number| (1..=5).contains(&number)));
        for number in 0..=5 {
            assert_eq!(ReasonCode::from_connack_v311(number).map(ReasonCode::connack_v311), Some(number));
        }
    }
}
