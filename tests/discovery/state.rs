//! The state file, as discovery reads and writes it: what is served of it, when, and what becomes of it.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use scorefront::control::discovery::{Discovery, Source};
use scorefront::control::state_file::StateFile;
use scorefront::core::facts::Form;
use scorefront::testing::fake_api::FakeApi;
use scorefront::testing::objects::{annotated, mk_secret, mk_service, mk_slice};
use serde_json::Value;

use crate::harness::{Running, eventually};

const BLUE: &str = "iris@ml blue: 10.0.0.1:5001 [1 keys]";

fn start(source: Source, folder: &Path) -> Running {
    let file = StateFile { path: folder.join("world"), max_age: Duration::from_secs(3600), key_file: None };
    Running::start_as(Discovery {
        sources: vec![source],
        namespaces: vec![],
        workers: 1,
        router: Default::default(),
        state_file: Some(file),
    })
}

fn cluster(api: &FakeApi) -> Source {
    Source::Cluster(Box::new(api.config()))
}

fn blue() -> [Value; 3] {
    [
        annotated(mk_service("ml/blue", "iris/blue"), "auth-mode", "key"),
        mk_slice("ml/blue-1", "blue", &["10.0.0.1"]),
        mk_secret("ml/keys", "iris", "czNjcmV0"),
    ]
}

async fn saves(router: &Running, n: u64) {
    let vitals = &router.vitals.state_file;
    eventually("the state file is written", || (vitals.saves.read() >= n).then_some(())).await;
}

fn is_restored(router: &Running) -> bool {
    router.vitals.discovery.restored.lock().is_some()
}

/// A server with one deployment whose world is in the file of this folder, and no router any more.
async fn kept(folder: &Path) -> FakeApi {
    let api = FakeApi::start().await;
    api.apply(blue());
    let router = start(cluster(&api), folder);
    router.reads(&[BLUE]).await;
    saves(&router, 1).await;
    api
}

#[tokio::test]
async fn of_a_restored_world_only_that_is_old_which_cannot_be_listed() {
    let folder = tempfile::tempdir().expect("a folder");
    let api = kept(folder.path()).await;
    // Meanwhile the key is taken away, and the replicas cannot be listed any more.
    let [service, slice, secret] = blue();
    api.delete(&secret);
    api.refuse("endpointslices", Some(503));
    let router = start(cluster(&api), folder.path());
    router.reads(&["iris@ml blue: 10.0.0.1:5001 [0 keys]"]).await;
    assert!(is_restored(&router));
    // What is said of Secrets from now on counts too; a Service waits until its replicas can be known.
    let green = annotated(mk_service("ml/green", "iris/green"), "auth-mode", "key");
    api.apply([mk_secret("ml/keys", "iris", "bmV3"), green]);
    router.reads(&[BLUE]).await;
    api.delete(&service);
    api.delete(&slice);
    api.apply([mk_slice("ml/green-1", "green", &["10.0.0.2"])]);
    assert!(is_restored(&router));
    api.refuse("endpointslices", None);
    router.reads(&["iris@ml green: 10.0.0.2:5001 [1 keys]"]).await;
    eventually("the world is live", || (!is_restored(&router)).then_some(())).await;
}

#[tokio::test]
async fn a_restart_without_the_api_server_serves_the_last_world_until_there_is_a_new_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let api = kept(folder.path()).await;
    api.go_down();
    let router = start(cluster(&api), folder.path());
    router.reads(&[BLUE]).await;
    assert!(router.is_ready() && is_restored(&router));
    assert_eq!(router.in_step_us(), 0, "no source has said anything");
    let age = router.vitals.discovery.restored.lock().expect("a stamp").age_at(Instant::now());
    assert!(age < Duration::from_secs(60), "{age:?}");
    let before = router.store.load().find(Form::Endpoint, "iris").cloned().expect("iris");
    let version = router.store.load().version;
    assert!(fs::metadata(folder.path().join("world")).is_ok());
    assert_eq!(router.vitals.state_file.saves.read(), 0, "a restored world is not news");

    api.come_up().await;
    eventually("the live world", || (!is_restored(&router)).then_some(())).await;
    router.reads(&[BLUE]).await;
    router.complains_no_more().await;
    let after = router.store.load().find(Form::Endpoint, "iris").cloned().expect("iris");
    assert!(router.store.load().version > version);
    assert!(std::sync::Arc::ptr_eq(&before.deployments[0], &after.deployments[0]), "what is the same stays");
    assert_ne!(before.access, after.access, "keys are held as those of a live world");
    saves(&router, 1).await;
}

