//! The calls of bpf(2) that aya does not offer, or only to one owner at a time: reading and writing map entries, one or many
//! at once, and asking a link where it is.

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
    ptr,
};

use aya::Pod;

const BPF_MAP_LOOKUP_ELEM: libc::c_long = 1;
const BPF_MAP_UPDATE_ELEM: libc::c_long = 2;
const BPF_MAP_DELETE_ELEM: libc::c_long = 3;
const BPF_OBJ_PIN: libc::c_long = 6;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const BPF_MAP_LOOKUP_BATCH: libc::c_long = 24;
const BPF_MAP_UPDATE_BATCH: libc::c_long = 26;
const BPF_PROG_GET_FD_BY_ID: libc::c_long = 13;
const BPF_LINK_UPDATE: libc::c_long = 29;
const BPF_LINK_GET_FD_BY_ID: libc::c_long = 30;
const BPF_LINK_DETACH: libc::c_long = 34;

/// `struct` of `BPF_MAP_*_ELEM` in `union bpf_attr`.
#[repr(C)]
struct Element {
    map: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

impl Element {
    fn call<K: Pod>(command: libc::c_long, map: BorrowedFd<'_>, key: &K, value: u64, flags: u64) -> io::Result<()> {
        let key = ptr::from_ref(key).addr() as u64;
        let mut attributes = Self { map: map.as_raw_fd().cast_unsigned(), padding: 0, key, value, flags };
        // SAFETY: the kernel reads the key, and reads or writes the value, which outlive the call. `K` and what `value` points
        // to are plain data of the sizes that the caller's map has.
        let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut attributes, size_of::<Self>()) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

/// The value at `key`; its parts for each possible CPU where the map has such: `values` has room for just that. `false` if
/// there is none.
pub fn lookup<K: Pod, V: Pod>(map: BorrowedFd<'_>, key: &K, values: &mut [V]) -> io::Result<bool> {
    match Element::call(BPF_MAP_LOOKUP_ELEM, map, key, values.as_mut_ptr().addr() as u64, 0) {
        Ok(()) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Writes the value at `key`, or its parts for each possible CPU.
pub fn update<K: Pod, V: Pod>(map: BorrowedFd<'_>, key: &K, values: &[V]) -> io::Result<()> {
    Element::call(BPF_MAP_UPDATE_ELEM, map, key, values.as_ptr().addr() as u64, 0)
}

/// Removes the value at `key`; one that is not there is no error.
pub fn delete<K: Pod>(map: BorrowedFd<'_>, key: &K) -> io::Result<()> {
    match Element::call(BPF_MAP_DELETE_ELEM, map, key, 0, 0) {
        // EINVAL: a place for a socket that is empty.
        Err(error) if !matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EINVAL)) => Err(error),
        _ => Ok(()),
    }
}

/// `struct` of `BPF_MAP_*_BATCH` in `union bpf_attr` (Linux 5.6).
#[repr(C)]
struct Batch {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// Writes `values[i]` at `keys[i]`.
///
/// # Panics
/// If the slices differ in length.
pub fn update_batch<K: Pod, V: Pod>(map: BorrowedFd<'_>, keys: &[K], values: &[V]) -> io::Result<()> {
    assert_eq!(keys.len(), values.len(), "a value for each key");
    if keys.is_empty() {
        return Ok(());
    }
    let count = u32::try_from(keys.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let mut attributes = Batch {
        in_batch: 0,
        out_batch: 0,
        keys: keys.as_ptr().addr() as u64,
        values: values.as_ptr().addr() as u64,
        count,
        map_fd: u32::try_from(map.as_raw_fd()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?,
        elem_flags: 0,
        flags: 0,
    };
    // SAFETY: the kernel reads `count` keys and values from the two slices, which outlive the call. `K` and `V` are plain
    // data, and it is the caller's map that says how large they are: the kernel's sizes are asserted to be these.
    let result = unsafe { libc::syscall(libc::SYS_bpf, BPF_MAP_UPDATE_BATCH, &raw mut attributes, size_of::<Batch>()) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    // A batch that ends early is an error above; this is for a kernel that would think otherwise.
    if attributes.count != count {
        return Err(io::Error::other(format!("{} of {count} entries written", attributes.count)));
    }
    Ok(())
}

/// Shows `visit` every entry of a hash or an array, some thousands at a time. One that comes or goes meanwhile may or may
/// not be among them; none is there twice, and nobody who changes the map can keep this from its end, unlike a walk from
/// key to key.
pub fn lookup_batch<K: Pod, V: Pod>(map: BorrowedFd<'_>, mut visit: impl FnMut(&[K], &[V])) -> io::Result<()> {
    let mut most: u32 = 4096;
    let mut from: Option<u32> = None;
    let mut to: u32 = 0;
    loop {
        let (mut keys, mut values) = (Vec::<K>::with_capacity(most as usize), Vec::<V>::with_capacity(most as usize));
        let mut attributes = Batch {
            in_batch: from.as_ref().map_or(0, |from| ptr::from_ref(from).addr() as u64),
            out_batch: (&raw mut to).addr() as u64,
            keys: keys.as_mut_ptr().addr() as u64,
            values: values.as_mut_ptr().addr() as u64,
            count: most,
            map_fd: u32::try_from(map.as_raw_fd()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?,
            elem_flags: 0,
            flags: 0,
        };
        // SAFETY: the kernel writes at most `count` keys and values into the room that was made for as many, and a word to
        // `to`. It is the caller's map that says how large keys and values are: their sizes are asserted to be these.
        let result =
            unsafe { libc::syscall(libc::SYS_bpf, BPF_MAP_LOOKUP_BATCH, &raw mut attributes, size_of::<Batch>()) };
        let mut ended = false;
        if result < 0 {
            let error = io::Error::last_os_error();
            match error.raw_os_error() {
                Some(libc::ENOENT) => ended = true,
                // A place of the hash holds more entries than this.
                Some(libc::ENOSPC) => {
                    most = most.checked_mul(2).ok_or(error)?;
                    continue;
                }
                _ => return Err(error),
            }
        }
        let count = attributes.count.min(most) as usize;
        // SAFETY: the kernel wrote as many of each, and `K` and `V` are valid for every bit pattern.
        unsafe {
            keys.set_len(count);
            values.set_len(count);
        }
        visit(&keys, &values);
        if ended {
            return Ok(());
        }
        from = Some(to);
    }
}

/// Where a link of type XDP, TCX or network namespace is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkPlace {
    pub program: u32,
    /// The interface, or the inode of the namespace. 0: nowhere, since that is gone or somebody detached it.
    pub interface: u32,
}

/// The start of `struct bpf_link_info`: for XDP and TCX links alike, the interface comes first in the union (Linux 5.9, 6.6),
/// and so does the inode for those of network namespaces (Linux 5.8).
#[repr(C)]
#[derive(Default)]
struct LinkInfo {
    kind: u32,
    id: u32,
    program: u32,
    padding: u32,
    interface: u32,
    rest: [u32; 11],
}

/// `struct` of `BPF_OBJ_GET_INFO_BY_FD` in `union bpf_attr`.
#[repr(C)]
struct GetInfo {
    fd: u32,
    length: u32,
    info: u64,
}

/// `struct` of `BPF_LINK_GET_FD_BY_ID` in `union bpf_attr`.
#[repr(C)]
struct GetFd {
    id: u32,
    next: u32,
    flags: u32,
}

/// Asks the kernel where the link with this id is attached.
pub fn link_place(id: u32) -> io::Result<LinkPlace> {
    let link = by_id(BPF_LINK_GET_FD_BY_ID, id)?;
    let mut info = LinkInfo::default();
    let mut attributes = GetInfo {
        fd: link.as_raw_fd().cast_unsigned(),
        length: size_of::<LinkInfo>() as u32,
        info: (&raw mut info).addr() as u64,
    };
    // SAFETY: the kernel writes at most `length` bytes to `info`, which outlives the call.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, BPF_OBJ_GET_INFO_BY_FD, &raw mut attributes, size_of::<GetInfo>()) };
    drop(link);
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(LinkPlace { program: info.program, interface: info.interface })
}

/// A pinned link as it was: which it is, and the program behind it, kept from going by an open descriptor.
#[derive(Debug)]
pub struct HeldLink {
    id: u32,
    program: OwnedFd,
    /// Keeps the link itself attached, too.
    _open: Option<OwnedFd>,
}

impl HeldLink {
    /// The link pinned at `path`; with `open`, it stays attached even if its pins go.
    pub fn at_pin(path: &Path, open: bool) -> Option<Self> {
        let (id, program) = pinned(path)?;
        let program = by_id(BPF_PROG_GET_FD_BY_ID, program).ok()?;
        let open = if open { Some(by_id(BPF_LINK_GET_FD_BY_ID, id).ok()?) } else { None };
        Some(Self { id, program, _open: open })
    }

    /// Makes the program the one behind the link again, atomically, and pins the link at `path` if it is not.
    pub fn put_back(&self, path: &Path) -> io::Result<()> {
        let link = by_id(BPF_LINK_GET_FD_BY_ID, self.id)?;
        update_link(link.as_fd(), self.program.as_fd())?;
        match pinned(path) {
            Some((id, _)) if id == self.id => return Ok(()),
            Some(_) => std::fs::remove_file(path)?,
            None => {}
        }
        let name = CString::new(path.as_os_str().as_bytes())?;
        let mut attributes = Pin { path: name.as_ptr().addr() as u64, fd: link.as_raw_fd().cast_unsigned(), flags: 0 };
        // SAFETY: the kernel reads the attributes and the path, which outlive the call.
        let result = unsafe { libc::syscall(libc::SYS_bpf, BPF_OBJ_PIN, &raw mut attributes, size_of::<Pin>()) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

/// Makes `program` the one behind `link`, atomically.
fn update_link(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut attributes = UpdateLink {
        link: link.as_raw_fd().cast_unsigned(),
        program: program.as_raw_fd().cast_unsigned(),
        flags: 0,
        old: 0,
    };
    // SAFETY: the kernel reads the attributes, which outlive the call.
    let result = unsafe { libc::syscall(libc::SYS_bpf, BPF_LINK_UPDATE, &raw mut attributes, size_of::<UpdateLink>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Makes `program` the one behind the link pinned at `path`, atomically.
pub fn update_pinned(path: &Path, program: BorrowedFd<'_>) -> io::Result<()> {
    let (id, _) = pinned(path).ok_or(io::ErrorKind::NotFound)?;
    update_link(by_id(BPF_LINK_GET_FD_BY_ID, id)?.as_fd(), program)
}

/// Where the link pinned at `path` is attached; `None` if there is no link.
pub fn place_of_pinned(path: &Path) -> Option<LinkPlace> {
    link_place(pinned(path)?.0).ok()
}

/// Detaches the link pinned at `path` at once. Unpinned alone, it would go some moments later.
pub fn detach_pinned(path: &Path) -> io::Result<()> {
    /// `struct` of `BPF_LINK_DETACH` in `union bpf_attr`.
    #[repr(C)]
    struct Detach {
        link: u32,
    }
    let (id, _) = pinned(path).ok_or(io::ErrorKind::NotFound)?;
    let link = by_id(BPF_LINK_GET_FD_BY_ID, id)?;
    let mut attributes = Detach { link: link.as_raw_fd().cast_unsigned() };
    // SAFETY: the kernel reads the attributes, which outlive the call.
    let result = unsafe { libc::syscall(libc::SYS_bpf, BPF_LINK_DETACH, &raw mut attributes, size_of::<Detach>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Ids of the link pinned at `path` and of the program behind it.
fn pinned(path: &Path) -> Option<(u32, u32)> {
    let link = aya::programs::links::PinnedLink::from_pin(path).ok()?;
    let info = aya::programs::links::FdLink::from(link).info().ok()?;
    Some((info.id(), info.program_id()))
}

/// `struct` of `BPF_OBJ_PIN` in `union bpf_attr`.
#[repr(C)]
struct Pin {
    path: u64,
    fd: u32,
    flags: u32,
}

/// `struct` of `BPF_LINK_UPDATE` in `union bpf_attr`.
#[repr(C)]
struct UpdateLink {
    link: u32,
    program: u32,
    flags: u32,
    old: u32,
}

/// Opens the object with this id.
fn by_id(command: libc::c_long, id: u32) -> io::Result<OwnedFd> {
    let mut attributes = GetFd { id, next: 0, flags: 0 };
    // SAFETY: the kernel reads the attributes, which outlive the call.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut attributes, size_of::<GetFd>()) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just opened it for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}
