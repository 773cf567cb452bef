//! Whole configurations: every kind of error with its place, all errors at once, and what values become.

mod api;
mod example;

use super::*;

/// Reads `text` behind the line `interfaces = ["eth0"]`, so its first line is line 2.
fn with_interface(text: &str) -> Result<Config, Errors> {
    whole(&format!("interfaces = [\"eth0\"]\n{text}"))
}

fn whole(text: &str) -> Result<Config, Errors> {
    parse("test.toml", text, Path::new("/nowhere"), vec![], &Overrides::default())
}

fn config(text: &str) -> Config {
    with_interface(text).unwrap_or_else(|errors| panic!("{text}\n{}", errors.report(false)))
}

/// Line, column, message, and a part of the help.
type Expected = (usize, usize, &'static str, &'static str);

#[track_caller]
fn assert_problems(text: &str, result: Result<Config, Errors>, expected: &[Expected]) {
    let Err(errors) = result else { panic!("no error in\n{text}") };
    let found: Vec<_> = errors
        .problems()
        .iter()
        .map(|problem| (problem.line, problem.column, &*problem.message, problem.help.as_deref().unwrap_or("")))
        .collect();
    let alike = found.len() == expected.len()
        && found.iter().zip(expected).all(|(found, expected)| {
            (found.0, found.1, found.2) == (expected.0, expected.1, expected.2) && found.3.contains(expected.3)
        });
    assert!(alike, "found {found:#?}\nexpected {expected:#?}\nin\n{text}");
    let report = errors.report(false);
    for problem in errors.problems() {
        let place = format!("[{}:{}:{}]", problem.file, problem.line, problem.column);
        assert!(report.contains(&place), "{place} in {report}");
    }
    assert!(!report.contains('\u{1b}'), "colours: {report}");
}

