//! What operators rely on: every metric, every field of the access log, every setting.
//!
//! Each is compared with a file of this repository. A change is a change of the contract: run with
//! `SCOREFRONT_BLESS=1` to write the files anew, and read the difference.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test that cannot go on must stop")]

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use http::{HeaderValue, Method, StatusCode, Version};
use scorefront::control::config::settings::SETTINGS;
use scorefront::control::config::{self, Invocation};
use scorefront::control::facts::annotations;
use scorefront::control::index::{Index, Scope};
use scorefront::control::manifests;
use scorefront::control::registry::Registry;
use scorefront::core::facts::{Form, Name, ObjectRef, Settings};
use scorefront::core::limiter::Limiter;
use scorefront::core::outcome::Outcome;
use scorefront::core::record::{AuthType, Record, id_value};
use scorefront::core::replica_tls::Wire;
use scorefront::core::snapshot::{Access, Deployment, Endpoint, Replica, Snapshot};
use scorefront::core::split::Split;
use scorefront::core::state::{DeploymentState, RefusalState};
use scorefront::core::vitals::Vitals;
use scorefront::ops::access_log::{AccessLog, FIELDS, LogTarget};
use scorefront::ops::metrics::table;
use uuid::Uuid;

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Compares with a file, or writes it.
fn holds(path: &str, actual: &str) {
    let file = repository(path);
    if std::env::var_os("SCOREFRONT_BLESS").is_some() {
        std::fs::write(&file, actual).expect("writes");
        return;
    }
    let expected = std::fs::read_to_string(&file).unwrap_or_default();
    for (line, (expected, actual)) in (1..).zip(expected.lines().zip(actual.lines())) {
        assert_eq!(actual, expected, "{path}:{line} is not what the program says; see the head of tests/contract.rs");
    }
    assert_eq!(actual, expected, "{path} is not what the program says; see the head of tests/contract.rs");
}

/// The same for the part of a page between two marks.
fn page_holds(path: &str, mark: &str, actual: &str) {
    let page = std::fs::read_to_string(repository(path)).expect("the page");
    let (begin, end) = (format!("<!-- {mark}: begin -->\n"), format!("<!-- {mark}: end -->"));
    let (before, rest) = page.split_once(&begin).expect("the begin mark");
    let (_, after) = rest.split_once(&end).expect("the end mark");
    holds(path, &format!("{before}{begin}\n{}\n\n{end}{after}", actual.trim()));
}

#[test]
fn every_metric_has_its_type_and_labels() {
    holds("tests/contract/metrics.txt", &table::contract());
}

#[test]
fn the_page_on_metrics_describes_every_metric() {
    page_holds("docs/metrics.md", "metrics", &table::markdown());
}

#[test]
fn every_setting_has_its_default_and_range() {
    let lines = SETTINGS.iter().map(|setting| {
        let many = if setting.is_list() { " (list)" } else { "" };
        format!("{}{many} | {} | {}\n", setting.key, setting.default_text(), setting.allowed())
    });
    holds("tests/contract/settings.txt", &lines.collect::<String>());
}

#[test]
fn the_page_on_configuration_describes_every_setting() {
    page_holds("docs/configuration.md", "settings", &config::markdown());
}

#[test]
fn the_example_of_the_page_on_configuration_is_valid() {
    let page = std::fs::read_to_string(repository("docs/configuration.md")).expect("the page");
    let (_, rest) = page.split_once("```yaml\n").expect("an example");
    let (example, _) = rest.split_once("```").expect("its end");
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("router.yaml");
    std::fs::write(&path, example).expect("writes");
    let arguments = ["scorefront".into(), "check".into(), "--config".into(), path.into_os_string()];
    let parsed = config::parse::<std::ffi::OsString>(arguments, |_| None).expect("is valid");
    assert!(matches!(parsed, Invocation::Check(config) if config.listen.len() == 2));
}

#[test]
fn the_page_on_annotations_describes_every_annotation() {
    page_holds("docs/annotations.md", "annotations", &annotations::markdown());
}

#[test]
fn the_example_of_the_page_on_annotations_is_served_without_a_complaint() {
    let page = std::fs::read_to_string(repository("docs/annotations.md")).expect("the page");
    let (_, rest) = page.split_once("```yaml\n").expect("an example");
    let (example, _) = rest.split_once("```").expect("its end");
    let scope = Scope { feed: 0, part: "the page".into(), is_trusted: false };
    let mut index = Index::default();
    index.reset(&scope, &manifests::parse(example, false).expect("manifests"));
    let assembled = index.assemble(&Snapshot::default(), &Registry::new(1)).expect("a snapshot");
    assert_eq!(index.problems().unwrap_or_default(), []);
    let endpoint = assembled.snapshot.find(Form::Endpoint, "iris").expect("the endpoint").clone();
    assert_eq!((endpoint.deployments.len(), endpoint.split.sum()), (2, 100));
    assert!(matches!(&endpoint.access, Access::Keys(keys) if keys.len() == 2));
    assert!(endpoint.deployments.iter().any(|deployment| deployment.replicas.len() == 2));
}