#[tokio::test]
async fn what_changed_meanwhile_is_served_when_the_api_server_is_back() {
    let folder = tempfile::tempdir().expect("a folder");
    let api = kept(folder.path()).await;
    api.go_down();
    let router = start(cluster(&api), folder.path());
    router.reads(&[BLUE]).await;
    let [service, slice, secret] = blue();
    let red = [mk_service("ml/red", "wine/red"), mk_slice("ml/red-1", "red", &["10.0.0.8"])];
    api.compact(red, &[&service, &slice, &secret]);
    api.come_up().await;
    router.reads(&["wine@ml red: 10.0.0.8:5001"]).await;
    eventually("the world is live", || (!is_restored(&router)).then_some(())).await;
}

#[tokio::test]
async fn what_cannot_be_listed_is_served_from_the_file_however_often_that_fails() {
    let folder = tempfile::tempdir().expect("a folder");
    let api = kept(folder.path()).await;
    let [service, slice, _] = blue();
    let red = [mk_service("ml/red", "wine/red"), mk_slice("ml/red-1", "red", &["10.0.0.8"])];
    api.apply(red);
    api.refuse("secrets", Some(503));
    let router = start(cluster(&api), folder.path());
    router.reads(&[BLUE, "wine@ml red: 10.0.0.8:5001"]).await;
    router.complains(&["kubernetes secrets", "503"]).await;
    // The second of each kind: the first was that of the router before.
    let others = || (api.watches("services") == 2 && api.watches("endpointslices") == 2).then_some(());
    eventually("the other kinds are followed", others).await;
    let (lists, version) = (api.lists("secrets"), router.store.load().version);
    let errors = router.vitals.discovery.errors.read();
    eventually("more attempts", || (router.vitals.discovery.errors.read() > errors + 1).then_some(())).await;
    assert_eq!((router.read()[0].as_str(), router.store.load().version), (BLUE, version));
    assert_eq!(api.lists("secrets"), lists);
    api.delete(&service);
    api.delete(&slice);
    api.refuse("secrets", None);
    router.reads(&["wine@ml red: 10.0.0.8:5001"]).await;
    eventually("the world is live", || (!is_restored(&router)).then_some(())).await;
}

#[tokio::test]
async fn a_restart_beside_a_healthy_api_server_serves_nothing_old() {
    let folder = tempfile::tempdir().expect("a folder");
    let api = kept(folder.path()).await;
    api.apply([mk_slice("ml/blue-1", "blue", &["10.0.0.9"])]);
    api.delete(&blue()[2]);
    let router = start(cluster(&api), folder.path());
    router.is_ready_soon().await;
    assert_eq!(router.read(), ["iris@ml blue: 10.0.0.9:5001 [0 keys]"]);
    assert_eq!((router.publications(), is_restored(&router)), (1, false));
}

#[tokio::test]
async fn an_api_server_that_says_nothing_at_all_is_not_waited_for() {
    let folder = tempfile::tempdir().expect("a folder");
    let api = kept(folder.path()).await;
    api.go_down();
    // Takes connections in the place of the server and never answers on any.
    let address = api.config().cluster_url.authority().expect("an authority").to_string();
    let mute = eventually("the port is free", || std::net::TcpListener::bind(&address).ok()).await;
    let router = start(cluster(&api), folder.path());
    router.reads(&[BLUE]).await;
    assert!(is_restored(&router) && router.problems().is_empty(), "{:?}", router.problems());
    drop(mute);
}

