//! What is written is read, and nothing else is believed.

use std::net::IpAddr;
use std::os::unix::fs::symlink;
use std::sync::{Arc, LazyLock};
use std::time::UNIX_EPOCH;

use proptest::prelude::*;

use super::*;
use crate::control::registry::Registry;
use crate::core::assemble::{EndpointKey, World};
use crate::core::facts::{
    AddressFacts, DeploymentFacts, Form, KeyDigest, Name, ObjectRef, SecretFacts, Settings, SliceFacts,
};
use crate::core::keys::Presented;
use crate::core::replica_tls::{Ca, Roots};
use crate::core::snapshot::Snapshot;

use self::worlds::any_world;

mod worlds;

const HOUR: Duration = Duration::from_secs(3600);

fn origin() -> Origin {
    Origin { sources: vec!["kubernetes 10.0.0.1:443".into()], namespaces: vec!["ml".into()] }
}

/// A file in a folder of its own, which goes away with the first value.
fn file() -> (tempfile::TempDir, StateFile) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("world.state");
    (folder, StateFile { path, max_age: HOUR, key_file: None })
}

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(1_790_000_000_123)
}

fn deployment(object: &str, names: &str, settings: Settings) -> Arc<DeploymentFacts> {
    let ((namespace, name), (endpoint, deployment)) = (object.split_once('/').unwrap(), names.split_once('/').unwrap());
    Arc::new(DeploymentFacts {
        object: ObjectRef::new(namespace, name),
        uid: "u-1".into(),
        created: 100,
        form: Form::Endpoint,
        endpoint: Name::new(endpoint),
        deployment: Name::new(deployment),
        settings,
        traffic_percent: Some(100),
        mirror_percent: 0,
    })
}

/// An authority that is the same whenever it is asked for.
fn ca() -> Ca {
    static DER: LazyLock<Vec<u8>> = LazyLock::new(|| {
        let own = rcgen::generate_simple_self_signed(["ca.test".to_owned()]).unwrap();
        own.cert.der().to_vec()
    });
    Ca::Read(Roots::new(vec![DER.as_slice().into()]))
}

fn kept() -> Kept {
    let address = |ip: &str, ready| AddressFacts {
        ip: ip.parse().unwrap(),
        pod_uid: Some(format!("uid-{ip}").into()),
        pod_name: None,
        ready,
        serving: true,
        terminating: !ready,
    };
    let slice = SliceFacts {
        object: ObjectRef::new("ml", "iris-x1"),
        service: "iris-blue".into(),
        ports: vec![(Some("http".into()), 5001), (None, 80)],
        addresses: vec![address("10.0.0.1", true), address("fd00::2", false)],
    };
    let keys = vec![KeyDigest::of(b"first-key"), KeyDigest::of(b"second-key")];
    let secret = SecretFacts { object: ObjectRef::new("ml", "iris-keys"), endpoint: Name::new("Iris"), keys, ca: ca() };
    let owner = EndpointKey { form: Form::Endpoint, name: "iris".into() };
    Kept {
        as_of: now(),
        facts: Facts {
            services: vec![deployment("ml/iris-blue", "Iris/blue", Settings::default())],
            slices: vec![Arc::new(slice)],
            secrets: vec![Arc::new(secret)],
            owners: vec![(owner, "ml".into())],
        },
    }
}

/// With other digests in the place of the same ones, and nothing else changed.
fn with_keys_of(mut facts: Facts, other: &Facts) -> Facts {
    for (secret, like) in facts.secrets.iter_mut().zip(&other.secrets) {
        assert_eq!(secret.keys.len(), like.keys.len());
        assert!(secret.keys.iter().zip(&like.keys).all(|(a, b)| a.is_of_same_key(b)));
        *secret = Arc::new(SecretFacts { keys: like.keys.clone(), ..(**secret).clone() });
    }
    facts
}

fn refusal(file: &StateFile) -> String {
    match file.read(&origin(), now()) {
        Err(refusal) => refusal.to_string(),
        Ok(kept) => panic!("not refused: {kept:?}"),
    }
}

