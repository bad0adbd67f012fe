//! What the whole router cannot show: sessions that outlive certificates, addresses without end, a full socket.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::core::replica_tls::Roots;
use crate::testing::PATIENCE;

/// A replica on loopback, and the rules that believe it.
async fn replica() -> (TcpListener, TlsAcceptor, ReplicaTls) {
    let own = rcgen::generate_simple_self_signed(["replica.test".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(own.signing_key.serialize_der()).unwrap();
    let builder = ServerConfig::builder_with_provider(default_provider().into());
    let builder = builder.with_protocol_versions(&[&TLS12]).unwrap().with_no_client_auth();
    let config = builder.with_single_cert(vec![own.cert.der().clone()], key).unwrap();
    let roots = Roots::new(vec![own.cert.der().as_ref().into()]);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    (listener, TlsAcceptor::from(Arc::new(config)), ReplicaTls::new(roots, "replica.test".into()))
}

async fn connect(
    (listener, acceptor, tls): &(TcpListener, TlsAcceptor, ReplicaTls),
    counts: &ReplicaHandshakeCounts,
) -> (io::Result<TlsStream<TcpStream>>, tokio_rustls::server::TlsStream<TcpStream>) {
    let address = listener.local_addr().unwrap();
    let ours = async {
        let socket = TcpStream::connect(address).await.unwrap();
        shake_hands(tls, socket, address, counts).await
    };
    let theirs = async { acceptor.accept(listener.accept().await.unwrap().0).await.unwrap() };
    tokio::time::timeout(PATIENCE, async { tokio::join!(ours, theirs) }).await.expect("both shake hands")
}

#[tokio::test]
async fn a_resumed_session_counts_only_while_its_certificate_does_and_is_forgotten_then() {
    let (replica, counts) = (replica().await, ReplicaHandshakeCounts::default());
    let address = replica.0.local_addr().unwrap();
    drop(connect(&replica, &counts).await);
    let (ours, _theirs) = connect(&replica, &counts).await;
    let stream = ours.unwrap();
    assert_eq!((counts.full.read(), counts.resumed.read()), (1, 1));
    let Some(Ok(client)) = replica.2.made(|| Err::<Client, _>(String::new())) else { panic!("nothing was made") };
    let session = stream.get_ref().1;
    assert_eq!(client.check_again(session, address, UnixTime::now()), Ok(()));
    assert!(client.by_address.lock().contains_key(&address));
    let never = UnixTime::since_unix_epoch(Duration::from_secs(1));
    let error = client.check_again(session, address, never).unwrap_err();
    assert!(error.to_string().contains("not valid yet"), "{error}");
    assert!(client.by_address.lock().is_empty());
    let (ours, _theirs) = connect(&replica, &counts).await;
    assert!(ours.is_ok());
    assert_eq!((counts.full.read(), counts.resumed.read()), (2, 1));
}

#[test]
fn sessions_are_remembered_for_so_many_addresses_and_no_more() {
    let tls = ReplicaTls::new(Roots::new(Vec::new()), "replica.test".into());
    assert!(Client::new(&tls).is_err(), "without an authority nobody is believed");
    let own = rcgen::generate_simple_self_signed(["replica.test".to_owned()]).unwrap();
    let tls = ReplicaTls::new(Roots::new(vec![own.cert.der().as_ref().into()]), "replica.test".into());
    let client = Client::new(&tls).unwrap();
    let config = |n: u32| client.config_for(SocketAddr::from((n.to_be_bytes(), 80)));
    let first = config(0);
    assert!(Arc::ptr_eq(&first, &config(0)) && !Arc::ptr_eq(&first, &config(1)));
    for n in 0..ADDRESSES_MAX as u32 {
        config(n);
    }
    assert!(Arc::ptr_eq(&first, &config(0)), "as many as may be");
    config(ADDRESSES_MAX as u32);
    assert_eq!(client.by_address.lock().len(), 1);
}

#[tokio::test]
async fn a_replica_that_reads_nothing_more_does_not_keep_the_socket() {
    let (replica, counts) = (replica().await, ReplicaHandshakeCounts::default());
    let (ours, mut theirs) = connect(&replica, &counts).await;
    let mut socket = ReplicaSocket::tls(ours.unwrap());
    let piece = vec![0; 64 << 10];
    let mut sent = 0;
    let write = |socket: &mut ReplicaSocket| {
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        match Pin::new(socket).poll_write(&mut cx, &piece) {
            Poll::Ready(written) => (false, written.unwrap()),
            Poll::Pending => (true, 0),
        }
    };
    // Full twice, with a moment for the kernel in between: then there is room nowhere.
    let mut full = 0;
    while full < 100 {
        let (is_full, written) = write(&mut socket);
        sent += written;
        full = if is_full { full + 1 } else { 0 };
        tokio::task::yield_now().await;
    }
    let over = poll_fn(|cx| Pin::new(&mut socket).poll_shutdown(cx));
    tokio::time::timeout(PATIENCE, over).await.expect("it does not wait for room").unwrap();
    drop(socket);
    let mut read = Vec::new();
    let end = tokio::time::timeout(PATIENCE, theirs.read_to_end(&mut read)).await.expect("it ends");
    assert!(end.is_err() && read.len() <= sent, "what is cut does not look whole");
    let _ = theirs.shutdown().await;
}

#[test]
fn messages_name_what_is_wrong_and_where_to_look() {
    let tls = ReplicaTls::new(Roots::new(Vec::new()), "replica.test".into());
    for (error, words) in [
        (Error::InvalidCertificate(CertificateError::UnknownIssuer), "replica-tls-ca-secret"),
        (Error::InvalidCertificate(CertificateError::BadSignature), "replica-tls-ca-secret"),
        (Error::InvalidCertificate(CertificateError::NotValidForName), "not for replica.test"),
        (Error::InvalidCertificate(CertificateError::Expired), "expired"),
        (Error::InvalidMessage(InvalidMessage::InvalidContentType), "scoring-port"),
        (Error::AlertReceived(rustls::AlertDescription::HandshakeFailure), "HandshakeFailure"),
    ] {
        let told = describe(&error, &tls);
        assert!(told.contains(words), "{told}");
    }
}
