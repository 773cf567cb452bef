//! The one place for packet pointers.

use core::{arch::asm, mem::MaybeUninit, ptr};

use aya_ebpf::{
    EbpfContext as _,
    bindings::xdp_md,
    helpers::{bpf_skb_load_bytes, bpf_xdp_get_buff_len},
    programs::{TcContext, XdpContext},
};
use firewall_common::packet::{Frame, Header};

/// A frame that arrives. Headers must lie in its first buffer; a multi-buffer frame whose header chain goes on in the
/// second is cut short, and dropped as such.
pub(crate) struct XdpFrame<'a> {
    pub(crate) ctx: &'a XdpContext,
}

impl Frame for XdpFrame<'_> {
    #[inline(always)]
    fn length(&self) -> u32 {
        // SAFETY: the context is the one the kernel called us with.
        unsafe { bpf_xdp_get_buff_len(self.ctx.as_ptr().cast::<xdp_md>()) as u32 }
    }

    #[inline(always)]
    fn readable(&self) -> u32 {
        (self.ctx.data_end() - self.ctx.data()) as u32
    }

    #[inline(always)]
    fn load<T: Header>(&self, offset: usize) -> Option<T> {
        let mut start = self.ctx.data() + offset;
        // SAFETY: an instruction without effect. It keeps LLVM from folding the comparison below into one of
        // `offset` with a length, after which the verifier no longer knows that `start` was checked.
        unsafe { asm!("{0} += 0", inout(reg) start) };
        if start + size_of::<T>() > self.ctx.data_end() {
            return None;
        }
        // SAFETY: the verifier accepts the read only because `start .. start + size_of::<T>()` was just compared with
        // the end of the packet. `T: Header` is valid for every bit pattern, and the kernel refuses to load the program
        // where loads need more alignment than headers have.
        Some(unsafe { *ptr::with_exposed_provenance::<T>(start) })
    }
}

/// A packet that leaves, with its Ethernet header.
pub(crate) struct SkbFrame<'a> {
    pub(crate) ctx: &'a TcContext,
}

impl Frame for SkbFrame<'_> {
    #[inline(always)]
    fn length(&self) -> u32 {
        self.ctx.len()
    }

    #[inline(always)]
    fn load<T: Header>(&self, offset: usize) -> Option<T> {
        let mut header = MaybeUninit::<T>::uninit();
        // SAFETY: the helper writes `size_of::<T>()` bytes, or fails.
        let result = unsafe {
            bpf_skb_load_bytes(self.ctx.as_ptr(), offset as u32, header.as_mut_ptr().cast(), size_of::<T>() as u32)
        };
        // SAFETY: written above, and `T: Header` is valid for every bit pattern.
        (result == 0).then(|| unsafe { header.assume_init() })
    }
}
