use tests::frame::*;
use tests::loaded::*;
fn main() {
    let t = std::time::Instant::now();
    let mut l = Loaded::new(
        r#"[dmz]
expose = ["443/tcp"]
[[dmz.list]]
name="a"
action="block"
prefixes=["10.0.0.0/8","2001:db8::/32"]
[dmz.hygiene]
private_sources=true
fragments=true
[dmz.size]
max_packet="9000B"
rules=[{port="53/udp",max="512B"}]
[[dmz.rate]]
name="r"
per="source"
packets="1000/s"
bytes="100MB/s"
connections="50/s"
ban="60s"
"#,
    )
    .unwrap();
    println!("{:?}", t.elapsed());
    let i = l.instance.xdp().info().unwrap();
    println!("{:?} {:?}", i.verified_instruction_count(), i.size_jitted());
    let i = l.instance.egress().info().unwrap();
    println!("{:?} {:?}", i.verified_instruction_count(), i.size_jitted());
    for (n, f) in [
        ("block", Frame::v4("10.1.1.1", "192.0.2.1").tcp(1000, 443).flags(ACK).build()),
        ("block6", Frame::v6("2001:db8::1", "2001:db9::1").tcp(1000, 443).flags(ACK).build()),
        ("pass/rate", Frame::v4("11.1.1.1", "192.0.2.1").tcp(1000, 443).flags(ACK).build()),
        ("expose", Frame::v4("11.1.1.1", "192.0.2.1").tcp(1000, 444).flags(SYN).build()),
    ] {
        println!("{n} {:?}", l.run(&f, 1));
        println!("{n} {:?}", l.run(&f, 1000000));
    }
    let f = empty_program().unwrap();
    use std::os::fd::AsFd;
    println!("{:?}", test_run(f.as_fd(), &[0u8; 64], 1000000));
}
