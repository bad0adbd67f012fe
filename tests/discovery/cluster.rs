//! Source `kubernetes`, against a scripted API server.

use std::time::{Duration, Instant};

use scorefront::control::discovery::{self, Discovery, Source};
use scorefront::control::publish::INTERVAL;
use scorefront::testing::fake_api::FakeApi;
use scorefront::testing::objects::{annotated, mk_secret, mk_service, mk_slice};
use serde_json::Value;

use crate::harness::{Running, eventually, not_in_time};

fn cluster(api: &FakeApi) -> Source {
    Source::Cluster(Box::new(api.config()))
}

fn blue() -> [Value; 2] {
    [mk_service("ml/blue", "iris/blue"), mk_slice("ml/blue-1", "blue", &["10.0.0.1"])]
}

/// A server with one deployment, and a router that serves it.
async fn blue_running() -> (FakeApi, Running) {
    let api = FakeApi::start().await;
    api.apply(blue());
    let router = Running::start(vec![cluster(&api)], &[]);
    router.reads(&["iris@ml blue: 10.0.0.1:5001"]).await;
    eventually("three watches", || (api.watchers() == 3).then_some(())).await;
    (api, router)
}

#[tokio::test]
async fn the_first_lists_make_the_first_snapshot_and_only_then_is_it_ready() {
    let api = FakeApi::start().await;
    api.apply(blue());
    api.refuse("secrets", Some(503));
    let router = Running::start(vec![cluster(&api)], &[]);
    let problem = router.complains(&["kubernetes secrets", "503"]).await;
    assert!(problem.starts_with("Source "), "{problem}");
    eventually("two watches", || (api.watchers() == 2).then_some(())).await;
    assert!(!router.is_ready(), "one kind is missing");
    assert_eq!((router.publications(), router.in_step_us()), (0, 0));
    api.refuse("secrets", None);
    router.reads(&["iris@ml blue: 10.0.0.1:5001"]).await;
    router.is_ready_soon().await;
    assert_eq!(router.publications(), 1, "the first snapshot is a whole one");
    router.complains_no_more().await;
}

#[tokio::test]
async fn an_empty_cluster_is_ready_too() {
    let api = FakeApi::start().await;
    let router = Running::start(vec![cluster(&api)], &[]);
    router.is_ready_soon().await;
    assert_eq!(router.read(), [""; 0]);
}

#[tokio::test]
async fn objects_that_are_added_changed_and_deleted_are_followed() {
    let (api, router) = blue_running().await;
    let green = [mk_service("ml/green", "iris/green"), mk_slice("ml/green-1", "green", &["10.0.0.2"])];
    api.apply(green.clone());
    router.reads(&["iris@ml blue: 10.0.0.1:5001", "iris@ml green: 10.0.0.2:5001"]).await;
    api.apply([mk_slice("ml/blue-1", "blue", &["10.0.0.3", "10.0.0.4"])]);
    router.reads(&["iris@ml blue: 10.0.0.3:5001 10.0.0.4:5001", "iris@ml green: 10.0.0.2:5001"]).await;
    api.apply([
        annotated(mk_service("ml/blue", "iris/blue"), "auth-mode", "key"),
        mk_secret("ml/keys", "iris", "czNjcmV0"),
    ]);
    router
        .reads(&["iris@ml blue: 10.0.0.3:5001 10.0.0.4:5001 [1 keys]", "iris@ml green: 10.0.0.2:5001 [1 keys]"])
        .await;
    api.delete(&mk_secret("ml/keys", "iris", ""));
    api.delete(&green[1]);
    router.reads(&["iris@ml blue: 10.0.0.3:5001 10.0.0.4:5001 [0 keys]", "iris@ml green: [0 keys]"]).await;
    api.delete(&green[0]);
    api.delete(&blue()[0]);
    router.reads(&[]).await;
}

#[tokio::test]
async fn one_change_is_one_publication() {
    let (api, router) = blue_running().await;
    let before = router.publications();
    api.apply([mk_slice("ml/blue-1", "blue", &["10.0.0.9"])]);
    router.reads(&["iris@ml blue: 10.0.0.9:5001"]).await;
    assert_eq!(router.publications(), before + 1);
    // What does not concern a deployment is not worth a snapshot.
    api.apply([mk_slice("ml/other-1", "other", &["10.0.0.7"]), mk_service("ml/x", "wine/red")]);
    router.reads(&["iris@ml blue: 10.0.0.9:5001", "wine@ml red:"]).await;
    assert_eq!(router.publications(), before + 2);
}

