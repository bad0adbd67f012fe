//! Files that belong together, a certificate chain and its key, however they are renewed.
//!
//! They may be swapped as a whole (`mv`, the `..data` link of the kubelet, which swaps both at once) or written one
//! after the other. So what is new counts when two looks in a row find the same in all.
//!
//! A place may be a folder, such as a Secret mounted into the pod: which file of it counts is decided at each look,
//! because the Secret may be replaced by one with other names.

use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use aws_lc_rs::digest;

/// Names of a certificate chain in a folder, the first one that is there: those of Kubernetes and of Azure ML.
pub(super) const CHAIN_NAMES: &[&str] = &["tls.crt", "cert.pem"];

/// Names of a private key in a folder, likewise.
pub(super) const KEY_NAMES: &[&str] = &["tls.key", "key.pem"];

/// The largest file that is read: a chain or a key has a few thousand bytes.
const BYTES_MAX: u64 = 256 << 10;

/// Time between two looks. A change counts when two looks find the same, because its writer may be half-way, and because
/// certificate and key are two files.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// What files hold, or why they cannot be read.
type Content<const N: usize> = Result<[Vec<u8>; N], String>;

/// A file, or a folder that has it under one of some names.
#[derive(Debug)]
pub(super) struct Place {
    path: PathBuf,
    /// Empty where a folder is of no use.
    names: &'static [&'static str],
}

/// See the head of the file.
#[derive(Debug)]
pub(super) struct Files<const N: usize> {
    places: [Place; N],
    /// What the last look saw.
    seen: Option<Mark>,
    /// What was last told.
    told: Option<Mark>,
}

/// What tells one content from another, without keeping a key.
type Mark = Result<Vec<u8>, String>;

/// Lets whoever owns files look at them again and again. Ends only when a look crashes.
pub(super) async fn look_again<T: Send + 'static>(mut owner: T, look: fn(&mut T)) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        // A file system that hangs must not hang the admin port with it.
        let looked = tokio::task::spawn_blocking(move || {
            look(&mut owner);
            owner
        });
        match looked.await {
            Ok(returned) => owner = returned,
            Err(_) => return,
        }
    }
}

impl<const N: usize> Files<N> {
    pub(super) fn new(places: [Place; N]) -> Self {
        Self { places, seen: None, told: None }
    }

    /// What is in them now.
    pub(super) fn read(&mut self) -> Content<N> {
        let content = self.content();
        self.told = Some(mark_of(&content));
        self.seen.clone_from(&self.told);
        content
    }

    /// What is in them, if that is new and will stay.
    pub(super) fn look(&mut self) -> Option<Content<N>> {
        let content = self.content();
        let mark = Some(mark_of(&content));
        let is_settled = self.seen == mark;
        self.seen = mark;
        if !is_settled || self.seen == self.told {
            return None;
        }
        self.told.clone_from(&self.seen);
        Some(content)
    }

    /// Whether the last look found what was last told.
    pub(super) fn is_as_told(&self) -> bool {
        self.seen == self.told
    }

    fn content(&self) -> Content<N> {
        let mut content = [const { Vec::new() }; N];
        for (content, place) in content.iter_mut().zip(&self.places) {
            *content = read(&place.file()?)?;
        }
        Ok(content)
    }
}

impl Place {
    pub(super) fn file_or_folder(path: &Path, names: &'static [&'static str]) -> Self {
        Self { path: path.to_owned(), names }
    }

    pub(super) fn only_file(path: &Path) -> Self {
        Self { path: path.to_owned(), names: &[] }
    }

    /// The file that counts now.
    fn file(&self) -> Result<PathBuf, String> {
        if self.names.is_empty() || !self.path.is_dir() {
            return Ok(self.path.clone());
        }
        // What cannot be looked at is there: reading it tells why.
        let mut files = self.names.iter().map(|name| self.path.join(name));
        let there = files.find(|file| file.try_exists().unwrap_or(true));
        there.ok_or_else(|| {
            format!("folder {} has none of these files: {}; put one there", self.path.display(), self.names.join(", "))
        })
    }
}

fn mark_of<const N: usize>(content: &Content<N>) -> Mark {
    let mut all = digest::Context::new(&digest::SHA256);
    for file in content.as_ref().map_err(Clone::clone)? {
        all.update(&file.len().to_be_bytes());
        all.update(file);
    }
    Ok(all.finish().as_ref().to_vec())
}

