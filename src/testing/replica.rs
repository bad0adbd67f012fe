//! A model server that does what the test's script says, byte by byte.
//!
//! It runs on the test's own runtime, on a port of its own, and keeps what it was sent. A script is a list of steps for
//! each request; steps that wait do so for the test, never for time to pass.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::{Notify, Semaphore};
use tokio_rustls::TlsAcceptor;

use crate::data::tls::Transport;

/// One step of a script.
#[derive(Clone, Debug)]
pub enum Step {
    /// Sends these bytes.
    Send(Vec<u8>),
    /// Waits until the test adds a permit.
    Wait(Arc<Semaphore>),
    /// Reads what is left of the request body.
    ReadBody,
    /// Closes the connection, and says so where TLS has a way to.
    Close,
    /// Closes it without saying so.
    Cut,
    /// Closes it with a reset.
    Reset,
    /// Sends back whatever comes, until the other side closes.
    Echo,
}

/// A request as it came.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Request line and headers, as they came.
    pub head: String,
    /// The body, decoded where it came in chunks; what had come when the script began.
    pub body: Vec<u8>,
    /// Trailers, raw.
    pub trailers: String,
    /// Number of the connection, from 0.
    pub connection: usize,
}

impl Seen {
    /// The value of a header, if it came.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    /// The request line.
    pub fn line(&self) -> &str {
        self.head.lines().next().unwrap_or_default()
    }
}

type Script = dyn Fn(&Seen) -> Vec<Step> + Send + Sync;

struct Shared {
    script: Box<Script>,
    /// Whether the script begins before the body was read.
    early: bool,
    seen: Mutex<Vec<Seen>>,
    arrived: Notify,
    connections: AtomicUsize,
    open: AtomicUsize,
}

/// See the head of the file.
pub struct ScriptedReplica {
    /// Where it listens.
    pub address: SocketAddr,
    shared: Arc<Shared>,
    task: tokio::task::JoinHandle<()>,
}

impl ScriptedReplica {
    /// Starts one that reads each request whole before its script runs.
    pub async fn start(script: impl Fn(&Seen) -> Vec<Step> + Send + Sync + 'static) -> Self {
        Self::listen(script, false, None).await
    }

    /// The same with TLS.
    pub async fn start_tls(
        config: Arc<rustls::ServerConfig>,
        script: impl Fn(&Seen) -> Vec<Step> + Send + Sync + 'static,
    ) -> Self {
        Self::listen(script, false, Some(TlsAcceptor::from(config))).await
    }

    /// Starts one whose script runs as soon as the head is there.
    pub async fn start_early(script: impl Fn(&Seen) -> Vec<Step> + Send + Sync + 'static) -> Self {
        Self::listen(script, true, None).await
    }

    async fn listen(
        script: impl Fn(&Seen) -> Vec<Step> + Send + Sync + 'static,
        early: bool,
        tls: Option<TlsAcceptor>,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let shared = Arc::new(Shared {
            script: Box::new(script),
            early,
            seen: Mutex::default(),
            arrived: Notify::new(),
            connections: AtomicUsize::new(0),
            open: AtomicUsize::new(0),
        });
        let serving = shared.clone();
        let task = tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (tls, serving) = (tls.clone(), serving.clone());
                tokio::spawn(async move {
                    let socket = match tls {
                        None => Transport::Plain(socket),
                        Some(tls) => match tls.accept(socket).await {
                            Ok(stream) => Transport::Tls(Box::new(stream)),
                            Err(_) => return,
                        },
                    };
                    serve(socket, serving).await;
                });
            }
        });
        Self { address, shared, task }
    }

    /// All requests so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().clone()
    }

    /// Waits until it has seen `n` requests, and returns them.
    pub async fn wait_for(&self, n: usize) -> Vec<Seen> {
        loop {
            let arrived = self.shared.arrived.notified();
            let seen = self.seen();
            if seen.len() >= n {
                return seen;
            }
            let waited = tokio::time::timeout(super::PATIENCE, arrived).await;
            assert!(waited.is_ok(), "only {} of {n} requests arrived", seen.len());
        }
    }

    /// Connections accepted so far, with TLS those whose handshake went well.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Connections open now.
    pub fn open(&self) -> usize {
        self.shared.open.load(Ordering::SeqCst)
    }

    /// Stops listening; connections that are open stay.
    pub fn stop_listening(&self) {
        self.task.abort();
    }
}

