//! Tokens that were really signed, and what is done to them.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::task::Wake;
use std::time::{Duration, SystemTime};

use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, RSA_PKCS1_SHA256, RSA_PSS_SHA256};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::base64::encode;
use super::*;

/// One for the tests that ask many times: an RSA key takes long to make.
static SIGNER: LazyLock<Signer> = LazyLock::new(Signer::new);

/// Seconds since 1970 at which all tokens are looked at.
const NOW: u64 = 1_800_000_000;

struct Signer {
    rsa: RsaKeyPair,
    ec: EcdsaKeyPair,
}

impl Signer {
    fn new() -> Self {
        let rsa = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        Self { rsa, ec: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap() }
    }

    fn rsa_jwk(&self) -> Value {
        // SEQUENCE, INTEGER of 257 bytes with a zero first, INTEGER of 3 bytes.
        let der = self.rsa.public_key().as_ref();
        let (n, e) = (&der[9..265], &der[267..270]);
        json!({"kty": "RSA", "kid": "r", "use": "sig", "n": encode(n), "e": encode(e)})
    }

    fn ec_jwk(&self) -> Value {
        let point = self.ec.public_key().as_ref();
        json!({"kty": "EC", "kid": "e", "crv": "P-256", "x": encode(&point[1..33]), "y": encode(&point[33..])})
    }

    fn set(&self) -> KeySet {
        set(&[self.rsa_jwk(), self.ec_jwk()]).unwrap()
    }

    fn sign(&self, header: &str, claims: &str) -> String {
        let signed = format!("{}.{}", encode(header.as_bytes()), encode(claims.as_bytes()));
        let random = SystemRandom::new();
        let mut signature = vec![0; self.rsa.public_modulus_len()];
        if header.contains("PS256") {
            self.rsa.sign(&RSA_PSS_SHA256, &random, signed.as_bytes(), &mut signature).unwrap();
        } else if header.contains("ES256") {
            signature = self.ec.sign(&random, signed.as_bytes()).unwrap().as_ref().to_vec();
        } else {
            self.rsa.sign(&RSA_PKCS1_SHA256, &random, signed.as_bytes(), &mut signature).unwrap();
        }
        format!("{signed}.{}", encode(&signature))
    }
}

fn set(keys: &[Value]) -> Result<KeySet, String> {
    KeySet::read(json!({ "keys": keys }).to_string().as_bytes())
}

fn rules() -> Rules {
    let (issuer, audiences) = ("https://issuer".to_owned(), vec!["scoring".to_owned(), "other".to_owned()]);
    Rules { issuer, audiences, endpoint_claim: Some("endpoint".to_owned()), ..Rules::default() }
}

fn claims() -> Value {
    json!({"iss": "https://issuer", "aud": "scoring", "exp": NOW + 10, "nbf": NOW, "endpoint": "Iris"})
}

fn with(name: &str, value: Value) -> String {
    let mut claims = claims();
    claims[name] = value;
    claims.to_string()
}

fn ask(token: &str, keys: &KeySet) -> Result<(), Fault> {
    verify(token.as_bytes(), keys, &rules(), "iris", SystemTime::UNIX_EPOCH + Duration::from_secs(NOW)).map(drop)
}

