//! How a key is recognised by what is kept of it.
//!
//! Owner: `control` makes digests, `data` asks them about keys that clients present.
//! Holds: nothing here shows a key or a digest, and every comparison with a presented key takes the same time whatever
//! the outcome.

use std::fmt;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::{digest, hmac};

use super::facts::{KeyDigest, Seal};

/// Bytes of a digest.
pub const DIGEST_BYTES: usize = 32;

/// A key as clients present it, hashed once to be compared with many digests.
pub struct Presented([u8; DIGEST_BYTES]);

impl Presented {
    /// Hashes it.
    pub fn new(key: &[u8]) -> Self {
        Self(sha256(key))
    }
}

impl Seal {
    fn tag(&self, plain: &[u8; DIGEST_BYTES]) -> [u8; DIGEST_BYTES] {
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &self.0), plain);
        fixed(tag.as_ref())
    }
}

impl KeyDigest {
    /// Of a key.
    pub fn of(key: &[u8]) -> Self {
        Self::Plain(sha256(key))
    }

    /// Whether the presented key is this one; in constant time.
    pub fn recognises(&self, presented: &Presented) -> bool {
        let is_equal = |a: &[u8], b: &[u8]| verify_slices_are_equal(a, b).is_ok();
        match self {
            Self::Plain(digest) => is_equal(digest, &presented.0),
            Self::Sealed { tag, seal } => is_equal(tag, &seal.tag(&presented.0)),
        }
    }

    /// To be written down. One that was sealed before cannot be sealed again: what it was made of is not known.
    pub fn sealed(&self, seal: &Seal) -> Option<[u8; DIGEST_BYTES]> {
        match self {
            Self::Plain(digest) => Some(seal.tag(digest)),
            Self::Sealed { .. } => None,
        }
    }

    /// Whether both are of the same key, as far as that can be known.
    pub fn is_of_same_key(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Sealed { .. }, Self::Plain(digest)) => self.recognises(&Presented(*digest)),
            (Self::Plain(digest), Self::Sealed { .. }) => other.recognises(&Presented(*digest)),
            _ => self == other,
        }
    }
}

fn sha256(bytes: &[u8]) -> [u8; DIGEST_BYTES] {
    fixed(digest::digest(&digest::SHA256, bytes).as_ref())
}

fn fixed(bytes: &[u8]) -> [u8; DIGEST_BYTES] {
    let mut array = [0; DIGEST_BYTES];
    array.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
    array
}

impl fmt::Debug for Presented {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Presented(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed(key: &[u8], seal: Seal) -> KeyDigest {
        KeyDigest::Sealed { tag: KeyDigest::of(key).sealed(&seal).unwrap(), seal }
    }

    #[test]
    fn a_digest_recognises_its_key_and_no_other_sealed_or_not() {
        for digest in [KeyDigest::of(b"first"), sealed(b"first", Seal([7; 32]))] {
            assert!(digest.recognises(&Presented::new(b"first")));
            for other in [&b""[..], b"firs", b"First", b"second"] {
                assert!(!digest.recognises(&Presented::new(other)), "{other:?}");
            }
        }
    }

    #[test]
    fn a_sealed_digest_says_nothing_without_its_seal() {
        let (one, other) = (Seal([1; 32]), Seal([2; 32]));
        let tag = KeyDigest::of(b"first").sealed(&one).unwrap();
        assert_ne!(Some(tag), KeyDigest::of(b"first").sealed(&other));
        assert_ne!(KeyDigest::Plain(tag), KeyDigest::of(b"first"));
        assert!(!KeyDigest::Sealed { tag, seal: other }.recognises(&Presented::new(b"first")));
        // Nor is a tag a key: whoever read it cannot present it.
        assert!(!KeyDigest::Sealed { tag, seal: one }.recognises(&Presented::new(&tag)));
        assert!(!KeyDigest::Sealed { tag, seal: one }.recognises(&Presented(tag)));
    }

    #[test]
    fn it_is_known_whether_a_sealed_and_a_plain_digest_are_of_the_same_key() {
        let (plain, sealed) = (KeyDigest::of(b"first"), sealed(b"first", Seal([7; 32])));
        assert!(plain.is_of_same_key(&sealed) && sealed.is_of_same_key(&plain) && plain.is_of_same_key(&plain));
        let other = KeyDigest::of(b"second");
        assert!(!other.is_of_same_key(&sealed) && !sealed.is_of_same_key(&other) && !plain.is_of_same_key(&other));
        assert_eq!(sealed.sealed(&Seal([7; 32])), None);
    }

    #[test]
    fn nothing_of_it_can_be_printed() {
        let seal = Seal([7; 32]);
        let text = format!("{:?} {:?} {:?} {seal:?}", KeyDigest::of(b"k"), sealed(b"k", seal), Presented::new(b"k"));
        assert_eq!(text, "KeyDigest(…) KeyDigest(…) Presented(…) Seal(…)");
    }
}
