//! Monitor mode: counted and reported, and passed. By rule, by stage and for the layer as a whole.

use firewall_common::verdict::DropReason::{
    BadLength, Ban, BlockList, ControlRate, NotExposed, PacketRate, PacketTooLarge, PayloadTooLarge, Reflection,
    TcpFlags, Truncated, VlanDepth,
};
use tests::frame::VLAN;

use crate::support::{Bench, FAMILIES, Seen, TCP, UDP, V4};

/// A stage that only monitors, beside one that enforces.
#[test]
fn of_a_stage() {
    let mut bench = Bench::new(
        "[dmz]\nexpose = [\"80/tcp\", \"53/udp\"]\nexpose_mode = \"monitor\"\n\
         size = { max_packet = \"500B\", rules = [{ port = \"53/udp\", max_payload = \"100B\" }] }",
    );
    for family in FAMILIES {
        let hidden = family.frame().tcp(40000, 81);
        bench.monitors("exposure", &hidden, &[(NotExposed, None)], &[], family.seen(TCP, (40000, 81), 20));
        let flags = hidden.flags(0);
        bench.drops("hygiene", &flags, TcpFlags, family.seen(TCP, (40000, 81), 20));
        let seen = family.seen(UDP, (40000, 53), 109);
        let large = family.frame().udp(40000, 53).payload(101);
        bench.drops_by("size", &large, (PayloadTooLarge, Some("size/53/udp")), &[], seen);
        // Exposure monitors, hygiene does not: what hides behind the first is caught by the second.
        let seen = family.seen(UDP, (19, 5000), 8);
        let (verdict, counted, told) = bench.run(&family.frame().udp(19, 5000));
        assert_eq!(verdict, tests::loaded::Verdict::Drop);
        let names: Vec<&str> = counted.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["dropped", "dropped reflection", "event-sent", "monitored", "monitored not-exposed"]);
        assert_eq!(
            told.iter().map(|told| (told.reason, told.seen)).collect::<Vec<_>>(),
            [(NotExposed, seen), (Reflection, seen)]
        );
    }
}

#[test]
fn of_hygiene_and_of_size() {
    let mut bench = Bench::new(
        "[dmz]\nhygiene = { mode = \"monitor\" }\n\
         size = { mode = \"monitor\", max_packet = \"500B\", rules = [\n\
         { port = \"53/udp\", max_payload = \"100B\" },\n\
         { port = \"54/udp\", max_payload = \"100B\", mode = \"enforce\" }] }",
    );
    for family in FAMILIES {
        let seen = family.seen(TCP, (40000, 80), 20);
        bench.monitors("flags", &family.frame().tcp(40000, 80).flags(0), &[(TcpFlags, None)], &[], seen);
        let seen = family.seen(UDP, (19, 5000), 8);
        bench.monitors("reflection", &family.frame().udp(19, 5000), &[(Reflection, None)], &[], seen);
        let large = family.frame().udp(40000, 53).payload(600);
        let whys = [(PacketTooLarge, None), (PayloadTooLarge, Some("size/53/udp"))];
        bench.monitors("both sizes", &large, &whys, &[], family.seen(UDP, (40000, 53), 608));
        let frame = family.frame().udp(40000, 53).udp_length(7);
        bench.drops("parsing", &frame, BadLength, family.seen(UDP, (40000, 53), 8));
    }
}

#[test]
fn of_a_rule() {
    let mut bench = Bench::new(
        "dmz.size.rules = [{ port = \"53/udp\", max = 100, mode = \"monitor\" }]\n\
         [[dmz.list]]\nname = \"bad\"\naction = \"block\"\nmode = \"monitor\"\nprefixes = [\"0.0.0.0/1\", \"128.0.0.0/1\", \"2000::/3\"]\n\
         [[dmz.rate]]\nname = \"it\"\nmode = \"monitor\"\nper = \"source\"\npackets = \"1/h\"\n",
    );
    for family in FAMILIES {
        let frame = family.frame().udp(40000, 53).payload(200);
        let seen = family.seen(UDP, (40000, 53), 208);
        let (list, size) = ((BlockList, Some("list/bad")), (PacketTooLarge, Some("size/53/udp")));
        bench.monitors("list and size", &frame, &[list, size], &[], seen);
        bench.monitors("and rate", &frame, &[list, size, (PacketRate, Some("rate/it"))], &[], seen);
    }
}

/// In monitor mode, the layer drops nothing at all.
#[test]
fn of_the_layer() {
    let mut bench = Bench::new(
        "[dmz]\nmode = \"monitor\"\nexpose = []\nsize.max_packet = \"500B\"\n\
         [[dmz.list]]\nname = \"bad\"\naction = \"block\"\nprefixes = [\"198.51.100.0/24\", \"2001:db8:1::/48\"]\n\
         [[dmz.rate]]\nname = \"it\"\nper = \"source\"\npackets = \"2/h\"\n",
    );
    for family in FAMILIES {
        let (list, rate) = ((BlockList, Some("list/bad")), (PacketRate, Some("rate/it")));
        let frame = family.frame().udp(40000, 53);
        let seen = family.seen(UDP, (40000, 53), 8);
        bench.monitors("list and exposure", &frame, &[list, (NotExposed, None)], &[], seen);
        bench.ban(family.client);
        let bad = family.frame().tcp(40000, 53).flags(0).payload(600);
        let seen = family.seen(TCP, (40000, 53), 620);
        let whys = [list, (Ban, None), (TcpFlags, None), (PacketTooLarge, None), (NotExposed, None)];
        bench.monitors("all but the rate", &bad, &whys, &[], seen);
        let whys = [&whys[..], &[rate]].concat();
        bench.monitors("everything", &bad, &whys, &[], seen);

        let length = 14 + family.header;
        let cut = family.frame().tcp(40000, 80).truncate(length as usize);
        let unread = Seen { length, ..family.seen(TCP, (0, 0), 0) };
        bench.monitors("parsing", &cut, &[(Truncated, None)], &[], unread);
    }
    let tags = (0..3).fold(V4.frame().tcp(1, 2), |frame, id| frame.tag(VLAN, id));
    bench.monitors("tags", &tags, &[(VlanDepth, None)], &[], Seen::nothing(14 + 12 + 40));
}

#[test]
fn control_traffic_over_its_limit() {
    let mut bench = Bench::new("dmz.mode = \"monitor\"");
    let error = V4.frame().icmp(3, 1);
    bench.loaded.run(&error.build(), 5000).expect("the kernel runs the program");
    let (counted, _) = bench.since();
    let count = |name: &str| counted.iter().find(|(counter, _)| counter == name).map_or(0, |(_, count)| *count);
    assert_eq!((count("passed"), count("control"), count("dropped")), (5000, 5000, 0));
    assert_eq!(count("monitored"), count(&format!("monitored {}", ControlRate.name())));
    assert!((1..=4000).contains(&count("monitored")), "{counted:?}");
}
