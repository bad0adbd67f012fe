//! Answers that come piece by piece and go past hyper: every byte, framed as a client expects it, whoever breaks off.

use std::sync::Arc;
use std::time::Duration;

use scorefront::ops::signal::Request;
use scorefront::testing::client::{Client, score};
use scorefront::testing::eventually;
use scorefront::testing::replica::{ScriptedReplica, Step, ok};
use scorefront::testing::router::Router;
use scorefront::testing::world::World;
use tokio::sync::Semaphore;

const HEAD: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
const EVENTS: [&str; 4] = ["one", "two", "three", "four"];

fn send(text: impl AsRef<str>) -> Step {
    Step::Send(text.as_ref().as_bytes().to_vec())
}

fn chunk(text: &str) -> Step {
    send(format!("{:x}\r\n{text}\r\n", text.len()))
}

/// A replica whose first events come one by one, each when the test lets it, and then what `end` says. Every other request,
/// by its path, has a short answer.
struct Stream {
    replica: ScriptedReplica,
    permits: Arc<Semaphore>,
}

impl Stream {
    async fn start(end: impl Fn() -> Vec<Step> + Send + Sync + 'static) -> Self {
        let permits = Arc::new(Semaphore::new(0));
        let script = permits.clone();
        let replica = ScriptedReplica::start(move |seen| {
            if seen.line().contains("/short") {
                return ok("short");
            }
            let events = EVENTS.into_iter().flat_map(|event| [Step::Wait(script.clone()), chunk(event)]);
            [send(HEAD)].into_iter().chain(events).chain([Step::Wait(script.clone())]).chain(end()).collect()
        })
        .await;
        Self { replica, permits }
    }

    async fn router(&self, request_timeout_ms: &str, on_abandon: &str) -> Router {
        let settings = [("request-timeout-ms", request_timeout_ms), ("on-abandon", on_abandon)];
        let world = World::new().deployment("blue", &settings, &[self.replica.address]);
        Router::start_with(&world, |config| {
            config.limits.body_timeout = Duration::from_secs(1);
            // The watch over a connection looks four times in this time.
            config.limits.head_timeout = Duration::from_secs(1);
        })
        .await
    }

    /// A client of a router in front of it, that has asked.
    async fn begin(&self, request_timeout_ms: &str, on_abandon: &str) -> (Router, Client) {
        let router = self.router(request_timeout_ms, on_abandon).await;
        let mut client = router.client().await;
        client.send(score("")).await;
        (router, client)
    }

    /// Lets each event come when the client has the one before, and then the end.
    async fn play(&self, client: &mut Client) {
        self.play_first(client, EVENTS.len()).await;
        self.permits.add_permits(1);
    }

    /// The same for so many events.
    async fn play_first(&self, client: &mut Client, events: usize) {
        for event in &EVENTS[..events] {
            self.permits.add_permits(1);
            wait_for(client, event).await;
        }
    }
}

/// Reads until the answer so far ends with this, whatever chunks it is in.
async fn wait_for(client: &mut Client, end: &str) {
    let mut n = 1;
    loop {
        let text = String::from_utf8(client.peek(n).await).unwrap();
        n = text.len() + 1;
        let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        let data: String = body.split("\r\n").skip(1).step_by(2).collect();
        if data.ends_with(end) || body.ends_with(end) {
            break;
        }
    }
}

async fn relayed(router: &Router) -> f64 {
    router.metric("scorefront_relayed_answers_total").await
}

