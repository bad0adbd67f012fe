//! Processes that a scenario starts: pinned, watched, and ended with it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

/// How long a process may take until it answers: one with 10,000 deployments has much to read.
const START_MAX: Duration = Duration::from_secs(120);

/// How long a process may take to end after it was asked to.
const STOP_MAX: Duration = Duration::from_secs(10);

/// Below this, other servers have their ports.
const PORT_MIN: u32 = 12_000;

/// With fewer of them between those and the kernel's, any port will do.
const PLACES_MIN: u32 = 1_000;

/// `/proc/PID/stat` counts in these on every Linux that Rust runs on.
const TICKS_PER_SECOND: u64 = 100;

/// After so many milliseconds the router's allocator gives freed memory back, as in the image (`deploy/Containerfile`).
const PURGE_DELAY_MS: &str = "25";

/// A running process. Dropping it ends it; so does the death of the load test.
pub struct Process {
    name: &'static str,
    child: Child,
    output: PathBuf,
}

impl Process {
    /// Starts `program` on `core` (any core for `None`); what it prints goes to a file in `dir`.
    pub fn start(
        name: &'static str,
        core: Option<usize>,
        program: &Path,
        arguments: &[String],
        dir: &Path,
    ) -> anyhow::Result<Self> {
        let output = dir.join(format!("{name}.out"));
        let file = File::create(&output).with_context(|| format!("create {}", output.display()))?;
        // setpriv and taskset replace themselves by the next program, so the child's id is the peer's.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]);
        if let Some(core) = core {
            command.args(["taskset", "--cpu-list", &core.to_string()]);
        }
        // Other programs do not know it.
        command.env("MIMALLOC_PURGE_DELAY", PURGE_DELAY_MS);
        command.arg(program).args(arguments).stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let child = command.spawn().with_context(|| format!("start {name}: setpriv (Debian package util-linux)"))?;
        Ok(Self { name, child, output })
    }

    /// Polls `GET path` until it is answered with 200.
    pub fn wait_until_ready(&mut self, address: SocketAddr, path: &str) -> anyhow::Result<()> {
        let deadline = Instant::now() + START_MAX;
        loop {
            if status_of(address, path) == Some(200) {
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended with {status} before it was ready:\n{}", self.name, self.printed());
            }
            if Instant::now() >= deadline {
                bail!(
                    "{} did not answer http://{address}{path} with 200 in {START_MAX:?}:\n{}",
                    self.name,
                    self.printed()
                );
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// User and system time so far, of all its threads and children.
    pub fn cpu_time(&self) -> anyhow::Result<Duration> {
        Ok(in_time(ticks_of(self.child.id())?))
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// All that it printed.
    pub fn whole_output(&self) -> String {
        fs::read_to_string(&self.output).unwrap_or_default()
    }

    /// User and system time so far, of its threads whose names do not begin like this.
    pub fn cpu_time_beside(&self, prefix: &str) -> anyhow::Result<Duration> {
        let threads = self.cpu_time_by_thread()?;
        Ok(threads.iter().filter(|(name, _)| !name.starts_with(prefix)).map(|(_, time)| *time).sum())
    }

    /// User and system time so far, by the names of its threads.
    pub fn cpu_time_by_thread(&self) -> anyhow::Result<BTreeMap<String, Duration>> {
        let mut times = BTreeMap::<_, Duration>::new();
        for thread in fs::read_dir(format!("/proc/{}/task", self.child.id()))? {
            let folder = thread?.path();
            // A thread may have ended since the directory was read.
            let Ok(name) = fs::read_to_string(folder.join("comm")) else { continue };
            let ticks = own_ticks(&fs::read_to_string(folder.join("stat")).unwrap_or_default()).unwrap_or(0);
            *times.entry(name.trim_end().to_owned()).or_default() += in_time(ticks);
        }
        Ok(times)
    }

    /// Resident memory now.
    pub fn resident_kib(&self) -> anyhow::Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        line.trim().trim_end_matches(" kB").parse().context("VmRSS is not a number")
    }

    fn printed(&self) -> String {
        let text = self.whole_output();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(None)) {
            return;
        }
        let terminated = Command::new("kill").arg(self.child.id().to_string()).status();
        let deadline = Instant::now() + STOP_MAX;
        while terminated.is_ok() && Instant::now() < deadline {
            match self.child.try_wait() {
                Ok(None) => thread::sleep(Duration::from_millis(20)),
                Ok(Some(_)) | Err(_) => return,
            }
        }
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn ticks_of(pid: u32) -> anyhow::Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).with_context(|| format!("read the times of {pid}"))?;
    let own = own_ticks(&stat)?;
    let mut children = 0;
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread may have ended since the directory was read, and a child since its list was.
        let listed = fs::read_to_string(thread?.path().join("children")).unwrap_or_default();
        children += listed.split(' ').filter_map(|id| ticks_of(id.trim().parse().ok()?).ok()).sum::<u64>();
    }
    Ok(own + children)
}

/// User and system time of all children of this process that have ended, and of theirs.
pub fn cpu_time_of_ended_children() -> anyhow::Result<Duration> {
    Ok(in_time(two_fields(&fs::read_to_string("/proc/self/stat")?, 16)?))
}

/// User and system time of a line of `stat`.
fn own_ticks(stat: &str) -> anyhow::Result<u64> {
    two_fields(stat, 14)
}

/// The sum of a field of a line of `stat` and the next one; the first is number 1.
fn two_fields(stat: &str, number: usize) -> anyhow::Result<u64> {
    // The second field is the command in brackets, which may hold spaces.
    let after_command = stat.rsplit_once(") ").map(|(_, rest)| rest).unwrap_or_default();
    let fields = after_command.split(' ').skip(number - 3).take(2).map(str::parse::<u64>);
    Ok(fields.collect::<Result<Vec<_>, _>>()?.iter().sum())
}

fn in_time(ticks: u64) -> Duration {
    Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND)
}

