//! Heads of answers: the same to the client whichever way they take through the router, and each with its own answer.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use scorefront::testing::PATIENCE;
use scorefront::testing::client::{Answer, Client, request, score};
use scorefront::testing::replica::{ScriptedReplica, Step, answer};
use scorefront::testing::router::Router;
use scorefront::testing::world::World;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{sleep, timeout};

const KEY: &str = "Authorization: Bearer secret-1";
const SCORE: &str = "/api/v1/endpoint/iris/score";

/// Answers as replicas give them.
const HEADS: [&str; 23] = [
    "200 OK\r\nServer: gunicorn\r\nContent-Type: application/json\r\nContent-Length: 4\r\n\r\nbody",
    "200 OK\r\nSERVER:uvicorn\r\nX-Empty:\r\nX-Latin: \u{e4}\r\nX-Tab:  a\tb \r\nContent-Length: 4\r\n\r\nbody",
    "200 OK\r\nDate: Mon, 30 Nov 2026 00:00:00 GMT\r\nDate: twice\r\nContent-Length: 0\r\n\r\n",
    "200 OK\r\nSet-Cookie: a=1\r\nX-Other: c\r\nSet-Cookie: b=2\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n",
    "200 OK\r\nContent-Length: 4, 4\r\nContent-Length: 4\r\n\r\nbody",
    "200 OK\r\nConnection: close\r\nX-Own: a\r\n\r\nbody",
    "200 OK\r\nConnection: Keep-Alive\r\nKeep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\nContent-Length: 4\r\n\r\nbody",
    "200 OK\r\nConnection: x-own, close\r\nX-Own: a\r\nX-Kept: b\r\nContent-Length: 4\r\n\r\nbody",
    "200 OK\r\nConnection: close\r\nClose: a\r\nContent-Length: 4\r\n\r\nbody",
    "200 OK\r\nX-Request-Id: theirs\r\nX-Ms-Request-Id: theirs\r\nX-Ms-Client-Request-Id: theirs\r\n\
     Azureml-Model-Deployment: theirs\r\nServer-Timing: db;dur=1\r\nContent-Length: 4\r\n\r\nbody",
    "200 OK\r\nUpgrade: h2c\r\nTE: trailers\r\nHTTP2-Settings: a\r\nContent-Length: 4\r\n\r\nbody",
    "200 OK\r\nTrailer: x-sum\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\nX-Sum: 1\r\n\r\n",
    "201 Made\r\nLocation: /a\r\nContent-Length: 0\r\n\r\n",
    "204 No Content\r\nX-Own: a\r\n\r\n",
    "205 Reset Content\r\nContent-Length: 0\r\n\r\n",
    "304 Not Modified\r\nETag: \"a\"\r\n\r\n",
    // Those that hyper gives by itself.
    "400 Bad Request\r\nX-Own: a\r\nContent-Length: 4\r\n\r\nbody",
    "408 Request Timeout\r\nX-Own: a\r\nContent-Length: 4\r\n\r\nbody",
    "414 URI Too Long\r\nX-Own: a\r\nContent-Length: 0\r\n\r\n",
    "431 Request Header Fields Too Large\r\nX-Own: a\r\nContent-Length: 4\r\n\r\nbody",
    "404 Not Found\r\nX-Own: a\r\nContent-Length: 4\r\n\r\nbody",
    "500 Internal Server Error\r\nX-Own: a\r\nms-azureml-model-error-reason: theirs\r\nContent-Length: 4\r\n\r\nbody",
    "599 Odd\r\nX-Own: a\r\nContent-Length: 4\r\n\r\nbody",
];

/// A replica that answers with what the query names, and a router before it.
async fn start() -> (ScriptedReplica, Router) {
    let replica = ScriptedReplica::start(|seen| {
        let line = seen.line();
        let number = line.split(['?', ' ']).nth(2).and_then(|number| number.parse::<usize>().ok());
        let text = number.and_then(|number| HEADS.get(number)).copied().unwrap_or(HEADS[0]);
        let is_last = text.contains("onnection: ") && text.contains("close");
        // Latin-1, as models write it.
        let bytes = format!("HTTP/1.1 {text}").chars().map(|sign| u8::try_from(u32::from(sign)).unwrap()).collect();
        [vec![Step::Send(bytes)], if is_last { vec![Step::Close] } else { Vec::new() }].concat()
    })
    .await;
    let router = Router::start(&World::new().deployment("blue", &[], &[replica.address])).await;
    (replica, router)
}

