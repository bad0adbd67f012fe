//! Limits of keys, where there are no keys but subjects of tokens.

use std::sync::Arc;
use std::time::Instant;

use scorefront::core::facts::Form;
use scorefront::testing::client::Client;
use scorefront::testing::replica::{Step, answer};
use tokio::sync::Semaphore;

use super::*;

const ENDLESS: (&str, &str) = ("max-concurrent-requests-per-instance", "0");

/// A router with one endpoint that asks for tokens of the issuer and has these annotations, and the folder of its keys.
async fn router(
    issuer: &Issuer,
    replica: &ScriptedReplica,
    limits: &[(&str, &str)],
    change: impl FnOnce(&mut Config),
) -> (Router, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("jwks.json");
    issuer.publish(&path);
    let annotations: Vec<_> = [("auth-mode", "aml_token"), ENDLESS].iter().chain(limits).copied().collect();
    let world = World::new().deployment("blue", &annotations, &[replica.address]);
    let router = start_with(&world, DAY, |config| {
        config.tokens.file = Some(path.clone());
        change(config);
    });
    (router.await, folder)
}

async fn send(client: &mut Client, token: &str, body: &str) {
    let header = format!("Authorization: Bearer {token}");
    client.send(request("POST", "/api/v1/endpoint/iris/score", &[&header], body)).await;
}

fn under_way(router: &Router) -> (usize, u32) {
    let snapshot = router.snapshot.load();
    snapshot.find(Form::Endpoint, "iris").unwrap().limiter.meters.subjects.under_way()
}

fn series(name: &str) -> String {
    format!("{name}{{form=\"endpoint\",endpoint=\"iris\"}}")
}

#[tokio::test]
async fn a_subject_at_its_limit_is_told_so_whatever_its_token_and_nobody_else_is() {
    let gate = Arc::new(Semaphore::new(0));
    let waiting = gate.clone();
    let replica =
        ScriptedReplica::start(move |_| vec![Step::Wait(waiting.clone()), Step::Send(answer(200, &[], "[1]"))]).await;
    let issuer = Issuer::new();
    let (router, _folder) = router(&issuer, &replica, &[("key-rate-limit-concurrent", "1")], |_| ()).await;
    let (mut ann, mut bob) = (router.client().await, router.client().await);
    send(&mut ann, &issuer.token_of("ann.secret"), "").await;
    replica.wait_for(1).await;
    // Another token of the same subject, signed anew.
    let refused = ask(&router, &issuer.token_of("ann.secret")).await;
    assert_eq!((refused.status, refused.header("x-scorefront-limit")), (429, Some("key-concurrency")));
    assert_eq!(refused.header("retry-after"), Some("1"));
    let message = refused.error("message");
    assert!(
        message.contains("clients with tokens of this subject are over key-rate-limit-concurrent (1)"),
        "{message}"
    );
    send(&mut bob, &issuer.token_of("bob"), "").await;
    replica.wait_for(2).await;
    assert_eq!(under_way(&router), (2, 2));
    gate.add_permits(100);
    assert_eq!((ann.answer().await.status, bob.answer().await.status), (200, 200));
    eventually("nothing counts as under way", async || under_way(&router) == (0, 0)).await;
    assert_eq!(ask(&router, &issuer.token_of("ann.secret")).await.status, 200);
    let log = router.log(4).await;
    assert!(!log.iter().any(|line| line.to_string().contains("ann.secret")), "{log:?}");
    router.drain().await;
}

#[tokio::test]
async fn a_flood_of_subjects_frees_none_that_is_over_its_limit() {
    let (issuer, replica) = (Issuer::new(), ScriptedReplica::start(|_| ok("in")).await);
    let limits = [("key-rate-limit-per-second", "1"), ("key-rate-limit-burst", "20")];
    let (router, _folder) = router(&issuer, &replica, &limits, |config| config.limits.token_subjects_max = 8).await;
    let mut client = router.client().await;
    let start = Instant::now();
    // Asks until it is over the limit, and counts what passed before.
    let use_up = async |client: &mut Client| {
        let token = issuer.token_of("ann");
        for passed in 0..1000 {
            send(client, &token, "").await;
            let got = client.answer().await;
            if got.status == 429 {
                assert_eq!(got.header("x-scorefront-limit"), Some("key-rate"));
                return passed;
            }
        }
        panic!("a thousand in some seconds pass");
    };
    let before = use_up(&mut client).await;
    let mut strangers = 0;
    for number in 0..400 {
        send(&mut client, &issuer.token_of(&format!("stranger {}", number / 20)), "").await;
        strangers += u32::from(client.answer().await.status == 200);
    }
    let after = use_up(&mut client).await;
    let seconds = u32::try_from(start.elapsed().as_secs()).unwrap();
    assert!(before + after <= 20 + seconds + 1, "{before} and {after} in {seconds} s");
    assert!(strangers >= 7, "{strangers} found a place");
    assert!(router.metric(&series("scorefront_token_subjects")).await <= 8.0);
    assert_eq!(router.metric("scorefront_token_subjects_limit").await, 8.0);
    assert!(router.metric(&series("scorefront_token_subjects_crowded_total")).await > 0.0);
    router.drain().await;
}
