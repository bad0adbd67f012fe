//! From a Secret to digests of its keys, and to the authorities in it. The keys themselves go no further than this file.

use std::sync::Arc;

use super::names::{NAME_RANGE, is_name};
use super::{ENDPOINT_LABEL, Parsed, Reporter, Said, authorities, shown};
use crate::control::objects::Secret;
use crate::core::facts::{KeyDigest, Name, SecretFacts};
use crate::core::replica_tls::Ca;

/// The longest key: a request head has no room for more.
const KEY_BYTES_MAX: usize = 4096;

/// Reads a Secret. No message repeats anything of a key.
pub fn parse_secret(secret: &Secret) -> Parsed {
    let object = secret.metadata.object();
    let mut reporter = Reporter::new("Secret", &object);
    let Some(endpoint) = secret.metadata.label(ENDPOINT_LABEL) else {
        return Parsed { said: Said::Secret(None), problems: reporter.finish() };
    };
    if !is_name(endpoint) {
        let message = format!("{} is no valid name: {NAME_RANGE}; the Secret is not used", shown(endpoint));
        reporter.report(format!("metadata.labels[{ENDPOINT_LABEL}]"), message);
        return Parsed { said: Said::Secret(None), problems: reporter.finish() };
    }
    let (data, text) = (secret.data.as_ref(), secret.string_data.as_ref());
    let ca = text
        .and_then(|text| text.ca_crt.as_ref().map(String::as_bytes))
        .or_else(|| data.and_then(|data| data.ca_crt.as_ref().map(|ca| ca.0.as_slice())));
    let ca = ca.map_or(Ca::Absent, |ca| read_ca(ca, &mut reporter));
    let primary = text
        .and_then(|text| text.primary_key.as_ref().map(String::as_bytes))
        .or_else(|| data.and_then(|data| data.primary_key.as_ref().map(|key| key.0.as_slice())));
    let secondary = text
        .and_then(|text| text.secondary_key.as_ref().map(String::as_bytes))
        .or_else(|| data.and_then(|data| data.secondary_key.as_ref().map(|key| key.0.as_slice())));
    if primary.is_none() && secondary.is_none() && ca == Ca::Absent {
        reporter.report("data", "has neither primaryKey nor secondaryKey nor ca.crt".into());
    }
    let keys = [("primaryKey", primary), ("secondaryKey", secondary)]
        .into_iter()
        .filter_map(|(field, key)| digest_of(field, key?, &mut reporter))
        .collect();
    let facts = SecretFacts { object: object.clone(), endpoint: Name::new(endpoint), keys, ca };
    Parsed { said: Said::Secret(Some(Arc::new(facts))), problems: reporter.finish() }
}

fn read_ca(text: &[u8], reporter: &mut Reporter<'_>) -> Ca {
    match authorities::read(text) {
        Ok(roots) => Ca::Read(roots),
        Err(problem) => {
            reporter.report("data[ca.crt]", format!("{problem}; deployments that name the Secret are closed"));
            Ca::Broken
        }
    }
}

/// The digest of a key without the line end that editors and `echo` leave behind.
fn digest_of(field: &str, key: &[u8], reporter: &mut Reporter<'_>) -> Option<KeyDigest> {
    let key = key.strip_suffix(b"\n").unwrap_or(key);
    let key = key.strip_suffix(b"\r").unwrap_or(key);
    let wrong = if key.is_empty() {
        Some("is empty")
    } else if key.len() > KEY_BYTES_MAX {
        Some("is longer than 4096 bytes")
    } else if !key.iter().all(u8::is_ascii_graphic) {
        Some("has characters that no request header can carry: printable ASCII without spaces is allowed")
    } else {
        None
    };
    if let Some(wrong) = wrong {
        reporter.report(format!("data.{field}"), format!("{wrong}; the key is not valid"));
        return None;
    }
    Some(KeyDigest::of(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: serde_json::Value) -> (Option<Arc<SecretFacts>>, Vec<String>) {
        let secret: Secret = serde_json::from_value(json).unwrap();
        assert!(!format!("{secret:?}").contains("s3cret"));
        let parsed = parse_secret(&secret);
        let Said::Secret(said) = parsed.said else { panic!("not a secret") };
        (said, parsed.problems.iter().map(ToString::to_string).collect())
    }

    fn meta() -> serde_json::Value {
        serde_json::json!({"name": "iris-keys", "namespace": "ml", "labels": {ENDPOINT_LABEL: "iris"}})
    }

    fn digest(key: &str) -> KeyDigest {
        KeyDigest::of(key.as_bytes())
    }

    #[test]
    fn both_keys_are_read_from_data_or_plain_text_and_a_line_end_is_no_part_of_them() {
        // "s3cret-1\n" and "s3cret-2"
        let data = serde_json::json!({"primaryKey": "czNjcmV0LTEK", "secondaryKey": "czNjcmV0LTI=", "other": "Lg=="});
        let (facts, problems) = parse(serde_json::json!({"metadata": meta(), "data": data}));
        assert_eq!(facts.unwrap().keys, [digest("s3cret-1"), digest("s3cret-2")]);
        assert!(problems.is_empty());
        let text = serde_json::json!({"primaryKey": "s3cret-3\r\n"});
        let (facts, _) = parse(serde_json::json!({"metadata": meta(), "data": data, "stringData": text}));
        assert_eq!(facts.unwrap().keys, [digest("s3cret-3"), digest("s3cret-2")]);
    }

    #[test]
    fn useless_keys_are_never_valid_and_no_message_shows_them() {
        for key in ["", "\n", "s3cret with spaces", "s3cret\u{e9}", &"s3cret".repeat(1000)] {
            let text = serde_json::json!({"primaryKey": key});
            let (facts, problems) = parse(serde_json::json!({"metadata": meta(), "stringData": text}));
            assert!(facts.unwrap().keys.is_empty());
            assert_eq!(problems.len(), 1);
            assert!(!problems[0].contains("s3cret"), "{problems:?}");
        }
    }

    #[test]
    fn a_secret_without_keys_is_reported_and_one_without_the_label_ignored() {
        let (facts, problems) = parse(serde_json::json!({"metadata": meta()}));
        assert!(facts.unwrap().keys.is_empty() && problems.len() == 1);
        let (facts, problems) = parse(serde_json::json!({"metadata": {"name": "x"}}));
        assert!(facts.is_none() && problems.is_empty());
    }

    #[test]
    fn a_secret_with_authorities_needs_no_keys_and_broken_ones_are_reported() {
        let pem = rcgen::generate_simple_self_signed(["ca.test".to_owned()]).unwrap().cert.pem();
        let (facts, problems) = parse(serde_json::json!({"metadata": meta(), "stringData": {"ca.crt": pem}}));
        let facts = facts.unwrap();
        assert!(facts.keys.is_empty() && problems.is_empty(), "{problems:?}");
        assert!(matches!(&facts.ca, Ca::Read(roots) if roots.iter().len() == 1));
        let text = serde_json::json!({"ca.crt": "s3cret", "primaryKey": "s3cret-1"});
        let (facts, problems) = parse(serde_json::json!({"metadata": meta(), "stringData": text}));
        assert_eq!(facts.map(|facts| (facts.ca.clone(), facts.keys.len())), Some((Ca::Broken, 1)));
        assert!(problems.len() == 1 && problems[0].contains("data[ca.crt]"), "{problems:?}");
        assert!(!problems[0].contains("s3cret"), "{problems:?}");
    }
}
