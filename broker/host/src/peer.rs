//! The address of a client as text, without an allocation.

use std::fmt::Write;
use std::net::SocketAddr;

/// The longest is `[ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255%4294967295]:65535`.
const BYTES_MAX: usize = 64;

/// `address:port`.
pub(crate) struct PeerText {
    bytes: [u8; BYTES_MAX],
    length: usize,
}

impl PeerText {
    /// The text of `peer`.
    pub(crate) fn of(peer: SocketAddr) -> Self {
        let mut text = Self { bytes: [0; BYTES_MAX], length: 0 };
        match peer {
            // The machinery of `fmt` takes as long as a third of a call into a plugin.
            SocketAddr::V4(v4) => {
                let [a, b, c, d] = v4.ip().octets();
                for (part, end) in [(a, b'.'), (b, b'.'), (c, b'.'), (d, b':')] {
                    text.push_number(part.into());
                    text.push(end);
                }
                text.push_number(v4.port());
            }
            // It fits.
            SocketAddr::V6(_) => drop(write!(text, "{peer}")),
        }
        text
    }

    pub(crate) fn as_str(&self) -> &str {
        // It is ASCII, and `length` is never more than there is.
        self.bytes.get(..self.length).and_then(|bytes| std::str::from_utf8(bytes).ok()).unwrap_or_default()
    }

    fn push(&mut self, byte: u8) {
        if let Some(place) = self.bytes.get_mut(self.length) {
            *place = byte;
            self.length += 1;
        }
    }

    fn push_number(&mut self, number: u16) {
        // By what is known when it is compiled, because divisions by anything else are slow.
        let digits = [number / 10_000, number / 1000 % 10, number / 100 % 10, number / 10 % 10, number % 10];
        let first = digits.iter().position(|digit| *digit > 0).unwrap_or(digits.len() - 1);
        for digit in digits.iter().skip(first) {
            self.push(b'0' + *digit as u8);
        }
    }
}

impl Write for PeerText {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        text.bytes().for_each(|byte| self.push(byte));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_what_everybody_else_writes() {
        let addresses = [
            "0.0.0.0:0",
            "1.20.255.100:9",
            "192.0.2.7:4711",
            "255.255.255.255:65535",
            "[::1]:1883",
            "[fe80::1%3]:10",
            "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff%4294967295]:65535",
            "[::ffff:192.0.2.7]:8883",
        ];
        for address in addresses {
            let address: SocketAddr = address.parse().unwrap();
            assert_eq!(PeerText::of(address).as_str(), address.to_string());
        }
    }
}
