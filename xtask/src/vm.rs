//! `cargo xtask vm`: the tests that need a kernel, on other kernels than the one we run on.
//!
//! In go Debian's kernels, out comes a table. Each kernel is booted by qemu in emulation, so no virtualisation is needed, with
//! an initramfs that holds its modules, the programs under test and the commands that they call, copied from this machine.
//! Nothing is installed for a kernel, and nothing of the machine is seen by it. What measures time is left out or given more.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail, ensure};

use crate::{
    process::{cargo, find, run, say, workspace},
    programs::Programs,
    setup,
    test::Total,
};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Boot only these, named by the start of their version
    #[arg(default_values_t = KERNELS.map(str::to_owned))]
    kernels: Vec<String>,
}

/// The oldest one that is supported, without links for tc, and a newer one of the two that Debian has for long.
const KERNELS: [&str; 2] = ["6.1", "6.12"];

/// What is run, with the seconds that emulation may take.
const PROGRAMS: [(&str, u32); 8] = [
    ("verdicts", 900),
    ("exposure", 300),
    ("attachment", 400),
    ("operation", 300),
    ("death", 400),
    ("reload", 400),
    ("steering", 400),
    ("demo", 600),
];

/// Commands that the programs under test, `/init` and the kernel call.
const COMMANDS: [&str; 14] = [
    "sh", "mount", "mkdir", "cut", "timeout", "uname", "modprobe", "ip", "tc", "ping", "curl", "nft", "ethtool",
    "python3",
];

/// Parts of a kernel's `lib/modules/VERSION/kernel` that the tests may need.
const MODULES: [&str; 6] = ["net", "lib", "crypto", "drivers/net/veth", "drivers/net/tun", "drivers/net/dummy"];

/// The first process. Each `== ` line is for us; the rest of what it prints goes to a log.
const INIT: &str = r#"#!/bin/sh
export PATH=/usr/sbin:/usr/bin HOME=/root PORTCULLIS_BIN=/programs/portcullis PORTCULLIS_EMULATED=1
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t bpf bpf /sys/fs/bpf
mount -t devtmpfs dev /dev
mount -t tmpfs tmp /tmp
mount -t tmpfs run /run
mkdir -p /run/netns /dev/shm
modprobe -a tun 8021q
ip link set lo up
echo "== kernel $(uname -r)"
while read -r program seconds; do
    echo "== begin $program"
    [ "$program" = demo ] && set -- --quiet || set --
    timeout "$seconds" "/programs/$program" "$@" </dev/null 2>&1
    echo "== end $program $?"
done </programs/list
echo o >/proc/sysrq-trigger
read -r forever
"#;

pub(crate) fn vm(args: &Args) -> Result<()> {
    ensure!(cfg!(target_arch = "x86_64"), "only x86-64 is known here");
    setup::vm()?;
    let programs = programs()?;
    let mut failed = 0;
    let mut table = Vec::new();
    for kernel in &args.kernels {
        let kernel = Kernel::find(kernel)?;
        say(format_args!("building the initramfs of {}", kernel.version));
        let initramfs = initramfs(&kernel, &programs)?;
        for (program, outcome) in boot(&kernel, &initramfs)? {
            failed += u32::from(outcome.is_err());
            let (Ok(words) | Err(words)) = outcome;
            table.push(format!("{:30} {program:10} {words}", kernel.version));
        }
    }
    println!("{}", table.join("\n"));
    ensure!(failed == 0, "{failed} of {} runs failed", table.len());
    Ok(())
}

/// Where kernels, initramfs and logs are.
fn directory() -> Result<PathBuf> {
    Ok(Programs::target()?.join("vm"))
}

/// An unpacked kernel package.
struct Kernel {
    directory: PathBuf,
    version: String,
}

impl Kernel {
    /// The newest of Debian's whose version begins with `wanted`, or one that somebody put at `target/vm/WANTED`.
    fn find(wanted: &str) -> Result<Self> {
        let by_hand = directory()?.join(wanted);
        let directory = if by_hand.exists() {
            by_hand
        } else {
            let package = newest_package(wanted).with_context(|| {
                format!(
                    "the package lists hold no kernel {wanted}: unpack one, so that boot/ and lib/modules/ are in {}",
                    by_hand.display()
                )
            })?;
            fetched(&package)?
        };
        let modules = only_entry(&directory.join("lib/modules"))?;
        let version = modules.file_name().context("a version")?.display().to_string();
        Ok(Self { directory, version })
    }

    fn image(&self) -> PathBuf {
        self.directory.join("boot").join(format!("vmlinuz-{}", self.version))
    }
}

fn newest_package(wanted: &str) -> Option<String> {
    let pattern = format!("^linux-image-{}[.].*-cloud-amd64$", wanted.replace('.', "[.]"));
    let output = Command::new("apt-cache").args(["search", "--names-only", &pattern]).output().ok()?;
    let numbers = |name: &str| -> Vec<u64> {
        name.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse().ok()).collect()
    };
    let names = String::from_utf8_lossy(&output.stdout);
    names.lines().filter_map(|line| line.split(' ').next()).max_by_key(|name| numbers(name)).map(str::to_owned)
}

