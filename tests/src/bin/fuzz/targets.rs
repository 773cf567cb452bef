//! The readers, what they are fed first, and what they promise.

use std::{
    hash::{DefaultHasher, Hash, Hasher as _},
    path::Path,
    sync::Arc,
    time::SystemTime,
};

use bytes::Bytes;
use firewall_inspect::{
    arguments::{self, ArgumentError, Limits, Pair},
    body::{BodyError, multipart, xml},
    encoding::{self, Coding},
    head,
    rules::Rules,
    seclang::{self, EngineMode, Transformation},
    transaction::{About, Transaction, Worker},
};
use firewall_user::config::api::RuleSet;

/// A number for how the reader behaved, coarse enough that not every input gives a new one; or the promise that it broke.
type Run = Box<dyn FnMut(&[u8]) -> Result<u64, String>>;

pub(crate) struct Target {
    pub(crate) name: &'static str,
    pub(crate) seeds: Vec<Vec<u8>>,
    pub(crate) words: &'static [&'static str],
    pub(crate) run: Run,
}

const LIMITS: Limits = Limits { count: 32_768, depth: 512 };
const FORM: &[u8] = b"multipart/form-data; boundary=b0undary";

/// All of them. Whole requests go through the rules in `crs`, where they are.
pub(crate) fn all(crs: &Path) -> Vec<Target> {
    let mut targets = vec![
        Target {
            name: "seclang",
            seeds: texts(&[SECLANG, include_str!("../../../nginx/modsecurity.conf")]),
            words: &[
                "SecRule ",
                "SecAction ",
                "ARGS",
                "|!ARGS:a",
                "&TX:b",
                "\"@rx ",
                "@pmFromFile x",
                "\"id:1,",
                "phase:2,",
                "chain",
                "%{",
                "}",
                "setvar:'tx.a=+%{tx.b}'",
                "ctl:ruleRemoveTargetById=1;ARGS",
                "t:none,",
                "\\\n",
                "skipAfter:END",
                "Include *",
                "(?i)",
                "[^a]{1,9}",
                "\\x{c2}",
                "/re/",
            ],
            run: Box::new(|input| {
                let text = String::from_utf8_lossy(input);
                let file = Arc::from("fuzz.conf");
                Ok(match seclang::parse(&file, &text) {
                    Err(faults) => of(&("fault", faults.len().min(3), faults[0].message.get(..12))),
                    Ok(directives) => match Rules::compile(&directives, &mut |_, _| Ok(b"a\nb\n".to_vec())) {
                        Err(faults) => of(&("refused", faults[0].message.get(..12))),
                        Ok(rules) => of(&("compiled", log(rules.len()))),
                    },
                })
            }),
        },
        Target {
            name: "urlencoded",
            seeds: texts(&["a=1&b=%32&c", "q=%u0041+b;c=%zz&&=&a=b=c"]),
            words: &["&", "=", "%00", "%", "+", ";", "%u"],
            run: Box::new(|input| match arguments::url_encoded(input, b'&', &LIMITS) {
                Ok(found) => pairs(&found.pairs, input).map(|behaviour| of(&(behaviour, found.malformed))),
                Err(error) => Ok(argument_error(&error)),
            }),
        },
        Target {
            name: "cookies",
            seeds: texts(&["a=1; b=2;c", "$Version=1; a=\"b; c\"; =d"]),
            words: &["; ", "=", "\"", "$Path="],
            run: Box::new(|input| match arguments::cookies(input, &LIMITS) {
                Ok(found) => pairs(&found, input),
                Err(error) => Ok(argument_error(&error)),
            }),
        },
        Target {
            name: "json",
            seeds: texts(&[
                r#"{"a":[1,2.5e3,{"b":null}],"c":"\u0041\ud83d\ude00","d":{}}"#,
                "[]",
                "\"x\"",
                "[[[true]]]",
            ]),
            words: &["{\"a\":", "[", "]", "}", ",", "\\u0000", "\\ud800", "1e999", "-0", "null", "\"\"", "\u{feff}"],
            // Names are put together of all that they are within: a promise of length would be for those alone.
            run: Box::new(|input| match arguments::json(input, &LIMITS) {
                Ok(found) if found.len() > input.len() => {
                    Err(format!("{} arguments of {} bytes", found.len(), input.len()))
                }
                Ok(found) => Ok(shape(&found)),
                Err(error) => Ok(argument_error(&error)),
            }),
        },
        Target {
            name: "multipart",
            seeds: texts(&[MULTIPART]),
            words: &[
                "--b0undary\r\n",
                "--b0undary--\r\n",
                "\r\n",
                "\n",
                "Content-Disposition: form-data; name=\"a\"\r\n\r\n",
                "; filename=\"x\"",
                "filename*=utf-8''a",
                "\\\"",
                "Content-Type: a/b\r\n",
                " folded\r\n",
                "Content-Transfer-Encoding: base64\r\n",
            ],
            run: Box::new(|input| {
                let (form, result) =
                    multipart::read(FORM, input, &multipart::Limits { parts: 1000, headers: 16 << 10 });
                let content: usize = form.parts.iter().map(|part| part.content.len()).sum();
                if content > input.len() {
                    return Err(format!("{content} bytes in parts of {}", input.len()));
                }
                let what = body_error(&result);
                Ok(of(&(what, log(form.parts.len()), form.flags.is_strict_error(), form.flags.unmatched_boundary)))
            }),
        },
        Target {
            name: "xml",
            seeds: texts(&[XML]),
            words: &[
                "<a>",
                "</a>",
                "<![CDATA[",
                "]]>",
                "<!--",
                "-->",
                "<?a ?>",
                "<!DOCTYPE a [<!ENTITY b \"c\">]>",
                "&b;",
                "&#0;",
                "x=\"y\"",
            ],
            run: Box::new(|input| match xml::read(input, &xml::Limits { depth: 512, nodes: 100_000 }) {
                Ok(document) if document.text.len() > 2 * input.len() + 16 => {
                    Err(format!("{} bytes of text of {}", document.text.len(), input.len()))
                }
                Ok(document) => Ok(of(&(log(document.text.len()), log(document.attributes.len())))),
                Err(error) => Ok(body_error(&Err(error))),
            }),
        },
        Target {
            name: "transformations",
            seeds: texts(&[
                "a%41+b",
                "&lt;&#x41;\\u0041\\x41",
                "/a/../b\\c//",
                "/* c */ -- d\n<!-- e -->",
                "QUJD",
                "4142",
                "c:\\d \"^e\"",
            ]),
            words: &["%u", "%25", "&#", "&amp;", "\\x", "\\u", "/*", "*/", "<!--", "-->", "../", "\0", "%c0%af"],
            run: Box::new(|input| {
                let mut output = Vec::new();
                let mut changed = 0_u64;
                for (number, transformation) in Transformation::ALL.iter().enumerate() {
                    if transformation.apply(input, &mut output) {
                        changed |= 1 << number;
                        // The hexadecimal ones and the like: three bytes for one, and a digest of an empty value.
                        if output.len() > 6 * input.len() + 64 {
                            return Err(format!(
                                "{} makes {} bytes of {}",
                                transformation.name(),
                                output.len(),
                                input.len()
                            ));
                        }
                    }
                }
                Ok(changed)
            }),
        },
    ];
    for (name, coding) in
        [("gzip", Coding::Gzip), ("deflate", Coding::Deflate), ("br", Coding::Brotli), ("zstd", Coding::Zstd)]
    {
        targets.push(Target {
            name,
            seeds: encoded(coding),
            words: &[],
            run: Box::new(move |input| {
                const SIZE: u64 = 1 << 20;
                match encoding::decode(coding, input, encoding::Limits { size: SIZE, ratio: 100 }) {
                    Ok(decoded) if decoded.len() as u64 > SIZE => {
                        Err(format!("{} bytes are beyond the limit", decoded.len()))
                    }
                    Ok(decoded) => Ok(of(&log(decoded.len()))),
                    Err(problem) => Ok(of(&problem.to_string())),
                }
            }),
        });
    }
    targets.extend(request(crs));
    targets
}

