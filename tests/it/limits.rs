//! Limits that one client, one request or one deployment could reach: who is over one is told which, and nobody else
//! notices.

use scorefront::testing::client::score;
use scorefront::testing::replica::{ScriptedReplica, ok};
use scorefront::testing::router::Router;
use scorefront::testing::world::World;

const HEAD: &str = "POST /api/v1/endpoint/iris/score HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer secret-1\r\n";

#[tokio::test]
async fn a_deployment_has_its_own_limit_on_bodies_and_the_smaller_one_counts() {
    let replica = ScriptedReplica::start(|_| ok("fine")).await;
    for (router_max, own_max, whose) in
        [(1 << 20, "2000", "scorefront.dev/max-body-bytes (2000)"), (2000, "1048576", "over max-body-bytes (2000)")]
    {
        let world = World::new().deployment("blue", &[("max-body-bytes", own_max)], &[replica.address]);
        let router = Router::start_with(&world, |config| config.limits.body_bytes_max = router_max).await;
        assert_eq!(router.client().await.ask(score(&"x".repeat(2000))).await.status, 200);
        let before = replica.seen().len();
        // Not a byte of the body was sent: it is refused by its length.
        let mut client = router.client().await;
        let got = client.ask(format!("{HEAD}Content-Length: 2001\r\n\r\n")).await;
        assert_eq!((got.status, got.error("code").as_str()), (413, "RequestBodyTooLarge"));
        assert!(got.error("message").contains(whose), "{}", got.text());
        assert_eq!(replica.seen().len(), before, "it went to no replica");
        // Without a length it is cut off on the way.
        let mut client = router.client().await;
        client.send(format!("{HEAD}Transfer-Encoding: chunked\r\n\r\n")).await;
        client.try_send(format!("7d1\r\n{}\r\n", "x".repeat(2001))).await;
        assert_eq!((client.answer().await.status, client.is_closed().await), (413, true));
        assert_eq!(replica.seen().iter().filter(|seen| seen.body.len() > 2000).count(), 0);
        router.drain().await;
    }
}