/// The package, downloaded and unpacked, which needs no root.
fn fetched(package: &str) -> Result<PathBuf> {
    let unpacked = directory()?.join(package);
    if !unpacked.exists() {
        say(format_args!("fetching {package}"));
        let partial = fresh(&directory()?.join("partial"))?;
        run(Command::new("apt-get").args(["download", package]).current_dir(&partial))?;
        let archive = only_entry(&partial)?;
        run(Command::new("dpkg-deb").arg("--extract").arg(archive).arg(partial.join("root")))?;
        fs::rename(partial.join("root"), &unpacked)?;
    }
    Ok(unpacked)
}

/// Builds what is run: name and path of each, the agent included.
fn programs() -> Result<Vec<(String, PathBuf)>> {
    let built = Programs::build()?;
    let mut programs = vec![("portcullis".to_owned(), built.agent()?)];
    let mut command = cargo();
    command.args(["test", "--release", "--package=firewall-user", "--package=tests", "--no-run", "--test=*"]);
    let output = command.stderr(Stdio::piped()).spawn()?.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "the tests could not be built:\n{said}");
    for (name, _) in PROGRAMS {
        // `Executable tests/death.rs (target/release/deps/death-0123456789abcdef)`
        let start = format!("/deps/{name}-");
        let path = said
            .lines()
            .filter_map(|line| line.split_once('(')?.1.strip_suffix(')'))
            .find(|path| path.contains(&start));
        // cargo names them as seen from where it ran.
        let path = path.map_or_else(|| built.get(name), |path| Ok(workspace().join(path)))?;
        programs.push((name.to_owned(), path));
    }
    Ok(programs)
}