/// One error each.
#[test]
fn every_error_names_its_place() {
    let cases: &[(&str, Expected)] = &[
        // Keys and types.
        ("interface = 1", (2, 1, "unknown key `interface`", "did you mean `interfaces`?")),
        ("[dmz]\nquux = 1", (3, 1, "unknown key `quux` in `dmz`", "known keys in `dmz`: `mode`")),
        ("[dmz.hygiene]\nfragment = true", (3, 1, "unknown key `fragment` in `dmz.hygiene`", "`fragments`")),
        ("[[apis]]\nname = \"x\"", (2, 3, "unknown key `apis`", "did you mean `api`?")),
        ("[[quux]]\nname = \"x\"", (2, 3, "unknown key `quux`", "known keys: `interfaces`")),
        ("dmz = 1", (2, 7, "`dmz` wants a table, not an integer", "")),
        ("dmz.list = {}", (2, 12, "`list` wants an array, not a table", "")),
        ("xdp_mode = true", (2, 12, "`xdp_mode` wants a string, not a boolean", "")),
        ("xdp_mode = \"a\\nb\"", (2, 12, "`xdp_mode` cannot be `a\\nb`", "one of")),
        ("xdp_mode = \"nativ\"", (2, 12, "`xdp_mode` cannot be `nativ`", "did you mean `native`?")),
        ("on_agent_exit = \"x\"", (2, 17, "`on_agent_exit` cannot be `x`", "one of `keep`, `detach`")),
        ("[dmz]\nmode = \"off\"", (3, 8, "`mode` cannot be `off`", "one of `enforce`, `monitor`")),
        ("[events]\nstdout = 1", (3, 10, "`stdout` wants `true` or `false`, not an integer", "")),
        // Exposure.
        ("[dmz]\nexpose = [\"443\"]", (3, 11, "`443` is no service", "`443/tcp` or `443/udp`")),
        ("[dmz]\nexpose = [\"1/tcp\", 443]", (3, 20, "`expose` wants a string, not an integer", "")),
        ("[dmz]\nexpose_mode = \"monitor\"", (3, 15, "`expose_mode` without `expose` means nothing", "add")),
        // Lists.
        ("[[dmz.list]]\naction = \"block\"\nprefixes = []", (2, 1, "`name` is missing", "call the list")),
        ("[[dmz.list]]\nname = \"x\"\nprefixes = []", (2, 1, "`action` is missing", "\"block\"")),
        ("[[dmz.list]]\nname = \"x\"\naction = \"allow\"", (2, 1, "the list has neither `prefixes` nor `file`", "")),
        ("dmz.list = [{ name = \"a b\", action = \"block\", prefixes = [] }]", (2, 22, "`a b` cannot be a name", "64")),
        ("dmz.list = [{ name = \"\", action = \"block\", prefixes = [] }]", (2, 22, "`` cannot be a name", "letters")),
        (
            "dmz.list = [{ name = \"a\", action = \"allow\", mode = \"monitor\", prefixes = [] }]",
            (2, 52, "an allow list cannot monitor: it drops nothing", "leave `mode` out"),
        ),
        (
            "[[dmz.list]]\nname = \"a\"\naction = \"block\"\nprefixes = []\n[[dmz.list]]\nname = \"a\"\naction = \
             \"block\"\nprefixes = []",
            (7, 8, "two lists have the name `a`", "another name"),
        ),
        (
            "dmz.list = [{ name = \"a\", action = \"block\", prefixes = [\"10.0.0.1/8\"] }]",
            (2, 57, "`10.0.0.1/8` has bits set behind its length", "write `10.0.0.0/8`, or `10.0.0.1/32`"),
        ),
        (
            "dmz.list = [{ name = \"a\", action = \"block\", prefixes = [\"1.1.1.1\", \"1.1.1.1/32\"] }]",
            (2, 68, "`1.1.1.1/32` is twice in this list", "remove one"),
        ),
        (
            "dmz.list = [{ name = \"a\", action = \"block\", prefixes = [\"::/0\"] }]",
            (2, 57, "`::/0` is every address", "set `expose = []`"),
        ),
        (
            "dmz.list = [{ name = \"a\", action = \"allow\", prefixes = [\"0.0.0.0/0\"] }]",
            (2, 57, "`0.0.0.0/0` is every address", "switch off lists, bans, exposure and per-source rates"),
        ),
        (
            "dmz.list = [{ name = \"a\", action = \"block\", family = \"ipv6\", prefixes = [\"1.1.1.1\"] }]",
            (2, 74, "wrong family: `1.1.1.1` is IPv4", "family = \"ipv6\""),
        ),
        (
            "dmz.list = [{ name = \"a\", action = \"block\", file = \"x.txt\" }]",
            (
                2,
                52,
                "cannot read the list file `/nowhere/x.txt`: No such file or directory (os error 2)",
                "the path starts at the folder",
            ),
        ),
        ("dmz.list = [{ name = \"a\", action = \"block\", file = \"\" }]", (2, 52, "this is no path", "")),
        // Hygiene and tables.
        ("[dmz.hygiene]\nreflection_ports = [0]", (3, 21, "`reflection_ports` is out of range", "from 1 to 65535")),
        ("[dmz.tables]\nbans = 0", (3, 8, "`bans` is out of range", "from 1 to 16777216")),
        ("[dmz.tables]\nbuckets = 5000", (3, 11, "`buckets` must be a power of two", "4096 or 8192")),
        ("[dmz.tables]\nbuckets = 512", (3, 11, "`buckets` is out of range", "from 1024 to 16777216")),
        ("[dmz.tables]\nflows = 99999999999999999999", (3, 9, "`flows` is out of range", "from 1 to 16777216")),
        ("[dmz.tables]\nflows = 1.5", (3, 9, "`flows` wants a whole number from 1 to 16777216, not a float", "")),
        // Sizes.
        ("[dmz.size]\nmax_packet = \"9K\"", (3, 14, "`9K` is not a size", "`512B`")),
        ("[dmz.size]\nmax_packet = 19", (3, 14, "`max_packet` is out of range", "from 20B to 65575B")),
        ("[dmz.size]\nmax_packet = \"64KiB\"\nmin_packet = \"66KB\"", (4, 14, "`min_packet` is out of range", "20B")),
        (
            "[dmz.size]\nmax_packet = 100\nmin_packet = 101",
            (4, 14, "the minimum is greater than the maximum: no packet fits", "raise the maximum"),
        ),
        ("[dmz.size]\nrules = [{ max = 100 }]", (3, 10, "`port` is missing", "53/udp")),
        ("[dmz.size]\nrules = [{ port = \"53/udp\" }]", (3, 10, "the size rule has no bound", "`min_payload`")),
        ("[dmz.size]\nrules = [{ port = \"x\", max = 50 }]", (3, 19, "`x` is no service", "")),
        (
            "[dmz.size]\nrules = [{ port = \"5-9/udp\", max = 50 }, { port = \"9-10/udp\", max = 60 }]",
            (3, 51, "`9-10/udp` has a size rule already", "one size rule"),
        ),
        (
            "[dmz.size]\nrules = [{ port = \"5/udp\", max_payload = 1, min_payload = 2 }]",
            (3, 59, "the minimum is greater than the maximum: no payload fits", "raise the maximum"),
        ),
        (
            "[dmz.size]\nrules = [{ port = \"5/udp\", max = 100, min_payload = 101 }]",
            (3, 53, "the minimum is greater than the maximum: no payload within a packet fits", "raise the maximum"),
        ),
        // Rates.
        ("[[dmz.rate]]\nper = \"source\"\npackets = \"1/s\"", (2, 1, "`name` is missing", "call the rate")),
        ("[[dmz.rate]]\nname = \"r\"\npackets = \"1/s\"", (2, 1, "`per` is missing", "\"service\"")),
        ("[[dmz.rate]]\nname = \"r\"\nper = \"source\"", (2, 1, "the rate limits nothing", "`connections = \"50/s\"`")),
        (
            "dmz.rate = [{ name = \"r\", per = \"host\", packets = \"1/s\" }]",
            (2, 33, "`per` cannot be `host`", "one of"),
        ),
        ("dmz.rate = [{ name = \"r\", per = \"source\", packets = \"1\" }]", (2, 53, "`1` is not a rate", "`2000/s`")),
        (
            "dmz.rate = [{ name = \"r\", per = \"source\", packets = 5 }]",
            (2, 53, "`packets` wants a string, not an integer", ""),
        ),
        (
            "dmz.rate = [{ name = \"r\", per = \"source\", bytes = \"9000/s\" }]",
            (2, 51, "`9000/s` is not a rate of bytes", "`10MB/s`"),
        ),
        (
            "dmz.rate = [{ name = \"r\", per = \"source\", connections = \"0/s\" }]",
            (2, 57, "`0/s` lets nothing through", "`2000/s`"),
        ),
        (
            "dmz.rate = [{ name = \"r\", per = \"source\", bytes = \"1KB/s\" }]",
            (
                2,
                51,
                "impossible rate: `1KB/s` with `burst = 1` has room for 1000 bytes, so it never passes a packet of full \
                 size (1514 bytes)",
                "write `burst = 1.514` or more",
            ),
        ),
        (
            "dmz.rate = [{ name = \"r\", per = \"source\", bytes = \"1B/s\" }]",
            (
                2,
                51,
                "impossible rate: `1B/s` with `burst = 1` has room for 1 bytes, so it never passes a packet of full size \
                 (1514 bytes)",
                "write a greater rate",
            ),
        ),
        (
            "dmz.rate = [{ name = \"r\", per = \"source\", burst = 0.25, packets = \"2/s\" }]",
            (
                2,
                67,
                "impossible rate: `2/s` with `burst = 0.25` has room for 0.500 of one, so it never passes anything",
                "write `burst = 0.5` or more",
            ),
        ),
        (
            "dmz.rate = [{ name = \"r\", per = \"source\", bytes = \"10000000000GB/s\" }]",
            (2, 51, "`10000000000GB/s` is too large", ""),
        ),
        (
            "dmz.rate = [{ name = \"r\", per = \"source\", bytes = \"9000000000GB/s\" }]",
            (2, 51, "`9000000000GB/s` is too large", "leave it out"),
        ),
        (
            "dmz.rate = [{ name = \"r\", per = \"source\", packets = \"1/s\", burst = 61 }]",
            (2, 68, "`burst` is out of range", "0.001 to 60"),
        ),
        (
            "dmz.rate = [{ name = \"r\", per = \"source\", packets = \"1/s\", burst = nan }]",
            (2, 68, "`burst` is out of range", "0.001 to 60"),
        ),
        (
            "dmz.rate = [{ name = \"r\", per = \"source\", packets = \"1/s\", burst = \"2\" }]",
            (2, 68, "`burst` wants a number, not a string", ""),
        ),
        (
            "dmz.rate = [{ name = \"r\", per = \"source\", packets = \"1/s\", ports = [] }]",
            (2, 68, "`ports` is empty: the rate would apply to nothing", "leave it out"),
        ),
        (
            "dmz.rate = [{ name = \"r\", per = \"source\", packets = \"1/s\", prefix_v4 = 24 }]",
            (2, 72, "`prefix_v4` means nothing here", "source-prefix"),
        ),
        (
            "dmz.rate = [{ name = \"r\", per = \"source-prefix\", packets = \"1/s\", prefix_v4 = 24 }]",
            (2, 13, "`prefix_v6` is missing", "prefix_v6 = 48"),
        ),
        (
            "dmz.rate = [{ name = \"r\", per = \"source-prefix\", packets = \"1/s\", prefix_v4 = 33, prefix_v6 = 48 }]",
            (2, 79, "`prefix_v4` is out of range", "from 1 to 32"),
        ),
        (
            "dmz.rate = [{ name = \"r\", per = \"source-prefix\", packets = \"1/s\", prefix_v4 = 4, prefix_v6 = 48, ban = \"1m\" }]",
            (2, 79, "`prefix_v4 = 4` is too short a prefix for `ban`", "8 or more"),
        ),
        (
            "dmz.rate = [{ name = \"r\", per = \"service\", packets = \"1/s\", ban = \"1m\" }]",
            (2, 67, "`ban` needs a source, but this rate counts per service", "per = \"source\""),
        ),
        (
            "dmz.rate = [{ name = \"r\", per = \"source\", packets = \"1/s\", ban = \"999ms\" }]",
            (2, 66, "`ban` is out of range", "from 1s to 365d"),
        ),
        (
            "dmz.rate = [{ name = \"r\", per = \"source\", packets = \"1/s\", ban = \"366d\" }]",
            (2, 66, "`ban` is out of range", "from 1s to 365d"),
        ),
        (
            "dmz.rate = [{ name = \"r\", per = \"source\", packets = \"1/s\", ban = 60 }]",
            (2, 66, "`ban` wants a string, not an integer", ""),
        ),
        // Events, metrics, control.
        ("[events]\nfile = \"\"", (3, 8, "this is no path", "")),
        ("[events]\nfile = 1", (3, 8, "`file` wants a string, not an integer", "")),
        ("[events]\nfile = { keep = 1 }", (3, 8, "`path` is missing", "")),
        ("[events]\nfile = { path = \"x\", keep = 101 }", (3, 29, "`keep` is out of range", "from 0 to 100")),
        (
            "[events]\nfile = { path = \"x\", max_size = \"4KB\" }",
            (3, 33, "`max_size` is out of range", "from 4KiB to 1024GiB"),
        ),
        ("[events.file]\npath = \"x\"\nkep = 1", (4, 1, "unknown key `kep` in `events.file`", "did you mean `keep`?")),
        (
            "[metrics]\nlisten = \"0.0.0.0:9477\"",
            (3, 10, "`0.0.0.0:9477` is not a loopback address", "without a login"),
        ),
        ("[metrics]\nlisten = \"localhost\"", (3, 10, "`localhost` is no address with a port", "`127.0.0.1:9477`")),
        ("[metrics]\nlisten = \"[::1]:0\"", (3, 10, "`[::1]:0` has no port to find it by", "")),
        ("[control]\ngroup = \" \"", (3, 9, "`group` is empty", "only root")),
    ];
    for (text, expected) in cases {
        assert_problems(text, with_interface(text), &[*expected]);
    }
}

