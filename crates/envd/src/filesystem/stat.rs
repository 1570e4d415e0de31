//! `Stat`: what is at a path.

use serde::{Deserialize, Serialize};

use super::entry::Entry;
use super::failure::lookup_failure;
use super::place::Place;
use crate::rpc::{RpcError, or_default};
use crate::user::Names;

#[derive(Deserialize)]
pub struct Stat {
    #[serde(default, deserialize_with = "or_default")]
    path: String,
}

#[derive(Serialize)]
pub struct Found {
    pub entry: Entry,
}

pub fn stat(place: &Place, message: Stat) -> Result<Found, RpcError> {
    let path = place.resolve(&message.path)?;
    let entry = Entry::read(&path, &Names::read()).map_err(|error| lookup_failure(&path, &error))?;
    Ok(Found { entry })
}
