//! Upgraded connections (WebSocket): bytes in both directions until either side ends, or neither says anything.
//!
//! Owner: a task of its own, which holds the slot, the ledger and a place among the worker's connections.
//! Holds: no byte of the client goes to the replica before the replica has agreed with a 101.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::header::{CONNECTION, HeaderValue, UPGRADE};
use http::{Response, StatusCode};
use hyper::body::Incoming;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::copy_bidirectional;
use tokio::sync::watch;

use super::connection::Guard;
use super::counted::Counted;
use super::exchange::Route;
use super::headers::{self, Census};
use super::ledger::Ledger;
use super::link::Link;
use super::pending::Busy;
use super::respond::{self, Refused};
use super::stream::AnswerBody;
use super::worker::Phase;
use crate::core::outcome::Outcome;
use crate::core::state::AnswerFlaw;

/// Answers 101 and starts the tunnel.
pub(crate) fn open(
    link: &Arc<Link>,
    mut parts: http::request::Parts,
    mut response: Response<Incoming>,
    busy: Busy,
    route: &Route,
    mut ledger: Ledger,
) -> Response<AnswerBody> {
    let agreed = |asked: &HeaderValue| {
        let protocol = response.headers().get(UPGRADE);
        protocol.is_some_and(|protocol| protocol.as_bytes().eq_ignore_ascii_case(asked.as_bytes()))
    };
    let (client, protocol) = (parts.extensions.remove::<OnUpgrade>(), route.upgrade.clone().filter(agreed));
    let (Some(client), Some(protocol)) = (client, protocol) else {
        busy.done(None, std::time::Instant::now());
        route.deployment.state.shard(link.worker.index).refuse_answer(AnswerFlaw::Upgrade);
        let refused = Refused::new(
            Outcome::ReplicaReset,
            "Replica closed connection before replying. It changed to a protocol that it was not asked for.",
        );
        return respond::refuse(refused, ledger, false);
    };
    let replica = hyper::upgrade::on(&mut response);
    let census = Census::of(response.headers());
    headers::remove_hop_by_hop(response.headers_mut(), census);
    headers::identify(response.headers_mut(), census, &ledger.record);
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("upgrade"));
    response.headers_mut().insert(UPGRADE, protocol);
    ledger.record.status = Some(StatusCode::SWITCHING_PROTOCOLS);
    let (idle, patience) = (link.worker.limits().tunnel_idle, link.worker.limits().head_timeout);
    let guard = Guard::new(link.worker.clone());
    let phases = link.worker.shared.phase.clone();
    let upgraded = async move {
        let both = async { tokio::try_join!(client, replica) };
        tokio::time::timeout(patience, both).await.ok()?.ok()
    };
    tokio::spawn(async move {
        carry(upgraded, idle, phases, &mut ledger).await;
        busy.done(None, std::time::Instant::now());
        drop((ledger, guard));
    });
    response.map(|_| AnswerBody::unrecorded(bytes::Bytes::new()))
}

async fn carry(
    upgraded: impl Future<Output = Option<(Upgraded, Upgraded)>>,
    idle: Duration,
    mut phases: watch::Receiver<Phase>,
    ledger: &mut Ledger,
) {
    let Some((client, replica)) = upgraded.await else {
        ledger.record.detail = Some("the connection did not change protocols within head-timeout-ms".into());
        ledger.conclude(Outcome::ClientGone);
        return;
    };
    let (up, down) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let mut client = Counted::new(TokioIo::new(client), up.clone());
    let mut replica = Counted::new(TokioIo::new(replica), down.clone());
    let moved = || up.load(Ordering::Relaxed) + down.load(Ordering::Relaxed);
    tokio::select! {
        done = copy_bidirectional(&mut client, &mut replica) => {
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
