//! Reads the memory of the VMM.

use std::io;

/// Spans that one read takes at most (the kernel's IOV_MAX).
pub const SPANS_MAX: usize = 1024;

/// A piece of the process's memory.
#[derive(Debug, Clone, Copy)]
pub struct Span {
    pub address: u64,
    pub length: u64,
}

/// Fills `into` with the bytes of `spans`, one after another. All of them must be present or swapped out:
/// reading a missing page would wait for this very pager.
pub fn read(pid: i32, spans: &[Span], into: &mut [u8]) -> io::Result<()> {
    debug_assert!(spans.len() <= SPANS_MAX);
    let mut remote: Vec<libc::iovec> = spans
        .iter()
        .map(|span| libc::iovec { iov_base: span.address as *mut _, iov_len: span.length as usize })
        .collect();
    let mut remote = &mut remote[..];
    let mut done = 0;
    while done < into.len() {
        let rest = &mut into[done..];
        let local = libc::iovec { iov_base: rest.as_mut_ptr().cast(), iov_len: rest.len() };
        // SAFETY: the kernel writes at most `iov_len` bytes to `rest`, and only reads the other process.
        let count =
            unsafe { libc::process_vm_readv(pid, &local, 1, remote.as_ptr(), remote.len() as u64, 0) };
        if count < 0 {
            return Err(io::Error::last_os_error());
        }
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        done += count as usize;
        remote = skip(remote, count as usize);
    }
    Ok(())
}

fn skip(mut vectors: &mut [libc::iovec], mut bytes: usize) -> &mut [libc::iovec] {
    while let Some(length) = vectors.first().map(|vector| vector.iov_len) {
        if bytes < length {
            break;
        }
        bytes -= length;
        vectors = &mut vectors[1..];
    }
    if let Some(first) = vectors.first_mut() {
        first.iov_base = first.iov_base.wrapping_byte_add(bytes);
        first.iov_len -= bytes;
    }
    vectors
}
