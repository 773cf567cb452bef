//! Content rules in the gateway: what they see, what they refuse, and what they leave as it was.

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::{HeaderMap, Request, body::Frame};
use tests::{
    agent::{Agent, Event},
    http::{
        app::{App, Seen},
        body::Stream,
        grpc::Call,
        http2, within,
    },
    netns::World,
};

use super::support::{API, Gateway, NO_BANS, PORT, assert_problem, at, host};

const RULES: &str = r#"
SecRequestBodyNoFilesLimit 200000
SecAction "id:9,phase:1,pass,nolog,setvar:tx.blocking_inbound_anomaly_score=7"
SecRule ARGS "@contains evil" "id:1,phase:2,deny,status:403,t:lowercase,severity:CRITICAL,msg:'Evil',tag:'test/evil',logdata:'%{MATCHED_VAR}'"
SecRule REQUEST_HEADERS:User-Agent "@streq scanner" "id:2,phase:1,deny,status:406"
SecRule REQUEST_URI "@beginsWith /away" "id:3,phase:1,redirect:https://elsewhere.test/"
SecRule REQUEST_URI "@beginsWith /cut" "id:4,phase:1,drop"
SecRule RESPONSE_HEADERS:Content-Type "@streq text/event-stream" "id:5,phase:3,pass,log"
SecRule RESPONSE_BODY "@contains leaked" "id:6,phase:4,deny,status:403"
SecRule RESPONSE_STATUS "@streq 418" "id:7,phase:3,deny,status:500"
SecRule REQUEST_COOKIES "@contains noted" "id:8,phase:1,pass,log,logdata:'%{MATCHED_VAR}'"
SecRule REQUEST_URI|REQUEST_HEADERS:Referer "@contains /noted?" "id:10,phase:1,pass,log,logdata:'%{MATCHED_VAR}'"
SecRule REQUEST_COOKIES "@rx ^noted-(.+)" "id:11,phase:1,pass,log,capture,logdata:'%{TX.1}',chain"
SecRule TX:1 "@rx ." ""
"#;

fn start(api: &str, rules: &str) -> Gateway {
    let config = format!("{API}rules = [\"rules/*.conf\"]\n{api}\n{NO_BANS}");
    let world = World::new().unwrap();
    let app = App::start(&world.host, at("::", PORT)).unwrap();
    let agent = Agent::start_with(&world, &config, &[("rules/a.conf", rules)])
        .unwrap_or_else(|error| panic!("{error:#}\nin:\n{config}"));
    Gateway { agent, app, world }
}

fn post(path: &str, media: &str, fields: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("POST {path} HTTP/1.1\r\nHost: api.test\r\nContent-Type: {media}\r\n{fields}Content-Length: {length}\r\n\r\n{body}")
        .into_bytes()
}

fn chunked(path: &str, media: &str, pieces: &[&str]) -> Vec<u8> {
    let mut request = format!(
        "POST {path} HTTP/1.1\r\nHost: api.test\r\nContent-Type: {media}\r\nTransfer-Encoding: chunked\r\n\r\n"
    );
    for piece in pieces {
        request += &format!("{:x}\r\n{piece}\r\n", piece.len());
    }
    (request + "0\r\n\r\n").into_bytes()
}

/// A body in gzip: one stored block.
fn gzip(path: &str, media: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len() as u16;
    let mut crc = u32::MAX;
    for byte in body {
        crc ^= u32::from(*byte);
        (0..8).for_each(|_| crc = (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg()));
    }
    let mut encoded = b"\x1f\x8b\x08\0\0\0\0\0\0\xff\x01".to_vec();
    encoded.extend(length.to_le_bytes().into_iter().chain((!length).to_le_bytes()));
    encoded.extend_from_slice(body);
    encoded.extend((!crc).to_le_bytes().into_iter().chain(u32::from(length).to_le_bytes()));
    let mut request = post(path, media, "Content-Encoding: gzip\r\n", &"?".repeat(encoded.len()));
    let at = request.len() - encoded.len();
    request[at..].copy_from_slice(&encoded);
    request
}

fn ids(event: &Event) -> Vec<u64> {
    let rules = event.more.get("rules").and_then(|rules| rules.as_array()).cloned().unwrap_or_default();
    rules.iter().map(|rule| rule["id"].as_u64().unwrap()).collect()
}