/// A port of loopback that is free, and that no connection takes before somebody listens on it: those are given ports of the
/// kernel's own range, and these lie below. The peers must be told a port: they cannot tell which they got.
pub fn free_address() -> anyhow::Result<SocketAddr> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").context("the kernel's range of ports")?;
    let end: u32 =
        range.split_whitespace().next().unwrap_or_default().parse().context("the kernel's range of ports")?;
    let places = end.saturating_sub(PORT_MIN);
    if places < PLACES_MIN {
        // The kernel's range was made as large as can be.
        return Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?);
    }
    // Where another load test begins elsewhere, both find theirs at once.
    let begin = std::process::id().wrapping_mul(101);
    for _ in 0..places {
        let number = begin.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % places;
        let port = u16::try_from(PORT_MIN + number)?;
        if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            return Ok(listener.local_addr()?);
        }
    }
    bail!("no port is free between {PORT_MIN} and {end}, where net.ipv4.ip_local_port_range begins")
}

/// The status of a GET, `None` when there was no answer.
pub fn status_of(address: SocketAddr, path: &str) -> Option<u16> {
    get(address, path)?.split(' ').nth(1)?.parse().ok()
}

/// Head and body of the answer to a GET, `None` when there was none or it was not a 200.
pub fn body_of(address: SocketAddr, path: &str) -> Option<String> {
    get(address, path).filter(|answer| answer.starts_with("HTTP/1.1 200 "))
}

fn get(address: SocketAddr, path: &str) -> Option<String> {
    let patience = Duration::from_secs(2);
    let mut stream = TcpStream::connect_timeout(&address, patience).ok()?;
    stream.set_read_timeout(Some(patience)).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n").ok()?;
    let mut answer = Vec::new();
    // An answer may be cut by the time-out; its first line is enough.
    drop(stream.read_to_end(&mut answer));
    Some(String::from_utf8_lossy(&answer).into_owned())
}

/// The file of `name` in `PATH` or where Debian puts servers, or how to get it.
pub fn find_program(name: &str, package: &str) -> anyhow::Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
    let found = folders.map(|folder| folder.join(name)).find(|file| file.is_file());
    found.with_context(|| format!("{name} is missing: apt-get install {package}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_counts_what_a_process_burns_and_dropping_ends_it() {
        let dir = std::env::temp_dir();
        let spin = ["-c", "while :; do :; done"].map(str::to_owned);
        let process = Process::start("spin", Some(0), Path::new("/bin/sh"), &spin, &dir).unwrap();
        let pid = process.child.id();
        let deadline = Instant::now() + Duration::from_secs(10);
        while process.cpu_time().unwrap() < Duration::from_millis(100) {
            assert!(Instant::now() < deadline, "a spinning process used no time");
            thread::sleep(Duration::from_millis(10));
        }
        drop(process);
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
    }

    #[test]
    fn free_ports_are_different_and_none_that_a_connection_could_get() {
        let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let given = TcpStream::connect(server.local_addr().unwrap()).unwrap().local_addr().unwrap().port();
        let ports: Vec<u16> = (0..100).map(|_| free_address().unwrap().port()).collect();
        let different: std::collections::BTreeSet<_> = ports.iter().collect();
        assert_eq!(different.len(), ports.len());
        assert!(ports.iter().all(|&port| u32::from(port) >= PORT_MIN && port < given), "{ports:?}, {given}");
    }

    #[test]
    fn cpu_time_is_known_by_thread_and_that_of_children_once_they_have_ended() {
        let before = cpu_time_of_ended_children().unwrap();
        let spin = ["-c", "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done; exec sleep 60"].map(str::to_owned);
        let process = Process::start("sleep", None, Path::new("/bin/sh"), &spin, &std::env::temp_dir()).unwrap();
        let deadline = Instant::now() + Duration::from_secs(30);
        let spent = || process.cpu_time_by_thread().unwrap().get("sleep").copied().unwrap_or_default();
        while spent() < Duration::from_millis(20) {
            assert!(Instant::now() < deadline, "no time by that name: {:?}", process.cpu_time_by_thread());
            thread::sleep(Duration::from_millis(10));
        }
        drop(process);
        assert!(cpu_time_of_ended_children().unwrap() >= before + Duration::from_millis(20));
    }

    #[test]
    fn a_process_that_ends_early_is_reported_with_what_it_printed() {
        let dir = std::env::temp_dir();
        let fail = ["-c", "echo no such model; exit 3"].map(str::to_owned);
        let mut process = Process::start("fail", None, Path::new("/bin/sh"), &fail, &dir).unwrap();
        let error = process.wait_until_ready(free_address().unwrap(), "/").unwrap_err().to_string();
        assert!(error.contains("no such model") && error.contains('3'), "{error}");
    }

    #[test]
    fn a_missing_program_names_its_package() {
        let error = find_program("no-such-program", "some-package").unwrap_err().to_string();
        assert_eq!(error, "no-such-program is missing: apt-get install some-package");
    }
}
