//! Answers that begin before the request is there, and connections that end while they idle.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use scorefront::testing::client::score;
use scorefront::testing::eventually;
use scorefront::testing::replica::{ScriptedReplica, Step, answer, ok};
use scorefront::testing::router::Router;
use scorefront::testing::world::World;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

const PATH: &str = "/api/v1/endpoint/iris/score";
const KEY: &str = "Authorization: Bearer secret-1";

/// More than all the sockets on the way hold.
const MUCH: usize = 24 << 20;

/// A replica that writes a long answer and reads a long request at the same time. Counts what comes, with the head.
async fn talks_and_listens(came: Arc<AtomicUsize>) -> (std::net::SocketAddr, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let task = tokio::spawn(async move {
        let (mut reader, mut writer) = listener.accept().await.unwrap().0.into_split();
        let mut bytes = vec![0; 64 << 10];
        came.fetch_add(reader.read(&mut bytes).await.unwrap(), Ordering::SeqCst);
        let writing = tokio::spawn(async move {
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {MUCH}\r\n\r\n");
            writer.write_all(head.as_bytes()).await.unwrap();
            writer.write_all(&vec![b'a'; MUCH]).await.unwrap();
            writer
        });
        while let Ok(n @ 1..) = reader.read(&mut bytes).await {
            came.fetch_add(n, Ordering::SeqCst);
        }
        drop(writing.await);
    });
    (address, task)
}

#[tokio::test]
async fn a_client_that_reads_only_when_it_has_sent_everything_is_served() {
    let came = Arc::new(AtomicUsize::new(0));
    let (address, replica) = talks_and_listens(came.clone()).await;
    let settings = [("request-timeout-ms", "60000")];
    let router = Router::start(&World::new().deployment("blue", &settings, &[address])).await;
    let mut client = TcpStream::connect(router.address).await.unwrap();
    let head = format!("POST {PATH} HTTP/1.1\r\nHost: h\r\n{KEY}\r\nContent-Length: {MUCH}\r\n\r\n");
    client.write_all(head.as_bytes()).await.unwrap();
    // Not a byte of the answer is read meanwhile.
    client.write_all(&vec![b'r'; MUCH]).await.unwrap();
    eventually("the replica has the request", async || came.load(Ordering::SeqCst) >= MUCH).await;
    let mut got = 0;
    let mut bytes = vec![0; 64 << 10];
    while got < MUCH {
        let n = client.read(&mut bytes).await.unwrap();
        assert!(n > 0, "{got} of {MUCH}");
        got += n;
    }
    drop(client);
    eventually("the slot is free", async || router.taken("blue") == 0).await;
    router.drain().await;
    replica.await.unwrap();
}

#[tokio::test]
async fn a_request_that_breaks_off_behind_an_early_answer_leaves_no_answer_that_looks_whole() {
    let permits = Arc::new(Semaphore::new(0));
    let script = permits.clone();
    // Without a length: the end of the connection would be the end of the answer.
    let replica = ScriptedReplica::start_early(move |_| {
        vec![Step::Send(b"HTTP/1.1 200 OK\r\n\r\nhalf".to_vec()), Step::ReadBody, Step::Wait(script.clone())]
    })
    .await;
    let settings = [("request-timeout-ms", "60000")];
    let router = Router::start(&World::new().deployment("blue", &settings, &[replica.address])).await;
    let mut client = TcpStream::connect(router.address).await.unwrap();
    let head = format!("POST {PATH} HTTP/1.1\r\nHost: h\r\n{KEY}\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n");
    client.write_all(head.as_bytes()).await.unwrap();
    let mut got = Vec::new();
    while !got.ends_with(b"half\r\n") {
        assert!(client.read_buf(&mut got).await.unwrap() > 0);
    }
    client.write_all(b"no chunk\r\n").await.unwrap();
    let end = client.read_to_end(&mut got).await;
    assert!(end.is_err() || !got.ends_with(b"0\r\n\r\n"), "{}", String::from_utf8_lossy(&got));
    permits.add_permits(1);
    eventually("the slot is free", async || router.taken("blue") == 0).await;
    router.drain().await;
}

#[tokio::test]
async fn an_early_answer_that_is_whole_is_passed_on_though_the_replica_reads_no_more() {
    let replica = ScriptedReplica::start_early(|_| {
        vec![Step::Send(answer(413, &["Connection: close"], "too much")), Step::Close]
    })
    .await;
    let settings = [("request-timeout-ms", "60000")];
    let router = Router::start(&World::new().deployment("blue", &settings, &[replica.address])).await;
    for _ in 0..20 {
        let mut client = router.client().await;
        client.send(format!("POST {PATH} HTTP/1.1\r\nHost: h\r\n{KEY}\r\nContent-Length: 100000\r\n\r\nstart")).await;
        let got = client.answer().await;
        assert_eq!((got.status, got.text().as_str()), (413, "too much"));
    }
    eventually("the slot is free", async || router.taken("blue") == 0).await;
    router.drain().await;
}

#[tokio::test]
async fn a_connection_that_was_closed_while_it_idled_costs_no_attempt() {
    for end in [Step::Close, Step::Cut, Step::Reset] {
        let permits = Arc::new(Semaphore::new(0));
        let script = permits.clone();
        let replica = ScriptedReplica::start(move |seen| match seen.connection {
            0 => [ok("first"), vec![Step::Wait(script.clone()), end.clone()]].concat(),
            _ => ok("second"),
        })
        .await;
        let settings = [("retry-reused", "false")];
        let router = Router::start(&World::new().deployment("blue", &settings, &[replica.address])).await;
        let mut client = router.client().await;
        assert_eq!(client.ask(score("a")).await.text(), "first");
        permits.add_permits(1);
        eventually("the replica has closed", async || replica.open() == 0).await;
        assert_eq!(client.ask(score("b")).await.text(), "second");
        assert_eq!(router.log(2).await[1]["Attempts"], 1);
        router.drain().await;
    }
}
