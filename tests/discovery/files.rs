//! Source `manifests`, against files that change in every way that files do.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use scorefront::control::check;
use scorefront::control::discovery::{self, Discovery, Source};
use scorefront::testing::fake_api::FakeApi;
use scorefront::testing::objects::{annotated, mk_service, mk_slice};
use serde_json::Value;
use tempfile::TempDir;

use crate::harness::{Running, not_in_time};

fn text(objects: &[Value]) -> String {
    objects.iter().map(|object| format!("---\n{object}\n")).collect()
}

fn blue(address: &str) -> String {
    text(&[mk_service("ml/blue", "iris/blue"), mk_slice("ml/blue-1", "blue", &[address])])
}

fn source(dir: &Path) -> Source {
    Source::Manifests(dir.to_owned())
}

async fn blue_running() -> (TempDir, Running) {
    let dir = tempfile::tempdir().expect("a directory");
    fs::write(dir.path().join("blue.yaml"), blue("127.0.0.1")).expect("a file");
    let router = Running::start(vec![source(dir.path())], &[]);
    router.reads(&["iris@ml blue: 127.0.0.1:5001"]).await;
    router.is_ready_soon().await;
    (dir, router)
}

#[tokio::test]
async fn files_that_are_written_swapped_and_removed_are_followed() {
    let (dir, router) = blue_running().await;
    let path = dir.path().join("blue.yaml");
    fs::write(&path, blue("127.0.0.2")).expect("written in place");
    router.reads(&["iris@ml blue: 127.0.0.2:5001"]).await;
    fs::write(dir.path().join(".new"), blue("127.0.0.3")).expect("written aside");
    fs::rename(dir.path().join(".new"), &path).expect("swapped");
    router.reads(&["iris@ml blue: 127.0.0.3:5001"]).await;
    let red = [mk_service("ml/red", "wine/red")];
    fs::write(dir.path().join("red.json"), red[0].to_string()).expect("a second file");
    router.reads(&["iris@ml blue: 127.0.0.3:5001", "wine@ml red:"]).await;
    fs::remove_file(&path).expect("removed");
    router.reads(&["wine@ml red:"]).await;
    assert!(router.problems().is_empty());
}

#[tokio::test]
async fn a_file_that_does_not_parse_keeps_its_last_good_state() {
    let (dir, router) = blue_running().await;
    fs::write(dir.path().join("red.yaml"), text(&[mk_service("ml/red", "wine/red")])).expect("a second file");
    router.reads(&["iris@ml blue: 127.0.0.1:5001", "wine@ml red:"]).await;
    let whole = blue("127.0.0.9");
    let half = &whole[..whole.len() - 20];
    fs::write(dir.path().join("blue.yaml"), half).expect("half a file");
    router.complains(&["File", "blue.yaml", "line 4", "still counts"]).await;
    fs::write(dir.path().join("red.yaml"), text(&[mk_service("ml/red", "wine/rose")])).expect("the other one");
    router.reads(&["iris@ml blue: 127.0.0.1:5001", "wine@ml rose:"]).await;
    fs::write(dir.path().join("blue.yaml"), whole).expect("the rest");
    router.reads(&["iris@ml blue: 127.0.0.9:5001", "wine@ml rose:"]).await;
    router.complains_no_more().await;
}

#[tokio::test]
async fn the_linked_directories_of_the_kubelet_are_followed() {
    let dir = tempfile::tempdir().expect("a directory");
    let version = |name: &str, content: &str| {
        fs::create_dir(dir.path().join(name)).expect("a version");
        fs::write(dir.path().join(name).join("blue.yaml"), content).expect("a file");
    };
    version("..1", &blue("127.0.0.1"));
    symlink("..1", dir.path().join("..data")).expect("a link");
    symlink("..data/blue.yaml", dir.path().join("blue.yaml")).expect("a link");
    let router = Running::start(vec![source(dir.path())], &[]);
    router.reads(&["iris@ml blue: 127.0.0.1:5001"]).await;
    version("..2", &blue("127.0.0.2"));
    symlink("..2", dir.path().join("..data_tmp")).expect("a link");
    fs::rename(dir.path().join("..data_tmp"), dir.path().join("..data")).expect("swapped");
    fs::remove_dir_all(dir.path().join("..1")).expect("removed");
    router.reads(&["iris@ml blue: 127.0.0.2:5001"]).await;
    assert!(router.problems().is_empty());
}

#[tokio::test]
async fn a_directory_that_vanishes_leaves_everything_served() {
    let (dir, router) = blue_running().await;
    let aside = tempfile::tempdir().expect("a place");
    fs::rename(dir.path(), aside.path().join("gone")).expect("moved away");
    router.complains(&["File", "directory: cannot be read", "still counts"]).await;
    assert!(router.has("iris") && router.is_ready());
    fs::rename(aside.path().join("gone"), dir.path()).expect("moved back");
    router.complains_no_more().await;
    assert!(router.has("iris"));
    assert_eq!(router.publications(), 1);
}

