//! Answers that go from socket to socket in the kernel: every byte, in order, to whom it belongs, whoever breaks off.

use std::collections::BTreeSet;

use scorefront::testing::client::{Answer, Client, request};
use scorefront::testing::eventually;
use scorefront::testing::replica::{ScriptedReplica, Step, answer, ok};
use scorefront::testing::router::Router;
use scorefront::testing::world::World;

/// Bytes that no two answers and no two places in one of them have in common for long.
fn body(length: usize, seed: usize) -> String {
    let mut state = (seed as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut letter = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        char::from(b'a' + (state % 26) as u8)
    };
    (0..length).map(|_| letter()).collect()
}

fn ask(length: usize, seed: usize) -> String {
    request("POST", &format!("/api/v1/endpoint/iris/{length}/{seed}"), &["Authorization: Bearer secret-1"], "")
}

/// What a request asks for: length, and seed.
fn asked(line: &str) -> (usize, usize) {
    let path = line.split(' ').nth(1).unwrap_or_default();
    let mut numbers = path.rsplit('/').map(|part| part.parse().unwrap_or(0));
    let seed = numbers.next().unwrap_or(0);
    (numbers.next().unwrap_or(0), seed)
}

async fn start(script: impl Fn(usize, usize) -> Vec<Step> + Send + Sync + 'static) -> ScriptedReplica {
    ScriptedReplica::start(move |seen| {
        let (length, seed) = asked(seen.line());
        script(length, seed)
    })
    .await
}

/// With so many pipes, on one worker: there are that many then.
async fn route_to(replica: &ScriptedReplica, pipes: usize) -> Router {
    let settings = [("max-concurrent-requests-per-instance", "100"), ("request-timeout-ms", "60000")];
    let world = World::new().deployment("blue", &settings, &[replica.address]);
    Router::start_with(&world, |config| {
        config.workers = 1;
        config.limits.splice_pipes_max = pipes;
    })
    .await
}

async fn spliced(router: &Router) -> usize {
    router.metric("scorefront_splice_bytes_total").await as usize
}

fn assert_is(answer: &Answer, length: usize, seed: usize) {
    assert!(answer.whole && answer.text() == body(length, seed), "an answer of {length} bytes is not what was sent");
}

#[tokio::test]
async fn all_lengths_arrive_as_they_were_sent() {
    let replica = start(|length, seed| ok(&body(length, seed))).await;
    let router = route_to(&replica, 4).await;
    let mut client = router.client().await;
    let steps = [16 << 10, 32 << 10, 48 << 10, 65_160, 2 * 65_160, 1 << 20];
    let around = steps.into_iter().flat_map(|step| [step - 300, step - 1, step, step + 1]);
    for (seed, length) in [0, 1].into_iter().chain(around).chain([5 << 20]).enumerate() {
        let before = spliced(&router).await;
        assert_is(&client.ask(ask(length, seed)).await, length, seed);
        // Counted before its line is written, though perhaps after the client has the last byte.
        router.log(seed + 1).await;
        let went = spliced(&router).await - before;
        // The first 16 KiB are copied, its head among them, and so is what is left when that is less than 32.
        assert_eq!(went > 0, length >= (48 << 10) - 100, "{went} of {length} bytes");
        assert!(length - went <= 48 << 10, "{went} of {length} bytes");
    }
    assert_eq!(replica.connections(), 1, "each answer left its connection fit for the next");
    // One was enough for all of them, one after the other, and goes when it is not needed any more.
    assert!(router.metric("scorefront_splice_pipes").await <= 1.0);
    eventually("the pipe is closed", async || router.metric("scorefront_splice_pipes").await == 0.0).await;
    assert_eq!(router.metric("scorefront_splice_pipes_missing_total").await, 0.0);
    router.drain().await;
}

#[tokio::test]
async fn pipelined_answers_arrive_in_their_order() {
    let replica = start(|length, seed| ok(&body(length, seed))).await;
    let router = route_to(&replica, 4).await;
    let mut client = router.client().await;
    let lengths = [300_000, 10, 70_000, 0, 1 << 20, 20_000];
    let all: Vec<String> = lengths.into_iter().enumerate().map(|(seed, length)| ask(length, seed)).collect();
    client.send(all.concat()).await;
    for (seed, length) in lengths.into_iter().enumerate() {
        assert_is(&client.answer().await, length, seed);
    }
    assert!(spliced(&router).await > 1 << 20);
    router.drain().await;
}

