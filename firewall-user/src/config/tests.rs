//! Whole configurations: every kind of error with its place, all errors at once, and the example file.

use super::*;

const EXAMPLE: &str = include_str!("../../portcullis.example.toml");

/// Reads `text`, after the line `interfaces = ["eth0"]`.
fn with_interface(text: &str) -> Result<Config, Errors> {
    let text = format!("interfaces = [\"eth0\"]\n{text}");
    parse("test.toml", &text, Path::new("/nowhere"), vec![], &Overrides::default())
}

fn whole(text: &str) -> Result<Config, Errors> {
    parse("test.toml", text, Path::new("/nowhere"), vec![], &Overrides::default())
}

#[track_caller]
fn assert_problems(result: Result<Config, Errors>, expected: &[(usize, usize, &str, &str)]) {
    let errors = result.expect_err("there are errors");
    let found: Vec<_> = errors
        .problems()
        .iter()
        .map(|problem| (problem.line, problem.column, &*problem.message, problem.help.as_deref().unwrap_or("")))
        .collect();
    let alike = found.len() == expected.len()
        && found.iter().zip(expected).all(|(found, expected)| {
            (found.0, found.1, found.2) == (expected.0, expected.1, expected.2) && found.3.contains(expected.3)
        });
    assert!(alike, "found {found:#?}\nexpected {expected:#?}\n{}", errors.report(false));
    let report = errors.report(false);
    for problem in errors.problems() {
        let place = format!("[{}:{}:{}]", problem.file, problem.line, problem.column);
        assert!(report.contains(&place), "{place} in {report}");
    }
}

#[test]
fn probe() {
    for text in [
        "a = [\nb = 1\n[dmz]\nmod = 2\n",
        "x = \"abc\nxdp_mode = 5\n[dmz.size]\nmax_packet = \"1Q\"\n",
        "a = 1\na = 2\nxdp_mode = 3\n[[dmz.list]]\n[[dmz.rate]]\nname=\"x\"\n",
        "\u{feff}xdp_mode = 3",
        "",
    ] {
        println!("{}", with_interface(text).map_or_else(|e| e.report(false), |_| "ok".into()));
        println!("{}", whole(text).map_or_else(|e| e.report(false), |_| "ok".into()));
    }
}
#[test]
fn the_example_loads() {
    let text = EXAMPLE;
    let config = whole(text).unwrap_or_else(|errors| panic!("{}", errors.report(false)));
    println!("{config:#?}");
}
