//! The query of a `/files` URL.

/// The fields that `/files` knows; a missing one is empty.
#[derive(Debug, Default, PartialEq)]
pub struct Query {
    pub path: String,
    pub username: String,
    pub signature: Option<String>,
    pub signature_expiration: Option<String>,
}

impl Query {
    /// The error is for the client.
    pub fn parse(text: &str) -> Result<Query, String> {
        let mut query = Query::default();
        for pair in text.split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = || decode(value).ok_or_else(|| format!("the query's {name} is not UTF-8"));
            match name {
                "path" => query.path = value()?,
                "username" => query.username = value()?,
                "signature" => query.signature = Some(value()?),
                "signature_expiration" => query.signature_expiration = Some(value()?),
                _ => {}
            }
        }
        Ok(query)
    }
}

/// `%20` and `+` are both a space: clients use either.
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let hex = |digits: &[u8]| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok();
        match (first, tail) {
            (b'%', [high, low, tail @ ..]) if high.is_ascii_hexdigit() => {
                bytes.push(hex(&[*high, *low])?);
                rest = tail;
            }
            (b'+', _) => {
                bytes.push(b' ');
                rest = tail;
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spaces_and_slashes_arrive_in_both_forms() {
        let query = Query::parse("path=%2Fa+b%20c&username=user&x=1&signature=v1_a%2B").unwrap();
        assert_eq!((query.path.as_str(), query.username.as_str()), ("/a b c", "user"));
        assert_eq!(query.signature.as_deref(), Some("v1_a+"));
        assert_eq!(Query::parse("").unwrap(), Query::default());
        assert_eq!(Query::parse("path=100%&username").unwrap().path, "100%");
        assert!(Query::parse("path=%ff").is_err());
    }
}
