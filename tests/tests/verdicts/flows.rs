//! Stage 7: replies. The egress program notes what leaves, the XDP program knows the answer by it.

use firewall_common::{flow::FlowKey, verdict::DropReason::NotExposed};
use firewall_user::agent::bans::now;
use tests::frame::{ACK, FIN, Frame, PSH, RST, SYN};

use crate::support::{Bench, FAMILIES, Family, V4, V6};

const SECOND: u64 = 1_000_000_000;

/// A packet from the host to the client.
fn leaving(family: Family) -> Frame {
    Frame::ip(family.host, family.client)
}

/// What leaves, and what answers it.
fn pairs(family: Family) -> Vec<(&'static str, Frame, Frame)> {
    let (out, back) = (leaving(family), family.frame());
    vec![
        ("a new connection", out.clone().tcp(50000, 443), back.clone().tcp(443, 50000).flags(SYN | ACK)),
        ("a connection", out.clone().tcp(50001, 443).flags(ACK), back.clone().tcp(443, 50001).flags(RST)),
        ("its end", out.clone().tcp(50002, 443).flags(FIN | ACK), back.clone().tcp(443, 50002).flags(PSH | ACK)),
        ("UDP", out.clone().udp(50000, 5300), back.clone().udp(5300, 50000)),
        ("a resolver", out.clone().udp(50000, 53), back.clone().udp(53, 50000)),
        ("tagged", out.clone().udp(50001, 5300).vlan(5), back.clone().udp(5300, 50001).vlan(5)),
        (
            "fragments",
            out.clone().udp(50002, 5300).payload(64).fragment(1, 0, true),
            back.clone().udp(5300, 50002).payload(64).fragment(9, 0, true),
        ),
        ("ping", out.clone().echo_request(7), back.clone().echo_reply(7)),
        ("ESP", out.clone().esp(1), back.clone().esp(2)),
        ("GRE", out.gre(), back.gre()),
    ]
}

#[test]
fn an_answer_passes_once_the_host_asked() {
    let mut bench = Bench::new("dmz.expose = [\"80/tcp\"]");
    for family in FAMILIES {
        for (what, asks, answers) in pairs(family) {
            let dropped = |name: String| name == format!("dropped {}", NotExposed.name());
            assert!(bench.run(&answers).1.into_iter().any(|(name, _)| dropped(name)), "{what} before");
            bench.loaded.leave(&asks.build()).expect("the kernel runs the program");
            bench.passes(what, &answers, &["reply"]);
        }
        let flows = bench.loaded.shared.flows().expect("the table can be read");
        assert_eq!(flows, pairs(family).len() * if family.header == V4.header { 1 } else { 2 });
        for stranger in [
            family.frame().tcp(444, 50000).flags(ACK),
            family.frame().tcp(443, 50009).flags(ACK),
            family.frame().tcp(5300, 50000).flags(ACK),
            // A new connection is no answer, whoever asked.
            family.frame().tcp(443, 50000).flags(SYN),
            family.frame().echo_reply(8),
            family.frame().echo_request(7),
            family.frame().protocol(132, [0; 12]),
        ] {
            let (_, counted, _) = bench.run(&stranger);
            assert!(counted.contains(&("dropped not-exposed".into(), 1)), "{counted:?}");
        }
    }
}

/// Or forged packets could make the host write entries.
#[test]
fn what_answers_the_outside_opens_no_flow() {
    let mut bench = Bench::new("dmz.expose = [\"80/tcp\", \"53/udp\", \"gre\"]");
    for family in FAMILIES {
        let out = leaving(family);
        for (what, frame) in [
            ("SYN-ACK", out.clone().tcp(22, 40000).flags(SYN | ACK)),
            ("RST", out.clone().tcp(22, 40000).flags(RST)),
            ("RST-ACK", out.clone().tcp(22, 40000).flags(RST | ACK)),
            ("of an exposed port", out.clone().tcp(80, 40000).flags(ACK)),
            ("of an exposed UDP port", out.clone().udp(53, 40000)),
            ("of an exposed protocol", out.clone().gre()),
            ("an echo reply", out.clone().echo_reply(7)),
            ("an ICMP error", out.clone().icmp(if family.header == 20 { 3 } else { 1 }, 0)),
            ("a later fragment", out.clone().protocol(17, [0; 16]).fragment(1, 9, false)),
            ("a packet that cannot be read", out.udp(50000, 5300).udp_length(7)),
        ] {
            bench.loaded.leave(&frame.build()).expect("the kernel runs the program");
            let flows: Vec<FlowKey> = bench.loaded.flows().expect("a table").keys().filter_map(Result::ok).collect();
            assert_eq!(flows, [], "{what}");
        }
    }
}

/// Where every port exists, only the reflection check asks.
#[test]
fn without_exposure_only_what_reflectors_are_asked_is_noted() {
    let mut bench = Bench::new("");
    for family in FAMILIES {
        let out = leaving(family);
        for frame in [out.clone().udp(50000, 5300), out.clone().tcp(50000, 53), out.clone().echo_request(7)] {
            bench.loaded.leave(&frame.build()).expect("the kernel runs the program");
        }
        assert_eq!(bench.loaded.flows().expect("a table").keys().count(), 0);
        bench.loaded.leave(&out.udp(50000, 53).build()).expect("the kernel runs the program");
        bench.passes("a resolver's answer", &family.frame().udp(53, 50000), &["reply"]);
        for key in bench.loaded.flows().expect("a table").keys().collect::<Result<Vec<_>, _>>().expect("its keys") {
            bench.loaded.flows().expect("a table").remove(&key).expect("it is there");
        }
    }
}

#[test]
fn flows_end() {
    let mut bench = Bench::new("dmz.expose = []");
    // Nothing is older than the machine's own start.
    while now() < 62 * SECOND {
        std::thread::sleep(std::time::Duration::from_secs(1));
    }
    for family in [V4, V6] {
        bench.loaded.leave(&leaving(family).echo_request(7).build()).expect("the kernel runs the program");
        let key = bench.loaded.flows().expect("a table").keys().next().expect("a flow").expect("its key");
        let left = |bench: &mut Bench, ago: u64| {
            bench.loaded.flows().expect("a table").insert(key, now() - ago, 0).expect("room");
        };
        left(&mut bench, 59 * SECOND);
        bench.passes("within its lifetime", &family.frame().echo_reply(7), &["reply"]);
        left(&mut bench, 61 * SECOND);
        let seen = family.seen(family.icmp, (0, 0), 40);
        bench.drops("after it", &family.frame().echo_reply(7), NotExposed, seen);
        bench.loaded.flows().expect("a table").remove(&key).expect("it is there");
    }
}
