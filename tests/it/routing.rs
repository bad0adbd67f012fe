//! From a path to a replica: public forms, credentials, choice of deployment, header and status rules.

use scorefront::testing::client::{request, score};
use scorefront::testing::replica::{ScriptedReplica, Step, answer, ok, ok_and_close};
use scorefront::testing::router::Router;
use scorefront::testing::world::World;

const KEY: &str = "Authorization: Bearer secret-1";

#[tokio::test]
async fn a_request_is_scored_logged_and_counted() {
    let replica = ScriptedReplica::start(|_| vec![Step::Send(answer(200, &["X-Model: m1"], "[1]"))]).await;
    let router = Router::start(&World::new().deployment("blue", &[], &[replica.address])).await;
    let mut client = router.client().await;
    let headers = [KEY, "User-Agent: test/1", "x-ms-client-request-id: my-id", "Content-Type: application/json"];
    let got = client.ask(request("POST", "/api/v1/endpoint/iris/score?a=1&b=2", &headers, "{\"data\":[]}")).await;

    assert_eq!((got.status, got.text().as_str(), got.whole), (200, "[1]", true));
    assert_eq!(got.header("x-model"), Some("m1"));
    assert_eq!(got.header("azureml-model-deployment"), Some("blue"));
    assert_eq!(got.header("x-ms-client-request-id"), Some("my-id"));
    assert_eq!(got.header("x-ms-request-id"), Some("my-id"));
    let timing = got.header("server-timing").unwrap();
    assert!(timing.starts_with("queue;dur=0.000, upstream;dur="), "{timing}");

    let seen = replica.wait_for(1).await.remove(0);
    assert_eq!(seen.line(), "POST /score?a=1&b=2 HTTP/1.1");
    assert_eq!(seen.body, b"{\"data\":[]}");
    assert_eq!(seen.header("authorization"), None);
    assert_eq!(seen.header("x-request-id"), got.header("x-request-id"));
    assert_eq!(seen.header("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(seen.header("host"), Some("models.test"));
    assert!(seen.header("traceparent").is_some());

    let line = router.log(1).await.remove(0);
    assert_eq!(line["XRequestId"].as_str(), got.header("x-request-id"));
    assert_eq!(line["EndpointName"], "iris");
    assert_eq!(line["DeploymentName"], "blue");
    assert_eq!(line["Path"], "/api/v1/endpoint/iris/score");
    assert_eq!(line["ResponseCode"], 200);
    assert_eq!(line["Outcome"], "served");
    assert_eq!(line["AuthType"], "key");
    assert_eq!(line["RequestPayloadSize"], 11);
    assert_eq!(line["ResponsePayloadSize"], 3);
    assert_eq!(line["Attempts"], 1);
    assert_eq!(line["UserAgent"], "test/1");
    router.drain().await;
}

#[tokio::test]
async fn every_public_path_reaches_its_place_in_the_container() {
    let replica = ScriptedReplica::start(|seen| ok(seen.line())).await;
    let world = World::new()
        .deployment(
            "blue",
            &[("scoring-path", "/invocations"), ("max-concurrent-requests-per-instance", "0")],
            &[replica.address],
        )
        .v1_service("old-model", &[replica.address]);
    let router = Router::start(&world).await;
    let mut client = router.client().await;
    for (method, path, line) in [
        ("POST", "/api/v1/endpoint/iris/score", "POST /invocations HTTP/1.1"),
        ("POST", "/api/v1/endpoint/IRIS/score", "POST /invocations HTTP/1.1"),
        ("GET", "/api/v1/endpoint/iris/swagger.json?x", "GET /swagger.json?x HTTP/1.1"),
        ("OPTIONS", "/api/v1/endpoint/iris/score", "OPTIONS /invocations HTTP/1.1"),
        ("POST", "/api/v1/endpoint/iris/v2/models/m/infer", "POST /v2/models/m/infer HTTP/1.1"),
        ("POST", "/api/v1/endpoint/iris/v1/models/m:predict", "POST /v1/models/m:predict HTTP/1.1"),
        ("POST", "/api/v1/endpoint/iris/a%20b", "POST /a%20b HTTP/1.1"),
        ("POST", "/api/v1/service/old-model/score", "POST /score HTTP/1.1"),
    ] {
        let got = client.ask(request(method, path, &[KEY], "")).await;
        assert_eq!((got.status, got.text().as_str()), (200, line), "{method} {path}");
    }
    let health = client.ask(request("GET", "/", &[], "")).await;
    assert_eq!(health.status, 200);
    for path in ["/score", "/api/v1/endpoint/iris", "/api/v1/endpoint/nobody/score", "/api/v1/service/iris/score"] {
        let got = client.ask(request("POST", path, &[KEY], "")).await;
        assert_eq!(got.status, 404, "{path}");
        assert_eq!(got.error("requestId"), got.header("x-request-id").unwrap());
        assert!(got.header("retry-after").is_none());
    }
    let got = client.ask(request("POST", "/api/v1/endpoint/iris/%2e%2e/score", &[KEY], "")).await;
    assert_eq!((got.status, got.error("code").as_str()), (400, "MalformedRequest"));
    router.drain().await;
}

#[tokio::test]
async fn only_keys_of_the_endpoint_are_let_in() {
    let replica = ScriptedReplica::start(|_| ok("in")).await;
    let router = Router::start(&World::new().deployment("blue", &[], &[replica.address])).await;
    let mut client = router.client().await;
    let path = "/api/v1/endpoint/iris/score";
    for key in ["Authorization: Bearer secret-1", "Authorization: bearer secret-2"] {
        assert_eq!(client.ask(request("POST", path, &[key], "")).await.status, 200);
    }
    let none = client.ask(request("POST", path, &[], "")).await;
    assert_eq!(none.status, 401);
    assert!(none.error("message").contains("Unauthorized, no Auth Header"));
    assert_eq!(none.header("www-authenticate"), Some("Bearer"));
    for key in ["Authorization: Bearer secret-3", "Authorization: Basic secret-1", "Authorization: Bearer "] {
        let got = client.ask(request("POST", path, &[key], "")).await;
        assert_eq!((got.status, got.error("code").as_str()), (401, "Unauthorized"), "{key}");
        assert!(!got.text().contains("secret"));
    }
    assert_eq!(replica.seen().len(), 2);
    assert_eq!(router.log(6).await[2]["Outcome"], "unauthorized");
    router.drain().await;
}

#[tokio::test]
async fn a_header_names_the_deployment_also_at_zero_percent() {
    let (blue, green) = (ScriptedReplica::start(|_| ok("blue")).await, ScriptedReplica::start(|_| ok("green")).await);
    let world = World::new().deployment("blue", &[("traffic-percent", "100")], &[blue.address]).deployment(
        "green",
        &[("traffic-percent", "0")],
        &[green.address],
    );
    let router = Router::start(&world).await;
    let mut client = router.client().await;
    for _ in 0..20 {
        assert_eq!(client.ask(score("")).await.text(), "blue");
    }
    let path = "/api/v1/endpoint/iris/score";
    let got = client.ask(request("POST", path, &[KEY, "azureml-model-deployment: GREEN"], "")).await;
    assert_eq!((got.text().as_str(), got.header("azureml-model-deployment")), ("green", Some("green")));
    let got = client.ask(request("POST", path, &[KEY, "azureml-model-deployment: red"], "")).await;
    assert_eq!((got.status, got.error("code").as_str()), (404, "UnknownDeployment"));
    assert!(got.error("message").contains("red"));
    router.drain().await;
}

#[tokio::test]
async fn a_raising_script_becomes_502_and_other_statuses_pass() {
    let replica = ScriptedReplica::start(|seen| {
        let status = seen.header("x-status").unwrap().parse().unwrap();
        vec![Step::Send(answer(status, &["x-ms-run-function-failed: True", "x-ms-server-version: azmlinfsrv/1"], "oh"))]
    })
    .await;
    let router = Router::start(&World::new().deployment("blue", &[], &[replica.address])).await;
    let mut client = router.client().await;
    for (status, expected) in
        [("500", 502), ("501", 501), ("503", 503), ("504", 504), ("400", 400), ("302", 302), ("422", 422)]
    {
        let header = format!("x-status: {status}");
        let got = client.ask(request("POST", "/api/v1/endpoint/iris/score", &[KEY, &header], "")).await;
        assert_eq!((got.status, got.text().as_str()), (expected, "oh"), "{status}");
        assert_eq!(got.header("x-ms-run-function-failed"), Some("True"));
        assert_eq!(got.header("retry-after"), None);
        let reason = got.header("ms-azureml-model-error-reason");
        assert_eq!(reason, (status == "500").then_some("model_error"));
        assert_eq!(got.header("ms-azureml-model-error-statuscode"), (status == "500").then_some("500"));
    }
    let line = router.log(7).await.remove(0);
    assert_eq!((line["ResponseCode"].clone(), line["ModelStatusCode"].clone()), (502.into(), 500.into()));
    assert_eq!(line["Outcome"], "model_error");
    router.drain().await;
}

#[tokio::test]
async fn a_connection_is_opened_when_needed_and_kept_only_if_the_replica_agrees() {
    let keeps = ScriptedReplica::start(|_| ok("keeps")).await;
    let closes = ScriptedReplica::start(|_| ok_and_close("closes")).await;
    let world = World::new().deployment("blue", &[("traffic-percent", "100")], &[keeps.address]).deployment(
        "green",
        &[],
        &[closes.address],
    );
    let router = Router::start(&world).await;
    assert_eq!(keeps.connections() + closes.connections(), 0);
    let mut client = router.client().await;
    for _ in 0..5 {
        assert_eq!(client.ask(score("x")).await.status, 200);
        let path = "/api/v1/endpoint/iris/score";
        assert_eq!(client.ask(request("POST", path, &[KEY, "azureml-model-deployment: green"], "")).await.status, 200);
    }
    assert_eq!((keeps.connections(), closes.connections()), (1, 5));
    router.drain().await;
}

#[tokio::test]
async fn the_id_of_a_trusted_ingress_is_kept() {
    let replica = ScriptedReplica::start(|_| ok("")).await;
    let world = World::new().deployment("blue", &[], &[replica.address]);
    let router =
        Router::start_with(&world, |config| config.limits.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()]).await;
    let headers = [KEY, "x-request-id: from-ingress", "x-forwarded-for: 203.0.113.9"];
    let mut client = router.client().await;
    let got = client.ask(request("POST", "/api/v1/endpoint/iris/score", &headers, "")).await;
    assert_eq!(got.header("x-request-id"), Some("from-ingress"));
    let seen = replica.wait_for(1).await.remove(0);
    assert_eq!(seen.header("x-request-id"), Some("from-ingress"));
    assert_eq!(seen.header("x-forwarded-for"), Some("203.0.113.9, 127.0.0.1"));
    assert_eq!(router.log(1).await[0]["ClientIp"], "203.0.113.9");
    router.drain().await;
}
