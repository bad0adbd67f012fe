//! The reader of the access log: follows the file while it is written, and from one file to the next when it is rotated.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::account::Account;

/// Follows one log.
pub struct LogReader {
    path: PathBuf,
    file: BufReader<File>,
    /// What has come of the line that is being written.
    part: String,
}

impl LogReader {
    /// From the beginning of the file.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        Ok(Self { path: path.to_owned(), file: BufReader::new(File::open(path)?), part: String::new() })
    }

    /// Reads what has come since the last time.
    pub fn follow(&mut self, account: &Account) -> anyhow::Result<()> {
        // Looked for first: once the new file is there, the router has written its last line to the old one, and that
        // is read now.
        let next = File::open(&self.path).ok();
        self.read(account)?;
        let inode = self.file.get_ref().metadata()?.ino();
        if let Some(next) = next
            && next.metadata()?.ino() != inode
            && next.metadata()?.len() > 0
        {
            self.read(account)?;
            anyhow::ensure!(self.part.is_empty(), "the access log was rotated in the middle of a line: {}", self.part);
            self.file = BufReader::new(next);
            self.read(account)?;
        }
        Ok(())
    }

    fn read(&mut self, account: &Account) -> anyhow::Result<()> {
        while self.file.read_line(&mut self.part)? > 0 && self.part.ends_with('\n') {
            account.log(self.part.trim_end());
            self.part.clear();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn lines_are_read_whole_once_and_over_a_rotation() {
        let dir = std::env::temp_dir().join(format!("loadtests-log-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("access.log");
        let line = |number: u64| {
            format!("{{\"XMSClientRequestId\":\"soak-{number}\",\"ResponseCode\":200,\"Outcome\":\"served\"}}\n")
        };
        let account = Account::default();
        std::fs::write(&path, line(1)).unwrap();
        let mut reader = LogReader::open(&path).unwrap();
        reader.follow(&account).unwrap();
        let (start, end) = (line(2)[..9].to_owned(), line(2)[9..].to_owned());
        let mut file = File::options().append(true).open(&path).unwrap();
        file.write_all(start.as_bytes()).unwrap();
        reader.follow(&account).unwrap();
        assert_eq!(account.books().lines(), 1);
        file.write_all(end.as_bytes()).unwrap();
        std::fs::rename(&path, dir.join("access.log.1")).unwrap();
        file.write_all(line(3).as_bytes()).unwrap();
        std::fs::write(&path, line(4)).unwrap();
        reader.follow(&account).unwrap();
        let books = account.books();
        assert_eq!((books.lines(), books.disagreements), (4, 0), "{:?}", books.details);
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
