//! A token: taken apart, and its signature checked.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use p256::ecdsa::signature::Verifier;
use p256::pkcs8::DecodePublicKey;
use serde::Deserialize;
use serde_json::{Map, Value};
use sha2::Sha256;

use crate::config::{self, Algorithm};

/// The longest token that is looked at.
const TOKEN_BYTES_MAX: usize = 16_384;
/// RFC 7518 wants a secret as long as the hash, and RSA keys of 2048 bits.
const SECRET_BYTES_MIN: usize = 32;
const RSA_BYTES_MIN: usize = 256;

/// What a token says, under whatever names.
pub(crate) type Claims = Map<String, Value>;

/// A key that signatures are checked with.
pub(crate) struct Key {
    id: Option<String>,
    kind: Kind,
}

enum Kind {
    Hs256(Hmac<Sha256>),
    Rs256(rsa::pkcs1v15::VerifyingKey<Sha256>),
    Es256(p256::ecdsa::VerifyingKey),
}

impl Key {
    /// Checks key `index` of the configuration.
    pub(crate) fn parse(index: usize, key: config::Key) -> Result<Self, String> {
        let here = |name: &str, what: String| format!("keys[{index}].{name}: {what}");
        let kind = match (key.algorithm, key.secret, key.secret_base64, key.public_key) {
            (Algorithm::HS256, Some(secret), None, None) => {
                Kind::hs256(secret.as_bytes()).map_err(|error| here("secret", error))?
            }
            (Algorithm::HS256, None, Some(secret), None) => {
                let secret = base64::engine::general_purpose::STANDARD
                    .decode(secret.trim())
                    .map_err(|error| here("secret_base64", format!("not Base64: {error}")))?;
                Kind::hs256(&secret).map_err(|error| here("secret_base64", error))?
            }
            (Algorithm::HS256, ..) => {
                return Err(here(
                    "secret",
                    "HS256 wants secret or secret_base64, and nothing else".to_owned(),
                ));
            }
            (Algorithm::RS256, None, None, Some(pem)) => {
                Kind::rs256(&pem).map_err(|error| here("public_key", error))?
            }
            (Algorithm::ES256, None, None, Some(pem)) => {
                Kind::es256(&pem).map_err(|error| here("public_key", error))?
            }
            (algorithm, ..) => {
                return Err(here("public_key", format!("{algorithm:?} wants public_key, and nothing else")));
            }
        };
        Ok(Self { id: key.id, kind })
    }

    /// The name that tokens call it by.
    pub(crate) fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    fn verifies(&self, signed: &[u8], signature: &[u8]) -> bool {
        match &self.kind {
            Kind::Hs256(key) => key.clone().chain_update(signed).verify_slice(signature).is_ok(),
            Kind::Rs256(key) => rsa::pkcs1v15::Signature::try_from(signature)
                .is_ok_and(|signature| key.verify(signed, &signature).is_ok()),
            Kind::Es256(key) => p256::ecdsa::Signature::from_slice(signature)
                .is_ok_and(|signature| key.verify(signed, &signature).is_ok()),
        }
    }
}

impl Kind {
    fn hs256(secret: &[u8]) -> Result<Self, String> {
        if secret.len() < SECRET_BYTES_MIN {
            return Err(format!("it has {} bytes; at least {SECRET_BYTES_MIN} are needed", secret.len()));
        }
        Hmac::new_from_slice(secret).map(Self::Hs256).map_err(|error| error.to_string())
    }

    fn rs256(pem: &str) -> Result<Self, String> {
        let key = rsa::PublicKey::from_public_key_pem(pem.trim())
            .map_err(|error| format!("not an RSA public key in PEM (-----BEGIN PUBLIC KEY-----): {error}"))?;
        let bytes = rsa::traits::PublicKeyParts::size(&key);
        if bytes < RSA_BYTES_MIN {
            return Err(format!("it has {} bits; at least {} are needed", bytes * 8, RSA_BYTES_MIN * 8));
        }
        Ok(Self::Rs256(rsa::pkcs1v15::VerifyingKey::new(key)))
    }

    fn es256(pem: &str) -> Result<Self, String> {
        p256::ecdsa::VerifyingKey::from_public_key_pem(pem.trim())
            .map(Self::Es256)
            .map_err(|error| format!("not a P-256 public key in PEM (-----BEGIN PUBLIC KEY-----): {error}"))
    }

    fn algorithm(&self) -> &'static str {
        match self {
            Self::Hs256(_) => "HS256",
            Self::Rs256(_) => "RS256",
            Self::Es256(_) => "ES256",
        }
    }
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    crit: Option<Value>,
}

/// Whether `text` looks like a token at all: a password hardly ever does.
pub(crate) fn looks_like_one(text: &str) -> bool {
    text.starts_with("eyJ") && text.split('.').count() == 3
}

/// The claims of `token`, when one of `keys` has signed it.
pub(crate) fn verified(token: &str, keys: &[Key]) -> Result<Claims, String> {
    if token.len() > TOKEN_BYTES_MAX {
        return Err(format!("it has more than {TOKEN_BYTES_MAX} bytes"));
    }
    let (signed, signature) = token.rsplit_once('.').ok_or("it is not of three parts")?;
    let (header, claims) = signed.split_once('.').ok_or("it is not of three parts")?;
    let decode = |part: &str, what: &str| {
        URL_SAFE_NO_PAD.decode(part).map_err(|error| format!("its {what} is not Base64: {error}"))
    };
    let header: Header = serde_json::from_slice(&decode(header, "header")?)
        .map_err(|error| format!("its header cannot be read: {error}"))?;
    if header.crit.is_some() {
        return Err("it demands an extension (crit), and none is known here".to_owned());
    }
    let signature = decode(signature, "signature")?;
    // A key serves its own algorithm only: the token does not choose how its signature is checked.
    let mut fitting = keys.iter().filter(|key| {
        key.kind.algorithm() == header.alg
            && (header.kid.is_none() || key.id.is_none() || header.kid.as_deref() == key.id())
    });
    let mut tried = false;
    let verified = fitting.any(|key| {
        tried = true;
        key.verifies(signed.as_bytes(), &signature)
    });
    match (verified, tried) {
        (true, _) => serde_json::from_slice(&decode(claims, "claims")?)
            .map_err(|error| format!("its claims cannot be read: {error}")),
        (false, true) => Err("its signature is wrong".to_owned()),
        (false, false) => {
            let kid = header.kid.map_or_else(String::new, |kid| format!(" with the kid '{kid}'"));
            Err(format!("no key here is for {}{kid}", header.alg))
        }
    }
}
