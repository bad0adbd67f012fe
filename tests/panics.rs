//! A panic on a worker's thread, in the middle of a request. A process of its own: what sees the trace log and hears of
//! panics is one for the whole of it.
//!
//! The router has no panic to offer, so the trace log of this test has one: at the line that a replica is left out, which
//! is said on the way of a request that holds a slot.

use std::fmt::{Debug, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;
use scorefront::ops::logging;
use scorefront::testing::client::score;
use scorefront::testing::eventually;
use scorefront::testing::replica::{ScriptedReplica, Step, answer, ok};
use scorefront::testing::router::Router;
use scorefront::testing::world::World;
use tokio::net::TcpSocket;
use tokio::sync::Semaphore;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// Remembers lines, and panics at one.
#[derive(Clone, Default)]
struct Brittle(Arc<Mutex<Vec<String>>>);

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let _ = write!(self.0, " {}={value:?}", field.name());
    }
}

impl Subscriber for Brittle {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("scorefront")
    }

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(event.metadata().target().to_owned());
        event.record(&mut line);
        let breaks = line.0.contains("replica left out");
        self.0.lock().push(line.0);
        assert!(!breaks, "made for this test");
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

#[tokio::test]
async fn a_panic_costs_one_request_and_is_told_counted_and_survived() {
    let brittle = Brittle::default();
    tracing::subscriber::set_global_default(brittle.clone()).expect("the first in this process");
    logging::tell_of_panics();
    let permits = Arc::new(Semaphore::new(0));
    let script = permits.clone();
    let replica = ScriptedReplica::start(move |request| {
        if request.body == b"held" {
            return vec![Step::Wait(script.clone()), Step::Send(answer(200, &[], "done"))];
        }
        ok("alive")
    })
    .await;
    // Bound and not listening: nobody else can have the port.
    let dead = TcpSocket::new_v4().expect("a socket can be made");
    dead.bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("loopback has a free port");
    let addresses = [dead.local_addr().expect("an address"), replica.address];
    let settings = [("max-concurrent-requests-per-instance", "4"), ("request-timeout-ms", "60000")];
    let router = Router::start(&World::new().deployment("blue", &settings, &addresses)).await;

    let mut held = router.client().await;
    held.send(score("held")).await;
    replica.wait_for(1).await;
    let mut statuses = Vec::new();
    for _ in 0..40 {
        // A connection each: that of the request that panics may be closed.
        let got = router.client().await.ask(score("")).await;
        if got.status == 500 {
            assert_eq!(got.error("code"), "InternalError");
        }
        statuses.push(got.status);
    }
    permits.add_permits(1);
    assert_eq!(held.answer().await.status, 200, "who was there already is served");
    statuses.sort_unstable();
    assert_eq!((&statuses[..39], statuses[39]), (&[200; 39][..], 500), "one request, and only that");

    let lines = router.log(41).await;
    let internal: Vec<_> = lines.iter().filter(|line| line["Outcome"] == "internal").collect();
    let [line] = &internal[..] else { panic!("one line: {internal:?}") };
    assert_eq!((&line["ResponseCode"], &line["EndpointName"]), (&500.into(), &"iris".into()));
    assert!(line["ErrorDetail"].as_str().is_some_and(|detail| detail.contains("panicked")), "{line}");
    let labels = "form=\"endpoint\",endpoint=\"iris\",deployment=\"blue\",status=\"500\",outcome=\"internal\"";
    assert_eq!(router.metric(&format!("scorefront_requests_total{{{labels}}}")).await, 1.0);

    let told: Vec<_> = brittle.0.lock().iter().filter(|line| line.starts_with("scorefront::panic")).cloned().collect();
    let [told] = &told[..] else { panic!("one line: {told:?}") };
    assert!(
        told.contains("made for this test") && told.contains("worker-0") && told.contains("tests/panics.rs"),
        "{told}"
    );

    eventually("no slot is taken", async || router.taken("blue") == 0).await;
    assert_eq!(router.vitals.requests.load(Ordering::Relaxed), 0);
    drop(held);
    eventually("no connection is open", async || router.vitals.connections.open.load(Ordering::Relaxed) == 0).await;
    router.drain().await;
}
