//! The replicas of the crowd: one that answers at once, and one that big answers and endless bodies can be had of.
//!
//! Bounded: an answer has a length, and a connection ends with the router's side of it.

use std::net::{Ipv4Addr, SocketAddr};
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::oneshot;

use crate::machine::step_back;

/// Length of the big answer: far more than the buffers on the way hold.
const BIG: usize = 64 << 20;

/// Path of the big answer at the replica.
pub const BIG_PATH: &str = "/big";

/// A replica on a thread of its own, which ends with the process.
pub struct Replica {
    /// Where it listens.
    pub address: SocketAddr,
}

impl Replica {
    /// That takes this `time` for each answer; `for_crowd` lets it work only when nobody else does.
    pub fn start(for_crowd: bool, time: Duration) -> anyhow::Result<Self> {
        let (tell, told) = oneshot::channel();
        thread::spawn(move || {
            let served = serve(for_crowd, time, tell);
            if let Err(error) = served {
                eprintln!("a replica ended: {error:#}");
            }
        });
        Ok(Self { address: told.blocking_recv().context("a replica did not start")? })
    }
}

fn serve(for_crowd: bool, time: Duration, tell: oneshot::Sender<SocketAddr>) -> anyhow::Result<()> {
    if for_crowd {
        step_back()?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = listen()?;
        // Nobody to tell means that the scenario gave up.
        if tell.send(listener.local_addr()?).is_err() {
            return Ok(());
        }
        loop {
            let (stream, _) = listener.accept().await?;
            tokio::spawn(answer_all(stream, time));
        }
    })
}

fn listen() -> std::io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    // Accepted sockets inherit it. What a replica cannot get rid of is not to be held by this machine's memory.
    socket.set_send_buffer_size(64 << 10)?;
    socket.bind((Ipv4Addr::LOCALHOST, 0).into())?;
    socket.listen(4096)
}

/// Answers one request after the other, until the router or an error ends it.
async fn answer_all(mut stream: TcpStream, time: Duration) {
    // Only the speed of the answers depends on it.
    drop(stream.set_nodelay(true));
    let mut unread = Vec::new();
    while let Some(request) = read_head(&mut stream, &mut unread).await {
        let mut left = request.length.saturating_sub(unread.len());
        unread.drain(..request.length.min(unread.len()));
        let mut chunk = [0; 4096];
        while left > 0 {
            let room = left.min(chunk.len());
            let Some(part) = chunk.get_mut(..room) else { return };
            match stream.read(part).await {
                Ok(read) if read > 0 => left -= read,
                Ok(_) | Err(_) => return,
            }
        }
        if !time.is_zero() {
            tokio::time::sleep(time).await;
        }
        let answered = if request.is_big { answer_big(&mut stream).await } else { stream.write_all(SMALL).await };
        if answered.is_err() {
            return;
        }
    }
}

const SMALL: &[u8] =
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 19\r\n\r\n{\"predictions\":[0]}";

async fn answer_big(stream: &mut TcpStream) -> std::io::Result<()> {
    stream.write_all(format!("HTTP/1.1 200 OK\r\ncontent-length: {BIG}\r\n\r\n").as_bytes()).await?;
    let chunk = [b'a'; 16 << 10];
    for _ in 0..BIG / chunk.len() {
        stream.write_all(&chunk).await?;
    }
    Ok(())
}

struct Request {
    length: usize,
    is_big: bool,
}

/// Reads a head; what came after it stays in `unread`.
async fn read_head(stream: &mut TcpStream, unread: &mut Vec<u8>) -> Option<Request> {
    loop {
        if let Some(end) = unread.windows(4).position(|four| four == b"\r\n\r\n") {
            let head: Vec<u8> = unread.drain(..end + 4).collect();
            let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
            let length = head.split_once("\r\ncontent-length:").and_then(|(_, rest)| rest.split("\r\n").next());
            let length = length.map_or(Some(0), |number| number.trim().parse().ok())?;
            return Some(Request { length, is_big: head.split(' ').nth(1)?.starts_with(BIG_PATH) });
        }
        if stream.read_buf(unread).await.ok()? == 0 {
            return None;
        }
    }
}