fn initramfs(kernel: &Kernel, programs: &[(String, PathBuf)]) -> Result<PathBuf> {
    let root = fresh(&directory()?.join("root"))?;
    for path in [
        "usr/bin",
        "usr/sbin",
        "usr/lib",
        "usr/lib64",
        "etc",
        "root",
        "programs",
        "proc",
        "sys",
        "dev",
        "tmp",
        "run",
        "var/lib",
    ] {
        fs::create_dir_all(root.join(path))?;
    }
    for path in ["bin", "sbin", "lib", "lib64"] {
        symlink(format!("usr/{path}"), root.join(path))?;
    }
    for command in COMMANDS {
        // Debian's, for somebody's own may only be a script that calls another one.
        let path = ["/usr/bin", "/usr/sbin", "/bin", "/sbin"].map(|path| Path::new(path).join(command));
        let path = path.into_iter().find(|path| path.exists()).or_else(|| find(command));
        let path = path.with_context(|| format!("the command {command} is missing"))?;
        put(&root, &path, &Path::new("/usr/bin").join(command))?;
    }
    // Where the kernel looks for it.
    symlink("../bin/modprobe", root.join("usr/sbin/modprobe"))?;
    put_python(&root)?;
    for (name, path) in programs {
        put(&root, path, &Path::new("/programs").join(name))?;
    }
    put_modules(&root, kernel)?;
    let list: String = PROGRAMS.iter().map(|(name, seconds)| format!("{name} {seconds}\n")).collect();
    fs::write(root.join("programs/list"), list)?;
    fs::write(root.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n")?;
    fs::write(root.join("etc/group"), "root:x:0:\ndaemon:x:1:\nnogroup:x:65534:\n")?;
    fs::write(root.join("init"), INIT)?;
    fs::set_permissions(root.join("init"), fs::Permissions::from_mode(0o755))?;
    let archive = directory()?.join("initramfs");
    let mut pack = Command::new("sh");
    pack.args(["-c", "find . | cpio --quiet -o -H newc -R 0:0 >\"$0\""]).arg(&archive).current_dir(&root);
    run(&mut pack)?;
    Ok(archive)
}

/// Copies a program or library to `place`, and what it is linked with to where it is here.
fn put(root: &Path, from: &Path, place: &Path) -> Result<()> {
    copy(from, &root.join(place.strip_prefix("/")?))?;
    // It fails for what is linked with nothing.
    let output = Command::new("ldd").arg(from).output().context("ldd")?;
    for library in String::from_utf8_lossy(&output.stdout).split_whitespace().filter(|word| word.starts_with('/')) {
        let place = root.join(library.trim_start_matches('/'));
        if !place.exists() {
            copy(Path::new(library), &place)?;
        }
    }
    Ok(())
}

fn put_python(root: &Path) -> Result<()> {
    let ask = "import sysconfig; print(sysconfig.get_path('stdlib'))";
    let output = Command::new("/usr/bin/python3").args(["-c", ask]).output().context("python3")?;
    let library = PathBuf::from(String::from_utf8(output.stdout)?.trim());
    copy_tree(&library, &root.join(library.strip_prefix("/")?), &["__pycache__", "test", "dist-packages"])?;
    for module in fs::read_dir(library.join("lib-dynload"))? {
        let module = module?.path();
        put(root, &module, &module)?;
    }
    Ok(())
}

fn put_modules(root: &Path, kernel: &Kernel) -> Result<()> {
    let modules = Path::new("lib/modules").join(&kernel.version);
    let (from, to) = (kernel.directory.join(&modules), root.join("usr").join(&modules));
    for part in MODULES {
        let source = from.join("kernel").join(part);
        if source.is_dir() {
            copy_tree(&source, &to.join("kernel").join(part), &[])?;
        }
        for extension in ["ko", "ko.xz"] {
            let name = format!("kernel/{part}.{extension}");
            if from.join(&name).exists() {
                copy(&from.join(&name), &to.join(&name))?;
            }
        }
    }
    for list in ["modules.order", "modules.builtin", "modules.builtin.modinfo"] {
        copy(&from.join(list), &to.join(list))?;
    }
    let depmod = find("depmod").context("the command depmod is missing")?;
    run(Command::new(depmod).arg("-b").arg(root).arg(&kernel.version))
}

/// Runs the kernel to its end. What each program came to: good or bad, in words.
fn boot(kernel: &Kernel, initramfs: &Path) -> Result<Vec<(&'static str, Result<String, String>)>> {
    let log = directory()?.join(format!("{}.log", kernel.version));
    say(format_args!("booting {}; all that it says is in {}", kernel.version, log.display()));
    let mut command = Command::new("qemu-system-x86_64");
    command.args([
        "-accel",
        "tcg",
        "-cpu",
        "max",
        "-smp",
        "2",
        "-m",
        "2048",
        "-nographic",
        "-no-reboot",
        "-nic",
        "none",
    ]);
    command.arg("-kernel").arg(kernel.image()).arg("-initrd").arg(initramfs);
    command.args(["-append", "console=ttyS0 quiet panic=-1"]);
    let mut machine = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("qemu")?;
    let output = machine.stdout.take().context("qemu has no output")?;
    let mut log = fs::File::create(log)?;
    let mut sums = [const { None }; PROGRAMS.len()];
    let mut total = Total::default();
    let mut demo = String::new();
    for line in BufReader::new(output).split(b'\n') {
        let line = line?;
        log.write_all(&[&line[..], b"\n"].concat())?;
        let line = String::from_utf8_lossy(&line);
        let line = line.trim_end();
        total.add(line);
        if line.contains(" as expected, in ") {
            line.clone_into(&mut demo);
        }
        let Some(words) = line.strip_prefix("== ") else { continue };
        say(format_args!("{}: {words}", kernel.version));
        if let Some((name, code)) = words.strip_prefix("end ").and_then(|words| words.split_once(' '))
            && let Some(index) = PROGRAMS.iter().position(|(program, _)| *program == name)
        {
            let sum = std::mem::take(&mut total).to_string();
            sums[index] = Some((code.to_owned(), if name == "demo" { demo.clone() } else { sum }));
        }
    }
    let status = machine.wait()?;
    if !status.success() {
        bail!("qemu failed: {status}");
    }
    let outcomes = PROGRAMS.iter().zip(sums).map(|((program, _), outcome)| {
        let outcome = match outcome {
            None => Err("did not end".to_owned()),
            Some((code, _)) if code == "124" => Err("took too long".to_owned()),
            Some((code, sum)) if code != "0" => Err(format!("FAILED with exit code {code}: {sum}")),
            Some((_, sum)) => Ok(format!("ok: {sum}")),
        };
        (*program, outcome)
    });
    Ok(outcomes.collect())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to.parent().context("a file in a directory")?)?;
    fs::copy(from, to).with_context(|| format!("copying {}", from.display()))?;
    Ok(())
}

fn copy_tree(from: &Path, to: &Path, without: &[&str]) -> Result<()> {
    for entry in fs::read_dir(from).with_context(|| from.display().to_string())? {
        let path = entry?.path();
        let name = path.file_name().context("a name")?;
        if without.iter().any(|without| name == *without) {
            continue;
        }
        if path.is_dir() {
            copy_tree(&path, &to.join(name), without)?;
        } else if path.exists() {
            copy(&path, &to.join(name))?;
        }
    }
    Ok(())
}

/// The path as an empty directory.
fn fresh(path: &Path) -> Result<PathBuf> {
    if path.exists() {
        fs::remove_dir_all(path).with_context(|| path.display().to_string())?;
    }
    fs::create_dir_all(path)?;
    Ok(path.to_owned())
}

fn only_entry(directory: &Path) -> Result<PathBuf> {
    let entry = fs::read_dir(directory).with_context(|| directory.display().to_string())?.next();
    Ok(entry.with_context(|| format!("{} is empty", directory.display()))??.path())
}
