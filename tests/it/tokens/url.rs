//! Keys for tokens that are fetched from a URL: taken up, renewed, kept while the server is away, and no longer.

use std::time::{Duration, Instant};

use scorefront::control::config::Tokens;
use scorefront::control::tokens::check;
use scorefront::testing::eventually;
use scorefront::testing::router::Router;
use scorefront::testing::world::World;

use super::issuer::Issuer;
use super::server::{Reply, Server};
use super::{DAY, ask, problem, start_with, world};
use crate::tls::peer::{Authority, ECDSA};

const HOUR: Duration = Duration::from_secs(3600);

/// Often enough for a test to wait for it.
const OFTEN: Duration = Duration::from_millis(20);

/// Where a server without TLS has its keys.
fn plain(server: &Server) -> String {
    format!("http://{}/keys?v=1", server.address)
}

/// A router that fetches from there, from time to time.
async fn fetch(world: &World, url: &str, interval: Duration) -> Router {
    let url = url.parse().unwrap();
    start_with(world, DAY, |config| {
        config.tokens.url = Some(url);
        config.tokens.interval = interval;
        config.tokens.interval_min = OFTEN;
    })
    .await
}

async fn fetches(router: &Router, result: &str) -> f64 {
    router.metric(&format!("scorefront_token_keys_fetches_total{{result=\"{result}\"}}")).await
}

#[tokio::test]
async fn keys_are_there_before_the_router_is_ready_and_are_renewed_at_the_interval() {
    let (_replica, world) = world().await;
    let (old, new) = (Issuer::new(), Issuer::new());
    let server = Server::start(Reply::Text(old.keys())).await;
    let router = fetch(&world, &plain(&server), OFTEN).await;
    let (old, new_token) = (old.token("iris", 600), new.token("iris", 600));
    assert_eq!((ask(&router, &old).await.status, ask(&router, &new_token).await.status), (200, 401));
    eventually("the same keys came again", async || fetches(&router, "unchanged").await > 0.0).await;
    assert_eq!(router.metric("scorefront_token_keys_renewals_total").await, 0.0);
    server.reply(Reply::Text(new.keys()));
    eventually("the new key counts", async || ask(&router, &new_token).await.status == 200).await;
    assert_eq!(ask(&router, &old).await.status, 401);
    assert_eq!((fetches(&router, "changed").await, fetches(&router, "failed").await), (2.0, 0.0));
    let first = server.seen()[0].to_ascii_lowercase();
    assert!(first.starts_with("get /keys?v=1 http/1.1\r\n"), "{first}");
    assert!(first.contains(&format!("\r\nhost: {}\r\n", server.address)), "{first}");
    assert!(!first.contains("authorization") && !first.contains("if-none-match"), "{first}");
    let (_, page) = router.admin("/debug/tokens").await;
    let page: serde_json::Value = serde_json::from_str(&page).unwrap();
    assert_eq!(page["source"], format!("token-jwks-url {}", plain(&server)));
    assert_eq!((&page["keys"][0]["kid"], &page["problem"]), (&"a".into(), &serde_json::Value::Null));
    router.drain().await;
}

#[tokio::test]
async fn a_server_that_knows_versions_is_asked_for_news_only() {
    let (_replica, world) = world().await;
    let (old, new) = (Issuer::new(), Issuer::new());
    let server = Server::start(Reply::Marked("ETag: \"one\"\r\nCache-Control: max-age=0\r\n", old.keys())).await;
    // It says that its answer holds for no time, so it is asked again long before the interval is over.
    let router = fetch(&world, &plain(&server), HOUR).await;
    server.reply(Reply::Raw(b"HTTP/1.1 304 Not Modified\r\nCache-Control: max-age=0\r\n\r\n".to_vec()));
    eventually("nothing is new", async || fetches(&router, "unchanged").await > 2.0).await;
    assert_eq!(ask(&router, &old.token("iris", 600)).await.status, 200);
    let seen = server.seen();
    let asks_for_news = |head: &String| head.to_ascii_lowercase().contains("\r\nif-none-match: \"one\"\r\n");
    assert!(!asks_for_news(&seen[0]) && seen[1..].iter().all(asks_for_news), "{seen:?}");
    server.reply(Reply::Text(new.keys()));
    eventually("the new key counts", async || ask(&router, &new.token("iris", 600)).await.status == 200).await;
    router.drain().await;
}

