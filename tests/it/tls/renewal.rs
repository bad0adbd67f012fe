//! Certificates that change while the router runs.

use scorefront::testing::client::{Client, score};
use scorefront::testing::eventually;
use scorefront::testing::router::Router;
use serde_json::Value;

use super::echo;
use super::peer::{Authority, ECDSA, Issued, RSA, connect, shown, start, swap};

/// Waits until new clients see this certificate.
async fn shows(router: &Router, authority: &Authority, expected: &Issued) {
    eventually("the certificate is shown", async || {
        let stream = connect(router.tls(), "models.test", authority.plain_client()).await.unwrap();
        shown(&stream) == expected.der.as_ref()
    })
    .await;
}

/// The first entry of `/debug/certificates`.
async fn debug(router: &Router) -> Value {
    let (status, page) = router.admin("/debug/certificates").await;
    assert_eq!(status, 200);
    assert!(!page.contains("PRIVATE"), "{page}");
    serde_json::from_str::<Value>(&page).unwrap()[0].take()
}

#[tokio::test]
async fn a_swap_as_the_kubelet_does_it_is_taken_up_and_connections_that_are_there_go_on() {
    let (_replica, world) = echo().await;
    let authority = Authority::new();
    let (first, second) = (authority.issue(&["models.test"], ECDSA), authority.issue(&["models.test"], RSA));
    for (folder, issued) in [("..1", &first), ("..2", &second)] {
        std::fs::create_dir(authority.path(folder)).unwrap();
        authority.write(&format!("{folder}/tls"), issued);
    }
    let data = authority.path("..data");
    swap(&data, "..1");
    let pair = ["tls.crt", "tls.key"].map(|name| {
        std::os::unix::fs::symlink(format!("..data/{name}"), authority.path(name)).unwrap();
        authority.path(name)
    });
    let router = start(&world, &[pair], |_| {}).await;
    shows(&router, &authority, &first).await;
    let mut old = Client::over(connect(router.tls(), "models.test", authority.plain_client()).await.unwrap());
    assert_eq!(old.ask(score("before")).await.text(), "before");
    swap(&data, "..2");
    shows(&router, &authority, &second).await;
    assert_eq!(old.ask(score("after")).await.text(), "after");
    let entry = debug(&router).await;
    assert_eq!((entry["renewals"].as_u64(), &entry["problem"]), (Some(1), &Value::Null));
    router.drain().await;
}

#[tokio::test]
async fn a_broken_or_mismatched_pair_is_reported_and_the_old_one_stays() {
    let (_replica, world) = echo().await;
    let authority = Authority::new();
    let (first, second) = (authority.issue(&["models.test"], ECDSA), authority.issue(&["models.test"], ECDSA));
    let pair = authority.write("own", &first);
    let router = start(&world, std::slice::from_ref(&pair), |_| {}).await;
    let source = format!("{{source=\"file {}\"}}", pair[0].display());
    let problems = format!("scorefront_tls_certificate_problems{source}");
    assert_eq!(router.metric(&problems).await, 0.0);
    let secret: String = second.key.lines().nth(1).unwrap().chars().take(20).collect();
    for (certificate, key, complaint) in [
        (&second.chain, &first.key, "the key does not belong to the first certificate"),
        (&second.chain, &second.chain, "the key file holds no private key"),
        (&second.key, &second.key, "the certificate file holds no certificate"),
        (
            &second.chain,
            &"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n".to_owned(),
            "the key cannot be used",
        ),
    ] {
        std::fs::write(&pair[0], certificate).unwrap();
        std::fs::write(&pair[1], key).unwrap();
        eventually(complaint, async || {
            let entry = debug(&router).await;
            assert!(!entry.to_string().contains(&secret));
            entry["problem"].as_str().is_some_and(|problem| problem.contains(complaint))
        })
        .await;
        assert_eq!(router.metric(&problems).await, 1.0);
        let stream = connect(router.tls(), "models.test", authority.plain_client()).await.unwrap();
        assert_eq!(shown(&stream), first.der.as_ref());
    }
    authority.write("own", &second);
    shows(&router, &authority, &second).await;
    eventually("nothing is wrong any more", async || router.metric(&problems).await == 0.0).await;
    assert_eq!(router.metric(&format!("scorefront_tls_certificate_renewals_total{source}")).await, 1.0);
    router.drain().await;
}

#[tokio::test]
async fn the_days_that_a_certificate_has_left_are_a_metric() {
    let (_replica, world) = echo().await;
    let authority = Authority::new();
    let mut params = rcgen::CertificateParams::new(["models.test".to_owned()]).unwrap();
    params.not_after = (std::time::SystemTime::now() + std::time::Duration::from_secs(10 * 86_400 + 3600)).into();
    let pair = authority.write("own", &authority.sign(params, ECDSA));
    let router = start(&world, std::slice::from_ref(&pair), |_| {}).await;
    let series = format!("scorefront_tls_certificate_expiry_days{{source=\"file {}\"}}", pair[0].display());
    let days = router.metric(&series).await;
    assert!((10.0..10.1).contains(&days), "{days}");
    let entry = debug(&router).await;
    assert_eq!(entry["in_use"]["names"], serde_json::json!(["models.test"]));
    assert_eq!(entry["in_use"]["days_left"], 10);
    router.drain().await;
}

#[tokio::test]
async fn a_bad_pair_at_start_is_an_error_that_names_the_files_and_check_finds_it() {
    let authority = Authority::new();
    let [certificate, _] = authority.write("own", &authority.issue(&["models.test"], ECDSA));
    let [_, key] = authority.write("other", &authority.issue(&["models.test"], ECDSA));
    let loopback = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    let mut config = scorefront::control::config::Config {
        listen: vec![loopback],
        admin: loopback,
        workers: 1,
        access_log: scorefront::ops::access_log::LogTarget::Off,
        ..Default::default()
    };
    config.tls.listen = vec![loopback];
    config.tls.certificates = vec![certificate];
    config.tls.keys = vec![key];
    let empty = tempfile::tempdir().unwrap();
    config.sources = vec![scorefront::control::config::Source::Manifests(empty.path().to_owned())];
    let (table, is_clean) = scorefront::app::check(&config).await.unwrap();
    assert!(!is_clean && table.contains("the key does not belong to the first certificate"), "{table}");
    let error = scorefront::app::App::bind(config).unwrap_err().to_string();
    assert!(error.contains("own.crt") && error.contains("other.key"), "{error}");
    assert!(error.ends_with("the key does not belong to the first certificate"), "{error}");
}
