use super::*;
use http::Method;
use http::header::AUTHORIZATION;

use crate::core::cors::{Origins, Rules};
use crate::core::facts::ObjectRef;
use crate::core::limiter::Rates;
use crate::core::rate::Limit;
use crate::core::replica_tls::Asked;

fn read_all(pairs: &[(&str, &str)], last: Option<&Draft>) -> (Draft, Vec<String>) {
    let object = ObjectRef::new("ml", "iris-blue");
    let mut reporter = Reporter::new("Service", &object);
    let annotations = pairs.iter().map(|&(name, value)| (format!("{PREFIX}{name}"), value.to_owned())).collect();
    let draft = read(&annotations, last, &mut reporter);
    (draft, reporter.problems.iter().map(ToString::to_string).collect())
}

fn good() -> Draft {
    let (draft, problems) = read_all(
        &[
            ("traffic-percent", "90"),
            ("mirror-percent", "50"),
            ("request-timeout-ms", "300000"),
            ("max-concurrent-requests-per-instance", "4"),
            ("max-queue-wait-ms", "0"),
            ("max-queue-length", "7"),
            ("scoring-path", "/invocations"),
            ("scoring-port", "rest"),
            ("auth-mode", "none"),
            ("on-abandon", "close"),
            ("retry-reused", "false"),
            ("max-body-bytes", "1048576"),
            ("cors-origins", "https://a.test, http://b.test:8080"),
            ("cors-methods", "POST,PUT"),
            ("cors-headers", "Authorization"),
            ("cors-max-age-s", "60"),
            ("rate-limit-per-second", "1"),
            ("rate-limit-burst", "2"),
            ("rate-limit-concurrent", "3"),
            ("key-rate-limit-per-second", "4"),
            ("key-rate-limit-burst", "5"),
            ("key-rate-limit-concurrent", "6"),
            ("replica-tls-ca-secret", "iris-ca"),
            ("replica-tls-server-name", "models.test"),
        ],
        None,
    );
    assert_eq!(problems, [""; 0]);
    draft
}

#[test]
fn every_annotation_is_read() {
    let draft = good();
    let expected = Settings {
        request_timeout: Duration::from_secs(300),
        slots_per_replica: 4,
        queue_wait_max: Duration::ZERO,
        queue_length_max: 7,
        scoring_path: PathAndQuery::from_static("/invocations"),
        scoring_port: ScoringPort::Named("rest".into()),
        auth: AuthMode::None,
        on_abandon: OnAbandon::Close,
        retry_reused: false,
        body_bytes_max: Some(1 << 20),
        cors: Rules {
            origins: Some(Origins::These(vec!["https://a.test".into(), "http://b.test:8080".into()])),
            methods: Some(vec![Method::POST, Method::PUT]),
            headers: Some(vec![AUTHORIZATION]),
            max_age_s: Some(60),
        },
        rates: Rates {
            endpoint: Limit { per_second: Some(1), burst: Some(2), concurrent: Some(3) },
            key: Limit { per_second: Some(4), burst: Some(5), concurrent: Some(6) },
        },
        replica_tls: Asked {
            ca_secret: Some("iris-ca".into()),
            server_name: Some("models.test".into()),
            is_wrong: false,
        },
    };
    assert_eq!(draft.settings(), expected);
    assert_eq!((draft.traffic_percent, draft.mirror_percent), (Some(90), 50));
}

#[test]
fn without_annotations_the_documented_defaults_hold() {
    let (draft, problems) = read_all(&[], None);
    assert_eq!((draft.settings(), problems.len()), (Settings::default(), 0));
    let (draft, _) = read_all(&[("max-concurrent-requests-per-instance", "0")], None);
    assert_eq!(draft.settings().on_abandon, OnAbandon::Close);
}

