//! The C library functions this library stands in front of.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::sync::OnceLock;

use libc::{mode_t, off_t, size_t};

use crate::abort::abort;
use crate::disk;
use crate::guest_memory;
use crate::heap;

type Mmap = unsafe extern "C" fn(*mut c_void, size_t, c_int, c_int, c_int, off_t) -> *mut c_void;
type Open = unsafe extern "C" fn(*const c_char, c_int, mode_t) -> c_int;
type Mprotect = unsafe extern "C" fn(*mut c_void, size_t, c_int) -> c_int;
type Madvise = unsafe extern "C" fn(*mut c_void, size_t, c_int) -> c_int;

/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmap(
    address: *mut c_void,
    length: size_t,
    prot: c_int,
    flags: c_int,
    fd: c_int,
    offset: off_t,
) -> *mut c_void {
    if guest_memory::is_backend(fd) {
        return guest_memory::map(address, length, prot, flags, offset);
    }
    // SAFETY: the caller's own call, passed on unchanged.
    unsafe { real_mmap(address, length, prot, flags, fd, offset) }
}

/// # Safety
/// As the C library's. On 64-bit systems it is the same function as `mmap`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmap64(
    address: *mut c_void,
    length: size_t,
    prot: c_int,
    flags: c_int,
    fd: c_int,
    offset: off_t,
) -> *mut c_void {
    // SAFETY: the caller's own call, passed on unchanged.
    unsafe { mmap(address, length, prot, flags, fd, offset) }
}

/// Merging and huge pages would change pages behind the write marks (and merging tells guests about each other), so
/// QEMU's wish for them is not passed on for guest memory. What a guest gives back stays where it would come back as
/// something else: it expects no content of it.
///
/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn madvise(address: *mut c_void, length: size_t, advice: c_int) -> c_int {
    let unwanted = matches!(advice, libc::MADV_MERGEABLE | libc::MADV_HUGEPAGE | libc::MADV_COLLAPSE);
    let of_guest = guest_memory::overlaps(address as usize, length);
    if of_guest && (unwanted || guest_memory::must_stay(advice)) {
        return 0;
    }
    static REAL: OnceLock<Madvise> = OnceLock::new();
    // SAFETY: madvise has this signature.
    let real = REAL.get_or_init(|| unsafe { std::mem::transmute::<*mut c_void, Madvise>(next(c"madvise")) });
    // SAFETY: the caller's own call, passed on unchanged.
    unsafe { real(address, length, advice) }
}

/// QEMU reserves its buffer of translated code first, and makes it usable by this.
///
/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mprotect(address: *mut c_void, length: size_t, prot: c_int) -> c_int {
    static REAL: OnceLock<Mprotect> = OnceLock::new();
    // SAFETY: mprotect has this signature.
    let real =
        REAL.get_or_init(|| unsafe { std::mem::transmute::<*mut c_void, Mprotect>(next(c"mprotect")) });
    // SAFETY: the caller's own call, passed on unchanged.
    let result = unsafe { real(address, length, prot) };
    if result == 0 && heap::is_code(prot) {
        heap::touch_code(address, length);
    }
    result
}

/// # Safety
/// As the C library's, whose third argument is there only with flags that need it: passed on it is ignored otherwise.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn open64(path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
    // SAFETY: the caller's own call, passed on unchanged.
    unsafe { disk::stand_in(path, flags).unwrap_or_else(|| real_open(path, flags, mode)) }
}

/// What `open64` is called by programs that were built to be checked.
///
/// # Safety
/// As the C library's; the flags need no mode.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __open64_2(path: *const c_char, flags: c_int) -> c_int {
    // SAFETY: the caller's own call, passed on unchanged.
    unsafe { open64(path, flags, 0) }
}

/// QEMU gives memory back whenever it is at rest, and would touch the same again when it goes on.
#[unsafe(no_mangle)]
pub extern "C" fn malloc_trim(_keep: size_t) -> c_int {
    0
}

/// # Safety
/// As the C library's.
pub unsafe fn real_open(path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
    static REAL: OnceLock<Open> = OnceLock::new();
    // SAFETY: open64 has this signature, but for the argument that it takes only when asked to.
    let real = REAL.get_or_init(|| unsafe { std::mem::transmute::<*mut c_void, Open>(next(c"open64")) });
    // SAFETY: the caller vouches for the arguments.
    unsafe { real(path, flags, mode) }
}

/// # Safety
/// As the C library's.
pub unsafe fn real_mmap(
    address: *mut c_void,
    length: size_t,
    prot: c_int,
    flags: c_int,
    fd: c_int,
    offset: off_t,
) -> *mut c_void {
    static REAL: OnceLock<Mmap> = OnceLock::new();
    // SAFETY: mmap has this signature.
    let real = REAL.get_or_init(|| unsafe { std::mem::transmute::<*mut c_void, Mmap>(next(c"mmap")) });
    // SAFETY: the caller vouches for the arguments.
    unsafe { real(address, length, prot, flags, fd, offset) }
}

/// The function that would have been called without this library.
fn next(name: &CStr) -> *mut c_void {
    // SAFETY: `name` is a C string.
    let address = unsafe { libc::dlsym(libc::RTLD_NEXT, name.as_ptr()) };
    if address.is_null() {
        abort("the C library has no such function");
    }
    address
}
