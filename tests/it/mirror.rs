//! Copies of requests: never at the primary's cost.

use std::sync::Arc;

use scorefront::testing::client::{request, score};
use scorefront::testing::eventually;
use scorefront::testing::replica::{ScriptedReplica, Step, answer, ok};
use scorefront::testing::router::Router;
use scorefront::testing::world::World;
use tokio::sync::Semaphore;

fn world(primary: &ScriptedReplica, shadow: &ScriptedReplica) -> World {
    World::new()
        .deployment(
            "blue",
            &[("traffic-percent", "100"), ("max-concurrent-requests-per-instance", "0")],
            &[primary.address],
        )
        .deployment(
            "shadow",
            &[("traffic-percent", "0"), ("mirror-percent", "50"), ("request-timeout-ms", "60000")],
            &[shadow.address],
        )
}

#[tokio::test]
async fn a_share_of_requests_is_copied_and_compared() {
    let primary = ScriptedReplica::start(|_| ok("primary")).await;
    let shadow = ScriptedReplica::start(|_| vec![Step::Send(answer(500, &[], "shadow"))]).await;
    let router = Router::start(&world(&primary, &shadow)).await;
    let mut client = router.client().await;
    for n in 0..100 {
        let got = client.ask(score(&n.to_string())).await;
        assert_eq!(
            (got.status, got.text().as_str(), got.header("azureml-model-deployment")),
            (200, "primary", Some("blue"))
        );
    }
    let lines = router.log(100).await;
    let copied = lines.iter().filter(|line| line["Mirrored"] == "shadow").count();
    assert!((20..80).contains(&copied), "{copied}");
    let labels = "form=\"endpoint\",endpoint=\"iris\",deployment=\"shadow\"";
    eventually("copies are compared or skipped", async || {
        let differed =
            router.metric(&format!("scorefront_mirror_comparisons_total{{{labels},result=\"differed\"}}")).await;
        let skipped = router
            .metric(&format!("scorefront_mirrored_requests_total{{{labels},status=\"\",result=\"skipped\"}}"))
            .await;
        (differed + skipped) as usize == copied && differed > 0.0
    })
    .await;
    for seen in shadow.seen() {
        assert!(seen.header("x-request-id").is_some());
        let n: u32 = String::from_utf8(seen.body).unwrap().parse().unwrap();
        assert!(n < 100);
    }
    router.drain().await;
}

#[tokio::test]
async fn a_stuck_shadow_takes_one_slot_and_no_time() {
    let permits = Arc::new(Semaphore::new(0));
    let script = permits.clone();
    let primary = ScriptedReplica::start(|_| ok("primary")).await;
    let shadow =
        ScriptedReplica::start(move |_| vec![Step::Wait(script.clone()), Step::Send(answer(200, &[], ""))]).await;
    let router = Router::start(&world(&primary, &shadow)).await;
    let mut client = router.client().await;
    for _ in 0..60 {
        assert_eq!(client.ask(score("x")).await.text(), "primary");
    }
    assert_eq!((shadow.wait_for(1).await.len(), router.taken("shadow")), (1, 1));
    permits.add_permits(60);
    eventually("the slot is free", async || router.taken("shadow") == 0).await;
    router.drain().await;
}

#[tokio::test]
async fn a_request_that_names_its_deployment_is_not_copied() {
    let primary = ScriptedReplica::start(|_| ok("primary")).await;
    let shadow = ScriptedReplica::start(|_| ok("shadow")).await;
    let router = Router::start(&world(&primary, &shadow)).await;
    let mut client = router.client().await;
    let headers = ["Authorization: Bearer secret-1", "azureml-model-deployment: blue"];
    for _ in 0..40 {
        assert_eq!(client.ask(request("POST", "/api/v1/endpoint/iris/score", &headers, "")).await.status, 200);
    }
    assert!(router.log(40).await.iter().all(|line| line["Mirrored"].is_null()));
    assert!(shadow.seen().is_empty());
    router.drain().await;
}
