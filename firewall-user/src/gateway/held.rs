//! Memory for bodies that are held until content rules have seen them.
//!
//! There is so much for all of them. When it is used up, it is taken from the largest that is still on its way, whose request
//! is refused; where none is larger than who asks, that one is. So nobody keeps it from the others by sending much, and then
//! next to nothing.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
};

use bytes::Bytes;
use firewall_inspect::reason::Reason;
use tokio::sync::Notify;

/// Bytes of bodies, of all requests together.
const AT_MOST: usize = 256 << 20;

#[derive(Default)]
pub(super) struct Held(Arc<Pool>);

#[derive(Default)]
struct Pool {
    used: AtomicUsize,
    next: AtomicU64,
    /// From the oldest on.
    arriving: Mutex<BTreeMap<u64, Arc<Arriving>>>,
}

#[derive(Default)]
struct Arriving {
    bytes: AtomicUsize,
    is_evicted: AtomicBool,
    evicted: Notify,
}

/// What one body has of it.
pub(super) struct Share {
    pool: Arc<Pool>,
    number: u64,
    body: Arc<Arriving>,
}

impl Held {
    pub(super) fn share(&self) -> Share {
        let (pool, body) = (Arc::clone(&self.0), Arc::<Arriving>::default());
        let number = pool.next.fetch_add(1, Relaxed);
        pool.arriving().insert(number, Arc::clone(&body));
        Share { pool, number, body }
    }
}

impl Pool {
    fn arriving(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Arriving>>> {
        self.arriving.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes all that the largest has, the oldest among equals, if that is more than `bytes`.
    fn evict(&self, bytes: usize) -> bool {
        let arriving = self.arriving();
        let largest = arriving.values().rev().max_by_key(|body| body.bytes.load(Relaxed));
        let Some(body) = largest.filter(|body| body.bytes.load(Relaxed) > bytes) else { return false };
        body.is_evicted.store(true, Relaxed);
        self.used.fetch_sub(body.bytes.swap(0, Relaxed), Relaxed);
        body.evicted.notify_one();
        true
    }
}

impl Share {
    /// # Errors
    ///
    /// All is used up, and this one has most of it; or it was [evicted](Self::evicted).
    pub(super) fn grow(&self, bytes: usize) -> Result<(), Reason> {
        // In this order: what is used may be told as too much for a moment, but not as too little.
        let mut used = self.pool.used.fetch_add(bytes, Relaxed) + bytes;
        let own = self.body.bytes.fetch_add(bytes, Relaxed) + bytes;
        while used > AT_MOST && self.pool.evict(own) {
            used = self.pool.used.load(Relaxed);
        }
        if used > AT_MOST { Err(Reason::InspectionMemory) } else { self.check() }
    }

    fn check(&self) -> Result<(), Reason> {
        if self.body.is_evicted.load(Relaxed) { Err(Reason::InspectionMemory) } else { Ok(()) }
    }

    /// Waits until another body takes what this one has.
    pub(super) async fn evicted(&self) -> Reason {
        self.body.evicted.notified().await;
        Reason::InspectionMemory
    }

    /// The data, of a body that is on its way no longer; and the share until it is sent.
    ///
    /// # Errors
    ///
    /// It was [evicted](Self::evicted).
    pub(super) fn keep(self, data: Bytes) -> Result<Bytes, Reason> {
        struct Kept {
            data: Bytes,
            _share: Share,
        }
        impl AsRef<[u8]> for Kept {
            fn as_ref(&self) -> &[u8] {
                &self.data
            }
        }
        self.pool.arriving().remove(&self.number);
        self.check()?;
        Ok(Bytes::from_owner(Kept { data, _share: self }))
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.pool.arriving().remove(&self.number);
        self.pool.used.fetch_sub(self.body.bytes.swap(0, Relaxed), Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_given_back() {
        let held = Held::default();
        let share = held.share();
        assert_eq!(share.grow(AT_MOST), Ok(()));
        let data = share.keep(Bytes::from_static(b"abc")).unwrap();
        assert_eq!(&data[..], b"abc");
        assert_eq!(held.share().grow(1), Err(Reason::InspectionMemory), "not sent yet");
        drop(data);
        assert_eq!(held.share().grow(AT_MOST), Ok(()));
        assert_eq!(held.share().grow(AT_MOST + 1), Err(Reason::InspectionMemory));
        assert_eq!(held.0.used.load(Relaxed), 0);
    }

    #[test]
    fn the_largest_on_its_way_gives_room_to_smaller_ones() {
        const MIB: usize = 1 << 20;
        let held = Held::default();
        let (small, large, larger, sent) = (held.share(), held.share(), held.share(), held.share());
        for (share, bytes) in [(&small, 2), (&large, 50), (&larger, 60), (&sent, 144)] {
            assert_eq!(share.grow(bytes * MIB), Ok(()));
        }
        let sent = sent.keep(Bytes::new()).unwrap();
        // What is sent is not to be had.
        let (new, newer) = (held.share(), held.share());
        assert_eq!(new.grow(60 * MIB), Err(Reason::InspectionMemory));
        drop(new);
        assert_eq!(newer.grow(MIB), Ok(()));
        assert_eq!((small.check(), large.check()), (Ok(()), Ok(())));
        assert_eq!(larger.grow(1), Err(Reason::InspectionMemory));
        assert_eq!(larger.keep(Bytes::new()).unwrap_err(), Reason::InspectionMemory);
        let third = held.share();
        assert_eq!(third.grow(49 * MIB), Ok(()));
        assert_eq!(newer.grow(13 * MIB), Ok(()));
        assert_eq!((large.check(), third.check()), (Err(Reason::InspectionMemory), Ok(())));
        drop((small, large, newer, third, sent));
        assert_eq!(held.0.used.load(Relaxed), 0);
        assert!(held.0.arriving().is_empty());
    }
}
