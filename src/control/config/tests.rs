//! Layers, ranges, and what people read when they got something wrong.

use std::collections::HashSet;

use super::setting::{Shown, Slot};
use super::settings::SETTINGS;
use super::*;

type Variables = &'static [(&'static str, &'static str)];

fn with(arguments: &[&str], variables: Variables) -> Result<Invocation, Stop> {
    let arguments = ["scorefront"].iter().chain(arguments);
    parse(arguments, |name| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).into()))
}

fn served(arguments: &[&str], variables: Variables) -> Config {
    match with(&[&["serve"], arguments].concat(), variables) {
        Ok(Invocation::Serve(config)) => config,
        other => panic!("{other:?}"),
    }
}

fn problems(arguments: &[&str], variables: Variables) -> Vec<String> {
    match with(&[&["serve"], arguments].concat(), variables) {
        Err(Stop::Invalid(problems)) => problems,
        other => panic!("{other:?}"),
    }
}

fn config_file(text: &str) -> (tempfile::TempDir, String) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("router.yaml");
    std::fs::write(&path, text).expect("writes");
    let path = path.display().to_string();
    (directory, path)
}

#[test]
fn without_anything_it_is_the_defaults_with_workers_and_memory_of_the_machine() {
    let config = served(&[], &[]);
    assert!(config.workers >= 1 && config.memory_bytes_max.is_some_and(|bytes| bytes > 1 << 20));
    let (workers, memory_bytes_max) = (config.workers, config.memory_bytes_max);
    assert_eq!(config, Config { workers, memory_bytes_max, ..Config::default() });
    assert_eq!(served(&["--max-memory-bytes", "0"], &[]).memory_bytes_max, Some(0), "0 is said, not unknown");
}

#[test]
fn a_flag_beats_the_environment_which_beats_the_file() {
    let (_directory, path) = config_file("max-attempts: 4\nmax-headers: 200\nmax-streams: 7\n");
    let variables = &[("SCOREFRONT_MAX_ATTEMPTS", "5"), ("SCOREFRONT_MAX_HEADERS", "300")];
    let config = served(&["--config", &path, "--max-attempts", "6"], variables);
    assert_eq!(config.limits.attempts_max, 6);
    assert_eq!(config.limits.headers_max, 300);
    assert_eq!(config.limits.streams_max, 7);
    assert_eq!(config.limits.body_bytes_max, Limits::default().body_bytes_max);
}

#[test]
fn lists_are_replaced_as_a_whole_and_may_have_commas_in_the_environment() {
    let (_directory, path) = config_file("listen: [127.0.0.1:1, 127.0.0.1:2]\nsource: manifests:/models\n");
    let variables = &[("SCOREFRONT_LISTEN", "[::1]:3, 127.0.0.1:4")];
    let config = served(&["--config", &path], variables);
    assert_eq!(strings(&config.listen), ["[::1]:3", "127.0.0.1:4"]);
    assert_eq!(config.sources, [Source::Manifests("/models".into())]);
    let config = served(&["--listen", "127.0.0.1:5", "--listen", "127.0.0.1:6"], variables);
    assert_eq!(strings(&config.listen), ["127.0.0.1:5", "127.0.0.1:6"]);
    let config = served(&["--trusted-proxies", "10.0.0.0/8,fd00::1"], &[]);
    assert_eq!(strings(&config.limits.trusted_proxies), ["10.0.0.0/8", "fd00::1/128"]);
}

fn strings(items: &[impl ToString]) -> Vec<String> {
    items.iter().map(ToString::to_string).collect()
}

#[test]
fn every_wrong_thing_is_told_at_once_with_its_place_and_what_is_right() {
    let (_directory, path) = config_file("max-atempts: 3\nmax-headers: 1\nlog-format: xml\nworkers: [1, 2]\n");
    let problems = problems(
        &["--config", &path, "--drain-grace-ms", "soon"],
        &[("SCOREFRONT_SERVER_TIMING", "yes"), ("SCOREFRONT_TRUSTED_PROXIES", "10.0.0.0/33")],
    );
    let expected = [
        format!("{path}:1: max-atempts: there is no such setting; did you mean max-attempts?"),
        "--drain-grace-ms: \"soon\" is no whole number; allowed: 0 to 600000".to_owned(),
        "environment SCOREFRONT_TRUSTED_PROXIES: \"10.0.0.0/33\" is no network; allowed: networks such as 10.0.0.0/8 \
         or fd00::/8, or single addresses, with commas between them"
            .to_owned(),
        "environment SCOREFRONT_SERVER_TIMING: \"yes\" is neither; allowed: true or false".to_owned(),
        format!("{path}:2: max-headers: \"1\" is out of range; allowed: 16 to 4096"),
        format!("{path}:3: log-format: \"xml\" is no format; allowed: text or json"),
        format!("{path}:4: workers: takes one value, not 2; allowed: 1 to 1024"),
    ];
    assert_eq!(problems, expected);
}

