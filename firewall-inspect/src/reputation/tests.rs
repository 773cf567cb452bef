use std::collections::HashMap;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::head::parse;

const SETTINGS: Settings = Settings {
    threshold: 100,
    half_life: Duration::from_secs(60),
    ban: Duration::from_secs(10),
    max_ban: Duration::from_secs(35),
};

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Refuses five times at 20 each.
fn offend(scores: &Scores, client: IpAddr, now: Duration) -> Option<Sentence> {
    for _ in 0..4 {
        assert_eq!(scores.refused(client, 20, now, &SETTINGS), None);
    }
    scores.refused(client, 20, now, &SETTINGS)
}

#[test]
fn five_attacks_ban_and_repetition_doubles() {
    let (scores, client) = (Scores::new(64), address("192.0.2.1"));
    let mut now = at(0);
    for (offences, seconds) in [(1, 10), (2, 20), (3, 35), (4, 35)] {
        let sentence = offend(&scores, client, now).unwrap();
        assert_eq!((sentence.offences, sentence.ban, sentence.score), (offences, Duration::from_secs(seconds), 100.0));
        // What was under way does not count.
        assert_eq!(scores.refused(client, 1000, now + sentence.ban - Duration::from_nanos(1), &SETTINGS), None);
        assert_eq!(scores.score(client, now, &SETTINGS), 0.0);
        now += sentence.ban;
    }
    // A day without a ban, and it starts anew.
    let sentence = offend(&scores, client, now + MEMORY).unwrap();
    assert_eq!((sentence.offences, sentence.ban), (1, SETTINGS.ban));
}

#[test]
fn the_day_counts_from_the_end_of_a_ban() {
    let (scores, client) = (Scores::new(64), address("192.0.2.1"));
    offend(&scores, client, at(0)).unwrap();
    let last = at(10) + MEMORY - Duration::from_nanos(1);
    assert_eq!(offend(&scores, client, last).unwrap().offences, 2);
}

#[test]
fn scores_decay_and_good_requests_help() {
    let (scores, client) = (Scores::new(64), address("192.0.2.1"));
    scores.good(client, at(0), &SETTINGS);
    assert_eq!(scores.score(client, at(0), &SETTINGS), 0.0);
    scores.refused(client, 80, at(0), &SETTINGS);
    assert_eq!(scores.score(client, at(60), &SETTINGS), 40.0);
    assert_eq!(scores.score(client, at(120), &SETTINGS), 20.0);
    scores.good(client, at(120), &SETTINGS);
    assert_eq!(scores.score(client, at(120), &SETTINGS), 19.0);
    for _ in 0..30 {
        scores.good(client, at(120), &SETTINGS);
    }
    assert_eq!(scores.score(client, at(120), &SETTINGS), 0.0);
    assert!(scores.set(key(client)).iter().all(Option::is_none));
    // Nothing is not an offence.
    assert_eq!(scores.refused(client, 0, at(120), &Settings { threshold: 0, ..SETTINGS }), None);
}

#[test]
fn good_requests_do_not_make_a_ban_forgotten() {
    let (scores, client) = (Scores::new(64), address("192.0.2.1"));
    offend(&scores, client, at(0)).unwrap();
    scores.good(client, at(20), &SETTINGS);
    assert_eq!(offend(&scores, client, at(20)).unwrap().offences, 2);
    scores.forgive("198.51.100.0/24".parse().unwrap());
    assert_eq!(offend(&scores, client, at(40)).unwrap().offences, 3);
    scores.forgive("192.0.2.0/24".parse().unwrap());
    assert_eq!(offend(&scores, client, at(80)).unwrap().offences, 1);
}

#[test]
fn clients_are_addresses() {
    let scores = Scores::new(64);
    let score = |client| scores.score(address(client), at(0), &SETTINGS);
    scores.refused(address("192.0.2.1"), 20, at(0), &SETTINGS);
    scores.refused(address("2001:db8:0:1::1"), 30, at(0), &SETTINGS);
    assert_eq!((score("::ffff:192.0.2.1"), score("192.0.2.2")), (20.0, 0.0));
    assert_eq!((score("2001:db8:0:1::1"), score("2001:db8:0:1::2")), (30.0, 0.0));
    assert_eq!(score("::"), 0.0);
}

#[test]
fn a_flood_of_addresses_does_not_evict_offenders() {
    let scores = Scores::new(WAYS);
    let flood = |from: u32, now| {
        for host in 0..1000 {
            scores.refused(IpAddr::V4((0x0A00_0000 + from + host).into()), 20, now, &SETTINGS);
        }
    };
    let (banned, offender) = (address("192.0.2.1"), address("192.0.2.2"));
    offend(&scores, banned, at(0)).unwrap();
    scores.refused(offender, 20, at(0), &SETTINGS);
    scores.refused(offender, 20, at(0), &SETTINGS);
    flood(0, at(0));
    assert_eq!(scores.score(offender, at(0), &SETTINGS), 40.0);
    // The ban is remembered, although its score is 0.
    assert_eq!(offend(&scores, banned, at(100)).unwrap().offences, 2);
    assert_eq!(scores.missed(), 0);

    // Where all are worse, a newcomer is missed, and counted.
    for host in 0..WAYS {
        scores.refused(IpAddr::V4((0x0B00_0000 + host as u32).into()), 90, at(100), &SETTINGS);
    }
    flood(10_000, at(100));
    assert!(scores.missed() >= 1000);
    // Time makes room.
    scores.refused(offender, 20, at(1000), &SETTINGS);
    assert_eq!(scores.score(offender, at(1000), &SETTINGS), 20.0);
}

