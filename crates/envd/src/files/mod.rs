//! `/files`: reading and writing a guest's files over plain HTTP. Runs as root; what it makes belongs to the user.

mod coding;
mod compose;
mod condition;
mod download;
mod inflate;
pub mod metadata;
pub mod open;
pub mod path;
mod query;
mod signature;
mod turn;
mod upload;
mod writer;

pub use compose::compose;
pub use turn::Turns;

use std::io;
use std::sync::Arc;

use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode};

use crate::agent::Agent;
use crate::body::Body;
use crate::guest::check_token;
use crate::http_error::HttpError;
use query::Query;
use signature::check_signature;

pub async fn answer(agent: Arc<Agent>, request: &mut Request<Incoming>) -> Result<Response<Body>, HttpError> {
    let operation = match *request.method() {
        Method::GET | Method::HEAD => "read",
        Method::POST => "write",
        _ => {
            return Err(HttpError::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "files are read by GET and written by POST",
            ));
        }
    };
    let query = Query::parse(request.uri().query().unwrap_or_default()).map_err(HttpError::bad_request)?;
    let identity = agent.identity();
    match &identity.token {
        Some(token) if !request.headers().contains_key("x-access-token") => {
            check_signature(&query, operation, token)?;
        }
        _ => check_token(&agent, request.headers())?,
    }
    let user = agent.user(&query.username).map_err(|name| unknown_user(&name))?;
    match operation {
        "read" => {
            download::download(request.headers(), &query, &user, identity.default_workdir.as_deref()).await
        }
        _ => {
            upload::upload(request, &agent.uploads, &query, &user, identity.default_workdir.as_deref()).await
        }
    }
}

fn unknown_user(name: &str) -> HttpError {
    HttpError::new(StatusCode::UNAUTHORIZED, format!("error looking up user '{name}': no such user"))
}

/// A failed system call as the client is told it.
fn failure(path: &std::path::Path, error: &io::Error) -> HttpError {
    let path = path.display();
    match error.kind() {
        io::ErrorKind::NotFound => {
            HttpError::new(StatusCode::NOT_FOUND, format!("path '{path}' does not exist"))
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            HttpError::new(StatusCode::INSUFFICIENT_STORAGE, "not enough disk space available")
        }
        io::ErrorKind::IsADirectory => HttpError::bad_request(format!("path '{path}' is a directory")),
        io::ErrorKind::NotADirectory | io::ErrorKind::InvalidFilename | io::ErrorKind::InvalidInput => {
            HttpError::bad_request(format!("path '{path}': {error}"))
        }
        _ if error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) => {
            HttpError::bad_request(format!("path '{path}' is a loop of symbolic links"))
        }
        _ => HttpError::new(StatusCode::INTERNAL_SERVER_ERROR, format!("path '{path}': {error}")),
    }
}
