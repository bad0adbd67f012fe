//! The router under test as a process: its settings, its world in a folder of manifests, its log in a file.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::gauges::{Memory, Metrics, open_files};
use crate::process::{Process, free_address};

/// A running router. Dropping it ends it.
pub struct Router {
    /// For clients without TLS.
    pub address: SocketAddr,
    /// For operators.
    pub admin: SocketAddr,
    /// The access log.
    pub log: PathBuf,
    manifests: PathBuf,
    process: Process,
}

impl Router {
    /// Starts `program` with one worker on `core` and waits until it is ready. All its files are in `dir`.
    pub fn start(
        program: &Path,
        core: Option<usize>,
        dir: &Path,
        world: &str,
        settings: &[String],
    ) -> anyhow::Result<Self> {
        let release = "cargo build --release, or name another with --scorefront";
        anyhow::ensure!(program.is_file(), "{} is missing: {release}", program.display());
        let (address, admin) = (free_address()?, free_address()?);
        let (manifests, log) = (dir.join("manifests"), dir.join("scorefront.log"));
        fs::create_dir_all(&manifests)?;
        fs::write(manifests.join("all.yaml"), world)?;
        fs::write(&log, "")?;
        let mut arguments = vec![
            "serve".to_owned(),
            format!("--listen={address}"),
            format!("--admin={admin}"),
            format!("--source=manifests:{}", manifests.display()),
            "--workers=1".to_owned(),
            "--drain-grace-ms=0".to_owned(),
            format!("--access-log={}", log.display()),
        ];
        arguments.extend_from_slice(settings);
        let mut process = Process::start("scorefront", core, program, &arguments, dir)?;
        process.wait_until_ready(admin, "/readyz")?;
        Ok(Self { address, admin, log, manifests, process })
    }

    /// Puts another world in the place of the one that is served, whole and at once.
    pub fn set_world(&self, world: &str) -> anyhow::Result<()> {
        let (new, file) = (self.manifests.with_extension("new"), self.manifests.join("all.yaml"));
        fs::write(&new, world).with_context(|| format!("write {}", new.display()))?;
        fs::rename(&new, &file).with_context(|| format!("replace {}", file.display()))
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Resident memory.
    pub fn memory(&self) -> anyhow::Result<Memory> {
        Memory::of(self.process.id())
    }

    /// Open files and sockets.
    pub fn open_files(&self) -> anyhow::Result<usize> {
        open_files(self.process.id())
    }

    /// Its counters.
    pub fn metrics(&self) -> anyhow::Result<Metrics> {
        Metrics::scrape(self.admin)
    }

    /// What its trace log says of panics and of faults of its own.
    pub fn faults(&self) -> Vec<String> {
        let text = self.process.whole_output();
        text.lines().filter(|line| line.contains("panick") || line.contains("ERROR")).map(str::to_owned).collect()
    }
}
