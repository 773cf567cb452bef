//! What happens while there is no agent.

use std::time::Duration;

use firewall_user::steering::{self, SteerError, Steering};
use tests::netns::{HOST_V4, HOST_V6};

use crate::support::{Agent, CLOSED, OPEN, Place, SECOND, Server, path, refused, wait};

const PORTS: [(u16, steering::Flags); 2] = [(8080, OPEN), (8081, CLOSED)];

fn place() -> (Place, [Server; 2]) {
    let place = Place::new();
    let apps = [8080, 8081].map(|port| Server::app(&place.world.host, ("::", port)));
    (place, apps)
}

/// The open port is answered by the application, the closed one by nobody.
#[track_caller]
fn is_gone(place: &Place) {
    for address in [HOST_V4, HOST_V6] {
        assert_eq!(place.ask((address, 8080)).unwrap().name, "app");
        refused(place.ask((address, 8081)));
    }
}

#[track_caller]
fn is_in_force(place: &Place) {
    for (port, address) in [(8080, HOST_V4), (8080, HOST_V6), (8081, HOST_V4), (8081, HOST_V6)] {
        assert_eq!(place.ask((address, port)).unwrap().name, "agent");
    }
}

#[test]
fn a_dead_agent_is_gone_at_once() {
    let (place, _apps) = place();
    let agent = Agent::start(place.open(), &PORTS);
    is_in_force(&place);
    let watch = place.open();
    assert!(watch.predecessor_in_force());
    drop(agent);
    is_gone(&place);
    let counts = watch.counts().unwrap();
    assert_eq!((counts[&8080].gone_open, counts[&8080].gone_closed), (2, 0));
    assert_eq!((counts[&8081].gone_open, counts[&8081].gone_closed), (0, 2));
    assert_eq!((counts[&8080].redirect_failed, counts[&8081].redirect_failed), (0, 0));
    // Flags can be changed meanwhile.
    watch.set_ports(&[(8080, CLOSED), (8081, OPEN)]).unwrap();
    refused(place.ask((HOST_V4, 8080)));
    assert_eq!(place.ask((HOST_V4, 8081)).unwrap().name, "app");
    watch.set_ports(&PORTS).unwrap();
    // The next one finds everything as it was, and nobody in force.
    let next = place.open();
    assert!(!next.predecessor_in_force());
    is_gone(&place);
    let _next = Agent::start(next, &PORTS);
    is_in_force(&place);
}

/// A listener that takes IPv4 only is no agent for IPv6.
#[test]
fn what_the_kernel_does_not_hand_over_counts_as_gone() {
    let (place, _apps) = place();
    let steering = place.open();
    let listener = place.world.host.enter(|| std::net::TcpListener::bind("0.0.0.0:0").unwrap());
    steering.set_listener(&listener).unwrap();
    steering.set_ports(&PORTS).unwrap();
    assert_eq!(place.ask((HOST_V6, 8080)).unwrap().name, "app");
    refused(place.ask((HOST_V6, 8081)));
    let counts = steering.counts().unwrap();
    assert_eq!((counts[&8080].gone_open, counts[&8080].redirect_failed), (1, 1));
    assert_eq!((counts[&8081].gone_closed, counts[&8081].redirect_failed), (1, 1));
    assert!(place.world.client.enter(|| std::net::TcpStream::connect((HOST_V4, 8081)).is_ok()));
    assert!(listener.accept().is_ok());
    // What does not listen is no listener, and changes nothing.
    let socket = socket2::Socket::new(socket2::Domain::IPV6, socket2::Type::STREAM, None).unwrap();
    assert!(matches!(steering.set_listener(&socket.into()).unwrap_err(), SteerError::Listener(_)));
    let elsewhere = place.world.client.enter(|| std::net::TcpListener::bind("[::]:0").unwrap());
    assert!(matches!(steering.set_listener(&elsewhere).unwrap_err(), SteerError::Listener(_)));
    assert!(steering.in_force().unwrap());
}

#[test]
fn a_hung_agent_is_gone_after_two_seconds() {
    let (place, _apps) = place();
    let agent = Agent::start(place.open(), &PORTS);
    let (steering, listener) = agent.hang();
    assert!(steering.in_force().unwrap());
    let elapsed = wait("the application answers", 3 * SECOND, || !steering.in_force().unwrap());
    assert!(elapsed > Duration::from_millis(1500), "{elapsed:?}");
    is_gone(&place);
    assert!(!place.open().predecessor_in_force());
    // It wakes up, and goes on.
    steering.beat();
    assert!(steering.in_force().unwrap());
    assert!(place.world.client.enter(|| std::net::TcpStream::connect((HOST_V4, 8081)).is_ok()));
    drop(listener);
}

