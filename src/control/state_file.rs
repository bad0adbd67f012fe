//! The state file: the last good world, for a start at which the sources cannot be read.
//!
//! Owner: the publisher, by its `Keeper`; the disk is never touched on the control thread.
//! Holds:
//! - the file is there as a whole or not at all: written beside its place, flushed to the disk, renamed;
//! - nobody but the router's own user can read or write it, and one that others could have written is refused;
//! - keys are in it as sealed digests only, and what is damaged in any way is refused;
//! - whatever is wrong with it, the router runs as it would without.

mod format;
mod keeper;
mod rows;
mod seal;

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

pub(super) use self::keeper::{Event, Keeper};
use self::seal::Root;
use crate::core::assemble::Facts;

/// The longest file that is read or written: some twenty times a world of 20,000 replicas.
const BYTES_MAX: u64 = 64 << 20;
/// Only for the user of the router.
const MODE: u32 = 0o600;
/// How far in the future a file may be: clocks are set.
const FUTURE_MAX: Duration = Duration::from_secs(300);

/// Where the state file is, and what counts of it.
#[derive(Clone, Debug)]
pub struct StateFile {
    /// Its path. A file of the same name with `.new` at the end is written beside it.
    pub path: PathBuf,
    /// The oldest world that is served from it.
    pub max_age: Duration,
    /// A secret that the seal depends on; without one it depends on the file alone.
    pub key_file: Option<PathBuf>,
}

/// What the world comes from: a file of another origin does not count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Origin {
    /// The sources in order: their kind and where they are.
    pub(super) sources: Vec<String>,
    /// The namespaces that are looked at, sorted; none is all.
    pub(super) namespaces: Vec<String>,
}

/// A world as it is kept.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Kept {
    /// When every source was last known to be in step.
    pub(super) as_of: SystemTime,
    /// What it is made of.
    pub(super) facts: Facts,
}

