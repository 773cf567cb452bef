//! What every object needs and nobody calls.

/// Nothing here panics: the verifier would refuse a program in which this could be reached as a loop, and a drop is the
/// safe side should a compiler ever reach it.
#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