#[tokio::test]
async fn a_token_with_an_unknown_key_is_refused_and_has_the_keys_fetched() {
    let (_replica, world) = world().await;
    let (old, new) = (Issuer::named("old"), Issuer::named("new"));
    let server = Server::start(Reply::Text(old.keys())).await;
    let router = fetch(&world, &plain(&server), HOUR).await;
    server.reply(Reply::Text(new.keys()));
    let got = ask(&router, &new.token("iris", 600)).await;
    assert_eq!(got.status, 401);
    assert!(got.error("message").contains("no key of the key set"), "{}", got.text());
    eventually("the new key counts", async || ask(&router, &new.token("iris", 600)).await.status == 200).await;
    assert_eq!(ask(&router, &old.token("iris", 600)).await.status, 401);
    assert!(router.metric("scorefront_token_keys_early_fetches_total").await > 0.0);
    router.drain().await;
}

#[tokio::test]
async fn tokens_with_unknown_keys_do_not_make_the_router_hammer_the_issuer() {
    const INTERVAL_MIN: Duration = Duration::from_millis(300);
    let (_replica, world) = world().await;
    let stranger = Issuer::named("stranger").token("iris", 600);
    let server = Server::start(Reply::Text(Issuer::new().keys())).await;
    let url = plain(&server).parse().unwrap();
    let start = Instant::now();
    let router = start_with(&world, DAY, |config| {
        config.tokens.url = Some(url);
        config.tokens.interval = HOUR;
        config.tokens.interval_min = INTERVAL_MIN;
    })
    .await;
    eventually("they brought about some fetches", async || {
        for _ in 0..20 {
            assert_eq!(ask(&router, &stranger).await.status, 401);
        }
        server.seen().len() > 3
    })
    .await;
    let asked = server.seen().len();
    let at_most = 1 + start.elapsed().as_millis() / INTERVAL_MIN.as_millis();
    assert!(asked as u128 <= at_most, "{asked} fetches, {at_most} at most");
    router.drain().await;
}

