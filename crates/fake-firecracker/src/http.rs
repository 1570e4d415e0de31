//! HTTP/1.1 messages out of and into bytes, for the API and for the guest.

/// A request with its whole body.
pub struct Request {
    pub method: String,
    pub path: String,
    headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

pub enum BadRequest {
    Malformed,
    /// Of the body, whose last `rest_bytes` are still to come.
    TooLarge {
        size_bytes: usize,
        rest_bytes: usize,
    },
}

const HEADERS_MAX: usize = 64;
const HEAD_BYTES_MAX: usize = 16 * 1024;

impl Request {
    /// The value of a header, whose name is given in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Takes the first request off `buffer`; `None` until it is there as a whole.
    pub fn take(buffer: &mut Vec<u8>, body_bytes_max: usize) -> Result<Option<Request>, BadRequest> {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut head = httparse::Request::new(&mut headers);
        let start = match head.parse(buffer) {
            Ok(httparse::Status::Complete(bytes)) => bytes,
            Ok(httparse::Status::Partial) if buffer.len() <= HEAD_BYTES_MAX => return Ok(None),
            _ => return Err(BadRequest::Malformed),
        };
        let named = |header: &httparse::Header<'_>| {
            (header.name.to_ascii_lowercase(), String::from_utf8_lossy(header.value).into_owned())
        };
        let mut request = Request {
            method: head.method.unwrap_or_default().into(),
            path: head.path.unwrap_or_default().into(),
            headers: head.headers.iter().map(named).collect(),
            body: Vec::new(),
        };
        let chunked =
            request.header("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked"));
        let body = if chunked {
            unchunk(&buffer[start..], body_bytes_max)?
        } else {
            let size_bytes = match request.header("content-length").map(str::parse) {
                None => 0,
                Some(Ok(size_bytes)) => size_bytes,
                Some(Err(_)) => return Err(BadRequest::Malformed),
            };
            if size_bytes > body_bytes_max {
                let rest_bytes = (start + size_bytes).saturating_sub(buffer.len());
                return Err(BadRequest::TooLarge { size_bytes, rest_bytes });
            }
            buffer.get(start..start + size_bytes).map(|body| (body.to_vec(), size_bytes))
        };
        let Some((body, taken)) = body else { return Ok(None) };
        request.body = body;
        buffer.drain(..start + taken);
        Ok(Some(request))
    }
}

/// The body in chunks and how many bytes they took; `None` until the last one is there.
fn unchunk(mut rest: &[u8], body_bytes_max: usize) -> Result<Option<(Vec<u8>, usize)>, BadRequest> {
    let whole = rest.len();
    let mut body = Vec::new();
    loop {
        let (start, size) = match httparse::parse_chunk_size(rest) {
            Ok(httparse::Status::Complete(found)) => found,
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(_) => return Err(BadRequest::Malformed),
        };
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        if body.len().saturating_add(size) > body_bytes_max {
            return Err(BadRequest::TooLarge { size_bytes: size, rest_bytes: 0 });
        }
        let Some(chunk) = rest.get(start..start + size + 2) else { return Ok(None) };
        body.extend_from_slice(&chunk[..size]);
        rest = &rest[start + size + 2..];
        if size == 0 {
            return Ok(Some((body, whole - rest.len())));
        }
    }
}

/// The head of an answer; `length` of `None` announces chunks.
pub fn head(status: u16, headers: &[(&str, &str)], length: Option<usize>) -> Vec<u8> {
    let mut text = format!("HTTP/1.1 {status} {}\r\n", phrase(status));
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    match length {
        // A body is forbidden there, and so is its length.
        Some(0) if status == 204 => {}
        Some(bytes) => text.push_str(&format!("Content-Length: {bytes}\r\n")),
        None => text.push_str("Transfer-Encoding: chunked\r\n"),
    }
    text.push_str("\r\n");
    text.into_bytes()
}

pub fn answer(status: u16, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut bytes = head(status, headers, Some(body.len()));
    bytes.extend_from_slice(body);
    bytes
}

/// One chunk; an empty one ends the body.
pub fn chunk(bytes: &[u8]) -> Vec<u8> {
    let mut chunk = format!("{:x}\r\n", bytes.len()).into_bytes();
    chunk.extend_from_slice(bytes);
    chunk.extend_from_slice(b"\r\n");
    chunk
}

fn phrase(status: u16) -> &'static str {
    match status {
        200 => "OK",
        204 => "No Content",
        400 => "Bad Request",
        401 => "Unauthorized",
        404 => "Not Found",
        405 => "Method Not Allowed",
        415 => "Unsupported Media Type",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        _ => "Internal Server Error",
    }
}