#[tokio::test]
async fn pieces_of_all_sizes_arrive_as_they_were_sent() {
    let sizes = [1, 15, 16, 4_000, 5_000, 32 << 10, 70_000, 300_000, 2, 1 << 20, 3];
    let pieces: Vec<String> = sizes.iter().zip('a'..).map(|(size, letter)| letter.to_string().repeat(*size)).collect();
    let whole = EVENTS.concat() + &pieces.concat();
    let stream = Stream::start(move || {
        let rest = pieces.iter().map(|piece| chunk(piece));
        rest.chain([send("0\r\n\r\n")]).collect()
    })
    .await;
    let router = stream.router("60000", "wait").await;
    let mut client = router.client().await;
    // On one connection, with other answers between.
    for round in 1..=3 {
        client.send(score("")).await;
        stream.play(&mut client).await;
        let got = client.answer().await;
        assert!(got.whole && got.text() == whole, "round {round}: {} bytes", got.text().len());
        let short = client.ask(score("").replacen("/score", "/short", 1)).await;
        assert_eq!(short.text(), "short");
        assert_eq!(relayed(&router).await, f64::from(round));
    }
    let lines = router.log(6).await;
    assert_eq!((&lines[0]["Outcome"], &lines[0]["ResponsePayloadSize"]), (&"served".into(), &whole.len().into()));
    assert_eq!(stream.replica.connections(), 1, "each answer left its connection fit for the next");
    router.drain().await;
}

#[tokio::test]
async fn what_comes_at_the_end_arrives_too() {
    let endings: [(&str, &str, Option<&str>); 3] = [
        ("0\r\n\r\n", "", None),
        ("3\r\nend\r\n0\r\n\r\n", "end", None),
        ("3\r\nend\r\n0\r\nx-sum: 42\r\n\r\n", "end", Some("x-sum: 42")),
    ];
    for (bytes, text, trailer) in endings {
        let stream = Stream::start(move || vec![send(bytes)]).await;
        let router = stream.router("60000", "wait").await;
        let mut client = router.client().await;
        let trailers = if trailer.is_some() { "TE: trailers\r\n\r\n" } else { "\r\n" };
        client.send(score("").replacen("\r\n\r\n", &format!("\r\n{trailers}"), 1)).await;
        stream.play(&mut client).await;
        let got = client.answer().await;
        assert_eq!((got.text(), got.whole), (EVENTS.concat() + text, true));
        assert_eq!(relayed(&router).await, 1.0);
        router.drain().await;
    }
}

#[tokio::test]
async fn pieces_that_come_together_go_out_at_once_and_do_not_wait_for_one_that_has_only_begun() {
    let last = Arc::new(Semaphore::new(0));
    let script = last.clone();
    let many: String = (0..5_000).map(|n| format!("5\r\n{n:05}\r\n")).collect();
    let stream = Stream::start(move || {
        vec![send(format!("{many}6")), Step::Wait(script.clone()), send("\r\nbegun.\r\n0\r\n\r\n")]
    })
    .await;
    let (router, mut client) = stream.begin("60000", "wait").await;
    stream.play(&mut client).await;
    wait_for(&mut client, "04999").await;
    last.add_permits(1);
    let got = client.answer().await;
    let numbers: String = (0..5_000).map(|n| format!("{n:05}")).collect();
    assert!(got.whole && got.text() == EVENTS.concat() + &numbers + "begun.", "{} bytes", got.text().len());
    assert_eq!(relayed(&router).await, 1.0);
    router.drain().await;
}

#[tokio::test]
async fn a_client_that_reads_late_gets_everything() {
    let pieces: Vec<String> = (0..64).map(|n| format!("{n:04}").repeat(128 << 10)).collect();
    let whole = EVENTS.concat() + &pieces.concat();
    let stream = Stream::start(move || {
        let rest = pieces.iter().map(|piece| chunk(piece));
        rest.chain([send("0\r\n\r\n")]).collect()
    })
    .await;
    let (router, mut client) = stream.begin("60000", "wait").await;
    stream.play(&mut client).await;
    // Sockets and router hold a part of it, and then nothing moves until the client reads on.
    let got = client.answer().await;
    assert!(got.whole && got.text() == whole, "{} of {} bytes", got.text().len(), whole.len());
    assert_eq!(relayed(&router).await, 1.0);
    router.drain().await;
}

