//! Upgraded connections (WebSocket): bytes in both directions until either side ends, or neither says anything.
//!
//! Owner: a task of its own, which holds the slot, the ledger and a place among the worker's connections.
//! Holds: no byte of the client goes to the replica before the replica has agreed with a 101.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http::header::{CONNECTION, HeaderValue, UPGRADE};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncWriteExt as _, copy_bidirectional};
use tokio::sync::watch;
use tokio::time::Timeout;

use super::connection::Guard;
use super::counted::Counted;
use super::exchange::Route;
use super::headers::{self, Census};
use super::ledger::Ledger;
use super::link::Link;
use super::pending::Busy;
use super::replica_tls::ReplicaSocket;
use super::respond::{self, Refused};
use super::stream::AnswerBody;
use super::upstream::{Answered, Headers};
use super::worker::Phase;
use crate::core::outcome::Outcome;
use crate::core::state::AnswerFlaw;

/// Answers 101 and starts the tunnel.
pub(crate) fn open(
    link: &Arc<Link>,
    parts: &mut http::request::Parts,
    answered: Answered,
    busy: Busy,
    route: &Route,
    mut ledger: Ledger,
) -> Response<AnswerBody> {
    // With 101 all of them are in the map.
    let Answered { status, headers: Headers { map: mut headers, .. }, body } = answered;
    let agreed = |asked: &HeaderValue| {
        let protocol = headers.get(UPGRADE);
        protocol.is_some_and(|protocol| protocol.as_bytes().eq_ignore_ascii_case(asked.as_bytes()))
    };
    let (client, protocol) = (parts.extensions.remove::<OnUpgrade>(), route.upgrade.clone().filter(agreed));
    let (Some(client), Some(protocol), Some(replica)) = (client, protocol, body.into_socket()) else {
        busy.done(None, std::time::Instant::now());
        route.deployment.state.shard(link.worker.index).refuse_answer(AnswerFlaw::Upgrade);
        let refused = Refused::new(
            Outcome::ReplicaReset,
            "Replica closed connection before replying. It changed to a protocol that it was not asked for.",
        );
        return respond::refuse(refused, ledger, false);
    };
    let census = Census::of(&headers);
    headers::remove_hop_by_hop(&mut headers, census);
    headers::identify(&mut headers, census, &ledger.record);
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, protocol);
    ledger.record.status = Some(status);
    link.set_tunnel();
    let (idle, patience) = (link.worker.limits().tunnel_idle, link.worker.limits().head_timeout);
    let guard = Guard::new(link.worker.clone());
    let phases = link.worker.shared.phase.clone();
    tokio::spawn(async move {
        carry(tokio::time::timeout(patience, client), replica, idle, phases, &mut ledger).await;
        busy.done(None, std::time::Instant::now());
        drop((ledger, guard));
    });
    let mut response = Response::new(AnswerBody::unrecorded(Bytes::new()));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

async fn carry(
    client: Timeout<OnUpgrade>,
    (replica, early): (ReplicaSocket, Bytes),
    idle: Duration,
    mut phases: watch::Receiver<Phase>,
    ledger: &mut Ledger,
) {
    let Ok(Ok(client)) = client.await else {
        ledger.record.detail = Some("the connection did not change protocols within head-timeout-ms".into());
        ledger.conclude(Outcome::ClientGone);
        return;
    };
    let (up, down) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(early.len() as u64)));
    let mut client = Counted::new(TokioIo::new(client), up.clone());
    let mut replica = Counted::new(replica, down.clone());
    let moved = || up.load(Ordering::Relaxed) + down.load(Ordering::Relaxed);
    let both = async {
        // What came with the 101.
        client.write_all(&early).await?;
        copy_bidirectional(&mut client, &mut replica).await
    };
    tokio::select! {
        done = both => {
            ledger.conclude(if done.is_ok() { Outcome::Served } else { Outcome::StreamBroken });
        }
        () = silent_for(idle, moved) => {
            ledger.conclude(Outcome::StreamBroken);
            ledger.record.detail = Some("neither side sent anything for tunnel-idle-ms".into());
        }
        _ = phases.wait_for(|phase| *phase >= Phase::LastCall) => {
            ledger.conclude(Outcome::Draining);
        }
    }
    ledger.record.request_bytes = up.load(Ordering::Relaxed);
    ledger.record.answer_bytes = down.load(Ordering::Relaxed);
}

/// Ends when the count has not changed for this long.
async fn silent_for(idle: Duration, count: impl Fn() -> u64) {
    let mut before = count();
    loop {
        tokio::time::sleep(idle).await;
        let now = count();
        if now == before {
            return;
        }
        before = now;
    }
}