#[test]
fn interfaces() {
    for (text, expected) in [
        ("", (1, 1, "`interfaces` is missing", "`interfaces = [\"eth0\"]`")),
        ("\n# nothing\n", (1, 1, "`interfaces` is missing", "")),
        ("interfaces = []", (1, 14, "`interfaces` is empty", "\"eth0\"")),
        ("interfaces = \"eth0\"", (1, 14, "`interfaces` wants an array, not a string", "")),
        ("interfaces = [\"a\", \"b\", \"a\"]", (1, 25, "`a` is named twice", "remove")),
        ("interfaces = [\"a/b\"]", (1, 15, "`a/b` cannot be a network interface", "15 bytes")),
        ("interfaces = [\"sixteen-letters-\"]", (1, 15, "`sixteen-letters-` cannot be a network interface", "15")),
        ("interfaces = [\"\"]", (1, 15, "`` cannot be a network interface", "")),
        ("interfaces = [\"..\"]", (1, 15, "`..` cannot be a network interface", "")),
    ] {
        assert_problems(text, whole(text), &[expected]);
    }
    let names = |text: &str, names: &[&str]| {
        let overrides =
            Overrides { interfaces: names.iter().map(ToString::to_string).collect(), ..Overrides::default() };
        parse("test.toml", text, Path::new(""), vec![], &overrides)
    };
    assert_eq!(names("interfaces = [\"eth0\"]", &["lan", "wan"]).unwrap().interfaces, ["lan", "wan"]);
    assert_eq!(names("", &["lan"]).unwrap().interfaces, ["lan"]);
    assert_problems("--interface a/b", names("", &["a/b"]), &[(1, 1, "`a/b` cannot be a network interface", "")]);
    assert_problems("--interface a twice", names("", &["a", "a"]), &[(1, 1, "`a` is named twice", "")]);
}

