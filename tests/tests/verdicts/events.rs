//! Events: sampled by source and reason, bounded by a budget, and counted where they are not sent.

use std::{
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use firewall_common::{event::SAMPLE_BUDGET, verdict::DropReason::TcpFlags};
use nix::sched::{CpuSet, sched_setaffinity};
use tests::frame::Frame;

use crate::support::{Bench, FAMILIES, TCP, V4};

/// A packet that is dropped for its flags.
fn bad(source: IpAddr) -> Vec<u8> {
    Frame::v4(source, "192.0.2.1").tcp(40000, 80).flags(0).build()
}

fn source(number: u32) -> IpAddr {
    Ipv4Addr::from(0x0100_0000 + number).into()
}

/// Budgets are those of a CPU.
fn stay_on_one_cpu() {
    let mut set = CpuSet::new();
    set.set(0).expect("there is a first CPU");
    sched_setaffinity(nix::unistd::Pid::from_raw(0), &set).expect("it may be used");
}

#[test]
fn of_equal_packets_one_is_sent_and_the_next_says_how_many_there_were() {
    let mut bench = Bench::new("");
    for family in FAMILIES {
        let frame = family.frame().tcp(40000, 80).flags(0).build();
        bench.loaded.forget_events().expect("the sampler can be reset");
        bench.loaded.run(&frame, 1000).expect("the kernel runs the program");
        let (counted, told) = bench.since();
        let expected = [("dropped", 1000), ("dropped tcp-flags", 1000), ("event-sampled", 999), ("event-sent", 1)];
        assert_eq!(counted, expected.map(|(name, count)| (name.to_owned(), count)));
        let seen = family.seen(TCP, (40000, 80), 20);
        assert_eq!(told.iter().map(|told| (told.reason, told.seen)).collect::<Vec<_>>(), [(TcpFlags, seen)]);
        // The window is 0.26 to 2.6 seconds long, by the kernel's clock.
        let mut packets = 999;
        let told = loop {
            assert!(packets < 1099, "no second event");
            std::thread::sleep(Duration::from_millis(100));
            bench.loaded.run(&frame, 1).expect("the kernel runs the program");
            packets += 1;
            let (_, told) = bench.since();
            if !told.is_empty() {
                break told;
            }
        };
        assert_eq!(told.iter().map(|told| told.seen.count).collect::<Vec<_>>(), [packets]);
    }
}

#[test]
fn sources_reasons_and_rules_are_told_apart() {
    let mut bench = Bench::new("[[dmz.list]]\nname = \"a\"\naction = \"block\"\nprefixes = [\"203.0.113.0/24\"]");
    let frames = [
        V4.frame().tcp(40000, 80).flags(0),
        V4.from("198.51.100.8").tcp(40000, 80).flags(0),
        V4.frame().tcp(0, 80),
        V4.from("203.0.113.1").tcp(40000, 80),
        V4.from("203.0.113.2").tcp(40000, 80),
    ];
    bench.loaded.forget_events().expect("the sampler can be reset");
    for frame in &frames {
        (0..3).for_each(|_| assert!(bench.loaded.judge(&frame.build()).is_ok()));
    }
    let (counted, told) = bench.since();
    assert_eq!(told.len(), 5, "{told:?}");
    assert!(
        counted.contains(&("event-sent".into(), 5)) && counted.contains(&("event-sampled".into(), 10)),
        "{counted:?}"
    );
}

#[test]
fn each_cpu_has_a_budget() {
    stay_on_one_cpu();
    let mut bench = Bench::new("");
    // Once more if the window ended meanwhile, as on a busy machine.
    for attempt in 0.. {
        bench.loaded.forget_events().expect("the sampler can be reset");
        for number in 0..3000 {
            bench.loaded.run(&bad(source(number)), 1).expect("the kernel runs the program");
        }
        let (counted, told) = bench.since();
        assert_eq!(counted.iter().find(|(name, _)| name == "dropped").expect("drops").1, 3000);
        let not_sent = counted.iter().find(|(name, _)| name == "event-sampled").expect("some are over the budget").1;
        assert_eq!(told.len() as u64 + not_sent, 3000);
        if told.len() as u64 == SAMPLE_BUDGET {
            break;
        }
        assert!(attempt < 10, "{} sent", told.len());
    }
}

/// Defect 6: lost events that nobody counts.
#[test]
fn defect_6_events_that_find_no_room_are_counted() {
    stay_on_one_cpu();
    let mut bench = Bench::new("");
    // A record takes 80 bytes of the ring's 1 MiB.
    let (packets, room) = (14_000u32, (1 << 20) / 80);
    for number in 0..packets {
        if number % 1000 == 0 {
            bench.loaded.forget_events().expect("the sampler can be reset");
        }
        bench.loaded.run(&bad(source(number)), 1).expect("the kernel runs the program");
    }
    let (counted, told) = bench.since();
    let count = |name: &str| counted.iter().find(|(counter, _)| counter == name).map_or(0, |(_, count)| *count);
    assert_eq!(count("dropped tcp-flags"), u64::from(packets));
    assert_eq!(count("event-sent"), told.len() as u64);
    assert_eq!(count("event-sent") + count("event-lost") + count("event-sampled"), u64::from(packets));
    assert!(told.len() <= room && count("event-lost") > 0, "{counted:?}");
    assert!(told.len() > room - room / 20, "{counted:?}");
    // Once somebody reads, there is room again.
    bench.drops("room again", &bad(V4.client.parse().expect("an address")), TcpFlags, V4.seen(TCP, (40000, 80), 20));
}

/// Longer than a window of the sampler by any kernel's tick.
const WINDOW: Duration = Duration::from_millis(2700);

/// What `count` of the next event of this source says.
fn next_count(bench: &mut Bench, frame: &[u8]) -> u32 {
    std::thread::sleep(WINDOW);
    bench.since();
    bench.loaded.run(frame, 1).expect("the kernel runs the program");
    let (_, told) = bench.since();
    told.last().expect("an event in a new window").seen.count
}

#[test]
fn a_packet_over_the_budget_is_in_the_count_of_the_next_event() {
    stay_on_one_cpu();
    let mut bench = Bench::new("");
    let frame = bad(source(1));
    bench.loaded.run(&frame, 3).expect("the kernel runs the program");
    std::thread::sleep(WINDOW);
    bench.loaded.run(&bad(source(2)), 1).expect("the kernel runs the program");
    bench.loaded.spend_budget().expect("the budget can be spent");
    bench.loaded.run(&frame, 1).expect("the kernel runs the program");
    assert_eq!(bench.since().1.len(), 2, "the budget is spent");
    assert_eq!(next_count(&mut bench, &frame), 4);
}

#[test]
fn what_a_lost_event_stood_for_is_in_the_count_of_the_next_one() {
    stay_on_one_cpu();
    let mut bench = Bench::new("");
    for number in 0..14_000 {
        if number % 1000 == 0 {
            bench.loaded.forget_events().expect("the sampler can be reset");
        }
        bench.loaded.run(&bad(source(number)), 1).expect("the kernel runs the program");
    }
    bench.loaded.forget_events().expect("the sampler can be reset");
    let frame = bad(source(20_000));
    bench.loaded.run(&frame, 3).expect("the kernel runs the program");
    assert_eq!(next_count(&mut bench, &frame), 4);
}
