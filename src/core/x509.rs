//! What the router wants to know of a certificate: whose it is, for which names, and until when.
//!
//! Only reads: whether a certificate is to be trusted is decided elsewhere, before anything of it is believed. A
//! certificate that cannot be read is `None`, never a guess, whatever bytes it is made of.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

/// See the head of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// The subject's distinguished name as RFC 4514 writes it, in ASCII; empty where there is none.
    pub subject: String,
    /// The first second of its life.
    pub not_before: SystemTime,
    /// The last second of its life.
    pub not_after: SystemTime,
    /// Alternative names that are host names, in lower case, wildcards included.
    pub dns_names: Vec<String>,
    /// Alternative names that are URIs.
    pub uris: Vec<String>,
    /// Alternative names that are e-mail addresses.
    pub emails: Vec<String>,
}

impl Certificate {
    /// Reads a certificate in DER.
    pub fn read(der: &[u8]) -> Option<Self> {
        let mut signed = Der(Der(der).take(SEQUENCE)?);
        let mut body = Der(signed.take(SEQUENCE)?);
        body.take_if(context(0));
        let (_serial, _algorithm, _issuer) = (body.take(INTEGER)?, body.take(SEQUENCE)?, body.take(SEQUENCE)?);
        let mut validity = Der(body.take(SEQUENCE)?);
        let (not_before, not_after) = (validity.time()?, validity.time()?);
        let subject = write_name(Der(body.take(SEQUENCE)?))?;
        let _public_key = body.take(SEQUENCE)?;
        let mut read =
            Self { subject, not_before, not_after, dns_names: Vec::new(), uris: Vec::new(), emails: Vec::new() };
        let (_, _) = (body.take_if(ISSUER_UID), body.take_if(SUBJECT_UID));
        if let Some(extensions) = body.take_if(context(3)) {
            let mut extensions = Der(Der(extensions).take(SEQUENCE)?);
            while !extensions.0.is_empty() {
                read.take_extension(Der(extensions.take(SEQUENCE)?))?;
            }
        }
        Some(read)
    }

    /// The name to log: the first URI, else host name, else e-mail address, else the subject.
    pub fn identity(&self) -> &str {
        [&self.uris, &self.dns_names, &self.emails].into_iter().flatten().next().unwrap_or(&self.subject)
    }

    fn take_extension(&mut self, mut extension: Der<'_>) -> Option<()> {
        let id = extension.take(OBJECT_ID)?;
        extension.take_if(BOOLEAN);
        let value = extension.take(OCTETS)?;
        if id != ALTERNATIVE_NAMES {
            return Some(());
        }
        let mut names = Der(Der(value).take(SEQUENCE)?);
        while !names.0.is_empty() {
            let (tag, name) = names.next()?;
            // Names with other characters than these cannot be told apart by everybody who reads them.
            let Some(name) = std::str::from_utf8(name).ok().filter(|name| is_graphic(name)) else { continue };
            match tag {
                EMAIL => self.emails.push(name.to_owned()),
                DNS_NAME => self.dns_names.push(name.to_ascii_lowercase()),
                URI => self.uris.push(name.to_owned()),
                _ => {}
            }
        }
        Some(())
    }
}

fn is_graphic(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())
}

// Tags of DER.
const BOOLEAN: u8 = 0x01;
const INTEGER: u8 = 0x02;
const OCTETS: u8 = 0x04;
const OBJECT_ID: u8 = 0x06;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const UTF16: u8 = 0x1e;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const ISSUER_UID: u8 = 0x81;
const SUBJECT_UID: u8 = 0x82;
// Tags of alternative names.
const EMAIL: u8 = 0x81;
const DNS_NAME: u8 = 0x82;
const URI: u8 = 0x86;

/// `subjectAltName`, 2.5.29.17.
const ALTERNATIVE_NAMES: &[u8] = &[0x55, 0x1d, 0x11];

const fn context(number: u8) -> u8 {
    0xa0 | number
}

