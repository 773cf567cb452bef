//! Would this policy drop the session of whoever is about to start it?

use firewall_common::address::Addr;
use firewall_common::{
    counter::NO_RULE,
    hygiene,
    packet::{Headers, protocol},
    policy::stage,
    port::{Service, flag},
};

use crate::{
    config::{Config, Mode},
    dmz::{
        compile::{Compiled, compile},
        prefixes::Entry,
        slots::Slots,
    },
    host::session::Session,
};

/// Why the policy would drop the session's next packet, in words; `None` if it would not. Bans are not part of a policy; see
/// the agent's own table of them.
pub(super) fn would_drop(config: &Config, session: &Session) -> Option<String> {
    let compiled = compile(config, &Slots::default()).ok()?;
    if config.dmz.mode == Mode::Monitor || session.is_local() {
        return None;
    }
    let who = format!("your session from {} to port {}", session.client, session.server_port);
    let source = Addr::from(session.client);
    let entries = if source.is_v4() { &compiled.lists_v4 } else { &compiled.lists_v6 };
    let says = longest(entries, source);
    let allowed = says.is_some_and(|says| says.allow != NO_RULE);
    if let Some(says) = says
        && says.block != NO_RULE
    {
        let list = compiled.slots.name_of(says.block).unwrap_or("list/?");
        let list = list.split_once('/').map_or(list, |(_, name)| name);
        return Some(format!("{who} would be dropped: {} is on the block list `{list}`", session.client));
    }
    if let Err(reason) = hygiene_verdict(&compiled, session, source) {
        return Some(format!("{who} would be dropped by hygiene: {reason}"));
    }
    let exposed = compiled.ports.get(Service::Tcp(session.server_port).index() as usize)?.flags & flag::EXPOSED != 0;
    let enforced = compiled.policy.stages & stage::EXPOSURE != 0 && compiled.policy.monitor & stage::EXPOSURE == 0;
    if enforced && !exposed && !allowed {
        return Some(format!(
            "{who} is not exposed: it lasts while it is open, but you could not come back. Add \"{}/tcp\" to `expose`, or \
             {} to an allow list",
            session.server_port, session.client
        ));
    }
    None
}

fn hygiene_verdict(compiled: &Compiled, session: &Session, source: Addr) -> Result<(), &'static str> {
    if compiled.policy.stages & stage::HYGIENE == 0 || compiled.policy.monitor & stage::HYGIENE != 0 {
        return Ok(());
    }
    let headers = Headers {
        source,
        v4: source.is_v4(),
        protocol: protocol::TCP,
        tcp_flags: hygiene::flag::ACK,
        source_port: session.client_port,
        destination_port: session.server_port,
        ..Headers::EMPTY
    };
    hygiene::judge(&headers, compiled.policy.hygiene).map_err(firewall_common::verdict::DropReason::name)
}

fn longest(entries: &[Entry], source: Addr) -> Option<firewall_common::prefix::ListEntry> {
    entries
        .iter()
        .filter(|(address, length, _)| source.masked(*length) == *address)
        .max_by_key(|(_, length, _)| *length)
        .map(|(_, _, says)| *says)
}
