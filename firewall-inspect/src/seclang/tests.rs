use std::sync::Arc;

use super::*;

fn read(text: &str) -> Vec<Stated<Directive>> {
    parse(&Arc::from("r.conf"), text).unwrap_or_else(|faults| panic!("{faults:#?}"))
}

fn faults(text: &str) -> Vec<String> {
    parse(&Arc::from("r.conf"), text).unwrap_err().iter().map(Fault::to_string).collect()
}

fn rule(text: &str) -> Rule {
    match &read(text)[..] {
        [Stated { value: Directive::Rule(rule), .. }] => rule.clone(),
        other => panic!("{other:#?}"),
    }
}

#[test]
fn a_rule_is_split_over_lines() {
    let text = "# a comment that \\\n  goes on\n\nSecRule ARGS|!ARGS:pass|&FILES \"@rx a\\\"b\\d\" \\\n    \"id:1,\\\n    phase:2,deny,t:none,t:lowercase,\\\n    msg:'it\\'s, here'\"\nSecMarker END\n";
    let directives = read(text);
    assert_eq!(directives.len(), 2);
    assert_eq!(directives[0].place.to_string(), "r.conf:4:1");
    assert_eq!((directives[1].place.line, &directives[1].value), (8, &Directive::Marker("END".into())));
    let Directive::Rule(rule) = &directives[0].value else { panic!("{directives:#?}") };
    let uses: Vec<_> = rule.targets.iter().map(|target| (target.usage, target.variable)).collect();
    let expected = [(Use::Values, Variable::Args), (Use::Exclude, Variable::Args), (Use::Count, Variable::Files)];
    assert_eq!(uses, expected);
    assert_eq!(rule.operator.argument.literal(), Some(r#"a"b\d"#));
    assert!(!rule.operator.negated);
    assert_eq!(
        rule.actions,
        [
            Action::Id(1),
            Action::Phase(Phase::RequestBody),
            Action::Disrupt(Disruption::Deny),
            Action::Transform(None),
            Action::Transform(Some(Transformation::Lowercase)),
            Action::Msg(Text(vec![Piece::Literal("it's, here".into())])),
        ]
    );
}

#[test]
fn selectors() {
    for (text, expected) in [
        ("ARGS:a", Selector::Name("a".into())),
        ("REQUEST_COOKIES:/__utm|x/", Selector::Regex("__utm|x".into())),
        ("ARGS:'/a\\/b/'", Selector::Regex("a/b".into())),
        ("TX:'a|b'", Selector::Name("a|b".into())),
        ("XML:/*", Selector::XPath("/*".into())),
        ("XML://@*", Selector::XPath("//@*".into())),
    ] {
        let rule = rule(&format!("SecRule \"{text}|ARGS_NAMES\" \"!@eq 0\""));
        assert_eq!(rule.targets[0].selector.as_ref(), Some(&expected), "{text}");
        assert_eq!(rule.targets[1].variable, Variable::ArgsNames, "{text}");
        assert!(rule.operator.negated && rule.operator.operator == Operator::Eq, "{text}");
    }
}

#[test]
fn operators_without_a_name_are_expressions() {
    for (text, negated, argument) in [("^a", false, "^a"), ("!^a", true, "^a"), ("@rx %{x", false, "")] {
        if argument.is_empty() {
            assert_eq!(faults(&format!("SecRule ARGS \"{text}\"")), ["r.conf:1:19: this macro has no closing brace"]);
            continue;
        }
        let rule = rule(&format!("SecRule ARGS \"{text}\" \"id:1\""));
        let found = (rule.operator.operator, rule.operator.negated, rule.operator.argument.literal());
        assert_eq!(found, (Operator::Rx, negated, Some(argument)));
    }
}

#[test]
fn variables_are_set_and_macros_read() {
    let rule = rule(
        "SecRule ARGS \"@within %{tx.allowed_methods}\" \"id:1,setvar:'tx.score=+%{tx.critical}',setvar:tx.a=-1,setvar:!tx.b,setvar:tx.c,\
         setvar:'tx.n_%{MATCHED_VAR_NAME}=%{tx.1}',logdata:'100% of %{REQUEST_HEADERS.User-Agent}'\"",
    );
    let tx = |name: &str| Text(vec![Piece::Macro(Variable::Tx, Some(name.into()))]);
    let literal = |text: &str| Text(vec![Piece::Literal(text.into())]);
    assert_eq!(rule.operator.argument, tx("allowed_methods"));
    let set = |name: Text, value| Action::SetVar(SetVar { collection: Variable::Tx, name, value });
    let agent = Piece::Macro(Variable::RequestHeaders, Some("user-agent".into()));
    assert_eq!(
        rule.actions[1..],
        [
            set(literal("score"), SetVarValue::Add(tx("critical"))),
            set(literal("a"), SetVarValue::Subtract(literal("1"))),
            set(literal("b"), SetVarValue::Remove),
            set(literal("c"), SetVarValue::Set(literal("1"))),
            set(
                Text(vec![Piece::Literal("n_".into()), Piece::Macro(Variable::MatchedVarName, None)]),
                SetVarValue::Set(tx("1"))
            ),
            Action::LogData(Text(vec![Piece::Literal("100% of ".into()), agent])),
        ]
    );
}

#[test]
fn rules_are_changed_and_removed() {
    let directives = read(
        "SecRuleRemoveById 1 5-9 \"11, 12\"\nSecRuleUpdateTargetById 942100 \"!REQUEST_COOKIES:/^_ga/\"\n\
         SecRuleUpdateActionById 3 \"pass\"\nSecAction \"id:9,nolog,ctl:ruleRemoveTargetByTag=attack-xss;ARGS:a|ARGS:b,ctl:ruleEngine=DetectionOnly\"\n",
    );
    let range = |first, last| IdRange { first, last };
    assert_eq!(
        directives[0].value,
        Directive::RemoveById(vec![range(1, 1), range(5, 9), range(11, 11), range(12, 12)])
    );
    let Directive::UpdateTargetById(ids, targets) = &directives[1].value else { panic!("{directives:#?}") };
    assert_eq!((&ids[..], targets[0].usage), (&[range(942_100, 942_100)][..], Use::Exclude));
    assert_eq!(directives[2].value, Directive::UpdateActionById(range(3, 3), vec![Action::Disrupt(Disruption::Pass)]));
    let Directive::Action(actions) = &directives[3].value else { panic!("{directives:#?}") };
    let Action::Ctl(Ctl::RuleRemoveTargetByTag(tag, targets)) = &actions[2] else { panic!("{actions:#?}") };
    assert_eq!((&tag[..], targets.len()), ("attack-xss", 2));
    assert_eq!(actions[3], Action::Ctl(Ctl::RuleEngine(EngineMode::DetectionOnly)));
}

#[test]
fn faults_name_line_and_column() {
    for (text, expected) in [
        ("SecRule ARGS\n", "1:1: `SecRule` takes 2 to 3 arguments, and has 1"),
        ("\n SecFoo 1\n", "2:2: there is no directive `SecFoo`, or it is not supported"),
        ("SecRule ARGZ \"a\"\n", "1:9: there is no variable `ARGZ`"),
        ("SecRule \"ARGS|QUERY_STRING:a\" \"a\"\n", "1:27: QUERY_STRING has no members"),
        ("SecRule ARGS \"@foo 1\"\n", "1:15: there is no operator `@foo`, or it is not supported"),
        ("SecRule ARGS \"a\" \\\n  \"id:1,\\\n  t:upper\"\n", "3:5: there is no transformation `upper`"),
        ("SecRule ARGS \"a\" \"id:x\"\n", "1:22: `id` expects a number from 1 to 4294967295"),
        ("SecRule ARGS \"a\" \"exec:/bin/sh\"\n", "1:19: there is no action `exec`, or it is not supported"),
        ("SecRule ARGS \"a\" \"msg:'a\"\n", "1:23: this ' is not closed"),
        ("SecRule ARGS \"a\n", "1:14: this \" is not closed on its line"),
        ("SecRule ARGS \"a\"b\n", "1:17: white space is missing behind this \""),
        ("SecAction \"id:1,ctl:foo=1\"\n", "1:21: ctl has no `foo`, or it is not supported"),
        ("SecDefaultAction \"deny\"\n", "1:19: a default action needs a phase"),
        ("SecXmlExternalEntity On\n", "1:22: external entities are never read"),
        ("SecRequestBodyLimit 1x\n", "1:21: `1x` is no number, or too large"),
        ("SecRuleRemoveById 9-1\n", "1:19: `9-1` is no id, and no range of ids"),
    ] {
        assert_eq!(faults(text), [format!("r.conf:{expected}")], "{text}");
    }
    // All of them are told.
    assert_eq!(faults("SecFoo\nSecRule ARGZ \"@foo\" \"id:x\"\n").len(), 4);
}