#[tokio::test]
async fn a_server_that_is_away_or_talks_nonsense_changes_nothing_and_is_reported() {
    let (_replica, world) = world().await;
    let (old, new) = (Issuer::new(), Issuer::new());
    let (server, elsewhere) = (Server::start(Reply::Text(old.keys())).await, Server::start(Reply::Nothing).await);
    let url = plain(&server).parse().unwrap();
    let router = start_with(&world, DAY, |config| {
        config.tokens.url = Some(url);
        (config.tokens.interval, config.tokens.interval_min) = (OFTEN, OFTEN);
        config.tokens.timeout = Duration::from_millis(1500);
    })
    .await;
    let token = old.token("iris", 600);
    let raw = |text: &str| Reply::Raw(text.as_bytes().to_vec());
    let redirect = |to: String| raw(&format!("HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n"));
    let symmetric = r#"{"keys":[{"kty":"oct","kid":"a","k":"c2VjcmV0","alg":"HS256"}]}"#;
    let chunk = format!("1000\r\n{}\r\n", " ".repeat(4096));
    let endless = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{}", chunk.repeat(80));
    for (reply, complaint) in [
        (Reply::Nothing, "gave no answer"),
        (raw("SSH-2.0-server\r\n"), "gave no answer"),
        (raw(&format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(64 << 10))), "gave no answer"),
        (raw("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"), "broke off its answer"),
        (raw("HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n"), "answers with status 500"),
        (raw("HTTP/1.1 304 Not Modified\r\n\r\n"), "redirect (status 304)"),
        (redirect(plain(&elsewhere)), "redirect (status 302), which is not followed"),
        (redirect("/other".to_owned()), "redirect (status 302), which is not followed"),
        (raw("HTTP/1.1 200 OK\r\nContent-Length: 262145\r\n\r\n"), "more than 262144 bytes"),
        (raw(&endless), "more than 262144 bytes"),
        (Reply::Text("<html>".to_owned()), "is no key set"),
        (Reply::Text(String::new()), "is no key set"),
        (Reply::Text(r#"{"keys":[]}"#.to_owned()), "has no usable key"),
        (Reply::Text(symmetric.to_owned()), "has no usable key"),
        (Reply::Trickle(b"HTTP/1.1 200 OK\r\nX: "), "gave no whole answer within 1500 ms"),
        (Reply::Trickle(b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n "), "gave no whole answer within 1500 ms"),
    ] {
        server.reply(Reply::Text(old.keys()));
        eventually("all is well", async || problem(&router).await.is_empty()).await;
        server.reply(reply);
        eventually(complaint, async || problem(&router).await.contains(complaint)).await;
        assert_eq!(ask(&router, &token).await.status, 200, "{complaint}");
    }
    assert_eq!(elsewhere.seen().len(), 0, "a redirect was followed");
    assert!(fetches(&router, "failed").await >= 16.0);
    server.reply(Reply::Text(new.keys()));
    eventually("the new key counts", async || ask(&router, &new.token("iris", 600)).await.status == 200).await;
    assert_eq!(problem(&router).await, "");
    router.drain().await;
}

#[tokio::test]
async fn keys_that_never_came_or_are_too_old_let_nobody_in_until_the_server_is_back() {
    let (_replica, world) = world().await;
    let issuer = Issuer::new();
    let server = Server::start(Reply::Nothing).await;
    let url = plain(&server).parse().unwrap();
    let router = start_with(&world, Duration::from_millis(1500), |config| {
        config.tokens.url = Some(url);
        (config.tokens.interval, config.tokens.interval_min) = (OFTEN, OFTEN);
    })
    .await;
    let token = issuer.token("iris", 600);
    let got = ask(&router, &token).await;
    assert_eq!((got.status, got.error("message").as_str()), (401, "Unauthorized. The router cannot check tokens now."));
    assert!(router.log(1).await[0]["ErrorDetail"].as_str().unwrap().contains("could be read since the start"));
    server.reply(Reply::Text(issuer.keys()));
    eventually("the keys are there", async || ask(&router, &token).await.status == 200).await;
    server.reply(Reply::Nothing);
    eventually("the keys are too old", async || ask(&router, &token).await.status == 401).await;
    let says_why =
        |line: &serde_json::Value| line["ErrorDetail"].as_str().is_some_and(|why| why.contains("token-stale-max-ms"));
    eventually("the log says why", async || router.log(1).await.iter().any(says_why)).await;
    server.reply(Reply::Text(issuer.keys()));
    eventually("the server is back", async || ask(&router, &token).await.status == 200).await;
    router.drain().await;
}

#[tokio::test]
async fn over_tls_the_server_must_prove_who_it_is() {
    let (_replica, world) = world().await;
    let (authority, other) = (Authority::new(), Authority::new());
    let issuer = Issuer::new();
    let stranger = other.issue(&["localhost"], ECDSA);
    let server = Server::start_with(Reply::Text(issuer.keys()), Some(&stranger)).await;
    // A name, so that it is looked up; it may have addresses where nobody listens.
    let url = format!("https://localhost:{}/keys", server.address.port()).parse().unwrap();
    let ca = authority.write_root();
    let router = start_with(&world, DAY, |config| {
        config.tokens.url = Some(url);
        config.tokens.ca = Some(ca);
        (config.tokens.interval, config.tokens.interval_min) = (OFTEN, OFTEN);
    })
    .await;
    let token = issuer.token("iris", 600);
    assert_eq!(ask(&router, &token).await.status, 401);
    eventually("it is not trusted", async || problem(&router).await.contains("TLS handshake: invalid peer")).await;
    server.show(&authority.issue(&["other.test"], ECDSA));
    eventually("it has another name", async || problem(&router).await.contains("not valid for name")).await;
    assert_eq!((ask(&router, &token).await.status, server.seen().len()), (401, 0));
    server.show(&authority.issue(&["localhost"], ECDSA));
    eventually("it is the right one", async || ask(&router, &token).await.status == 200).await;
    router.drain().await;
}

#[tokio::test]
async fn a_check_fetches_once_and_says_what_is_wrong() {
    let server = Server::start(Reply::Text(Issuer::new().keys())).await;
    let tokens = Tokens { url: Some(plain(&server).parse().unwrap()), ..Tokens::default() };
    assert_eq!(check(&tokens).await, Ok(()));
    for (reply, complaint) in [
        (Reply::Text("{}".to_owned()), "is no key set: it has no list of keys"),
        (Reply::Raw(b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n".to_vec()), "answers with status 404"),
    ] {
        server.reply(reply);
        let told = check(&tokens).await.unwrap_err();
        assert!(told.starts_with(&format!("--token-jwks-url {}: {complaint}", plain(&server))), "{told}");
    }
    assert_eq!(server.seen().len(), 3);
}
