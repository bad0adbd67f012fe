//! Numbers and times as text, without allocation and without floating point.

use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::core::count::micros;

/// Appends a whole number.
pub(crate) fn write_integer(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// Appends an address.
pub(crate) fn write_ip(out: &mut Vec<u8>, ip: IpAddr) {
    use std::io::Write as _;
    match ip {
        IpAddr::V4(v4) => {
            for (position, octet) in v4.octets().into_iter().enumerate() {
                if position > 0 {
                    out.push(b'.');
                }
                write_integer(out, u64::from(octet));
            }
        }
        // Formats without allocating; writing into a vector cannot fail.
        IpAddr::V6(v6) => drop(write!(out, "{v6}")),
    }
}

/// Appends milliseconds with three decimals.
pub(crate) fn write_millis(out: &mut Vec<u8>, duration: Duration) {
    let micros = micros(duration);
    let rest = (micros % 1000) as u32;
    write_integer(out, micros / 1000);
    out.extend_from_slice(&[b'.', digit(rest / 100), digit(rest / 10), digit(rest)]);
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
    write_pair(out, year / 100);
    write_pair(out, year % 100);
    out.push(b'-');
    write_pair(out, month);
    out.push(b'-');
    write_pair(out, day);
    out.push(b'T');
    write_pair(out, of_day / 3600);
    out.push(b':');
    write_pair(out, of_day / 60 % 60);
    out.push(b':');
    write_pair(out, of_day % 60);
    out.push(b'.');
    write_pair(out, micros / 10_000);
    write_pair(out, micros / 100 % 100);
    write_pair(out, micros % 100);
    out.push(b'Z');
}

/// 9999-12-31T23:59:59Z.
const LAST_SECOND: u64 = 253_402_300_799;

/// Two digits of a number below 100.
fn write_pair(out: &mut Vec<u8>, value: u32) {
    out.extend_from_slice(&[digit(value / 10), digit(value)]);
}

/// The last digit of a number.
fn digit(value: u32) -> u8 {
    b'0' + (value % 10) as u8
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
    fn addresses_look_as_always() {
        for ip in ["192.0.2.7", "0.0.0.0", "255.255.255.255", "::1", "2001:db8::ff00:42:8329"] {
            assert_eq!(text(|out| write_ip(out, ip.parse().expect("an address"))), ip);
        }
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
