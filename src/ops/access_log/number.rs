//! Numbers and times as text, without allocation and without floating point.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Appends a whole number.
pub(crate) fn write_integer(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// Appends milliseconds with three decimals.
pub(crate) fn write_millis(out: &mut Vec<u8>, duration: Duration) {
    let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    write_integer(out, micros / 1000);
    out.push(b'.');
    write_digits(out, (micros % 1000) as u32, 3);
}

/// Appends a point in time as RFC 3339 with microseconds, in UTC. Clocks set before 1970 show 1970; after 9999, the
/// last microsecond of 9999.
pub(crate) fn write_time(out: &mut Vec<u8>, time: SystemTime) {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (seconds, micros) = match since.as_secs() {
        seconds @ 0..=LAST_SECOND => (seconds, since.subsec_micros()),
        _ => (LAST_SECOND, 999_999),
    };
    let (year, month, day) = civil_date((seconds / 86_400) as u32);
    let of_day = (seconds % 86_400) as u32;
    write_digits(out, year, 4);
    out.push(b'-');
    write_digits(out, month, 2);
    out.push(b'-');
    write_digits(out, day, 2);
    out.push(b'T');
    write_digits(out, of_day / 3600, 2);
    out.push(b':');
    write_digits(out, of_day / 60 % 60, 2);
    out.push(b':');
    write_digits(out, of_day % 60, 2);
    out.push(b'.');
    write_digits(out, micros, 6);
    out.push(b'Z');
}

/// 9999-12-31T23:59:59Z.
const LAST_SECOND: u64 = 253_402_300_799;

/// Exactly `count` digits of `value`, with leading zeros.
fn write_digits(out: &mut Vec<u8>, value: u32, count: u32) {
    for position in (0..count).rev() {
        out.push(b'0' + (value / 10_u32.pow(position) % 10) as u8);
    }
}

/// Year, month and day of so many days after 1970-01-01. Years begin in March here, so that the leap day is the last
/// day of one and the lengths of the months before it follow one line; eras of 400 years have 146,097 days.
fn civil_date(days: u32) -> (u32, u32, u32) {
    let shifted = days + 719_468; // since 0000-03-01
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = year_of_era + era * 400 + u32::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).expect("digits")
    }

    fn time(seconds: u64, micros: u64) -> String {
        let time = UNIX_EPOCH + Duration::from_secs(seconds) + Duration::from_micros(micros);
        text(|out| write_time(out, time))
    }

    #[test]
    fn times_are_rfc_3339_in_utc() {
        assert_eq!(time(0, 0), "1970-01-01T00:00:00.000000Z");
        assert_eq!(time(951_782_400, 5), "2000-02-29T00:00:00.000005Z");
        assert_eq!(time(1_709_251_199, 999_999), "2024-02-29T23:59:59.999999Z");
        assert_eq!(time(1_709_251_200, 0), "2024-03-01T00:00:00.000000Z");
        assert_eq!(time(4_107_542_400, 0), "2100-03-01T00:00:00.000000Z");
        assert_eq!(time(LAST_SECOND + 5, 0), "9999-12-31T23:59:59.999999Z");
        assert_eq!(text(|out| write_time(out, UNIX_EPOCH - Duration::from_secs(9))), "1970-01-01T00:00:00.000000Z");
    }

    #[test]
    fn every_day_follows_the_one_before_it() {
        let mut expected = (1970, 1, 1);
        for days in 0..160_000 {
            assert_eq!(civil_date(days), expected);
            let (year, month, day) = expected;
            let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            let length = match month {
                2 => 28 + u32::from(leap),
                4 | 6 | 9 | 11 => 30,
                _ => 31,
            };
            expected = match (day == length, month) {
                (true, 12) => (year + 1, 1, 1),
                (true, _) => (year, month + 1, 1),
                (false, _) => (year, month, day + 1),
            };
        }
    }

    #[test]
    fn durations_are_milliseconds_with_three_decimals() {
        assert_eq!(text(|out| write_millis(out, Duration::ZERO)), "0.000");
        assert_eq!(text(|out| write_millis(out, Duration::from_nanos(1_234_999))), "1.234");
        assert_eq!(text(|out| write_millis(out, Duration::from_secs(300))), "300000.000");
        assert_eq!(text(|out| write_millis(out, Duration::MAX)), "18446744073709551.615");
    }
}