#[test]
fn a_wrong_flag_is_told_the_nearest_right_one() {
    let stop = with(&["serve", "--max-atempts", "3"], &[]).expect_err("is refused");
    assert_eq!(stop.exit_code(), 2);
    assert!(stop.to_string().contains("'--max-attempts'"), "{stop}");
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    assert!(problems(&["--proxy-protocol", "required"], &[])[0].contains("trusted-proxies"));
    assert_eq!(problems(&["--config", "/nowhere.yaml"], &[]).len(), 1);
    assert!(problems(&[], &[("SCOREFRONT_CONFIG", "/nowhere.yaml")])[0].starts_with("/nowhere.yaml: "));
    let (_directory, path) = config_file("workers: 1\nworkers: 2\n");
    assert!(problems(&["--config", &path], &[])[0].starts_with(&format!("{path}:2: ")));
}

#[test]
fn impossible_values_are_refused() {
    for (flag, value) in [
        ("--listen", "8080"),
        ("--admin", "localhost"),
        ("--source", "manifests:"),
        ("--source", "consul"),
        ("--namespace", "Models"),
        ("--kubeconfig", ""),
        ("--log-level", "scorefront=loud"),
        ("--access-log", ""),
        ("--trusted-proxies", "10.0.0.0/8,,"),
        ("--listen-tls", "8443"),
        ("--tls-cert", ""),
        ("--tls-secret", "tls"),
        ("--tls-secret", "a/../b"),
        ("--tls-secret", "a/b/c"),
        ("--tls-min-version", "1.1"),
        ("--redirect-to-https", "true"),
        ("--redirect-to-https", "0"),
        ("--client-auth", "optional"),
    ] {
        let problems = problems(&[flag, value], &[]);
        assert!(problems.len() == 1 && problems[0].contains("allowed: "), "{flag} {value}: {problems:?}");
    }
    assert_eq!(problems(&["--namespace", "a", "--namespace", "a"], &[]).len(), 1);
    assert!(problems(&[], &[("SCOREFRONT_LISTEN", " ")])[0].contains("needs at least one value"));
    assert!(problems(&[], &[("SCOREFRONT_SOURCE", ",")])[0].contains("needs at least one value"));
    assert!(served(&[], &[("SCOREFRONT_NAMESPACE", "")]).namespaces.is_empty());
}

#[test]
fn settings_of_tls_that_make_no_sense_together_are_refused() {
    let listen = ["--listen-tls", "127.0.0.1:0"];
    let pair = ["--tls-cert", "/a.crt", "--tls-key", "/a.key"];
    for (arguments, complaint) in [
        ([&listen[..], &pair[..2]].concat(), "tls-cert, tls-key: 1 and 0 files"),
        ([&listen[..], &pair, &["--tls-cert", "/b.crt"]].concat(), "tls-cert, tls-key: 2 and 1 files"),
        (listen.to_vec(), "listen-tls: there is no certificate"),
        (pair.to_vec(), "tls-cert, tls-secret: nobody listens with TLS"),
        (vec!["--client-ca", "/ca.crt"], "client-ca: nobody listens with TLS"),
        (vec!["--listen", "off"], "listen: is off"),
        (
            [&listen[..], &["--tls-secret", "a/b", "--source", "manifests:/m"]].concat(),
            "tls-secret: is read with source",
        ),
    ] {
        let problems = problems(&arguments, &[]);
        assert!(problems.len() == 1 && problems[0].starts_with(complaint), "{arguments:?}: {problems:?}");
    }
    let config = served(&[&["--listen", "off", "--tls-secret", "a/b"], &listen[..], &pair].concat(), &[]);
    assert_eq!((config.listen.len(), config.tls.listen.len(), config.tls.pairs().count()), (0, 1, 1));
}

#[test]
fn a_variable_that_is_no_utf_8_is_refused_and_not_ignored() {
    use std::os::unix::ffi::OsStringExt as _;
    let environment = |name: &str| (name == "SCOREFRONT_ADMIN").then(|| OsString::from_vec(vec![0xff]));
    let stop = parse(["scorefront", "serve"], environment).expect_err("is refused");
    assert!(stop.to_string().starts_with("environment SCOREFRONT_ADMIN: "), "{stop}");
}

#[test]
fn every_number_takes_both_ends_of_its_range_and_nothing_beyond() {
    for setting in SETTINGS {
        let Slot::Number { min, max, .. } = setting.slot else { continue };
        let flag = format!("--{}", setting.key);
        for value in [min, max] {
            let config = served(&[&flag, &value.to_string()], &[]);
            assert_eq!(setting.shown(&config), Shown::Number(value), "{flag}");
        }
        for value in [min.checked_sub(1), Some(max + 1)].into_iter().flatten() {
            assert_eq!(problems(&[&flag, &value.to_string()], &[]).len(), 1, "{flag} {value}");
        }
    }
}

