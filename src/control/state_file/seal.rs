//! What makes digests of keys fit to be written down, and a file fit to be believed.
//!
//! Two keys for HMAC-SHA-256 are derived by HKDF from the operator's secret (`state-key-file`) and from random numbers
//! that are new for every file: one seals digests, the other the file as a whole. So two files never show that two
//! endpoints have the same key, and no table made in advance helps with any. Without the operator's secret whoever has
//! the file can still try keys out; with it he cannot, and cannot make a file that would be believed either.

use std::fs;
use std::path::Path;

use aws_lc_rs::{hkdf, hmac, rand};

use super::Refusal;
use crate::core::facts::Seal;

/// Random bytes of one file.
pub(super) const SALT_BYTES: usize = 32;
/// Bytes of the mark that a file as a whole gets.
pub(super) const MARK_BYTES: usize = 32;
/// The shortest secret: what a good random number generator fills cannot be guessed.
const SECRET_BYTES_MIN: usize = 32;
/// The longest one.
const SECRET_BYTES_MAX: usize = 4096;

/// What all seals depend on.
pub(super) struct Root(Vec<u8>);

impl Root {
    /// From the operator's secret, if he has one.
    pub(super) fn read(key_file: Option<&Path>) -> Result<Self, Refusal> {
        let Some(path) = key_file else { return Ok(Self(Vec::new())) };
        let refuse = |why: String| Refusal::KeyFile { path: path.display().to_string(), why };
        let secret = fs::read(path).map_err(|error| refuse(error.to_string()))?;
        let secret = secret.trim_ascii_end();
        match secret.len() {
            SECRET_BYTES_MIN..=SECRET_BYTES_MAX => Ok(Self(secret.to_vec())),
            length => Err(refuse(format!(
                "has {length} bytes; {SECRET_BYTES_MIN} to {SECRET_BYTES_MAX} random ones are needed"
            ))),
        }
    }

    /// The two seals of the file with these random numbers.
    pub(super) fn seals(&self, salt: &[u8; SALT_BYTES]) -> Result<Seals, Refusal> {
        let secret = hkdf::Salt::new(hkdf::HKDF_SHA256, salt).extract(&self.0);
        let derive = |purpose: &[u8]| -> Result<[u8; 32], Refusal> {
            let mut key = [0; 32];
            let purpose = [purpose];
            let derived = secret.expand(&purpose, hkdf::HKDF_SHA256).and_then(|derived| derived.fill(&mut key));
            derived.map(|()| key).map_err(|_| Refusal::NoDice)
        };
        let file = hmac::Key::new(hmac::HMAC_SHA256, &derive(b"scorefront state file")?);
        Ok(Seals { keys: Seal(derive(b"scorefront state keys")?), file })
    }
}

/// The seals of one file.
pub(super) struct Seals {
    /// For digests of keys.
    pub(super) keys: Seal,
    file: hmac::Key,
}

impl Seals {
    /// The mark of a file that consists of these parts.
    pub(super) fn mark(&self, parts: [&[u8]; 2]) -> [u8; MARK_BYTES] {
        let mut context = hmac::Context::with_key(&self.file);
        parts.iter().for_each(|part| context.update(part));
        let mut mark = [0; MARK_BYTES];
        mark.iter_mut().zip(context.sign().as_ref()).for_each(|(to, from)| *to = *from);
        mark
    }

    /// Whether it is that.
    pub(super) fn is_mark(&self, parts: [&[u8]; 2], mark: &[u8; MARK_BYTES]) -> bool {
        aws_lc_rs::constant_time::verify_slices_are_equal(&self.mark(parts), mark).is_ok()
    }
}

/// New random numbers.
pub(super) fn salt() -> Result<[u8; SALT_BYTES], Refusal> {
    let mut salt = [0; SALT_BYTES];
    rand::fill(&mut salt).map_err(|_| Refusal::NoDice)?;
    Ok(salt)
}