/// Bodies and queries through CRS at paranoia level 1.
fn request(crs: &Path) -> Option<Target> {
    let files = [crs.join("crs-setup.conf.example"), crs.join("rules/*.conf")];
    if !files[0].is_file() {
        eprintln!("request: left out, as CRS 4 is not in {}", crs.display());
        return None;
    }
    let set = RuleSet::load(&files).unwrap_or_else(|errors| panic!("{errors}"));
    let mut worker = Worker::default();
    let media: [&[u8]; 4] = [b"application/json", b"application/x-www-form-urlencoded", b"text/xml", FORM];
    let run = move |input: &[u8]| {
        // The first byte decides what it is.
        let (first, input) = input.split_first().unwrap_or((&0, &[]));
        let kind = media[usize::from(first % 4)];
        let query: String = input.iter().take(2000).map(|byte| format!("%{byte:02x}")).collect();
        let raw =
            [b"POST /a?q=", query.as_bytes(), b" HTTP/1.1\r\nHost: a\r\nContent-Type: ", kind, b"\r\n\r\n"].concat();
        let Ok(head) = head::parse(Bytes::from(raw)) else { return Ok(0) };
        let about = About {
            client: ([192, 0, 2, 7], 40_000).into(),
            server: ([192, 0, 2, 1], 443).into(),
            time: SystemTime::UNIX_EPOCH,
            id: 1,
        };
        let mut transaction = Transaction::new(Arc::clone(set.rules()), about, EngineMode::DetectionOnly);
        transaction.request_head(&mut worker, &head);
        transaction.request_body(&mut worker, input);
        transaction.finish(&mut worker);
        Ok(of(&transaction.matches().iter().map(|found| found.id).collect::<Vec<_>>()))
    };
    let bodies = [
        "\0{\"a\":\"1' or '1'='1\"}",
        "\u{1}a=<script>alert(1)</script>&b=../../etc/passwd",
        "\u{2}<a b=\"c\">;cat /etc/passwd</a>",
    ];
    let seeds = bodies.iter().map(|body| body.as_bytes().to_vec()).chain([[b"\x03", MULTIPART.as_bytes()].concat()]);
    Some(Target {
        name: "request",
        seeds: seeds.collect(),
        words: &[
            "' or 1=1--",
            "union select",
            "<script>",
            "onerror=",
            "../",
            ";cat /etc/passwd",
            "$(id)",
            "`id`",
            "${jndi:ldap://a}",
            "{{7*7}}",
            "php://input",
            "sleep(",
            "/*!",
            "*/",
            "%00",
            "&#x",
            "\\u003c",
            "eval(",
            "[\"",
            "\",\"",
            "0x",
            "exec xp_cmdshell",
        ],
        run: Box::new(run),
    })
}

