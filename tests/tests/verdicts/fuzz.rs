//! Mutated and random frames: the program gives one of two verdicts, counts every packet once, and reads what the same
//! parser reads on the host.

use firewall_common::{
    hygiene::control,
    packet::{Headers, Network, parse},
    policy::{Policy, stage},
    verdict::DropReason,
};
use tests::{
    frame::{Extension, Frame, QINQ},
    loaded::Verdict,
};

use crate::support::{Bench, FAMILIES, Plain, V4, V6};

const FRAMES: usize = 20_000;

/// Xorshift64* (Vigna 2016).
struct Random(u64);

impl Random {
    /// The seed is in the environment, or always the same; it is printed where a test fails.
    fn new() -> Self {
        let given = std::env::var("FUZZ_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = given.unwrap_or(0x9e37_79b9_7f4a_7c15);
        println!("FUZZ_SEED={seed}");
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() >> 33) as usize % bound
    }
}

fn seeds() -> Vec<Vec<u8>> {
    let target = V6.host.parse().expect("an address");
    let mut seeds = vec![
        V4.frame().options([1; 20]).tcp(40000, 80).build(),
        V4.frame().tag(QINQ, 1).vlan(2).udp(40000, 53).payload(30).build(),
        V6.frame().extension(Extension::HopByHop).extension(Extension::Routing).tcp(40000, 80).build(),
        V6.frame().extension(Extension::Authentication).extension(Extension::Destination).udp(53, 80).build(),
        V6.frame().neighbour_solicitation(target).build(),
        V4.frame().vlan(1).vlan(2).vlan(3).tcp(40000, 80).build(),
        (0..7).fold(V6.frame(), |frame, _| frame.extension(Extension::HopByHop)).tcp(40000, 80).build(),
        V6.frame().mld_report(target).build(),
        Frame::arp_request("192.0.2.2".parse().expect("an address"), "192.0.2.1".parse().expect("an address")).build(),
    ];
    for family in FAMILIES {
        seeds.push(family.frame().tcp(40000, 80).tcp_options([1; 12]).payload(40).build());
        seeds.push(family.frame().udp(40000, 5000).payload(40).build());
        seeds.push(family.frame().echo_request(1).build());
        seeds.push(family.frame().dhcp_answer().build());
        seeds.push(family.frame().udp(40000, 53).payload(40).fragment(1, 0, true).build());
        seeds.push(family.frame().protocol(17, [0; 40]).fragment(1, 3, true).build());
        seeds.push(family.frame().gre().build());
    }
    seeds
}

/// A frame, mutated in a few places, most of them headers; now and then noise.
fn frame(random: &mut Random, seeds: &[Vec<u8>]) -> Vec<u8> {
    if random.below(20) == 0 {
        let length = 14 + random.below(200);
        return (0..length).map(|_| random.next() as u8).collect();
    }
    let mut bytes = seeds[random.below(seeds.len())].clone();
    for _ in 0..random.below(5) {
        let place = 12 + random.below((bytes.len() - 12).min(90));
        match random.below(5) {
            0 => bytes[place] ^= 1 << random.below(8),
            1 => bytes[place] = random.next() as u8,
            2 => bytes[place] = [0, 6, 17, 43, 44, 51, 58, 60, 0x81, 0x86, 0xff][random.below(11)],
            3 => bytes.truncate(place.max(14)),
            _ => bytes.extend((0..random.below(40)).map(|byte| byte as u8)),
        }
    }
    bytes
}

#[test]
fn every_frame_gets_one_of_two_verdicts_and_is_counted_once() {
    let mut random = Random::new();
    let seeds = seeds();
    let mut bench = Bench::new(
        "[dmz]\nexpose = [\"80/tcp\", \"53/udp\", \"icmp-echo\"]\n\
         hygiene = { private_sources = true, link_local_sources = true }\n\
         size = { min_packet = 28, max_packet = 200, rules = [{ port = \"53/udp\", max_payload = \"35B\" }] }\n\
         [[dmz.list]]\nname = \"bad\"\naction = \"block\"\nprefixes = [\"198.51.100.64/26\", \"2001:db8:1::/65\"]\n\
         [[dmz.list]]\nname = \"good\"\naction = \"allow\"\nprefixes = [\"198.51.0.0/18\", \"2001:db8:8000::/33\"]\n\
         [[dmz.rate]]\nname = \"it\"\nper = \"source\"\npackets = \"5000/h\"\n",
    );
    bench.ban("198.51.96.0/22");
    let (mut passed, mut dropped) = (0, 0);
    for number in 0..FRAMES {
        let frame = frame(&mut random, &seeds);
        match bench.loaded.judge(&frame).expect("the kernel runs the program") {
            Verdict::Pass => passed += 1,
            Verdict::Drop => dropped += 1,
            Verdict::Other(action) => panic!("frame {number}: action {action}: {frame:02x?}"),
        }
    }
    let (counted, _) = bench.since();
    let count = |name: &str| counted.iter().find(|(counter, _)| counter == name).map_or(0, |(_, count)| *count);
    assert_eq!((count("passed"), count("dropped")), (passed, dropped));
    let reasons: u64 = DropReason::ALL.iter().map(|reason| count(&format!("dropped {}", reason.name()))).sum();
    assert_eq!((reasons, passed + dropped), (dropped, FRAMES as u64));
    assert!(passed > 1000 && dropped > 1000, "{counted:?}");
}

