//! Checking a password against an Argon2 hash, always at the full price.

use argon2::password_hash::phc::{Output, PasswordHash};
use argon2::{Algorithm, Argon2, Block, Params, Version};

/// The salt that is used where there is no user: the work is what counts.
const NOBODYS_SALT: &[u8] = b"there is no user";

/// A password hash, taken apart once.
pub(crate) struct StoredHash {
    algorithm: Algorithm,
    version: Version,
    params: Params,
    salt: Vec<u8>,
    expected: Output,
}

impl StoredHash {
    /// Takes a PHC string such as `$argon2id$v=19$m=19456,t=4,p=1$...$...` apart.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        const WANTED: &str = "not an Argon2 hash; make one with `weirmq hash-password`";
        let hash = PasswordHash::new(text).map_err(|error| format!("{WANTED} ({error})"))?;
        let algorithm = Algorithm::try_from(hash.algorithm.as_str()).map_err(|_| WANTED.to_owned())?;
        let version = match hash.version {
            None => Version::default(),
            Some(number) => Version::try_from(number).map_err(|error| format!("{WANTED} ({error})"))?,
        };
        let params = Params::try_from(&hash).map_err(|error| format!("{WANTED} ({error})"))?;
        let (Some(salt), Some(expected)) = (hash.salt, hash.hash) else { return Err(WANTED.to_owned()) };
        Ok(Self { algorithm, version, params, salt: salt.as_ref().to_vec(), expected })
    }

    /// What it costs to check: memory times passes.
    fn price(&self) -> u64 {
        u64::from(self.params.m_cost()).saturating_mul(u64::from(self.params.t_cost()))
    }
}

/// Checks passwords, with working memory that is allocated once.
pub(crate) struct Passwords {
    blocks: Vec<Block>,
    dearest: Option<(Algorithm, Version, Params)>,
}

impl Passwords {
    /// Room for the largest of `hashes`; a user who does not exist costs as much as the dearest of them.
    pub(crate) fn for_hashes<'a>(
        hashes: impl Iterator<Item = &'a StoredHash> + Clone,
    ) -> Result<Self, String> {
        let count = hashes.clone().map(|hash| hash.params.block_count()).max().unwrap_or(0);
        let mut blocks = Vec::new();
        blocks.try_reserve_exact(count).map_err(|_| {
            format!(
                "a password_hash needs {} MiB to be checked: raise the plugin's memory_mb",
                count.div_ceil(1024)
            )
        })?;
        blocks.resize_with(count, Block::new);
        let dearest = hashes
            .max_by_key(|hash| hash.price())
            .map(|hash| (hash.algorithm, hash.version, hash.params.clone()));
        Ok(Self { blocks, dearest })
    }

    /// Whether `password` is the one that `stored` was made of. The comparison takes the same time wherever the
    /// difference lies.
    pub(crate) fn verify(&mut self, password: &[u8], stored: &StoredHash) -> bool {
        let argon2 = Argon2::new(stored.algorithm, stored.version, stored.params.clone());
        let mut found = vec![0; stored.expected.len()];
        let hashed =
            argon2.hash_password_into_with_memory(password, &stored.salt, &mut found, &mut self.blocks);
        hashed.is_ok() && Output::new(&found).is_ok_and(|found| found == stored.expected)
    }

    /// Takes the time that [`Passwords::verify`] takes, for nothing.
    pub(crate) fn spend(&mut self, password: &[u8]) {
        let Some((algorithm, version, params)) = self.dearest.clone() else { return };
        let mut found = [0; 32];
        let argon2 = Argon2::new(algorithm, version, params);
        let _ = argon2.hash_password_into_with_memory(password, NOBODYS_SALT, &mut found, &mut self.blocks);
        std::hint::black_box(found);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// "sesame", at a price that suits tests.
    const SESAME: &str =
        "$argon2id$v=19$m=64,t=1,p=1$c29tZXNhbHRzb21lc2FsdA$z8PUOL9AltsbdVFy5jA3qpgH0xqFNTlVPVDYA8jpwYE";

    #[test]
    fn the_right_password_and_no_other_is_accepted() {
        let stored = StoredHash::parse(SESAME).unwrap();
        let mut passwords = Passwords::for_hashes([&stored].into_iter()).unwrap();
        assert!(passwords.verify(b"sesame", &stored));
        for wrong in [&b""[..], b"Sesame", b"sesame\0", b"sesame "] {
            assert!(!passwords.verify(wrong, &stored));
        }
        assert!(passwords.verify(b"sesame", &stored), "the working memory is used again");
    }

    #[test]
    fn what_is_no_argon2_hash_is_refused_with_the_command_that_makes_one() {
        for text in [
            "",
            "sesame",
            "$2b$12$abc",
            "$argon2id$v=19$m=64,t=1,p=1$c29tZXNhbHRzb21lc2FsdA",
            "$argon2id$v=9$m=64,t=1,p=1$c29tZXNhbHQ$AAAAAAAAAAAAAAAAAAAAAA",
        ] {
            let error = StoredHash::parse(text).err().unwrap();
            assert!(error.contains("weirmq hash-password"), "{text}: {error}");
        }
    }
}
