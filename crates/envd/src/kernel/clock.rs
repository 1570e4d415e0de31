//! The wall clock.

use std::io;

use rustix::time::{ClockId, Timespec, clock_gettime, clock_settime};

/// Nanoseconds since 1970, UTC.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Timestamp(pub i128);

const SECOND: i128 = 1_000_000_000;
/// A step that is not worth the surprise: what a message from the host takes to arrive.
const BEHIND_MAX: i128 = SECOND / 50;
const AHEAD_MAX: i128 = SECOND / 2;

impl Timestamp {
    /// RFC 3339 with any number of decimals and any offset.
    pub fn parse(text: &str) -> Option<Timestamp> {
        let (date, time) = text.split_once(['T', 't', ' '])?;
        let (time, offset) = split_offset(time)?;
        let [year, month, day] = numbers(date, '-')?;
        let (time, decimals) = time.split_once('.').unwrap_or((time, "0"));
        let [hour, minute, second] = numbers(time, ':')?;
        let valid =
            (1..=12).contains(&month) && (1..=31).contains(&day) && hour < 24 && minute < 60 && second <= 60;
        if !valid || year < 1970 || decimals.is_empty() || !decimals.bytes().all(|c| c.is_ascii_digit()) {
            return None;
        }
        let nanoseconds: i128 = format!("{decimals:0<9}")[..9].parse().ok()?;
        let seconds =
            days_since_1970(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - offset;
        Some(Timestamp(i128::from(seconds) * SECOND + nanoseconds))
    }
}

impl Timestamp {
    pub fn of_micros(since_1970: u64) -> Timestamp {
        Timestamp(i128::from(since_1970) * 1000)
    }

    pub fn of(seconds: i64, nanoseconds: u32) -> Timestamp {
        Timestamp(i128::from(seconds) * SECOND + i128::from(nanoseconds))
    }

    /// RFC 3339 in UTC; times outside the years 1 to 9999 are told as the nearest within.
    pub fn to_rfc3339(self) -> String {
        let nanoseconds = self.0.rem_euclid(SECOND);
        let seconds = (self.0.div_euclid(SECOND) as i64).clamp(-62_135_596_800, 253_402_300_799);
        let (year, month, day) = date(seconds.div_euclid(86_400));
        let time = seconds.rem_euclid(86_400);
        let (hour, minute, second) = (time / 3600, time / 60 % 60, time % 60);
        format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{nanoseconds:09}Z")
    }
}

/// The reverse of `days_since_1970`: in eras of 400 years, counted from March of the year 0.
fn date(days_since_1970: i64) -> (i64, i64, i64) {
    let days = days_since_1970 + 719_468;
    let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day_of_month = day - (153 * month + 2) / 5 + 1;
    let (year, month) = if month < 10 { (year, month + 3) } else { (year + 1, month - 9) };
    (year + era * 400, month, day_of_month)
}

fn numbers(text: &str, separator: char) -> Option<[i64; 3]> {
    let mut parts = text
        .split(separator)
        .map(|part| part.bytes().all(|c| c.is_ascii_digit()).then_some(part)?.parse().ok());
    let three = [parts.next()??, parts.next()??, parts.next()??];
    parts.next().is_none().then_some(three)
}

/// The time of day without its zone, and the zone in seconds east of UTC.
fn split_offset(time: &str) -> Option<(&str, i64)> {
    if let Some(time) = time.strip_suffix(['Z', 'z']) {
        return Some((time, 0));
    }
    let at = time.rfind(['+', '-'])?;
    let (hours, minutes) = time[at + 1..].split_once(':')?;
    let seconds = hours.parse::<u32>().ok()? * 3600 + minutes.parse::<u32>().ok()? * 60;
    let sign = if time.as_bytes()[at] == b'-' { -1 } else { 1 };
    Some((&time[..at], sign * i64::from(seconds)))
}

/// Gregorian calendar; the year is counted from March, so that the leap day comes last.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let leap_days = year / 4 - year / 100 + year / 400;
    year * 365 + leap_days + (month * 153 + 2) / 5 + day - 1 - 719_468
}

/// Sets the clock to the host's time, unless it is that already but for the way here.
pub fn set_clock(time: Timestamp) -> io::Result<()> {
    let now = clock_gettime(ClockId::Realtime);
    let now = i128::from(now.tv_sec) * SECOND + i128::from(now.tv_nsec);
    if now - time.0 <= AHEAD_MAX && time.0 - now <= BEHIND_MAX {
        return Ok(());
    }
    let time = Timespec { tv_sec: (time.0 / SECOND) as i64, tv_nsec: (time.0 % SECOND) as _ };
    Ok(clock_settime(ClockId::Realtime, time)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_are_read_as_rfc_3339_says() {
        let seconds = |text: &str| Timestamp::parse(text).map(|time| time.0 / SECOND);
        assert_eq!(seconds("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(seconds("2000-02-29T12:00:00Z"), Some(951_825_600));
        assert_eq!(seconds("2026-11-23T18:48:09.123456789Z"), Some(1_795_459_689));
        assert_eq!(seconds("2026-11-23T19:48:09.5+01:00"), Some(1_795_459_689));
        assert_eq!(Timestamp::parse("1970-01-01T00:00:01.25Z"), Some(Timestamp(1_250_000_000)));
        for text in
            ["1970-01-01T00:00:00.000000000Z", "2000-02-29T23:59:59.000000001Z", "2100-03-01T12:30:00.5Z"]
        {
            let time = Timestamp::parse(text).unwrap();
            assert_eq!(Timestamp::parse(&time.to_rfc3339()), Some(time), "{text}");
        }
        assert_eq!(Timestamp::of_micros(1_250_000), Timestamp(1_250_000_000));
        assert_eq!(Timestamp::of(951_825_600, 5).to_rfc3339(), "2000-02-29T12:00:00.000000005Z");
        assert_eq!(Timestamp::of(-1, 0).to_rfc3339(), "1969-12-31T23:59:59.000000000Z");
        assert_eq!(Timestamp::of(i64::MAX, 0).to_rfc3339(), "9999-12-31T23:59:59.000000000Z");
        for bad in [
            "",
            "now",
            "2026-13-01T00:00:00Z",
            "2026-01-01T00:00:00",
            "2026-01-01T00:00:00.Z",
            "+1-1-1T0:0:0Z",
        ] {
            assert_eq!(Timestamp::parse(bad), None, "{bad}");
        }
    }
}