#[tokio::test]
async fn a_directory_that_is_not_there_yet_is_waited_for() {
    let dir = tempfile::tempdir().expect("a directory");
    let later = dir.path().join("later");
    let router = Running::start(vec![source(&later)], &[]);
    router.complains(&["later", "cannot be read"]).await;
    assert!(!router.is_ready());
    fs::create_dir(&later).expect("a directory");
    fs::write(later.join("a.yml"), blue("127.0.0.1")).expect("a file");
    router.reads(&["iris@ml blue: 127.0.0.1:5001"]).await;
    router.is_ready_soon().await;
}

#[tokio::test]
async fn an_object_in_two_places_counts_where_it_is_named_first() {
    let api = FakeApi::start().await;
    api.apply([mk_service("ml/blue", "iris/blue"), mk_slice("ml/blue-1", "blue", &["10.0.0.1"])]);
    let dir = tempfile::tempdir().expect("a directory");
    fs::write(dir.path().join("a.yaml"), blue("127.0.0.1")).expect("a file");
    let router = Running::start(vec![source(dir.path()), Source::Cluster(Box::new(api.config()))], &[]);
    router.reads(&["iris@ml blue: 127.0.0.1:5001"]).await;
    router.complains(&["Service ml/blue", "a.yaml", "kubernetes services", "only the first counts"]).await;
    fs::remove_file(dir.path().join("a.yaml")).expect("removed");
    router.reads(&["iris@ml blue: 10.0.0.1:5001"]).await;
    router.complains_no_more().await;
}

#[tokio::test]
async fn objects_of_other_namespaces_than_those_named_are_passed_over() {
    let dir = tempfile::tempdir().expect("a directory");
    let red = mk_service("other/red", "wine/red");
    fs::write(dir.path().join("a.yaml"), blue("127.0.0.1") + &text(&[red])).expect("a file");
    let router = Running::start(vec![source(dir.path())], &["ml"]);
    router.reads(&["iris@ml blue: 127.0.0.1:5001"]).await;
}

#[tokio::test]
async fn manifests_at_hand_are_served_at_once() {
    let embedded = Source::Text { name: "quickstart".into(), text: blue("127.0.0.1") };
    let router = Running::start(vec![embedded], &[]);
    router.reads(&["iris@ml blue: 127.0.0.1:5001"]).await;
    router.is_ready_soon().await;
    let before = router.in_step_us();
    assert!(before > 0);
}

#[tokio::test]
async fn a_check_prints_a_table_and_one_line_for_each_problem() {
    let dir = tempfile::tempdir().expect("a directory");
    let objects = [
        annotated(mk_service("ml/blue", "iris/blue"), "traffic-percent", "90"),
        annotated(annotated(mk_service("ml/green", "iris/green"), "traffic-percent", "20"), "max-queue-length", "-1"),
        mk_slice("ml/blue-1", "blue", &["127.0.0.1", "127.0.0.2"]),
    ];
    fs::write(dir.path().join("a.yaml"), text(&objects)).expect("a file");
    fs::write(dir.path().join("b.yaml"), "kind: [").expect("a file");
    let discovery = Discovery {
        sources: vec![source(dir.path())],
        namespaces: vec![],
        workers: 1,
        router: Default::default(),
        state_file: None,
    };
    let (snapshot, problems) = discovery::load(discovery, Duration::from_secs(20)).await.expect("complete");
    let printed = check::render(&snapshot, &problems);
    let lines: Vec<_> = printed.lines().collect();
    assert!(lines[0].starts_with("KIND"), "{printed}");
    let words = |line: &str| {
        line.split("  ").filter(|cell| !cell.is_empty()).map(|cell| cell.trim().to_owned()).collect::<Vec<_>>()
    };
    let blue = [
        "endpoint",
        "iris",
        "ml",
        "blue",
        "90 of 110",
        "-",
        "1 each",
        "1000 for 500 ms",
        "5000 ms",
        "/score",
        "open",
        "2 ready (127.0.0.1:5001, 127.0.0.2:5001)",
    ];
    assert_eq!(words(lines[1]), blue);
    assert_eq!(words(lines[2])[11], "0 ready");
    assert_eq!(lines.iter().filter(|line| line.starts_with("problem: ")).count(), 3, "{printed}");
    assert!(printed.contains("b.yaml: line 1: "), "{printed}");
    assert!(printed.contains("scorefront.dev/max-queue-length: \"-1\" is not allowed: 0 to 100000"), "{printed}");
    let missing = Discovery {
        sources: vec![source(&dir.path().join("nowhere"))],
        namespaces: vec![],
        workers: 1,
        router: Default::default(),
        state_file: None,
    };
    let (waiting, problems) = not_in_time(missing).await;
    assert!(waiting.contains("nowhere") && problems.len() == 1, "{waiting} {problems:?}");
}
