//! Where lines end up: a standard stream or a file.
//!
//! Bytes go straight to the descriptor. The buffers of `std::io::Stdout` would hide how much of a line is out.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Something that takes bytes and can be opened anew.
pub(crate) trait Sink: Send + 'static {
    /// Takes some of these bytes, like [`Write::write`].
    fn take(&mut self, bytes: &[u8]) -> io::Result<usize>;
    /// Opens the target anew; says whether it is another one now.
    fn reopen(&mut self) -> io::Result<bool>;
}

/// A standard stream or a file.
#[derive(Debug)]
pub(crate) struct Outlet {
    file: File,
    path: Option<PathBuf>,
}

impl Outlet {
    /// Standard output.
    pub(crate) fn stdout() -> io::Result<Self> {
        Ok(Self { file: io::stdout().as_fd().try_clone_to_owned()?.into(), path: None })
    }

    /// Whether what is written here is gone: also where the program was started with this stream closed, because then
    /// the standard library has opened `/dev/null` in its place.
    pub(crate) fn is_null(&self) -> bool {
        let device = |metadata: std::fs::Metadata| metadata.file_type().is_char_device().then(|| metadata.rdev());
        let null = std::fs::metadata("/dev/null").ok().and_then(device);
        null.is_some() && self.file.metadata().ok().and_then(device) == null
    }

    /// Standard error.
    pub(crate) fn stderr() -> io::Result<Self> {
        Ok(Self { file: io::stderr().as_fd().try_clone_to_owned()?.into(), path: None })
    }

    /// The writing end of a pipe.
    #[cfg(test)]
    pub(crate) fn pipe(writer: io::PipeWriter) -> Self {
        Self { file: File::from(std::os::fd::OwnedFd::from(writer)), path: None }
    }

    /// The end of this file, which is made if need be.
    pub(crate) fn file(path: &Path) -> io::Result<Self> {
        Ok(Self { file: open(path)?, path: Some(path.to_owned()) })
    }
}

impl Sink for Outlet {
    fn take(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn reopen(&mut self) -> io::Result<bool> {
        let Some(path) = &self.path else { return Ok(false) };
        self.file = open(path)?;
        Ok(true)
    }
}

fn open(path: &Path) -> io::Result<File> {
    if path.metadata().is_ok_and(|metadata| metadata.file_type().is_fifo()) {
        let why = "is a named pipe, and opening it would wait for a reader; log to a file or to stdout";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    }
    let mut file = OpenOptions::new().append(true).create(true).open(path)?;
    if ends_in_the_middle(path).unwrap_or(false) {
        file.write_all(b"\n")?;
    }
    Ok(file)
}

/// Whether an earlier process, stopped hard or on a full disk, left half a line at the end of a regular file.
fn ends_in_the_middle(path: &Path) -> io::Result<bool> {
    let metadata = path.metadata()?;
    if !metadata.is_file() || metadata.len() == 0 {
        return Ok(false);
    }
    let mut file = File::open(path)?;
    file.seek(SeekFrom::End(-1))?;
    let mut last = [0];
    file.read_exact(&mut last)?;
    Ok(last != *b"\n")
}
