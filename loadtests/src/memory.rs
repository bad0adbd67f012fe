//! The `memory` scenario: what Scorefront holds in memory when nothing happens, in all and for each idle connection.
//!
//! Resident memory of the process (`VmRSS`): with 100 deployments and no client, then with 10,000 connections that have
//! each had one answer and now idle, in plain text and over TLS.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

use crate::contenders::{Certificate, Face, Starter};
use crate::report::Verdict;
use crate::speed::{DEPLOYMENTS, clients, manifests};

/// How long the connections idle before it is looked how much they take: half of `head-timeout-ms` until all are at rest,
/// and two seconds until what they had is given back, with some room.
const SETTLING: Duration = Duration::from_secs(10);

/// Limits in KiB: of the process at rest, and of each idle connection in plain text and over TLS.
const REST_MAX_KIB: u64 = 40 << 10;
const PLAIN_MAX_KIB: f64 = 12.0;
const TLS_MAX_KIB: f64 = 24.0;

/// Connections that are opened at the same time.
const OPENING: usize = 64;

/// How long any one step may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// How the scenario is run.
#[derive(clap::Args)]
pub struct Arguments {
    /// The Scorefront binary, with the release profile.
    #[arg(long, default_value = "../target/release/scorefront")]
    scorefront: PathBuf,
    /// Idle connections. As many descriptors, and some, must be allowed: `ulimit -n`.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    connections: u32,
    /// Do not judge the figures, only that every request is answered.
    #[arg(long)]
    unjudged: bool,
    /// Where configurations, logs and results go.
    #[arg(long, default_value = "target/memory")]
    dir: PathBuf,
}

/// Runs it.
pub fn run(arguments: &Arguments) -> anyhow::Result<Verdict> {
    std::fs::create_dir_all(&arguments.dir)?;
    let dir = arguments.dir.canonicalize()?;
    let certificate = Certificate::make(&dir)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut verdict = Verdict::Passed;
    let mut rows = Vec::new();
    for (name, tls, max_kib) in [("plain", None, PLAIN_MAX_KIB), ("tls", Some(&certificate), TLS_MAX_KIB)] {
        let face = Face { tls, ..Face::PLAIN };
        let starter = Starter { dir: &dir, core: None, scorefront: &arguments.scorefront, envoy: Path::new(""), face };
        let (replica, _replica_process) = Starter { face: Face::PLAIN, ..starter }.instant_replica(None, true)?;
        let limit = format!("--max-connections={}", arguments.connections + 100);
        let contender = starter.scorefront("scorefront", &manifests(replica, DEPLOYMENTS), &[&limit])?;
        let rest_kib = contender.process.resident_kib()?;
        let held = runtime.block_on(open_all(contender.address, arguments.connections, tls.is_some()))?;
        std::thread::sleep(SETTLING);
        let full_kib = contender.process.resident_kib()?;
        let each_kib = full_kib.saturating_sub(rest_kib) as f64 / f64::from(arguments.connections);
        println!(
            "{name}: {rest_kib} KiB at rest, {full_kib} KiB with {} idle connections: {each_kib:.1} KiB each \
             (bars: {REST_MAX_KIB} KiB, {max_kib} KiB)",
            held.len()
        );
        if !arguments.unjudged && (rest_kib > REST_MAX_KIB || each_kib > max_kib) {
            println!("{name}: over its bar");
            verdict = Verdict::Failed;
        }
        rows.push(json!({
            "clients": name, "rest_kib": rest_kib, "connections": held.len(), "full_kib": full_kib, "each_kib": each_kib,
        }));
    }
    let file = dir.join("memory.json");
    std::fs::write(&file, serde_json::to_vec_pretty(&rows)?)?;
    println!("results: {}", file.display());
    Ok(verdict)
}

/// Anything that bytes go over.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// Opens connections, each with one answered request.
async fn open_all(target: SocketAddr, count: u32, tls: bool) -> anyhow::Result<Vec<Box<dyn Stream>>> {
    let connector = if tls { Some(TlsConnector::from(Arc::new(clients::forgetful()?))) } else { None };
    let mut held = Vec::new();
    let mut left = count;
    while left > 0 {
        let mut opening = tokio::task::JoinSet::new();
        for _ in 0..OPENING.min(left as usize) {
            let connector = connector.clone();
            opening.spawn(async move {
                tokio::time::timeout(PATIENCE, open(target, connector)).await.context("no answer in time")?
            });
            left -= 1;
        }
        while let Some(opened) = opening.join_next().await {
            held.push(opened??);
        }
    }
    Ok(held)
}

async fn open(target: SocketAddr, connector: Option<TlsConnector>) -> anyhow::Result<Box<dyn Stream>> {
    let socket = TcpStream::connect(target).await?;
    let mut stream: Box<dyn Stream> = match connector {
        None => Box::new(socket),
        Some(connector) => Box::new(connector.connect(ServerName::try_from("localhost")?, socket).await?),
    };
    stream.write_all(clients::request(target, "").as_bytes()).await?;
    let mut answer = vec![0; 16 << 10];
    let mut filled = 0;
    // The body of the replica's answer ends with a brace, and no head holds one.
    while answer.get(..filled).and_then(<[u8]>::last) != Some(&b'}') {
        let read = stream.read(answer.get_mut(filled..).unwrap_or_default()).await?;
        anyhow::ensure!(read > 0, "a connection was closed: {}", String::from_utf8_lossy(&answer));
        filled += read;
    }
    anyhow::ensure!(answer.starts_with(b"HTTP/1.1 200 "), "not a 200: {}", String::from_utf8_lossy(&answer));
    Ok(stream)
}
