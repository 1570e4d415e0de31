//! `GET /files`: a file's bytes, read as the client takes them.

use std::fs::{File, Metadata};
use std::io::{self, SeekFrom, Write};
use std::path::Path;

use bytes::{Bytes, BytesMut};
use flate2::Compression;
use flate2::write::GzEncoder;
use hyper::header::{
    ACCEPT_RANGES, CONTENT_DISPOSITION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE,
    HeaderMap, HeaderValue, LAST_MODIFIED, VARY,
};
use hyper::{Response, StatusCode};
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio::sync::mpsc;

use super::coding::{self, Coding};
use super::condition::{self, Wanted};
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
    let path = resolve(&query.path, user, default_workdir).map_err(HttpError::bad_request)?;
    let opening = path.clone();
    let opened = tokio::task::spawn_blocking(move || open::for_reading(&opening)).await;
    let (file, found) =
        opened.unwrap_or_else(|error| Err(error.into())).map_err(|error| not_found(&path, &error))?;
    let mut response = answer(headers, file, &found).await.map_err(|error| match error {
        Failure::Refused(refusal) => refusal,
        Failure::Unreadable(error) => failure(&path, &error),
    })?;
    describe(&mut response, &path);
    if found.len() > 0
        && let Ok(modified) = found.modified()
        && let Ok(value) = HeaderValue::from_str(&httpdate::fmt_http_date(modified))
    {
        response.headers_mut().insert(LAST_MODIFIED, value);
    }
    Ok(response)
}

enum Failure {
    Refused(HttpError),
    Unreadable(io::Error),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        Failure::Unreadable(error)
    }
}

async fn answer(headers: &HeaderMap, file: File, found: &Metadata) -> Result<Response<Body>, Failure> {
    let refuse = |status, text: &str| Err(Failure::Refused(HttpError::new(status, text)));
    let Some(coding) = coding::choose(headers) else {
        return refuse(StatusCode::NOT_ACCEPTABLE, "no acceptable encoding");
    };
    let size_bytes = found.len();
    // Parts and conditions are about the plain bytes of a file whose size is known.
    let has_condition = size_bytes > 0 && condition::has_any(headers) && coding::accepts_identity(headers);
    let wanted = match found.modified() {
        Ok(modified) if has_condition => condition::wanted(headers, size_bytes, modified),
        _ => Wanted::Whole,
    };
    let mut file = tokio::fs::File::from_std(file);
    file.set_max_buf_size(CHUNK_BYTES);
    match wanted {
        Wanted::NotModified => {
            let mut response = Response::new(body::bytes(Bytes::new()));
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            Ok(response)
        }
        Wanted::Refused => refuse(StatusCode::PRECONDITION_FAILED, "the file is another one"),
        Wanted::Unsatisfiable => {
            let text = format!("the range is outside the file's {size_bytes} bytes");
            refuse(StatusCode::RANGE_NOT_SATISFIABLE, &text)
        }
        Wanted::Part { start, length } => {
            file.seek(SeekFrom::Start(start)).await?;
            let mut response = part(file, length).await?;
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
            let range = format!("bytes {start}-{}/{size_bytes}", start + length - 1);
            if let Ok(range) = HeaderValue::from_str(&range) {
                response.headers_mut().insert(CONTENT_RANGE, range);
            }
            Ok(response)
        }
        Wanted::Whole if coding == Coding::Gzip && !has_condition => {
            let mut response = compressed(file).await?;
            response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            Ok(response)
        }
        Wanted::Whole => {
            let mut response = whole(file, size_bytes).await?;
            if size_bytes > 0 {
                response.headers_mut().insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
            }
            Ok(response)
        }
    }
}

async fn whole(mut file: tokio::fs::File, size_bytes: u64) -> io::Result<Response<Body>> {
    let first = read_chunk(&mut file, CHUNK_BYTES).await?;
    if first.len() < CHUNK_BYTES {
        // The whole file. The size that the file system tells is not asked: it is 0 in /proc, 4096 in /sys.
        return Ok(Response::new(body::bytes(first)));
    }
    let known = (size_bytes >= first.len() as u64).then_some(size_bytes);
    Ok(streamed(file, first, known))
}

async fn part(mut file: tokio::fs::File, length: u64) -> io::Result<Response<Body>> {
    let first = read_chunk(&mut file, length.min(CHUNK_BYTES as u64) as usize).await?;
    if first.len() as u64 == length {
        return Ok(Response::new(body::bytes(first)));
    }
    Ok(streamed(file, first, Some(length)))
}

fn streamed(file: tokio::fs::File, first: Bytes, known_bytes: Option<u64>) -> Response<Body> {
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(send(file, first, known_bytes, sender));
    let mut response = Response::new(body::channel(receiver));
    if let Some(known_bytes) = known_bytes {
        response.headers_mut().insert(CONTENT_LENGTH, known_bytes.into());
    }
    response
}

async fn compressed(mut file: tokio::fs::File) -> io::Result<Response<Body>> {
    let first = read_chunk(&mut file, CHUNK_BYTES).await?;
    let encoder = GzEncoder::new(Vec::new(), Compression::fast());
    if first.len() < CHUNK_BYTES {
        let (_, packed) = pack(encoder, first, true).await?;
        return Ok(Response::new(body::bytes(packed)));
    }
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        if let Err(error) = send_packed(file, first, encoder, &sender).await {
            let _ = sender.send(Err(error)).await;
        }
    });
    Ok(Response::new(body::channel(receiver)))
}

async fn send_packed(
    mut file: tokio::fs::File,
    first: Bytes,
    mut encoder: Encoder,
    client: &mpsc::Sender<io::Result<Bytes>>,
) -> io::Result<()> {
    let mut chunk = first;
    loop {
        let is_last = chunk.len() < CHUNK_BYTES;
        let (same, packed) = pack(encoder, chunk, is_last).await?;
        encoder = same;
        if !packed.is_empty() && client.send(Ok(packed.into())).await.is_err() || is_last {
            return Ok(());
        }
        chunk = read_chunk(&mut file, CHUNK_BYTES).await?;
    }
}

type Encoder = GzEncoder<Vec<u8>>;

/// On a thread of its own: the others are served meanwhile.
async fn pack(mut encoder: Encoder, chunk: Bytes, is_last: bool) -> io::Result<(Encoder, Vec<u8>)> {
    let packing = move || {
        encoder.write_all(&chunk)?;
        if is_last {
            encoder.try_finish()?;
        }
        let packed = std::mem::take(encoder.get_mut());
        Ok((encoder, packed))
    };
    tokio::task::spawn_blocking(packing).await.unwrap_or_else(|error| Err(error.into()))
}

/// A file below what is no directory does not exist either.
fn not_found(path: &Path, error: &io::Error) -> HttpError {
    match error.kind() {
        io::ErrorKind::NotADirectory => failure(path, &io::ErrorKind::NotFound.into()),
        _ => failure(path, error),
    }
}

/// As many bytes, or less at the end of the file.
async fn read_chunk(file: &mut tokio::fs::File, length: usize) -> io::Result<Bytes> {
    let mut chunk = BytesMut::with_capacity(length);
    while chunk.len() < length {
        let room = length - chunk.len();
        if (&mut *file).take(room as u64).read_buf(&mut chunk).await? == 0 {
            break;
        }
    }
    Ok(chunk.freeze())
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
