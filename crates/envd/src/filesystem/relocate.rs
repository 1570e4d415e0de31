//! `Move`: renames, or copies and removes where the two are on different file systems.

use std::fs;
use std::io::ErrorKind;

use serde::Deserialize;

use super::copy::carry_over;
use super::entry::Entry;
use super::failure::{failure, lookup_failure};
use super::place::Place;
use super::stat::Found;
use crate::files::open::make_directories;
use crate::rpc::{Code, RpcError, or_default};
use crate::user::Names;

#[derive(Deserialize)]
pub struct Move {
    #[serde(default, deserialize_with = "or_default")]
    source: String,
    #[serde(default, deserialize_with = "or_default")]
    destination: String,
}

/// Replaces a file that is at the destination. Missing directories above it are made for the user.
pub fn relocate(place: &Place, message: Move) -> Result<Found, RpcError> {
    if message.source.is_empty() || message.destination.is_empty() {
        return Err(Code::InvalidArgument.error("source and destination are required"));
    }
    let source = place.resolve(&message.source)?;
    let destination = place.resolve(&message.destination)?;
    // Before anything is made.
    fs::symlink_metadata(&source).map_err(|error| lookup_failure(&source, &error))?;
    if let Some(parent) = destination.parent() {
        make_directories(parent, &place.user).map_err(|error| failure(parent, &error))?;
    }
    let moved = match fs::rename(&source, &destination) {
        Err(error) if error.kind() == ErrorKind::CrossesDevices => carry_over(&source, &destination),
        moved => moved,
    };
    moved.map_err(|error| failure(&destination, &error))?;
    let entry = Entry::read(&destination, &Names::read()).map_err(|error| failure(&destination, &error))?;
    Ok(Found { entry })
}
