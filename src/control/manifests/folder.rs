//! Looks at the files of a directory and says which of them say something else than before.
//!
//! Files may be swapped as a whole (`mv`, the `..data` link of the kubelet) or written in place. A file that was
//! swapped counts at once; one that was written in place, or is new, only when two looks in a row find the same in
//! it, because its writer may be half-way. Links are followed; names that begin with a dot are not files of ours.
//!
//! Holds: a file is read again when its metadata changed, for two seconds after (time stamps are coarse), and once in
//! [`READ_ALL_EVERY`] looks in any case. The same goes for the list of files and the directory.

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
    /// What the directory was like when it was listed, and the list.
    listed: Option<(Stamp, Vec<PathBuf>)>,
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
        Self { dir, listed: None, files: BTreeMap::new(), looks: 0 }
    }

    /// Looks once. An error is about the directory as a whole; nothing in it counts as gone then.
    pub(super) fn look(&mut self) -> Result<Vec<Finding>, String> {
        let is_first = self.looks == 0;
        let read_all = self.looks.is_multiple_of(READ_ALL_EVERY);
        let listed = self.listed.take().filter(|_| !read_all);
        let (stamp, paths) = list_if_changed(&self.dir, listed)?;
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
        for path in &paths {
            let file = self.files.entry(path.clone()).or_insert_with(|| File::new(path));
            findings.extend(file.look(path, is_first, read_all));
        }
        self.listed = Some((stamp, paths));
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

/// The manifests of a directory, as it was listed before if it is the same as then.
fn list_if_changed(dir: &Path, listed: Option<(Stamp, Vec<PathBuf>)>) -> Result<(Stamp, Vec<PathBuf>), String> {
    // The stamp of before the listing: what changes meanwhile is listed again.
    let metadata = fs::metadata(dir).map_err(cannot_read)?;
    let stamp = Stamp::of(&metadata);
    let is_young = metadata.modified().is_ok_and(is_young);
    match listed {
        Some((before, paths)) if before == stamp && !is_young => Ok((stamp, paths)),
        _ => Ok((stamp, list(dir)?)),
    }
}

/// The manifests of a directory, sorted.
fn list(dir: &Path) -> Result<Vec<PathBuf>, String> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(dir).map_err(cannot_read)? {
        let path = entry.map_err(cannot_read)?.path();
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

fn cannot_read(error: io::Error) -> String {
    format!("cannot be read: {error}")
}

fn read(path: &Path) -> Result<String, String> {
    let mut file = fs::File::open(path).map_err(cannot_read)?;
    let size = file.metadata().map_err(cannot_read)?.len();
    if size > FILE_BYTES_MAX {
        return Err(format!("has {size} bytes, and at most {FILE_BYTES_MAX} are allowed: split it"));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or_default());
    io::Read::read_to_end(&mut io::Read::take(&mut file, FILE_BYTES_MAX), &mut bytes).map_err(cannot_read)?;
    String::from_utf8(bytes).map_err(|error| format!("is no UTF-8 text at byte {}", error.utf8_error().valid_up_to()))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Stage {
        dir: tempfile::TempDir,
        folder: Folder,
    }

    impl Stage {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let folder = Folder::new(dir.path().to_owned());
            Self { dir, folder }
        }

        fn write(&self, name: &str, text: &str) {
            fs::write(self.dir.path().join(name), text).unwrap();
        }

        /// What a look finds, as `name: content`.
        fn look(&mut self) -> Vec<String> {
            let name = |file: &str| file.rsplit('/').next().unwrap().to_owned();
            let shown = |finding| match finding {
                Finding::Content { file, text } => format!("{}: {text}", name(&file)),
                Finding::Gone { file } => format!("{} is gone", name(&file)),
                Finding::Unreadable { file, message } => format!("{} {message}", name(&file)),
            };
            self.folder.look().unwrap().into_iter().map(shown).collect()
        }
    }

    const NOTHING: [&str; 0] = [];

    #[test]
    fn the_first_look_takes_everything_and_the_next_ones_only_what_is_new() {
        let mut stage = Stage::new();
        for name in ["b.yml", "a.yaml", "c.json", "d.txt", ".e.yaml", "f"] {
            stage.write(name, "x");
        }
        fs::create_dir(stage.dir.path().join("g.yaml")).unwrap();
        assert_eq!(stage.look(), ["a.yaml: x", "b.yml: x", "c.json: x"]);
        assert_eq!(stage.look(), NOTHING);
    }

    #[test]
    fn what_is_written_in_place_counts_when_two_looks_agree() {
        let mut stage = Stage::new();
        stage.write("a.yaml", "first");
        stage.look();
        stage.write("a.yaml", "half");
        assert_eq!(stage.look(), NOTHING);
        stage.write("a.yaml", "half and half");
        assert_eq!(stage.look(), NOTHING);
        assert_eq!(stage.look(), ["a.yaml: half and half"]);
        stage.write("b.yaml", "new");
        assert_eq!(stage.look(), NOTHING);
        assert_eq!(stage.look(), ["b.yaml: new"]);
    }

    #[test]
    fn a_change_that_no_time_stamp_shows_is_seen() {
        let mut stage = Stage::new();
        stage.write("a.yaml", "1");
        stage.look();
        stage.write("a.yaml", "2");
        let stamp = Stamp::of(&fs::metadata(stage.dir.path().join("a.yaml")).unwrap());
        stage.folder.files.values_mut().for_each(|file| file.stamp = Some(stamp));
        assert_eq!(stage.look(), NOTHING);
        assert_eq!(stage.look(), ["a.yaml: 2"]);
    }

    #[test]
    fn what_is_swapped_counts_at_once() {
        let mut stage = Stage::new();
        stage.write("a.yaml", "first");
        stage.look();
        stage.write(".a", "second");
        fs::rename(stage.dir.path().join(".a"), stage.dir.path().join("a.yaml")).unwrap();
        assert_eq!(stage.look(), ["a.yaml: second"]);
    }

    #[test]
    fn a_file_is_gone_when_two_looks_miss_it() {
        let mut stage = Stage::new();
        stage.write("a.yaml", "x");
        stage.look();
        let path = stage.dir.path().join("a.yaml");
        fs::rename(&path, stage.dir.path().join(".aside")).unwrap();
        assert_eq!(stage.look(), NOTHING);
        fs::rename(stage.dir.path().join(".aside"), &path).unwrap();
        assert_eq!(stage.look(), NOTHING, "it was away for one look");
        fs::remove_file(&path).unwrap();
        assert_eq!(stage.look(), NOTHING);
        assert_eq!(stage.look(), ["a.yaml is gone"]);
        assert_eq!(stage.look(), NOTHING);
    }

    #[test]
    fn a_directory_that_is_as_it_was_for_long_is_not_listed_again() {
        let mut stage = Stage::new();
        stage.write("a.yaml", "x");
        let long_ago = SystemTime::now() - YOUNG * 2;
        fs::File::open(stage.dir.path()).unwrap().set_modified(long_ago).unwrap();
        assert_eq!(stage.look(), ["a.yaml: x"]);
        stage.folder.listed.as_mut().unwrap().1.clear();
        assert_eq!(stage.look(), NOTHING);
        assert_eq!(stage.look(), ["a.yaml is gone"], "so says the old list");
        stage.write("b.yaml", "y");
        assert_eq!(stage.look(), NOTHING);
        assert_eq!(stage.look(), ["a.yaml: x", "b.yaml: y"]);
        stage.folder.listed.as_mut().unwrap().1.clear();
        assert_eq!(stage.look(), NOTHING, "a young one is listed each time");
        assert_eq!(stage.look(), NOTHING);
    }

    #[test]
    fn a_file_that_cannot_be_read_is_told_once_and_its_return_too() {
        let mut stage = Stage::new();
        let path = stage.dir.path().join("a.yaml");
        fs::write(&path, [b'x', 0xff]).unwrap();
        assert_eq!(stage.look(), ["a.yaml is no UTF-8 text at byte 1"]);
        assert_eq!(stage.look(), NOTHING);
        stage.write("a.yaml", "fine");
        assert_eq!(stage.look(), NOTHING);
        assert_eq!(stage.look(), ["a.yaml: fine"]);
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("nowhere", &path).unwrap();
        stage.look();
        assert!(stage.look()[0].starts_with("a.yaml cannot be read: "));
    }

    #[test]
    fn a_file_that_is_too_large_is_not_read() {
        let mut stage = Stage::new();
        let file = fs::File::create(stage.dir.path().join("a.yaml")).unwrap();
        file.set_len(FILE_BYTES_MAX + 1).unwrap();
        assert_eq!(stage.look(), ["a.yaml has 16777217 bytes, and at most 16777216 are allowed: split it"]);
    }

    #[test]
    fn a_directory_that_cannot_be_read_counts_nothing_as_gone() {
        let mut stage = Stage::new();
        stage.write("a.yaml", "x");
        stage.look();
        let aside = tempfile::tempdir().unwrap();
        fs::rename(stage.dir.path(), aside.path().join("moved")).unwrap();
        for _ in 0..3 {
            assert!(stage.folder.look().unwrap_err().starts_with("cannot be read: "));
        }
        fs::rename(aside.path().join("moved"), stage.dir.path()).unwrap();
        assert_eq!(stage.look(), NOTHING);
    }
}
