//! `MakeDir`: a directory and the missing ones above it, for the user.

use std::fs;
use std::io::ErrorKind;

use serde::Deserialize;

use super::entry::Entry;
use super::failure::failure;
use super::place::Place;
use super::stat::Found;
use crate::files::open::make_directories;
use crate::rpc::{Code, RpcError, or_default};
use crate::user::Names;

#[derive(Deserialize)]
pub struct MakeDir {
    #[serde(default, deserialize_with = "or_default")]
    path: String,
}

pub fn make(place: &Place, message: MakeDir) -> Result<Found, RpcError> {
    let path = place.resolve(&message.path)?;
    match fs::metadata(&path) {
        Ok(found) if found.is_dir() => {
            return Err(Code::AlreadyExists.error(format!("directory '{}' already exists", path.display())));
        }
        Ok(_) => {
            return Err(Code::InvalidArgument
                .error(format!("path '{}' exists and is not a directory", path.display())));
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(failure(&path, &error)),
    }
    make_directories(&path, &place.user).map_err(|error| failure(&path, &error))?;
    let entry = Entry::read(&path, &Names::read()).map_err(|error| failure(&path, &error))?;
    Ok(Found { entry })
}