#[test]
fn the_page_on_the_access_log_describes_every_field() {
    let rows = FIELDS.iter().map(|(name, meaning)| format!("| `{name}` | {} |\n", meaning.trim()));
    let table = format!("| field | meaning |\n| --- | --- |\n{}", rows.collect::<String>());
    page_holds("docs/access-log.md", "fields", &table);
}

#[test]
fn the_page_on_status_codes_explains_every_outcome() {
    let page = std::fs::read_to_string(repository("docs/status-codes.md")).expect("the page");
    let (_, rest) = page.split_once("<!-- outcomes: begin -->").expect("the begin mark");
    let (table, _) = rest.split_once("<!-- outcomes: end -->").expect("the end mark");
    let rows: Vec<Vec<&str>> = table
        .lines()
        .filter(|line| line.starts_with("| `"))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect();
    let explained: Vec<_> = rows.iter().map(|row| (row[0], row[1], row[2], row[3])).collect();
    let cells = Outcome::ALL.iter().map(|outcome| {
        let retry = if outcome.invites_retry() { "yes" } else { "no" };
        (format!("`{}`", outcome.label()), outcome.status().as_str().to_owned(), format!("`{}`", outcome.code()), retry)
    });
    let cells: Vec<_> = cells.collect();
    let expected: Vec<_> =
        cells.iter().map(|(label, status, code, retry)| (&**label, &**status, &**code, *retry)).collect();
    assert_eq!(explained, expected, "outcome, status, code, Retry-After; in the order of src/core/outcome.rs");
    for row in rows {
        assert!(row.len() == 6 && row.iter().all(|cell| !cell.is_empty()), "a cause and a remedy: {row:?}");
    }
}

#[test]
fn every_link_between_the_pages_leads_somewhere() {
    let mut broken = Vec::new();
    for (page, text) in pages() {
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let (file, heading) = target.split_once('#').unwrap_or((target, ""));
            if file.contains("://") || file.contains([' ', '\n']) {
                continue;
            }
            let linked = if file.is_empty() { page.clone() } else { page.with_file_name("").join(file) };
            let is_there = match std::fs::read_to_string(&linked) {
                Ok(text) => heading.is_empty() || text.lines().any(|line| anchor(line).as_deref() == Some(heading)),
                Err(_) => false,
            };
            if !is_there {
                broken.push(format!("{}: {target}", page.display()));
            }
        }
    }
    assert!(broken.is_empty(), "links to nowhere:\n{}", broken.join("\n"));
}

/// What a link to this heading ends in; `None` for a line that is none.
fn anchor(line: &str) -> Option<String> {
    let title = line.strip_prefix('#')?.trim_start_matches('#').strip_prefix(' ')?;
    let kept = title.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    Some(kept.map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() }).collect())
}

#[test]
fn pages_name_only_metrics_annotations_and_variables_that_exist() {
    let mut strangers = Vec::new();
    for (page, text) in pages() {
        // What a message about a wrong name repeats is wrong on purpose.
        for line in text.lines().filter(|line| !line.contains("there is no such")) {
            let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '/' | '.');
            for word in line.split(|c| !is_part(c)).filter(|word| !is_known(word.trim_end_matches('.'))) {
                strangers.push(format!("{}: {word}", page.display()));
            }
        }
    }
    assert!(strangers.is_empty(), "not in the program:\n{}", strangers.join("\n"));
}

/// Whether it is the name of something that exists, or does not look like a name of ours.
fn is_known(word: &str) -> bool {
    let table = table::contract();
    let is_metric =
        |name: &str| table.lines().filter_map(|line| line.split([' ', '{']).nth(1)).any(|known| known == name);
    if word.starts_with("scorefront_") {
        return is_metric(word)
            || ["_bucket", "_count", "_sum"].iter().any(|e| word.strip_suffix(e).is_some_and(is_metric));
    }
    if let Some(name) = word.strip_prefix(annotations::PREFIX) {
        return name.is_empty() || annotations::ANNOTATIONS.iter().any(|known| known.name == name);
    }
    if word.starts_with("SCOREFRONT_") {
        // Those that are no settings: the file with settings, the stamp of the build, and what tests look at.
        let others = ["CONFIG", "COMMIT", "BLESS", "SIM_SEED"].map(|end| format!("SCOREFRONT_{end}"));
        return others.iter().any(|other| other == word) || SETTINGS.iter().any(|setting| setting.variable() == word);
    }
    true
}

/// The README, the changelog and all pages of `docs`, with what they say.
fn pages() -> Vec<(PathBuf, String)> {
    let folders = [repository("docs"), repository("docs/decisions")];
    let files = folders.iter().flat_map(|folder| std::fs::read_dir(folder).expect("a folder"));
    let files =
        files.map(|file| file.expect("a file").path()).filter(|path| path.extension().is_some_and(|e| e == "md"));
    let pages = files.chain([repository("README.md"), repository("CHANGELOG.md")]);
    pages.map(|page| (page.clone(), std::fs::read_to_string(page).expect("the page"))).collect()
}

