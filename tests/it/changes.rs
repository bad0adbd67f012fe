//! The world changes while requests run.

use scorefront::testing::client::{request, score};
use scorefront::testing::eventually;
use scorefront::testing::replica::{ScriptedReplica, ok};
use scorefront::testing::router::Router;
use scorefront::testing::world::World;

#[tokio::test]
async fn a_rotated_key_is_refused_and_the_other_one_never_is() {
    let replica = ScriptedReplica::start(|_| ok("in")).await;
    let world = World::new().deployment("blue", &[], &[replica.address]);
    let router = Router::start(&world).await;
    let path = "/api/v1/endpoint/iris/score";
    let ask = async |key: &str| {
        let header = format!("Authorization: Bearer {key}");
        router.client().await.ask(request("POST", path, &[&header], "")).await.status
    };
    assert_eq!((ask("secret-1").await, ask("secret-2").await, ask("secret-3").await), (200, 200, 401));
    router.change(&world.with_primary_key("secret-3")).await;
    assert_eq!((ask("secret-1").await, ask("secret-2").await, ask("secret-3").await), (401, 200, 200));
    router.drain().await;
}

#[tokio::test]
async fn an_object_that_becomes_wrong_keeps_its_last_good_setting_and_is_reported() {
    let replica = ScriptedReplica::start(|_| ok("fine")).await;
    let with = |slots: &str| {
        World::new().deployment("blue", &[("max-concurrent-requests-per-instance", slots)], &[replica.address])
    };
    let router = Router::start(&with("7")).await;
    assert_eq!(router.deployment("blue").settings.slots_per_replica, 7);
    router.rewrite(&with("seven"));
    eventually("the problem is shown", async || router.admin("/debug/snapshot").await.1.contains("seven")).await;
    assert_eq!(router.deployment("blue").settings.slots_per_replica, 7);
    assert_eq!(router.metric("scorefront_discovery_invalid_objects{kind=\"Service\"}").await, 1.0);
    assert_eq!(router.client().await.ask(score("")).await.status, 200);
    router.drain().await;
}

#[tokio::test]
async fn a_replica_that_flaps_keeps_its_slots() {
    let permits = std::sync::Arc::new(tokio::sync::Semaphore::new(0));
    let script = permits.clone();
    let replica = ScriptedReplica::start(move |_| {
        let wait = scorefront::testing::replica::Step::Wait(script.clone());
        [vec![wait], ok("done")].concat()
    })
    .await;
    let settings = [("request-timeout-ms", "60000"), ("max-queue-wait-ms", "60000")];
    let here = World::new().deployment("blue", &settings, &[replica.address]);
    let router = Router::start(&here).await;
    let (mut first, mut second) = (router.client().await, router.client().await);
    first.send(score("1")).await;
    replica.wait_for(1).await;
    router.change(&World::new().deployment("blue", &settings, &[])).await;
    router.change(&here).await;
    assert_eq!(router.taken("blue"), 1, "it is still at work, whatever happened meanwhile");
    second.send(score("2")).await;
    router.wait_for_queue("blue", 1).await;
    permits.add_permits(2);
    assert_eq!((first.answer().await.status, second.answer().await.status), (200, 200));
    router.drain().await;
}