#[test]
fn errors_of_toml_come_with_the_others() {
    let cases: &[(&str, &[Expected])] = &[
        (
            "a = \"x\nxdp_mode = 3",
            &[
                (2, 7, "not TOML: invalid basic string, expected `\"`", ""),
                (3, 12, "`xdp_mode` wants a string, not an integer", ""),
            ],
        ),
        (
            "xdp_mode = \"auto\"\nxdp_mode = \"auto\"\nx = 1",
            &[(3, 1, "not TOML: duplicate key", ""), (4, 1, "unknown key `x`", "")],
        ),
        (
            "xdp_mode = 3\n[dmz]\nexpose = [\"1/tcp\", \n[dmz.size]\nmax_packet = \"1Q\"\n[[dmz.list]]\nname = \"x\"\n",
            &[
                (2, 12, "`xdp_mode` wants a string, not an integer", ""),
                (4, 10, "not TOML: this is never closed", "a `]` is missing"),
            ],
        ),
        ("[dmz.size]\nrules = [{ max = 5", &[(3, 9, "not TOML: this is never closed", "a `]` is missing")]),
        (
            "[dmz.hygiene\nland = 1\n[events]\nstdout = 1",
            &[
                (2, 13, "not TOML: unclosed table, expected `]`", ""),
                (5, 10, "`stdout` wants `true` or `false`, not an integer", ""),
            ],
        ),
        ("x", &[(2, 2, "not TOML: key with no value, expected `=`", "")]),
    ];
    for (text, expected) in cases {
        assert_problems(text, with_interface(text), expected);
    }
}