/// With everything off but parsing, a frame is dropped exactly where the parser on the host refuses it.
#[test]
fn what_is_refused_is_what_the_parser_refuses_on_the_host() {
    let mut random = Random::new();
    let seeds = seeds();
    let mut bench = Bench::new(
        "[dmz.hygiene]\ntcp_flags = false\nport_zero = false\nland = false\nbogons = false\nown_source = false\n\
         reflection = false",
    );
    let (mut refused, mut other, mut over) = (vec![0u64; DropReason::ALL.len()], 0, 0);
    for number in 0..FRAMES {
        let frame = frame(&mut random, &seeds);
        let mut headers = Headers::EMPTY;
        let read = parse(&Plain(&frame), &mut headers);
        let verdict = bench.loaded.judge(&frame).expect("the kernel runs the program");
        match (read, verdict) {
            (Err(reason), Verdict::Drop) => refused[reason as usize] += 1,
            (Ok(Network::Other), Verdict::Pass) => other += 1,
            (Ok(Network::Ip), Verdict::Pass) => {}
            // Control traffic has a limit that no policy turns off.
            (Ok(Network::Ip), Verdict::Drop) if control(&headers).is_some() => over += 1,
            _ => panic!("frame {number}: {read:?}, but {verdict:?}: {frame:02x?}"),
        }
    }
    let (counted, _) = bench.since();
    let count = |name: &str| counted.iter().find(|(counter, _)| counter == name).map_or(0, |(_, count)| *count);
    for reason in DropReason::ALL {
        let expected = if *reason == DropReason::ControlRate { over } else { refused[*reason as usize] };
        assert_eq!(count(&format!("dropped {}", reason.name())), expected, "{reason:?}");
    }
    assert_eq!(count("non-ip"), other);
    assert!(refused.iter().filter(|count| **count > 0).count() == 5, "every reason of the parser: {counted:?}");
}

/// Events show what the parser reads on the host.
#[test]
fn what_is_read_is_what_the_parser_reads_on_the_host() {
    let mut random = Random::new();
    let seeds = seeds();
    let mut bench = Bench::new("dmz.expose = []");
    for number in 0..1500 {
        let frame = frame(&mut random, &seeds);
        let mut headers = Headers::EMPTY;
        let _verdict = parse(&Plain(&frame), &mut headers);
        bench.loaded.forget_events().expect("the sampler can be reset");
        bench.loaded.judge(&frame).expect("the kernel runs the program");
        for event in bench.loaded.events() {
            let told = (event.source, event.destination, event.length, event.source_port, event.destination_port);
            let more = (event.protocol, event.tcp_flags, event.icmp_type, event.icmp_code);
            let read =
                (headers.source, headers.destination, headers.length, headers.source_port, headers.destination_port);
            let also = (headers.protocol, headers.tcp_flags, headers.icmp_type, headers.icmp_code);
            assert_eq!((told, more), (read, also), "frame {number}: {frame:02x?}");
        }
    }
}

/// The verifier knows a policy's switches, so it sees another program for each: it must take them all.
#[test]
fn every_policy_loads() {
    let mut bench = Bench::new("");
    let mut random = Random::new();
    let policy = bench.loaded.compiled.policy;
    for number in 0..60 {
        let bits = match number {
            0 => 0,
            1 => u64::MAX,
            _ => random.next(),
        };
        let [stages, hygiene, monitor] = [0, 16, 32].map(|shift| (bits >> shift) as u32 & 0xffff);
        let policy = Policy { stages: stages & !stage::TRACE, hygiene, monitor, ..policy };
        bench.loaded.switch(policy).unwrap_or_else(|error| panic!("{policy:?}: {error:#}"));
    }
}

/// What is shorter than an Ethernet header the kernel does not even hand to a test run.
#[test]
fn less_than_a_header_is_truncated() {
    let frame = V4.frame().tcp(40000, 80).build();
    for length in 0..14 {
        let mut headers = Headers::EMPTY;
        let read = parse(&Plain(&frame[..length]), &mut headers);
        assert_eq!(read, Err(DropReason::Truncated), "{length} bytes");
    }
}