#[test]
fn an_agent_that_withdraws_serves_what_it_has() {
    let (place, _apps) = place();
    let steering = place.open();
    let listener = steering.listener().unwrap();
    steering.set_listener(&listener).unwrap();
    steering.set_ports(&PORTS).unwrap();
    let waiting = place.world.client.enter(|| std::net::TcpStream::connect((HOST_V4, 8081)).unwrap());
    steering.withdraw().unwrap();
    steering.withdraw().unwrap();
    assert!(!steering.in_force().unwrap());
    steering.beat();
    is_gone(&place);
    listener.set_nonblocking(false).unwrap();
    let (accepted, _peer) = listener.accept().unwrap();
    assert_eq!(accepted.peer_addr().unwrap().port(), waiting.local_addr().unwrap().port());
    assert!(!place.open().predecessor_in_force());
}

#[test]
fn detaching_ends_it_all() {
    let (place, _apps) = place();
    let agent = Agent::start(place.open(), &PORTS);
    let (steering, listener) = agent.hang();
    let other = place.open();
    drop(steering);
    other.detach().unwrap();
    for port in [8080, 8081] {
        assert_eq!(place.ask((HOST_V4, port)).unwrap().name, "app");
    }
    assert_eq!(std::fs::read_dir(&place.pins).unwrap().count(), 0);
    drop(listener);
    // Once more, and by what `portcullis detach` does.
    let _agent = Agent::start(place.open(), &PORTS);
    is_in_force(&place);
    assert_eq!(steering::remove_all(&place.pins).unwrap(), 1);
    assert_eq!(place.ask((HOST_V4, 8081)).unwrap().name, "app");
    assert_eq!(steering::remove_all(&place.pins).unwrap(), 0);
}

#[test]
fn the_command_ends_it_too() {
    let place = Place::new();
    let _app = Server::app(&place.world.host, ("::", 8081));
    let agent = tests::agent::Agent::start(&place.world, "interfaces = [\"eth0\"]").unwrap();
    let pins = std::path::Path::new("/sys/fs/bpf").join(&agent.instance);
    // Without a path, it is the namespace of the thread.
    let steering = place.world.host.enter(|| Steering::open(&pins, None).unwrap());
    assert!(steering.netns().is_at(&path(&place.world.host)));
    let listening = Agent::start(steering, &[(8081, CLOSED)]);
    assert_eq!(place.ask((HOST_V4, 8081)).unwrap().name, "agent");
    // Neither layer is in the other's way.
    agent.reload().unwrap();
    assert_eq!(place.ask((HOST_V4, 8081)).unwrap().name, "agent");
    drop(listening);
    refused(place.ask((HOST_V4, 8081)));
    let said = agent.run(&["detach"]).unwrap();
    assert!(said.contains("NOT STEERING") && said.contains("NOT FILTERING"), "{said}");
    assert_eq!(place.ask((HOST_V4, 8081)).unwrap().name, "app");
    assert!(!pins.exists());
}

#[test]
fn what_is_not_ours_is_not_taken_over() {
    let (place, _apps) = place();
    let agent = Agent::start(place.open(), &PORTS);
    let pins = place.pins.join(format!("steer-{}", agent.steering.netns().inode()));
    let open = || Steering::open(&place.pins, Some(&path(&place.world.host)));
    // Another version.
    let data = aya::maps::MapData::from_pin(pins.join("CONTROL")).unwrap();
    let mut control = aya::maps::Array::<_, firewall_common::steer::SteerControl>::try_from(
        aya::maps::Map::from_map_data(data).unwrap(),
    )
    .unwrap();
    let ours = control.get(&0, 0).unwrap();
    control.set(0, firewall_common::steer::SteerControl { abi: 99, ..ours }, 0).unwrap();
    let error = open().unwrap_err();
    assert!(matches!(error, SteerError::Abi { found: 99 }), "{error}");
    // The one that is there goes on.
    control.set(0, firewall_common::steer::SteerControl { abi: ours.abi, ..control.get(&0, 0).unwrap() }, 0).unwrap();
    is_in_force(&place);
    // Another map.
    std::fs::remove_file(pins.join("PORTS")).unwrap();
    control.pin(pins.join("PORTS")).unwrap();
    let error = open().unwrap_err();
    assert!(matches!(&error, SteerError::Foreign { path } if path.ends_with("PORTS")), "{error}");
    is_in_force(&place);
}

#[test]
fn what_is_left_of_a_namespace_that_is_gone_goes() {
    let place = Place::new();
    let gone = tests::netns::Namespace::create(&format!("{}-gone", tests::netns::unique_name())).unwrap();
    drop(place.open_in(&gone));
    drop(gone);
    let directories = || std::fs::read_dir(&place.pins).unwrap().count();
    assert_eq!(directories(), 1);
    // Its link lets go some moments after the namespace.
    wait("the pins are gone", 10 * SECOND, || {
        drop(place.open());
        directories() == 1
    });
}