#[tokio::test]
async fn a_change_is_routed_on_within_100_ms() {
    let (api, router) = blue_running().await;
    let mut taken = Vec::new();
    for n in 1..10 {
        let address = format!("10.0.1.{n}");
        let start = Instant::now();
        api.apply([mk_slice("ml/blue-1", "blue", &[&address])]);
        router.reads(&[&format!("iris@ml blue: {address}:5001")]).await;
        taken.push(start.elapsed());
    }
    taken.sort_unstable();
    // The middle one: a delay of ours would be in all of them, one of the machine's in some.
    assert!(taken[4] < Duration::from_millis(100), "{taken:?}");
}

#[tokio::test]
async fn a_burst_of_slice_updates_costs_few_publications() {
    let (api, router) = blue_running().await;
    let before = router.publications();
    let start = Instant::now();
    for n in 0..1000 {
        let address = format!("10.1.{}.{}", n / 250, n % 250 + 1);
        api.apply([mk_slice(&format!("ml/blue-{}", n % 50), "blue", &[&address])]);
        if n % 20 == 0 {
            tokio::task::yield_now().await;
        }
    }
    let last = "10.1.3.250:5001";
    eventually("the last of the burst", || router.read().iter().any(|line| line.contains(last)).then_some(())).await;
    let allowed = start.elapsed().as_millis() / INTERVAL.as_millis() + 2;
    let published = router.publications() - before;
    assert!(u128::from(published) <= allowed, "{published} publications, {allowed} allowed");
}

#[tokio::test]
async fn a_watch_that_breaks_in_the_middle_of_a_line_goes_on_where_it_was() {
    let (api, router) = blue_running().await;
    let lists = api.lists("endpointslices");
    api.disconnect();
    api.apply([mk_slice("ml/blue-1", "blue", &["10.0.0.5"])]);
    router.reads(&["iris@ml blue: 10.0.0.5:5001"]).await;
    assert_eq!(api.lists("endpointslices"), lists, "nothing had to be listed again");
}

#[tokio::test]
async fn after_gone_as_an_event_everything_is_listed_anew() {
    let (api, router) = blue_running().await;
    let [service, slice] = blue();
    let red = [mk_service("ml/red", "wine/red"), mk_slice("ml/red-1", "red", &["10.0.0.8"])];
    api.compact(red, &[&service, &slice]);
    api.send_error(410);
    router.reads(&["wine@ml red: 10.0.0.8:5001"]).await;
    assert_eq!(api.lists("services"), 2);
    assert!(router.problems().is_empty(), "{:?}", router.problems());
}

#[tokio::test]
async fn after_gone_as_a_status_everything_is_listed_anew() {
    let (api, router) = blue_running().await;
    api.compact([mk_slice("ml/blue-1", "blue", &["10.0.0.6"])], &[]);
    api.disconnect();
    router.reads(&["iris@ml blue: 10.0.0.6:5001"]).await;
    assert_eq!(api.lists("endpointslices"), 2);
}