#[test]
fn wrong_values_leave_the_last_good_ones_in_place_and_are_reported() {
    let wrong = [
        ("traffic-percent", "101"),
        ("mirror-percent", "51"),
        ("request-timeout-ms", "0"),
        ("max-concurrent-requests-per-instance", "-1"),
        ("max-queue-wait-ms", "300001"),
        ("max-queue-length", "many"),
        ("scoring-path", "invocations"),
        ("scoring-port", "65536"),
        ("on-abandon", "Wait"),
        ("retry-reused", "no"),
        ("max-body-bytes", "1099511627777"),
        ("cors-origins", "https://a.test,*"),
        ("cors-methods", "post"),
        ("cors-headers", "a b"),
        ("cors-max-age-s", "86401"),
        ("rate-limit-per-second", "0"),
        ("rate-limit-burst", "1000001"),
        ("rate-limit-concurrent", "0.5"),
        ("key-rate-limit-per-second", "-1"),
        ("key-rate-limit-burst", ""),
        ("key-rate-limit-concurrent", "1e3"),
    ];
    let (draft, problems) = read_all(&wrong, Some(&good()));
    // Those about TLS are not among the wrong ones, and not there.
    let expected = Settings { auth: AuthMode::Key, replica_tls: Asked::default(), ..good().settings() };
    assert_eq!((draft.settings(), draft.traffic_percent, draft.mirror_percent), (expected, Some(90), 50));
    assert!(problems.len() < wrong.len(), "of so many not all are told");
    for wrong in wrong {
        let (_, problems) = read_all(&[wrong], Some(&good()));
        let [problem] = &problems[..] else { panic!("{wrong:?}: {problems:?}") };
        assert!(problem.contains(&format!("{PREFIX}{}: {:?} is not allowed: ", wrong.0, wrong.1)), "{problem}");
    }
    let (_, problems) = read_all(&wrong[..1], None);
    assert_eq!(problems, ["Service ml/iris-blue: scorefront.dev/traffic-percent: \"101\" is not allowed: 0 to 100"]);
    let (draft, _) = read_all(&wrong, None);
    assert_eq!(draft.settings(), Settings::default());
}

#[test]
fn a_wrong_auth_mode_asks_for_keys_even_if_the_last_good_one_did_not() {
    let (draft, problems) = read_all(&[("auth-mode", "Key")], Some(&good()));
    assert_eq!((draft.settings().auth, problems.len()), (AuthMode::Key, 1));
}

#[test]
fn a_wrong_value_about_tls_is_never_none_at_all_nor_the_last_good_one() {
    for wrong in [("replica-tls-ca-secret", "Iris_CA"), ("replica-tls-server-name", "*.models.test")] {
        for last in [None, Some(good())] {
            let (draft, problems) = read_all(&[wrong], last.as_ref());
            assert_eq!(draft.settings().replica_tls, Asked { is_wrong: true, ..Asked::default() });
            assert!(problems.len() == 1 && problems[0].contains("is not allowed"), "{problems:?}");
        }
    }
}

#[test]
fn an_unknown_annotation_is_reported_with_the_nearest_one() {
    let (_, problems) = read_all(&[("trafic-percent", "10"), ("colour", "red")], None);
    assert!(problems[0].contains("there are traffic-percent, mirror-percent"), "{problems:?}");
    assert!(problems[1].ends_with("did you mean scorefront.dev/traffic-percent?"), "{problems:?}");
}

#[test]
fn numbers_have_digits_only() {
    for text in ["", " 1", "1 ", "+1", "-0", "0x1", "1.0", "1e3", "٣", "99999999999"] {
        assert_eq!(number(text, 0, 1000), None, "{text:?}");
    }
    assert_eq!(number("0042", 0, 1000), Some(42));
}

#[test]
fn scoring_paths_cannot_be_read_two_ways() {
    for text in ["/", "/score", "/v1/models/m:predict", "/a/", "/a.b/..c"] {
        assert!(path(text).is_some(), "{text}");
    }
    for text in ["", "score", "//x", "/a//b", "/..", "/a/../b", "/./a", "/a?b", "/a#b", "/a b", "/a%2e", "/é", "/a\\b"]
    {
        assert!(path(text).is_none(), "{text}");
    }
}

#[test]
fn long_wrong_values_are_cut_in_messages() {
    let (_, problems) = read_all(&[("auth-mode", &"é".repeat(10_000))], None);
    assert!(problems[0].len() < 400, "{}", problems[0].len());
}
