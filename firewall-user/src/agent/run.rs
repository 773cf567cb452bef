//! `portcullis run`: starts, waits for whatever happens, stops.

use std::{
    future::Future,
    io::IsTerminal as _,
    net::{Shutdown, TcpListener},
    os::unix::net::UnixListener,
    process::ExitCode,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use nix::unistd::Gid;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    task::spawn_blocking,
};

use super::{
    bans,
    core::Core,
    drain::Drain,
    error::CoreError,
    files::{Files, LOOK_EVERY},
    lockout, preflight,
    service::Service,
    takeover::{Lease, Successor, hand_over},
};
use crate::{
    cli::RunArgs,
    config::{self, OnAgentExit},
    control::{self, api::Agent as _},
    events::Recorder,
    host::{session, watch::Changes},
    memory, metrics,
    paths::Paths,
};

/// How often bans are swept, and saved even if nothing was heard of a change, memory is given back, and the host is looked at
/// anew.
const SWEEP: Duration = Duration::from_secs(10);
/// How often certificates are looked at, whose time may have come.
const CERTIFICATES: Duration = Duration::from_secs(3600);
/// Interfaces and addresses change in bursts.
const SETTLE: Duration = Duration::from_millis(200);

pub fn run(paths: &Paths, args: RunArgs) -> Result<ExitCode> {
    raise_descriptors();
    let filter = if args.trace { "info,portcullis_ebpf=debug" } else { "info" };
    let filter = tracing_subscriber::EnvFilter::try_from_env("PORTCULLIS_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(filter));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        // Told on standard error, too: where that is gone, with the terminal we were started in, it would be a panic.
        .log_internal_errors(false)
        .init();

    let (path, overrides) = (args.source.config(), args.source.overrides());
    let config = match config::load(&path, &overrides) {
        Ok(config) => config,
        Err(errors) => {
            eprint!("{errors}");
            return Ok(ExitCode::from(2));
        }
    };
    preflight::check(&paths.pins())?;
    if let Some(session) = session::current()
        && let Some(danger) = lockout::would_drop(&config, &session)
    {
        tracing::warn!("{danger}");
        if args.confirm.is_none() {
            tracing::warn!("`--confirm 60s` would take the policy back unless you confirm it");
        }
    }
    let group = control_group(config.control_group.as_deref())?;
    let mut lease = if args.replace { Lease::ask(paths)? } else { None };
    let inherited = lease.as_mut().map(|lease| std::mem::take(&mut lease.listeners)).unwrap_or_default();
    // What may be in use by another is taken before anything changes in the kernel.
    let bound = match &lease {
        Some(_) => None,
        None => Some(Sockets::bind(paths, group)?),
    };
    let mut sockets_are_ours = bound.is_some();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let result = runtime.block_on(async {
        let scraped = match config.metrics {
            Some(address) => {
                let inherited = inherited.get(&address).map(TcpListener::try_clone);
                let bound = inherited.unwrap_or_else(|| metrics::bind(address));
                Some(bound.with_context(|| format!("metrics at {address}"))?)
            }
            None => None,
        };
        let core = Core::start(paths.clone(), path, overrides, config, args.trace, args.confirm, inherited);
        let service = Service::new(core?);
        let sockets = match (bound, lease) {
            (Some(sockets), _) => sockets,
            (None, lease) => {
                lease.as_ref().map_or(Ok(()), Lease::check)?;
                sockets_are_ours = true;
                let sockets = Sockets::replace(paths, group)?;
                if let Some(lease) = lease {
                    lease.take()?;
                    tracing::info!("took over from the agent before");
                }
                sockets
            }
        };
        serve(service, sockets, group, scraped).await
    });
    if sockets_are_ours && !matches!(result, Ok(End::Relieved)) {
        Sockets::remove(paths);
    }
    // Blocking tasks that still wait for something end with the process.
    runtime.shutdown_timeout(Duration::from_secs(1));
    match result {
        Ok(End::Relieved) => Ok(ExitCode::SUCCESS),
        Ok(End::Stopped(code)) => Ok(code),
        Err(error) => match error.downcast_ref::<CoreError>() {
            Some(CoreError::Config(errors)) => {
                eprint!("{errors}");
                Ok(ExitCode::from(2))
            }
            _ => Err(error),
        },
    }
}

/// A connection takes a descriptor, or two: as many as the system allows.
fn raise_descriptors() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _as_they_are = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

fn control_group(name: Option<&str>) -> Result<Option<Gid>> {
    let Some(name) = name else { return Ok(None) };
    let group = nix::unistd::Group::from_name(name).with_context(|| format!("group `{name}` of the control socket"))?;
    let group = group.with_context(|| format!("there is no group `{name}`, which [control] names"))?;
    Ok(Some(group.gid))
}

/// Where the agent is asked, and where the next one asks it to hand over.
struct Sockets {
    control: UnixListener,
    handover: UnixListener,
}

impl Sockets {
    fn bind(paths: &Paths, group: Option<Gid>) -> Result<Self, control::BindError> {
        Ok(Self {
            control: control::bind(&paths.socket(), group)?,
            handover: control::replace(&paths.handover(), None)?,
        })
    }

    /// In the place of those of an agent before.
    fn replace(paths: &Paths, group: Option<Gid>) -> Result<Self, control::BindError> {
        let handover = control::replace(&paths.handover(), None)?;
        Ok(Self { control: control::replace(&paths.socket(), group)?, handover })
    }

    fn remove(paths: &Paths) {
        for path in [paths.socket(), paths.handover()] {
            let _gone = std::fs::remove_file(path);
        }
    }
}

/// How the agent ends.
enum End {
    Stopped(ExitCode),
    /// Another agent has taken over: what is in place is its.
    Relieved,
}

/// What wakes the loop.
enum Wake {
    Stop,
    Successor(std::io::Result<Successor>),
    Reload,
    Look,
    HostChanged,
    Tick,
}

async fn serve(
    service: Arc<Service>,
    sockets: Sockets,
    group: Option<Gid>,
    scraped: Option<TcpListener>,
) -> Result<End> {
    let Sockets { control, handover } = sockets;
    let handover = tokio::net::UnixListener::from_std(handover)?;
    let lent = scraped.as_ref().map(TcpListener::try_clone).transpose()?;
    let paused = Arc::<Mutex<bool>>::default();
    let mut files = Files::default();
    let (drain, banned) = {
        let core = service.core();
        let banned: Arc<AtomicBool> = core.condemner.changed();
        files.watch(core.files(), core.read_at);
        let drain = Drain {
            ring: core.shared.events()?,
            names: Arc::clone(&core.names),
            recorder: Recorder::new(Arc::clone(&core.sinks)),
            banned: Arc::clone(&banned),
            paused: Arc::clone(&paused),
        };
        (drain, banned)
    };
    spawn("events", async move {
        drain.run().await;
        Ok(())
    });
    let agent: Arc<dyn control::api::Agent> = Arc::clone(&service) as _;
    let control_agent = Arc::clone(&agent);
    spawn("control socket", async move { control::server::serve(control, control_agent, group).await.map(drop) });
    let scraping =
        scraped.map(|listener| spawn("metrics", async move { metrics::serve(listener, agent).await.map(drop) }));

    let host = Changes::subscribe().context("changes of interfaces")?;
    let mut stop = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut hangup: Signal = signal(SignalKind::hangup())?;
    let mut tick = tokio::time::interval(Duration::from_millis(250));
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut look = tokio::time::interval(LOOK_EVERY);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut swept = Instant::now();
    announce(&service);
    probe(&service.core());
    let relieved = loop {
        let wake = tokio::select! {
            _ = stop.0.recv() => Wake::Stop,
            _ = stop.1.recv() => Wake::Stop,
            _ = hangup.recv() => Wake::Reload,
            successor = handover.accept() => {
                Wake::Successor(successor.and_then(|(stream, _)| Successor::meet(stream.into_std()?)))
            }
            _ = look.tick() => Wake::Look,
            result = host.next() => { result?; Wake::HostChanged }
            _ = tick.tick() => Wake::Tick,
        };
        match wake {
            Wake::Stop => break false,
            Wake::Successor(Err(error)) => tracing::warn!("an agent that was to take over: {error}"),
            Wake::Successor(Ok(successor)) => {
                let waiting = successor.handle()?;
                // Nothing else is done meanwhile, but to serve.
                let lent = lent.as_ref().map(TcpListener::try_clone).transpose()?;
                let (service, paused) = (Arc::clone(&service), Arc::clone(&paused));
                let mut lending = spawn_blocking(move || hand_over(&service, successor, lent, &paused));
                let relieved = tokio::select! {
                    relieved = &mut lending => Some(relieved?),
                    _ = stop.0.recv() => None,
                    _ = stop.1.recv() => None,
                };
                match relieved {
                    Some(true) => break true,
                    Some(false) => {}
                    None => {
                        let _over = waiting.shutdown(Shutdown::Both);
                        break lending.await?;
                    }
                }
            }
            Wake::Reload => files = reload(&service, files).await?,
            Wake::Look => {
                if files.changed() {
                    files = reload(&service, files).await?;
                }
            }
            Wake::HostChanged => {
                tokio::time::sleep(SETTLE).await;
                let service = Arc::clone(&service);
                spawn_blocking(move || look_around(&mut service.core())).await?;
            }
            Wake::Tick => {
                let changed = banned.swap(false, Ordering::Relaxed);
                let sweep = swept.elapsed() >= SWEEP;
                if sweep {
                    swept = Instant::now();
                }
                let keeper = Arc::clone(&service);
                if spawn_blocking(move || housekeeping(&keeper, changed, sweep)).await? {
                    tracing::error!("the policy was not confirmed in time: it was taken back");
                    return Ok(End::Stopped(ExitCode::FAILURE));
                }
            }
        }
    };
    if relieved && let Some(scraping) = scraping {
        // The next one answers.
        scraping.abort();
    }
    let drainage = {
        let mut core = service.core();
        core.gateway.withdraw();
        core.gateway.drainage()
    };
    tokio::select! {
        left = drainage.wait() => {
            if left > 0 {
                tracing::warn!("{left} connections did not end in time and are cut off");
            }
        }
        _ = stop.0.recv() => tracing::warn!("told to stop once more: connections are cut off"),
        _ = stop.1.recv() => tracing::warn!("told to stop once more: connections are cut off"),
    }
    let service = Arc::clone(&service);
    spawn_blocking(move || shut_down(&service, relieved)).await?;
    Ok(if relieved { End::Relieved } else { End::Stopped(ExitCode::SUCCESS) })
}

/// Runs a task that must not end.
fn spawn(
    what: &'static str,
    task: impl Future<Output = std::io::Result<()>> + Send + 'static,
) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move {
        match task.await {
            Ok(()) => tracing::error!("{what}: ended"),
            Err(error) => tracing::error!("{what}: {error}"),
        }
    })
}

