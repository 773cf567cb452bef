//! The real program, loaded into the real kernel with a policy, and run on single packets through `BPF_PROG_TEST_RUN`:
//! no interface, no traffic.

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, bail};
use aya::maps::{HashMap, Map, MapData, PerCpuArray, PerCpuValues};
use firewall_common::{
    counter::{Counter, DROPPED, MONITORED, RULES, TABLE_LEN, Tally, derive},
    event::{Event, SAMPLE_BUDGET, SAMPLE_SLOTS, SampleBudget, SampleSlot},
    flow::FlowKey,
    policy::Policy,
    verdict::DropReason,
};
use firewall_user::{
    config::{self, Config, Overrides},
    dmz::{
        compile::{Compiled, compile},
        instance::Instance,
        shared::{self, Shared},
        slots::Slots,
        syscall::update_batch,
    },
    events::kernel::read,
};

use crate::netns::unique_name;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Pass,
    Drop,
    /// Any other XDP action: a defect.
    Other(u32),
}

/// A loaded policy with maps of its own.
pub struct Loaded {
    pub compiled: Compiled,
    pub config: Config,
    pub instance: Instance,
    pub shared: Shared,
    directory: PathBuf,
    ring: aya::maps::RingBuf<MapData>,
}

impl Loaded {
    /// Loads the policy of a configuration, given without its `interfaces`.
    pub fn new(policy: &str) -> Result<Self> {
        Self::of(config(policy)?)
    }

    pub fn of(config: Config) -> Result<Self> {
        let directory = PathBuf::from("/sys/fs/bpf").join(unique_name());
        let tables = config.dmz.tables;
        shared::adopt(&directory, &tables).context("bpffs: are you root, and is it mounted?")?;
        let mut compiled = compile(&config, &Slots::default())?;
        compiled.policy.generation = 1;
        compiled.policy.mtu = 1500;
        let loaded = Instance::load(&compiled, &directory, &tables, None);
        let parts = loaded.map_err(anyhow::Error::from).and_then(|instance| {
            let mut shared = Shared::open(&directory, 0x5eed)?;
            shared.set_slots(&Slots::default(), &compiled.slots)?;
            let ring = shared.events()?;
            Ok((instance, shared, ring))
        });
        let (instance, shared, ring) = parts.inspect_err(|_| {
            let _gone = std::fs::remove_dir_all(&directory);
        })?;
        Ok(Self { compiled, config, instance, shared, directory, ring })
    }

    /// Loads the program anew, with other switches.
    pub fn switch(&mut self, policy: Policy) -> Result<()> {
        self.compiled.policy = policy;
        self.instance = Instance::load(&self.compiled, &self.directory, &self.config.dmz.tables, None)?;
        Ok(())
    }

    /// Judges one packet.
    pub fn judge(&mut self, frame: &[u8]) -> Result<Verdict> {
        let run = self.run(frame, 1)?;
        Ok(match run.action {
            1 => Verdict::Drop,
            2 => Verdict::Pass,
            other => Verdict::Other(other),
        })
    }

    /// Judges the same packet `repeat` times.
    pub fn run(&mut self, frame: &[u8], repeat: u32) -> Result<Run> {
        let program = self.instance.xdp().fd()?.try_clone()?;
        Ok(test_run(program.as_fd(), frame, repeat)?)
    }

    /// Lets a frame leave: runs the egress program on it.
    pub fn leave(&mut self, frame: &[u8]) -> Result<()> {
        let program = self.instance.egress().fd()?.try_clone()?;
        test_run(program.as_fd(), frame, 1)?;
        Ok(())
    }

    /// The table of flows, with the time at which the last packet of each left.
    pub fn flows(&mut self) -> Result<HashMap<&mut MapData, FlowKey, u64>> {
        Ok(self.instance.ebpf().map_mut("FLOWS").context("no table of flows")?.try_into()?)
    }