#[test]
fn every_setting_writes_what_it_reads_and_nothing_else() {
    let other: &[(&str, &str)] = &[
        ("listen", "127.0.0.1:1"),
        ("listen-tls", "127.0.0.1:3"),
        ("tls-cert", "/tls.crt"),
        ("tls-key", "/tls.key"),
        ("tls-secret", "azureml/tls"),
        ("tls-min-version", "1.3"),
        ("redirect-to-https", "443"),
        ("client-ca", "/ca.crt"),
        ("client-auth", "accepted"),
        ("token-jwks", "/jwks.json"),
        ("token-jwks-url", "https://issuer/keys"),
        ("token-jwks-ca", "/issuer.crt"),
        ("token-jwks-secret", "azureml/keys"),
        ("token-issuer", "https://issuer"),
        ("token-audience", "scoring"),
        ("token-endpoint-claim", "endpoint"),
        ("admin", "127.0.0.1:2"),
        ("source", "manifests:/m"),
        ("namespace", "models"),
        ("kubeconfig", "/kube"),
        ("state-file", "/state/world"),
        ("state-key-file", "/secret/state"),
        ("access-log", "/log"),
        ("log-format", "json"),
        ("log-level", "debug"),
        ("trusted-proxies", "10.0.0.0/8"),
        ("proxy-protocol", "required"),
        ("server-timing", "false"),
        ("pass-authorization", "true"),
    ];
    for setting in SETTINGS {
        let value = match setting.slot {
            Slot::Number { max, .. } => max.to_string(),
            _ => other.iter().find(|(key, _)| *key == setting.key).expect(setting.key).1.to_owned(),
        };
        let mut config = Config::default();
        setting.put(&mut config, std::slice::from_ref(&value)).expect("is allowed");
        for checked in SETTINGS {
            let changed = checked.shown(&config) != checked.shown(&Config::default());
            assert_eq!(changed, checked.key == setting.key, "{} changes {}", setting.key, checked.key);
        }
    }
}

#[test]
fn defaults_are_within_their_ranges_and_names_are_unique() {
    let keys: HashSet<_> = SETTINGS.iter().map(|setting| setting.key).collect();
    assert_eq!(keys.len(), SETTINGS.len());
    for setting in SETTINGS {
        if let (Slot::Number { min, max, .. }, Shown::Number(default)) =
            (&setting.slot, setting.shown(&Config { workers: 1, ..Config::default() }))
        {
            assert!((*min..=*max).contains(&default), "{}: {default}", setting.key);
        }
        assert!(setting.meaning.ends_with('.'), "{}", setting.key);
    }
}

#[test]
fn help_shows_every_setting_and_version_the_commit() {
    let help = with(&["serve", "--help"], &[]).expect_err("is shown");
    assert_eq!(help.exit_code(), 0);
    let text = help.to_string();
    for setting in SETTINGS {
        assert!(text.contains(&format!("--{} <", setting.key)), "{}", setting.key);
        assert!(text.contains(&setting.variable()), "{}", setting.key);
    }
    let version = with(&["--version"], &[]).expect_err("is shown");
    assert_eq!(version.exit_code(), 0);
    assert!(version.to_string().contains(env!("SCOREFRONT_COMMIT")));
    assert_eq!(with(&[], &[]).expect_err("needs a command").exit_code(), 2);
}

#[test]
fn check_takes_the_same_arguments_and_quickstart_brings_its_own_objects() {
    let Ok(Invocation::Check(config)) = with(&["check", "--source", "manifests:/m"], &[]) else { panic!("checks") };
    assert_eq!(config.sources, [Source::Manifests("/m".into())]);
    let Ok(Invocation::Quickstart(config)) =
        with(&["quickstart", "--workers", "1"], &[("SCOREFRONT_SOURCE", "kubernetes")])
    else {
        panic!("starts")
    };
    assert!(config.listen.iter().all(|address| address.ip().is_loopback()) && config.sources.is_empty());
    assert!(with(&["quickstart", "--source", "kubernetes"], &[]).is_err());
    let help = with(&["quickstart", "--help"], &[]).expect_err("is shown").to_string();
    assert!(help.contains("[default: 127.0.0.1:8080]") && !help.contains("--source"), "{help}");
}

#[test]
fn serialized_it_is_every_setting_by_its_name() {
    let value = serde_json::to_value(served(&["--max-attempts", "2"], &[])).expect("serializes");
    let object = value.as_object().expect("an object");
    assert_eq!(object.len(), SETTINGS.len());
    assert_eq!(object["max-attempts"], 2);
    assert_eq!(object["listen"], serde_json::json!(["0.0.0.0:8080"]));
    assert_eq!(object["server-timing"], true);
}
