use super::*;
use crate::core::limits::Limits;
use crate::ops::access_log::LogTarget;

#[tokio::test]
async fn one_worker_that_ends_by_itself_ends_the_router_while_others_live() {
    let config = Config { workers: 2, ..Config::default() };
    let vitals = Arc::new(Vitals::new(2, Instant::now()));
    let access_log = AccessLog::start(&LogTarget::Off, 2, 1 << 20, vitals.clone()).unwrap();
    let (phase, phases) = watch::channel(Phase::Running);
    let snapshot = Arc::new(ArcSwap::from_pointee(Snapshot::default()));
    let shared = Shared::new(snapshot, Limits::default(), vitals.clone(), phases);
    // A worker ends when whoever decides the phase is gone; for the second one nobody ever was there.
    let alone = Shared { phase: watch::channel(Phase::Running).1, ..shared.clone() };
    let ended = Arc::new(Notify::new());
    let living = Worker::start(0, shared, access_log.worker(0), 1, &ended).unwrap();
    // As the listeners have it: without, it would end because nothing could come any more.
    let _inbox = living.inbox.clone();
    let mut done = tokio::task::spawn_blocking(|| living.join());
    let drain = Drain { phase, ended: ended.clone(), vitals: &vitals, access_log: &access_log, config: &config };
    let (_signals, mut requests) = mpsc::channel(1);
    let dying = Worker::start(1, alone, access_log.worker(1), 2, &ended).unwrap();
    let told = tokio::time::timeout(Duration::from_secs(20), drain.watch(&mut requests, &mut done)).await.unwrap();
    assert!(told.unwrap_err().to_string().contains("a worker has ended by itself"));
    assert!(!done.is_finished(), "the other worker serves on until it is told to stop");
    drain.phase.send_replace(Phase::Forced);
    assert!(done.await.unwrap());
    assert!(tokio::task::spawn_blocking(|| dying.join()).await.unwrap());
}