    /// A descriptor of the program, for other threads.
    pub fn program(&mut self) -> Result<OwnedFd> {
        Ok(self.instance.xdp().fd()?.as_fd().try_clone_to_owned()?)
    }

    /// The counters that [`Counters`] has names for.
    pub fn counters(&self) -> Result<Counters> {
        let slots = self.compiled.slots.iter().map(|(_, slot)| u32::from(slot) + 1).max().unwrap_or(0);
        let table = Map::from_map_data(MapData::from_pin(self.directory.join("COUNTERS"))?)?;
        let table = PerCpuArray::<_, Counter>::try_from(table)?;
        let mut sums = Box::new([Counter::default(); TABLE_LEN as usize]);
        for (index, sum) in (0..RULES + slots).zip(sums.iter_mut()) {
            for value in table.get(&index, 0)?.iter() {
                sum.packets += value.packets;
                sum.bytes += value.bytes;
            }
        }
        derive(&mut sums);
        Ok(Counters(sums.to_vec()))
    }

    /// The events since the last call.
    pub fn events(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        while let Some(item) = self.ring.next() {
            events.extend(read(&item));
        }
        events
    }

    /// Makes the sampler forget what it reported: the next verdict's event is sent, whatever was before it.
    pub fn forget_events(&mut self) -> Result<()> {
        let keys: Vec<u32> = (0..SAMPLE_SLOTS).collect();
        let ebpf = self.instance.ebpf();
        let Some(Map::Array(samples)) = ebpf.map("SAMPLES") else { bail!("no table of samples") };
        update_batch(samples.fd().as_fd(), &keys, &vec![SampleSlot::default(); keys.len()])?;
        let budgets = ebpf.map_mut("SAMPLE_BUDGETS").context("no table of budgets")?;
        let mut budgets = PerCpuArray::<_, SampleBudget>::try_from(budgets)?;
        let cpus = aya::util::nr_cpus().map_err(|(_, source)| source)?;
        budgets.set(0, PerCpuValues::try_from(vec![SampleBudget::default(); cpus])?, 0)?;
        Ok(())
    }

    /// Leaves no event in the budget of any CPU until its window ends.
    pub fn spend_budget(&mut self) -> Result<()> {
        let budgets = self.instance.ebpf().map_mut("SAMPLE_BUDGETS").context("no table of budgets")?;
        let mut budgets = PerCpuArray::<_, SampleBudget>::try_from(budgets)?;
        let spent = |budget: &SampleBudget| SampleBudget { sent: SAMPLE_BUDGET, ..*budget };
        let values: Vec<SampleBudget> = budgets.get(&0, 0)?.iter().map(spent).collect();
        budgets.set(0, PerCpuValues::try_from(values)?, 0)?;
        Ok(())
    }

    /// Slot of a rule, as `list/NAME`, `rate/NAME` or `size/SERVICES`.
    pub fn slot(&self, name: &str) -> Result<u16> {
        self.compiled.slots.get(name).with_context(|| format!("no rule {name}"))
    }
}

impl Drop for Loaded {
    fn drop(&mut self) {
        let _gone = std::fs::remove_dir_all(&self.directory);
    }
}

/// Reads a configuration, given without its `interfaces`.
pub fn config(policy: &str) -> Result<Config> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("portcullis.toml");
    std::fs::write(&file, format!("interfaces = [\"eth0\"]\n{policy}"))?;
    config::load(&file, &Overrides::default()).map_err(|errors| anyhow!("{errors}"))
}

/// Every counter at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counters(Vec<Counter>);

impl Counters {
    fn at(&self, index: u32) -> u64 {
        self.0[index as usize].packets
    }

