//! The `Retry-After` header: a number of seconds, or a date.

use std::time::Duration;

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// How long to wait from `now`, in seconds since 1970; `None` for what is neither a number nor a date. A date in
/// the past is no wait.
pub(super) fn parse(value: &str, now: u64) -> Option<Duration> {
    let value = value.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let at = date(value)?;
    Some(Duration::from_secs(at.saturating_sub(now)))
}

/// Seconds since 1970 of a date as HTTP writes it today: `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110, 5.6.7).
fn date(text: &str) -> Option<u64> {
    let (_day_name, rest) = text.split_once(", ")?;
    let mut parts = rest.split(' ');
    let day: u64 = parts.next()?.parse().ok().filter(|day| (1..=31).contains(day))?;
    let month_name = parts.next()?;
    let month = MONTHS.iter().position(|month| *month == month_name)?;
    let year: u64 = parts.next()?.parse().ok().filter(|year| (1970..=9999).contains(year))?;
    let mut clock = parts.next()?.split(':').map(|number| number.parse::<u64>().ok().filter(|n| *n <= 60));
    let (hour, minute, second) = (clock.next()??, clock.next()??, clock.next()??);
    (parts.next() == Some("GMT")).then_some(())?;
    let days = days_since_1970(year, month as u64, day);
    Some(((days * 24 + hour) * 60 + minute) * 60 + second)
}

/// Days from 1970-01-01 to a day of the Gregorian calendar; `month` counts from 0.
fn days_since_1970(year: u64, month: u64, day: u64) -> u64 {
    // A year that begins in March has its leap day at the end, and months whose lengths follow a line.
    let (year, month) = if month < 2 { (year - 1, month + 10) } else { (year, month - 2) };
    let before_year = year * 365 + year / 4 - year / 100 + year / 400;
    let before_month = (153 * month + 2) / 5;
    before_year + before_month + day - 1 - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_and_dates_are_understood_and_nothing_else() {
        let now = 784_111_777; // Sun, 06 Nov 1994 08:49:37 GMT
        assert_eq!(parse("120", now), Some(Duration::from_secs(120)));
        assert_eq!(parse("Sun, 06 Nov 1994 08:49:47 GMT", now), Some(Duration::from_secs(10)));
        assert_eq!(parse("Tue, 29 Feb 2000 00:00:00 GMT", 951_782_399), Some(Duration::from_secs(1)));
        assert_eq!(parse("Thu, 01 Jan 1970 00:00:00 GMT", now), Some(Duration::ZERO));
        for text in
            ["", "-1", "1.5", "soon", "Sun, 06 Nov 94", "Sun, 99 Nov 1994 08:49:37 GMT", "é, é é é é é"]
        {
            assert_eq!(parse(text, now), None, "{text:?}");
        }
    }
}