/// Everything that can be seen of a world.
fn shown(world: &mut World) -> Vec<String> {
    let assembled = world.assemble(&Snapshot::default(), &Registry::new(1));
    let snapshot = assembled.map(|assembled| assembled.snapshot).unwrap_or_default();
    let mut lines = Vec::new();
    for endpoint in snapshot.endpoints() {
        let (form, name, keys) = (endpoint.form, endpoint.name.as_str(), &endpoint.access);
        let mirror = endpoint.mirror.as_ref().map(|mirror| (&mirror.deployment.name, mirror.percent));
        lines.push(format!("{form:?} {name} {} {:?} {mirror:?} {keys:?}", endpoint.namespace, endpoint.split));
        for deployment in &endpoint.deployments {
            let places: Vec<_> = deployment.replicas.iter().map(|replica| (&replica.id, replica.address)).collect();
            let finishing = deployment.finishing.len();
            lines.push(format!("{name} {:?} {:?} {places:?} {finishing}", deployment.object, deployment.settings));
        }
    }
    lines.sort();
    lines
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_world_comes_back_as_it_was(world in any_world(), with_secret in any::<bool>()) {
        let (folder, mut file) = file();
        if with_secret {
            let path = folder.path().join("key");
            fs::write(&path, "0123456789abcdef0123456789abcdef\n").unwrap();
            file.key_file = Some(path);
        }
        let kept = Kept { as_of: now(), facts: world.facts() };
        let bytes = file.write(&kept, &origin()).unwrap();
        prop_assert_eq!(bytes, fs::metadata(&file.path).unwrap().len());
        let read = file.read(&origin(), now()).unwrap().unwrap();
        prop_assert_eq!(read.as_of, kept.as_of);
        let facts = with_keys_of(read.facts, &kept.facts);
        prop_assert_eq!(&facts, &kept.facts);
        // And it serves the same.
        prop_assert_eq!(shown(&mut World::of(facts)), shown(&mut World::of(kept.facts)));
    }

    #[test]
    fn whatever_else_is_in_the_file_is_refused_and_never_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), keeps_head in any::<bool>()) {
        let root = Root::read(None).unwrap();
        let head = format!("{} {} ", format::MAGIC, format::VERSION).into_bytes();
        let bytes = if keeps_head { [head, bytes].concat() } else { bytes };
        prop_assert!(format::decode(&bytes, &root).is_err());
    }
}

#[test]
fn keys_are_valid_as_before_and_nothing_of_them_is_in_the_file() {
    let (_folder, file) = file();
    file.write(&kept(), &origin()).unwrap();
    let first = fs::read_to_string(&file.path).unwrap();
    let plain = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, b"first-key");
    assert!(!first.contains("first-key") && !first.contains(&format::hex(plain.as_ref())), "{first}");
    let read = file.read(&origin(), now()).unwrap().unwrap();
    let keys = &read.facts.secrets[0].keys;
    assert!(keys[0].recognises(&Presented::new(b"first-key")) && keys[1].recognises(&Presented::new(b"second-key")));
    assert!(!keys.iter().any(|key| key.recognises(&Presented::new(b"third-key"))));
    // What was read once is not written down: it could only be sealed under what is in the file.
    assert!(file.write(&read, &origin()).unwrap_err().to_string().contains("was sealed before"));
    // And another file shows other digests of the same keys.
    file.write(&kept(), &origin()).unwrap();
    let second = fs::read_to_string(&file.path).unwrap();
    let digest = |text: &str| text.split("\"keys\":[\"").nth(1).and_then(|rest| rest.get(..64)).map(ToOwned::to_owned);
    assert!(digest(&first).is_some() && digest(&first) != digest(&second));
}

#[test]
fn a_file_that_was_cut_or_changed_anywhere_is_refused() {
    let (_folder, file) = file();
    file.write(&kept(), &origin()).unwrap();
    let whole = fs::read(&file.path).unwrap();
    let root = Root::read(None).unwrap();
    assert!(format::decode(&whole, &root).is_ok());
    for length in 0..whole.len() {
        assert!(format::decode(&whole[..length], &root).is_err(), "cut at {length}");
    }
    for (at, bit) in (0..whole.len()).flat_map(|at| [0, 4, 7].map(|bit| (at, 1_u8 << bit))) {
        let mut changed = whole.clone();
        changed[at] ^= bit;
        assert!(format::decode(&changed, &root).is_err(), "changed at {at}");
    }
    assert!(format::decode(&[&whole[..], b" "].concat(), &root).is_err());
    fs::write(&file.path, &whole[..whole.len() - 1]).unwrap();
    assert_eq!(refusal(&file), "is damaged, or was written with another state-key-file");
    fs::write(&file.path, "kind: Service\n").unwrap();
    assert_eq!(refusal(&file), "is no state file: it does not begin with \"scorefront-state\"");
    fs::write(&file.path, String::from_utf8(whole).unwrap().replacen(" 1 ", " 2 ", 1)).unwrap();
    assert_eq!(refusal(&file), "is of version \"2\", and this router knows only version 1");
}