#[tokio::test]
async fn what_expired_in_an_outage_is_listed_as_soon_as_the_server_says_so() {
    let (api, router) = blue_running().await;
    api.go_down();
    let (errors, watches) = (router.vitals.discovery.errors.read(), api.watches("endpointslices"));
    // Two failures of each kind and more: after the next pause, one more would be 800 ms or longer.
    eventually("long pauses", || (router.vitals.discovery.errors.read() >= errors + 7).then_some(())).await;
    api.compact([mk_slice("ml/blue-1", "blue", &["10.0.0.6"])], &[]);
    api.come_up().await;
    eventually("a watch that has expired", || (api.watches("endpointslices") > watches).then_some(())).await;
    let start = Instant::now();
    router.reads(&["iris@ml blue: 10.0.0.6:5001"]).await;
    assert!(start.elapsed() < Duration::from_millis(500), "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_list_that_fails_half_way_empties_nothing() {
    let (api, router) = blue_running().await;
    api.apply([mk_service("ml/a", "tea/green"), mk_service("ml/x", "wine/red")]);
    let all = ["iris@ml blue: 10.0.0.1:5001", "tea@ml green:", "wine@ml red:"];
    router.reads(&all).await;
    api.set_page(1);
    api.break_lists(true);
    api.compact([], &[]);
    api.disconnect();
    router.complains(&["kubernetes services", "500"]).await;
    let before = router.publications();
    let lists = api.lists("services");
    eventually("more attempts", || (api.lists("services") > lists + 1).then_some(())).await;
    router.reads(&all).await;
    assert!(router.is_ready());
    api.break_lists(false);
    router.complains_no_more().await;
    router.reads(&all).await;
    assert_eq!(router.publications(), before, "nothing had changed");
}

#[tokio::test]
async fn a_bookmark_spares_a_quiet_watch_the_list() {
    let (api, router) = blue_running().await;
    for n in 0..5 {
        api.apply([mk_slice("ml/blue-1", "blue", &[&format!("10.0.0.{}", 20 + n)])]);
    }
    api.send_bookmark();
    router.is_in_step().await;
    router.reads(&["iris@ml blue: 10.0.0.24:5001"]).await;
    // Without the bookmark the watch of Secrets would have to go on from the time of its list.
    api.forget();
    let watches = api.watches("secrets");
    api.disconnect();
    eventually("watches go on", || (api.watches("secrets") > watches).then_some(())).await;
    assert_eq!(api.lists("secrets"), 1);
}

#[tokio::test]
async fn a_server_that_ends_every_watch_at_once_is_not_asked_in_a_tight_loop() {
    let (api, router) = blue_running().await;
    let (watches, start) = (api.watches("services"), Instant::now());
    api.end_watches();
    eventually("five more watches", || (api.watches("services") >= watches + 5).then_some(())).await;
    // Four pauses of at least half of 200, 400, 800 and 1600 ms.
    assert!(start.elapsed() > Duration::from_millis(1400), "{:?}", start.elapsed());
    assert_eq!(api.lists("services"), 1);
    router.reads(&["iris@ml blue: 10.0.0.1:5001"]).await;
}

#[tokio::test]
async fn an_api_server_that_is_down_at_the_start_is_waited_for() {
    let api = FakeApi::start().await;
    api.go_down();
    api.apply(blue());
    let router = Running::start(vec![cluster(&api)], &[]);
    router.complains(&["kubernetes endpointslices", "cannot be followed"]).await;
    assert!(!router.is_ready());
    assert_eq!(router.store.load().version, 0);
    api.come_up().await;
    router.reads(&["iris@ml blue: 10.0.0.1:5001"]).await;
    router.is_ready_soon().await;
    router.complains_no_more().await;
}

#[tokio::test]
async fn an_api_server_that_goes_away_leaves_everything_served() {
    let (api, router) = blue_running().await;
    router.is_ready_soon().await;
    api.go_down();
    router.complains(&["kubernetes services"]).await;
    router.complains(&["kubernetes endpointslices"]).await;
    let errors = router.vitals.discovery.errors.read();
    let in_step = router.in_step_us();
    eventually("more attempts", || (router.vitals.discovery.errors.read() > errors + 2).then_some(())).await;
    assert_eq!(router.in_step_us(), in_step, "nobody knows what is going on");
    assert!(router.is_ready() && router.has("iris"));
    api.apply([mk_slice("ml/blue-1", "blue", &["10.0.0.7"])]);
    api.come_up().await;
    router.reads(&["iris@ml blue: 10.0.0.7:5001"]).await;
    router.complains_no_more().await;
    eventually("in step again", || {
        api.send_bookmark();
        (router.in_step_us() > in_step).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_kind_that_may_not_be_read_is_named_with_the_remedy() {
    let api = FakeApi::start().await;
    api.apply(blue());
    api.refuse("secrets", Some(403));
    let router = Running::start(vec![cluster(&api)], &[]);
    let problem = router.complains(&["kubernetes secrets", "403"]).await;
    assert!(problem.contains("verbs list and watch on secrets"), "{problem}");
    assert!(!router.is_ready());
    assert_eq!(router.problems().len(), 1);
}

#[tokio::test]
async fn rights_that_are_taken_away_later_leave_the_keys_valid() {
    let (api, router) = blue_running().await;
    api.apply([
        annotated(mk_service("ml/blue", "iris/blue"), "auth-mode", "key"),
        mk_secret("ml/k", "iris", "czNjcmV0"),
    ]);
    router.reads(&["iris@ml blue: 10.0.0.1:5001 [1 keys]"]).await;
    api.refuse("secrets", Some(403));
    router.complains(&["kubernetes secrets", "403"]).await;
    api.apply([mk_slice("ml/blue-1", "blue", &["10.0.0.2"])]);
    router.reads(&["iris@ml blue: 10.0.0.2:5001 [1 keys]"]).await;
}

#[tokio::test]
async fn long_lists_come_in_pages() {
    let api = FakeApi::start().await;
    api.set_page(3);
    for n in 0..10 {
        api.apply([mk_service(&format!("ml/s{n}"), &format!("end{n}/blue"))]);
    }
    let router = Running::start(vec![cluster(&api)], &[]);
    router.is_ready_soon().await;
    assert_eq!(router.read().len(), 10);
    assert_eq!(api.lists("services"), 4);
}

#[tokio::test]
async fn events_that_trickle_in_are_put_together() {
    let api = FakeApi::start().await;
    api.set_trickle();
    let router = Running::start(vec![cluster(&api)], &[]);
    router.is_ready_soon().await;
    api.apply(blue());
    router.reads(&["iris@ml blue: 10.0.0.1:5001"]).await;
}

#[tokio::test]
async fn only_the_namespaces_that_were_named_are_looked_at() {
    let api = FakeApi::start().await;
    api.apply(blue());
    api.apply([mk_service("lab/a", "wine/red"), mk_service("other/b", "tea/green")]);
    let router = Running::start(vec![cluster(&api)], &["ml", "lab"]);
    router.reads(&["iris@ml blue: 10.0.0.1:5001", "wine@lab red:"]).await;
    assert_eq!(api.lists("services"), 2);
    api.apply([mk_service("other/c", "milk/white"), mk_service("lab/d", "wine/white")]);
    router.reads(&["iris@ml blue: 10.0.0.1:5001", "wine@lab red:", "wine@lab white:"]).await;
}

#[tokio::test]
async fn a_wrong_annotation_keeps_the_last_good_value_and_harms_nobody_else() {
    let (api, router) = blue_running().await;
    let timeout = || {
        let snapshot = router.store.load_full();
        let endpoint = snapshot.find(scorefront::core::facts::Form::Endpoint, "iris").cloned();
        endpoint.and_then(|e| e.deployment("blue").map(|d| d.settings.request_timeout))
    };
    let service = |value| annotated(mk_service("ml/blue", "iris/blue"), "request-timeout-ms", value);
    api.apply([service("700")]);
    eventually("the new time-out", || (timeout() == Some(Duration::from_millis(700))).then_some(())).await;
    api.apply([service("soon"), mk_service("ml/x", "wine/red")]);
    let problem = router.complains(&["ml/blue", "request-timeout-ms"]).await;
    assert_eq!(problem, "Service ml/blue: scorefront.dev/request-timeout-ms: \"soon\" is not allowed: 1 to 300000");
    router.reads(&["iris@ml blue: 10.0.0.1:5001", "wine@ml red:"]).await;
    assert_eq!(timeout(), Some(Duration::from_millis(700)));
    api.apply([service("800")]);
    router.complains_no_more().await;
    assert_eq!(timeout(), Some(Duration::from_millis(800)));
}

#[tokio::test]
async fn the_router_itself_cannot_be_named_as_a_replica() {
    let (api, router) = blue_running().await;
    api.apply([mk_slice("ml/blue-1", "blue", &["127.0.0.1", "10.0.0.1"])]);
    router.complains(&["EndpointSlice ml/blue-1", "127.0.0.1"]).await;
    router.reads(&["iris@ml blue: 10.0.0.1:5001"]).await;
}

#[tokio::test]
async fn a_check_loads_once_or_says_what_it_waits_for() {
    let api = FakeApi::start().await;
    api.apply(blue());
    let discovery = Discovery {
        sources: vec![cluster(&api)],
        namespaces: vec![],
        workers: 1,
        router: Default::default(),
        state_file: None,
    };
    let (snapshot, problems) = discovery::load(discovery.clone(), Duration::from_secs(20)).await.expect("complete");
    assert_eq!((snapshot.endpoints().count(), problems.len()), (1, 0));
    api.refuse("secrets", Some(403));
    let (waiting, problems) = not_in_time(discovery).await;
    assert!(waiting.contains("kubernetes secrets"), "{waiting}");
    assert!(problems[0].message.contains("grant"), "{problems:?}");
}