impl Drop for ScriptedReplica {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A whole answer with a length, on a connection that stays open.
pub fn ok(body: &str) -> Vec<Step> {
    vec![Step::Send(answer(200, &[], body))]
}

/// The same, closing as the stock model server does.
pub fn ok_and_close(body: &str) -> Vec<Step> {
    vec![Step::Send(answer(200, &["Connection: close"], body)), Step::Close]
}

/// The bytes of an answer with a length.
pub fn answer(status: u16, headers: &[&str], body: &str) -> Vec<u8> {
    let lines: String = headers.iter().map(|line| format!("{line}\r\n")).collect();
    format!("HTTP/1.1 {status} Status\r\nContent-Length: {}\r\n{lines}\r\n{body}", body.len()).into_bytes()
}

async fn serve(mut socket: Transport, shared: Arc<Shared>) {
    let connection = shared.connections.fetch_add(1, Ordering::SeqCst);
    shared.open.fetch_add(1, Ordering::SeqCst);
    let mut buffer = Vec::new();
    while let Some(mut seen) = read_head(&mut socket, &mut buffer).await {
        seen.connection = connection;
        if !shared.early && read_body(&mut socket, &mut buffer, &mut seen).await.is_none() {
            // A request that broke off is kept as far as it came.
            shared.seen.lock().push(seen);
            break;
        }
        let steps = (shared.script)(&seen);
        shared.seen.lock().push(seen.clone());
        shared.arrived.notify_waiters();
        if !run(steps, &mut socket, &mut buffer, &mut seen).await {
            break;
        }
    }
    shared.open.fetch_sub(1, Ordering::SeqCst);
    shared.arrived.notify_waiters();
}

/// Says whether the connection goes on.
async fn run(steps: Vec<Step>, socket: &mut Transport, buffer: &mut Vec<u8>, seen: &mut Seen) -> bool {
    for step in steps {
        match step {
            Step::Send(bytes) => {
                if socket.write_all(&bytes).await.is_err() || socket.flush().await.is_err() {
                    return false;
                }
            }
            Step::Wait(permits) => permits.acquire().await.expect("the test keeps its semaphore").forget(),
            Step::ReadBody => {
                if read_body(socket, buffer, seen).await.is_none() {
                    return false;
                }
            }
            Step::Close => {
                say_goodbye(socket).await;
                return false;
            }
            Step::Cut => return false,
            Step::Reset => {
                if let Some(socket) = socket.socket() {
                    let _ = socket2::SockRef::from(socket).set_linger(Some(std::time::Duration::ZERO));
                }
                return false;
            }
            Step::Echo => {
                let _ = socket.write_all(&std::mem::take(buffer)).await;
                let mut bytes = [0; 4096];
                while let Ok(n @ 1..) = socket.read(&mut bytes).await {
                    if socket.write_all(&bytes[..n]).await.is_err() || socket.flush().await.is_err() {
                        break;
                    }
                }
                say_goodbye(socket).await;
                return false;
            }
        }
    }
    true
}

async fn say_goodbye(socket: &mut Transport) {
    if let Transport::Tls(stream) = socket {
        let _ = stream.shutdown().await;
    }
}

async fn read_head(socket: &mut Transport, buffer: &mut Vec<u8>) -> Option<Seen> {
    loop {
        if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            let rest = buffer.split_off(end + 4);
            let head = String::from_utf8_lossy(&std::mem::replace(buffer, rest)).into_owned();
            return Some(Seen { head, ..Seen::default() });
        }
        fill(socket, buffer).await?;
    }
}

async fn read_body(socket: &mut Transport, buffer: &mut Vec<u8>, seen: &mut Seen) -> Option<()> {
    if seen.header("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked")) {
        return read_chunks(socket, buffer, seen).await;
    }
    let length = seen.header("content-length").map_or(0, |value| value.parse().unwrap_or(0));
    while buffer.len() < length {
        if fill(socket, buffer).await.is_none() {
            seen.body = std::mem::take(buffer);
            return None;
        }
    }
    let rest = buffer.split_off(length);
    seen.body = std::mem::replace(buffer, rest);
    Some(())
}

async fn read_chunks(socket: &mut Transport, buffer: &mut Vec<u8>, seen: &mut Seen) -> Option<()> {
    loop {
        let line = read_line(socket, buffer).await?;
        let size = usize::from_str_radix(line.split(';').next()?.trim(), 16).ok()?;
        if size == 0 {
            loop {
                let trailer = read_line(socket, buffer).await?;
                if trailer.is_empty() {
                    return Some(());
                }
                seen.trailers.push_str(&trailer);
                seen.trailers.push('\n');
            }
        }
        while buffer.len() < size + 2 {
            fill(socket, buffer).await?;
        }
        seen.body.extend(buffer.drain(..size));
        buffer.drain(..2);
    }
}

async fn read_line(socket: &mut Transport, buffer: &mut Vec<u8>) -> Option<String> {
    loop {
        if let Some(end) = buffer.windows(2).position(|window| window == b"\r\n") {
            let line: Vec<u8> = buffer.drain(..end + 2).collect();
            return Some(String::from_utf8_lossy(&line[..end]).into_owned());
        }
        fill(socket, buffer).await?;
    }
}

async fn fill(socket: &mut Transport, buffer: &mut Vec<u8>) -> Option<()> {
    let mut bytes = [0; 4 << 10];
    match socket.read(&mut bytes).await {
        Ok(n @ 1..) => {
            buffer.extend_from_slice(&bytes[..n]);
            Some(())
        }
        Ok(_) | Err(_) => None,
    }
}
