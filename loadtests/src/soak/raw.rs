//! Clients that no library would be: slow heads and bodies, readers that do not read, uploads that break off, and
//! connections that are upgraded.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, Interest};
use tokio::net::TcpStream;
use tokio::time::{interval, timeout};

use super::account::{Saw, id};
use super::replica::LENGTH_HEADER;

/// The longest that one of these may last.
const LAST_MAX: Duration = Duration::from_secs(60);

/// A request of one of these clients.
pub struct Raw<'a> {
    /// The router.
    pub target: SocketAddr,
    /// The endpoint.
    pub endpoint: &'a str,
    /// A good key.
    pub key: &'a str,
    /// The number of the request.
    pub number: u64,
}

impl Raw<'_> {
    fn head(&self, method: &str, path: &str, more: &str) -> String {
        let Self { target, endpoint, key, number } = self;
        let id = id(*number);
        format!(
            "{method} /api/v1/endpoint/{endpoint}/{path} HTTP/1.1\r\nhost: {target}\r\nauthorization: Bearer {key}\r\n\
             x-ms-client-request-id: {id}\r\n{more}\r\n"
        )
    }

    async fn connect(&self, bytes: &str) -> anyhow::Result<TcpStream> {
        let mut stream = TcpStream::connect(self.target).await.context("connect")?;
        stream.set_nodelay(true)?;
        stream.write_all(bytes.as_bytes()).await?;
        Ok(stream)
    }

    /// A body of a few bytes a second, until the router has enough of it.
    pub async fn slow_body(&self) -> anyhow::Result<Saw> {
        let stream = self.connect(&self.head("POST", "score", "content-length: 100000\r\n")).await?;
        Ok(match drip(stream).await?.as_slice() {
            [] => Saw::Nothing("the connection ended without an answer".to_owned()),
            answer => whole(answer)?,
        })
    }

    /// The same with the head; the answer's status, where there was one.
    pub async fn slow_head(&self) -> anyhow::Result<Option<u16>> {
        let answer = drip(self.connect("POST /api/v1/endpoint/calm/score HTTP/1.1\r\nx-slow: ").await?).await?;
        Ok(status_of(&answer))
    }

    /// Reads nothing of a big answer, until the router has enough of that.
    pub async fn stare(&self) -> anyhow::Result<()> {
        let more = format!("{LENGTH_HEADER}: {}\r\n", 32 << 20);
        let stream = self.connect(&self.head("GET", "score", &more)).await?;
        // Wakes for a reset alone: there is always something to read.
        let cut = async {
            while !stream.ready(Interest::ERROR).await?.is_error() {}
            std::io::Result::Ok(())
        };
        timeout(LAST_MAX, cut).await.context("a reader that does not read was not cut off")?.context("wait for the end")
    }

    /// Sends a part of a body. The connection is to be dropped when the replica has the request.
    pub async fn begin_upload(&self) -> anyhow::Result<TcpStream> {
        let mut stream = self.connect(&self.head("POST", "score", "content-length: 100000\r\n")).await?;
        stream.write_all(&[b'1'; 1000]).await?;
        Ok(stream)
    }

    /// Upgrades the connection, has a few words come back, and leaves.
    pub async fn talk(&self) -> anyhow::Result<Saw> {
        let more = "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
                    sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
        let mut stream = self.connect(&self.head("GET", "chat", more)).await?;
        timeout(LAST_MAX, async {
            let mut answer = Vec::new();
            while !answer.windows(4).any(|four| four == b"\r\n\r\n") {
                if stream.read_buf(&mut answer).await? == 0 {
                    return Ok(Saw::Nothing("the connection ended before the upgrade".to_owned()));
                }
            }
            if status_of(&answer) != Some(101) {
                return whole(&answer);
            }
            for _ in 0..3 {
                stream.write_all(b"hello").await?;
                let mut echo = [0; 5];
                // The replica may die; the request was answered all the same.
                if stream.read_exact(&mut echo).await.is_err() {
                    break;
                }
                anyhow::ensure!(&echo == b"hello", "the echo was another: {echo:?}");
            }
            Ok(Saw::Whole(101, None))
        })
        .await
        .context("an upgraded connection took too long")?
    }
}

/// Sends five bytes a second that mean nothing; all that was answered until the connection ended.
async fn drip(mut stream: TcpStream) -> anyhow::Result<Vec<u8>> {
    let (mut ticks, mut answer) = (interval(Duration::from_millis(200)), Vec::new());
    let all = async {
        loop {
            tokio::select! {
                read = stream.read_buf(&mut answer) => match read {
                    Ok(read) if read > 0 => {}
                    // Cut off while it sends: what came before is kept.
                    Ok(_) | Err(_) => return,
                },
                // One that cannot be written to is about to be read from, which says why.
                _ = ticks.tick() => drop(stream.try_write(b"1")),
            }
        }
    };
    timeout(LAST_MAX, all).await.context("a slow client was not cut off")?;
    Ok(answer)
}

fn whole(answer: &[u8]) -> anyhow::Result<Saw> {
    let status = status_of(answer).context("an answer without a status")?;
    let text = String::from_utf8_lossy(answer);
    let body = text.split_once("\r\n\r\n").map(|(_, body)| body).unwrap_or_default();
    Ok(Saw::Whole(status, code_of(body.as_bytes())))
}

fn status_of(answer: &[u8]) -> Option<u16> {
    String::from_utf8_lossy(answer).split(' ').nth(1)?.parse().ok()
}

/// The code of an error body of the router.
pub fn code_of(body: &[u8]) -> Option<String> {
    let body: serde_json::Value = serde_json::from_slice(body).ok()?;
    Some(body.get("error")?.get("code")?.as_str()?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_the_router_is_known_by_its_code() {
        let answer =
            b"HTTP/1.1 408 Request Timeout\r\nx: y\r\n\r\n{\"error\":{\"code\":\"RequestTooSlow\",\"message\":\"\"}}";
        assert_eq!(whole(answer).unwrap(), Saw::Whole(408, Some("RequestTooSlow".to_owned())));
        assert_eq!(whole(b"HTTP/1.1 200 OK\r\n\r\n{\"predictions\":[0]}").unwrap(), Saw::Whole(200, None));
    }
}
