//! What became of a stage, held against what it expects.

use ::tests::{agent::Event, http::raw::Response};
use anyhow::{Context as _, Result};
use regex_automata::{meta::Regex, util::syntax};
use serde_json::Value;

use crate::suite::Expected;

/// All that is wrong. An event must be there, whatever is expected, and rules must have run wherever the gateway itself is not
/// to refuse: nothing passes because nothing was looked at.
pub(crate) fn judge(expected: &Expected, answer: &Result<Response>, event: Option<&Event>) -> Result<Vec<String>> {
    let Some(event) = event else { return Ok(vec!["no event".into()]) };
    let mut wrong = Vec::new();
    let response = match answer {
        Ok(response) if expected.error => return Ok(vec![format!("answered with {}", response.status)]),
        Err(_) if expected.error => return Ok(wrong),
        Err(error) => return Ok(vec![format!("{error:#}; {}", told(event))]),
        Ok(response) => response,
    };
    if !expected.status.is_empty() && !expected.status.contains(&response.status) {
        wrong.push(format!("status {} in place of {:?}", response.status, expected.status));
    }
    let phases = list(event, "phases");
    let ran = [1, 2].iter().all(|phase| phases.iter().any(|ran| ran == phase));
    if !ran && !expected.status.iter().any(|status| *status >= 400) {
        wrong.push(format!("rules did not run: {}", told(event)));
    }
    let rules = list(event, "rules");
    let ids: Vec<u64> = rules.iter().filter_map(|rule| rule["id"].as_u64()).collect();
    wrong.extend(expected.ids.iter().filter(|id| !ids.contains(id)).map(|id| format!("no {id}")));
    wrong.extend(expected.no_ids.iter().filter(|id| ids.contains(id)).map(|id| format!("but {id}")));
    if expected.isolated && ids.len() != 1 {
        wrong.push(format!("not {:?} alone", expected.ids));
    }
    if event.more.contains_key("rules_omitted") {
        wrong.push("more rules than are told".into());
    }
    let log: String = rules.iter().map(logged).collect();
    for (pattern, wanted) in [(&expected.log, true), (&expected.no_log, false)] {
        if let Some(pattern) = pattern
            && matches(pattern, &log)? != wanted
        {
            wrong.push(format!("the log {} {pattern:?}", if wanted { "lacks" } else { "has" }));
        }
    }
    if let Some(text) = &expected.body
        && !response.text().contains(text)
    {
        wrong.push(format!("the answer lacks {text:?}"));
    }
    if !wrong.is_empty() {
        wrong.push(format!("got {ids:?}, {}", told(event)));
    }
    Ok(wrong)
}

fn list<'e>(event: &'e Event, name: &str) -> &'e [Value] {
    event.more.get(name).and_then(Value::as_array).map_or(&[], |list| list)
}

/// What the event says of the gateway's own verdict.
pub(crate) fn told(event: &Event) -> String {
    let status = event.status().map_or_else(|| "no answer".into(), |status| status.to_string());
    format!("{} {} ({status})", event.action, event.reason)
}

/// The line that ModSecurity logs of a rule, as far as the suite looks into it.
fn logged(rule: &Value) -> String {
    // A line stays one.
    let shown = |letter: char| if letter.is_control() { letter.escape_default().to_string() } else { letter.into() };
    let text = |name: &str| rule[name].as_str().unwrap_or_default().chars().map(shown).collect::<String>();
    format!(
        "Warning. Match at {}. [id \"{}\"] [msg \"{}\"] [data \"{}\"] [severity \"{}\"]\n",
        text("variable"),
        rule["id"],
        text("message"),
        text("data"),
        text("severity")
    )
}

fn matches(pattern: &str, log: &str) -> Result<bool> {
    let syntax = syntax::Config::new().unicode(false).utf8(false);
    let regex =
        Regex::builder().syntax(syntax).build(pattern).with_context(|| format!("{pattern} is no expression"))?;
    Ok(regex.is_match(log))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(more: &str) -> Event {
        let head = r#""time":"","layer":"lan","action":"pass""#;
        serde_json::from_str(&format!("{{{head}{more}}}")).unwrap()
    }

    fn verdict(expected: &Expected, status: u16, more: &str) -> Vec<String> {
        let answer = Ok(Response { status, fields: Vec::new(), body: b"hello".to_vec() });
        judge(expected, &answer, Some(&event(more))).unwrap()
    }

    const RULES: &str =
        r#","phases":[1,2,5],"rules":[{"id":7,"phase":2,"message":"Bad","data":"found within ARGS:x"}]"#;

    #[test]
    fn each_expectation_can_fail() {
        let none = Expected::default();
        assert_eq!(verdict(&none, 200, RULES), [""; 0]);
        for (good, bad) in [
            (Expected { status: vec![403, 200], ..none.clone() }, Expected { status: vec![201], ..none.clone() }),
            (Expected { ids: vec![7], ..none.clone() }, Expected { ids: vec![7, 8], ..none.clone() }),
            (Expected { no_ids: vec![8], ..none.clone() }, Expected { no_ids: vec![8, 7], ..none.clone() }),
            (
                Expected { log: Some("\\[id \"7\"\\].*ARGS:x".into()), ..none.clone() },
                Expected { log: Some("ARGS:y".into()), ..none.clone() },
            ),
            (
                Expected { no_log: Some("id \"8\"".into()), ..none.clone() },
                Expected { no_log: Some(r#"\[id "\d+"\]"#.into()), ..none.clone() },
            ),
            (
                Expected { body: Some("hell".into()), ..none.clone() },
                Expected { body: Some("heaven".into()), ..none.clone() },
            ),
            (Expected { isolated: true, ..none.clone() }, Expected { error: true, ..none.clone() }),
        ] {
            assert_eq!(verdict(&good, 200, RULES), [""; 0], "{good:?}");
            assert_ne!(verdict(&bad, 200, RULES), [""; 0], "{bad:?}");
        }
        let two = RULES.replace("}]", r#"},{"id":8,"phase":2}]"#);
        assert_ne!(verdict(&Expected { isolated: true, ..none.clone() }, 200, &two), [""; 0]);
        assert_ne!(verdict(&none, 200, &format!(r#"{RULES},"rules_omitted":3"#)), [""; 0]);
    }

    #[test]
    fn absence_is_no_pass() {
        let (none, no) = (Expected::default(), Expected { no_ids: vec![9], ..Expected::default() });
        for expected in [&none, &no] {
            assert_ne!(verdict(expected, 200, ""), [""; 0], "no phase ran");
            assert_ne!(verdict(expected, 200, r#","phases":[1,5]"#), [""; 0], "phase 2 did not");
            let answer = Ok(Response { status: 200, fields: Vec::new(), body: Vec::new() });
            assert_ne!(judge(expected, &answer, None).unwrap(), [""; 0], "no event");
            assert_ne!(judge(expected, &Err(anyhow::anyhow!("closed")), Some(&event(RULES))).unwrap(), [""; 0]);
        }
        // Whom the gateway is to refuse, rules need not see.
        for status in [400, 505] {
            assert_eq!(verdict(&Expected { status: vec![status], ..none.clone() }, status, ""), [""; 0]);
        }
        let error = Expected { error: true, ..none };
        assert_eq!(judge(&error, &Err(anyhow::anyhow!("closed")), Some(&event(""))).unwrap(), [""; 0]);
        assert_ne!(judge(&error, &Err(anyhow::anyhow!("closed")), None).unwrap(), [""; 0]);
    }
}
