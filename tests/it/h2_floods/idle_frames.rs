//! Frames that move nothing: bounded by `max-idle-frames`, whoever sends them and whether the answers are read or not.

use scorefront::testing::eventually;
use scorefront::testing::replica::{ScriptedReplica, Step, ok};
use scorefront::testing::router::Router;

use super::{
    Attacker, DATA, END_BOTH, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, PING, PRIORITY, ask, besiege, is_at_rest,
    setting, start, start_with, update, world,
};
use crate::downgrade::{SETTINGS, frame};
use crate::tls::peer::{Authority, ECDSA, connect};

const ACK: u8 = 1;

/// Frames that are valid, cost a little each, and bring nothing.
fn idle_frames() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("pings", frame(PING, 0, 0, &[7; 8])),
        ("answers to pings that nobody sent", frame(PING, ACK, 0, &[7; 8])),
        ("settings", frame(SETTINGS, 0, 0, &[])),
        ("settings with values", frame(SETTINGS, 0, 0, &[setting(1, 0), setting(1, 4096), setting(4, 1)].concat())),
        ("priorities of streams that do not exist", frame(PRIORITY, 0, 99, &[0, 0, 0, 1, 10])),
        ("window updates of one byte", update(0, 1)),
        ("frames of an unknown kind", frame(0xee, 0xff, 0, b"whatever")),
        ("long frames of an unknown kind", frame(0xee, 0xff, 1, &[0; 16_000])),
    ]
}

fn floods(router: &Router) -> u64 {
    router.vitals.connections.flooded.read()
}

#[tokio::test]
async fn a_client_that_sends_frames_that_move_nothing_is_ended_and_others_are_served_meanwhile() {
    let (_replica, router) = start().await;
    for (what, bytes) in idle_frames() {
        let before = floods(&router);
        besiege(&router, async || {
            let attacker = Attacker::connect(&router, &[]).await;
            attacker.flood(bytes.repeat(10)).await;
        })
        .await;
        assert!(floods(&router) > before, "{what}");
    }
    let series = router.metric("scorefront_http2_floods_total").await;
    assert!(series > 0.0 && series == floods(&router) as f64, "{series}");
    router.drain().await;
}

#[tokio::test]
async fn a_client_that_sends_such_frames_and_reads_no_answer_is_ended_too() {
    let (_replica, router) = start().await;
    for (what, bytes) in idle_frames() {
        let before = floods(&router);
        besiege(&router, async || {
            Attacker::connect(&router, &[]).await.flood_deafly(bytes.repeat(10)).await;
        })
        .await;
        assert!(floods(&router) > before, "{what}");
    }
    router.drain().await;
}

#[tokio::test]
async fn over_tls_the_same_floods_end_the_connection() {
    let replica = ScriptedReplica::start(|_| ok("fine")).await;
    let authority = Authority::new();
    let pair = authority.write("own", &authority.issue(&["models.test"], ECDSA));
    let router =
        crate::tls::peer::start(&world(&replica), &[pair], |config| config.limits.idle_frames_max = 1000).await;
    for (what, bytes) in [("pings", frame(PING, 0, 0, &[7; 8])), ("settings", frame(SETTINGS, 0, 0, &[]))] {
        let before = floods(&router);
        besiege(&router, async || {
            let config = authority.client(rustls::ALL_VERSIONS, &["h2"], None);
            let stream = connect(router.tls(), "models.test", config).await.unwrap();
            Attacker::over(stream, &[]).await.flood(bytes.repeat(10)).await;
        })
        .await;
        assert!(floods(&router) > before, "{what}");
    }
    router.drain().await;
}

#[tokio::test]
async fn as_many_as_the_limit_in_a_row_are_taken_and_one_more_is_not() {
    let (_replica, router) = start_with(|config| config.limits.idle_frames_max = 100).await;
    let mut client = Attacker::connect(&router, &[]).await;
    // The first of them was the settings that every connection begins with.
    client.send(&frame(PING, 0, 0, &[7; 8]).repeat(99)).await;
    for _ in 0..99 {
        assert_eq!(client.wait_for(PING).await.flags, ACK);
    }
    assert_eq!(floods(&router), 0);
    // What is asked for and what is answered allows more.
    client.send(&ask(1, END_BOTH)).await;
    assert_ne!(client.wait_for(DATA).await.flags & END_STREAM, 0);
    client.send(&frame(PING, 0, 0, &[8; 8])).await;
    assert_eq!(client.wait_for(PING).await.payload, [8; 8]);
    client.flood(frame(PING, 0, 0, &[9; 8])).await;
    assert_eq!(floods(&router), 1);
    is_at_rest(&router).await;
    router.drain().await;
}

