//! Ways of being attached: several interfaces at once, generic mode behind the stack's merging, frames of several buffers.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    thread,
    time::Duration,
};

use tests::{
    agent::Agent,
    frame::Frame,
    netns::{CLIENT_V4, HOST_V4, HOST_V6, INTERFACE, World},
    traffic::Wire,
};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn several_interfaces_share_one_policy() {
    let world = World::new().unwrap();
    world.add_link("eth1", 1500).unwrap();
    let policy = r#"
interfaces = ["eth0", "eth1"]
[[dmz.list]]
name = "bad"
action = "block"
file = "bad.txt"
[[dmz.rate]]
name = "slow"
per = "source"
ports = ["7000/udp"]
packets = "10/h"
"#;
    let agent = Agent::start_with(&world, policy, &[("bad.txt", "203.0.113.0/24\n2001:db8:bad::/48\n")]).unwrap();
    let wires = [("eth0", Wire::on(&world, "eth0").unwrap()), ("eth1", Wire::on(&world, "eth1").unwrap())];
    let status = agent.status().unwrap();
    assert!(status.interfaces.len() == 2 && status.interfaces.iter().all(|interface| interface.attached));
    let bad = Frame::v4("203.0.113.5", HOST_V4).udp(9, 9);
    let other = Frame::v4("198.51.100.5", HOST_V4).udp(9, 9);
    for (interface, wire) in &wires {
        // A source for each: the sampler merges what one does on two interfaces.
        for source in ["203.0.113.", "2001:db8:bad::"].map(|network| format!("{network}{}", &interface[3..])) {
            let host = if source.contains(':') { HOST_V6 } else { HOST_V4 };
            assert!(!wire.passes(&Frame::ip(&*source, host).udp(9, 9)).unwrap());
            let source = source.parse().unwrap();
            let event = agent.wait_event(|event| event.source == Some(source), SECOND * 2).unwrap();
            assert_eq!(event.interface.as_deref(), Some(*interface));
        }
        assert!(wire.passes(&other).unwrap());
    }
    assert_eq!(agent.counter("block-list").unwrap(), 4, "counters are those of all interfaces");
    // A source has one bucket, whichever way it comes.
    let slow: Vec<Vec<u8>> =
        (0..8).map(|port| Frame::v4(CLIENT_V4, HOST_V4).udp(20_000 + port, 7000).build()).collect();
    let passed = wires.each_ref().map(|(_, wire)| wire.passed(&slow).unwrap());
    assert_eq!(passed, [8, 2]);
    // A reload reaches both, and one that leaves an interface out lets go of it.
    let before = agent.status().unwrap();
    agent.write("bad.txt", "198.51.100.0/24\n").unwrap();
    agent.wait_reload(&before).unwrap();
    for (interface, wire) in &wires {
        assert!(wire.passes(&bad).unwrap() && !wire.passes(&other).unwrap(), "{interface}");
    }
    let before = agent.status().unwrap();
    agent.edit_config(&policy.replace(r#", "eth1""#, "")).unwrap();
    agent.wait_reload(&before).unwrap();
    assert!(!wires[0].1.passes(&other).unwrap() && wires[1].1.passes(&other).unwrap());
}

/// The host's end of a stream from the client, over a link that hands on super-packets, and what came of 256 KiB.
fn upload(world: &World, port: u16) -> usize {
    let listener = world.host.enter(|| TcpListener::bind((HOST_V4, port)).unwrap());
    let reader = thread::spawn(move || {
        let (mut stream, _peer) = listener.accept().unwrap();
        stream.set_read_timeout(Some(SECOND)).unwrap();
        let (mut total, mut buffer) = (0, [0; 1 << 16]);
        while let Ok(length @ 1..) = stream.read(&mut buffer) {
            total += length;
        }
        total
    });
    let server: SocketAddr = format!("{HOST_V4}:{port}").parse().unwrap();
    let mut stream: TcpStream = world.client.enter(|| TcpStream::connect_timeout(&server, SECOND * 2).unwrap());
    stream.set_write_timeout(Some(SECOND)).unwrap();
    // What a rate holds back never gets through: that the reader says.
    let _held_back = stream.write_all(&vec![7; 256 << 10]);
    let total = reader.join().unwrap();
    drop(stream);
    total
}

#[test]
fn generic_mode_counts_what_was_on_the_wire() {
    let world = World::new().unwrap();
    // Off in a world, for frames to be seen as they are. On, the client sends super-packets of up to 64 KiB.
    for side in [&world.host, &world.client] {
        side.run("ethtool", &["-K", INTERFACE, "tx", "on", "gso", "on", "tso", "on", "gro", "on"]).unwrap();
    }
    let policy = |rate: &str| {
        format!(
            "interfaces = [\"eth0\"]\nxdp_mode = \"generic\"\n[dmz.size]\nmax_packet = \"1500B\"\n\
             rules = [{{ port = \"6000/tcp\", max_payload = \"1460B\" }}]\n{rate}"
        )
    };
    let agent = Agent::start(&world, &policy("")).unwrap();
    let status = agent.status().unwrap();
    assert_eq!(status.interfaces[0].mode, "generic");
    let features = || world.host.run("ethtool", &["-k", INTERFACE]).unwrap();
    assert!(features().contains("generic-receive-offload: off"), "{}", features());
    // Sizes are those of segments: no super-packet is too large.
    assert_eq!(upload(&world, 6000), 256 << 10);
    let after = agent.status().unwrap();
    let per_packet = (after.packets.passed.bytes - status.packets.passed.bytes)
        / (after.packets.passed.packets - status.packets.passed.packets);
    assert!(per_packet > 1500, "no super-packets came: {per_packet} bytes a packet");
    for reason in ["packet-too-large", "payload-too-large"] {
        assert_eq!(agent.counter(reason).unwrap(), 0, "{reason}");
    }
    // So are rates: 60 tokens are 60 segments, far from the 180 of this upload; as super-packets it would fit.
    let before = agent.status().unwrap();
    let rate = "[[dmz.rate]]\nname = \"slow\"\nper = \"source\"\nports = [\"6001/tcp\"]\npackets = \"60/h\"\n";
    agent.edit_config(&policy(rate)).unwrap();
    agent.wait_reload(&before).unwrap();
    let came = upload(&world, 6001);
    assert!((10 * 1460..=60 * 1460).contains(&came), "{came} bytes");
    assert!(agent.counter("packet-rate").unwrap() > 0);
    // What was on before is on again.
    agent.detach().unwrap();
    assert!(features().contains("generic-receive-offload: on"), "{}", features());
}

#[test]
fn frames_of_several_buffers_are_judged_whole() {
    let world = World::with_mtu(9000).unwrap();
    let policy = "interfaces = [\"eth0\"]\nxdp_mode = \"native\"\n[dmz.size]\nmax_packet = \"8500B\"\n\
                  rules = [{ port = \"6000/udp\", max_payload = \"8000B\" }]\n";
    let agent = Agent::start(&world, policy).unwrap();
    let wire = Wire::open(&world).unwrap();
    let frames = |payload| {
        [(Frame::v4(CLIENT_V4, HOST_V4), 28), (Frame::v6("2001:db8::2", HOST_V6), 48)]
            .map(|(frame, headers)| (frame.udp(40_000, 6000).payload(payload), payload as u64 + headers))
    };
    for payload in [1000, 4000, 8000] {
        for (frame, length) in frames(payload) {
            assert!(wire.passes(&frame).unwrap(), "{length} bytes");
        }
    }
    for (payload, reason) in [(8001, "payload-too-large"), (8900, "packet-too-large")] {
        for (frame, length) in frames(payload) {
            let mark = agent.mark();
            assert!(!wire.passes(&frame).unwrap(), "{length} bytes");
            let event = agent.wait_event_since(mark, |event| event.reason == reason, SECOND * 2);
            assert_eq!(event.and_then(|event| event.length), Some(length));
        }
    }
    // A packet that claims more than its frame holds, in whichever buffer it ends.
    let claims_more = Frame::v4(CLIENT_V4, HOST_V4).udp(40_000, 7000).payload(6000).build();
    let cut = &claims_more[..claims_more.len() - 1];
    assert_eq!(wire.passed(std::slice::from_ref(&claims_more)).unwrap(), 1);
    assert_eq!(wire.passed(&[cut.to_vec()]).unwrap(), 0);
    assert_eq!(agent.counter("truncated").unwrap(), 1);
    world.client.run("ping", &["-c1", "-W2", "-s", "8000", HOST_V4]).unwrap();
    world.client.run("ping", &["-c1", "-W2", "-s", "8000", HOST_V6]).unwrap();
}