#[tokio::test]
async fn what_cannot_go_so_is_copied() {
    let replica = start(|length, seed| match seed {
        0 => ok(&body(length, seed)),
        1 => {
            let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
            vec![Step::Send(format!("{head}{length:x}\r\n{}\r\n0\r\n\r\n", body(length, seed)).into_bytes())]
        }
        _ => vec![Step::Send(format!("HTTP/1.1 200 OK\r\n\r\n{}", body(length, seed)).into_bytes()), Step::Close],
    })
    .await;
    let router = route_to(&replica, 4).await;
    let mut client = router.client().await;
    // In chunks, and up to the end of the connection.
    for seed in [1, 2] {
        assert_is(&client.ask(ask(1 << 20, seed)).await, 1 << 20, seed);
    }
    assert_eq!(spliced(&router).await, 0);
    router.drain().await;
    // Without pipes.
    let router = route_to(&replica, 0).await;
    assert_is(&router.client().await.ask(ask(1 << 20, 0)).await, 1 << 20, 0);
    assert_eq!(spliced(&router).await, 0);
    assert_eq!(router.metric("scorefront_splice_pipes_missing_total").await, 0.0, "nobody wanted one");
    router.drain().await;
}

/// Reads so much of an answer, and then leaves with the rest of it under way.
async fn leave_after(mut client: Client, length: usize, seed: usize, read: usize) {
    client.send(ask(length, seed)).await;
    let got = client.peek(read).await;
    let head = got.windows(4).position(|window| window == b"\r\n\r\n").unwrap_or(got.len()) + 4;
    let start = got.get(head..).unwrap_or_default();
    assert_eq!(body(length, seed).as_bytes().get(..start.len()), Some(start));
}

#[tokio::test]
async fn nobody_gets_what_another_left_in_a_pipe() {
    const LENGTH: usize = 4 << 20;
    let replica = start(|length, seed| ok(&body(length, seed))).await;
    let router = route_to(&replica, 2).await;
    for round in 0..3 {
        let seed = round * 100;
        let missing = router.metric("scorefront_splice_pipes_missing_total").await;
        // More clients than pipes take nothing: their sockets fill, and then the pipes.
        let mut stuck: Vec<Client> = Vec::new();
        for n in 0..4 {
            let mut client = router.client().await;
            client.send(ask(LENGTH, seed + n)).await;
            client.peek(1).await;
            stuck.push(client);
        }
        eventually("there are no more pipes", async || {
            let open = router.metric("scorefront_splice_pipes").await;
            assert!(open <= 2.0, "{open} pipes, and 2 are the most");
            open == 2.0 && router.metric("scorefront_splice_pipes_missing_total").await > missing
        })
        .await;
        // Others get theirs, copied if need be.
        for n in 10..13 {
            assert_is(&router.client().await.ask(ask(300_000, seed + n)).await, 300_000, seed + n);
        }
        // Some go on in the end, and some leave.
        let mut taken = BTreeSet::new();
        for (n, mut client) in stuck.into_iter().enumerate() {
            if n % 2 == round % 2 {
                assert_is(&client.answer().await, LENGTH, seed + n);
                taken.insert(n);
            }
        }
        assert_eq!(taken.len(), 2);
        for (n, read) in [1, 100_000, 700_000].into_iter().enumerate() {
            leave_after(router.client().await, 2 << 20, seed + 20 + n, read).await;
        }
        for n in 30..33 {
            assert_is(&router.client().await.ask(ask(1 << 20, seed + n)).await, 1 << 20, seed + n);
        }
    }
    eventually("all slots are free", async || router.taken("blue") == 0).await;
    assert!(spliced(&router).await > 4 << 20);
    router.drain().await;
}

#[tokio::test]
async fn an_answer_that_breaks_off_looks_broken_and_leaves_nothing_behind() {
    let replica = start(|length, seed| {
        let whole = answer(200, &[], &body(length, seed));
        let part = whole.get(..whole.len() / 2).unwrap_or_default().to_vec();
        match seed % 3 {
            0 => vec![Step::Send(whole)],
            1 => vec![Step::Send(part), Step::Cut],
            _ => vec![Step::Send(part), Step::Reset],
        }
    })
    .await;
    let router = route_to(&replica, 2).await;
    for seed in 0..12 {
        let mut client = router.client().await;
        let got = client.ask(ask(1 << 20, seed)).await;
        let sent = body(1 << 20, seed);
        assert!(sent.as_bytes().starts_with(&got.body), "what came of {seed} is its own");
        assert_eq!(got.whole, seed % 3 == 0, "{seed}");
    }
    let outcomes = router.log(12).await.into_iter().map(|line| line["Outcome"].as_str().unwrap_or_default().to_owned());
    assert_eq!(outcomes.filter(|outcome| outcome == "stream_broken").count(), 8);
    router.drain().await;
}

#[tokio::test]
async fn bytes_behind_a_long_answer_are_nobodys() {
    let replica = start(|length, seed| {
        let mut sent = answer(200, &[], &body(length, seed));
        sent.extend_from_slice(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nstolen");
        vec![Step::Send(sent)]
    })
    .await;
    let router = route_to(&replica, 2).await;
    let mut client = router.client().await;
    for seed in 0..5 {
        // The last piece is one that is not copied, or one that is.
        let length = 1 << 20 | (seed * 20_000);
        assert_is(&client.ask(ask(length, seed)).await, length, seed);
    }
    assert_eq!(replica.connections(), 5, "none was used again");
    router.drain().await;
}
