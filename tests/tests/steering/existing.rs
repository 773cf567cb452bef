//! Connections from before the agent came.

use firewall_user::steering::existing::{Existing, reset};
use tests::netns::{HOST_V4, HOST_V6};

use crate::support::{Agent, Client, LOCAL, OPEN, Place, Server, wait};

#[test]
fn those_that_nobody_inspects_are_reset() {
    let place = Place::new();
    let (client, host) = (&place.world.client, &place.world.host);
    let _apps: Vec<Server> = ["0.0.0.0", HOST_V6].map(|address| Server::app(host, (address, 8081))).into();
    let _both = Server::app(host, ("::", 8080));
    let _other = Server::app(host, ("::", 8090));
    let connect = |from, address, port| Client::connect(from, (address, port)).unwrap();
    let mut before = Vec::new();
    for (address, port) in [(HOST_V4, 8080), (HOST_V6, 8080), (HOST_V4, 8081), (HOST_V6, 8081)] {
        before.push(connect(client, address, port));
    }
    let mut other = connect(client, HOST_V4, 8090);
    let mut local = [HOST_V4, HOST_V6, "127.0.0.1", "::1"].map(|address| connect(host, address, 8080));
    assert!(before.iter_mut().chain(&mut local).chain([&mut other]).all(Client::is_alive));

    let ports = [(8080, OPEN), (8081, OPEN)];
    let agent = Agent::start(place.open(), &ports);
    let mut ours = [HOST_V4, HOST_V6].map(|address| connect(client, address, 8080));
    // Handed over, but not accepted yet: these must not be taken for an application's.
    let waiting = place.open();
    let listener = waiting.listener().unwrap();
    waiting.set_listener(&listener).unwrap();
    let mut queued =
        [HOST_V4, HOST_V6].map(|address| client.enter(|| std::net::TcpStream::connect((address, 8080)).unwrap()));

    let netns = waiting.netns();
    assert_eq!(reset(netns, &ports).unwrap(), Existing { reset: 4, handshakes: 0 });
    assert!(!before.iter_mut().any(Client::is_alive));
    assert!(ours.iter_mut().chain(&mut local).chain([&mut other]).all(Client::is_alive));
    listener.set_nonblocking(false).unwrap();
    for stream in &mut queued {
        let (accepted, _peer) = listener.accept().unwrap();
        std::io::Write::write_all(&mut &accepted, b"x").unwrap();
        std::io::Read::read_exact(stream, &mut [0]).unwrap();
    }
    assert_eq!(reset(netns, &ports).unwrap(), Existing::default(), "nothing is left");
    assert!(ours.iter_mut().all(Client::is_alive));
    drop(agent);
}

/// Where local clients are steered, theirs are reset as well, but not the agent's own connections to the application.
#[test]
fn local_ones_are_reset_where_these_are_steered() {
    let place = Place::new();
    let host = &place.world.host;
    let _app = Server::app(host, ("::", 8080));
    let mut before =
        [HOST_V4, HOST_V6, "127.0.0.1", "::1"].map(|address| Client::connect(host, (address, 8080)).unwrap());
    let agent = Agent::start(place.open(), &[(8080, LOCAL)]);
    let mut ours = Vec::new();
    for (address, local_clients) in [(HOST_V4, true), (HOST_V6, true), ("127.0.0.1", true)] {
        let destination = crate::support::ToAddress::to_address((address, 8080));
        let (stream, exemption) = agent.steering.upstream_socket(destination, local_clients).unwrap();
        let socket = socket2::Socket::from(stream);
        socket.connect_timeout(&destination.into(), crate::support::SECOND).unwrap();
        socket.set_nonblocking(false).unwrap();
        socket.set_read_timeout(Some(crate::support::SECOND)).unwrap();
        ours.push((std::net::TcpStream::from(socket), exemption));
    }
    assert_eq!(reset(agent.steering.netns(), &[(8080, LOCAL)]).unwrap().reset, 4);
    assert!(!before.iter_mut().any(Client::is_alive));
    for (stream, _exemption) in &ours {
        let mut line = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(stream), &mut line).unwrap();
        assert!(line.starts_with("app"), "{line}");
    }
}

#[test]
fn one_that_the_application_closed_is_no_concern() {
    let place = Place::new();
    let steering = place.open();
    for address in [HOST_V4, HOST_V6] {
        let listener = place.world.host.enter(|| std::net::TcpListener::bind((address, 8080)).unwrap());
        let client = place.world.client.enter(|| std::net::TcpStream::connect((address, 8080)).unwrap());
        drop(listener.accept().unwrap());
        assert_eq!(std::io::Read::read(&mut &client, &mut [0]).unwrap(), 0, "it is closed at the other end");
        // Its acknowledgement may be late.
        let table = if address == HOST_V4 { "tcp" } else { "tcp6" };
        let fin_wait_2 = || std::fs::read_to_string(format!("/proc/thread-self/net/{table}")).unwrap().contains(" 05 ");
        wait("it is in FIN_WAIT_2", crate::support::SECOND, || place.world.host.enter(fin_wait_2));
        assert_eq!(reset(steering.netns(), &[(8080, OPEN)]).unwrap(), Existing::default());
    }
}

#[test]
fn a_reset_reaches_both_ends() {
    let place = Place::new();
    let listener = place.world.host.enter(|| std::net::TcpListener::bind((HOST_V4, 8080)).unwrap());
    let client = place.world.client.enter(|| std::net::TcpStream::connect((HOST_V4, 8080)).unwrap());
    let (server, _peer) = listener.accept().unwrap();
    let steering = place.open();
    assert_eq!(reset(steering.netns(), &[(8080, OPEN)]).unwrap().reset, 1);
    for mut end in [&client, &server] {
        end.set_read_timeout(Some(crate::support::SECOND)).unwrap();
        let error = std::io::Read::read(&mut end, &mut [0]).unwrap_err();
        let kinds = [std::io::ErrorKind::ConnectionReset, std::io::ErrorKind::ConnectionAborted];
        assert!(kinds.contains(&error.kind()), "{error}");
    }
}
