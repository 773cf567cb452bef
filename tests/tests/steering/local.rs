//! Clients on the host itself.

use tests::netns::{HOST_V4, HOST_V6};

use crate::support::{Agent, LOCAL, OPEN, Place, Server, ToAddress as _, ask};

const ADDRESSES: [&str; 4] = [HOST_V4, HOST_V6, "127.0.0.1", "::1"];

#[test]
fn they_are_exempt() {
    let place = Place::new();
    let app = Server::app(&place.world.host, ("::", 8080));
    let agent = Agent::proxy(place.open(), &[(8080, OPEN)]);
    for address in ADDRESSES {
        let answer = ask(&place.world.host, (address, 8080)).unwrap();
        assert_eq!((&*answer.name, answer.local), ("app", (address, 8080).to_address()));
    }
    assert_eq!((app.accepted(), agent.server.accepted()), (4, 0));
    let counts = agent.counts(8080);
    assert_eq!((counts.exempt, counts.steered), (4, 0));
}

#[test]
fn they_are_steered_where_asked_for_and_the_agent_does_not_steer_itself() {
    let place = Place::new();
    let app = Server::app(&place.world.host, ("::", 8080));
    let agent = Agent::proxy(place.open(), &[(8080, LOCAL)]);
    for round in 1..=50 {
        for address in ADDRESSES {
            let answer = ask(&place.world.host, (address, 8080)).unwrap();
            assert_eq!((&*answer.name, answer.local), ("agent", (address, 8080).to_address()));
            let behind = answer.behind.expect("it asked the application");
            assert_eq!((&*behind.name, behind.peer.ip(), behind.local), ("app", answer.local.ip(), answer.local));
        }
        // Each went through the agent once.
        assert_eq!((app.accepted(), agent.server.accepted()), (4 * round, 4 * round));
    }
    let answer = place.ask((HOST_V4, 8080)).unwrap();
    assert_eq!((&*answer.name, &*answer.behind.unwrap().name), ("agent", "app"));
    let counts = agent.counts(8080);
    // Lookups, of which a connection may need several where the host is slow.
    assert!(counts.steered >= 201 && counts.exempt >= 201, "{counts:?}");
}

/// An exemption is for one connection, and ends with what holds it.
#[test]
fn an_exemption_is_for_one_connection() {
    let place = Place::new();
    let _app = Server::app(&place.world.host, ("::", 8080));
    let agent = Agent::start(place.open(), &[(8080, LOCAL)]);
    let connect = |from: std::net::TcpStream| {
        let socket = socket2::Socket::from(from);
        socket.connect_timeout(&(HOST_V4, 8080).to_address().into(), crate::support::SECOND).unwrap();
        socket.set_nonblocking(false).unwrap();
        let mut line = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(std::net::TcpStream::from(socket)), &mut line)
            .unwrap();
        line.split(' ').next().unwrap().to_owned()
    };
    let destination = (HOST_V4, 8080).to_address();
    let (stream, exemption) = agent.steering.upstream_socket(destination, true).unwrap();
    let port = stream.local_addr().unwrap().port();
    // The same source port towards another address means nothing.
    let other = place.world.host.enter(|| {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.set_reuse_address(true).unwrap();
        socket.bind(&("127.0.0.1", port).to_address().into()).unwrap();
        socket.connect(&("127.0.0.1", 8080).to_address().into()).unwrap();
        let mut line = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(std::net::TcpStream::from(socket)), &mut line)
            .unwrap();
        line
    });
    assert!(other.starts_with("agent"), "{other}");
    assert_eq!(connect(stream), "app");
    drop(exemption);
    let (stream, exemption) = agent.steering.upstream_socket(destination, true).unwrap();
    drop(exemption);
    assert_eq!(connect(stream), "agent");
}