#[test]
fn lines_of_the_access_log_are_these() {
    let lines: String = [served(), client_gone(), malformed(), hostile(), queue_full()].map(written).concat();
    holds("tests/contract/access-log.jsonl", &lines);
    let used = FIELDS.iter().filter(|(name, _)| lines.contains(&format!("\"{name}\":"))).count();
    assert_eq!(used, FIELDS.len(), "the samples show every field");
}

/// The line of a record that ended 12.345 ms after its start.
fn written(record: Record) -> String {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("access.log");
    let vitals = Arc::new(Vitals::new(1, record.started));
    let log = AccessLog::start(&LogTarget::File(path.clone()), 1, 1 << 20, vitals.clone()).expect("starts");
    log.worker(0).write(&record, after(&record, 12_345));
    assert!(log.flush(Duration::from_secs(20)), "the line is written");
    assert_eq!(vitals.access_log.written.read(), 1);
    std::fs::read_to_string(path).expect("reads")
}

fn after(record: &Record, micros: u64) -> Instant {
    record.started + Duration::from_micros(micros)
}

fn record(id: u128) -> Record {
    let started_at = SystemTime::UNIX_EPOCH + Duration::from_micros(1_790_000_000_123_456);
    let client = IpAddr::from([192, 0, 2, 7]);
    Record::new(Instant::now(), started_at, client, id_value(Uuid::from_u128(id)))
}

fn requested(id: u128, path: &str) -> Record {
    let mut record = record(id);
    record.method = Some(Method::POST);
    record.uri = Some(path.parse().expect("a target"));
    record
}

fn deployment(name: &str) -> Arc<Deployment> {
    Arc::new(Deployment {
        endpoint: Name::new("iris"),
        name: Name::new(name),
        object: ObjectRef::new("models", name),
        settings: Settings::default(),
        traffic_percent: Some(100),
        wire: Wire::Plain,
        replicas: Arc::from([]),
        finishing: Vec::new(),
        state: Arc::new(DeploymentState::new(1, 1)),
    })
}

fn routed(id: u128) -> Record {
    let mut record = requested(id, "/api/v1/endpoint/iris/score?key=not-for-the-log");
    record.auth = AuthType::Key;
    record.deployment = Some(deployment("blue"));
    record.endpoint = Some(Arc::new(Endpoint {
        name: Name::new("iris"),
        form: Form::Endpoint,
        namespace: "models".into(),
        deployments: record.deployment.iter().cloned().collect(),
        split: Split::new(&[Some(100)]),
        mirror: None,
        access: Access::Open,
        cors: None,
        limiter: Limiter::default(),
        refusals: Arc::new(RefusalState::new(1)),
        shares: Arc::default(),
    }));
    record.replica = Some(Replica::sample(5001, 1));
    record
}

fn served() -> Record {
    let mut record = routed(1);
    record.user_agent = Some(HeaderValue::from_static(
        "azure-ai-ml/1.20.0 azsdk-python-mgmt-machinelearningservices/0.1.0 Python/3.11",
    ));
    record.client_request_id = Some(HeaderValue::from_static("batch-17_a"));
    record.trace_id = Some(*b"0af7651916cd43dd8448eb211c80319c");
    record.client_certificate = Some(HeaderValue::from_static("spiffe://cluster/ns/batch/sa/nightly"));
    record.queue_position = Some(2);
    record.queued = Some(Duration::from_micros(4_200));
    record.admitted = Some(after(&record, 4_250));
    record.received = Some(after(&record, 300));
    record.answered = Some(after(&record, 11_900));
    record.finished = Some(after(&record, 12_300));
    record.attempts = 1;
    record.model_status = Some(StatusCode::OK);
    record.status = Some(StatusCode::OK);
    record.outcome = Outcome::Served;
    (record.request_bytes, record.answer_bytes) = (47, 36);
    record.mirrored = Some(deployment("green"));
    record
}

fn client_gone() -> Record {
    let mut record = routed(2);
    record.version = Version::HTTP_2;
    record.queued = Some(Duration::ZERO);
    record.admitted = Some(after(&record, 90));
    record.received = Some(after(&record, 80));
    record.attempts = 1;
    record.request_bytes = 47;
    record.detail = Some("client closed the connection while the replica worked".into());
    record
}

fn malformed() -> Record {
    let mut record = record(3);
    record.outcome = Outcome::Malformed;
    record.detail = Some("content-length and transfer-encoding together".into());
    record
}

fn hostile() -> Record {
    let mut record = requested(4, "/api/v1/endpoint/%22%0a/../x\"{}");
    record.user_agent = HeaderValue::from_bytes(b"\"}\\\t\xff\xfe evil \xc2\x9b31m").ok();
    record.request_id = HeaderValue::from_static("a\"b");
    record.outcome = Outcome::UnknownEndpoint;
    record.detail = Some("line\nbreak \u{1b}[2J".into());
    record
}

fn queue_full() -> Record {
    let mut record = routed(5);
    record.replica = None;
    record.queued = Some(Duration::ZERO);
    record.outcome = Outcome::QueueFull;
    record.status = Some(StatusCode::SERVICE_UNAVAILABLE);
    record.detail = Some("1000 requests wait already; max-queue-length is 1000".into());
    record.answer_bytes = 180;
    record
}