/// What a client was told, without what each way and each request have of their own.
type Told = (u16, Vec<(String, Vec<u8>)>, Vec<u8>);

fn told(status: u16, headers: impl Iterator<Item = (String, Vec<u8>)>, body: &[u8]) -> Told {
    let (own, mut headers): (Vec<_>, Vec<_>) = headers
        .filter(|(name, value)| {
            !["connection", "transfer-encoding", "content-length"].contains(&&**name) && !is_date(name, value)
        })
        .partition(|(name, _)| name == "x-request-id" || name == "x-ms-request-id");
    assert_eq!(own.len(), 2, "{own:?}");
    headers.sort_by(|(a, _), (b, _)| a.cmp(b));
    for (_, value) in headers.iter_mut().filter(|(name, value)| name == "server-timing" && value.starts_with(b"queue"))
    {
        *value = b"ours".to_vec();
    }
    (status, headers, body.to_vec())
}

/// Whether the router has added it.
fn is_date(name: &str, value: &[u8]) -> bool {
    name == "date" && !value.starts_with(b"Mon, 30 Nov 2026 00:00:00") && value != b"twice"
}

fn told_http1(answer: &Answer) -> Told {
    assert!(answer.whole, "{answer:?}");
    let lines = answer.head.lines().skip(1).filter_map(|line| line.split_once(": "));
    let headers = lines.map(|(name, value)| {
        assert_eq!(name, name.to_ascii_lowercase());
        // The client has read it as UTF-8.
        (name.to_owned(), value.replace(char::REPLACEMENT_CHARACTER, "\u{e4}").into_bytes())
    });
    told(answer.status, headers, &answer.body)
}

async fn ask_http2(router: &Router, number: usize) -> Told {
    let socket = TcpStream::connect(router.address).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(socket)).await.unwrap();
    tokio::spawn(connection);
    let request = http::Request::post(format!("http://models.test{SCORE}?{number}"))
        .header("authorization", "Bearer secret-1")
        .body(Full::new(Bytes::new()))
        .unwrap();
    let (parts, body) = sender.send_request(request).await.unwrap().into_parts();
    let headers: Vec<_> = parts
        .headers
        .iter()
        .map(|(name, value)| {
            let value: String = value.as_bytes().iter().copied().map(char::from).collect();
            (name.to_string(), value.into_bytes())
        })
        .collect();
    let body = body.collect().await.unwrap().to_bytes();
    told(parts.status.as_u16(), headers.into_iter(), &body)
}

#[tokio::test]
async fn with_http1_hyper_writes_only_what_it_has_to_know() {
    let (_replica, router) = start().await;
    for (headers, is_behind) in [(&[KEY][..], true), (&[KEY, "Expect: 100-continue"], false)] {
        let got = router.client().await.ask(request("POST", SCORE, headers, "")).await;
        let place = |name: &str| got.head.find(&format!("\r\n{name}: ")).unwrap();
        assert_eq!(place("content-length") > place("x-request-id"), is_behind, "{}", got.head);
    }
    router.drain().await;
}

