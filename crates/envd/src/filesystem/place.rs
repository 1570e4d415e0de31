//! What paths of a call start from.

use std::path::PathBuf;

use crate::files::path;
use crate::rpc::{Code, RpcError};
use crate::user::User;

#[derive(Clone)]
pub struct Place {
    pub user: User,
    pub default_workdir: Option<String>,
}

impl Place {
    /// Absolute, without a slash at its end.
    pub fn resolve(&self, path: &str) -> Result<PathBuf, RpcError> {
        let resolved = path::resolve(path, &self.user, self.default_workdir.as_deref());
        let resolved = resolved.map_err(|message| Code::InvalidArgument.error(message))?;
        Ok(resolved.components().collect())
    }
}
