//! Who a client is when a proxy passes its bytes on: the PROXY header at the beginning of a connection.
//!
//! Only peers in `trusted-proxies` are asked for one, and from them every connection must begin with one. For everybody
//! else nothing is read here, so a header that such a peer sends is what it is to HTTP or TLS: nonsense.
//!
//! Holds: the header is there within `head-timeout-ms`, and not one byte behind it is taken: bytes are looked at first
//! and taken only as far as they belong to it.

use std::io;
use std::net::SocketAddr;

use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::worker::{Phase, Worker};
use crate::core::proxy_protocol::{LENGTH_MAX, Reading, read};

/// Bytes looked at at a time: most headers are not longer.
const LOOK: usize = 256;

/// Finds out who the client is. `None` where the connection must end: the header is wrong or late, or the router takes
/// nothing new any more.
pub(crate) async fn client(worker: &Worker, socket: &mut TcpStream, peer: SocketAddr) -> Option<SocketAddr> {
    let limits = worker.limits();
    if !limits.proxy_protocol || !limits.trusts(peer.ip()) {
        return Some(peer);
    }
    let mut phase = worker.shared.phase.clone();
    let taken = tokio::select! {
        // In a box, so that the connections of others do not carry the size of it.
        taken = timeout(limits.head_timeout, Box::pin(take_header(socket))) => taken,
        _ = phase.wait_for(|phase| *phase >= Phase::Finishing) => return None,
    };
    let why = match taken {
        Ok(Ok(Ok(client))) => return Some(client.unwrap_or(peer)),
        Ok(Ok(Err(why))) => why,
        // As whoever only looks whether there is somebody: nothing was said that could be wrong.
        Ok(Err(error)) if error.kind() == io::ErrorKind::NotConnected => return None,
        Ok(Err(_)) => "the connection ended in the middle of it",
        Err(_) => "it did not arrive within head-timeout-ms",
    };
    worker.shared.vitals.connections.proxy_headers_wrong.bump();
    tracing::debug!(target: "scorefront::listen", %peer, why, "a connection without a PROXY header is closed");
    None
}

/// Takes the header off the connection, and nothing else.
async fn take_header(socket: &mut TcpStream) -> io::Result<Result<Option<SocketAddr>, &'static str>> {
    let mut header = Vec::with_capacity(LOOK);
    let mut look = [0; LOOK];
    while header.len() <= LENGTH_MAX {
        let n = socket.peek(&mut look).await?;
        if n == 0 {
            let nothing = if header.is_empty() { io::ErrorKind::NotConnected } else { io::ErrorKind::UnexpectedEof };
            return Err(nothing.into());
        }
        let before = header.len();
        header.extend_from_slice(look.get(..n).unwrap_or_default());
        let (end, read) = match read(&header) {
            Reading::More => (header.len(), None),
            Reading::Whole { length, client } => (length, Some(client)),
            Reading::Wrong(why) => return Ok(Err(why)),
        };
        let belongs = look.get_mut(..end.saturating_sub(before)).unwrap_or_default();
        socket.read_exact(belongs).await?;
        if let Some(client) = read {
            return Ok(Ok(client));
        }
    }
    Ok(Err("it has no end"))
}
