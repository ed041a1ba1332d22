//! What an encrypted payload looks like:
//!
//! ```text
//! 'W' 'Q' 'E' 1 | length of the key's name | the name | nonce, 24 bytes | ciphertext | tag, 16 bytes
//! ```
//!
//! XChaCha20-Poly1305. What stands before the nonce is authenticated along, and so is the topic: a payload cannot
//! be moved to another topic.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};

const MAGIC: [u8; 4] = *b"WQE\x01";
/// How long a nonce is: long enough to be drawn at random for ever.
pub(crate) const NONCE_BYTES: usize = 24;
const KEY_BYTES: usize = 32;
const ID_BYTES_MAX: usize = 64;

/// A key and its name.
pub(crate) struct Key {
    id: String,
    cipher: XChaCha20Poly1305,
}

impl Key {
    /// The key that the secret `text` holds, in Base64. The error begins with `id` or `secret`.
    pub(crate) fn parse(id: &str, text: &str) -> Result<Self, String> {
        if id.is_empty() || id.len() > ID_BYTES_MAX {
            return Err(format!("id: it has 1 to {ID_BYTES_MAX} bytes"));
        }
        let bytes = STANDARD.decode(text.trim()).map_err(|_| {
            format!("secret: it is not Base64; make one with `openssl rand -base64 {KEY_BYTES}`")
        })?;
        let cipher = XChaCha20Poly1305::new_from_slice(&bytes)
            .map_err(|_| format!("secret: it has {} bytes; a key has {KEY_BYTES}", bytes.len()))?;
        Ok(Self { id: id.to_owned(), cipher })
    }

    /// What messages encrypted with it call it.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// Encrypts the payload of a message to `topic`.
    pub(crate) fn seal(&self, topic: &str, payload: &[u8], nonce: &[u8]) -> Result<Vec<u8>, String> {
        let nonce = XNonce::try_from(nonce).map_err(|_| "the broker gave no nonce".to_owned())?;
        let mut sealed = MAGIC.to_vec();
        sealed.push(u8::try_from(self.id.len()).unwrap_or(u8::MAX));
        sealed.extend_from_slice(self.id.as_bytes());
        let aad = authenticated(&sealed, topic);
        let text = self.cipher.encrypt(&nonce, Payload { msg: payload, aad: &aad });
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(&text.map_err(|_| "the payload is too large to encrypt".to_owned())?);
        Ok(sealed)
    }
}

/// The payload of a message to `topic` as it was before one of `keys` encrypted it.
pub(crate) fn open(keys: &[Key], topic: &str, sealed: &[u8]) -> Result<Vec<u8>, String> {
    const CUT: &str = "it is cut short";
    let rest = sealed.strip_prefix(&MAGIC).ok_or("it was not encrypted by this plugin")?;
    let (length, rest) = rest.split_first().ok_or(CUT)?;
    let (id, rest) = rest.split_at_checked(usize::from(*length)).ok_or(CUT)?;
    let (nonce, text) = rest.split_at_checked(NONCE_BYTES).ok_or(CUT)?;
    let nonce = XNonce::try_from(nonce).map_err(|_| CUT)?;
    let head = sealed.get(..MAGIC.len() + 1 + id.len()).ok_or(CUT)?;
    let key = keys.iter().find(|key| key.id.as_bytes() == id).ok_or_else(|| {
        format!("the key '{}' that it was encrypted with is not among keys", String::from_utf8_lossy(id))
    })?;
    let aad = authenticated(head, topic);
    key.cipher.decrypt(&nonce, Payload { msg: text, aad: &aad }).map_err(|_| {
        format!("the key '{}' does not open it: it was changed, moved, or the secret is another", key.id)
    })
}

fn authenticated(head: &[u8], topic: &str) -> Vec<u8> {
    [head, topic.as_bytes()].concat()
}
