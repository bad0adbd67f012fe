//! Somebody who signs tokens.

use std::path::Path;
use std::time::SystemTime;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use serde_json::{Value, json};

/// With one key.
pub(crate) struct Issuer {
    pair: EcdsaKeyPair,
    kid: &'static str,
}

impl Issuer {
    pub(crate) fn new() -> Self {
        Self::named("a")
    }

    /// With a key of this name.
    pub(crate) fn named(kid: &'static str) -> Self {
        Self { pair: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap(), kid }
    }

    /// Its public key.
    fn key(&self) -> Value {
        let (x, y) = self.pair.public_key().as_ref()[1..].split_at(32);
        json!({"kty": "EC", "kid": self.kid, "crv": "P-256", "x": base64url(x), "y": base64url(y)})
    }

    /// Its key set.
    pub(crate) fn keys(&self) -> String {
        json!({"keys": [self.key()]}).to_string()
    }

    /// Puts its key set there, as a whole.
    pub(crate) fn publish(&self, path: &Path) {
        std::fs::write(path.with_extension("draft"), self.keys()).unwrap();
        std::fs::rename(path.with_extension("draft"), path).unwrap();
    }

    /// A token for an endpoint that expires in so many seconds.
    pub(crate) fn token(&self, endpoint: &str, seconds: i64) -> String {
        self.token_with(endpoint, seconds, json!({}))
    }

    /// The same with a subject.
    pub(crate) fn token_of(&self, subject: &str) -> String {
        self.token_with("iris", 600, json!({ "sub": subject }))
    }

    fn token_with(&self, endpoint: &str, seconds: i64, mut claims: Value) -> String {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        let exp = now.saturating_add_signed(seconds);
        let common = json!({"iss": "https://issuer", "aud": ["scoring"], "exp": exp, "endpoint": endpoint});
        claims.as_object_mut().unwrap().extend(common.as_object().unwrap().clone());
        let claims = claims.to_string();
        let header = json!({"alg": "ES256", "kid": self.kid}).to_string();
        let signed = format!("{}.{}", base64url(header.as_bytes()), base64url(claims.as_bytes()));
        let signature = self.pair.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
        format!("{signed}.{}", base64url(signature.as_ref()))
    }
}

fn base64url(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let bits: Vec<u8> = bytes.iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1)).collect();
    let value = |six: &[u8]| six.iter().chain(&[0; 6]).take(6).fold(0, |value, bit| value << 1 | usize::from(*bit));
    bits.chunks(6).map(|six| char::from(DIGITS[value(six)])).collect()
}
