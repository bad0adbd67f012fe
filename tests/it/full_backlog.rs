//! A replica whose backlog is full: it takes no more connections for now, and answers on those that it has.

use std::net::SocketAddr;

use scorefront::testing::client::score;
use scorefront::testing::replica::answer;
use scorefront::testing::router::Router;
use scorefront::testing::world::World;
use scorefront::testing::{PATIENCE, eventually};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

/// Reads one request with this body.
async fn read_request(socket: &mut TcpStream, body: &str) {
    let mut bytes = Vec::new();
    while !bytes.ends_with(format!("\r\n\r\n{body}").as_bytes()) {
        assert_ne!(socket.read_buf(&mut bytes).await.unwrap(), 0, "the connection ended");
    }
}

#[tokio::test]
async fn a_request_whose_connect_is_slow_takes_a_connection_that_another_one_leaves() {
    let listener = TcpSocket::new_v4().unwrap();
    listener.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let listener = listener.listen(0).unwrap();
    let address = listener.local_addr().unwrap();
    let settings = [("max-concurrent-requests-per-instance", "0"), ("request-timeout-ms", "300000")];
    let world = World::new().deployment("blue", &settings, &[address]);
    let router = Router::start_with(&world, |config| {
        // The kernel's own attempts would come through one day, if the backlog had room by then.
        config.limits.connect_timeout = PATIENCE * 10;
    })
    .await;
    let (mut first, mut second) = (router.client().await, router.client().await);
    first.send(score("first")).await;
    let (mut replica, _) = listener.accept().await.unwrap();
    read_request(&mut replica, "first").await;
    // A backlog of none holds one that nobody accepts. The kernel drops what comes after it, without a word.
    let _held = TcpStream::connect(address).await.unwrap();

    second.send(score("second")).await;
    eventually("the second one has a slot", async || router.taken("blue") == 2).await;
    for (client, body) in [(&mut first, "first"), (&mut second, "second")] {
        if body == "second" {
            read_request(&mut replica, body).await;
        }
        replica.write_all(&answer(200, &[], body)).await.unwrap();
        let got = client.answer().await;
        assert_eq!((got.status, got.text().as_str()), (200, body));
    }
    assert_eq!(router.log(2).await[1]["Attempts"], 1);
    assert_eq!(router.metric("scorefront_upstream_connections_opened_total").await, 1.0);
    assert_eq!(router.metric("scorefront_upstream_connections_reused_total").await, 1.0);
    router.drain().await;
}
