//! Network namespaces that come and go, as those of containers do.

use tests::{
    agent::Agent,
    http::{app::App, raw::Client},
    netns::{HOST_V4, Namespace, World, unique_name},
};

use super::support::{NO_BANS, PORT, at, steered, wait_until};

const INSIDE: &str = "198.18.0.2";

/// A container behind the host, with an application.
struct Container {
    app: Option<App>,
    namespace: Option<Namespace>,
    host: Namespace,
}

impl Container {
    fn start(world: &World, name: &str) -> Self {
        let inside = Namespace::create(name).unwrap();
        let host = world.host.clone();
        host.ip(&format!("link add veth0 type veth peer name eth0 netns {name}")).unwrap();
        host.ip("addr add 198.18.0.1/24 dev veth0").unwrap();
        host.ip("link set veth0 up").unwrap();
        inside.ip(&format!("addr add {INSIDE}/24 dev eth0")).unwrap();
        inside.ip("link set eth0 up").unwrap();
        inside.ip("route add default via 198.18.0.1").unwrap();
        let app = App::start(&inside, at("0.0.0.0", PORT)).unwrap();
        Self { app: Some(app), namespace: Some(inside), host }
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        self.app = None;
        self.namespace = None;
        self.host.ip("link del veth0").unwrap();
    }
}

/// Whether what is answered at this place came by the gateway; `None` without an answer.
fn is_inspected(world: &World, address: &str, port: u16) -> Option<bool> {
    let mut client = Client::open(&world.client, at(address, port)).ok()?;
    let response = client.get("/").ok().filter(|response| response.status == 200)?;
    Some(response.text().contains("forwarded"))
}

#[test]
fn a_container_that_starts_later_or_anew_is_steered() {
    let world = World::new().unwrap();
    let name = format!("{}-inside", unique_name());
    world.host.sysctl("ipv4/ip_forward", "1").unwrap();
    world.client.ip(&format!("route add 198.18.0.0/24 via {HOST_V4}")).unwrap();
    let _other = App::start(&world.host, at("::", 8081)).unwrap();
    let config = |more: &str| {
        format!(
            "interfaces = [\"eth0\"]\n[[api]]\nname = \"inside\"\nport = {PORT}\nnetns = \"{name}\"\n{more}[[api]]\nname = \
             \"here\"\nport = 8081\n{NO_BANS}"
        )
    };
    // Not there yet: the agent starts, serves the others, and says so.
    let agent = Agent::start(&world, &config("")).unwrap();
    let problem = || {
        let status = agent.status().unwrap();
        let api = status.apis.iter().find(|api| api.name == "inside").unwrap();
        let told = status.warnings.iter().any(|warning| warning.contains("API `inside` is not protected"));
        assert_eq!(told, !api.protected, "{status:#?}");
        assert!(status.apis.iter().any(|api| api.name == "here" && api.protected), "{status:#?}");
        api.problem.clone()
    };
    assert!(problem().unwrap().contains(&name));
    assert!(agent.stderr().contains("API `inside`: NOT steering"), "{}", agent.stderr());
    assert!(agent.stderr().contains("API `here`: steering 8081"), "{}", agent.stderr());
    assert_eq!((is_inspected(&world, HOST_V4, 8081), steered(&agent)), (Some(true), 1));
    for round in 0..3 {
        let container = Container::start(&world, &name);
        wait_until("steered", || is_inspected(&world, INSIDE, PORT) == Some(true));
        wait_until("protected", || problem().is_none());
        assert_eq!(steered(&agent), 2);
        // A reload keeps it.
        agent.edit_config(&config(&format!("methods = [\"GET\"]\nlimits.body = \"{}KB\"\n", round + 1))).unwrap();
        agent.reload().unwrap();
        assert_eq!((is_inspected(&world, INSIDE, PORT), is_inspected(&world, HOST_V4, 8081)), (Some(true), Some(true)));
        if round == 1 {
            // Started anew before anybody looks.
            let path = format!("/run/netns/{name}");
            drop(container);
            assert!(!std::path::Path::new(&path).exists());
            continue;
        }
        drop(container);
        wait_until("gone", || problem().is_some());
        wait_until("given up", || steered(&agent) == 1);
        // A reload is not refused for what is not there.
        agent.edit_config(&config(&format!("limits.body = \"{}KB\"\n", round + 10))).unwrap();
        agent.reload().unwrap();
        assert_eq!(agent.status().unwrap().reloads.last_error, None);
        assert_eq!(is_inspected(&world, HOST_V4, 8081), Some(true));
    }
}

#[test]
fn what_is_no_network_namespace_is_refused_with_the_name_of_its_api() {
    let world = World::new().unwrap();
    let config =
        format!("interfaces = [\"eth0\"]\n[[api]]\nname = \"inside\"\nport = 1\nnetns = \"/dev/null\"\n{NO_BANS}");
    let mut agent = Agent::prepare(&world, &config, &[]).unwrap();
    let error = agent.launch(&[]).unwrap_err().to_string();
    assert!(error.contains("API `inside`: network namespace /dev/null"), "{error}");
}

#[test]
fn what_an_agent_before_closed_elsewhere_is_open_once_nobody_names_it() {
    let world = World::new().unwrap();
    let app = App::start(&world.host, at("::", PORT)).unwrap();
    let closed =
        format!("interfaces = [\"eth0\"]\n[[api]]\nname = \"a\"\nport = {PORT}\non_agent_exit = \"closed\"\n{NO_BANS}");
    let mut agent = Agent::start(&world, &closed).unwrap();
    assert!(agent.terminate().unwrap().success());
    assert_eq!(is_inspected(&world, HOST_V4, PORT), None);
    agent.edit_config("interfaces = [\"eth0\"]\n").unwrap();
    agent.launch(&[]).unwrap();
    assert_eq!((is_inspected(&world, HOST_V4, PORT), app.bare(), steered(&agent)), (Some(false), 1, 0));
}