fn texts(texts: &[&str]) -> Vec<Vec<u8>> {
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

fn of(behaviour: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    behaviour.hash(&mut hasher);
    hasher.finish()
}

/// So many that a doubling makes a difference.
fn log(count: usize) -> u32 {
    count.checked_ilog2().map_or(0, |log| log + 1)
}

fn shape(pairs: &[Pair<'_>]) -> u64 {
    let names: usize = pairs.iter().map(|pair| pair.name.len()).sum();
    let values: usize = pairs.iter().map(|pair| pair.value.len()).sum();
    of(&(log(pairs.len()), log(names), log(values)))
}

/// Names and values are parts of what came.
fn pairs(pairs: &[Pair<'_>], input: &[u8]) -> Result<u64, String> {
    let bytes: usize = pairs.iter().map(|pair| pair.name.len() + pair.value.len()).sum();
    if bytes > input.len() { Err(format!("{bytes} bytes of {}", input.len())) } else { Ok(shape(pairs)) }
}

fn argument_error(error: &ArgumentError) -> u64 {
    of(&(error.is_limit(), error.to_string().get(..16)))
}

fn body_error(result: &Result<(), BodyError>) -> u64 {
    of(&result.as_ref().err().map(|error| (error.limit, error.message.get(..16))))
}

/// Short streams of a coding, one of each kind of block where it is short enough to write down.
fn encoded(coding: Coding) -> Vec<Vec<u8>> {
    let streams: &[&[u8]] = match coding {
        Coding::Gzip => &[
            b"\x1f\x8b\x08\0\0\0\0\0\0\xff\x4b\x4c\x4a\x06\0\xc2\x41\x24\x35\x03\0\0\0",
            b"\x1f\x8b\x08\x08\0\0\0\0\0\xffa\0\x4b\x4c\x4a\x06\0\xc2\x41\x24\x35\x03\0\0\0",
        ],
        Coding::Deflate => {
            &[b"\x78\x9c\x4b\x4c\x4a\x06\0\x02\x4d\x01\x27", b"\x4b\x4c\x4a\x06\0", b"\x01\x03\0\xfc\xffabc"]
        }
        Coding::Brotli => &[b"\x0b\x01\x80abc\x03", b"\x1b\x0e\0\xf8\x25\xc2\xa2\x8c\0\xc0"],
        Coding::Zstd => &[b"\x28\xb5\x2f\xfd\x20\x03\x19\0\0abc", b"\x28\xb5\x2f\xfd\0\x58\x19\0\0abc"],
    };
    streams.iter().map(|stream| stream.to_vec()).collect()
}

const SECLANG: &str = r#"SecRuleEngine On
SecDefaultAction "phase:2,pass,log,t:none"
SecRule ARGS|!ARGS:a|REQUEST_HEADERS:/^x-/ "@rx (?i)a[b-d]+(e|f)\b" "id:1,phase:2,deny,capture,t:urlDecodeUni,t:lowercase,multiMatch,setvar:'tx.s=+%{tx.c}',chain"
    SecRule TX:1 "!@within %{tx.list}" "t:none,ctl:ruleRemoveTargetByTag=x;ARGS:b"
SecRule &REQUEST_COOKIES "@gt 3" "id:2,phase:1,skipAfter:END,msg:'it\'s %{MATCHED_VAR}',tag:'a/b'"
SecMarker END
SecRule XML:/* "@pmFromFile words.data" "id:3,phase:2,block"
SecRuleUpdateTargetById 1 "!ARGS:c"
SecRuleRemoveById 2 10-20
"#;
const MULTIPART: &str = "--b0undary\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n1\r\n--b0undary\r\nContent-Disposition: form-data; \
                         name=\"f\"; filename=\"x.txt\"\r\nContent-Type: text/plain\r\n\r\nhello\r\n--b0undary--\r\n";
const XML: &str =
    "<?xml version=\"1.0\"?>\n<!-- c --><a x=\"1\"><b>&lt;t&#65;</b><![CDATA[<d>]]><n:e xmlns:n=\"u\"/></a>";