#[test]
fn values_out_of_range_are_refused_whoever_put_them_there() {
    let (_folder, file) = file();
    let root = Root::read(None).unwrap();
    file.write(&kept(), &origin()).unwrap();
    let text = fs::read_to_string(&file.path).unwrap();
    let (line, body) = text.split_once('\n').unwrap();
    let salt = line.split(' ').nth(2).unwrap();
    let seals = root.seals(&format::unhex(salt).unwrap()).unwrap();
    for (from, to, words) in [
        ("\"request-timeout-ms\":\"5000\"", "\"request-timeout-ms\":\"0\"", "1 to 300000"),
        ("\"max-queue-length\"", "\"max-queue\"", "there is no such annotation"),
        ("\"10.0.0.1\"", "\"224.0.0.1\"", "address 224.0.0.1 is not allowed"),
        ("\"10.0.0.1\"", "\"host\"", "its form"),
        ("[null,80]", "[null,0]", "port 0"),
        ("\"endpoint\":\"Iris\"", "\"endpoint\":\"../x\"", "a name"),
        ("\"keys\":[\"", "\"keys\":[\"0", "64 hexadecimal digits"),
        ("\"created\":100", "\"created\":1e99", "its form"),
        ("\"owners\"", "\"others\"", "its form"),
        ("\"as_of_ms\":1790000000123", "\"as_of_ms\":18446744073709551615", "a time"),
    ] {
        let body = body.replacen(from, to, 1);
        let mark = format::hex(&seals.mark([b"1", body.as_bytes()]));
        fs::write(&file.path, format!("scorefront-state 1 {salt} {mark}\n{body}")).unwrap();
        let refusal = refusal(&file);
        assert!(refusal.contains(words) || (words == "a time" && refusal.contains("from now")), "{to}: {refusal}");
    }
}

#[test]
fn a_file_of_another_time_or_place_is_refused() {
    let (_folder, file) = file();
    file.write(&kept(), &origin()).unwrap();
    let read = |origin: &Origin, at| file.read(origin, at).map(|kept| kept.is_some()).map_err(|e| e.to_string());
    assert_eq!(read(&origin(), now() + HOUR), Ok(true));
    assert_eq!(read(&origin(), now() - FUTURE_MAX), Ok(true));
    let late = read(&origin(), now() + HOUR + Duration::from_secs(1));
    assert_eq!(late, Err("is 3601 s old, and state-max-age-ms allows 3600 s".into()));
    let early = read(&origin(), now() - HOUR);
    assert_eq!(early, Err("is of a time 3600 s from now: the clock was set back".into()));
    let elsewhere = read(&Origin { sources: vec!["kubernetes 10.9.9.9:443".into()], ..origin() }, now()).unwrap_err();
    assert_eq!(
        elsewhere,
        "is of other sources: [\"kubernetes 10.0.0.1:443\"] there, [\"kubernetes 10.9.9.9:443\"] here"
    );
    let wider = read(&Origin { namespaces: Vec::new(), ..origin() }, now()).unwrap_err();
    assert!(wider.contains("other namespaces"), "{wider}");
}

#[test]
fn a_file_that_others_can_read_or_write_or_own_is_refused() {
    let (_folder, file) = file();
    file.write(&kept(), &origin()).unwrap();
    assert_eq!(fs::metadata(&file.path).unwrap().mode() & 0o7777, 0o600);
    for mode in [0o640, 0o620, 0o604, 0o602, 0o666] {
        fs::set_permissions(&file.path, Permissions::from_mode(mode)).unwrap();
        assert!(refusal(&file).contains("only 0600 is taken"), "{mode:o}");
    }
    fs::set_permissions(&file.path, Permissions::from_mode(0o600)).unwrap();
    assert!(file.read(&origin(), now()).unwrap().is_some());
    // Only root can give a file away.
    if std::os::unix::fs::chown(&file.path, Some(65_534), None).is_ok() {
        assert!(refusal(&file).starts_with("belongs to user 65534"), "{}", refusal(&file));
    }
}

#[test]
fn what_is_no_regular_file_is_refused_and_not_waited_for() {
    let (folder, file) = file();
    fs::create_dir(&file.path).unwrap();
    assert_eq!(refusal(&file), "is no regular file");
    fs::remove_dir(&file.path).unwrap();
    symlink("/dev/zero", &file.path).unwrap();
    assert_eq!(refusal(&file), "is no regular file");
    fs::remove_file(&file.path).unwrap();
    let long = File::create(&file.path).unwrap();
    long.set_permissions(Permissions::from_mode(0o600)).unwrap();
    long.set_len(BYTES_MAX + 1).unwrap();
    assert!(refusal(&file).contains("at most 67108864"), "{}", refusal(&file));
    drop(folder);
    assert!(file.read(&origin(), now()).unwrap().is_none(), "no folder, no file");
}

