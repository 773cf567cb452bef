mod bodies;

use std::{sync::LazyLock, time::UNIX_EPOCH};

use bytes::Bytes;

use super::*;
use crate::{head, seclang::parse};

fn rules(text: &str) -> Arc<Rules> {
    let file: Arc<str> = "test.conf".into();
    let compiled = parse(&file, text).and_then(|directives| {
        Rules::compile(&directives, &mut |_, name| {
            if name == "words.data" { Ok(b"evil\n".to_vec()) } else { Err("none".into()) }
        })
    });
    Arc::new(compiled.unwrap_or_else(|faults| panic!("{faults:?}")))
}

fn faults(text: &str) -> String {
    let directives = parse(&"test.conf".into(), text).unwrap();
    let faults = Rules::compile(&directives, &mut |_, name| Err(format!("{name}: not found"))).unwrap_err();
    faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

fn about() -> About {
    let address = |text: &str| text.parse().unwrap();
    About { client: address("192.0.2.7:4000"), server: address("192.0.2.1:80"), time: UNIX_EPOCH, id: 7 }
}

fn run(rules: &Arc<Rules>, head: &str, body: &[u8]) -> Transaction {
    let mut worker = Worker::default();
    let mut transaction = Transaction::new(Arc::clone(rules), about(), EngineMode::On);
    let head =
        head::parse(Bytes::from(format!("{head}\r\n\r\n").replace('\n', "\r\n").replace("\r\r\n", "\r\n"))).unwrap();
    transaction.request_head(&mut worker, &head);
    if transaction.interruption().is_none() {
        transaction.request_body(&mut worker, body);
    }
    transaction.finish(&mut worker);
    transaction
}

/// Ids of the rules that matched for a request of this target.
fn ids(text: &str, target: &str) -> Vec<u32> {
    let transaction = run(&rules(text), &format!("GET {target} HTTP/1.1\nHost: a.test"), b"");
    transaction.matches().iter().map(|found| found.id).collect()
}

const POST: &str = "POST / HTTP/1.1\nHost: a.test\nContent-Type: application/x-www-form-urlencoded";

#[test]
fn a_denial_ends_all_but_the_last_phase() {
    let rules = rules(
        "SecRule ARGS_GET \"@contains evil\" \"id:1,phase:1,deny,status:451,msg:'found %{TX.0}%{MATCHED_VAR}'\"
         SecAction \"id:2,phase:2,pass\"
         SecAction \"id:3,phase:5,pass\"",
    );
    let transaction = run(&rules, "GET /?a=evil HTTP/1.1\nHost: a.test", b"");
    assert_eq!(transaction.interruption(), Some(&Interruption { rule: 1, status: 451, redirect: None }));
    assert_eq!(transaction.phases(), [Phase::RequestHeaders, Phase::Logging]);
    let found = &transaction.matches()[0];
    assert_eq!((found.id, &found.message[..], &found.variable[..]), (1, &b"found evil"[..], &b"ARGS_GET:a"[..]));
    let transaction = run(&rules, "GET /?a=good HTTP/1.1\nHost: a.test", b"");
    assert_eq!(transaction.interruption(), None);
    assert_eq!(transaction.matches().iter().map(|found| found.id).collect::<Vec<_>>(), [2, 3]);
}

#[test]
fn variables_are_set_once_for_each_value() {
    let rules =
        rules("SecRule ARGS \"@rx x\" \"id:1,phase:2,pass,nolog,setvar:tx.score=+5,setvar:tx.%{MATCHED_VAR_NAME}=1\"");
    let transaction = run(&rules, "GET /?a=x&b=y&a=xx HTTP/1.1\nHost: a.test", b"");
    assert_eq!(
        (transaction.tx("score"), transaction.tx("args:a"), transaction.tx("args:b")),
        (Some(10), Some(1), None)
    );
}

#[test]
fn chains_need_all_of_their_links() {
    let text = "SecRule ARGS:a \"@rx (.)=(.)\" \"id:1,phase:2,pass,capture,chain\"\nSecRule TX:2 \"@streq z\" \"chain\"\n\
                SecRule MATCHED_VARS \"@rx ^y=z$\" \"setvar:tx.done=1\"";
    assert_eq!(ids(text, "/?a=y%3Dz"), [1]);
    assert_eq!(ids(text, "/?a=y%3Dx"), [0; 0]);
    assert_eq!(ids(text, "/?b=y%3Dz"), [0; 0]);
}

#[test]
fn jumps_lead_to_their_marker() {
    let text = |level: u32| {
        format!(
            "SecAction \"id:1,phase:2,pass,nolog,setvar:tx.level={level}\"
             SecRule TX:level \"@lt 2\" \"id:2,phase:2,pass,nolog,skipAfter:END\"
             SecRule ARGS \"@contains x\" \"id:3,phase:2,pass\"
             SecMarker END
             SecRule ARGS \"@contains x\" \"id:4,phase:2,pass,skip:1\"
             SecAction \"id:5,phase:2,pass\"
             SecAction \"id:6,phase:2,pass\""
        )
    };
    assert_eq!(ids(&text(1), "/?a=x"), [4, 6]);
    assert_eq!(ids(&text(2), "/?a=x"), [3, 4, 6]);
    assert_eq!(ids(&text(2), "/?a=y"), [5, 6]);
}

#[test]
fn what_is_settled_beforehand_is_settled_as_it_would_be() {
    let text = |first: &str| {
        format!(
            "{first}
             SecRule &TX:level \"@eq 0\" \"id:1,phase:1,pass,nolog,setvar:tx.level=1\"
             SecRule &TX:copy \"@eq 0\" \"id:2,phase:1,pass,nolog,setvar:'tx.copy=%{{tx.level}}'\"
             SecRule TX:copy \"@lt 2\" \"id:3,phase:2,pass,nolog,tag:'t',skipAfter:END\"
             SecRule ARGS \"@contains x\" \"id:4,phase:2,pass,tag:'t'\"
             SecRule ARGS \"@contains x\" \"id:5,phase:2,pass\"
             SecMarker END
             SecAction \"id:6,phase:2,pass\""
        )
    };
    assert_eq!(ids(&text(""), "/?a=x"), [6]);
    assert_eq!(ids(&text("SecAction \"id:9,phase:1,pass,nolog,setvar:tx.level=2\""), "/?a=x"), [4, 5, 6]);
    let asked = "SecRule ARGS:up \"@eq 1\" \"id:9,phase:1,pass,nolog,";
    assert_eq!(ids(&text(&format!("{asked}setvar:tx.level=2\"")), "/?a=x&up=1"), [4, 5, 6]);
    assert_eq!(ids(&text(&format!("{asked}setvar:tx.level=2\"")), "/?a=x&up=0"), [6]);
    assert_eq!(ids(&text(&format!("{asked}setvar:tx.le%{{ARGS:which}}=2\"")), "/?a=x&up=1&which=vel"), [4, 5, 6]);
    assert_eq!(ids(&text(&format!("{asked}ctl:ruleRemoveByTag=t\"")), "/?a=x&up=1"), [5, 6]);
    assert_eq!(ids(&text(&format!("{asked}ctl:ruleRemoveById=3\"")), "/?a=x&up=1"), [4, 5, 6]);
    assert_eq!(ids(&text(&format!("{asked}ctl:ruleRemoveTargetById=3;TX:copy\"")), "/?a=x&up=1"), [4, 5, 6]);
    assert_eq!(ids(&text(&format!("{asked}ctl:ruleRemoveById=1\"")), "/?a=x&up=1"), [6]);
    assert_eq!(ids(&text(&format!("{asked}skip:1\"")), "/?a=x&up=1"), [6]);
}

#[test]
fn what_a_jump_passes_by_is_looked_for_only_if_another_leads_there() {
    let text = |to: &str| {
        format!(
            "SecRule ARGS:up \"@eq 1\" \"id:1,phase:2,pass,nolog,skipAfter:{to}\"
             SecAction \"id:2,phase:2,pass,nolog,skipAfter:END\"
             SecRule ARGS \"@contains x\" \"id:3,phase:2,pass\"
             SecMarker MIDDLE
             SecRule ARGS \"@contains x\" \"id:4,phase:2,pass\"
             SecMarker END
             SecRule ARGS \"@contains x\" \"id:5,phase:2,pass\"
             SecMarker BEHIND
             SecAction \"id:6,phase:2,pass\""
        )
    };
    for (to, jumped, looked_for) in
        [("MIDDLE", &[4, 5, 6][..], [true, true]), ("END", &[5, 6], [false, false]), ("BEHIND", &[6], [false, false])]
    {
        assert_eq!(ids(&text(to), "/?a=x"), [5, 6], "{to}");
        assert_eq!(ids(&text(to), "/?a=x&up=1"), jumped, "{to}");
        let rules = rules(&text(to));
        let is_looked_for =
            |id: u32| rules.request.speaks_for(rules.rules.iter().position(|rule| rule.id == id).unwrap());
        assert_eq!([3, 4].map(is_looked_for), looked_for, "{to}");
    }
}

#[test]
fn updates_removals_and_controls() {
    let text = "SecRule ARGS \"@rx x\" \"id:1,phase:2,pass,tag:'t'\"
        SecRule ARGS|!ARGS:b \"@rx x\" \"id:2,phase:2,pass\"
        SecRule ARGS \"@rx x\" \"id:3,phase:2,pass\"
        SecRuleUpdateTargetById 1 \"!ARGS:/^a/\"
        SecRuleRemoveById 3";
    assert_eq!(ids(text, "/?abc=x"), [2]);
    assert_eq!(ids(text, "/?b=x"), [1]);
    assert_eq!(ids(text, "/?c=x"), [1, 2]);
    let with = |ctl: &str| format!("SecRule ARGS:off \"@eq 1\" \"id:9,phase:1,pass,nolog,ctl:{ctl}\"\n{text}");
    assert_eq!(ids(&with("ruleRemoveById=2"), "/?c=x&off=1"), [1]);
    assert_eq!(ids(&with("ruleRemoveById=2"), "/?c=x&off=0"), [1, 2]);
    assert_eq!(ids(&with("ruleRemoveByTag=t"), "/?c=x&off=1"), [2]);
    assert_eq!(ids(&with("ruleRemoveTargetByTag=t;ARGS:c"), "/?c=x&off=1"), [2]);
    assert_eq!(ids(&with("ruleEngine=Off"), "/?c=x&off=1"), [0; 0]);
}

#[test]
fn transformations_multi_match_and_negation() {
    assert_eq!(
        ids("SecRule ARGS \"@streq <b>\" \"id:1,phase:2,pass,t:none,t:htmlEntityDecode,t:lowercase\"", "/?a=%26lt;B>"),
        [1]
    );
    let multi =
        "SecRule ARGS \"@rx ^.*$\" \"id:1,phase:2,pass,nolog,multiMatch,t:none,t:lowercase,t:trim,setvar:tx.n=+1\"";
    let transaction = run(&rules(multi), "GET /?a=A%20 HTTP/1.1\nHost: a.test", b"");
    assert_eq!(transaction.tx("n"), Some(3));
    assert_eq!(ids("SecRule ARGS \"!@rx ^[a-z]+$\" \"id:1,phase:2,pass\"", "/?a=b"), [0; 0]);
    assert_eq!(ids("SecRule ARGS \"!@rx ^[a-z]+$\" \"id:1,phase:2,pass\"", "/?a=1"), [1]);
    assert_eq!(ids("SecRule &ARGS:a \"@eq 2\" \"id:1,phase:2,pass\"", "/?a=1&A=2&b=3"), [1]);
    assert_eq!(ids("SecRule ARGS \"@pmFromFile words.data\" \"id:1,phase:2,pass\"", "/?a=so+EVIL"), [1]);
    assert_eq!(ids("SecRule ARGS \"@detectSQLi\" \"id:1,phase:2,pass\"", "/?a=1%27+or+1=1--"), [1]);
    assert_eq!(ids("SecRule ARGS \"@detectXSS\" \"id:1,phase:2,pass\"", "/?a=<script>"), [1]);
}

#[test]
fn bodies_are_read_by_their_type() {
    let text = "SecRule ARGS_POST \"@streq v\" \"id:1,phase:2,pass,msg:'%{MATCHED_VAR_NAME}'\"
        SecRule XML:/* \"@contains v\" \"id:2,phase:2,pass\"
        SecRule XML://@* \"@streq w\" \"id:3,phase:2,pass\"
        SecRule FILES \"@endsWith .php\" \"id:4,phase:2,pass\"
        SecRule REQUEST_BODY \"@contains v\" \"id:5,phase:2,pass\"
        SecRule REQBODY_ERROR \"!@eq 0\" \"id:6,phase:2,pass\"";
    let rules = rules(text);
    let of = |media: &str, body: &str| {
        let head = format!("POST / HTTP/1.1\nHost: a.test\nContent-Type: {media}");
        run(&rules, &head, body.as_bytes()).matches().iter().map(|found| found.id).collect::<Vec<_>>()
    };
    assert_eq!(of("application/x-www-form-urlencoded", "a=v"), [1, 5]);
    assert_eq!(of("application/json", "{\"a\":[\"v\"]}"), [1, 5]);
    assert_eq!(of("application/problem+json; charset=utf-8", "{\"a\":"), [6]);
    assert_eq!(of("text/xml", "<a b=\"w\">v</a>"), [2, 3]);
    let form = "--B\r\nContent-Disposition: form-data; name=a; filename=x.php\r\n\r\nv\r\n--B--\r\n";
    assert_eq!(of("multipart/form-data; boundary=B", form), [4]);
    assert_eq!(of("text/plain", "v"), [5]);
    let json = run(&rules, "POST / HTTP/1.1\nHost: a.test\nContent-Type: application/json", b"{\"a\":[\"v\"]}");
    assert_eq!(json.matches()[0].message, b"ARGS_POST:json.a.array_0");
}

#[test]
fn answers_are_looked_at() {
    let rules = rules(
        "SecRule RESPONSE_STATUS \"@eq 500\" \"id:1,phase:3,pass\"
         SecRule RESPONSE_BODY \"@rx stack\\s+trace\" \"id:2,phase:4,deny,status:502\"",
    );
    let mut worker = Worker::default();
    let mut transaction = Transaction::new(rules, about(), EngineMode::On);
    let fields = [(&b"Content-Type"[..], &b"Text/HTML; charset=utf-8"[..])];
    transaction.response_head(&mut worker, &Answer { status: 500, protocol: "HTTP/1.1", fields: &fields });
    assert!(transaction.wants_response_body(fields[0].1) && !transaction.wants_response_body(b"image/png"));
    transaction.response_body(&mut worker, b"a stack  trace");
    assert_eq!(transaction.interruption().map(|ended| ended.status), Some(502));
    assert_eq!(transaction.matches().len(), 2);
}

#[test]
fn what_is_wrong_with_a_rule_set_is_told() {
    for (text, told) in [
        ("SecRule ARGS \"@rx a\" \"phase:1,pass\"", "test.conf:1:1: this rule needs an id"),
        ("SecAction \"id:1,pass\"\nSecAction \"id:1,pass\"", "rule 1 is there already, at test.conf:1:1"),
        ("SecRule ARGS \"@rx a\" \"id:1,pass,chain\"", "this chain ends without its last rule"),
        ("SecAction \"id:1,pass,chain\"\nSecAction \"id:2\"", "only the first rule of a chain"),
        ("SecAction \"id:1,pass,skipAfter:X\"", "there is no marker `X`"),
        ("SecRule XML:/a/b \"@rx a\" \"id:1,pass\"", "only `/*` and `//@*`"),
        ("SecRule ARGS \"@rx a(?=b*)\" \"id:1,pass\"", "test.conf:1:19: look-around at what has no greatest length"),
        ("SecRule ARGS \"@rx %{tx.a}(?=b)\" \"id:1,pass\"", "test.conf:1:19: look-around is supported only"),
        ("SecRule ARGS \"@pmFromFile no.data\" \"id:1,pass\"", "no.data: not found"),
        ("SecRule ARGS:/(/ \"@rx a\" \"id:1,pass\"", "unclosed group"),
    ] {
        assert!(faults(text).contains(told), "{text}: {}", faults(text));
    }
}

#[test]
fn arguments_of_the_query_and_of_the_body_are_both_there() {
    let rules = rules(
        "SecRule ARGS_NAMES \"@rx .\" \"id:1,phase:2,pass,nolog,setvar:tx.names=+1\"\nSecRule ARGS_COMBINED_SIZE \"@eq 8\" \"id:2,phase:2,pass\"",
    );
    let transaction = run(&rules, &POST.replace("POST /", "POST /?a=1&b=2"), b"a=3&c=4");
    assert_eq!((transaction.tx("names"), transaction.matches().len()), (Some(4), 1));
}

/// Rules that the filter speaks for, each with a twin, of an id higher by 1000, that it does not.
static FILTERED: LazyLock<Arc<Rules>> = LazyLock::new(|| {
    let operators = [
        "@rx (?i)ab+c?",
        "@rx ^(?:a|b<)",
        "@rx ['\"]\\s*(?:=|a)",
        "@rx [0-9]{2,}c",
        "@pm ab ca 00",
        "@contains bc",
        "@endsWith a",
        "@beginsWith <b",
        "@validateByteRange 48-57,97-122",
        "@detectXSS",
        "@detectSQLi",
        "@rx a{2}|c{3}",
        // As CRS writes commands: with anything in between that a shell drops.
        "@rx (?i)(?:^|[;|])[\\s]*(?:c['\"]*(?:\\$[a-z]*)?a['\"]*t|d[\\s]*o[\\s]*g)\\b",
        "@rx [^a-z0-9 ._-]at|xyz$",
        "@rx (?:cat|dog).{8,12}(?:dog|cat)|[a-c]{9,}",
        "@pm cat dog< xyz",
    ];
    let chains = [
        "t:none",
        "t:none,t:lowercase",
        "t:none,t:urlDecodeUni,t:lowercase,t:removeWhitespace",
        "t:none,t:base64Decode",
        "t:none,t:htmlEntityDecode,t:hexDecode,t:uppercase",
        "t:none,t:normalizePath,t:cmdLine",
        "t:none,t:hexEncode",
        "t:none,t:lowercase,t:base64Decode,multiMatch",
    ];
    let mut text = String::new();
    for (number, operator) in operators.iter().enumerate() {
        for (at, chain) in chains.iter().enumerate() {
            let id = number * 10 + at + 1;
            let operator = operator.replace('"', "\\\"");
            text += &format!("SecRule ARGS \"{operator}\" \"id:{id},phase:2,pass,{chain}\"\n");
            // A count is none of the filter's business, so this rule is always run.
            text += &format!("SecRule ARGS|&ARGS:none \"{operator}\" \"id:{},phase:2,pass,{chain}\"\n", id + 1000);
        }
    }
    rules(&text)
});

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(2000))]
    /// The filter lets through all that matches: with and without it, rules come to the same.
    #[test]
    fn the_filter_loses_nothing(value in proptest::prop_oneof![
        "[a-c<>'\"= /.%0-9A-C\\\\;|&-]{0,12}",
        // Words and numbers, which have a sieve of their own, and what is made into words.
        "(ab|bcc|CA|1|2|cat|dog|c'at|c.t|d o g| |[.]|_|-|xyz|YWJj|6162|&#97;|&amp;)?{1,9}",
    ]) {
        let encoded: String = value.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let transaction = run(&FILTERED, POST, format!("x={encoded}").as_bytes());
        let of = |least: u32| -> Vec<u32> {
            let all = transaction.matches().iter().filter(|found| found.variable == b"ARGS:x");
            all.map(|found| found.id).filter(|id| (least..least + 1000).contains(id)).map(|id| id - least).collect()
        };
        proptest::prop_assert_eq!(of(0), of(1000));
    }
}

#[test]
fn expressions_with_conditions() {
    let text = r#"SecRule ARGS:a "@rx (?<!&amp);" "id:1,phase:2,pass,capture,msg:'%{TX.0}'"
        SecRule ARGS:a "!@rx ^\s*+[^;]*$" "id:2,phase:2,pass"
        SecRule ARGS:a "@rx \b(\w+)=\1\b" "id:3,phase:2,pass,capture,chain"
        SecRule TX:1 "@streq b""#;
    assert_eq!(ids(text, "/?a=%26amp;"), [2]);
    assert_eq!(ids(text, "/?a=x;"), [1, 2]);
    assert_eq!(ids(text, "/?a=a%3Db"), [0; 0]);
    assert_eq!(ids(text, "/?a=b%3Db"), [3]);
    // Where it would take too long, both an expression and its negation count as matched.
    let text = r#"SecRule ARGS:a "@rx (a+).*b\1c" "id:1,phase:2,pass"
        SecRule ARGS:a "!@rx (a+).*b\1c" "id:2,phase:2,pass""#;
    let long = "a".repeat(8000);
    assert_eq!(ids(text, &format!("/?a={long}b{long}c")), [1, 2]);
    assert_eq!(ids(text, "/?a=aabac"), [1]);
}

/// The next rule set may be where the last one was.
#[test]
fn a_worker_serves_one_rule_set_after_another() {
    let mut worker = Worker::default();
    let head = head::parse(Bytes::from("GET /?a=x0x HTTP/1.1\r\nHost: a.test\r\n\r\n")).unwrap();
    for round in 0..20 {
        let digits = "[0-9]".repeat(round % 2);
        let rules = rules(&format!("SecRule ARGS \"@rx x(?:{digits}|[0-9])[a-z]\" \"id:1,phase:1,pass\""));
        let mut transaction = Transaction::new(rules, about(), EngineMode::On);
        transaction.request_head(&mut worker, &head);
        assert_eq!(transaction.matches().len(), 1);
    }
}

#[test]
fn what_is_not_known_here_is_nothing() {
    let text = "SecRule REMOTE_ADDR \"@geoLookup\" \"id:1,phase:2,pass\"
        SecRule REMOTE_ADDR \"!@rbl dnsbl.test\" \"id:2,phase:2,pass\"
        SecRule GEO:COUNTRY_CODE \"!@streq DE\" \"id:3,phase:2,pass\"
        SecRule DURATION \"@rx (..)$\" \"id:4,phase:2,pass\"";
    assert_eq!(ids(text, "/"), [2, 4]);
}

#[test]
fn what_costs_too_much_is_not_gone_on_with() {
    let rule = |id: u32| format!("SecRule ARGS \"!@rx (?:a|b)$\" \"id:{id},phase:2,pass,nolog\"\n");
    let text: String = (1..=1200).map(rule).collect::<String>() + "SecAction \"id:9999,phase:2,deny\"";
    let rules = rules(&text);
    let post = |body: &[u8]| run(&rules, POST, body);
    let ordinary = post(b"x=a");
    assert!(!ordinary.is_over_budget() && ordinary.interruption().is_some_and(|found| found.rule == 9999));
    // 1,200 looks at each byte, where some 500 are allowed.
    let long = post(format!("x={}", "a".repeat(200_000)).as_bytes());
    assert!(long.is_over_budget() && long.interruption().is_none() && long.phases().len() == 2);
}

#[test]
fn what_is_always_done_is_done_beforehand_and_seen_no_sooner() {
    let sets = "SecRule &TX:limit \"@eq 0\" \"id:1,phase:1,pass,nolog,setvar:tx.limit=5\"
        SecAction \"id:2,phase:1,pass,nolog,setvar:'tx.text=a %{tx.limit}',setvar:tx.limit=+2\"
        SecAction \"id:3,phase:2,pass,msg:'%{tx.text} %{tx.limit}'\"";
    let told = |text: &str, target: &str| -> Vec<String> {
        let transaction = run(&rules(text), &format!("GET {target} HTTP/1.1\nHost: a.test"), b"");
        transaction.matches().iter().map(|found| String::from_utf8_lossy(&found.message).into_owned()).collect()
    };
    let alone = rules(sets);
    assert!(alone.always[0].is_empty(), "nothing is left of the first phase");
    assert_eq!(told(sets, "/"), ["a 5 7"]);
    // Who comes before sees what there is by then; who ends it leaves it there.
    let reads = format!("SecAction \"id:9,phase:1,pass,msg:'(%{{tx.limit}})'\"\n{sets}");
    assert_eq!(told(&reads, "/"), ["()", "a 5 7"]);
    let writes = format!("SecRule ARGS:a \"@eq 1\" \"id:9,phase:1,pass,nolog,setvar:tx.limit=1\"\n{sets}");
    assert_eq!(told(&writes, "/?a=1"), ["a 1 3"]);
    assert_eq!(told(&writes, "/?a=2"), ["a 5 7"]);
    let ends = format!(
        "SecRule ARGS:a \"@eq 1\" \"id:9,phase:1,deny,nolog\"\n{sets}
         SecAction \"id:10,phase:5,pass,msg:'<%{{tx.limit}}>'\""
    );
    assert_eq!(told(&ends, "/?a=1"), ["<>"]);
    assert_eq!(told(&ends, "/?a=2"), ["a 5 7", "<7>"]);
    let removes = format!("SecRule ARGS:a \"@eq 1\" \"id:9,phase:1,pass,nolog,ctl:ruleRemoveById=1\"\n{sets}");
    assert_eq!(told(&removes, "/?a=1"), ["a  2"]);
    assert_eq!(told(&removes, "/?a=2"), ["a 5 7"]);
    let counts = format!("SecRule &TX:/^lim/ \"@eq 1\" \"id:9,phase:1,pass,msg:'is there'\"\n{sets}");
    assert_eq!(told(&counts, "/"), ["a 5 7"]);
    let changed = format!("{sets}\nSecAction \"id:4,phase:2,pass,setvar:!tx.limit,msg:'%{{tx.limit}}'\"");
    assert_eq!(told(&changed, "/"), ["a 5 7", ""]);
}