/// Reads a file of limited size.
fn read(path: &Path) -> Result<Vec<u8>, String> {
    let cannot = |error: io::Error| format!("{} cannot be read: {error}", path.display());
    let mut bytes = Vec::new();
    let file = fs::File::open(path).map_err(cannot)?;
    file.take(BYTES_MAX + 1).read_to_end(&mut bytes).map_err(cannot)?;
    if bytes.len() as u64 > BYTES_MAX {
        return Err(format!("{} has more than {BYTES_MAX} bytes", path.display()));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stage() -> (tempfile::TempDir, Files<2>) {
        let folder = tempfile::tempdir().unwrap();
        let paths = ["tls.crt", "tls.key"].map(|name| folder.path().join(name));
        for path in &paths {
            fs::write(path, "first").unwrap();
        }
        (folder, Files::new(paths.map(|path| Place::only_file(&path))))
    }

    fn pair_of(folder: &Path) -> Files<2> {
        Files::new([CHAIN_NAMES, KEY_NAMES].map(|names| Place::file_or_folder(folder, names)))
    }

    #[test]
    fn what_is_new_counts_when_two_looks_find_the_same_and_is_told_once() {
        let (folder, mut files) = stage();
        assert_eq!(files.read(), Ok([b"first".to_vec(), b"first".to_vec()]));
        assert_eq!((files.look(), files.look()), (None, None));
        fs::write(folder.path().join("tls.crt"), "second").unwrap();
        assert_eq!(files.look(), None);
        fs::write(folder.path().join("tls.key"), "second").unwrap();
        assert_eq!(files.look(), None, "the key was another one at the last look");
        assert_eq!(files.look(), Some(Ok([b"second".to_vec(), b"second".to_vec()])));
        assert_eq!(files.look(), None);
    }

    #[test]
    fn a_swap_of_the_kubelets_link_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        for version in ["..1", "..2"] {
            fs::create_dir(folder.path().join(version)).unwrap();
            for name in ["tls.crt", "tls.key"] {
                fs::write(folder.path().join(version).join(name), format!("{name}{version}")).unwrap();
            }
        }
        let link = |version: &str| {
            std::os::unix::fs::symlink(version, folder.path().join("..tmp")).unwrap();
            fs::rename(folder.path().join("..tmp"), folder.path().join("..data")).unwrap();
        };
        link("..1");
        for name in ["tls.crt", "tls.key"] {
            std::os::unix::fs::symlink(format!("..data/{name}"), folder.path().join(name)).unwrap();
        }
        let by_name = Files::new(["tls.crt", "tls.key"].map(|name| Place::only_file(&folder.path().join(name))));
        for mut files in [by_name, pair_of(folder.path())] {
            link("..1");
            assert!(files.read().is_ok());
            link("..2");
            assert_eq!(files.look(), None);
            assert_eq!(files.look(), Some(Ok([b"tls.crt..2".to_vec(), b"tls.key..2".to_vec()])));
        }
    }

    #[test]
    fn in_a_folder_either_pair_of_names_counts_and_that_of_kubernetes_first() {
        let folder = tempfile::tempdir().unwrap();
        let mut files = pair_of(folder.path());
        let put = |names: [&str; 2]| names.map(|name| fs::write(folder.path().join(name), name).unwrap());
        put(["cert.pem", "key.pem"]);
        assert_eq!(files.read(), Ok([b"cert.pem".to_vec(), b"key.pem".to_vec()]));
        put(["tls.crt", "tls.key"]);
        assert_eq!(files.look(), None);
        assert_eq!(files.look(), Some(Ok([b"tls.crt".to_vec(), b"tls.key".to_vec()])));
    }

    #[test]
    fn a_folder_without_the_files_is_named_with_what_was_looked_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().display();
        let told = pair_of(folder.path()).read().unwrap_err();
        assert_eq!(told, format!("folder {path} has none of these files: tls.crt, cert.pem; put one there"));
        fs::write(folder.path().join("cert.pem"), "chain").unwrap();
        let told = pair_of(folder.path()).read().unwrap_err();
        assert_eq!(told, format!("folder {path} has none of these files: tls.key, key.pem; put one there"));
    }

    #[test]
    fn what_cannot_be_read_is_told_once_with_its_name_and_its_return_too() {
        let (folder, mut files) = stage();
        files.read().unwrap();
        fs::remove_file(folder.path().join("tls.key")).unwrap();
        files.look();
        let told = files.look().unwrap().unwrap_err();
        assert!(told.contains("tls.key cannot be read: "), "{told}");
        assert_eq!(files.look(), None);
        fs::write(folder.path().join("tls.key"), vec![b'x'; 1 + BYTES_MAX as usize]).unwrap();
        files.look();
        assert!(files.look().unwrap().unwrap_err().ends_with("tls.key has more than 262144 bytes"));
        fs::write(folder.path().join("tls.key"), "first").unwrap();
        files.look();
        assert!(files.look().unwrap().is_ok());
    }
}
