//! Ends the process: there is no way on for a guest without its memory.

use std::ffi::CStr;

/// The status QEMU ends with when its memory can't be given to the pager.
const STATUS: i32 = 97;

/// Says what failed, with the last system error, and leaves at once.
pub fn abort(what: &str) -> ! {
    // SAFETY: errno is this thread's own; strerror answers a C string for any number.
    let (errno, text) = unsafe {
        let errno = *libc::__errno_location();
        (errno, CStr::from_ptr(libc::strerror(errno)))
    };
    eprintln!("thaw-preload: {what} ({errno}: {})", text.to_string_lossy());
    // SAFETY: takes no arguments that could be wrong and does not return. Exit handlers must not run: they are
    // QEMU's, and could use the memory.
    unsafe { libc::_exit(STATUS) }
}
