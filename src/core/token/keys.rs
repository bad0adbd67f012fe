//! Sets of public keys that tokens are checked against (JWKS).
//!
//! Holds: a key is good for the algorithms that its own type and its own `alg` allow, and for nothing else. What is no
//! key for signatures of a known kind is passed over; a set without any usable key is refused as a whole.

use std::fmt;

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, RSA_PSS_2048_8192_SHA256,
    RsaPublicKeyComponents,
};

use super::json::{self, Json, Members};
use super::{Algorithm, base64};

/// Most keys in a set: identity providers have less than ten.
const KEYS_MAX: usize = 64;

/// Sizes of RSA keys, in bits.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// Bytes of a coordinate on P-256.
const P256_BYTES: usize = 32;

/// See the head of the file.
#[derive(Debug)]
pub struct KeySet {
    keys: Vec<Key>,
    /// Keys in it that are of no use here.
    pub passed_over: usize,
}

/// A public key for one algorithm.
struct Key {
    kid: Option<String>,
    algorithm: Algorithm,
    public: ParsedPublicKey,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}", self.algorithm.word(), self.kid)
    }
}

impl KeySet {
    /// Reads the text of a set.
    ///
    /// # Errors
    /// With what is wrong with it.
    pub fn read(text: &[u8]) -> Result<Self, String> {
        let refuse =
            |what: &str| format!("is no key set: {what}; it must be a JSON Web Key Set such as {{\"keys\":[…]}}");
        let mut set = json::read_object(text).ok_or_else(|| refuse("no JSON object, or one with a member twice"))?;
        let Some(Json::List(items)) = set.remove("keys") else { return Err(refuse("it has no list of keys")) };
        if items.len() > KEYS_MAX {
            return Err(format!("has {} keys; at most {KEYS_MAX} are allowed", items.len()));
        }
        let (mut keys, mut passed_over) = (Vec::<Key>::new(), 0);
        for item in items {
            let found = item.object().map(|key| read_key(&key)).unwrap_or_default();
            let is_known = |new: &Key| keys.iter().any(|key| key.algorithm == new.algorithm && key.kid == new.kid);
            // Which of two keys of one name is meant, nobody can say.
            let is_twice = found.iter().any(|key| key.kid.is_some() && is_known(key));
            if found.is_empty() || is_twice {
                passed_over += 1;
            } else {
                keys.extend(found);
            }
        }
        if keys.is_empty() {
            return Err("has no usable key: RSA of 2048 to 8192 bits, or EC on P-256, for signatures".to_owned());
        }
        Ok(Self { keys, passed_over })
    }

    /// How many keys are of use; one that is good for two algorithms counts twice.
    pub fn usable(&self) -> usize {
        self.keys.len()
    }

    /// The algorithm of each key, and its name.
    pub fn names(&self) -> impl Iterator<Item = (&'static str, Option<&str>)> {
        self.keys.iter().map(|key| (key.algorithm.word(), key.kid.as_deref()))
    }

    /// The one key that the token may have been signed with.
    pub(super) fn choose(&self, algorithm: Algorithm, kid: Option<&str>) -> Option<&ParsedPublicKey> {
        let is_meant = |key: &&Key| key.algorithm == algorithm && (kid.is_none() || key.kid.as_deref() == kid);
        let mut fitting = self.keys.iter().filter(is_meant);
        let (key, other) = (fitting.next()?, fitting.next());
        other.is_none().then_some(&key.public)
    }
}

/// The key for each algorithm that it is good for; none where it is of no use.
fn read_key(jwk: &Members) -> Vec<Key> {
    read_public(jwk).unwrap_or_default()
}

fn read_public(jwk: &Members) -> Option<Vec<Key>> {
    let text = |name: &str| jwk.get(name).map(|value| value.text().ok_or(())).transpose().ok();
    let kid = text("kid")?.map(str::to_owned);
    let is_for_signatures = text("use")?.is_none_or(|word| word == "sig")
        && jwk.get("key_ops").is_none_or(|operations| operations.names(|word| word == "verify"));
    // Whoever could read the set could sign with a key whose private half is in it.
    if !is_for_signatures || jwk.contains_key("d") {
        return None;
    }
    let only = text("alg")?;
    let allowed = |algorithm: &Algorithm| only.is_none_or(|only| only == algorithm.word());
    let bytes = |name: &str| text(name)?.and_then(|text| base64::decode(text.as_bytes()));
    let mut keys = Vec::new();
    match text("kty")?? {
        "RSA" => {
            let (n, e) = (trimmed(bytes("n")?), trimmed(bytes("e")?));
            let bits = n.len() * 8 - n.first()?.leading_zeros() as usize;
            // With 1 as exponent anybody can sign, with an even one nobody.
            if e == [1] || e.last()? % 2 == 0 {
                return None;
            }
            let components = RsaPublicKeyComponents { n, e };
            for algorithm in [Algorithm::Rs256, Algorithm::Ps256].into_iter().filter(allowed) {
                let parameters = match algorithm {
                    Algorithm::Ps256 => &RSA_PSS_2048_8192_SHA256,
                    _ => &RSA_PKCS1_2048_8192_SHA256,
                };
                let public = components.to_parsed_public_key(parameters).ok().filter(|_| RSA_BITS.contains(&bits))?;
                keys.push(Key { kid: kid.clone(), algorithm, public });
            }
        }
        "EC" if text("crv")? == Some("P-256") && allowed(&Algorithm::Es256) => {
            let (x, y) = (bytes("x")?, bytes("y")?);
            if x.len() != P256_BYTES || y.len() != P256_BYTES {
                return None;
            }
            // The uncompressed form of a point, which must be on the curve.
            let point = [&[4], x.as_slice(), y.as_slice()].concat();
            let public = ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).ok()?;
            keys.push(Key { kid, algorithm: Algorithm::Es256, public });
        }
        _ => {}
    }
    Some(keys)
}

/// Some issuers write numbers with leading zeros.
fn trimmed(mut number: Vec<u8>) -> Vec<u8> {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    number.drain(..zeros);
    number
}