#[test]
fn no_page_gets_its_visitors_banned() {
    let foreign = "Origin: https://evil.example\r\n";
    let rows: &[(Reason, Option<&str>, u32)] = &[
        // A page can cause it, and the head tells.
        (Reason::PathAboveRoot, Some(""), 20),
        (Reason::PathAboveRoot, None, 0),
        (Reason::PathAboveRoot, Some("Sec-Fetch-Site: none\r\n"), 20),
        (Reason::PathAboveRoot, Some("Sec-Fetch-Site: same-origin\r\n"), 20),
        (Reason::PathAboveRoot, Some("Sec-Fetch-Site: cross-site\r\n"), 0),
        (Reason::PathAboveRoot, Some("Sec-Fetch-Site: same-site\r\n"), 0),
        (Reason::PathAboveRoot, Some(foreign), 0),
        (Reason::PathAboveRoot, Some("Origin: null\r\n"), 0),
        (Reason::PathAboveRoot, Some("Origin: http://H:80\r\n"), 20),
        (Reason::PathAboveRoot, Some("Origin: http://h:81\r\n"), 0),
        (Reason::PathAboveRoot, Some("Origin: http://h.evil\r\n"), 0),
        (Reason::PathAboveRoot, Some("Referer: http://h/x?y\r\n"), 20),
        (Reason::PathAboveRoot, Some("Referer: http://evil/h/\r\n"), 0),
        (Reason::PathAboveRoot, Some("Referer: http://evil?://h/\r\n"), 0),
        (Reason::Upgrade, Some(foreign), 0),
        (Reason::BodyTooLarge, Some(""), 5),
        // None can.
        (Reason::LengthAndCoding, Some(foreign), 20),
        (Reason::BareLineFeed, Some("Sec-Fetch-Site: cross-site\r\n"), 20),
        (Reason::RequestLine, None, 20),
        // Nothing tells.
        (Reason::HostNotServed, Some(""), 0),
        (Reason::RequestLineTooLong, None, 0),
        (Reason::TlsHandshake, None, 0),
        // Nobody's fault.
        (Reason::UpstreamTimeout, Some(""), 0),
        (Reason::FramingMismatch, Some(""), 0),
    ];
    for (reason, fields, expected) in rows {
        let head =
            fields.map(|fields| parse(Bytes::from(format!("GET / HTTP/1.1\r\nHost: h\r\n{fields}\r\n"))).unwrap());
        assert_eq!(weight(*reason, head.as_ref()), *expected, "{} {fields:?}", reason.name());
    }
}

proptest! {
    /// The plain reference: a map that never forgets, for few enough addresses that the table need not either.
    #[test]
    fn agrees_with_a_plain_map(
        events in prop::collection::vec((0u32..8, 0u64..40, prop::option::of(prop::sample::select(vec![5u32, 20]))), 1..300),
    ) {
        #[derive(Default)]
        struct Plain { score: f64, time: Duration, offences: u32, banned: Duration }
        let (scores, mut plain, mut now) = (Scores::new(64), HashMap::<u32, Plain>::new(), at(0));
        for (host, seconds, weight) in events {
            now += Duration::from_secs(seconds);
            let client = IpAddr::V4((0xC000_0200 + host).into());
            let entry = plain.entry(host).or_default();
            entry.score *= 0.5f64.powf((now - entry.time).as_secs_f64() / 60.0);
            entry.time = now;
            let Some(weight) = weight else {
                scores.good(client, now, &SETTINGS);
                entry.score = (entry.score - 1.0).max(0.0);
                continue;
            };
            let found = scores.refused(client, weight, now, &SETTINGS);
            if now < entry.banned {
                prop_assert_eq!(found, None);
                continue;
            }
            entry.score += f64::from(weight);
            if (entry.score - 100.0).abs() < 0.001 {
                return Ok(());
            }
            prop_assert_eq!(found.is_some(), entry.score >= 100.0);
            if let Some(sentence) = found {
                entry.offences += 1;
                prop_assert_eq!(sentence.offences, entry.offences);
                prop_assert!((sentence.score - entry.score).abs() < 0.2);
                entry.score = 0.0;
                entry.banned = now + sentence.ban;
            }
        }
    }

    /// No number of refusals or good requests leaves a score that bans, or none at all.
    #[test]
    fn scores_stay_in_bounds(events in prop::collection::vec((0u32..40, 0u64..100, prop::option::of(1u32..200)), 1..200)) {
        let (scores, mut now) = (Scores::new(WAYS), at(0));
        for (host, seconds, weight) in events {
            now += Duration::from_secs(seconds);
            let client = IpAddr::V4(host.into());
            match weight {
                Some(weight) => drop(scores.refused(client, weight, now, &SETTINGS)),
                None => scores.good(client, now, &SETTINGS),
            }
            prop_assert!((0.0..100.0).contains(&scores.score(client, now, &SETTINGS)));
        }
    }
}
