//! Leaves this process only the system calls it needs. Anything else fails with EPERM.

use std::collections::BTreeMap;

use linux_raw_sys::ioctl::{UFFDIO_COPY, UFFDIO_WAKE, UFFDIO_WRITEPROTECT, UFFDIO_ZEROPAGE};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    apply_filter,
};

use crate::pagemap::PAGEMAP_SCAN;

/// Allowed with any arguments: none of them reaches a file, a process or a network that is not open already,
/// apart from reading the memory of a process, which is what this one is for.
const PLAIN: &[i64] = &[
    libc::SYS_accept4,
    libc::SYS_brk,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_clone,
    libc::SYS_clone3,
    libc::SYS_close,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_fallocate,
    libc::SYS_fcntl,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_ftruncate,
    libc::SYS_futex,
    libc::SYS_getcpu,
    libc::SYS_getpid,
    libc::SYS_getrandom,
    libc::SYS_getsockopt,
    libc::SYS_gettid,
    libc::SYS_lseek,
    libc::SYS_madvise,
    libc::SYS_munmap,
    libc::SYS_pidfd_open,
    libc::SYS_poll,
    libc::SYS_ppoll,
    libc::SYS_pread64,
    libc::SYS_process_vm_readv,
    libc::SYS_pwrite64,
    libc::SYS_read,
    libc::SYS_recvmsg,
    libc::SYS_restart_syscall,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_setaffinity,
    libc::SYS_sched_yield,
    libc::SYS_sendmsg,
    libc::SYS_set_robust_list,
    libc::SYS_sigaltstack,
    libc::SYS_tkill,
    libc::SYS_write,
    libc::SYS_writev,
];

const IOCTLS: [u32; 5] = [UFFDIO_COPY, UFFDIO_ZEROPAGE, UFFDIO_WAKE, UFFDIO_WRITEPROTECT, PAGEMAP_SCAN];

/// Applies to this thread and every one it starts.
pub fn confine() -> Result<(), Box<dyn std::error::Error>> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = PLAIN.iter().map(|call| (*call, Vec::new())).collect();
    let mut ioctls = Vec::new();
    for request in IOCTLS {
        ioctls.push(SeccompRule::new(vec![condition(1, SeccompCmpOp::Eq, u64::from(request))?])?);
    }
    rules.insert(libc::SYS_ioctl, ioctls);
    for call in [libc::SYS_mmap, libc::SYS_mprotect] {
        let not_executable = condition(2, SeccompCmpOp::MaskedEq(libc::PROT_EXEC as u64), 0)?;
        rules.insert(call, vec![SeccompRule::new(vec![not_executable])?]);
    }
    rules.insert(libc::SYS_mremap, Vec::new());
    let writes = (libc::O_ACCMODE | libc::O_CREAT | libc::O_TRUNC) as u64;
    for (call, flags_at) in [(libc::SYS_open, 1), (libc::SYS_openat, 2)] {
        let read_only = condition(flags_at, SeccompCmpOp::MaskedEq(writes), 0)?;
        rules.insert(call, vec![SeccompRule::new(vec![read_only])?]);
    }
    let refuse = SeccompAction::Errno(libc::EPERM as u32);
    let filter = SeccompFilter::new(rules, refuse, SeccompAction::Allow, std::env::consts::ARCH.try_into()?)?;
    let program: BpfProgram = filter.try_into()?;
    Ok(apply_filter(&program)?)
}

/// A condition on the low 32 bits of an argument.
fn condition(
    argument: u8,
    operator: SeccompCmpOp,
    value: u64,
) -> Result<SeccompCondition, seccompiler::BackendError> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value)
}
