//! The key set that tokens are checked against: read from a file, again and again.
//!
//! Owner: the app.
//! Holds: a file that is missing or broken changes nothing but what is reported; the keys that were read last count
//! until they are older than `token-stale-max-ms`, for which a file that cannot be read makes them.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use super::files::{Files, Place, look_again};
use crate::core::token::KeySet;
use crate::core::vitals::Vitals;

/// What the lines of the trace log are filed under.
const TARGET: &str = "scorefront::tokens";

/// The file that counts in a folder.
const NAMES: &[&str] = &["jwks.json"];

/// See the head of the file.
#[derive(Debug)]
pub struct Tokens {
    file: Files<1>,
    source: String,
    vitals: Arc<Vitals>,
    /// What is wrong with the file.
    problem: Option<String>,
}

/// Whether there is a usable key set.
///
/// # Errors
/// With what is wrong with it.
pub fn check(path: &Path) -> Result<(), String> {
    let named = |problem| format!("--token-jwks {}: {problem}", path.display());
    let [text] = open(path).read().map_err(named)?;
    KeySet::read(&text).map(drop).map_err(named)
}

fn open(path: &Path) -> Files<1> {
    Files::new([Place::file_or_folder(path, NAMES)])
}

impl Tokens {
    /// Reads the file. Without usable keys in it the router starts all the same: keys of endpoints work, tokens do not.
    pub fn open(path: &Path, vitals: Arc<Vitals>) -> Self {
        let mut tokens = Self { file: open(path), source: path.display().to_string(), vitals, problem: None };
        let found = tokens.file.read();
        tokens.settle(found);
        tokens
    }

    /// Looks at the file for ever.
    pub async fn follow(self) {
        look_again(self, Self::look).await;
        tracing::error!(target: TARGET, "the reader of token-jwks crashed; restart the router to renew the keys");
    }

    fn look(&mut self) {
        match self.file.look() {
            Some(found) => self.settle(found),
            None if self.problem.is_some() => self.vitals.tokens.failures.bump(),
            None if self.file.is_as_told() => self.vitals.tokens.confirm(self.now_us()),
            None => {}
        }
    }

    fn now_us(&self) -> u64 {
        self.vitals.micros(Instant::now())
    }

    /// Takes up what was found.
    fn settle(&mut self, found: Result<[Vec<u8>; 1], String>) {
        let source = &self.source;
        match found.and_then(|[text]| KeySet::read(&text)) {
            Ok(keys) => {
                let (usable, passed_over) = (keys.usable(), keys.passed_over);
                self.vitals.tokens.take(keys, self.now_us());
                self.problem = None;
                tracing::info!(target: TARGET, source, usable, passed_over, "keys for tokens in use");
            }
            Err(problem) => {
                self.vitals.tokens.failures.bump();
                tracing::warn!(
                    target: TARGET,
                    source, "token-jwks {problem}; keys that were in use stay in use for token-stale-max-ms, without any no token is accepted"
                );
                self.problem = Some(problem);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_file_keeps_the_keys_and_a_good_one_replaces_them() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("jwks.json");
        let vitals = Arc::new(Vitals::new(1, Instant::now()));
        // The point that RFC 7515 has in its appendix A.3.
        let good = r#"{"keys":[{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}]}"#;
        let usable = |vitals: &Vitals| vitals.tokens.in_use(u64::MAX).map(|(usable, _)| usable);
        let mut tokens = Tokens::open(folder.path(), vitals.clone());
        assert_eq!((usable(&vitals), vitals.tokens.failures.read()), (None, 1));
        assert!(check(folder.path()).unwrap_err().contains("jwks.json"));
        std::fs::write(&path, good).unwrap();
        tokens.look();
        tokens.look();
        assert_eq!((usable(&vitals), check(&path)), (Some(1), Ok(())));
        let failures = vitals.tokens.failures.read();
        std::fs::write(&path, "{").unwrap();
        tokens.look();
        tokens.look();
        tokens.look();
        assert_eq!((usable(&vitals), vitals.tokens.failures.read()), (Some(1), failures + 2));
        std::fs::write(&path, good.replace("\"kty\"", "\"kid\":\"new\",\"kty\"")).unwrap();
        tokens.look();
        tokens.look();
        assert_eq!((usable(&vitals), vitals.tokens.renewals.read()), (Some(1), 1));
    }
}
