//! Load that no tool at hand gives: full TLS handshakes, and readers of events. One thread, on the other core.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::Resumption;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::{CryptoProvider, aws_lc_rs};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{self, ClientConfig, DigitallySignedStruct, SignatureScheme};

use super::PATH;
use super::wrk::Loaded;
use crate::manifests::KEY;
use crate::origin::nanos_now;

/// Handshakes under way at a time.
const HANDSHAKES: usize = 16;

/// Streams of events.
const STREAMS: usize = 64;

/// How long any one step may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// The events of the first moments are not measured.
const SETTLING: Duration = Duration::from_millis(500);

/// How it is run, as a process of its own.
#[derive(clap::Args)]
pub struct Arguments {
    /// The front-end.
    #[arg(long)]
    target: SocketAddr,
    /// For how long.
    #[arg(long)]
    seconds: u32,
    /// Read events, instead of shaking hands.
    #[arg(long)]
    events: bool,
}

/// Loads the front-end and prints what came of it.
pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let until = Instant::now() + Duration::from_secs(arguments.seconds.into());
    let loaded = runtime.block_on(async {
        if arguments.events { events(arguments.target, until).await } else { handshakes(arguments.target, until).await }
    })?;
    println!("{} {}", loaded.count, loaded.p99_us.unwrap_or(0.0));
    Ok(())
}

/// Runs this program's own load on the other core, and reads what it prints.
pub fn load(target: SocketAddr, seconds: u32, events: bool) -> anyhow::Result<Loaded> {
    let mut command = std::process::Command::new("taskset");
    command.args(["--cpu-list", super::wrk::CORE]).arg(std::env::current_exe()?).arg("clients");
    command.args([format!("--target={target}"), format!("--seconds={seconds}")]);
    if events {
        command.arg("--events");
    }
    let output = command.output().context("start taskset (Debian package util-linux)")?;
    let printed = String::from_utf8_lossy(&output.stdout);
    anyhow::ensure!(output.status.success(), "load on {target}: {}", String::from_utf8_lossy(&output.stderr));
    let (count, p99) = printed.trim().split_once(' ').context("no figures")?;
    Ok(Loaded { count: count.parse()?, p99_us: Some(p99.parse()?).filter(|&p99: &f64| p99 > 0.0), seconds: None })
}

/// Requests, each on a new connection with a full handshake.
async fn handshakes(target: SocketAddr, until: Instant) -> anyhow::Result<Loaded> {
    let connector = TlsConnector::from(Arc::new(forgetful()?));
    let count = Arc::new(AtomicU64::new(0));
    let mut running = JoinSet::new();
    for _ in 0..HANDSHAKES {
        let (connector, count) = (connector.clone(), count.clone());
        running.spawn(async move {
            while Instant::now() < until {
                tokio::time::timeout(PATIENCE, ask(&connector, target)).await.context("no answer in time")??;
                count.fetch_add(1, Ordering::Relaxed);
            }
            anyhow::Ok(())
        });
    }
    while let Some(ended) = running.join_next().await {
        ended??;
    }
    Ok(Loaded { count: count.load(Ordering::Relaxed), ..Loaded::default() })
}

async fn ask(connector: &TlsConnector, target: SocketAddr) -> anyhow::Result<()> {
    let socket = TcpStream::connect(target).await?;
    socket.set_nodelay(true)?;
    let mut stream = connector.connect(ServerName::try_from("localhost")?, socket).await?;
    stream.write_all(request(target, "Connection: close\r\n").as_bytes()).await?;
    let mut answer = Vec::new();
    // An end without a goodbye is an end: the answer has a length, which nobody here counts.
    drop(stream.read_to_end(&mut answer).await);
    anyhow::ensure!(answer.starts_with(b"HTTP/1.1 200 "), "not a 200: {}", String::from_utf8_lossy(&answer));
    Ok(())
}

/// A small request, with more headers if need be.
pub fn request(target: SocketAddr, more: &str) -> String {
    let body = r#"{"data":[[5.1,3.5,1.4,0.2]],"method":"predict"}"#;
    format!(
        "POST {PATH} HTTP/1.1\r\nHost: {target}\r\nAuthorization: Bearer {KEY}\r\nContent-Type: application/json\r\n\
         {more}Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// Without sessions to go on with, and without a look at certificates, which would only cost the client.
pub fn forgetful() -> anyhow::Result<ClientConfig> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyServer(provider)))
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// Takes any server for the one it wants: this is loopback, and the certificate is the run's own.
#[derive(Debug)]
struct AnyServer(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Streams of events, read as they come: how many, and how long they were on their way.
async fn events(target: SocketAddr, until: Instant) -> anyhow::Result<Loaded> {
    let started = Instant::now();
    let mut running = JoinSet::new();
    for _ in 0..STREAMS {
        running.spawn(async move {
            let mut stream = TcpStream::connect(target).await?;
            stream.set_nodelay(true)?;
            stream.write_all(request(target, "").as_bytes()).await?;
            read_events(&mut stream, started, until).await
        });
    }
    let (mut count, mut ways_us) = (0, Vec::new());
    while let Some(ended) = running.join_next().await {
        let (events, ways) = ended??;
        count += events;
        ways_us.extend(ways);
    }
    let p99_us = crate::report::Waits::of(ways_us).context("no event came")?.p99_ms;
    Ok(Loaded { count, p99_us: Some(p99_us), seconds: None })
}

/// Events until the time is over, and the ways of those after the first moments in µs.
async fn read_events(
    stream: &mut (impl AsyncRead + Unpin),
    started: Instant,
    until: Instant,
) -> anyhow::Result<(u64, Vec<f64>)> {
    let (mut count, mut ways, mut line) = (0, Vec::new(), Vec::new());
    let mut chunk = vec![0; 4 << 10];
    while Instant::now() < until {
        let read = tokio::time::timeout(PATIENCE, stream.read(&mut chunk)).await.context("no event in time")??;
        anyhow::ensure!(read > 0, "a stream of events ended");
        let now = nanos_now();
        for &byte in chunk.iter().take(read) {
            if byte != b'\n' {
                line.push(byte);
                continue;
            }
            if let Some(written) = written_at(&line) {
                count += 1;
                if started.elapsed() > SETTLING {
                    ways.push(now.saturating_sub(written) as f64 / 1e3);
                }
            }
            line.clear();
        }
    }
    Ok((count, ways))
}

/// When this line was written, if it is one of an event. Lines of chunks and of heads are not.
fn written_at(line: &[u8]) -> Option<u64> {
    std::str::from_utf8(line).ok()?.strip_prefix("data: ")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn events_are_counted_in_whatever_pieces_they_come() {
        let text =
            format!("HTTP/1.1 200 OK\r\n\r\n1a\r\ndata: {}\n\n\r\n1a\r\ndata: {}\n\n\r\n", nanos_now(), nanos_now());
        let (mut near, mut far) = tokio::io::duplex(7);
        let writer = tokio::spawn(async move { far.write_all(text.as_bytes()).await });
        let until = Instant::now() + PATIENCE;
        let error = read_events(&mut near, Instant::now(), until).await.unwrap_err();
        assert!(error.to_string().contains("ended"), "{error}");
        writer.await.unwrap().unwrap();
        assert_eq!(written_at(b"data: 17\r"), Some(17));
        assert_eq!(written_at(b"1a\r"), None);
    }
}
