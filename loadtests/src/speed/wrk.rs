//! Debian's load generators: wrk for HTTP/1.1, h2load for HTTP/2. On the other core, if nothing else is said; a request that
//! fails is an error.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context as _, bail};

use super::PATH;
use super::shapes::Body;
use crate::manifests::KEY;
use crate::process::find_program;

const SMALL: &str = r#"{"data":[[5.1,3.5,1.4,0.2]],"method":"predict"}"#;

/// Which core load generators run on.
pub const CORE: &str = "1";

/// What one run of a load generator gave.
#[derive(Default)]
pub struct Loaded {
    /// Requests answered, or events received.
    pub count: u64,
    /// The 99th percentile: of the time to the whole answer, or of an event's way, in µs.
    pub p99_us: Option<f64>,
    /// For how long requests were sent, in seconds, where the generator says so: its start and its end are left out.
    pub seconds: Option<f64>,
}

/// wrk with the requests of one shape.
pub struct Wrk {
    program: PathBuf,
    script: PathBuf,
    connections: u32,
    scheme: &'static str,
    core: Option<&'static str>,
}

impl Wrk {
    pub fn prepare(dir: &Path, connections: u32, body: Body, keeps: bool, tls: bool) -> anyhow::Result<Self> {
        let script = dir.join("score.lua");
        let body = match body {
            Body::Small => format!("'{SMALL}'"),
            Body::Big => format!("'{{\"data\":\"' .. string.rep('x', {}) .. '\"}}'", super::BIG - 11),
        };
        let mut text = format!(
            r#"wrk.method = "POST"
wrk.body = {body}
wrk.headers["Content-Type"] = "application/json"
wrk.headers["Authorization"] = "Bearer {KEY}"
"#
        );
        if !keeps {
            text.push_str("wrk.headers[\"Connection\"] = \"close\"\n");
        }
        std::fs::write(&script, text)?;
        let scheme = if tls { "https" } else { "http" };
        Ok(Self { program: find_program("wrk", "wrk")?, script, connections, scheme, core: Some(CORE) })
    }

    /// The same wherever the kernel likes.
    pub fn on_any_core(self) -> Self {
        Self { core: None, ..self }
    }

    pub fn load(&self, target: SocketAddr, seconds: u32) -> anyhow::Result<Loaded> {
        let mut wrk = Command::new(&self.program);
        wrk.args(["-t1", "--latency", &format!("-c{}", self.connections), &format!("-d{seconds}s"), "-s"])
            .arg(&self.script)
            .arg(format!("{}://{target}{PATH}", self.scheme));
        let output = match self.core {
            Some(core) => on_core(core, &wrk)?,
            None => wrk.output().context("start wrk")?,
        };
        let printed = String::from_utf8_lossy(&output.stdout);
        requests_in(&printed)
            .with_context(|| format!("wrk on {target}: {printed}{}", String::from_utf8_lossy(&output.stderr)))
    }
}

/// h2load: HTTP/2 from the first byte on.
pub struct H2load {
    program: PathBuf,
    body: PathBuf,
}

impl H2load {
    pub fn prepare(dir: &Path) -> anyhow::Result<Self> {
        let body = dir.join("score.json");
        std::fs::write(&body, SMALL)?;
        Ok(Self { program: find_program("h2load", "nghttp2-client")?, body })
    }

    pub fn load(&self, target: SocketAddr, seconds: u32) -> anyhow::Result<Loaded> {
        let output = on_core(
            CORE,
            Command::new(&self.program)
                .args(["-t1", "-c16", "-m16", &format!("-D{seconds}"), "-d"])
                .arg(&self.body)
                .args(["-H", "content-type: application/json", "-H", &format!("authorization: Bearer {KEY}")])
                .arg(format!("http://{target}{PATH}")),
        )?;
        let printed = String::from_utf8_lossy(&output.stdout);
        h2_requests_in(&printed).with_context(|| format!("h2load on {target}: {printed}"))
    }
}