/// Why a file does not count, or cannot be written.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("is no regular file")]
    Irregular,
    #[error("has mode {0:04o}: others could read or change it; only 0600 is taken")]
    TooOpen(u32),
    #[error("belongs to user {owner}, and the router runs as user {user}; only its own file is taken")]
    Foreign { owner: u32, user: u32 },
    #[error("has {0} bytes, and at most {BYTES_MAX} are read and written")]
    TooLong(u64),
    #[error("is no state file: it does not begin with \"{magic}\"", magic = format::MAGIC)]
    Unknown,
    #[error("is of version {0:?}, and this router knows only version {version}", version = format::VERSION)]
    Version(String),
    #[error("is damaged, or was written with another state-key-file")]
    Broken,
    #[error("{0} cannot be used: {1}")]
    Malformed(&'static str, String),
    #[error("is of other {what}: {theirs:?} there, {ours:?} here")]
    Elsewhere { what: &'static str, theirs: Vec<String>, ours: Vec<String> },
    #[error("is {age_s} s old, and state-max-age-ms allows {max_s} s")]
    TooOld { age_s: u64, max_s: u64 },
    #[error("is of a time {0} s from now: the clock was set back")]
    Future(u64),
    #[error("state-key-file {path}: {why}")]
    KeyFile { path: String, why: String },
    #[error("no random numbers to be had")]
    NoDice,
}

impl StateFile {
    /// What it says, if there is one and it counts.
    pub(super) fn read(&self, origin: &Origin, now: SystemTime) -> Result<Option<Kept>, Refusal> {
        let Some(bytes) = read_own(&self.path)? else { return Ok(None) };
        let (theirs, kept) = format::decode(&bytes, &Root::read(self.key_file.as_deref())?)?;
        let differs = |what, theirs: &[String], ours: &[String]| {
            let elsewhere = Refusal::Elsewhere { what, theirs: theirs.to_vec(), ours: ours.to_vec() };
            if theirs == ours { Ok(()) } else { Err(elsewhere) }
        };
        differs("sources", &theirs.sources, &origin.sources)?;
        differs("namespaces", &theirs.namespaces, &origin.namespaces)?;
        match now.duration_since(kept.as_of) {
            Ok(age) if age > self.max_age => {
                Err(Refusal::TooOld { age_s: age.as_secs(), max_s: self.max_age.as_secs() })
            }
            Err(early) if early.duration() > FUTURE_MAX => Err(Refusal::Future(early.duration().as_secs())),
            _ => Ok(Some(kept)),
        }
    }

    /// Puts a world in its place. Says how many bytes it has.
    pub(super) fn write(&self, kept: &Kept, origin: &Origin) -> Result<u64, Refusal> {
        let bytes = format::encode(kept, origin, &Root::read(self.key_file.as_deref())?)?;
        let length = bytes.len() as u64;
        if length > BYTES_MAX {
            return Err(Refusal::TooLong(length));
        }
        replace(&self.path, &bytes)?;
        Ok(length)
    }
}

/// The whole file, if it is one that nobody else can have made; none where there is none.
fn read_own(path: &Path) -> Result<Option<Vec<u8>>, Refusal> {
    // Asked before it is opened: to open a pipe would wait for somebody at its other end.
    match fs::symlink_metadata(path) {
        Ok(meta) if !meta.is_file() => return Err(Refusal::Irregular),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    }
    let file = File::open(path)?;
    let meta = file.metadata()?;
    let mode = meta.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(Refusal::TooOpen(mode));
    }
    // Where there is no /proc, the mode has to do.
    if let Some(user) = user().filter(|&user| user != meta.uid()) {
        return Err(Refusal::Foreign { owner: meta.uid(), user });
    }
    if meta.len() > BYTES_MAX {
        return Err(Refusal::TooLong(meta.len()));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(meta.len()).unwrap_or(0));
    file.take(BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > BYTES_MAX {
        return Err(Refusal::TooLong(bytes.len() as u64));
    }
    Ok(Some(bytes))
}

/// Who this process is to the file system, as far as that can be known.
fn user() -> Option<u32> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let ids = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    // Real, effective, saved, file system.
    ids.split_ascii_whitespace().nth(3)?.parse().ok()
}

/// Puts a file in the place of another, whole or not at all, and for good.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut draft = path.as_os_str().to_owned();
    draft.push(".new");
    let draft = PathBuf::from(draft);
    // What a crash left behind goes away, and so does a link that somebody put there.
    match fs::remove_file(&draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let written = write_draft(&draft, bytes).and_then(|()| fs::rename(&draft, path));
    if written.is_err() {
        // Best effort: a disk that is full should not stay so because of us.
        let _ = fs::remove_file(&draft);
    }
    written?;
    // The name is in the directory: without this a power cut could bring the old file back.
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(parent.unwrap_or_else(|| Path::new(".")))?.sync_all()
}

fn write_draft(draft: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(MODE).open(draft)?;
    // A umask can only have taken rights away, of the user's own too.
    file.set_permissions(Permissions::from_mode(MODE))?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Takes bytes for the part of a file that is under the mark: they are refused, or say the same when they are written and
/// read again. For tests with bytes that nobody would have marked.
#[cfg(any(test, feature = "testing"))]
#[allow(clippy::expect_used, reason = "it is there to panic where something does not hold")]
pub(crate) fn stands(body: &[u8]) {
    let root = Root::read(None).expect("a root without a file");
    let file = format::mark(body, &root).expect("a mark");
    let Ok((origin, mut kept)) = format::decode(&file, &root) else { return };
    // What is sealed is never sealed again.
    kept.facts.secrets.iter_mut().for_each(|secret| std::sync::Arc::make_mut(secret).keys.clear());
    let again = format::encode(&kept, &origin, &root).expect("what was read can be written");
    assert_eq!(format::decode(&again, &root).expect("what was written can be read"), (origin, kept));
}

#[cfg(test)]
mod tests;
