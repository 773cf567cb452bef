//! From one agent to the next, while clients come.

use std::sync::atomic::{AtomicBool, Ordering};

use tests::netns::{HOST_V4, HOST_V6};

use crate::support::{Agent, CLOSED, Client, Names, OPEN, Place, SECOND, Server, wait};

#[test]
fn a_successor_takes_over_and_the_old_one_drains() {
    let place = Place::new();
    let _app = Server::app(&place.world.host, ("::", 8080));
    let old = Agent::named("old", place.open(), &[(8080, CLOSED)]);
    let mut kept = Client::connect(&place.world.client, (HOST_V4, 8080)).unwrap();
    assert_eq!(kept.answer.name, "old");
    let next = place.open();
    assert!(next.predecessor_in_force());
    assert_eq!(place.ask((HOST_V4, 8080)).unwrap().name, "old", "until there is a listener");
    let next = Agent::named("next", next, &[(8080, CLOSED)]);
    for address in [HOST_V4, HOST_V6] {
        assert_eq!(place.ask((address, 8080)).unwrap().name, "next");
    }
    assert!(kept.is_alive(), "the old one drains");
    assert!(next.steering.in_force().unwrap() && !old.steering.in_force().unwrap());
    // Whatever the old one does is in nobody's way.
    old.steering.withdraw().unwrap();
    assert_eq!(place.ask((HOST_V4, 8080)).unwrap().name, "next");
    drop(old);
    assert_eq!(place.ask((HOST_V4, 8080)).unwrap().name, "next");
    assert!(kept.is_alive());
}

/// An old agent that lives on must not make a new one that hangs look alive.
#[test]
fn only_the_agent_in_force_beats() {
    let place = Place::new();
    let _app = Server::app(&place.world.host, ("::", 8080));
    let _old = Agent::named("old", place.open(), &[(8080, OPEN)]);
    let next = Agent::named("next", place.open(), &[(8080, OPEN)]);
    let (steering, listener) = next.hang();
    wait("the application answers", 3 * SECOND, || !steering.in_force().unwrap());
    assert_eq!(place.ask((HOST_V4, 8080)).unwrap().name, "app");
    drop(listener);
}

#[test]
fn no_connection_is_lost_on_the_way() {
    let place = Place::new();
    let app = Server::app(&place.world.host, ("::", 8080));
    let (done, names) = (AtomicBool::new(false), Names::default());
    let mut agent = Agent::start(place.open(), &[(8080, OPEN)]);
    let before = app.accepted();
    std::thread::scope(|scope| {
        for address in [HOST_V4, HOST_V6] {
            let (names, done, place) = (names.clone(), &done, &place);
            scope.spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    names.add(place.ask((address, 8080)).map_or_else(|error| error.to_string(), |answer| answer.name));
                }
            });
        }
        for _ in 0..10 {
            let next = Agent::start(place.open(), &[(8080, OPEN)]);
            // What waits to be accepted is the old one's: it closes once nothing does.
            drop(std::mem::replace(&mut agent, next));
        }
        done.store(true, Ordering::Relaxed);
    });
    let names = names.all();
    assert!(names.len() > 10 && names.iter().all(|name| name == "agent"), "{names:?}");
    assert_eq!(app.accepted(), before, "none went by the agent");
}
