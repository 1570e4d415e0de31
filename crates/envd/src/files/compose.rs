//! `POST /files/compose`: one file of several, which are gone afterwards.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode};
use serde::Deserialize;

use super::path::resolve;
use super::writer::Writer;
use super::{failure, open};
use crate::agent::Agent;
use crate::body::{self, Body};
use crate::filesystem::entry::Entry;
use crate::http_error::HttpError;
use crate::user::Names;

const BODY_BYTES_MAX: usize = 1 << 20;

#[derive(Deserialize)]
struct Compose {
    source_paths: Vec<String>,
    destination: String,
    #[serde(default)]
    username: Option<String>,
}

/// 200 with the entry of the new file. 400 for what is no file, or for a destination that is one of the sources; 404
/// for a source that does not exist. Sources are removed when all of the destination is written.
pub async fn compose(agent: &Agent, request: &mut Request<Incoming>) -> Result<Response<Body>, HttpError> {
    let body = Limited::new(request.body_mut(), BODY_BYTES_MAX).collect().await;
    let body = body.map_err(|_| HttpError::bad_request("the body cannot be read"))?.to_bytes();
    let compose: Compose = serde_json::from_slice(&body)
        .map_err(|error| HttpError::bad_request(format!("bad body: {error}")))?;
    let name = compose.username.as_deref().unwrap_or_default();
    let user = agent.user(name).map_err(|name| super::unknown_user(&name))?;
    let workdir = agent.identity().default_workdir.clone();
    let path = |path: &str| match path {
        "" => Err(HttpError::bad_request("a path is empty")),
        path => resolve(path, &user, workdir.as_deref()).map_err(HttpError::bad_request),
    };
    let destination = path(&compose.destination)?;
    let sources: Vec<PathBuf> =
        compose.source_paths.iter().map(|source| path(source)).collect::<Result<_, _>>()?;
    if sources.is_empty() {
        return Err(HttpError::bad_request("there are no source paths"));
    }
    // Before the destination is emptied.
    for source in &sources {
        open::for_reading(source).map_err(|error| failure(source, &error))?;
        if fs::canonicalize(&destination).is_ok_and(|there| Some(there) == fs::canonicalize(source).ok()) {
            return Err(HttpError::bad_request(format!("path '{}' is a source as well", source.display())));
        }
    }
    let writer = Writer::open(&agent.uploads, &destination, &user, &Default::default()).await;
    let writer = writer.map_err(|error| failure(&destination, &error))?;
    let target = destination.clone();
    let entry = writer.with(move |file| join(file, &sources, &target)).await?;
    Ok(body::json(StatusCode::OK, &entry))
}

fn join(file: &File, sources: &[PathBuf], destination: &Path) -> Result<Entry, HttpError> {
    let mut file = file;
    for source in sources {
        let (mut from, _) = open::for_reading(source).map_err(|error| failure(source, &error))?;
        io::copy(&mut from, &mut file).map_err(|error| failure(destination, &error))?;
    }
    for source in sources {
        match fs::remove_file(source) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failure(source, &error)),
            _ => {}
        }
    }
    Entry::read(destination, &Names::read()).map_err(|error| failure(destination, &error))
}