fn announce(service: &Service) {
    let core = service.core();
    for interface in &core.config.interfaces {
        let mode = core.links.state(interface, 0).map_or("absent", |(mode, ..)| mode.name());
        tracing::info!("filtering on {interface} ({mode}), policy {}", core.compiled().policy.generation);
    }
    core.gateway.entries().iter().for_each(|line| tracing::info!("{line}"));
    if let Some((until, _)) = &core.confirm {
        let left = until.saturating_duration_since(Instant::now());
        tracing::warn!("`portcullis confirm` within {} s, or the policy is taken back", left.as_secs());
    }
    // Not started by systemd, there is nobody to notify.
    let _nobody = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
}

/// Reloads on behalf of the loop; the result is in the log and in `status`.
async fn reload(service: &Arc<Service>, mut files: Files) -> Result<Files> {
    let service = Arc::clone(service);
    let files = spawn_blocking(move || {
        if let Err(refusal) = service.reload() {
            tracing::error!("reload refused, the policy before stays in force:\n{}", refusal.message);
        }
        let core = service.core();
        files.watch(core.files(), core.read_at);
        drop(core);
        files
    });
    Ok(files.await?)
}

/// Looks again at what the host is: interfaces, addresses, gateways, resolvers.
fn look_around(core: &mut Core) {
    let result = core.refresh();
    core.warn("host", result.err().map(|error| error.to_string()));
}

