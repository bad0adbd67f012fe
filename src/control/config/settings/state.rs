//! The settings of the state file.

use std::path::PathBuf;

use crate::control::config::rows::millis;
use crate::control::config::setting::{Group, Setting, Slot};

pub(super) const FILE: Setting = Setting {
    key: "state-file",
    group: Group::Discovery,
    meaning: "Where the last good world is kept, for a start at which the API server cannot be reached. Put it on an \
              emptyDir. Keys are in it as sealed digests only.",
    slot: Slot::Text {
        form: "FILE",
        allowed: "the path of a file in a directory that exists",
        read: |config| shown(&config.state_file),
        write: |config, text| put(&mut config.state_file, text),
    },
};

pub(super) const MAX_AGE: Setting = millis!(
    "state-max-age-ms",
    Discovery,
    1000,
    2_592_000_000,
    state_max_age,
    "The oldest world that is served from the state file at a start."
);

pub(super) const KEY_FILE: Setting = Setting {
    key: "state-key-file",
    group: Group::Discovery,
    meaning: "A secret that the seals in the state file depend on, so that nobody who gets hold of the state file can \
              try keys out. Keep it elsewhere: in a Secret that is mounted.",
    slot: Slot::Text {
        form: "FILE",
        allowed: "the path of a file with 32 to 4096 random bytes",
        read: |config| shown(&config.state_key_file),
        write: |config, text| put(&mut config.state_key_file, text),
    },
};

fn shown(path: &Option<PathBuf>) -> String {
    path.as_deref().map(|path| path.display().to_string()).unwrap_or_default()
}

fn put(path: &mut Option<PathBuf>, text: &str) -> Result<(), String> {
    let text = Some(text).filter(|text| !text.is_empty() && !text.ends_with('/')).ok_or("names no file")?;
    *path = Some(text.into());
    Ok(())
}