#[test]
fn all_errors_come_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let text = r#"xdp_mode = "fast"
[dmz]
expse = []
expose = ["https"]
[dmz.size]
max_packet = "9000"
[dmz.tables]
buckets = 1025
[[dmz.list]]
name = "drop"
action = "block"
prefixes = ["10.0.0.1/8"]
file = "drop.txt"
[[dmz.rate]]
name = "r"
per = "service"
packets = "10/w"
[metrics]
listen = "192.0.2.1:80"
"#;
    let path = folder.path().join("portcullis.toml");
    std::fs::write(&path, text).unwrap();
    std::fs::write(folder.path().join("drop.txt"), "192.0.2.0/24\n\nrubbish # here\n").unwrap();
    let errors = load(&path, &Overrides::default()).unwrap_err();
    let places: Vec<_> = errors.problems().iter().map(|problem| (problem.line, problem.column)).collect();
    let expected = [(1, 1), (1, 12), (3, 1), (4, 11), (6, 14), (8, 11), (12, 13), (17, 11), (19, 10), (3, 1)];
    assert_eq!(places, expected, "{}", errors.report(false));
    assert_eq!(errors.len(), 10);
    let last = &errors.problems()[9];
    assert_eq!(last.file, folder.path().join("drop.txt").display().to_string());
    assert!(errors.report(false).ends_with("\n10 errors\n"));
    assert!(errors.report(true).contains('\u{1b}'));
    let json = serde_json::to_value(last).unwrap();
    let help = "an address, or an address and a length, such as `198.51.100.0/24` or `2001:db8::/32`";
    let expected = serde_json::json!({
        "file": last.file, "line": 3, "column": 1, "message": "`rubbish` is no prefix", "help": help,
    });
    assert_eq!(json, expected);
}

