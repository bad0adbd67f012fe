//! Looks at the files of a directory and says which of them say something else than before.
//!
//! Files may be swapped as a whole (`mv`, the `..data` link of the kubelet) or written in place. A file that was
//! swapped counts at once; one that was written in place, or is new, only when two looks in a row find the same in
//! it, because its writer may be half-way. Links are followed; names that begin with a dot are not files of ours.
//!
//! Holds: a file is read again when its metadata changed, for two seconds after (time stamps are coarse), and once in
//! [`READ_ALL_EVERY`] looks in any case.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_lc_rs::digest;

/// The largest file that is read.
const FILE_BYTES_MAX: u64 = 16 << 20;
/// The most files that are read.
const FILES_MAX: usize = 10_000;
/// How often all files are read, changed or not.
const READ_ALL_EVERY: u64 = 256;
/// A file this young may change without its time stamp showing it.
const YOUNG: Duration = Duration::from_secs(2);

/// What a look found out about one file.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Finding {
    /// It says this now.
    Content {
        /// Its path.
        file: Arc<str>,
        /// What it says.
        text: String,
    },
    /// It is there no more.
    Gone {
        /// Its path.
        file: Arc<str>,
    },
    /// It cannot be read.
    Unreadable {
        /// Its path.
        file: Arc<str>,
        /// Why.
        message: String,
    },
}

/// See the head of the file.
#[derive(Debug)]
pub(super) struct Folder {
    dir: PathBuf,
    files: BTreeMap<PathBuf, File>,
    looks: u64,
}

#[derive(Debug)]
struct File {
    path: Arc<str>,
    stamp: Option<Stamp>,
    /// What the last look saw.
    seen: Option<Content>,
    /// What was last told.
    told: Option<Content>,
    missed: bool,
}

/// What tells one version of a file from another without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    file: (u64, u64),
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// A file's content, or why there is none.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Content {
    Digest(Vec<u8>),
    Unreadable(String),
}

impl Folder {
    pub(super) fn new(dir: PathBuf) -> Self {
        Self { dir, files: BTreeMap::new(), looks: 0 }
    }

    /// Looks once. An error is about the directory as a whole; nothing in it counts as gone then.
    pub(super) fn look(&mut self) -> Result<Vec<Finding>, String> {
        let paths = list(&self.dir)?;
        let is_first = self.looks == 0;
        let read_all = self.looks.is_multiple_of(READ_ALL_EVERY);
        self.looks += 1;
        let mut findings = Vec::new();
        self.files.retain(|path, file| {
            let is_gone = paths.binary_search(path).is_err();
            if is_gone && file.missed {
                findings.push(Finding::Gone { file: file.path.clone() });
                return false;
            }
            file.missed = is_gone;
            true
        });
        for path in paths {
            let file = self.files.entry(path.clone()).or_insert_with(|| File::new(&path));
            findings.extend(file.look(&path, is_first, read_all));
        }
        Ok(findings)
    }
}

impl File {
    fn new(path: &Path) -> Self {
        Self { path: path.display().to_string().into(), stamp: None, seen: None, told: None, missed: false }
    }

    fn look(&mut self, path: &Path, is_first: bool, read_all: bool) -> Option<Finding> {
        let metadata = fs::metadata(path);
        let stamp = metadata.as_ref().ok().map(Stamp::of);
        let is_young = metadata.and_then(|metadata| metadata.modified()).is_ok_and(is_young);
        let is_settled = self.seen == self.told;
        if stamp.is_some() && stamp == self.stamp && is_settled && !is_young && !read_all {
            return None;
        }
        let was_swapped = self.stamp.is_some_and(|old| stamp.is_some_and(|new| new.file != old.file));
        let read = read(path);
        let content = match &read {
            Ok(text) => Content::Digest(digest::digest(&digest::SHA256, text.as_bytes()).as_ref().to_vec()),
            Err(message) => Content::Unreadable(message.clone()),
        };
        self.stamp = stamp;
        let is_whole = is_first || was_swapped || self.seen.as_ref() == Some(&content);
        self.seen = Some(content);
        if self.seen == self.told || !is_whole {
            return None;
        }
        self.told.clone_from(&self.seen);
        let file = self.path.clone();
        Some(match read {
            Ok(text) => Finding::Content { file, text },
            Err(message) => Finding::Unreadable { file, message },
        })
    }
}

impl Stamp {
    fn of(metadata: &fs::Metadata) -> Self {
        Self {
            file: (metadata.dev(), metadata.ino()),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

fn is_young(modified: SystemTime) -> bool {
    SystemTime::now().duration_since(modified).map_or(true, |age| age < YOUNG)
}

/// The manifests of a directory, sorted.
fn list(dir: &Path) -> Result<Vec<PathBuf>, String> {
    let cannot = |error: io::Error| format!("cannot be read: {error}");
    let mut paths = Vec::new();
    for entry in fs::read_dir(dir).map_err(cannot)? {
        let path = entry.map_err(cannot)?.path();
        let is_hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        let is_ours = path.extension().is_some_and(|extension| ["yaml", "yml", "json"].iter().any(|e| extension == *e));
        if is_ours && !is_hidden && !path.is_dir() {
            paths.push(path);
        }
        if paths.len() > FILES_MAX {
            return Err(format!("has more than {FILES_MAX} manifests: join them, a file may hold many documents"));
        }
    }
    paths.sort();
    Ok(paths)
}

fn read(path: &Path) -> Result<String, String> {
    let cannot = |error: io::Error| format!("cannot be read: {error}");
    let mut file = fs::File::open(path).map_err(cannot)?;
    let size = file.metadata().map_err(cannot)?.len();
    if size > FILE_BYTES_MAX {
        return Err(format!("has {size} bytes, and at most {FILE_BYTES_MAX} are allowed: split it"));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or_default());
    io::Read::read_to_end(&mut io::Read::take(&mut file, FILE_BYTES_MAX), &mut bytes).map_err(cannot)?;
    String::from_utf8(bytes).map_err(|error| format!("is no UTF-8 text at byte {}", error.utf8_error().valid_up_to()))
}