/// Proves that steered ports lead to us. It waits for connections, so not with the core held.
fn probe(core: &Core) {
    let probes = core.gateway.probes();
    let _tried_again = std::thread::Builder::new().name("probes".to_owned()).spawn(move || probes.run());
}

/// `true` if the policy was taken back.
fn housekeeping(service: &Service, banned: bool, sweep: bool) -> bool {
    if sweep {
        // It takes a while, and others wait for the core.
        memory::give_back();
    }
    let mut core = service.core();
    core.flush_trace();
    if core.confirm.as_ref().is_some_and(|(until, _)| *until <= Instant::now()) {
        core.roll_back();
        return true;
    }
    // A container that is started anew is unprotected until this sees it.
    core.follow(sweep);
    if core.gateway.has_news() {
        core.warn_of_apis();
    }
    if sweep {
        probe(&core);
        // Nobody tells of other resolvers, nor of an interface that can be attached to only now.
        look_around(&mut core);
        if core.certificates_seen.elapsed() >= CERTIFICATES {
            core.warn_of_certificates();
        }
        core.condemner.sweep(bans::now());
        if let Err(error) = bans::sweep(&mut core.shared) {
            core.warn("bans", Some(format!("bans cannot be swept: {error}")));
        }
    }
    if banned || sweep || core.bans_dirty {
        core.bans_dirty = false;
        let (path, before) = (core.paths.bans(), core.bans_saved);
        let text = bans::to_save(&core.shared, &core.condemner);
        // The disk may be slow, and others wait for the core.
        drop(core);
        let saved = text.and_then(|text| bans::save(&text, &path, before));
        let mut core = service.core();
        core.bans_saved = saved.as_ref().ok().copied();
        core.warn("bans file", saved.err().map(|error| format!("{}: bans not saved: {error}", path.display())));
    }
    false
}

/// Of one that was `relieved`, nothing in the kernel and no file is its own any more.
fn shut_down(service: &Service, relieved: bool) {
    let mut core = service.core();
    let confirmed = core.confirm.is_none();
    if !confirmed {
        tracing::warn!("stopped before the policy was confirmed: it is taken back");
        core.roll_back();
    }
    core.gateway.stop();
    core.condemner.settle(Duration::from_secs(1));
    if !relieved {
        save_bans(&core);
    }
    // What was there before an unconfirmed policy is not for that policy to end.
    if !relieved && confirmed && core.config.on_agent_exit == OnAgentExit::Detach {
        core.links.detach_others(&[]);
        core.restore_offloads();
    }
    let counts = core.sinks.close();
    if counts.lost > 0 {
        tracing::warn!("{} events were not delivered", counts.lost);
    }
}

pub(super) fn save_bans(core: &Core) {
    let text = bans::to_save(&core.shared, &core.condemner);
    if let Err(error) = text.and_then(|text| bans::save(&text, &core.paths.bans(), core.bans_saved)) {
        tracing::error!("{}: bans not saved: {error}", core.paths.bans().display());
    }
}