#[test]
fn both_places_of_a_duplicate_are_shown() {
    let entry = "[[dmz.rate]]\nname = \"twin\"\nper = \"source\"\npackets = \"1/s\"\n\n";
    let report = with_interface(&entry.repeat(4)).unwrap_err().report(false);
    for place in
        ["[test.toml:8:8]", "[test.toml:13:8]", "[test.toml:18:8]", "3 │ name = \"twin\"", "the first", "3 errors"]
    {
        assert!(report.contains(place), "{place} in {report}");
    }
}

#[test]
fn files_that_cannot_be_read() {
    let folder = tempfile::tempdir().unwrap();
    let problem = |path: &Path| {
        let errors = load(path, &Overrides::default()).unwrap_err();
        assert_eq!(errors.len(), 1);
        let problem = errors.problems()[0].clone();
        assert_eq!(problem.file, path.display().to_string());
        (problem.line, problem.column, problem.message)
    };
    let missing = "cannot read the configuration: No such file or directory (os error 2)";
    assert_eq!(problem(&folder.path().join("none.toml")), (1, 1, missing.to_owned()));
    assert_eq!(problem(folder.path()), (1, 1, "cannot read the configuration: it is a directory".to_owned()));
    let path = folder.path().join("latin1.toml");
    std::fs::write(&path, b"interfaces = [\"eth0\"]\n# caf\xe9\n").unwrap();
    assert_eq!(problem(&path), (2, 6, "the configuration is not UTF-8 here".to_owned()));

    // Opening a pipe that nobody writes to would wait for ever.
    let pipe = folder.path().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let irregular = "cannot read the configuration: it is not a regular file";
    assert_eq!(problem(&pipe), (1, 1, irregular.to_owned()));
    assert_eq!(problem(Path::new("/dev/zero")), (1, 1, irregular.to_owned()));

    let list = "interfaces = [\"eth0\"]\ndmz.list = [{ name = \"a\", action = \"block\", file = \"drop.txt\" }]";
    let path = folder.path().join("list.toml");
    std::fs::write(&path, list).unwrap();
    std::fs::write(folder.path().join("drop.txt"), b"10.0.0.0/8\n\xff\n").unwrap();
    let shown = folder.path().join("drop.txt").display().to_string();
    let (line, column, message) = problem(&path);
    assert_eq!((line, column), (2, 52));
    assert!(message.ends_with(": line 2 is not UTF-8"), "{message} {shown}");
    std::fs::remove_file(folder.path().join("drop.txt")).unwrap();
    std::fs::rename(&pipe, folder.path().join("drop.txt")).unwrap();
    let (_, _, message) = problem(&path);
    assert!(message.ends_with(": it is not a regular file"), "{message}");
}

