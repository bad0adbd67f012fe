//! Bodies in both directions: never collected, never delayed, never truncated in silence.

use std::sync::Arc;

use scorefront::testing::client::{request, score};
use scorefront::testing::eventually;
use scorefront::testing::replica::{ScriptedReplica, Step, answer, ok};
use scorefront::testing::router::Router;
use scorefront::testing::world::World;
use tokio::sync::Semaphore;

const KEY: &str = "Authorization: Bearer secret-1";
const PATH: &str = "/api/v1/endpoint/iris/score";

async fn route_to(replica: &ScriptedReplica, settings: &[(&str, &str)]) -> Router {
    Router::start(&World::new().deployment("blue", settings, &[replica.address])).await
}

fn send(text: &str) -> Step {
    Step::Send(text.as_bytes().to_vec())
}

#[tokio::test]
async fn events_pass_one_by_one_without_delay() {
    let permits = Arc::new(Semaphore::new(0));
    let script = permits.clone();
    let replica = ScriptedReplica::start(move |_| {
        let wait = Step::Wait(script.clone());
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
        let (one, two) = (send("8\r\ndata: 1\n\r\n"), send("8\r\ndata: 2\n\r\n"));
        vec![send(head), one, wait.clone(), two, wait, send("0\r\n\r\n")]
    })
    .await;
    let router = route_to(&replica, &[("request-timeout-ms", "60000")]).await;
    let mut client = router.client().await;
    client.send(score("")).await;
    // The first event is here while the replica holds the second one back.
    let mut n = 16;
    let text = loop {
        let text = String::from_utf8(client.peek(n).await).unwrap();
        if text.contains("data: 1\n") {
            break text;
        }
        n = text.len() + 1;
    };
    assert!(!text.contains("data: 2"));
    permits.add_permits(2);
    let got = client.answer().await;
    assert_eq!((got.text().as_str(), got.whole), ("data: 1\ndata: 2\n", true));
    assert_eq!(got.header("content-type"), Some("text/event-stream"));
    router.drain().await;
}

#[tokio::test]
async fn request_bodies_pass_while_they_arrive() {
    let replica = ScriptedReplica::start_early(|_| vec![Step::ReadBody, Step::Send(answer(200, &[], "all"))]).await;
    let router = route_to(&replica, &[("request-timeout-ms", "60000")]).await;
    let mut client = router.client().await;
    client.send(format!("POST {PATH} HTTP/1.1\r\nHost: h\r\n{KEY}\r\nContent-Length: 200000\r\n\r\n")).await;
    client.send(vec![b'x'; 100_000]).await;
    replica.wait_for(1).await;
    client.send(vec![b'y'; 100_000]).await;
    assert_eq!(client.answer().await.text(), "all");
    assert_eq!(router.log(1).await[0]["RequestPayloadSize"], 200_000);
    router.drain().await;
}

#[tokio::test]
async fn chunked_bodies_and_trailers_pass_in_both_directions() {
    let replica = ScriptedReplica::start(|_| {
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\n\r\n";
        vec![send(head), send("3\r\nabc\r\n0\r\nx-sum: 42\r\n\r\n")]
    })
    .await;
    let router = route_to(&replica, &[]).await;
    let mut client = router.client().await;
    let head =
        format!("POST {PATH} HTTP/1.1\r\nHost: h\r\n{KEY}\r\nTE: trailers\r\nTransfer-Encoding: chunked\r\n\r\n");
    client.send(head).await;
    let got = client.ask("5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n").await;
    assert_eq!((got.text().as_str(), got.whole, got.trailers.trim()), ("abc", true, "x-sum: 42"));
    let seen = replica.wait_for(1).await.remove(0);
    assert_eq!(seen.body, b"hello world");
    assert_eq!(seen.header("te"), Some("trailers"));
    assert_eq!(router.log(1).await[0]["Outcome"], "served");
    assert_eq!(client.ask(score("")).await.text(), "abc");
    assert_eq!(replica.connections(), 1, "its connection is used again");
    router.drain().await;
}

