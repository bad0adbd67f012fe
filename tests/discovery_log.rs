//! What discovery writes to the trace log, and what it never does. A program of its own: a thread without a subscriber
//! could switch events off for all others.

#[path = "discovery/harness.rs"]
mod harness;

use std::io;
use std::sync::Arc;

use parking_lot::Mutex;
use scorefront::control::discovery::{Discovery, Source};
use scorefront::control::state_file::StateFile;
use scorefront::testing::fake_api::FakeApi;
use scorefront::testing::objects::{annotated, mk_secret, mk_service, mk_slice};
use tracing_subscriber::fmt::MakeWriter;

use crate::harness::{Running, eventually};

/// Everything that was logged, as text.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Log {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

impl Log {
    /// Starts to log everything of this thread, which is where a test runs as a whole.
    fn start(level: tracing::Level) -> (Self, tracing::subscriber::DefaultGuard) {
        let log = Self::default();
        let subscriber = tracing_subscriber::fmt().with_max_level(level).with_ansi(false).with_writer(log.clone());
        (log, tracing::subscriber::set_default(subscriber.finish()))
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock()).into_owned()
    }

    /// How many lines of ours have all of these words.
    fn count(&self, words: &[&str]) -> usize {
        let text = self.text();
        let ours = text.lines().filter(|line| line.contains("scorefront::discovery"));
        ours.filter(|line| words.iter().all(|word| line.contains(word))).count()
    }
}

fn cluster(api: &FakeApi) -> Source {
    Source::Cluster(Box::new(api.config()))
}

#[tokio::test]
async fn every_change_and_every_problem_is_logged_once() {
    let (log, _guard) = Log::start(tracing::Level::INFO);
    let api = FakeApi::start().await;
    api.apply([mk_service("ml/blue", "iris/blue"), mk_slice("ml/blue-1", "blue", &["10.0.0.1"])]);
    let router = Running::start(vec![cluster(&api)], &[]);
    router.reads(&["iris@ml blue: 10.0.0.1:5001"]).await;
    assert_eq!(log.count(&["INFO", "endpoint added", "endpoint=\"iris\"", "in namespace ml"]), 1, "{}", log.text());
    assert_eq!(log.count(&["deployment added", "deployment=\"blue\"", "from Service ml/blue"]), 1);
    assert_eq!(log.count(&["replica added", "pod-10.0.0.1 (10.0.0.1:5001)"]), 1);

    let wrong = |value| annotated(mk_service("ml/blue", "iris/blue"), "max-queue-length", value);
    api.apply([wrong("x")]);
    router.complains(&["max-queue-length"]).await;
    api.apply([annotated(wrong("x"), "request-timeout-ms", "900")]);
    eventually("the other change", || (log.count(&["request-timeout-ms 5000 -> 900"]) == 1).then_some(())).await;
    api.apply([wrong("7")]);
    router.complains_no_more().await;
    let problem = ["kind=\"Service\"", "object=ml/blue", "scorefront.dev/max-queue-length", "0 to 100000"];
    assert_eq!(log.count(&[&problem[..], &["WARN"]].concat()), 1, "{}", log.text());
    assert_eq!(log.count(&[&problem[..], &["INFO", "solved: "]].concat()), 1, "{}", log.text());

    api.apply([mk_slice("ml/blue-1", "blue", &[])]);
    router.reads(&["iris@ml blue:"]).await;
    assert_eq!(log.count(&["replica removed", "in no endpoint slice any more"]), 1);
}

#[tokio::test]
async fn a_source_that_fails_in_another_way_is_not_called_solved() {
    let (log, _guard) = Log::start(tracing::Level::INFO);
    let api = FakeApi::start().await;
    api.refuse("secrets", Some(403));
    let router = Running::start(vec![cluster(&api)], &[]);
    router.complains(&["kubernetes secrets", "403"]).await;
    api.refuse("secrets", Some(503));
    router.complains(&["kubernetes secrets", "503"]).await;
    assert_eq!(log.count(&["solved: "]), 0, "{}", log.text());
    api.refuse("secrets", None);
    router.complains_no_more().await;
    assert_eq!(log.count(&["INFO", "solved: ", "503"]), 1, "{}", log.text());
}

#[tokio::test]
async fn a_restored_world_is_told_with_its_age_and_so_is_its_end() {
    let (log, _guard) = Log::start(tracing::Level::INFO);
    let folder = tempfile::tempdir().expect("a folder");
    let start = |api: &FakeApi| {
        let file = StateFile {
            path: folder.path().join("world"),
            max_age: std::time::Duration::from_secs(3600),
            key_file: None,
        };
        let (sources, namespaces) = (vec![cluster(api)], vec![]);
        Running::start_as(Discovery {
            sources,
            namespaces,
            workers: 1,
            router: Default::default(),
            state_file: Some(file),
        })
    };
    let api = FakeApi::start().await;
    api.apply([mk_service("ml/blue", "iris/blue")]);
    let router = start(&api);
    eventually("the world is kept", || (router.vitals.state_file.saves.read() == 1).then_some(())).await;
    drop(router);
    api.go_down();
    let router = start(&api);
    router.reads(&["iris@ml blue:"]).await;
    assert_eq!(log.count(&["INFO", "state file read", "age_s="]), 1, "{}", log.text());
    assert_eq!(log.count(&["WARN", "serving a restored world", "age_s="]), 1, "{}", log.text());
    assert_eq!(log.count(&["the restored world was replaced"]), 0);
    api.come_up().await;
    eventually("the live world", || router.vitals.discovery.restored.lock().is_none().then_some(())).await;
    assert_eq!(log.count(&["INFO", "the restored world was replaced by a live one", "age_s="]), 1, "{}", log.text());
    assert_eq!(log.count(&["endpoint added"]), 2, "once live, once restored: what is the same is no news");
}

#[tokio::test]
async fn no_key_reaches_any_log_at_any_level() {
    let (log, _guard) = Log::start(tracing::Level::TRACE);
    let api = FakeApi::start().await;
    api.apply([
        annotated(mk_service("ml/blue", "iris/blue"), "auth-mode", "key"),
        mk_secret("ml/keys", "iris", "czNjcmV0"),
    ]);
    let router = Running::start(vec![cluster(&api)], &[]);
    router.reads(&["iris@ml blue: [1 keys]"]).await;
    // As an event, then in a list: one that is no text, one that is no base64, one that no header can carry.
    let mut number = mk_secret("ml/number", "iris", "");
    number["data"]["primaryKey"] = 987_654_321.into();
    for bad in [number, mk_secret("ml/keys", "iris", "czNjcmV0!"), mk_secret("ml/keys", "iris", "czNjcmV0IA==")] {
        api.apply([bad.clone()]);
        let is_wrong = || {
            router.problems().into_iter().find(|problem| problem.contains("ecret") && !problem.contains("no valid key"))
        };
        eventually("a problem with Secrets", is_wrong).await;
        api.delete(&bad);
        api.apply([mk_secret("ml/keys", "iris", "czNjcmV0")]);
        router.complains_no_more().await;
        router.reads(&["iris@ml blue: [1 keys]"]).await;
    }
    let text = log.text();
    assert!(text.contains("scorefront::discovery") && text.contains("kube_client"), "the log is on");
    for key in ["czNjcmV0", "s3cret", "987654321"] {
        assert!(!text.contains(key), "{}", text.lines().find(|line| line.contains(key)).unwrap_or_default());
    }
}