/// The agent looks at them, so that it takes up a list file that was missing or wrong once it is put right.
#[test]
fn errors_know_the_files_that_may_put_them_right() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("portcullis.toml");
    let files = || load(&path, &Overrides::default()).unwrap_err().files().to_vec();
    assert_eq!(files(), std::slice::from_ref(&path));
    let list = |file: &str| format!("[[dmz.list]]\nname = \"{file}\"\naction = \"block\"\nfile = \"{file}\"\n");
    std::fs::write(&path, format!("interfaces = [\"eth0\"]\n{}{}", list("missing"), list("wrong"))).unwrap();
    std::fs::write(folder.path().join("wrong"), "rubbish").unwrap();
    assert_eq!(files(), [path.clone(), folder.path().join("missing"), folder.path().join("wrong")]);
    std::fs::write(&path, b"\xff").unwrap();
    assert_eq!(files(), std::slice::from_ref(&path));
}

#[test]
fn events_do_not_go_into_a_file_that_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("portcullis.toml");
    std::fs::write(folder.path().join("drop.txt"), "").unwrap();
    for file in ["portcullis.toml", "drop.txt"] {
        let text = format!(
            "interfaces = [\"eth0\"]\nevents.file = \"{file}\"\ndmz.list = [{{ name = \"a\", action = \"block\", file = \
             \"drop.txt\" }}]"
        );
        std::fs::write(&path, &text).unwrap();
        let message = "events would be written into a file that is read here";
        assert_problems(&text, load(&path, &Overrides::default()), &[(2, 15, message, "a file of their own")]);
    }
}

/// Such as a list that was given in the place of the configuration. The clock is what tells here: once, each error looked
/// through the whole text.
#[test]
fn a_file_full_of_errors_is_soon_refused() {
    let began = std::time::Instant::now();
    for (line, others) in [
        ("198.51.100.0/24\n", 0),
        ("[[dmz.list]]\n", 1),
        ("dmz.list = [\n", 0),
        ("[[api]]\n", 1),
        ("a.b = [{ c = 1 }]\n", 1),
    ] {
        let errors = with_interface(&line.repeat(100_000)).unwrap_err();
        assert!(errors.problems().len() <= 1001 + others, "{line}: {}", errors.problems().len());
        assert!(errors.report(false).len() < 1 << 20, "{line}");
    }
    let wide = format!("dmz.expose = [{}]", "\"x\", ".repeat(100_000));
    let errors = with_interface(&wide).unwrap_err();
    assert_eq!((errors.problems().len(), errors.len()), (1001, 100_000));
    assert_eq!(errors.problems()[1000].message, "99000 more errors, of which this is the first");
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}

#[test]
fn files_are_absolute_and_named_once() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("lists")).unwrap();
    std::fs::write(folder.path().join("lists/a.txt"), "10.0.0.0/8\n192.0.2.0/24\n10.0.0.0/8\n").unwrap();
    let path = folder.path().join("portcullis.toml");
    let text = "\u{feff}interfaces = [\"eth0\"]\r\n[events]\r\nfile = \"e.jsonl\"\r\n[[dmz.list]]\r\nname = \"a\"\r\naction = \
                \"block\"\r\nprefixes = [\"192.0.2.0/24\"]\r\nfile = \"lists/a.txt\"\r\n[[dmz.list]]\r\nname = \
                \"b\"\r\naction = \"allow\"\r\nfile = \"lists/a.txt\"\r\n";
    std::fs::write(&path, text).unwrap();
    let config = load(&path, &Overrides::default()).unwrap_or_else(|errors| panic!("{}", errors.report(false)));
    assert_eq!(config.files, [path, folder.path().join("lists/a.txt")]);
    let [a, b] = &config.dmz.lists[..] else { panic!("two lists") };
    let words = |list: &List| list.prefixes.iter().map(IpNet::to_string).collect::<Vec<_>>();
    assert_eq!(words(a), ["192.0.2.0/24", "10.0.0.0/8"]);
    assert_eq!(words(b), ["10.0.0.0/8", "192.0.2.0/24"]);
    let events = config.events.file.unwrap();
    assert_eq!(events, EventFile { path: folder.path().join("e.jsonl"), max_size: 64 << 20, keep: 5 });
}