#[test]
fn a_write_that_fails_leaves_the_old_file_and_nothing_else() {
    let (folder, file) = file();
    file.write(&kept(), &origin()).unwrap();
    let before = fs::read(&file.path).unwrap();
    // Something that cannot be removed as a file stands where the draft should.
    let draft = folder.path().join("world.state.new");
    fs::create_dir(&draft).unwrap();
    assert!(matches!(file.write(&kept(), &origin()), Err(Refusal::Io(_))));
    assert_eq!(fs::read(&file.path).unwrap(), before);
    fs::remove_dir(&draft).unwrap();
    // What a crash left behind is in nobody's way, and a link is not followed.
    let target = folder.path().join("target");
    symlink(&target, &draft).unwrap();
    file.write(&kept(), &origin()).unwrap();
    assert!(!target.exists() && fs::symlink_metadata(&draft).is_err());
    // The folder is gone.
    let nowhere = StateFile { path: folder.path().join("nowhere/world.state"), ..file.clone() };
    assert!(nowhere.write(&kept(), &origin()).unwrap_err().to_string().contains("No such file"));
    // The place is taken by a folder, so that the last step fails.
    let taken = StateFile { path: folder.path().join("taken"), ..file };
    fs::create_dir(&taken.path).unwrap();
    assert!(taken.write(&kept(), &origin()).is_err());
    let left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "{left:?}");
}

#[test]
fn the_operators_secret_is_needed_to_believe_a_file() {
    let (folder, plain) = file();
    let secret = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        StateFile { key_file: Some(path), ..plain.clone() }
    };
    let (one, other) = (secret("one", &"1".repeat(32)), secret("other", &"2".repeat(32)));
    one.write(&kept(), &origin()).unwrap();
    assert!(one.read(&origin(), now()).unwrap().is_some());
    assert_eq!(refusal(&other), "is damaged, or was written with another state-key-file");
    assert_eq!(refusal(&plain), "is damaged, or was written with another state-key-file");
    plain.write(&kept(), &origin()).unwrap();
    assert_eq!(refusal(&one), "is damaged, or was written with another state-key-file");
    // A secret that cannot be had, or is none, is no reason to do without.
    let short = secret("short", "guess-me");
    assert!(refusal(&short).contains("has 8 bytes; 32 to 4096"), "{}", refusal(&short));
    assert!(!refusal(&short).contains("guess-me"));
    assert!(short.write(&kept(), &origin()).is_err());
    let missing = StateFile { key_file: Some(folder.path().join("missing")), ..plain.clone() };
    assert!(missing.write(&kept(), &origin()).unwrap_err().to_string().contains("missing"));
}

#[test]
fn a_world_of_twenty_thousand_replicas_takes_some_megabytes() {
    let slice = |n: usize| {
        let addresses = (0..10).map(|pod| AddressFacts {
            ip: IpAddr::from([10, pod, (n / 250) as u8, (n % 250) as u8]),
            pod_uid: Some(format!("3f0c6a52-9d3e-4b1a-8f57-{n:06}{pod:06}").into()),
            pod_name: Some(format!("endpoint-{n}-blue-7c9d8f6b5-{pod:05}").into()),
            ready: true,
            serving: true,
            terminating: false,
        });
        Arc::new(SliceFacts {
            object: ObjectRef::new("models", &format!("endpoint-{n}-blue-x7k2p")),
            service: format!("endpoint-{n}-blue").into(),
            ports: vec![(Some("http".into()), 5001)],
            addresses: addresses.collect(),
        })
    };
    let service = |n: usize| {
        let object = format!("models/endpoint-{n}-blue");
        deployment(&object, &format!("endpoint-{n}/blue"), Settings::default())
    };
    let facts = Facts {
        services: (0..2000).map(service).collect(),
        slices: (0..2000).map(slice).collect(),
        ..Facts::default()
    };
    let (_folder, file) = file();
    let bytes = file.write(&Kept { as_of: now(), facts: facts.clone() }, &origin()).unwrap();
    // What docs/discovery.md says, and far from the limit.
    assert!((3_000_000..5_000_000).contains(&bytes), "{bytes}");
    assert_eq!(file.read(&origin(), now()).unwrap().unwrap().facts, facts);
}
