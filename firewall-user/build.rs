//! Builds the eBPF program and leaves it in `OUT_DIR`.
fn main() -> anyhow::Result<()> {
    // SAFETY: a build script with one thread.
    unsafe { std::env::set_var("RUSTC_BOOTSTRAP", "aya_ebpf,portcullis_ebpf") };
    println!("cargo:rerun-if-changed=../firewall-common");
    aya_build::build_ebpf(
        [aya_build::Package { name: "firewall-ebpf", root_dir: "../firewall-ebpf", ..Default::default() }],
        aya_build::Toolchain::Custom("/usr"),
    )
}
