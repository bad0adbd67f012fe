//! A whole router that is stopped and started again while the API server is away: clients must not notice.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use scorefront::control::config::{Config, Source};
use scorefront::testing::client::request;
use scorefront::testing::eventually;
use scorefront::testing::fake_api::FakeApi;
use scorefront::testing::objects::{annotated, mk_secret, mk_service, mk_slice};
use scorefront::testing::replica::{ScriptedReplica, ok};
use scorefront::testing::router::Router;
use scorefront::testing::world::World;
use serde_json::Value;

/// A kubeconfig for the scripted server.
fn kubeconfig(api: &FakeApi) -> String {
    let server = api.config().cluster_url;
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: c\ncontexts: [{{name: c, context: {{cluster: c, user: u}}}}]\n\
         clusters: [{{name: c, cluster: {{server: \"{server}\"}}}}]\nusers: [{{name: u, user: {{}}}}]\n"
    )
}

/// Services and Secrets come from the API server, slices from files: no API server may name loopback addresses.
fn configured(folder: &Path) -> impl FnOnce(&mut Config) + use<> {
    let folder = folder.to_owned();
    move |config| {
        config.sources = vec![Source::Kubernetes, Source::Manifests(folder.join("slices"))];
        config.kubeconfig = Some(folder.join("kubeconfig"));
        config.state_file = Some(folder.join("world"));
        config.state_key_file = Some(folder.join("secret"));
    }
}

fn service(name: &str) -> Value {
    annotated(mk_service(&format!("ml/{name}"), &format!("iris/{name}")), "auth-mode", "key")
}

/// The secondary key is `secret-2` whatever the primary one is.
fn keys(primary_base64: &str) -> Value {
    let mut secret = mk_secret("ml/keys", "iris", primary_base64);
    secret["data"]["secondaryKey"] = "c2VjcmV0LTI=".into();
    secret
}

fn slice(name: &str, replica: &ScriptedReplica) -> String {
    let mut slice = mk_slice(&format!("ml/{name}-1"), name, &["127.0.0.1"]);
    slice["ports"][0]["port"] = replica.address.port().into();
    slice.to_string()
}

async fn status(router: &Router, key: &str) -> (u16, String) {
    let mut client = router.client().await;
    let authorization = format!("Authorization: Bearer {key}");
    let headers = [authorization.as_str(), "Connection: close"];
    let answer = client.ask(request("POST", "/api/v1/endpoint/iris/score", &headers, "{}")).await;
    (answer.status, answer.text())
}

#[tokio::test]
async fn clients_of_a_restored_world_are_served_by_its_keys_and_then_by_the_new_ones() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(folder.path().join("slices")).expect("a folder");
    let (blue, green) = (ScriptedReplica::start(|_| ok("blue")).await, ScriptedReplica::start(|_| ok("green")).await);
    let slices =
        |name, replica| std::fs::write(folder.path().join(format!("slices/{name}.json")), slice(name, replica));
    slices("blue", &blue).expect("writes");
    let api = FakeApi::start().await;
    std::fs::write(folder.path().join("kubeconfig"), kubeconfig(&api)).expect("writes");
    std::fs::write(folder.path().join("secret"), "what nobody guesses, 32 bytes or more\n").expect("writes");
    // "secret-1"
    api.apply([service("blue"), keys("c2VjcmV0LTE=")]);

    let router = Router::start_with(&World::new(), configured(folder.path())).await;
    assert_eq!(status(&router, "secret-1").await, (200, "blue".into()));
    let saved = async || router.metric("scorefront_state_file_saves_total").await >= 1.0;
    eventually("the world is kept", saved).await;
    assert!(router.metric("scorefront_state_file_size_bytes").await > 100.0);
    assert_eq!(router.admin("/readyz").await, (200, "ready\n".into()));
    router.drain().await;
    let file = folder.path().join("world");
    let text = std::fs::read_to_string(&file).expect("reads");
    assert!(!text.contains("secret-1") && !text.contains("c2VjcmV0"), "{text}");
    assert_eq!(std::fs::metadata(&file).expect("is there").permissions().mode() & 0o7777, 0o600);

    api.go_down();
    let router = Router::start_with(&World::new(), configured(folder.path())).await;
    for key in ["secret-1", "secret-2"] {
        assert_eq!(status(&router, key).await, (200, "blue".into()), "{key}");
    }
    for key in ["secret-3", "Secret-1", "c2VjcmV0LTE="] {
        assert_eq!(status(&router, key).await.0, 401, "{key}");
    }
    let (code, text) = router.admin("/readyz").await;
    assert!(code == 200 && text.starts_with("ready\nserving a restored world, "), "{text}");
    assert_eq!(router.metric("scorefront_discovery_restored").await, 1.0);
    assert!(router.metric("scorefront_discovery_age_seconds").await > 0.0);
    assert!(router.admin("/debug/snapshot").await.1.contains("\"restored\": true"));

    // The primary key was changed meanwhile, and another deployment takes the traffic. "secret-9"
    slices("green", &green).expect("writes");
    let share = |name, percent| annotated(service(name), "traffic-percent", percent);
    api.apply([share("blue", "0"), share("green", "100"), keys("c2VjcmV0LTk=")]);
    api.come_up().await;
    // All the while a client goes on with the key that stays valid.
    let mut answers = Vec::new();
    while answers.last().is_none_or(|(_, text)| text != "green") {
        answers.push(status(&router, "secret-2").await);
        assert!(answers.len() < 100_000, "the live world is never served");
    }
    assert!(answers.iter().all(|(code, _)| *code == 200), "{answers:?}");
    // Secrets may have been listed a moment later than what they open.
    let is_live = async || router.admin("/readyz").await == (200, "ready\n".into());
    eventually("the world is live", is_live).await;
    assert_eq!(status(&router, "secret-1").await.0, 401);
    assert_eq!(status(&router, "secret-9").await, (200, "green".into()));
    assert_eq!(router.admin("/readyz").await, (200, "ready\n".into()));
    assert_eq!(router.metric("scorefront_discovery_restored").await, 0.0);
    router.drain().await;
}

#[test]
fn a_disk_without_room_harms_nobody() {
    let folder = tempfile::tempdir().expect("a folder");
    let manifests = folder.path().join("manifests");
    std::fs::create_dir(&manifests).expect("a folder");
    let objects = (0..20).map(|n| mk_service(&format!("ml/s{n}"), &format!("end{n}/blue")).to_string());
    std::fs::write(manifests.join("all.yaml"), objects.collect::<Vec<_>>().join("\n---\n")).expect("writes");
    let file = folder.path().join("world");
    std::fs::write(&file, "old").expect("writes");
    // No file of the process may be longer than 1 KiB; without the trap the kernel would end it.
    let script = "trap '' XFSZ; ulimit -f 1; exec \"$0\" \"$@\"";
    let mut router = Command::new("bash")
        .args(["-c", script, env!("CARGO_BIN_EXE_scorefront"), "serve", "--access-log", "off"])
        .args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--workers", "1", "--drain-grace-ms", "0"])
        .arg(format!("--source=manifests:{}", manifests.display()))
        .arg(format!("--state-file={}", file.display()))
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts");
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(router.stderr.take().expect("a pipe")));
    let mut log = String::new();
    let mut until = |word: &str| {
        while !log.contains(word) {
            let line = lines.next().and_then(Result::ok);
            log.push_str(&line.unwrap_or_else(|| panic!("ended without {word:?}: {log}")));
            log.push('\n');
        }
    };
    until("cannot be written");
    until("File too large");
    // It still runs, and ends as asked.
    assert!(router.try_wait().expect("is ours").is_none());
    let ended = Command::new("kill").arg(router.id().to_string()).status().expect("runs");
    assert!(ended.success());
    until("drained");
    assert!(router.wait().expect("is ours").success());
    let left: Vec<_> =
        std::fs::read_dir(folder.path()).expect("reads").map(|e| e.expect("an entry").file_name()).collect();
    assert_eq!(left.len(), 2, "no draft is left: {left:?}");
    assert_eq!(std::fs::read_to_string(&file).expect("reads"), "old");
}