/// What is left to read of a value in DER.
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    /// The tag and the content of the next element. Lengths of more than four bytes are more than there can be.
    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let (&tag, rest) = self.0.split_first()?;
        let (&first, mut rest) = rest.split_first()?;
        let mut length = usize::from(first & 0x7f);
        if first & 0x80 != 0 {
            let (bytes, after) = rest.split_at_checked(length).filter(|_| (1..=4).contains(&length))?;
            length = bytes.iter().fold(0, |length, &byte| length << 8 | usize::from(byte));
            rest = after;
        }
        let (content, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((tag, content))
    }

    /// The content of the next element, which must have this tag.
    fn take(&mut self, tag: u8) -> Option<&'a [u8]> {
        self.next().filter(|(found, _)| *found == tag).map(|(_, content)| content)
    }

    /// The same where it has this tag; else nothing is taken.
    fn take_if(&mut self, tag: u8) -> Option<&'a [u8]> {
        if self.0.first() == Some(&tag) { self.take(tag) } else { None }
    }

    fn time(&mut self) -> Option<SystemTime> {
        let (tag, text) = self.next()?;
        let digits = text.strip_suffix(b"Z").filter(|digits| digits.iter().all(u8::is_ascii_digit))?;
        let mut pairs = digits.chunks(2).map(|pair| pair.iter().fold(0, |n, digit| n * 10 + u64::from(digit - b'0')));
        let year = match (tag, digits.len()) {
            // RFC 5280: two digits from 50 on are of the last century.
            (UTC_TIME, 12) => pairs.next().map(|year| if year < 50 { 2000 + year } else { 1900 + year }),
            (GENERALIZED_TIME, 14) => pairs.next().and_then(|century| Some(century * 100 + pairs.next()?)),
            _ => None,
        }?;
        let [month, day, hour, minute, second] = std::array::from_fn(|_| pairs.next().unwrap_or_default());
        let seconds = days_since_1970(year, month, day)? * 86_400 + hour * 3600 + minute * 60 + second;
        SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
    }
}

/// In the Gregorian calendar; `None` before 1970 and where there is no such day.
fn days_since_1970(year: u64, month: u64, day: u64) -> Option<u64> {
    if year < 1970 || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    // Years begin in March here, so that the odd day of leap years is their last one.
    let (year, month) = if month < 3 { (year - 1, month + 9) } else { (year, month - 3) };
    let of_years = year * 365 + year / 4 - year / 100 + year / 400;
    let of_months = (month * 153 + 2) / 5;
    (of_years + of_months + day).checked_sub(719_469)
}

/// RFC 4514: from the most to the least specific, joined by commas.
fn write_name(mut name: Der<'_>) -> Option<String> {
    let mut parts = Vec::new();
    while !name.0.is_empty() {
        let mut set = Der(name.take(SET)?);
        let mut part = String::new();
        while !set.0.is_empty() {
            let mut attribute = Der(set.take(SEQUENCE)?);
            let (id, (tag, value)) = (attribute.take(OBJECT_ID)?, attribute.next()?);
            if !part.is_empty() {
                part.push('+');
            }
            write_attribute(&mut part, id, &text_of(tag, value));
        }
        parts.push(part);
    }
    parts.reverse();
    Some(parts.join(","))
}

fn text_of(tag: u8, value: &[u8]) -> String {
    if tag == UTF16 {
        let units = value.chunks(2).map(|pair| pair.iter().fold(0, |unit, &byte| unit << 8 | u16::from(byte)));
        return char::decode_utf16(units).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)).collect();
    }
    String::from_utf8_lossy(value).into_owned()
}

fn write_attribute(out: &mut String, id: &[u8], value: &str) {
    match KEYWORDS.iter().find(|(known, _)| *known == id) {
        Some((_, keyword)) => out.push_str(keyword),
        None => write_object_id(out, id),
    }
    out.push('=');
    for (at, &byte) in value.as_bytes().iter().enumerate() {
        let is_edge = at == 0 || at + 1 == value.len();
        match byte {
            b' ' if !is_edge => out.push(' '),
            b'#' if at > 0 => out.push('#'),
            b',' | b'+' | b'"' | b'\\' | b'<' | b'>' | b';' | b'#' | b' ' => {
                out.push('\\');
                out.push(char::from(byte));
            }
            b'!'..=b'~' => out.push(char::from(byte)),
            // Writing to a string cannot fail.
            _ => drop(write!(out, "\\{byte:02X}")),
        }
    }
}

/// Attributes by their ids, as RFC 4514 calls them.
const KEYWORDS: &[(&[u8], &str)] = &[
    (&[0x55, 4, 3], "CN"),
    (&[0x55, 4, 6], "C"),
    (&[0x55, 4, 7], "L"),
    (&[0x55, 4, 8], "ST"),
    (&[0x55, 4, 9], "STREET"),
    (&[0x55, 4, 10], "O"),
    (&[0x55, 4, 11], "OU"),
    (&[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 0x01, 0x01], "UID"),
    (&[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 0x01, 0x19], "DC"),
];

/// Numbers with dots between them.
fn write_object_id(out: &mut String, id: &[u8]) {
    let mut number = 0_u64;
    let mut is_first = true;
    for byte in id {
        number = number.wrapping_shl(7) | u64::from(byte & 0x7f);
        if byte & 0x80 != 0 {
            continue;
        }
        // The first two numbers are one, 40 times the first plus the second.
        let root = (number / 40).min(2);
        // Writing to a string cannot fail.
        let _ = if is_first { write!(out, "{root}.{}", number - root * 40) } else { write!(out, ".{number}") };
        (number, is_first) = (0, false);
    }
}

#[cfg(test)]
mod tests;