#[test]
fn a_token_of_each_algorithm_is_accepted_with_and_without_kid() {
    let signer = Signer::new();
    let with_alg = |word: &str| {
        let mut jwk = signer.rsa_jwk();
        jwk["alg"] = word.into();
        jwk
    };
    let keys = signer.set();
    for (word, kid) in [("RS256", "r"), ("PS256", "r"), ("ES256", "e")] {
        let named = signer.sign(&json!({"alg": word, "kid": kid, "typ": "JWT"}).to_string(), &claims().to_string());
        let unnamed = signer.sign(&json!({ "alg": word }).to_string(), &claims().to_string());
        assert_eq!((ask(&named, &keys), ask(&unnamed, &keys)), (Ok(()), Ok(())), "{word}");
        let others = Signer::new().set();
        assert_eq!(ask(&named, &others), Err(Fault::Signature), "{word}");
    }
    let token = signer.sign(r#"{"alg":"RS256","kid":"r"}"#, &claims().to_string());
    assert_eq!(ask(&token, &set(&[with_alg("RS256")]).unwrap()), Ok(()));
    assert_eq!(ask(&token, &set(&[with_alg("PS256")]).unwrap()), Err(Fault::UnknownKey));
}

#[test]
fn a_token_cannot_choose_how_it_is_checked() {
    let signer = Signer::new();
    let keys = signer.set();
    let claims = claims().to_string();
    let headers = [
        (r#"{"alg":"none"}"#, Fault::Algorithm),
        (r#"{"alg":"None","kid":"r"}"#, Fault::Algorithm),
        (r#"{"alg":"rs256","kid":"r"}"#, Fault::Algorithm),
        (r#"{"alg":"RS384","kid":"r"}"#, Fault::Algorithm),
        (r#"{"alg":256}"#, Fault::Algorithm),
        (r#"{"kid":"r"}"#, Fault::Algorithm),
        (r#"{"alg":"ES256","kid":"r"}"#, Fault::UnknownKey),
        (r#"{"alg":"RS256","kid":"e"}"#, Fault::UnknownKey),
        (r#"{"alg":"RS256","kid":"R"}"#, Fault::UnknownKey),
        (r#"{"alg":"RS256","kid":""}"#, Fault::UnknownKey),
        (r#"{"alg":"RS256","kid":"../../../etc/passwd"}"#, Fault::UnknownKey),
        (r#"{"alg":"RS256","kid":7}"#, Fault::Malformed),
        (r#"{"alg":"RS256","kid":"r","crit":["exp"]}"#, Fault::Critical),
        (r#"{"alg":"RS256","kid":"r","b64":false,"crit":["b64"]}"#, Fault::Critical),
        (r#"{"alg":"none","alg":"RS256","kid":"r"}"#, Fault::Malformed),
        (r#"["RS256"]"#, Fault::Malformed),
    ];
    for (header, fault) in headers {
        assert_eq!(ask(&signer.sign(header, &claims), &keys), Err(fault), "{header}");
    }
    // The public key, which everybody has, as the secret of a MAC.
    for secret in [signer.rsa_jwk()["n"].as_str().unwrap().to_owned(), signer.rsa_jwk().to_string()] {
        let signed = format!("{}.{}", encode(br#"{"alg":"HS256","kid":"r"}"#), encode(claims.as_bytes()));
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()), signed.as_bytes());
        assert_eq!(ask(&format!("{signed}.{}", encode(tag.as_ref())), &keys), Err(Fault::Algorithm));
    }
}

#[test]
fn each_claim_is_checked() {
    let signer = Signer::new();
    let keys = signer.set();
    let table = [
        (with("exp", json!(NOW - 59)), Ok(())),
        (with("exp", json!(NOW - 60)), Err(Fault::Expired)),
        (with("exp", json!(0)), Err(Fault::Expired)),
        (with("exp", json!(-1e300)), Err(Fault::Expired)),
        (with("exp", json!(NOW.to_string())), Err(Fault::Claims)),
        (with("exp", Value::Null), Err(Fault::Claims)),
        (with("nbf", json!(NOW + 60)), Ok(())),
        (with("nbf", json!(NOW + 61)), Err(Fault::TooEarly)),
        (with("nbf", json!([])), Err(Fault::Claims)),
        (with("iss", json!("https://issuer/")), Err(Fault::Issuer)),
        (with("iss", json!(["https://issuer"])), Err(Fault::Issuer)),
        (with("iss", Value::Null), Err(Fault::Issuer)),
        (with("aud", json!(["x", "other"])), Ok(())),
        (with("aud", json!(["x", 1])), Err(Fault::Audience)),
        (with("aud", json!("Scoring")), Err(Fault::Audience)),
        (with("aud", json!([])), Err(Fault::Audience)),
        (with("aud", json!({"scoring": "scoring"})), Err(Fault::Audience)),
        (with("endpoint", json!("wine")), Err(Fault::Endpoint)),
        (with("endpoint", json!(["wine", "iris"])), Ok(())),
        (with("endpoint", Value::Null), Err(Fault::Endpoint)),
        ("[]".to_owned(), Err(Fault::Claims)),
        ("{}".to_owned(), Err(Fault::NoExpiry)),
        (r#"{"exp":1,"exp":9999999999}"#.to_owned(), Err(Fault::Claims)),
    ];
    for (claims, expected) in table {
        assert_eq!(ask(&signer.sign(r#"{"alg":"ES256","kid":"e"}"#, &claims), &keys), expected, "{claims}");
    }
    let token = signer.sign(r#"{"alg":"ES256"}"#, &with("endpoint", json!("wine")));
    let at = SystemTime::UNIX_EPOCH + Duration::from_secs(NOW);
    let any_endpoint = Rules { endpoint_claim: None, ..rules() };
    assert_eq!(verify(token.as_bytes(), &keys, &any_endpoint, "iris", at).map(drop), Ok(()));
    for silent in [Rules { issuer: String::new(), ..rules() }, Rules { audiences: Vec::new(), ..rules() }] {
        assert_eq!(verify(token.as_bytes(), &keys, &silent, "iris", at).map(drop), Err(Fault::NotConfigured));
    }
}

#[test]
fn the_form_of_a_token_is_strict() {
    let signer = Signer::new();
    let keys = signer.set();
    let good = signer.sign(r#"{"alg":"ES256","kid":"e"}"#, &claims().to_string());
    assert_eq!(ask(&good, &keys), Ok(()));
    let (rest, signature) = good.rsplit_once('.').unwrap();
    let malformed = [
        String::new(),
        ".".to_owned(),
        "..".to_owned(),
        "...".to_owned(),
        rest.to_owned(),
        format!("{good}."),
        format!("{good}.x"),
        format!("{good}="),
        format!("{good}\n"),
        format!(" {good}"),
        good.replacen('.', "..", 1),
    ];
    for token in malformed {
        assert_eq!(ask(&token, &keys), Err(Fault::Malformed), "{token}");
    }
    assert_eq!(ask(&format!("{rest}."), &keys), Err(Fault::Signature));
    assert_eq!(ask(&format!("{rest}.{}", &signature[..80]), &keys), Err(Fault::Signature));
    assert_eq!(ask(&format!("{rest}.{}", encode(&[0; 64])), &keys), Err(Fault::Signature));
    let long = signer.sign(r#"{"alg":"ES256","kid":"e"}"#, &with("more", json!("x".repeat(7000))));
    assert_eq!(ask(&long, &keys), Err(Fault::TooLong));
}

#[test]
fn keys_of_the_wrong_kind_are_passed_over_and_a_set_without_any_is_refused() {
    let signer = Signer::new();
    let change = |mut jwk: Value, name: &str, value: Value| {
        jwk[name] = value;
        jwk
    };
    let (rsa, ec) = (signer.rsa_jwk(), signer.ec_jwk());
    let small = encode(&[0xff; 128]);
    let useless = [
        change(rsa.clone(), "use", json!("enc")),
        change(rsa.clone(), "key_ops", json!(["sign"])),
        change(rsa.clone(), "alg", json!("RS512")),
        change(rsa.clone(), "alg", json!("ES256")),
        change(rsa.clone(), "n", json!(small)),
        change(rsa.clone(), "n", json!(encode(&[0xff; 1025]))),
        change(rsa.clone(), "e", json!(encode(&[1]))),
        change(rsa.clone(), "e", json!(encode(&[4]))),
        change(rsa.clone(), "e", json!("")),
        change(rsa.clone(), "n", json!("a+b")),
        change(rsa.clone(), "kty", json!("oct")),
        // Its private half is there for everybody.
        change(rsa, "d", json!("AQAB")),
        change(ec.clone(), "d", json!("AQAB")),
        change(ec.clone(), "crv", json!("P-384")),
        change(ec.clone(), "crv", json!("secp256k1")),
        change(ec.clone(), "x", ec["y"].clone()),
        change(ec.clone(), "x", json!(encode(&[0; 33]))),
        change(ec.clone(), "alg", json!("RS256")),
        json!("key"),
        json!({}),
    ];
    for jwk in &useless {
        assert!(set(std::slice::from_ref(jwk)).unwrap_err().contains("no usable key"), "{jwk}");
        let both = set(&[jwk.clone(), change(ec.clone(), "kid", json!("good"))]).unwrap();
        assert_eq!((both.usable(), both.passed_over), (1, 1), "{jwk}");
    }
    // The second key of a name does not count, and without a name it must be clear which one is meant.
    let twice = set(&[ec.clone(), change(Signer::new().ec_jwk(), "kid", json!("e"))]).unwrap();
    assert_eq!((twice.usable(), twice.passed_over), (1, 1));
    let two = set(&[ec.clone(), change(Signer::new().ec_jwk(), "kid", json!("f"))]).unwrap();
    assert_eq!(ask(&signer.sign(r#"{"alg":"ES256"}"#, &claims().to_string()), &two), Err(Fault::UnknownKey));
    assert!(set(&vec![ec; 65]).unwrap_err().contains("65 keys"));
    for text in ["", "[]", "{}", r#"{"keys":{}}"#, r#"{"keys":[],"keys":[]}"#] {
        assert!(KeySet::read(text.as_bytes()).unwrap_err().contains("no key set"), "{text}");
    }
}

#[test]
fn without_keys_and_with_stale_ones_nobody_gets_in() {
    let signer = Signer::new();
    let token = signer.sign(r#"{"alg":"ES256"}"#, &claims().to_string());
    let state = TokenState::default();
    let at = SystemTime::UNIX_EPOCH + Duration::from_secs(NOW);
    let rules = Rules { stale_max: Duration::from_secs(10), ..rules() };
    let ask = |second: u64| state.verify(token.as_bytes(), &rules, "iris", (at, second * 1_000_000)).map(drop);
    assert_eq!((ask(1), state.in_use(1)), (Err(Fault::NoKeys), None));
    state.take(signer.set(), 1_000_000);
    assert_eq!((ask(1), ask(11), ask(12)), (Ok(()), Ok(()), Err(Fault::StaleKeys)));
    assert_eq!(state.in_use(12_000_000), Some((3, Duration::from_secs(11))));
    state.confirm(12_000_000);
    assert_eq!((ask(22), state.renewals.read()), (Ok(()), 0));
    state.take(Signer::new().set(), 22_000_000);
    assert_eq!((ask(22), state.renewals.read()), (Err(Fault::Signature), 1));
}

#[test]
fn a_token_is_about_the_first_name_that_it_has_or_else_about_itself() {
    let (signer, rules, keys) = (&*SIGNER, rules(), SIGNER.set());
    let subject = |more: &Value| {
        let mut claims = claims();
        claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let token = signer.sign(r#"{"alg":"ES256"}"#, &claims.to_string());
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(NOW);
        verify(token.as_bytes(), &keys, &rules, "iris", at).unwrap().subject()
    };
    let ann = subject(&json!({"sub": "ann"}));
    for same in [json!({"sub": "ann", "jti": "2"}), json!({"sub": "ann", "oid": "o", "appid": "a"})] {
        assert_eq!(subject(&same), ann, "{same}");
    }
    let names = ["sub", "oid", "azp", "appid", "client_id"];
    let of_names: Vec<_> = names.iter().map(|name| subject(&json!({ *name: "ann" }))).collect();
    for (at, one) in of_names.iter().enumerate() {
        assert!(!of_names[..at].contains(one), "an application is no user with the same name: {}", names[at]);
    }
    assert_ne!(subject(&json!({"sub": "bob"})), ann);
    for none in [json!({"sub": "", "oid": "ann"}), json!({"sub": 7, "oid": "ann"}), json!({"sub": null, "oid": "ann"})]
    {
        assert_eq!(subject(&none), of_names[1], "{none}");
    }
    // Signed anew, it has another signature and says the same.
    assert_eq!(subject(&json!({})), subject(&json!({})));
    assert_ne!(subject(&json!({})), subject(&json!({"jti": "2"})));
}

#[test]
fn no_message_repeats_what_was_sent() {
    let signer = Signer::new();
    let token = signer.sign(r#"{"alg":"RS256","kid":"s3cret"}"#, &claims().to_string());
    let fault = ask(&token, &signer.set()).unwrap_err();
    assert!(!format!("{fault} {fault:?}").contains("s3cret"));
    assert!(!fault.is_of_router() && Fault::NoKeys.is_of_router());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn no_bytes_are_accepted(bytes in prop::collection::vec(any::<u8>(), 0..300), parts in "[A-Za-z0-9_-]{0,20}(\\.[A-Za-z0-9_-]{0,20}){0,3}") {
        let keys = SIGNER.set();
        let at = SystemTime::UNIX_EPOCH;
        prop_assert!(verify(&bytes, &keys, &rules(), "iris", at).is_err());
        prop_assert!(verify(parts.as_bytes(), &keys, &rules(), "iris", at).is_err());
        prop_assert!(KeySet::read(&bytes).is_err());
    }

    #[test]
    fn a_token_with_a_bit_changed_is_refused(bit in 0_usize..3200) {
        let keys = SIGNER.set();
        let mut token = SIGNER.sign(r#"{"alg":"ES256","kid":"e"}"#, &claims().to_string()).into_bytes();
        let bit = bit % (token.len() * 8);
        token[bit / 8] ^= 1 << (bit % 8);
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(NOW);
        prop_assert!(verify(&token, &keys, &rules(), "iris", at).is_err());
    }
}

#[test]
fn a_token_with_an_unknown_key_wakes_who_reads_the_keys_once() {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    let (signer, state, rules) = (Signer::new(), TokenState::default(), rules());
    state.take(signer.set(), 0);
    let ask = |header: &str| {
        let now = (SystemTime::UNIX_EPOCH + Duration::from_secs(NOW), 0);
        state.verify(signer.sign(header, &claims().to_string()).as_bytes(), &rules, "iris", now).map(drop)
    };
    let is_wanted = || pin!(state.wanted()).poll(&mut Context::from_waker(Waker::noop()));
    assert_eq!(ask(r#"{"alg":"ES256","kid":"e"}"#), Ok(()));
    assert_eq!(is_wanted(), Poll::Pending);
    for _ in 0..3 {
        assert_eq!(ask(r#"{"alg":"ES256","kid":"new"}"#), Err(Fault::UnknownKey));
    }
    assert_eq!((is_wanted(), is_wanted()), (Poll::Ready(()), Poll::Pending));
    assert_eq!(ask(r#"{"alg":"ES256","kid":"new"}"#), Err(Fault::UnknownKey));
    state.satisfy();
    assert_eq!(is_wanted(), Poll::Pending);
    // One who waits already is woken.
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(woken.clone());
    let mut waiting = pin!(state.wanted());
    assert_eq!(waiting.as_mut().poll(&mut Context::from_waker(&waker)), Poll::Pending);
    for _ in 0..3 {
        assert_eq!(ask(r#"{"alg":"ES256","kid":"new"}"#), Err(Fault::UnknownKey));
    }
    assert_eq!(woken.0.load(Ordering::Relaxed), 1);
    assert_eq!(waiting.as_mut().poll(&mut Context::from_waker(&waker)), Poll::Ready(()));
}

/// Counts how often it is woken.
#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}