fn on_core(core: &str, command: &Command) -> anyhow::Result<Output> {
    let mut pinned = Command::new("taskset");
    pinned.args(["--cpu-list", core]).arg(command.get_program()).args(command.get_args());
    pinned.output().context("start taskset (Debian package util-linux)")
}

/// What wrk reports, if all requests were answered with 2xx.
fn requests_in(report: &str) -> anyhow::Result<Loaded> {
    if report.contains("Non-2xx") || report.contains("Socket errors") {
        bail!("some requests failed");
    }
    let line = report.lines().find(|line| line.contains(" requests in ")).context("no count of requests")?;
    let count: u64 = line.trim().split(' ').next().unwrap_or_default().parse().context("not a count")?;
    anyhow::ensure!(count > 0, "no request was answered");
    let p99 = report.lines().find_map(|line| line.trim().strip_prefix("99%"));
    let seconds = line.split([' ', ',']).find_map(|word| micros(word).map(|micros| micros / 1e6));
    Ok(Loaded { count, p99_us: p99.and_then(micros), seconds })
}

/// A time as wrk writes it.
fn micros(text: &str) -> Option<f64> {
    let text = text.trim();
    let (number, scale) = [("us", 1.0), ("ms", 1e3), ("s", 1e6)]
        .iter()
        .find_map(|&(unit, scale)| Some((text.strip_suffix(unit)?, scale)))?;
    number.parse::<f64>().ok().map(|number| number * scale)
}

/// What h2load reports, if all requests that it finished were answered with 2xx.
fn h2_requests_in(report: &str) -> anyhow::Result<Loaded> {
    // "requests: 10 total, 10 started, 10 done, 10 succeeded, 0 failed, 0 errored, 0 timeout"
    let line = report.lines().find(|line| line.starts_with("requests: ")).context("no count of requests")?;
    let number = |word: &str| -> Option<u64> {
        line.split(", ").find_map(|part| part.trim_start_matches("requests: ").strip_suffix(word)?.trim().parse().ok())
    };
    let (done, failed) = (number("succeeded").context("no count of successes")?, number("failed").unwrap_or(0));
    anyhow::ensure!(failed == 0, "{failed} requests failed");
    anyhow::ensure!(done > 0, "no request was answered");
    Ok(Loaded { count: done, ..Loaded::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clean_report_gives_its_count_and_percentile_and_how_long_it_took() {
        let report = "Running 5s test\n  Latency Distribution\n     50%    1.02ms\n     99%    2.50ms\n  312345 requests in 5.00s, 60MB read\n";
        let loaded = requests_in(report).unwrap();
        assert_eq!((loaded.count, loaded.p99_us, loaded.seconds), (312_345, Some(2500.0), Some(5.0)));
        assert_eq!(requests_in("  90 requests in 1.50m, 9KB read").unwrap().seconds, None);
    }

    #[test]
    fn times_are_read_in_every_unit() {
        assert_eq!(micros(" 850.00us"), Some(850.0));
        assert_eq!(micros("1.25s"), Some(1_250_000.0));
        assert_eq!(micros("soon"), None);
    }

    #[test]
    fn a_report_with_failures_is_no_measurement() {
        for line in ["  Non-2xx or 3xx responses: 3", "  Socket errors: connect 0, read 1, write 0, timeout 0"] {
            assert!(requests_in(&format!("  12 requests in 5.00s\n{line}\n")).is_err());
        }
        assert!(requests_in("").is_err());
        assert!(requests_in("  0 requests in 5.00s").is_err());
    }

    #[test]
    fn a_report_of_h2load_gives_its_count_unless_requests_failed() {
        let report = |failed| {
            format!(
                "requests: 90 total, 90 started, 88 done, 88 succeeded, {failed} failed, {failed} errored, 0 timeout"
            )
        };
        assert_eq!(h2_requests_in(&report(0)).unwrap().count, 88);
        assert!(h2_requests_in(&report(2)).is_err());
        assert!(h2_requests_in("").is_err());
    }
}
