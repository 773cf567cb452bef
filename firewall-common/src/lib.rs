//! What the kernel program and the agent share: the ABI of their maps, the vocabulary of verdicts, and the decisions
//! themselves.
//!
//! Everything here takes its inputs as arguments, the clock included, and neither allocates nor does I/O, so the same
//! code runs in the XDP program and in tests on the host.

#![no_std]

pub mod address;
pub mod ban;
pub mod counter;
pub mod event;
pub mod flow;
pub mod hygiene;
pub mod packet;
pub mod policy;
pub mod port;
pub mod prefix;
pub mod rate;
pub mod size;
pub mod steer;
pub mod token_bucket;
pub mod verdict;

/// Version of everything that is pinned: map names, keys, values and their meaning. An agent adopts pinned maps only
/// if this number, kept in [`policy::Control::abi`] and [`steer::SteerControl::abi`], is its own.
pub const ABI_VERSION: u32 = 2;

/// Marks an ABI type as plain data for aya. Its layout is asserted where it is defined.
macro_rules! pod {
    ($($ty:ty: $size:literal),* $(,)?) => {
        $(
            const _: () = assert!(core::mem::size_of::<$ty>() == $size);
            #[cfg(feature = "user")]
            // SAFETY: `repr(C)`, every bit pattern is valid, and the size assertion above leaves no implicit padding.
            unsafe impl aya::Pod for $ty {}
        )*
    };
}
pub(crate) use pod;
