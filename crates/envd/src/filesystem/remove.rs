//! `Remove`: a file, a link, or a tree. Links are not followed.

use std::fs;
use std::io::ErrorKind;

use serde::Deserialize;
use serde_json::{Value, json};

use super::failure::failure;
use super::place::Place;
use super::tree;
use crate::rpc::{Code, RpcError, or_default};

#[derive(Deserialize)]
pub struct Remove {
    #[serde(default, deserialize_with = "or_default")]
    path: String,
}

/// What does not exist is success.
pub fn remove(place: &Place, message: Remove) -> Result<Value, RpcError> {
    if message.path.is_empty() {
        return Err(Code::InvalidArgument.error("path is required"));
    }
    let path = place.resolve(&message.path)?;
    if path.parent().is_none() {
        return Err(Code::InvalidArgument.error("the root directory cannot be removed"));
    }
    let removed = match fs::symlink_metadata(&path) {
        Ok(found) if found.is_dir() => tree::remove(&path),
        Ok(_) => fs::remove_file(&path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            Err(failure(&path, &error))
        }
        _ => Ok(json!({})),
    }
}
