//! The kernel's random pool, by the ioctls of random(4).

use std::ffi::c_void;
use std::fs::File;
use std::io;

use rustix::ioctl::{self, Ioctl, IoctlOutput, Opcode, opcode};

/// Bytes that the host sends.
pub const ENTROPY_BYTES: usize = 64;

/// `struct rand_pool_info` with its buffer.
#[repr(C)]
struct RandPoolInfo {
    entropy_count: i32,
    buf_size: i32,
    buf: [u8; ENTROPY_BYTES],
}

/// `_IOW('R', 0x03, int[2])`: the size in the number is that of the struct without its buffer.
struct AddEntropy(RandPoolInfo);

// SAFETY: the kernel reads the two counts, then `buf_size` bytes behind them, which the struct has; it writes nothing.
unsafe impl Ioctl for AddEntropy {
    type Output = ();
    const IS_MUTATING: bool = false;

    fn opcode(&self) -> Opcode {
        opcode::write::<[i32; 2]>(b'R', 0x03)
    }

    fn as_ptr(&mut self) -> *mut c_void {
        (&raw mut self.0).cast()
    }

    unsafe fn output_from_ptr(_: IoctlOutput, _: *mut c_void) -> rustix::io::Result<()> {
        Ok(())
    }
}

/// The device, for [`add_entropy`].
pub fn random() -> io::Result<File> {
    File::options().read(true).write(true).open("/dev/urandom")
}

/// Mixes the host's bytes in, counts them as random, and makes the generator start anew from the pool: two VMs
/// from one snapshot differ from here on.
pub fn add_entropy(random: &File, bytes: &[u8; ENTROPY_BYTES]) -> io::Result<()> {
    let info =
        RandPoolInfo { entropy_count: 8 * ENTROPY_BYTES as i32, buf_size: ENTROPY_BYTES as i32, buf: *bytes };
    // SAFETY: see the implementation of `Ioctl`.
    unsafe { ioctl::ioctl(random, AddEntropy(info)) }?;
    // SAFETY: RNDRESEEDCRNG, `_IO('R', 0x07)`, takes no argument.
    unsafe { ioctl::ioctl(random, ioctl::NoArg::<{ opcode::none(b'R', 0x07) }>::new()) }?;
    Ok(())
}