#[tokio::test]
async fn a_request_under_way_on_the_connection_of_a_flood_ends_with_it_and_gives_its_slot_back() {
    let (replica, router) = start().await;
    let mut attacker = Attacker::connect(&router, &[]).await;
    // Its body does not end.
    attacker.send(&ask(1, END_HEADERS)).await;
    eventually("the request has its slot", async || router.taken("blue") == 1).await;
    attacker.flood(frame(PING, 0, 0, &[7; 8])).await;
    let line = &router.log(1).await[0];
    assert_eq!(line["Outcome"], "client_gone", "{line}");
    assert!(replica.seen().iter().all(|seen| seen.body.is_empty()));
    is_at_rest(&router).await;
    router.drain().await;
}

#[tokio::test]
async fn data_without_data_ends_the_connection() {
    let padding = frame(DATA, 8, 1, &[&[200][..], &[0; 200]].concat());
    for (what, empty) in [("nothing", frame(DATA, 0, 1, &[])), ("padding alone", padding)] {
        let (replica, router) = start().await;
        besiege(&router, async || {
            let mut attacker = Attacker::connect(&router, &[]).await;
            attacker.send(&ask(1, END_HEADERS)).await;
            let said = attacker.flood(empty.repeat(10)).await;
            assert!(said.is_none_or(|code| code == ENHANCE_YOUR_CALM), "{what}: {said:?}");
        })
        .await;
        assert!(replica.seen().iter().all(|seen| seen.body.is_empty()));
        router.drain().await;
    }
}

#[tokio::test]
async fn a_client_that_acknowledges_every_few_bytes_is_not_taken_for_a_flood() {
    let body = "x".repeat(1 << 20);
    let replica = ScriptedReplica::start(move |_| ok(&body)).await;
    let router = Router::start_with(&world(&replica), |config| config.limits.idle_frames_max = 100).await;
    // A window of 1000 bytes, opened again twice for each frame: many thousand updates.
    let mut client = Attacker::connect(&router, &setting(4, 1000)).await;
    client.send(&ask(1, END_BOTH)).await;
    let (mut length, mut frames) = (0, 0);
    while length < 1 << 20 {
        let data = client.wait_for(DATA).await;
        let came = u32::try_from(data.payload.len()).unwrap();
        (length, frames) = (length + data.payload.len(), frames + 1);
        if came > 0 {
            client.send(&[update(0, came), update(1, came)].concat()).await;
        }
    }
    assert!(frames > 1000 && floods(&router) == 0, "{frames} frames");
    drop(client);
    assert_eq!(router.log(1).await[0]["Outcome"], "served");
    router.drain().await;
}

#[tokio::test]
async fn a_client_that_acknowledges_each_event_of_a_stream_is_not_taken_for_a_flood() {
    let events: Vec<Step> = (0..300).map(|_| Step::Send(b"6\r\nevent\n\r\n".to_vec())).collect();
    let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    let replica = ScriptedReplica::start(move |_| {
        [vec![Step::Send(head.clone())], events.clone(), vec![Step::Send(b"0\r\n\r\n".to_vec())]].concat()
    })
    .await;
    let router = Router::start_with(&world(&replica), |config| config.limits.idle_frames_max = 100).await;
    let mut client = Attacker::connect(&router, &[]).await;
    for stream in [1, 3, 5] {
        client.send(&ask(stream, END_BOTH)).await;
        loop {
            let data = client.wait_for(DATA).await;
            let came = u32::try_from(data.payload.len()).unwrap();
            if data.flags & END_STREAM != 0 {
                break;
            }
            client.send(&[update(0, came), update(stream, came), frame(PING, 0, 0, &[1; 8])].concat()).await;
        }
    }
    assert_eq!(floods(&router), 0);
    drop(client);
    router.drain().await;
}
