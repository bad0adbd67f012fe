//! Keys from a file, which is looked at again and again.

use std::path::Path;

use super::TARGET;
use super::desk::Desk;
use crate::control::files::{Files, Place, look_again};

/// The file that counts in a folder.
const NAMES: &[&str] = &["jwks.json"];

/// See the head of the file.
#[derive(Debug)]
pub(super) struct KeyFile {
    file: Files<1>,
    desk: Desk,
    /// Whether what was last told of it had keys.
    is_good: bool,
}

/// What is in the file now.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, String> {
    open(path).read().map(|[text]| text)
}

fn open(path: &Path) -> Files<1> {
    Files::new([Place::file_or_folder(path, NAMES)])
}

impl KeyFile {
    /// Reads the file. Without usable keys in it the router starts all the same: keys of endpoints work, tokens do not.
    pub(super) fn open(path: &Path, desk: Desk) -> Self {
        let mut opened = Self { file: open(path), desk, is_good: false };
        let found = opened.file.read();
        opened.settle(found);
        opened
    }

    /// Looks at the file for ever.
    pub(super) async fn follow(self) {
        look_again(self, Self::look).await;
        tracing::error!(target: TARGET, "the reader of token-jwks crashed; restart the router to renew the keys");
    }

    fn look(&mut self) {
        match self.file.look() {
            Some(found) => self.settle(found),
            None if !self.is_good => self.desk.vitals().tokens.failures.bump(),
            None if self.file.is_as_told() => self.desk.confirm(),
            None => {}
        }
    }

    /// Takes up what was found.
    fn settle(&mut self, found: Result<[Vec<u8>; 1], String>) {
        let taken = found.and_then(|[text]| self.desk.take(&text));
        self.is_good = taken.is_ok();
        if let Err(problem) = taken {
            self.desk.complain(&problem);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use super::*;
    use crate::control::tokens::desk::GOOD;
    use crate::core::vitals::Vitals;

    #[test]
    fn a_broken_file_keeps_the_keys_and_a_good_one_replaces_them() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("jwks.json");
        let vitals = Arc::new(Vitals::new(1, Instant::now()));
        let usable = |vitals: &Vitals| vitals.tokens.in_use(u64::MAX).map(|(usable, _)| usable);
        let desk = Desk::new("token-jwks".to_owned(), Duration::from_secs(60), vitals.clone());
        let mut keys = KeyFile::open(folder.path(), desk);
        assert_eq!((usable(&vitals), vitals.tokens.failures.read()), (None, 1));
        assert!(read(folder.path()).unwrap_err().contains("jwks.json"));
        std::fs::write(&path, GOOD).unwrap();
        keys.look();
        keys.look();
        assert_eq!((usable(&vitals), read(&path)), (Some(1), Ok(GOOD.as_bytes().to_vec())));
        let failures = vitals.tokens.failures.read();
        std::fs::write(&path, "{").unwrap();
        keys.look();
        keys.look();
        keys.look();
        assert_eq!((usable(&vitals), vitals.tokens.failures.read()), (Some(1), failures + 2));
        std::fs::write(&path, GOOD.replace("\"kty\"", "\"kid\":\"new\",\"kty\"")).unwrap();
        keys.look();
        keys.look();
        assert_eq!((usable(&vitals), vitals.tokens.renewals.read()), (Some(1), 1));
    }
}