#[tokio::test]
async fn a_client_that_does_not_read_is_given_up() {
    let stream = Stream::start(|| (0..64).map(|_| chunk(&"x".repeat(1 << 20))).collect()).await;
    let (router, mut client) = stream.begin("60000", "close").await;
    stream.play(&mut client).await;
    let line = router.log(1).await.remove(0);
    assert_eq!(line["Outcome"], "client_gone");
    assert!(line["ErrorDetail"].as_str().unwrap().contains("body-timeout-ms"), "{line}");
    assert_eq!(relayed(&router).await, 1.0);
    assert_eq!(router.metric("scorefront_slow_clients_cut_total{what=\"answer\"}").await, 1.0);
    assert!(client.try_answer().await.is_none_or(|got| !got.whole));
    eventually("the slot is free", async || router.taken("blue") == 0).await;
    router.drain().await;
}

#[tokio::test]
async fn an_answer_that_breaks_off_or_falls_silent_never_looks_whole() {
    let forever = Arc::new(Semaphore::new(0));
    let waits = forever.clone();
    type End = Box<dyn Fn() -> Vec<Step> + Send + Sync>;
    let ends: [(End, &str); 3] = [
        (Box::new(|| vec![Step::Reset]), "broke off"),
        (Box::new(|| vec![send("x\r\n")]), "broke off"),
        (Box::new(move || vec![Step::Wait(waits.clone())]), "silent"),
    ];
    for (end, why) in ends {
        let stream = Stream::start(end).await;
        let (router, mut client) = stream.begin("1000", "close").await;
        stream.play(&mut client).await;
        // A reset may take with it what was not read yet.
        assert!(client.try_answer().await.is_none_or(|got| !got.whole));
        let line = router.log(1).await.remove(0);
        assert_eq!(line["Outcome"], "stream_broken");
        assert!(line["ErrorDetail"].as_str().unwrap().contains(why), "{line}");
        assert_eq!(line["ResponsePayloadSize"], EVENTS.concat().len(), "{line}");
        assert_eq!(relayed(&router).await, 1.0);
        eventually("the slot is free", async || router.taken("blue") == 0).await;
        router.drain().await;
    }
}

#[tokio::test]
async fn a_client_that_leaves_frees_no_slot_that_still_works() {
    let last = Arc::new(Semaphore::new(0));
    let script = last.clone();
    let stream = Stream::start(move || vec![Step::Wait(script.clone()), send("0\r\n\r\n")]).await;
    let (router, mut client) = stream.begin("60000", "wait").await;
    stream.play(&mut client).await;
    drop(client);
    let line = router.log(1).await.remove(0);
    assert_eq!((&line["Outcome"], &line["ResponseCode"]), (&"client_gone".into(), &200.into()));
    assert_eq!(line["ResponsePayloadSize"], EVENTS.concat().len());
    assert_eq!(relayed(&router).await, 1.0);
    assert_eq!(router.taken("blue"), 1);
    last.add_permits(1);
    eventually("the slot is free", async || router.taken("blue") == 0).await;
    assert_eq!(router.metric("scorefront_connections").await, 0.0);
    router.drain().await;
}

#[tokio::test]
async fn an_old_client_gets_no_chunks() {
    let stream = Stream::start(|| vec![send("0\r\n\r\n")]).await;
    let router = stream.router("60000", "wait").await;
    let mut client = router.client().await;
    client.send(score("").replacen("HTTP/1.1", "HTTP/1.0", 1)).await;
    stream.play(&mut client).await;
    let got = client.answer().await;
    assert_eq!((got.text(), got.header("transfer-encoding")), (EVENTS.concat(), None));
    assert_eq!(relayed(&router).await, 0.0);
    router.drain().await;
}

#[tokio::test]
async fn a_router_that_stops_lets_a_stream_end() {
    let stream = Stream::start(|| vec![send("0\r\n\r\n")]).await;
    let (router, mut client) = stream.begin("60000", "wait").await;
    stream.play_first(&mut client, 3).await;
    assert_eq!(relayed(&router).await, 1.0);
    router.signal(Request::Drain).await;
    stream.permits.add_permits(2);
    let got = client.answer().await;
    assert_eq!((got.text(), got.whole), (EVENTS.concat(), true));
    router.drained().await;
}
