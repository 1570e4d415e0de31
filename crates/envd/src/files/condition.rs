//! Which part of a file a request wants, and whether at all (RFC 9110 §13 and §14). There are no entity tags: files
//! are told apart by their time, in whole seconds.

use std::time::{Duration, SystemTime};

use hyper::header::HeaderMap;

#[derive(Debug, PartialEq)]
pub enum Wanted {
    Whole,
    Part {
        start: u64,
        length: u64,
    },
    /// 304.
    NotModified,
    /// 412.
    Refused,
    /// 416.
    Unsatisfiable,
}

const NAMES: [&str; 6] =
    ["range", "if-match", "if-none-match", "if-modified-since", "if-unmodified-since", "if-range"];

pub fn has_any(headers: &HeaderMap) -> bool {
    NAMES.iter().any(|name| headers.contains_key(*name))
}

/// A file of `size_bytes`, which are not 0. What cannot be understood is passed over.
pub fn wanted(headers: &HeaderMap, size_bytes: u64, modified: SystemTime) -> Wanted {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let date = |name: &str| text(name).and_then(|text| httpdate::parse_http_date(text).ok());
    let age = modified.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let modified = SystemTime::UNIX_EPOCH + Duration::from_secs(age.as_secs());

    let has_other_tag = text("if-match").is_some_and(|tags| tags != "*");
    let is_newer =
        text("if-match").is_none() && date("if-unmodified-since").is_some_and(|date| modified > date);
    if has_other_tag || is_newer {
        return Wanted::Refused;
    }
    let is_known = match text("if-none-match") {
        Some(tags) => tags == "*",
        None => date("if-modified-since").is_some_and(|date| modified <= date),
    };
    if is_known {
        return Wanted::NotModified;
    }
    let is_same = text("if-range").is_none() || date("if-range") == Some(modified);
    match text("range") {
        Some(range) if is_same => part(range, size_bytes),
        _ => Wanted::Whole,
    }
}

/// One range of bytes; of several the whole is sent.
fn part(range: &str, size_bytes: u64) -> Wanted {
    let Some((first, last)) = range.strip_prefix("bytes=").and_then(|range| range.split_once('-')) else {
        return Wanted::Whole;
    };
    let number = |text: &str| text.trim().parse::<u64>().ok();
    let (start, end) = match (number(first), number(last)) {
        (Some(start), Some(last)) if last >= start => (start, last.saturating_add(1).min(size_bytes)),
        (Some(start), None) if last.trim().is_empty() => (start, size_bytes),
        (None, Some(length)) if first.trim().is_empty() => (size_bytes.saturating_sub(length), size_bytes),
        _ => return Wanted::Whole,
    };
    match start < end {
        true => Wanted::Part { start, length: end - start },
        false => Wanted::Unsatisfiable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(pairs: &[(&'static str, &str)]) -> Wanted {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.insert(*name, value.parse().unwrap());
        }
        let modified = httpdate::parse_http_date(SAME).unwrap() + Duration::from_millis(500);
        wanted(&headers, 10, modified)
    }

    const BEFORE: &str = "Sun, 22 Nov 2026 10:00:00 GMT";
    const SAME: &str = "Mon, 23 Nov 2026 10:00:00 GMT";

    #[test]
    fn a_range_is_one_part_of_the_file() {
        let range = |text: &str| ask(&[("range", text)]);
        let part = |start, length| Wanted::Part { start, length };
        assert_eq!(range("bytes=0-0"), part(0, 1));
        assert_eq!(range("bytes=2-5"), part(2, 4));
        assert_eq!(range("bytes=2-"), part(2, 8));
        assert_eq!(range("bytes=-3"), part(7, 3));
        assert_eq!(range("bytes=-30"), part(0, 10));
        assert_eq!(range("bytes=9-99999999999999999999"), Wanted::Whole);
        assert_eq!(range("bytes=9-18446744073709551615"), part(9, 1));
        for text in ["bytes=10-", "bytes=10-11", "bytes=-0"] {
            assert_eq!(range(text), Wanted::Unsatisfiable, "{text}");
        }
        for text in ["bytes=5-2", "bytes=-", "bytes=a-b", "lines=1-2", "bytes=0-1,3-4", "bytes"] {
            assert_eq!(range(text), Wanted::Whole, "{text}");
        }
    }

    #[test]
    fn conditions_hold_to_the_second() {
        assert_eq!(ask(&[("if-modified-since", SAME)]), Wanted::NotModified);
        assert_eq!(ask(&[("if-modified-since", BEFORE)]), Wanted::Whole);
        assert_eq!(ask(&[("if-modified-since", SAME), ("if-none-match", "\"x\"")]), Wanted::Whole);
        assert_eq!(ask(&[("if-none-match", "*")]), Wanted::NotModified);
        assert_eq!(ask(&[("if-unmodified-since", SAME)]), Wanted::Whole);
        assert_eq!(ask(&[("if-unmodified-since", BEFORE)]), Wanted::Refused);
        assert_eq!(ask(&[("if-match", "\"x\"")]), Wanted::Refused);
        assert_eq!(ask(&[("if-match", "*")]), Wanted::Whole);
        let range = ("range", "bytes=1-1");
        assert_eq!(ask(&[range, ("if-range", SAME)]), Wanted::Part { start: 1, length: 1 });
        assert_eq!(ask(&[range, ("if-range", BEFORE)]), Wanted::Whole);
        assert_eq!(ask(&[range, ("if-range", "\"x\"")]), Wanted::Whole);
    }
}
