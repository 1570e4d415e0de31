//! `GET /files`: a file's bytes, read as the client takes them.

use std::io;
use std::path::Path;

use bytes::{Bytes, BytesMut};
use hyper::header::{CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue, VARY};
use hyper::{Response, StatusCode};
use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;

use super::path::resolve;
use super::query::Query;
use super::{failure, open};
use crate::body::{self, Body};
use crate::http_error::HttpError;
use crate::user::User;

const CHUNK_BYTES: usize = 128 * 1024;

pub async fn download(
    headers: &HeaderMap,
    query: &Query,
    user: &User,
    default_workdir: Option<&str>,
) -> Result<Response<Body>, HttpError> {
    if !accepts_identity(headers) {
        return Err(HttpError::new(StatusCode::NOT_ACCEPTABLE, "no acceptable encoding"));
    }
    let path = resolve(&query.path, user, default_workdir).map_err(HttpError::bad_request)?;
    let opening = path.clone();
    let opened = tokio::task::spawn_blocking(move || open::for_reading(&opening)).await;
    let (file, size_bytes) =
        opened.unwrap_or_else(|error| Err(error.into())).map_err(|error| not_found(&path, &error))?;
    let mut file = tokio::fs::File::from_std(file);
    file.set_max_buf_size(CHUNK_BYTES);

    let first = read_first(&mut file).await.map_err(|error| failure(&path, &error))?;
    let mut response = if first.len() < CHUNK_BYTES {
        // The whole file. The size that the file system tells is not asked: it is 0 in /proc, 4096 in /sys.
        Response::new(body::bytes(first))
    } else {
        let known = (size_bytes >= first.len() as u64).then_some(size_bytes);
        let (sender, receiver) = mpsc::channel(1);
        tokio::spawn(send(file, first, known, sender));
        let mut response = Response::new(body::channel(receiver));
        if let Some(size_bytes) = known {
            response.headers_mut().insert(CONTENT_LENGTH, size_bytes.into());
        }
        response
    };
    describe(&mut response, &path);
    Ok(response)
}

/// A file below what is no directory does not exist either.
fn not_found(path: &Path, error: &io::Error) -> HttpError {
    match error.kind() {
        io::ErrorKind::NotADirectory => failure(path, &io::ErrorKind::NotFound.into()),
        _ => failure(path, error),
    }
}

/// A whole chunk, or less at the end of the file.
async fn read_first(file: &mut tokio::fs::File) -> io::Result<Bytes> {
    let mut first = BytesMut::with_capacity(CHUNK_BYTES);
    while first.len() < CHUNK_BYTES {
        let room = CHUNK_BYTES - first.len();
        if (&mut *file).take(room as u64).read_buf(&mut first).await? == 0 {
            break;
        }
    }
    Ok(first.freeze())
}

/// Ends when the client leaves. A file that shrinks under the reader cuts the connection.
async fn send(
    mut file: tokio::fs::File,
    first: Bytes,
    known_bytes: Option<u64>,
    client: mpsc::Sender<io::Result<Bytes>>,
) {
    let mut left = known_bytes.map(|size| size - first.len() as u64);
    if client.send(Ok(first)).await.is_err() {
        return;
    }
    while left != Some(0) {
        let mut chunk = BytesMut::with_capacity(CHUNK_BYTES);
        let limit = left.map_or(CHUNK_BYTES as u64, |left| left.min(CHUNK_BYTES as u64));
        let chunk = match (&mut file).take(limit).read_buf(&mut chunk).await {
            Ok(0) if left.is_none() => return,
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => Ok(chunk.freeze()),
            Err(error) => Err(error),
        };
        left = left.map(|left| left - chunk.as_ref().map_or(0, |chunk| chunk.len() as u64));
        let failed = chunk.is_err();
        if client.send(chunk).await.is_err() || failed {
            return;
        }
    }
}

fn describe(response: &mut Response<Body>, path: &Path) {
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(VARY, HeaderValue::from_static("Accept-Encoding"));
    let name = path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
    let plain: String =
        name.chars().map(|c| if c.is_ascii_graphic() && c != '"' && c != '\\' { c } else { '_' }).collect();
    let encoded: String = name.bytes().map(percent).collect();
    let value = match plain == name {
        true => format!("inline; filename=\"{plain}\""),
        false => format!("inline; filename=\"{plain}\"; filename*=UTF-8''{encoded}"),
    };
    if let Ok(value) = HeaderValue::from_str(&value) {
        headers.insert(CONTENT_DISPOSITION, value);
    }
}

/// As RFC 5987 writes names.
fn percent(byte: u8) -> String {
    match byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02X}"),
    }
}

/// False only when the client rules it out (RFC 9110 §12.5.3).
fn accepts_identity(headers: &HeaderMap) -> bool {
    let Some(value) = headers.get("accept-encoding").and_then(|value| value.to_str().ok()) else {
        return true;
    };
    let zero = |name: &str| {
        value.split(',').any(|part| {
            let (coding, quality) = part.split_once(';').unwrap_or((part, ""));
            let quality = quality.trim().strip_prefix("q=").and_then(|q| q.parse::<f32>().ok());
            coding.trim().eq_ignore_ascii_case(name) && quality == Some(0.0)
        })
    };
    let named = value.split(',').any(|part| part.trim().to_ascii_lowercase().starts_with("identity"));
    !zero("identity") && (named || !zero("*"))
}