#[tokio::test]
async fn an_answer_says_the_same_whichever_way_its_head_takes() {
    let (_replica, router) = start().await;
    for (number, text) in HEADS.iter().enumerate() {
        let path = format!("{SCORE}?{number}");
        let ask = async |headers: &[&str]| {
            // Its end says where an answer without a body ends.
            let headers = [&[KEY, "Connection: close"], headers].concat();
            told_http1(&router.client().await.ask(request("POST", &path, &headers, "")).await)
        };
        let lines = ask(&[]).await;
        // With this header the router keeps all of them in a map, as it does with HTTP/2.
        let map = ask(&["Expect: 100-continue"]).await;
        assert_eq!(lines, map, "{text}");
        let old = format!("POST {path} HTTP/1.0\r\n{KEY}\r\nContent-Length: 0\r\n\r\n");
        // Where nothing comes in chunks, no trailers are announced.
        let mut without = map.clone();
        without.1.retain(|(name, _)| name != "trailer");
        assert_eq!(told_http1(&router.client().await.ask(old).await), without, "{text}");
        if !["204", "304"].contains(&&text[..3]) {
            let mut client = router.client().await;
            for turn in ["first", "second"] {
                let got = client.ask(request("POST", &path, &[KEY], "")).await;
                assert_eq!(told_http1(&got), map, "{turn}: {text}");
            }
        }
        assert_eq!(ask_http2(&router, number).await, map, "{text}");
    }
    router.drain().await;
}

const FILL: usize = 30 << 10;

/// Headers of 120 KiB, more than goes out at a time to a client that does not read.
fn long_head(number: &str) -> Vec<u8> {
    let fill = format!("X-Fill: {}", "f".repeat(FILL));
    answer(200, &[&fill, &fill, &format!("X-Number: {number}"), &fill, &fill], "body")
}

/// A connection whose client takes little unread.
async fn narrow(router: &Router) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4 << 10).unwrap();
    socket.connect(router.address).await.unwrap()
}

#[tokio::test]
async fn heads_that_go_out_little_by_little_stay_with_their_answers() {
    const REQUESTS: usize = 20;
    let replica =
        ScriptedReplica::start(|seen| vec![Step::Send(long_head(seen.header("x-number").unwrap_or_default()))]).await;
    let router = Router::start(&World::new().deployment("blue", &[], &[replica.address])).await;
    let mut client = Client::over(narrow(&router).await);
    let requests = (0..REQUESTS).map(|number| request("POST", SCORE, &[KEY, &format!("X-Number: {number}")], ""));
    client.send(requests.collect::<String>()).await;
    // The first one cannot go out before it is read.
    replica.wait_for(1).await;
    for number in 0..REQUESTS {
        let got = client.answer().await;
        let lines: Vec<(&str, &str)> = got.head.lines().skip(1).filter_map(|line| line.split_once(": ")).collect();
        let count = |name: &str| lines.iter().filter(|(other, _)| *other == name).count();
        assert_eq!((got.status, got.header("x-number"), &*got.body), (200, Some(&*number.to_string()), &b"body"[..]));
        assert_eq!(["x-number", "x-fill", "x-request-id", "content-length"].map(count), [1, 4, 1, 1], "{number}");
        let fills = lines.iter().filter(|(name, _)| *name == "x-fill");
        assert!(fills.into_iter().all(|(_, fill)| fill.len() == FILL), "{number}");
    }
    router.drain().await;
}

#[tokio::test]
async fn a_client_that_takes_a_long_head_slowly_takes_something() {
    let replica = ScriptedReplica::start(|_| vec![Step::Send(long_head("1"))]).await;
    let router = Router::start_with(&World::new().deployment("blue", &[], &[replica.address]), |config| {
        config.limits.body_timeout = Duration::from_secs(1);
        config.limits.answer_rate_min = 1;
        // So that the router sees what is taken as it is, and not in some large steps.
        config.limits.unsent_max = 4 << 10;
        // The watch over a connection looks four times within this time.
        config.limits.head_timeout = Duration::from_secs(1);
    })
    .await;
    let mut socket = narrow(&router).await;
    socket.write_all(score("").as_bytes()).await.unwrap();
    let (mut head, mut block) = (Vec::new(), [0; 2 << 10]);
    while !head.ends_with(b"body") {
        // Slowly: three times as long as a client may take nothing.
        sleep(Duration::from_millis(50)).await;
        let read = timeout(PATIENCE, socket.read(&mut block)).await.expect("there is more").unwrap();
        assert!(read > 0, "cut off after {} bytes", head.len());
        head.extend_from_slice(&block[..read]);
    }
    assert_eq!(router.log(1).await[0]["Outcome"], "served");
    router.drain().await;
}
