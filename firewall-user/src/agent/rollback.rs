//! What a start that fails or is not confirmed goes back to: the programs behind the links that were there before it.

use std::path::Path;

use crate::dmz::{
    link::Links,
    pin::{Kind, Pin},
    syscall::HeldLink,
};

/// Links that an agent before us left, with their programs held open. Our end ends them, too: an agent that is killed
/// before its policy is confirmed leaves nothing attached, neither that policy nor the one before.
#[derive(Debug, Default)]
pub struct Before {
    links: Vec<(Pin, HeldLink)>,
}

impl Before {
    /// Holds on to the links pinned in `directory`.
    pub fn capture(directory: &Path) -> Self {
        let held = |pin: Pin| {
            // One of tc does no harm beside its successor, and a policy without exposure takes it away. One of XDP must be
            // free to go, or none in another mode could take its place.
            let link = HeldLink::at_pin(&pin.path, pin.kind == Kind::Egress)?;
            Some((pin, link))
        };
        Self { links: Pin::all(directory).into_iter().filter_map(held).collect() }
    }

    /// Puts the programs back and pins their links as they were, and takes away the links that were not there.
    pub fn restore(self, links: &mut Links) {
        for (pin, link) in &self.links {
            if let Err(error) = link.put_back(&pin.path) {
                tracing::error!("{}: the program before could not be put back: {error}", pin.path.display());
            }
        }
        let indices: Vec<u32> = self.links.iter().map(|(pin, _)| pin.index).collect();
        links.detach_others(&indices);
    }
}