    pub fn tally(&self, tally: Tally) -> u64 {
        self.at(tally as u32)
    }

    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.at(DROPPED + reason as u32)
    }

    pub fn monitored(&self, reason: DropReason) -> u64 {
        self.at(MONITORED + reason as u32)
    }

    pub fn rule(&self, slot: u16) -> u64 {
        self.at(RULES + u32::from(slot))
    }

    /// What was counted since `before`: names of counters and packets, those that did not change left out.
    pub fn since(&self, before: &Self, loaded: &Loaded) -> Vec<(String, u64)> {
        let tallies = Tally::ALL.iter().map(|tally| (tally.name().to_owned(), *tally as u32));
        let reasons = DropReason::ALL.iter().flat_map(|reason| {
            [
                (format!("dropped {}", reason.name()), DROPPED + *reason as u32),
                (format!("monitored {}", reason.name()), MONITORED + *reason as u32),
            ]
        });
        let rules = loaded.compiled.slots.iter().map(|(name, slot)| (name.to_owned(), RULES + u32::from(slot)));
        let counted =
            tallies.chain(reasons).chain(rules).map(|(name, index)| (name, self.at(index) - before.at(index)));
        counted.filter(|(_, packets)| *packets != 0).collect()
    }
}

/// Result of a test run.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    /// XDP action.
    pub action: u32,
    /// Mean time of one packet.
    pub each: Duration,
}

/// A program that somebody else loaded.
pub fn program_by_id(id: u32) -> Result<OwnedFd> {
    let info = aya::programs::loaded_programs().filter_map(Result::ok).find(|info| info.id() == id);
    Ok(info.context("the program is gone")?.fd()?.as_fd().try_clone_to_owned()?)
}

const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_PROG_TEST_RUN: libc::c_long = 10;
const BPF_PROG_TYPE_XDP: u32 = 6;

/// `struct` of `BPF_PROG_TEST_RUN` in `union bpf_attr`.
#[repr(C)]
#[derive(Default)]
struct TestRun {
    program: u32,
    retval: u32,
    data_size_in: u32,
    data_size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    ctx_size_in: u32,
    ctx_size_out: u32,
    ctx_in: u64,
    ctx_out: u64,
    flags: u32,
    cpu: u32,
    batch_size: u32,
    padding: u32,
}

/// Runs any XDP program on a packet.
pub fn test_run(program: BorrowedFd<'_>, frame: &[u8], repeat: u32) -> io::Result<Run> {
    let mut attributes = TestRun {
        program: program.as_raw_fd().cast_unsigned(),
        data_size_in: u32::try_from(frame.len()).map_err(io::Error::other)?,
        data_in: frame.as_ptr().addr() as u64,
        repeat,
        ..TestRun::default()
    };
    // SAFETY: the kernel reads the frame, and writes nothing but the attributes.
    let result = unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_TEST_RUN, &raw mut attributes, size_of::<TestRun>()) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(Run { action: attributes.retval, each: Duration::from_nanos(u64::from(attributes.duration)) })
}

/// The floor of every measurement: an XDP program that drops and does nothing else.
pub fn empty_program() -> io::Result<OwnedFd> {
    /// The start of `struct` of `BPF_PROG_LOAD` in `union bpf_attr`.
    #[repr(C)]
    struct Load {
        kind: u32,
        instructions: u32,
        code: u64,
        license: u64,
        log_level: u32,
        log_size: u32,
        log: u64,
        kernel_version: u32,
        flags: u32,
    }
    // r0 = XDP_DROP; exit
    let code: [u64; 2] = [0x0000_0001_0000_00b7, 0x0000_0000_0000_0095];
    let mut attributes = Load {
        kind: BPF_PROG_TYPE_XDP,
        instructions: 2,
        code: code.as_ptr().addr() as u64,
        license: c"GPL".as_ptr().addr() as u64,
        log_level: 0,
        log_size: 0,
        log: 0,
        kernel_version: 0,
        flags: 0,
    };
    // SAFETY: the kernel reads the code and the license, which outlive the call.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_LOAD, &raw mut attributes, size_of::<Load>()) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just opened it for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}
