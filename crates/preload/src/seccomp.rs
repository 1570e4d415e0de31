//! What a process that has mapped pieces of builds must not do any more.

use std::collections::BTreeMap;

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, apply_filter_all_threads};

use crate::abort::abort;

/// The same call of the other 64-bit interface.
const X32: i64 = 0x4000_0000;

/// No mapping grows or moves from now on, in any thread: one of a file could be stretched over those of its pages that
/// the header does not name. The C library's allocator does without.
pub fn forbid_mremap() {
    let calls = [libc::SYS_mremap, libc::SYS_mremap | X32];
    let refuse = SeccompAction::Errno(libc::EPERM as u32);
    let filter = std::env::consts::ARCH.try_into().and_then(|arch| {
        let rules: BTreeMap<_, _> = calls.map(|call| (call, Vec::new())).into();
        let program: BpfProgram =
            SeccompFilter::new(rules, SeccompAction::Allow, refuse, arch)?.try_into()?;
        Ok(program)
    });
    if !filter.is_ok_and(|program| apply_filter_all_threads(&program).is_ok()) {
        abort("system calls can't be limited");
    }
}