#[tokio::test]
async fn answers_without_a_body_have_none() {
    let replica = ScriptedReplica::start(|seen| match seen.line().split(' ').next() {
        Some("HEAD") => vec![send("HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n")],
        Some("DELETE") => vec![send("HTTP/1.1 204 No Content\r\n\r\n")],
        _ => vec![send("HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\n\r\n")],
    })
    .await;
    let router = route_to(&replica, &[]).await;
    let mut client = router.client().await;
    client.send(request("HEAD", PATH, &[KEY], "")).await;
    let head = String::from_utf8(client.peek(20).await).unwrap();
    assert!(head.starts_with("HTTP/1.1 200"));
    drop(client);
    let mut client = router.client().await;
    assert_eq!(client.ask(request("DELETE", PATH, &[KEY], "")).await.status, 204);
    let got = client.ask(request("GET", PATH, &[KEY], "")).await;
    assert_eq!((got.status, got.header("etag")), (304, Some("\"a\"")));
    for line in router.log(3).await {
        assert_eq!(line["Outcome"], "served");
    }
    router.drain().await;
}

#[tokio::test]
async fn an_answer_that_ends_with_its_connection_passes_whole() {
    let replica = ScriptedReplica::start(|_| vec![send("HTTP/1.1 200 OK\r\n\r\nuntil the end"), Step::Close]).await;
    let router = route_to(&replica, &[]).await;
    let got = router.client().await.ask(score("")).await;
    assert_eq!((got.text().as_str(), got.whole), ("until the end", true));
    router.drain().await;
}

#[tokio::test]
async fn an_answer_that_breaks_off_never_looks_whole() {
    for head in [
        "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n",
    ] {
        let replica = ScriptedReplica::start(move |_| vec![send(head), Step::Reset]).await;
        let router = route_to(&replica, &[]).await;
        let mut client = router.client().await;
        client.send(score("")).await;
        // Where the break comes with the head, the client may see no more than a reset.
        if let Some(got) = client.try_answer().await {
            assert!(!got.whole || got.status == 502, "{}", got.text());
        }
        let line = router.log(1).await.remove(0);
        assert!(["stream_broken", "replica_reset"].contains(&line["Outcome"].as_str().unwrap()), "{line}");
        eventually("the slot is free", async || router.taken("blue") == 0).await;
        router.drain().await;
    }
}

#[tokio::test]
async fn an_answer_that_falls_silent_is_cut_off() {
    let permits = Arc::new(Semaphore::new(0));
    let script = permits.clone();
    let replica = ScriptedReplica::start(move |_| {
        let head = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345";
        vec![send(head), Step::Wait(script.clone()), send("67890")]
    })
    .await;
    let router = route_to(&replica, &[("request-timeout-ms", "50")]).await;
    let mut client = router.client().await;
    client.send(score("")).await;
    assert!(client.try_answer().await.is_none_or(|got| !got.whole));
    let line = router.log(1).await.remove(0);
    assert_eq!(line["Outcome"], "stream_broken");
    assert!(line["ErrorDetail"].as_str().unwrap().contains("silent"));
    permits.add_permits(1);
    eventually("the slot is free", async || router.taken("blue") == 0).await;
    router.drain().await;
}

#[tokio::test]
async fn an_early_answer_passes_while_the_request_is_still_arriving() {
    let replica =
        ScriptedReplica::start_early(|_| vec![Step::Send(answer(413, &["Connection: close"], "no")), Step::ReadBody])
            .await;
    let router = route_to(&replica, &[("request-timeout-ms", "60000")]).await;
    let mut client = router.client().await;
    client.send(format!("POST {PATH} HTTP/1.1\r\nHost: h\r\n{KEY}\r\nContent-Length: 100000\r\n\r\nstart")).await;
    let got = client.answer().await;
    assert_eq!((got.status, got.text().as_str()), (413, "no"));
    drop(client);
    eventually("the slot is free", async || router.taken("blue") == 0).await;
    router.drain().await;
}

#[tokio::test]
async fn a_client_is_asked_for_its_body_only_when_it_is_wanted() {
    let replica = ScriptedReplica::start(|_| ok("got it")).await;
    let router = route_to(&replica, &[]).await;
    let mut client = router.client().await;
    let head = |key: &str| {
        format!("POST {PATH} HTTP/1.1\r\nHost: h\r\n{key}\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
    };
    client.send(head(KEY)).await;
    assert_eq!(client.answer().await.status, 100);
    assert_eq!(client.ask("hello").await.text(), "got it");
    assert_eq!(replica.seen()[0].header("expect"), None);
    assert_eq!(client.ask(head("Authorization: Bearer wrong")).await.status, 401, "no 100 for a refused request");
    router.drain().await;
}
