//! Failed system calls as the client is told them.

use std::io::{self, ErrorKind};
use std::path::Path;

use rustix::io::Errno;

use crate::rpc::{Code, RpcError};

pub fn failure(path: &Path, error: &io::Error) -> RpcError {
    let path = path.display();
    let told = |code: Code| code.error(format!("path '{path}': {error}"));
    match error.kind() {
        ErrorKind::NotFound => Code::NotFound.error(format!("path '{path}' does not exist")),
        ErrorKind::AlreadyExists => told(Code::AlreadyExists),
        ErrorKind::PermissionDenied => told(Code::PermissionDenied),
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            Code::Internal.error("not enough disk space available")
        }
        ErrorKind::NotADirectory
        | ErrorKind::IsADirectory
        | ErrorKind::InvalidFilename
        | ErrorKind::InvalidInput => told(Code::InvalidArgument),
        ErrorKind::CrossesDevices
        | ErrorKind::DirectoryNotEmpty
        | ErrorKind::ReadOnlyFilesystem
        | ErrorKind::ResourceBusy => told(Code::FailedPrecondition),
        _ if error.raw_os_error() == Some(Errno::LOOP.raw_os_error()) => {
            Code::FailedPrecondition.error(format!("path '{path}' is a loop of symbolic links"))
        }
        _ => told(Code::Internal),
    }
}

/// Of looking for something: nothing exists below a file.
pub fn lookup_failure(path: &Path, error: &io::Error) -> RpcError {
    match error.kind() {
        ErrorKind::NotADirectory => failure(path, &ErrorKind::NotFound.into()),
        _ => failure(path, error),
    }
}
