//! A web server that has a key set, or does what a test tells it instead.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use crate::tls::peer::Issued;

/// What a request is answered with.
#[derive(Clone)]
pub(crate) enum Reply {
    /// 200 with this body.
    Text(String),
    /// The same with headers, each ending in CR and LF.
    Marked(&'static str, String),
    /// These bytes, whatever they are.
    Raw(Vec<u8>),
    /// These bytes again and again, one at a time.
    Trickle(&'static [u8]),
    /// The end of the connection.
    Nothing,
}

/// See the head of the file. It stays on its port until it is dropped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    state: Arc<State>,
    task: JoinHandle<()>,
}

struct State {
    reply: Mutex<Reply>,
    certificate: Mutex<Option<Arc<ServerConfig>>>,
    /// The heads of all requests.
    seen: Mutex<Vec<String>>,
}

impl Server {
    /// Without TLS.
    pub(crate) async fn start(reply: Reply) -> Self {
        Self::start_with(reply, None).await
    }

    /// With TLS, where a certificate is given.
    pub(crate) async fn start_with(reply: Reply, certificate: Option<&Issued>) -> Self {
        let listener = TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let certificate = Mutex::new(certificate.map(server_config));
        let state = Arc::new(State { reply: Mutex::new(reply), certificate, seen: Mutex::default() });
        let task = tokio::spawn(serve(listener, state.clone()));
        Self { address, state, task }
    }

    /// Answers otherwise from now on.
    pub(crate) fn reply(&self, reply: Reply) {
        *self.state.reply.lock() = reply;
    }

    /// Shows another certificate from now on.
    pub(crate) fn show(&self, certificate: &Issued) {
        *self.state.certificate.lock() = Some(server_config(certificate));
    }

    /// The heads of the requests so far.
    pub(crate) fn seen(&self) -> Vec<String> {
        self.state.seen.lock().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn server_config(issued: &Issued) -> Arc<ServerConfig> {
    let chain = CertificateDer::pem_slice_iter(issued.chain.as_bytes()).map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).unwrap();
    let builder = ServerConfig::builder_with_provider(default_provider().into());
    let builder = builder.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    Arc::new(builder.with_single_cert(chain, key).unwrap())
}

async fn serve(listener: TcpListener, state: Arc<State>) {
    while let Ok((socket, _)) = listener.accept().await {
        let (state, config) = (state.clone(), state.certificate.lock().clone());
        tokio::spawn(async move {
            let Some(config) = config else { return answer(socket, &state).await };
            if let Ok(stream) = TlsAcceptor::from(config).accept(socket).await {
                answer(stream, &state).await;
            }
        });
    }
}

/// Errors say that the router has gone away, as it may.
async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin, state: &State) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    state.seen.lock().push(String::from_utf8(head).unwrap());
    let reply = state.reply.lock().clone();
    let whole = |headers: &str, body: &str| {
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n{headers}\r\n{body}", body.len()).into_bytes()
    };
    let bytes = match reply {
        Reply::Text(body) => whole("", &body),
        Reply::Marked(headers, body) => whole(headers, &body),
        Reply::Raw(bytes) => bytes,
        Reply::Nothing => return,
        Reply::Trickle(bytes) => {
            for byte in bytes.iter().cycle().take(100_000) {
                if stream.write_all(&[*byte]).await.is_err() || stream.flush().await.is_err() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            return;
        }
    };
    let _ = stream.write_all(&bytes).await;
    let _ = stream.shutdown().await;
}
