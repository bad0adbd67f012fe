//! Any record makes one line of valid JSON; dropped lines are counted.

use std::borrow::Cow;
use std::net::IpAddr;
use std::time::SystemTime;

use http::{HeaderValue, Method, StatusCode, Uri};
use proptest::prelude::*;
use uuid::Uuid;

use crate::core::outcome::Outcome;
use crate::core::record::{AuthType, id_value};
use crate::core::snapshot::Replica;
use crate::ops::spool::LINE_MAX;

use super::*;

fn header() -> impl Strategy<Value = Option<HeaderValue>> {
    let bytes = prop::collection::vec(any::<u8>(), 0..300);
    prop::option::of(bytes.prop_map(|mut bytes| {
        bytes.retain(|&byte| byte == b'\t' || (byte >= b' ' && byte != 0x7f));
        HeaderValue::from_bytes(&bytes).expect("a header value")
    }))
}

fn uri() -> impl Strategy<Value = Option<Uri>> {
    prop::option::of("/[!$-;=?-_a-z~é]{0,2000}".prop_map(|text| text.parse().expect("a target")))
}

fn instant(start: Instant) -> impl Strategy<Value = Option<Instant>> {
    prop::option::of((0_u64..1 << 40).prop_map(move |micros| start + Duration::from_micros(micros)))
}

prop_compose! {
    fn record(start: Instant)(
        (uri, agent, kept, client_id) in (uri(), header(), header(), header()),
        (admitted, received, answered, finished) in (instant(start), instant(start), instant(start), instant(start)),
        ip in any::<IpAddr>(),
        id in any::<u128>(),
        outcome in 0..Outcome::COUNT,
        status in prop::option::of(100_u16..1000),
        detail in prop::option::of("\\PC{0,400}"),
        numbers in any::<(u32, u64, u64, Option<u32>, Option<u32>)>(),
        trace in prop::option::of(any::<[u8; 32]>()),
        replica in any::<bool>(),
    ) -> Record {
        let request_id = kept.unwrap_or_else(|| id_value(Uuid::from_u128(id)));
        let mut record = Record::new(start, SystemTime::UNIX_EPOCH, ip, request_id);
        record.method = uri.is_some().then(|| Method::from_bytes(b"M-SEARCH").expect("a method"));
        record.uri = uri;
        record.user_agent = agent;
        record.client_request_id = client_id;
        (record.admitted, record.received) = (admitted, received);
        (record.answered, record.finished) = (answered, finished);
        record.outcome = Outcome::ALL[outcome];
        record.status = status.and_then(|code| StatusCode::from_u16(code).ok());
        record.model_status = record.status;
        record.detail = detail.map(Cow::Owned);
        record.auth = AuthType::Key;
        (record.attempts, record.request_bytes, record.answer_bytes) = (numbers.0, numbers.1, numbers.2);
        record.queue_position = numbers.3;
        record.queued = numbers.4.map(|micros| Duration::from_micros(u64::from(micros)));
        record.trace_id = trace;
        record.replica = replica.then(|| Replica::sample(80, 1));
        record
    }
}

fn written(record: &Record, end: Instant) -> String {
    let mut out = Vec::new();
    line::write(&mut out, record, end);
    String::from_utf8(out).expect("a line is UTF-8")
}

proptest! {
    #[test]
    fn any_record_is_one_line_of_json_with_known_fields_in_order(
        record in record(Instant::now()),
        millis in 0_u64..1 << 40,
    ) {
        let text = written(&record, record.started + Duration::from_millis(millis));
        prop_assert!(text.len() <= LINE_MAX);
        let json = text.strip_suffix('\n').expect("an end of line");
        prop_assert!(!json.contains('\n'));
        let parsed: serde_json::Value = serde_json::from_str(json).expect("valid JSON");
        let known: Vec<_> = FIELDS.iter().map(|(name, _)| *name).collect();
        for name in parsed.as_object().expect("an object").keys() {
            prop_assert!(known.contains(&name.as_str()), "{} is not documented", name);
        }
        let positions: Vec<_> = known.iter().filter_map(|name| text.find(&format!("\"{name}\":"))).collect();
        prop_assert_eq!(positions.len(), parsed.as_object().expect("an object").len());
        prop_assert!(positions.is_sorted());
        prop_assert_eq!(parsed["ResponseCode"].as_u64().is_some(), true);
    }
}

#[test]
fn the_longest_line_fits_into_a_spool() {
    let quotes = HeaderValue::from_bytes(&[b'"'; 4000]).expect("a header value");
    let mut record = Record::new(
        Instant::now(),
        SystemTime::now(),
        "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff".parse().expect("an address"),
        quotes.clone(),
    );
    record.method = Some(Method::from_bytes(&[b'X'; 500]).expect("a method"));
    record.uri = Some(format!("/{}", "%".repeat(5000)).parse().expect("a target"));
    record.user_agent = Some(quotes.clone());
    record.client_request_id = Some(quotes);
    record.detail = Some("\u{1}".repeat(5000).into());
    record.trace_id = Some([1; 32]);
    let text = written(&record, Instant::now());
    assert!(text.len() * 2 < LINE_MAX, "{} bytes", text.len());
}

#[test]
fn lines_that_find_no_room_are_counted_and_the_others_are_written() {
    let directory = tempfile::tempdir().expect("a directory");
    let target = LogTarget::File(directory.path().join("access.log"));
    let vitals = Arc::new(Vitals::new(1, Instant::now()));
    let log = AccessLog::start(&target, 1, 1, vitals.clone()).expect("starts");
    let worker = log.worker(0);
    let record = Record::new(Instant::now(), SystemTime::now(), [127, 0, 0, 1].into(), id_value(Uuid::nil()));
    for _ in 0..5000 {
        worker.write(&record, Instant::now());
    }
    assert!(log.flush(Duration::from_secs(20)));
    let counts = &vitals.access_log;
    assert!(counts.dropped.read() > 0, "a buffer of one line overflows");
    assert_eq!(counts.written.read() + counts.dropped.read(), 5000);
    let text = std::fs::read_to_string(directory.path().join("access.log")).expect("reads");
    assert_eq!(text.lines().count() as u64, counts.written.read());
}

#[test]
fn a_log_that_is_off_counts_nothing_and_flushes_at_once() {
    let vitals = Arc::new(Vitals::new(1, Instant::now()));
    let log = AccessLog::start(&LogTarget::Off, 1, 1 << 20, vitals.clone()).expect("starts");
    let record = Record::new(Instant::now(), SystemTime::now(), [127, 0, 0, 1].into(), id_value(Uuid::nil()));
    log.worker(0).write(&record, Instant::now());
    log.reopen();
    assert!(log.flush(Duration::ZERO));
    assert_eq!(vitals.access_log.written.read() + vitals.access_log.dropped.read(), 0);
}

#[test]
fn a_target_that_cannot_be_opened_is_named() {
    let target = LogTarget::File("/nowhere/at/all.log".into());
    let error = AccessLog::start(&target, 1, 1 << 20, Arc::new(Vitals::new(1, Instant::now()))).expect_err("fails");
    assert!(error.to_string().contains("/nowhere/at/all.log"), "{error}");
}
