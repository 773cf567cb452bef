//! Memory of what is large and seldom replaced: rule sets.
//!
//! The allocator keeps the pages of each thread apart, and gives back those of a thread only when that one asks. So rule sets are
//! made on one thread, which takes the pages of the last one again, and freed there, which would hold up requests elsewhere.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{
        Arc, LazyLock, Mutex, PoisonError,
        mpsc::{self, Sender},
    },
    thread,
};

type Work = Box<dyn FnOnce() + Send>;
type Retired = Arc<dyn Any + Send + Sync>;

/// `None`: it could not be started.
static THREAD: LazyLock<Option<Mutex<Sender<Work>>>> = LazyLock::new(|| {
    let (sender, receiver) = mpsc::channel::<Work>();
    let work = move || receiver.into_iter().for_each(|work| work());
    thread::Builder::new().name("memory".to_owned()).spawn(work).ok().map(|_| Mutex::new(sender))
});

/// What nobody is to take any more, and somebody may use still.
static RETIRED: Mutex<Vec<Retired>> = Mutex::new(Vec::new());

/// Makes something large.
pub(crate) fn make<T: Send + 'static>(make: impl FnOnce() -> T + Send + 'static) -> T {
    on_its_thread(move || {
        free();
        make()
    })
}

/// Frees something large, when nobody uses it any more.
pub(crate) fn retire(large: Retired) {
    RETIRED.lock().unwrap_or_else(PoisonError::into_inner).push(large);
}

/// Frees what nobody uses any more, and gives free pages back to the system: of the thread where what is large is, and of this
/// one.
///
/// The allocator does that by itself only when somebody needs new pages, which after a reload of content rules may be never:
/// what the old rules and the compiler took would stay resident, twice as much as an agent has without.
pub(crate) fn give_back() {
    // SAFETY: it takes no pointers, and any thread may call it at any time.
    let collect = || unsafe { libmimalloc_sys::mi_collect(true) };
    on_its_thread(move || {
        free();
        collect();
    });
    collect();
}

fn free() {
    let mut retired = RETIRED.lock().unwrap_or_else(PoisonError::into_inner);
    let unused = retired.extract_if(.., |large| Arc::strong_count(large) == 1).collect::<Vec<_>>();
    drop(retired);
    drop(unused);
}

fn on_its_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let Some(thread) = &*THREAD else { return work() };
    let (sender, receiver) = mpsc::sync_channel(1);
    let work = move || {
        let _nobody_waits = sender.send(catch_unwind(AssertUnwindSafe(work)));
    };
    thread.lock().unwrap_or_else(PoisonError::into_inner).send(Box::new(work)).expect("it waits for more");
    receiver.recv().expect("it answers").unwrap_or_else(|panic| resume_unwind(panic))
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::Sender;

    use super::*;

    fn thread_name() -> String {
        thread::current().name().unwrap_or_default().to_owned()
    }

    /// Tells where it is freed.
    struct Large(Sender<String>);

    impl Drop for Large {
        fn drop(&mut self) {
            self.0.send(thread_name()).unwrap();
        }
    }

    #[test]
    fn what_is_large_is_made_and_freed_on_one_thread_when_nobody_uses_it() {
        let (sender, freed) = mpsc::channel();
        let (large, made) = make(|| (Arc::new(Large(sender)), thread_name()));
        assert_eq!(made, "memory");
        retire(Arc::clone(&large) as _);
        give_back();
        assert!(freed.try_recv().is_err());
        // Not here: but perhaps at once, where another test has something made.
        drop(large);
        give_back();
        assert_eq!(freed.try_recv().unwrap(), "memory");
    }

    #[test]
    fn a_panic_is_whose_work_it_was() {
        assert!(catch_unwind(|| make(|| panic!("on purpose"))).is_err());
        assert_eq!(make(|| 7), 7);
    }
}