#[test]
fn absent_keys_have_their_defaults() {
    let config = config("");
    assert_eq!((config.xdp_mode, config.on_agent_exit), (XdpMode::Auto, OnAgentExit::Keep));
    assert_eq!((config.metrics, config.control_group), (None, None));
    assert_eq!(config.events, Events { stdout: true, journald: false, file: None });
    let Dmz { mode, exposure, quic, lists, hygiene, size, rates, tables } = config.dmz;
    assert_eq!(quic, Quic::Drop);
    assert!(mode == Mode::Enforce && exposure.is_none() && lists.is_empty() && rates.is_empty());
    assert!(hygiene.reflection && hygiene.bogons && !hygiene.fragments && !hygiene.private_sources);
    assert!(hygiene.reflection_ports.is_sorted() && hygiene.reflection_ports.contains(&11_211));
    assert!(size.min_packet.is_none() && size.max_packet.is_none() && size.rules.is_empty());
    assert_eq!(tables, Tables { bans: 65_536, buckets: 131_072, flows: 131_072 });
}

#[test]
fn values_arrive() {
    let dmz = config("[dmz]\nexpose = []").dmz;
    assert!(dmz.exposure.is_some_and(|exposure| exposure.services.is_empty()), "nothing is exposed");
    let dmz = config("[dmz]\nexpose = [\"1/tcp\", \"1-5/tcp\", \"1/tcp\"]\nexpose_mode = \"monitor\"").dmz;
    let exposure = dmz.exposure.unwrap();
    assert_eq!((exposure.services.len(), exposure.mode), (2, Mode::Monitor));

    assert_eq!(config("[dmz]\nquic = \"pass\"").dmz.quic, Quic::Pass);

    let text = "[[dmz.rate]]\nname = \"r\"\nper = \"source\"\npackets = \"2000/s\"\nbytes = \"60KB/m\"\nburst = 2\nban = \"1m\"";
    let second = 1_000_000_000;
    let expected = Rate {
        name: "r".to_owned(),
        mode: Mode::Enforce,
        per: Per::Source { v4: 32, v6: 64 },
        services: vec![],
        packets: Limit::new(2000, second, 4000.0),
        bytes: Limit::new(60_000, 60 * second, 120_000.0),
        connections: None,
        ban: Some(Duration::from_secs(60)),
    };
    assert_eq!(config(text).dmz.rates, [expected]);

    let size =
        config("[dmz.size]\nmode = \"monitor\"\nmax_packet = 0x5dc\nrules = [{ port = \"esp\", max = \"1KB\" }]")
            .dmz
            .size;
    assert_eq!((size.mode, size.max_packet), (Mode::Monitor, Some(1500)));
    assert_eq!((size.rules[0].mode, size.rules[0].max), (Mode::Monitor, Some(1000)));
}

#[test]
fn no_more_than_the_kernel_has_room_for() {
    let rates: String =
        (0..33).map(|n| format!("[[dmz.rate]]\nname = \"r{n}\"\nper = \"service\"\npackets = \"1/s\"\n")).collect();
    assert_problems("33 rates", with_interface(&rates), &[(130, 1, "more than 32 rates", "")]);
    let rules: String = (1..=256).map(|n| format!("[[dmz.size.rules]]\nport = \"{n}/tcp\"\nmax = 100\n")).collect();
    assert_problems("256 rules", with_interface(&rules), &[(767, 1, "more than 255 size rules", "")]);
    let lists: String =
        (0..257).map(|n| format!("[[dmz.list]]\nname = \"{n}\"\naction = \"allow\"\nprefixes = []\n")).collect();
    assert_problems("257 lists", with_interface(&lists), &[(1026, 1, "more than 256 lists", "")]);
}
