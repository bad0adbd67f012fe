//! One client connection: HTTP/1.1 or HTTP/2, with TLS or without.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::AbortHandle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::authority::NAME;

/// How long a connect and its handshakes may take.
const CONNECT_MAX: Duration = Duration::from_secs(20);

/// Where a connection goes and what it speaks.
#[derive(Clone)]
pub struct Way {
    /// The router.
    pub target: SocketAddr,
    /// HTTP/2, else HTTP/1.1.
    pub is_http2: bool,
    /// With TLS, and then so.
    pub tls: Option<Arc<ClientConfig>>,
}

enum Sender {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

/// A connection. Dropping it closes it, wherever it is.
pub struct Link {
    sender: Sender,
    driver: AbortHandle,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Link {
    /// A new one.
    pub async fn open(way: &Way) -> anyhow::Result<Self> {
        timeout(CONNECT_MAX, Self::connect(way)).await.with_context(|| format!("connect to {}", way.target))?
    }

    async fn connect(way: &Way) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(way.target).await?;
        stream.set_nodelay(true)?;
        let Some(config) = &way.tls else { return Self::shake_hands(stream, way.is_http2).await };
        let name = ServerName::try_from(NAME)?;
        let stream = TlsConnector::from(config.clone()).connect(name, stream).await.context("shake hands")?;
        Self::shake_hands(stream, way.is_http2).await
    }

    async fn shake_hands<S>(stream: S, is_http2: bool) -> anyhow::Result<Self>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let io = TokioIo::new(stream);
        // How a connection ends is seen by its requests.
        if is_http2 {
            let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await?;
            let driver = tokio::spawn(async move { drop(connection.await) });
            Ok(Self { sender: Sender::Http2(sender), driver: driver.abort_handle() })
        } else {
            let (sender, connection) = http1::handshake(io).await?;
            let driver = tokio::spawn(async move { drop(connection.await) });
            Ok(Self { sender: Sender::Http1(sender), driver: driver.abort_handle() })
        }
    }

    /// Whether another request can be sent.
    pub async fn is_usable(&mut self) -> bool {
        match &mut self.sender {
            Sender::Http1(sender) => sender.ready().await.is_ok(),
            Sender::Http2(sender) => sender.ready().await.is_ok(),
        }
    }

    /// Sends a request and waits for the head of the answer.
    pub async fn send(&mut self, request: Request<Full<Bytes>>) -> hyper::Result<Response<Incoming>> {
        match &mut self.sender {
            Sender::Http1(sender) => sender.send_request(request).await,
            Sender::Http2(sender) => sender.send_request(request).await,
        }
    }
}