fn phases(event: &Event) -> String {
    event.more.get("phases").map_or_else(String::new, ToString::to_string)
}

#[test]
fn what_rules_condemn_does_not_reach_the_application() {
    let gateway = start("", RULES);
    let json = "application/json";
    let form = "application/x-www-form-urlencoded";
    let multipart = "--b\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\nEVIL\r\n--b--\r\n";
    for (what, request, status, rule, variable) in [
        ("a query", b"GET /x?q=Evil HTTP/1.1\r\nHost: api.test\r\n\r\n".to_vec(), 403, 1, "ARGS:q"),
        (
            "a head",
            b"GET /x HTTP/1.1\r\nHost: api.test\r\nUser-Agent: scanner\r\n\r\n".to_vec(),
            406,
            2,
            "REQUEST_HEADERS:User-Agent",
        ),
        ("a form", post("/x", form, "", "a=1&b=%45vil"), 403, 1, "ARGS:b"),
        ("JSON", post("/x", json, "", r#"{"a":{"b":["ok","e\u0076il"]}}"#), 403, 1, "ARGS:json.a.b.array_1"),
        ("parts", post("/x", "multipart/form-data; boundary=b", "", multipart), 403, 1, "ARGS:a"),
        ("chunks", chunked("/x", json, &["{\"a\":\"e", "vi", "l\"}"]), 403, 1, "ARGS:json.a"),
        ("gzip", gzip("/x", form, b"a=evil"), 403, 1, "ARGS:a"),
        ("a client that waits", post("/x", form, "Expect: 100-continue\r\n", "a=evil"), 403, 1, "ARGS:a"),
    ] {
        let mark = gateway.agent.mark();
        let before = gateway.app.requests();
        let mut client = gateway.client(0);
        client.send(&request).unwrap();
        let response = client.response(false).unwrap().expect("an answer");
        assert_problem(&response, status);
        let event = gateway.refusal(mark, "content-rule");
        assert_eq!(ids(&event), [rule], "{what}: {event:?}");
        assert_eq!(event.more["rules"][0]["variable"], variable, "{what}");
        assert_eq!(event.more["score_in"], 7, "{what}");
        assert_eq!(phases(&event), if rule == 2 { "[1,5]" } else { "[1,2,5]" }, "{what}");
        assert_eq!(gateway.app.requests(), before, "{what} reached the application");
    }
    let mark = gateway.agent.mark();
    gateway.ask(0, &post("/x", form, "", "a=so+EVIL"));
    let event = gateway.refusal(mark, "content-rule");
    let rule = serde_json::json!({
        "id": 1, "phase": 2, "severity": "CRITICAL", "message": "Evil", "tags": ["test/evil"],
        "variable": "ARGS:a", "matched": "so evil", "data": "so evil",
    });
    assert_eq!(event.more["rules"][0], rule);

    let response = gateway.ask(0, b"GET /away HTTP/1.1\r\nHost: api.test\r\n\r\n");
    assert_eq!((response.status, response.header("location")), (302, Some("https://elsewhere.test/")));
    let mut client = gateway.client(0);
    client.send(b"GET /cut HTTP/1.1\r\nHost: api.test\r\n\r\n").unwrap();
    assert!(client.response(false).unwrap().is_none(), "an answer");
}

#[test]
fn what_passes_arrives_as_it_was_sent() {
    let gateway = start("", RULES);
    let long = format!("{{\"a\":\"{}\"}}", "x".repeat(150_000));
    let half = long.len() / 2;
    for (what, request, length) in [
        ("nothing", b"GET /seen HTTP/1.1\r\nHost: api.test\r\n\r\n".to_vec(), 0),
        ("a short body", post("/seen", "application/json", "", "{}"), 2),
        ("a long body", post("/seen", "application/json", "", &long), long.len()),
        ("chunks", chunked("/seen", "application/json", &[&long[..half], &long[half..]]), long.len()),
        ("gzip", gzip("/seen", "application/json", b"{\"a\":1}"), 7),
        ("what nobody looks into", post("/seen", "application/octet-stream", "", &"y".repeat(1_000_000)), 1_000_000),
    ] {
        let mark = gateway.agent.mark();
        let response = gateway.ask(0, &request);
        assert_eq!(response.status, 200, "{what}: {}", response.text());
        let seen: Seen = serde_json::from_value(response.json().unwrap()).unwrap();
        assert_eq!(seen.body, length, "{what}");
        // Answers that are looked into come without a coding.
        assert_eq!(seen.values("accept-encoding"), ["identity"], "{what}");
        let event = gateway.record(mark, "/seen");
        assert_eq!((&event.action[..], &phases(&event)[..]), ("pass", "[1,2,3,4,5]"), "{what}");
        assert_eq!(event.more["bytes_in"], if what == "gzip" { 30 } else { length }, "{what}");
        assert_eq!(seen.values("content-encoding"), [""; 0], "{what}");
        assert_eq!(event.more["bytes_out"], response.body.len(), "{what}");
    }
    let large = gateway.ask(0, b"GET /bytes/3000000 HTTP/1.1\r\nHost: api.test\r\n\r\n");
    assert_eq!(large.body.len(), 3_000_000);
    let chunks = gateway.ask(0, b"GET /chunked HTTP/1.1\r\nHost: api.test\r\n\r\n");
    assert_eq!(chunks.status, 200);
}

#[test]
fn http_2_and_grpc_are_looked_at_too() {
    let gateway = start("", RULES);
    within(&gateway.world.client, async {
        let mut connection = http2::Connection::open(host()).await.unwrap();
        assert_eq!(connection.get("/x?q=evil").await.unwrap().status, 403);
        for (body, status) in [("{\"a\":\"evil\"}", 403), ("{\"a\":\"good\"}", 200)] {
            let request = Request::post("http://api.test/seen").header("content-type", "application/json");
            let answer = connection.send(request.body(Stream::full(body)).unwrap()).await.unwrap();
            assert_eq!(answer.status(), status, "{body}");
        }
        // Streams both ways at once: neither is held.
        let mut call = Call::start(&mut connection, "Both").await.unwrap();
        for message in [&b"one"[..], b"two"] {
            call.say(message).await.unwrap();
            assert_eq!(call.next().await.unwrap(), Some(Bytes::from_static(message)));
        }
        call.finish();
        assert_eq!(call.next().await.unwrap(), None);
        assert_eq!(call.status(), Some("0"));
    });
}

#[test]
fn what_cannot_be_looked_at_is_refused() {
    let gateway = start("", &format!("{RULES}SecArgumentsLimit 10\nSecRequestBodyJsonDepthLimit 5\n"));
    let many = (0..11).map(|number| number.to_string()).collect::<Vec<_>>().join(",");
    let json = "application/json";
    let mut not_utf8 = post("/x", json, "", "{\"a\":\"?\"}");
    let at = not_utf8.len() - 3;
    not_utf8[at] = 0xff;
    for (what, request, status, reason) in [
        ("malformed JSON", post("/x", json, "", "{\"a\":"), 400, "body-malformed"),
        ("JSON that is not UTF-8", not_utf8, 400, "body-malformed"),
        ("many arguments", post("/x", json, "", &format!("[{many}]")), 413, "body-structure"),
        ("depth", post("/x", json, "", "[[[[[[1]]]]]]"), 413, "body-structure"),
        ("an unknown coding", post("/x", json, "Content-Encoding: compress\r\n", "{}"), 415, "content-encoding"),
        ("two codings", post("/x", json, "Content-Encoding: gzip, gzip\r\n", "{}"), 415, "content-encoding"),
        ("length", post("/x", json, "", &format!("[{}]", " ".repeat(200_000))), 413, "body-too-large"),
    ] {
        let mark = gateway.agent.mark();
        let before = gateway.app.requests();
        assert_problem(&gateway.ask(0, &request), status);
        gateway.refusal(mark, reason);
        assert_eq!(gateway.app.requests(), before, "{what}");
    }
    let partial = RULES.replace("NoFilesLimit 200000", "NoFilesLimit 200\nSecRequestBodyLimitAction ProcessPartial");
    let gateway = start("", &partial);
    let form = "application/x-www-form-urlencoded";
    let long = "z".repeat(300_000);
    assert_eq!(gateway.ask(0, &post("/x", form, "", &format!("a=evil&b={long}"))).status, 403);
    let response = gateway.ask(0, &post("/seen", form, "", &format!("b={long}")));
    let seen: Seen = serde_json::from_value(response.json().unwrap()).unwrap();
    assert_eq!(seen.body, 300_002);
}

#[test]
fn answers_are_looked_at() {
    let gateway = start("", RULES);
    let mark = gateway.agent.mark();
    let response = gateway.ask(0, b"GET /leaked HTTP/1.1\r\nHost: api.test\r\n\r\n");
    assert_problem(&response, 403);
    let event = gateway.refusal(mark, "answer-rule");
    assert_eq!((&ids(&event)[..], &phases(&event)[..]), (&[6][..], "[1,2,3,4,5]"));
    let response = gateway.ask(0, b"GET /status/418 HTTP/1.1\r\nHost: api.test\r\n\r\n");
    assert_problem(&response, 500);
    // An event stream comes as it comes.
    let mark = gateway.agent.mark();
    let mut client = gateway.client(0);
    let began = std::time::Instant::now();
    client.send(b"GET /sse/3/300 HTTP/1.1\r\nHost: api.test\r\n\r\n").unwrap();
    let response = client.response(false).unwrap().unwrap();
    assert_eq!(response.status, 200);
    assert!(began.elapsed().as_millis() < 2000);
    assert_eq!(ids(&gateway.record(mark, "/sse/3/300")), [5]);
}

#[test]
fn detection_and_monitoring_tell_and_let_pass() {
    for (api, rules, action) in [
        ("", format!("SecRuleEngine DetectionOnly\n{RULES}"), "pass"),
        ("mode = \"monitor\"\n", RULES.to_owned(), "monitor"),
    ] {
        let gateway = start(api, &rules);
        let mark = gateway.agent.mark();
        assert_eq!(gateway.ask(0, b"GET /x?q=evil HTTP/1.1\r\nHost: api.test\r\n\r\n").status, 200);
        let event = gateway.record(mark, "/x");
        assert_eq!((&event.action[..], &ids(&event)[..]), (action, &[1][..]), "{event:?}");
        let mark = gateway.agent.mark();
        assert_eq!(gateway.ask(0, &post("/y", "application/json", "", "{")).status, 200);
        let event = gateway.record(mark, "/y");
        assert_eq!((&event.action[..], &event.reason[..]), ("monitor", "body-malformed"));
    }
}

#[test]
fn secrets_are_not_in_events() {
    let gateway = start("", RULES);
    let mark = gateway.agent.mark();
    gateway.ask(0, b"GET /noted HTTP/1.1\r\nHost: api.test\r\nCookie: sid=noted-s3cr3t\r\n\r\n");
    let event = gateway.record(mark, "/noted");
    assert_eq!(ids(&event), [8, 11]);
    for rule in [0, 1] {
        assert!(event.more["rules"][rule]["matched"].as_str().unwrap().starts_with("[masked, "), "{event:?}");
    }
    assert!(!serde_json::Value::from(event.more.clone()).to_string().contains("s3cr3t"));
    // What holds more than secrets is masked in part.
    let mark = gateway.agent.mark();
    let request =
        "GET /noted?a=1&token=s3cr3t&b=2 HTTP/1.1\r\nHost: api.test\r\nReferer: /noted?password=s3cr3t\r\n\r\n";
    gateway.ask(0, request.as_bytes());
    let event = gateway.record(mark, "/noted");
    assert_eq!(event.more["rules"][0]["data"], "/noted?password=[masked]");
    assert!(!serde_json::Value::from(event.more.clone()).to_string().contains("s3cr3t"));
}

#[test]
fn large_bodies_on_their_way_do_not_shut_out_small_ones() {
    const PIECE: usize = 1 << 20;
    let limit = "SecRequestBodyLimit 67108864\nSecRequestBodyNoFilesLimit 67108864\n";
    let api = "[api.limits]\nbody = \"64MiB\"\n";
    let gateway = start(api, &format!("SecRequestBodyAccess On\n{RULES}{limit}"));
    let form = "application/x-www-form-urlencoded";
    let head = format!(
        "POST /upload HTTP/1.1\r\nHost: api.test\r\nContent-Type: {form}\r\nContent-Length: {}\r\n\r\n",
        64 * PIECE
    );
    let mark = gateway.agent.mark();
    let piece = vec![b'a'; PIECE];
    // 300 MiB, all but done.
    let mut slow: Vec<_> = (0..5).map(|number| gateway.client(number)).collect();
    for client in &mut slow {
        client.send(head.as_bytes()).unwrap();
        for _ in 0..60 {
            // The first of them may be refused already.
            let _cut = client.send(&piece);
        }
    }
    let event = gateway.record(mark, "/upload");
    assert_eq!((&event.reason[..], event.status()), ("inspection-memory", Some(503)));
    for body in [200, 100_000, 20 << 20] {
        let response = gateway.ask(6, &post("/seen", form, "", &"b".repeat(body)));
        assert_eq!(response.status, 200, "{body}");
    }
    assert_eq!(gateway.ask(6, &post("/x", form, "", "a=evil")).status, 403);
}

#[test]
fn trailers_that_rules_do_not_see_go_no_further() {
    let gateway = start("", RULES);
    within(&gateway.world.client, async {
        let mut connection = http2::Connection::open(host()).await.unwrap();
        let (feeder, body) = Stream::new(None);
        let request = Request::post("http://api.test/seen").body(body).unwrap();
        feeder.send(Frame::data("abc".into())).await.unwrap();
        feeder
            .send(Frame::trailers(HeaderMap::from_iter([("x-sum".parse().unwrap(), "evil".parse().unwrap())])))
            .await
            .unwrap();
        drop(feeder);
        let answer = connection.send(request).await.unwrap().into_body().collect().await.unwrap().to_bytes();
        let seen: Seen = serde_json::from_slice(&answer).unwrap();
        assert_eq!((seen.version.as_str(), seen.body, seen.trailers), ("HTTP/2.0", 3, vec![]));
    });
}

#[test]
fn exclusions_hold_where_they_are_meant_to() {
    let exclude = "[[api.exclude]]\npath = \"/search\"\nrules = [1]\ntargets = [\"ARGS:q\"]\n[[api.exclude]]\npath = \
                   \"/files/*\"\ntags = [\"test/evil\"]\n[[api.exclude]]\nrules = [\"2-2\"]";
    let gateway = start(exclude, RULES);
    for (target, status) in [
        ("/search?q=evil", 200),
        ("/search?p=evil", 403),
        ("/./search?q=evil", 200),
        ("/search/../admin?q=evil", 403),
        ("/searching?q=evil", 403),
        ("/files/a?q=evil", 200),
        ("/files/../admin?q=evil", 403),
        ("/files?q=evil", 403),
    ] {
        let request = format!("GET {target} HTTP/1.1\r\nHost: api.test\r\nUser-Agent: scanner\r\n\r\n");
        assert_eq!(gateway.ask(0, request.as_bytes()).status, status, "{target}");
    }
}

#[test]
fn rule_files_reload_and_broken_ones_change_nothing() {
    let gateway = start("", RULES);
    let ask =
        |query: &str| gateway.ask(0, format!("GET /x?q={query} HTTP/1.1\r\nHost: api.test\r\n\r\n").as_bytes()).status;
    assert_eq!((ask("evil"), ask("worse")), (403, 200));
    let before = gateway.agent.status().unwrap();
    gateway.agent.write("rules/a.conf", &RULES.replace("evil", "worse")).unwrap();
    let after = gateway.agent.wait_reload(&before).unwrap();
    assert_eq!(after.reloads.succeeded, before.reloads.succeeded + 1);
    assert_eq!((ask("evil"), ask("worse")), (200, 403));

    gateway
        .agent
        .write("rules/a.conf", "SecAction \"id:1,phase:1,pass\"\nSecRule ARGS \"@rx (\" \"id:2,phase:2,deny\"\n")
        .unwrap();
    let broken = gateway.agent.wait_reload(&after).unwrap();
    assert_eq!(broken.reloads.failed, after.reloads.failed + 1);
    let error = broken.reloads.last_error.clone().unwrap();
    assert!(error.contains("a.conf:2:"), "{error}");
    assert_eq!((ask("evil"), ask("worse")), (200, 403));

    // A file that a pattern matches now counts, though nothing named it.
    gateway.agent.write("rules/a.conf", &RULES.replace("evil", "worse")).unwrap();
    let mended = gateway.agent.wait_reload(&broken).unwrap();
    gateway.agent.write("rules/b.conf", "SecRule ARGS \"@contains bad\" \"id:20,phase:2,deny,status:403\"\n").unwrap();
    let more = gateway.agent.wait_reload(&mended).unwrap();
    assert_eq!(more.reloads.last_error, None);
    assert_eq!((ask("bad"), ask("worse"), ask("evil")), (403, 403, 200));
}
