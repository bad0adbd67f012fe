//! What can be seen of a running router from outside: memory, open files, and the counters of its admin port.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::Context as _;

/// How long the admin port may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Resident memory of a process in MiB, as it is and as it was at most.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub struct Memory {
    /// `VmRSS`.
    pub now_mib: f64,
    /// `VmHWM`.
    pub peak_mib: f64,
}

impl Memory {
    /// Of a process that runs.
    pub fn of(pid: u32) -> anyhow::Result<Self> {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).with_context(|| format!("look at {pid}"))?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            let kib: f64 = line?.trim().strip_suffix("kB")?.trim().parse().ok()?;
            Some(kib / 1024.0)
        };
        let both = field("VmRSS").zip(field("VmHWM"));
        let (now_mib, peak_mib) = both.with_context(|| format!("no memory in the status of {pid}"))?;
        Ok(Self { now_mib, peak_mib })
    }
}

/// How many files and sockets a process has open.
pub fn open_files(pid: u32) -> anyhow::Result<usize> {
    Ok(fs::read_dir(format!("/proc/{pid}/fd")).with_context(|| format!("look at the files of {pid}"))?.count())
}

/// Memory of the kernel's TCP buffers in MiB: of all sockets of this network, so both ends of each connection.
pub fn socket_memory_mib() -> Option<f64> {
    const PAGE_KIB: f64 = 4.0;
    let text = fs::read_to_string("/proc/net/sockstat").ok()?;
    let line = text.lines().find(|line| line.starts_with("TCP:"))?;
    let pages: f64 = line.split_once(" mem ")?.1.trim().parse().ok()?;
    Some(pages * PAGE_KIB / 1024.0)
}

/// One look at `/metrics`.
#[derive(Clone, Debug, Default)]
pub struct Metrics(Vec<Sample>);

#[derive(Clone, Debug)]
struct Sample {
    name: String,
    labels: String,
    value: f64,
}

impl Metrics {
    /// Asks the admin port.
    pub fn scrape(admin: SocketAddr) -> anyhow::Result<Self> {
        Ok(Self::parse(&fetch(admin, "/metrics")?))
    }

    fn parse(page: &str) -> Self {
        let samples = page.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            let labels = labels.trim_end_matches('}').to_owned();
            Some(Sample { name: name.to_owned(), labels, value: value.parse().ok()? })
        });
        Self(samples.collect())
    }

    /// The sum of all series of this name.
    pub fn total(&self, name: &str) -> f64 {
        self.0.iter().filter(|sample| sample.name == name).map(|sample| sample.value).sum()
    }

    /// The sum of all series of this name for each value of a label.
    pub fn by_label(&self, name: &str, label: &str) -> std::collections::BTreeMap<String, u64> {
        let mut sums = std::collections::BTreeMap::new();
        let start = format!("{label}=\"");
        for sample in self.0.iter().filter(|sample| sample.name == name) {
            let pairs = sample.labels.split(',');
            let Some(value) = pairs.filter_map(|pair| pair.strip_prefix(&start)?.strip_suffix('"')).next() else {
                continue;
            };
            *sums.entry(value.to_owned()).or_default() += sample.value as u64;
        }
        sums
    }
}

/// The body of a GET that is answered with 200.
pub fn fetch(address: SocketAddr, path: &str) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).with_context(|| format!("read http://{address}{path}"))?;
    let (head, body) = answer.split_once("\r\n\r\n").with_context(|| format!("no answer of {address}{path}"))?;
    anyhow::ensure!(head.starts_with("HTTP/1.1 200 "), "http://{address}{path}: {head}");
    Ok(body.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_of_metrics_is_summed_by_name_and_label() {
        let metrics = Metrics::parse(
            "# HELP a_total what\na_total{endpoint=\"x\",outcome=\"served\"} 3\na_total{endpoint=\"y\",outcome=\"served\"} 4\n\
             a_total{endpoint=\"\",outcome=\"unauthorized\"} 1\nb 2.5\n",
        );
        assert_eq!((metrics.total("a_total"), metrics.total("b"), metrics.total("c")), (8.0, 2.5, 0.0));
        let outcomes = metrics.by_label("a_total", "outcome");
        assert_eq!(outcomes.into_iter().collect::<Vec<_>>(), [("served".into(), 7), ("unauthorized".into(), 1)]);
    }

    #[test]
    fn the_own_process_has_memory_and_files() {
        let memory = Memory::of(std::process::id()).unwrap();
        assert!(memory.now_mib > 0.0 && memory.peak_mib >= memory.now_mib, "{memory:?}");
        assert!(open_files(std::process::id()).unwrap() >= 3);
    }
}
