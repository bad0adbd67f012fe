//! Worlds of all kinds, for the properties that every one must have.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use proptest::prelude::*;
use proptest::sample::select;

use super::ca;
use crate::control::registry::Registry;
use crate::core::assemble::{Facts, World};
use crate::core::cors::{Origins, Rules};
use crate::core::facts::{
    AddressFacts, AuthMode, DeploymentFacts, Form, KeyDigest, Name, ObjectRef, OnAbandon, ScoringPort, SecretFacts,
    Settings, SliceFacts,
};
use crate::core::limiter::Rates;
use crate::core::rate::Limit;
use crate::core::replica_tls::{Asked, Ca};
use crate::core::snapshot::Snapshot;

fn any_settings() -> impl Strategy<Value = Settings> {
    let port = prop_oneof![
        Just(ScoringPort::Default),
        select(vec!["http", "h2-x", "rest"]).prop_map(|name| ScoringPort::Named(name.into())),
        (1_u16..).prop_map(ScoringPort::Number),
    ];
    let path = select(vec!["/", "/score", "/v1/models/m:predict", "/a.b/..c/"]);
    let numbers = (1_u64..=300_000, 0_u32..=1_000_000, 0_u64..=300_000, 0_u32..=100_000);
    let auth = select(vec![AuthMode::Key, AuthMode::Token, AuthMode::None]);
    let body = prop::option::of(1024_u64..=1 << 40);
    (numbers, path, port, auth, any::<[bool; 3]>(), body).prop_map(
        |(numbers, path, scoring_port, auth, [open, close, retry], body)| Settings {
            request_timeout: Duration::from_millis(numbers.0),
            slots_per_replica: numbers.1,
            queue_wait_max: Duration::from_millis(numbers.2),
            queue_length_max: numbers.3,
            scoring_path: path.parse().unwrap(),
            scoring_port,
            auth,
            on_abandon: if close { OnAbandon::Close } else { OnAbandon::Wait },
            retry_reused: retry,
            body_bytes_max: body,
            cors: Rules {
                origins: open.then(|| Origins::These(vec!["https://a.test".into(), "https://b.test:8443".into()])),
                methods: close.then(|| vec![Method::POST, Method::PUT]),
                headers: retry.then(|| vec![AUTHORIZATION, CONTENT_TYPE]),
                max_age_s: open.then_some(60),
            },
            rates: Rates {
                endpoint: Limit {
                    per_second: open.then_some(numbers.3 + 1),
                    burst: close.then_some(7),
                    concurrent: retry.then_some(8),
                },
                key: Limit {
                    per_second: close.then_some(9),
                    burst: retry.then_some(10),
                    concurrent: open.then_some(11),
                },
            },
            replica_tls: Asked {
                ca_secret: open.then(|| "iris-ca".into()),
                server_name: close.then(|| "models.test".into()),
                is_wrong: retry,
            },
        },
    )
}

fn any_service() -> impl Strategy<Value = Arc<DeploymentFacts>> {
    let names = (select(vec!["one", "two"]), select(vec!["aaa", "Bbb", "c-3"]), select(vec!["blue", "Green"]));
    let shares = (prop::option::of(0_u8..=100), 0_u8..=50);
    (names, any_settings(), shares, any::<(bool, i64)>(), ".{0,8}").prop_map(
        |((namespace, endpoint, name), settings, (traffic_percent, mirror_percent), (v1, created), uid)| {
            let form = if v1 { Form::Service } else { Form::Endpoint };
            Arc::new(DeploymentFacts {
                object: ObjectRef::new(namespace, &format!("{endpoint}-{name}-{v1}")),
                uid: uid.into(),
                created,
                form,
                endpoint: Name::new(endpoint),
                deployment: Name::new(if v1 { endpoint } else { name }),
                settings,
                traffic_percent,
                mirror_percent,
            })
        },
    )
}

fn any_slice(services: Vec<Arc<DeploymentFacts>>) -> impl Strategy<Value = Arc<SliceFacts>> {
    let ip = prop_oneof![
        (1_u8..=99).prop_map(|n| IpAddr::from([10, 0, 0, n])),
        (1_u16..=99).prop_map(|n| IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, n])),
        Just(IpAddr::from([127, 0, 0, 1])),
    ];
    let text = || prop::option::of("[a-z]{1,5}").prop_map(|text| text.map(Arc::<str>::from));
    let address = (ip, text(), text(), any::<[bool; 3]>()).prop_map(|(ip, pod_uid, pod_name, is)| AddressFacts {
        ip,
        pod_uid,
        pod_name,
        ready: is[0],
        serving: is[1],
        terminating: is[2],
    });
    let ports = prop::collection::vec((text(), 1_u16..), 0..3);
    (select(services), ports, prop::collection::vec(address, 0..4), 0..3).prop_map(|(service, ports, addresses, n)| {
        let object = ObjectRef::new(&service.object.namespace, &format!("{}-{n}", service.object.name));
        Arc::new(SliceFacts { object, service: service.object.name.clone(), ports, addresses })
    })
}

fn any_secret() -> impl Strategy<Value = Arc<SecretFacts>> {
    let names = (select(vec!["one", "two"]), select(vec!["aaa", "bbb", "c-3"]));
    let ca = select(vec![Ca::Absent, Ca::Broken, ca()]);
    (names, prop::collection::vec("[!-~]{1,9}", 0..4), ca).prop_map(|((namespace, endpoint), keys, ca)| {
        let keys = keys.iter().map(|key| KeyDigest::of(key.as_bytes())).collect();
        let object = ObjectRef::new(namespace, &format!("{endpoint}-keys"));
        Arc::new(SecretFacts { object, endpoint: Name::new(endpoint), keys, ca })
    })
}

/// A world, as the publisher would have it.
pub(super) fn any_world() -> impl Strategy<Value = World> {
    let services = prop::collection::vec(any_service(), 1..6);
    services
        .prop_flat_map(|services| {
            let slices = prop::collection::vec(any_slice(services.clone()), 0..6);
            (Just(services), slices, prop::collection::vec(any_secret(), 0..3))
        })
        .prop_map(|(services, slices, secrets)| {
            let mut world = World::of(Facts { services, slices, secrets, owners: Vec::new() });
            drop(world.assemble(&Snapshot::default(), &Registry::new(1)));
            world
        })
}
