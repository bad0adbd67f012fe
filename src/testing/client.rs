//! A client that sends exactly the bytes it is told to, and reads answers strictly.

use std::net::SocketAddr;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::PATIENCE;

/// Whatever bytes go to and fro on.
trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// One connection.
pub struct Client {
    socket: Box<dyn Duplex>,
    buffer: Vec<u8>,
}

/// An answer as it came.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Status.
    pub status: u16,
    /// Head, as it came.
    pub head: String,
    /// Body, decoded where it came in chunks.
    pub body: Vec<u8>,
    /// Whether its end came as its framing promises.
    pub whole: bool,
    /// Trailers, raw.
    pub trailers: String,
}

impl Answer {
    /// The value of a header, if it came.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// `error.<field>` of an error body.
    pub fn error(&self, field: &str) -> String {
        let body: serde_json::Value = serde_json::from_slice(&self.body).expect("an error body is JSON");
        body["error"][field].as_str().unwrap_or_default().to_owned()
    }
}

/// A scoring request for endpoint `iris` with the key of the tests.
pub fn score(body: &str) -> String {
    request("POST", "/api/v1/endpoint/iris/score", &["Authorization: Bearer secret-1"], body)
}

/// A request with a length.
pub fn request(method: &str, path: &str, headers: &[&str], body: &str) -> String {
    let lines: String = headers.iter().map(|line| format!("{line}\r\n")).collect();
    format!("{method} {path} HTTP/1.1\r\nHost: models.test\r\n{lines}Content-Length: {}\r\n\r\n{body}", body.len())
}

impl Client {
    /// Connects.
    pub async fn connect(address: SocketAddr) -> Self {
        let socket = TcpStream::connect(address).await.expect("the router listens");
        socket.set_nodelay(true).expect("a connected socket takes options");
        Self::over(socket)
    }

    /// On a connection that is there already.
    pub fn over(socket: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Self {
        Self { socket: Box::new(socket), buffer: Vec::new() }
    }

    /// Sends bytes.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.socket.write_all(bytes.as_ref()).await.expect("the router reads");
        self.socket.flush().await.expect("the router reads");
    }

    /// Sends bytes to a router that may have closed already.
    pub async fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.socket.write_all(bytes.as_ref()).await.is_ok()
    }

    /// Sends a request and reads its answer.
    pub async fn ask(&mut self, bytes: impl AsRef<[u8]>) -> Answer {
        self.send(bytes).await;
        self.answer().await
    }

    /// Reads one answer.
    pub async fn answer(&mut self) -> Answer {
        timeout(PATIENCE, self.read_answer()).await.expect("an answer comes in time").expect("there is an answer")
    }

    /// Reads one answer; `None` where the connection ends before there is a head.
    pub async fn try_answer(&mut self) -> Option<Answer> {
        timeout(PATIENCE, self.read_answer()).await.expect("an answer or the end comes in time")
    }

    /// Reads until at least `n` bytes are there that no answer has taken yet, and returns all of them.
    pub async fn peek(&mut self, n: usize) -> Vec<u8> {
        while self.buffer.len() < n {
            let read = timeout(PATIENCE, self.fill()).await.expect("bytes come in time");
            assert!(read, "the connection ended after {} bytes", self.buffer.len());
        }
        self.buffer.clone()
    }

    /// Waits for the router to close. Says whether it did so without sending anything more.
    pub async fn is_closed(&mut self) -> bool {
        while timeout(PATIENCE, self.fill()).await.expect("the router closes in time") {}
        self.buffer.is_empty()
    }

    async fn read_answer(&mut self) -> Option<Answer> {
        let head = loop {
            if let Some(end) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                let rest = self.buffer.split_off(end + 4);
                break String::from_utf8_lossy(&std::mem::replace(&mut self.buffer, rest)).into_owned();
            }
            if !self.fill().await {
                return None;
            }
        };
        let status = head.split(' ').nth(1)?.parse().ok()?;
        let mut answer = Answer { status, head, body: Vec::new(), whole: false, trailers: String::new() };
        let chunked = answer.header("transfer-encoding").is_some();
        let length = answer.header("content-length").and_then(|value| value.parse::<usize>().ok());
        match length {
            _ if status < 200 || status == 204 || status == 304 => answer.whole = true,
            _ if chunked => answer.whole = self.read_chunks(&mut answer).await.is_some(),
            Some(length) => {
                while self.buffer.len() < length && self.fill().await {}
                answer.whole = self.buffer.len() >= length;
                let rest = self.buffer.split_off(length.min(self.buffer.len()));
                answer.body = std::mem::replace(&mut self.buffer, rest);
            }
            None => {
                while self.fill().await {}
                answer.body = std::mem::take(&mut self.buffer);
                answer.whole = true;
            }
        }
        Some(answer)
    }

    async fn read_chunks(&mut self, answer: &mut Answer) -> Option<()> {
        loop {
            let line = self.read_line().await?;
            let size = usize::from_str_radix(line.trim(), 16).ok()?;
            if size == 0 {
                loop {
                    let trailer = self.read_line().await?;
                    if trailer.is_empty() {
                        return Some(());
                    }
                    answer.trailers.push_str(&trailer);
                    answer.trailers.push('\n');
                }
            }
            while self.buffer.len() < size + 2 {
                if !self.fill().await {
                    answer.body.append(&mut self.buffer);
                    return None;
                }
            }
            answer.body.extend(self.buffer.drain(..size));
            self.buffer.drain(..2);
        }
    }

    async fn read_line(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|window| window == b"\r\n") {
                let line: Vec<u8> = self.buffer.drain(..end + 2).collect();
                return Some(String::from_utf8_lossy(&line[..end]).into_owned());
            }
            if !self.fill().await {
                return None;
            }
        }
    }

    /// Reads what is there. Says whether the connection is still open.
    async fn fill(&mut self) -> bool {
        let mut bytes = [0; 4 << 10];
        match self.socket.read(&mut bytes).await {
            Ok(n @ 1..) => {
                self.buffer.extend_from_slice(&bytes[..n]);
                true
            }
            Ok(_) | Err(_) => false,
        }
    }
}
