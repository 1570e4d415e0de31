//! `POST /files`: one file as the raw body, or several as the parts of a form. Written in place, as it arrives.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures_core::Stream;
use hyper::body::Incoming;
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE};
use hyper::{Request, Response, StatusCode};
use multer::Multipart;
use serde_json::{Value, json};

use super::failure;
use super::inflate::{Chunks, chunks};
use super::metadata::{self, Metadata};
use super::path::resolve;
use super::query::Query;
use super::turn::Turns;
use super::writer::Writer;
use crate::body::{self, Body};
use crate::http_error::HttpError;
use crate::user::User;

/// Where the files go and to whom.
struct Target<'a> {
    turns: &'a Turns,
    query: &'a Query,
    user: &'a User,
    default_workdir: Option<&'a str>,
    metadata: Metadata,
}

pub async fn upload(
    request: &mut Request<Incoming>,
    turns: &Turns,
    query: &Query,
    user: &User,
    default_workdir: Option<&str>,
) -> Result<Response<Body>, HttpError> {
    let header = |name| request.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let content_type = header(CONTENT_TYPE).to_string();
    let gzip = match header(CONTENT_ENCODING) {
        "" | "identity" => false,
        coding if coding.eq_ignore_ascii_case("gzip") => true,
        other => return Err(HttpError::bad_request(format!("unsupported content encoding {other}"))),
    };
    let metadata = metadata::from_headers(request.headers()).map_err(HttpError::bad_request)?;
    let mut chunks = chunks(request.body_mut(), gzip);
    let target = Target { turns, query, user, default_workdir, metadata };
    let result = match content_type.split(';').next().unwrap_or_default().trim() {
        "application/octet-stream" => raw(&target, &mut chunks).await,
        "multipart/form-data" => match multer::parse_boundary(&content_type) {
            Ok(boundary) => form(&target, Multipart::new(&mut chunks, boundary)).await,
            Err(error) => Err(HttpError::bad_request(format!("bad form: {error}"))),
        },
        other => Err(HttpError::bad_request(format!("unsupported content type {other:?}"))),
    };
    result.map(|entries| body::json(StatusCode::OK, &entries))
}

async fn raw(target: &Target<'_>, chunks: &mut Chunks<'_>) -> Result<Vec<Value>, HttpError> {
    if target.query.path.is_empty() {
        return Err(HttpError::bad_request("path is required"));
    }
    let path = target.path(&target.query.path)?;
    let mut file = target.open(&path).await?;
    while let Some(chunk) = next(chunks).await {
        let chunk = chunk.map_err(unreadable)?;
        file.write(chunk).await.map_err(|error| failure(&path, &error))?;
    }
    target.finish(file, &path).await.map(|entry| vec![entry])
}

/// Every part named `file` is one. It goes to the query's path if there is one, else to its own file name, which
/// may have directories.
async fn form(target: &Target<'_>, mut form: Multipart<'_>) -> Result<Vec<Value>, HttpError> {
    let mut entries = Vec::new();
    let mut seen = BTreeSet::new();
    while let Some(mut part) = form.next_field().await.map_err(bad_form)? {
        if part.name() != Some("file") {
            continue;
        }
        let name = match (target.query.path.as_str(), part.file_name()) {
            ("", None | Some("")) => {
                return Err(HttpError::bad_request("a part has no file name, and there is no path"));
            }
            ("", Some(name)) => name,
            (path, _) => path,
        };
        let path = target.path(name)?;
        if !seen.insert(path.clone()) {
            return Err(HttpError::bad_request(format!("path '{}' is given twice", path.display())));
        }
        let mut file = target.open(&path).await?;
        while let Some(chunk) = part.chunk().await.map_err(bad_form)? {
            file.write(chunk).await.map_err(|error| failure(&path, &error))?;
        }
        entries.push(target.finish(file, &path).await?);
    }
    Ok(entries)
}

impl Target<'_> {
    fn path(&self, path: &str) -> Result<PathBuf, HttpError> {
        resolve(path, self.user, self.default_workdir).map_err(HttpError::bad_request)
    }

    async fn open(&self, path: &Path) -> Result<Writer, HttpError> {
        let opened = Writer::open(self.turns, path, self.user, &self.metadata).await;
        opened.map_err(|error| failure(path, &error))
    }

    /// Waits for the last write, whose error counts as well.
    async fn finish(&self, file: Writer, path: &Path) -> Result<Value, HttpError> {
        file.finish().await.map_err(|error| failure(path, &error))?;
        let name = path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
        let mut entry = json!({ "path": path.to_string_lossy(), "name": name, "type": "file" });
        if !self.metadata.is_empty() {
            entry["metadata"] = json!(self.metadata);
        }
        Ok(entry)
    }
}

async fn next(chunks: &mut Chunks<'_>) -> Option<io::Result<Bytes>> {
    std::future::poll_fn(|context| std::pin::Pin::new(&mut *chunks).poll_next(context)).await
}

fn unreadable(error: io::Error) -> HttpError {
    HttpError::bad_request(format!("the body cannot be read: {error}"))
}

fn bad_form(error: multer::Error) -> HttpError {
    HttpError::bad_request(format!("bad form: {error}"))
}