#[tokio::test]
async fn names_stay_with_their_owners_over_a_restart() {
    let folder = tempfile::tempdir().expect("a folder");
    let api = kept(folder.path()).await;
    let mut older = mk_service("thief/blue", "iris/blue");
    older["metadata"]["creationTimestamp"] = "2020-01-01T00:00:00Z".into();
    api.apply([older]);
    let router = start(cluster(&api), folder.path());
    router.is_ready_soon().await;
    assert_eq!(router.read(), [BLUE]);
    router.complains(&["Service thief/blue", "belongs to namespace ml, which had it first"]).await;
    drop(router);
    // Without the file the oldest Service would have the name.
    let elsewhere = tempfile::tempdir().expect("a folder");
    let other = start(cluster(&api), elsewhere.path());
    other.is_ready_soon().await;
    assert_eq!(other.read(), ["iris@thief blue:"]);
}

#[tokio::test]
async fn a_file_of_another_configuration_or_none_at_all_is_refused_and_replaced() {
    let folder = tempfile::tempdir().expect("a folder");
    let first = kept(folder.path()).await;
    let second = FakeApi::start().await;
    second.apply([mk_service("ml/red", "wine/red")]);
    let router = start(cluster(&second), folder.path());
    // The problem is there from the start, and gone with the first write.
    router.reads(&["wine@ml red:"]).await;
    assert_eq!(router.vitals.state_file.errors.read(), 1);
    saves(&router, 1).await;
    router.complains_no_more().await;
    drop(router);
    second.go_down();
    let again = start(cluster(&second), folder.path());
    again.reads(&["wine@ml red:"]).await;
    drop((first, again));

    fs::write(folder.path().join("world"), "rubbish").expect("writes");
    let router = start(cluster(&second), folder.path());
    let problem = router.complains(&["world", "state-file"]).await;
    assert!(problem.starts_with("File ") && problem.contains("is no state file"), "{problem}");
    router.complains(&["kubernetes services", "cannot be followed"]).await;
    assert!(!router.is_ready() && router.store.load().version == 0, "as without a file");
    second.come_up().await;
    router.reads(&["wine@ml red:"]).await;
    router.complains_no_more().await;
}

#[tokio::test]
async fn a_file_that_cannot_be_written_is_reported_until_it_can() {
    let folder = tempfile::tempdir().expect("a folder");
    let api = FakeApi::start().await;
    api.apply(blue());
    let inner = folder.path().join("not-yet");
    let router = start(cluster(&api), &inner);
    router.reads(&[BLUE]).await;
    let problem = router.complains(&["not-yet/world", "cannot be written"]).await;
    assert!(problem.contains("No such file") && problem.contains("a restart could not be served"), "{problem}");
    assert!(router.is_ready());
    fs::create_dir(&inner).expect("makes the folder");
    saves(&router, 1).await;
    router.complains_no_more().await;
}

#[tokio::test]
async fn a_burst_of_changes_costs_few_writes_and_the_last_change_is_in_the_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let api = kept(folder.path()).await;
    let router = start(cluster(&api), folder.path());
    router.is_ready_soon().await;
    saves(&router, 1).await;
    let start_of_burst = Instant::now();
    for n in 1..=200 {
        api.apply([mk_slice("ml/blue-1", "blue", &[&format!("10.0.1.{n}")])]);
        tokio::task::yield_now().await;
    }
    router.reads(&["iris@ml blue: 10.0.1.200:5001 [1 keys]"]).await;
    let is_written = || fs::read_to_string(folder.path().join("world")).ok().filter(|text| text.contains("10.0.1.200"));
    eventually("the last change is written", is_written).await;
    // One for each five seconds, however long all that took.
    let allowed = 2 + start_of_burst.elapsed().as_secs() / 5;
    assert!(router.vitals.state_file.saves.read() <= allowed, "{allowed} allowed");
    drop(router);
    api.go_down();
    let router = start(cluster(&api), folder.path());
    router.reads(&["iris@ml blue: 10.0.1.200:5001 [1 keys]"]).await;
}
