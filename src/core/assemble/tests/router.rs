//! What Services ask of the router in vain is reported, with what to do about it.

use super::*;

fn with(object: &str, names: &str, change: impl FnOnce(&mut Settings)) -> DeploymentFacts {
    let mut facts = mk_service(object, names);
    change(&mut facts.settings);
    facts
}

#[test]
fn an_endpoint_that_asks_for_tokens_is_reported_where_the_router_has_no_keys_for_them() {
    let token = |settings: &mut Settings| settings.auth = AuthMode::Token;
    let key = |settings: &mut Settings| settings.auth = AuthMode::Key;
    for takes_tokens in [true, false] {
        let mut stage =
            Stage { world: World::for_router(Router { takes_tokens, ..Router::default() }), ..Stage::default() };
        stage.service(with("ml/a", "iris/blue", token)).service(with("ml/b", "wine/red", token));
        stage.service(with("ml/c", "wine/white", key)).service(mk_service("ml/d", "open/one"));
        stage.publish();
        let told: Vec<_> =
            stage.problems().into_iter().filter(|problem| problem.contains("no keys to check")).collect();
        assert_eq!(told.len(), usize::from(!takes_tokens), "where a key is asked for, tokens do not matter: {told:?}");
        let what = "ml/a: scorefront.dev/auth-mode: endpoint iris asks for tokens";
        assert!(
            told.iter().all(|problem| problem.contains(what) && problem.contains("set one of token-jwks")),
            "{told:?}"
        );
    }
}

#[test]
fn a_limit_of_bodies_above_that_of_the_router_is_reported() {
    let bodies = |bytes| move |settings: &mut Settings| settings.body_bytes_max = bytes;
    let router = Router { body_bytes_max: 4096, ..Router::default() };
    let mut stage = Stage { world: World::for_router(router), ..Stage::default() };
    stage.service(with("ml/a", "iris/blue", bodies(Some(4096)))).service(with("ml/b", "iris/green", bodies(None)));
    stage.service(with("ml/c", "iris/red", bodies(Some(4097))));
    stage.publish();
    let told: Vec<_> = stage.problems().into_iter().filter(|problem| problem.contains("max-body-bytes")).collect();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("ml/c: scorefront.dev/max-body-bytes: 4097 has no effect"), "{told:?}");
    assert!(told[0].contains("the router's max-body-bytes is 4096; raise that"), "{told:?}");
}
