//! `weirmq hash-password`: from a password to the text that the login plugin keeps.

use std::io::{self, BufRead, IsTerminal};

use argon2::password_hash::PasswordHasher;
use argon2::{Algorithm, Argon2, Params, Version};

/// KiB of memory per check.
const MEMORY_KIB: u32 = 19_456;
/// Passes over it: 50 to 100 ms per check in the login plugin.
const PASSES: u32 = 4;
/// MQTT carries a password in at most so many bytes.
const PASSWORD_BYTES_MAX: usize = 65_535;

/// Why there is no hash.
#[derive(Debug, thiserror::Error)]
pub enum HashError {
    /// The password cannot be read.
    #[error("the password cannot be read: {0}")]
    Read(#[from] io::Error),
    /// There is none.
    #[error("the password is empty")]
    Empty,
    /// No client could send it.
    #[error("the password is longer than {PASSWORD_BYTES_MAX} bytes, more than MQTT can carry")]
    TooLong,
    /// Two different ones.
    #[error("the two passwords are not the same")]
    Mistyped,
    /// The hash cannot be made.
    #[error("the password cannot be hashed: {0}")]
    Hash(String),
}

/// Asks for a password, twice and without showing it, or reads a line where standard input is no terminal.
///
/// # Errors
/// [`HashError`].
pub fn ask() -> Result<String, HashError> {
    if !io::stdin().is_terminal() {
        return read_line(io::stdin().lock());
    }
    let password = rpassword::prompt_password("Password: ")?;
    if rpassword::prompt_password("The same again: ")? != password {
        return Err(HashError::Mistyped);
    }
    Ok(password)
}

/// The Argon2id hash of `password` with a salt of its own, in the PHC string format.
///
/// # Errors
/// [`HashError`].
pub fn hash(password: &str) -> Result<String, HashError> {
    if password.is_empty() {
        return Err(HashError::Empty);
    }
    if password.len() > PASSWORD_BYTES_MAX {
        return Err(HashError::TooLong);
    }
    let params =
        Params::new(MEMORY_KIB, PASSES, 1, None).map_err(|error| HashError::Hash(error.to_string()))?;
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password(password.as_bytes())
        .map(|hash| hash.to_string())
        .map_err(|error| HashError::Hash(error.to_string()))
}

/// The first line, without its end.
fn read_line(input: impl BufRead) -> Result<String, HashError> {
    let mut line = String::new();
    input.take(PASSWORD_BYTES_MAX as u64 + 3).read_line(&mut line)?;
    let end = line.trim_end_matches(['\r', '\n']).len();
    line.truncate(end);
    Ok(line)
}

#[cfg(test)]
mod tests {
    use argon2::password_hash::PasswordVerifier;
    use argon2::password_hash::phc::PasswordHash;

    use super::*;

    #[test]
    fn the_hash_is_of_the_password_and_of_the_promised_price() {
        let text = hash("correct horse 電池").unwrap();
        assert!(text.starts_with("$argon2id$v=19$m=19456,t=4,p=1$"), "{text}");
        let parsed = PasswordHash::new(&text).unwrap();
        assert!(Argon2::default().verify_password("correct horse 電池".as_bytes(), &parsed).is_ok());
        assert!(Argon2::default().verify_password(b"correct horse", &parsed).is_err());
        assert_ne!(hash("correct horse 電池").unwrap(), text, "another salt each time");
    }

    #[test]
    fn a_password_is_one_line_and_never_empty() {
        for (input, password) in [("a b \n", "a b "), ("secret\r\nmore", "secret"), ("no end", "no end")] {
            assert_eq!(read_line(input.as_bytes()).unwrap(), password);
        }
        assert!(matches!(hash(""), Err(HashError::Empty)));
        let long = "x".repeat(PASSWORD_BYTES_MAX + 1);
        assert!(matches!(hash(&read_line(long.as_bytes()).unwrap()), Err(HashError::TooLong)));
    }
}
