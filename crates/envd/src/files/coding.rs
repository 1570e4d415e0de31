//! In which coding a file is sent (RFC 9110 §12.5.3).

use hyper::header::HeaderMap;

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Coding {
    Identity,
    Gzip,
}

struct Accepted(Vec<(String, f32)>);

impl Accepted {
    fn of(headers: &HeaderMap) -> Accepted {
        let values = headers.get_all("accept-encoding").iter().filter_map(|value| value.to_str().ok());
        Accepted(values.flat_map(|value| value.split(',')).filter_map(parse).collect())
    }

    fn quality(&self, names: &[&str]) -> Option<f32> {
        let named = self.0.iter().find(|(name, _)| names.contains(&name.as_str()));
        named.map(|(_, quality)| *quality)
    }

    fn identity(&self) -> bool {
        self.quality(&["identity"]).or(self.quality(&["*"])) != Some(0.0)
    }
}

/// False only when the client rules it out.
pub fn accepts_identity(headers: &HeaderMap) -> bool {
    Accepted::of(headers).identity()
}

/// None: the client takes neither. Compressed only for a client that asks for just that, or ranks it higher: the
/// usual `gzip, deflate` of HTTP libraries says what they understand, and compressing costs the guest's CPU.
pub fn choose(headers: &HeaderMap) -> Option<Coding> {
    let accepted = Accepted::of(headers);
    let gzip = accepted.quality(&["gzip", "x-gzip"]).or(accepted.quality(&["*"])).unwrap_or(0.0);
    let is_alone = accepted.0.len() == 1 && accepted.quality(&["gzip", "x-gzip"]).is_some();
    let ranks_higher = accepted.quality(&["identity"]).is_some_and(|identity| identity < gzip);
    match (accepted.identity(), gzip > 0.0) {
        (true, true) if is_alone || ranks_higher => Some(Coding::Gzip),
        (true, _) => Some(Coding::Identity),
        (false, true) => Some(Coding::Gzip),
        (false, false) => None,
    }
}

fn parse(part: &str) -> Option<(String, f32)> {
    let (name, quality) = part.split_once(';').unwrap_or((part, ""));
    let quality = quality.trim().strip_prefix("q=").and_then(|q| q.trim().parse().ok());
    let name = name.trim().to_ascii_lowercase();
    (!name.is_empty()).then_some((name, quality.unwrap_or(1.0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_compressed_when_asked_for() {
        let chosen = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("accept-encoding", value.parse().unwrap());
            choose(&headers)
        };
        assert_eq!(choose(&HeaderMap::new()), Some(Coding::Identity));
        for value in
            ["", "gzip, deflate", "br", "*", "identity", "gzip, identity", "gzip;q=0", "gzip;q=0.5, identity"]
        {
            assert_eq!(chosen(value), Some(Coding::Identity), "{value}");
        }
        for value in [
            "gzip",
            "GZIP;q=0.5",
            "gzip, identity;q=0.5",
            "gzip, identity;q=0",
            "gzip, *;q=0",
            "*, identity;q=0",
        ] {
            assert_eq!(chosen(value), Some(Coding::Gzip), "{value}");
        }
        for value in ["br, identity;q=0", "*;q=0", "gzip;q=0, identity;q=0"] {
            assert_eq!(chosen(value), None, "{value}");
        }
    }
}
