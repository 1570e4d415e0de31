//! Which Firecracker to be, and what came with which release.

use std::fmt;

/// A release, with what follows its numbers (`-dev`).
#[derive(Clone, Debug)]
pub struct Version {
    numbers: (u32, u32, u32),
    text: String,
}

const NEWEST: &str = "1.17.0-dev";
const VARIABLE: &str = "FAKE_FIRECRACKER_VERSION";

/// Fields of bodies and the release (1.x) that brought them.
const FIELDS: &[(&str, &str, u32)] = &[
    ("metrics", "emit_id", 17),
    ("metrics", "properties", 17),
    ("snapshot/load", "clock_realtime", 16),
    ("snapshot/load", "huge_pages", 17),
    ("snapshot/load", "network_overrides", 12),
    ("snapshot/load", "track_dirty_pages", 13),
    ("snapshot/load", "vsock_override", 16),
];

/// Values of fields.
const VARIANTS: &[(&str, &str, &str, u32)] = &[("machine-config", "huge_pages", "Transparent", 17)];

/// Paths, with all below them.
const PATHS: &[(&str, u32)] = &[("hotplug", 14), ("pmem", 14), ("serial", 14)];

impl Version {
    pub fn parse(text: &str) -> Result<Version, String> {
        let text = text.strip_prefix('v').unwrap_or(text);
        let mut numbers = text.split('-').next().unwrap_or_default().split('.').map(str::parse);
        match (numbers.next(), numbers.next(), numbers.next(), numbers.next()) {
            (Some(Ok(major)), Some(Ok(minor)), Some(Ok(patch)), None) => {
                Ok(Version { numbers: (major, minor, patch), text: text.into() })
            }
            _ => Err(format!("{text} is no version")),
        }
    }

    /// The one that the environment asks for, or the newest. Errors are a message.
    pub fn of_environment() -> Result<Version, String> {
        match std::env::var(VARIABLE) {
            Ok(text) => Version::parse(&text).map_err(|why| format!("{VARIABLE}: {why}")),
            Err(_) => Version::parse(NEWEST),
        }
    }

    pub fn has(&self, minor: u32) -> bool {
        self.numbers >= (1, minor, 0)
    }

    pub fn has_field(&self, body: &str, field: &str) -> bool {
        FIELDS.iter().all(|(of, name, since)| (*of, *name) != (body, field) || self.has(*since))
    }

    pub fn has_variant(&self, body: &str, field: &str, variant: &str) -> bool {
        VARIANTS.iter().all(|(of, name, value, since)| {
            (*of, *name, *value) != (body, field, variant) || self.has(*since)
        })
    }

    /// `first` is the first part of a path.
    pub fn has_path(&self, first: &str) -> bool {
        PATHS.iter().all(|(path, since)| *path != first || self.has(*since))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}
