//! QEMU's own memory, touched while nobody waits: what a restore and a guest's first command will allocate, and the buffer
//! of translated code. Where the machine's memory is itself virtual, a page's first use is what costs most.

use std::ffi::c_void;
use std::sync::atomic::{AtomicUsize, Ordering};

use libc::{c_int, size_t};

/// What QEMU has allocated once a restored guest has answered; bytes.
const HEAP_BYTES: size_t = 16 << 20;
/// What is translated by then, and by a spare that has rehearsed; bytes.
const CODE_BYTES: size_t = 24 << 20;
/// The largest that the C library takes.
const MMAP_THRESHOLD: c_int = 32 << 20;

/// One heap for all threads, which grows and is touched once and never given back. Another one for each thread grows by a
/// page and a system call at a time.
pub fn prepare() {
    // SAFETY: numbers only. Before `main` no other thread allocates.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
        libc::mallopt(libc::M_MMAP_THRESHOLD, MMAP_THRESHOLD);
        libc::mallopt(libc::M_TRIM_THRESHOLD, c_int::MAX);
    }
    // SAFETY: freed as it was allocated, and not used between. What the heap's top has grown by stays with it.
    unsafe {
        let block = libc::malloc(HEAP_BYTES);
        if !block.is_null() {
            touch(block, HEAP_BYTES);
            libc::free(block);
        }
    }
}

/// Whether memory is for translated code: nothing else of QEMU's is written and executed.
pub fn is_code(prot: c_int) -> bool {
    const WANTED: c_int = libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC;
    prot & WANTED == WANTED
}

/// Touches the beginning of the buffer, where QEMU begins. It comes in regions, in their order.
pub fn touch_code(start: *mut c_void, length: size_t) {
    static TOUCHED: AtomicUsize = AtomicUsize::new(0);
    let before = TOUCHED.fetch_add(length, Ordering::Relaxed);
    touch(start, length.min(CODE_BYTES.saturating_sub(before)));
}

/// Fills the range with pages, large ones where the kernel has them. A kernel that can't is no worse than before.
fn touch(start: *mut c_void, length: size_t) {
    const PAGE_BYTES: usize = 4096;
    let first = (start as usize).next_multiple_of(PAGE_BYTES);
    let end = (start as usize + length) / PAGE_BYTES * PAGE_BYTES;
    if end <= first {
        return;
    }
    let pages = start.wrapping_byte_add(first - start as usize);
    for advice in [libc::MADV_HUGEPAGE, libc::MADV_POPULATE_WRITE] {
        // SAFETY: whole pages inside memory of the caller's, whose content stays as it is.
        unsafe { libc::syscall(libc::SYS_madvise, pages, end - first, advice) };
    }
}
