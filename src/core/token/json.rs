//! A strict reader of JSON for tokens and key sets: no member may be there twice, nothing may follow, and depth is
//! limited. So nobody can read another meaning out of a token than the router did.

use std::collections::BTreeMap;

/// How deep values may be nested.
const DEPTH_MAX: u8 = 16;

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Json {
    Null,
    Switch(bool),
    Number(f64),
    Text(String),
    List(Vec<Json>),
    Object(Members),
}

/// What an object holds.
pub(super) type Members = BTreeMap<String, Json>;

impl Json {
    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(super) fn number(&self) -> Option<f64> {
        match self {
            Self::Number(number) => Some(*number),
            _ => None,
        }
    }

    pub(super) fn object(self) -> Option<Members> {
        match self {
            Self::Object(members) => Some(members),
            _ => None,
        }
    }

    /// Whether it is a text, or a list with one, that `is_right`.
    pub(super) fn names(&self, is_right: impl Fn(&str) -> bool) -> bool {
        match self {
            Self::Text(text) => is_right(text),
            Self::List(items) => items.iter().filter_map(Self::text).any(is_right),
            _ => false,
        }
    }
}

/// Reads the one object that is there.
pub(super) fn read_object(bytes: &[u8]) -> Option<Members> {
    read(bytes)?.object()
}

fn read(bytes: &[u8]) -> Option<Json> {
    let mut reader = Reader { rest: str::from_utf8(bytes).ok()? };
    let value = reader.value(DEPTH_MAX)?;
    reader.rest.is_empty().then_some(value)
}

struct Reader<'a> {
    rest: &'a str,
}

impl Reader<'_> {
    fn space(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\t', '\n', '\r']);
    }

    fn take(&mut self, word: &str) -> Option<()> {
        self.rest = self.rest.strip_prefix(word)?;
        Some(())
    }

    fn has(&mut self, word: &str) -> bool {
        self.take(word).is_some()
    }

    fn value(&mut self, depth: u8) -> Option<Json> {
        self.space();
        let value = match self.rest.bytes().next()? {
            b'{' => Json::Object(self.members(depth.checked_sub(1)?)?),
            b'[' => Json::List(self.items(depth.checked_sub(1)?)?),
            b'"' => Json::Text(self.string()?),
            b't' => self.take("true").map(|()| Json::Switch(true))?,
            b'f' => self.take("false").map(|()| Json::Switch(false))?,
            b'n' => self.take("null").map(|()| Json::Null)?,
            _ => Json::Number(self.digits()?),
        };
        self.space();
        Some(value)
    }

    fn members(&mut self, depth: u8) -> Option<Members> {
        let mut members = Members::new();
        self.take("{")?;
        self.space();
        if self.has("}") {
            return Some(members);
        }
        loop {
            self.space();
            let name = self.string()?;
            self.space();
            self.take(":")?;
            if members.insert(name, self.value(depth)?).is_some() {
                return None;
            }
            if self.has("}") {
                return Some(members);
            }
            self.take(",")?;
        }
    }

    fn items(&mut self, depth: u8) -> Option<Vec<Json>> {
        let mut items = Vec::new();
        self.take("[")?;
        self.space();
        if self.has("]") {
            return Some(items);
        }
        loop {
            items.push(self.value(depth)?);
            if self.has("]") {
                return Some(items);
            }
            self.take(",")?;
        }
    }

    fn string(&mut self) -> Option<String> {
        let mut string = String::new();
        self.take("\"")?;
        loop {
            let plain = self.rest.find(|c| c == '"' || c == '\\' || c < ' ')?;
            let (plain, rest) = self.rest.split_at_checked(plain)?;
            string.push_str(plain);
            self.rest = rest;
            if self.has("\"") {
                return Some(string);
            }
            // What else it may have stopped at is a control character.
            self.take("\\")?;
            string.push(self.escape()?);
        }
    }

    fn escape(&mut self) -> Option<char> {
        let mut rest = self.rest.chars();
        let kind = rest.next()?;
        self.rest = rest.as_str();
        match kind {
            '"' | '\\' | '/' => Some(kind),
            'b' => Some('\u{8}'),
            'f' => Some('\u{c}'),
            'n' => Some('\n'),
            'r' => Some('\r'),
            't' => Some('\t'),
            'u' => self.code(),
            _ => None,
        }
    }

    /// Half a pair of surrogates is no character.
    fn code(&mut self) -> Option<char> {
        let first = self.unit()?;
        if !(0xd800..0xdc00).contains(&first) {
            return char::from_u32(first);
        }
        self.take("\\u")?;
        let low = self.unit()?.checked_sub(0xdc00).filter(|low| *low < 0x400)?;
        char::from_u32(0x1_0000 + ((first - 0xd800) << 10) + low)
    }

    fn unit(&mut self) -> Option<u32> {
        let (digits, rest) = self.rest.split_at_checked(4)?;
        self.rest = rest;
        let is_hex = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        u32::from_str_radix(digits, 16).ok().filter(|_| is_hex)
    }

    fn digits(&mut self) -> Option<f64> {
        let is_part = |c| matches!(c, '0'..='9' | '-' | '+' | '.' | 'e' | 'E');
        let end = self.rest.find(|c| !is_part(c)).unwrap_or(self.rest.len());
        let (text, rest) = self.rest.split_at_checked(end)?;
        self.rest = rest;
        let number: f64 = text.parse().ok().filter(|_| is_number(text))?;
        number.is_finite().then_some(number)
    }
}

/// Rust reads more as numbers than JSON has.
fn is_number(text: &str) -> bool {
    let are_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let text = text.strip_prefix('-').unwrap_or(text);
    let (mantissa, exponent) = text.split_once(['e', 'E']).map_or((text, None), |(m, e)| (m, Some(e)));
    let (whole, fraction) = mantissa.split_once('.').map_or((mantissa, None), |(w, f)| (w, Some(f)));
    are_digits(whole)
        && (whole == "0" || !whole.starts_with('0'))
        && fraction.is_none_or(are_digits)
        && exponent.is_none_or(|text| are_digits(text.strip_prefix(['+', '-']).unwrap_or(text)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    /// Whether both say the same.
    fn is_same(own: &Json, other: &Value) -> bool {
        match (own, other) {
            (Json::Null, Value::Null) => true,
            (Json::Switch(a), Value::Bool(b)) => a == b,
            // serde_json rounds some numbers to a neighbour unless it is asked not to.
            (Json::Number(a), Value::Number(b)) => {
                b.as_f64().is_some_and(|b| *a == b || (a - b).abs() <= a.abs() * f64::EPSILON)
            }
            (Json::Text(a), Value::String(b)) => a == b,
            (Json::List(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| is_same(a, b)),
            (Json::Object(a), Value::Object(b)) => {
                a.len() == b.len() && a.iter().all(|(name, a)| b.get(name).is_some_and(|b| is_same(a, b)))
            }
            _ => false,
        }
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 8, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::btree_map(any::<String>(), inner, 0..6)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    #[test]
    fn what_is_no_json_or_means_two_things_is_refused() {
        let wrong = [
            "",
            " ",
            "{",
            "{}x",
            "{} {}",
            "[1,]",
            "{\"a\":1,}",
            "{,}",
            "{\"a\":1,\"a\":1}",
            "{\"a\":1,\"\\u0061\":1}",
            "{a:1}",
            "'a'",
            "01",
            "+1",
            "1.",
            ".5",
            "1e",
            "-",
            "1e999",
            "NaN",
            "inf",
            "tru",
            "\"\\x\"",
            "\"\\u12\"",
            "\"\\ud800\"",
            "\"\\ud800\\u0041\"",
            "\"\\udc00\"",
            "\"\\u+123\"",
            "\"a\nb\"",
            "\"a",
            "\u{feff}{}",
        ];
        for text in wrong {
            assert_eq!(read(text.as_bytes()), None, "{text}");
        }
        assert_eq!(read(b"\"\xff\""), None);
        let deep = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
        assert!(read(deep(16).as_bytes()).is_some());
        assert!(read(deep(17).as_bytes()).is_none());
        assert!(read(deep(100_000).as_bytes()).is_none());
        assert_eq!(read(b" \"\\ud83d\\ude00\\n\" "), Some(Json::Text("\u{1f600}\n".to_owned())));
    }

    proptest! {
        #[test]
        fn every_value_is_read_as_serde_json_wrote_it(value in any_json()) {
            let own = read(value.to_string().as_bytes());
            prop_assert!(own.as_ref().is_some_and(|own| is_same(own, &value)), "{own:?} for {value}");
        }

        #[test]
        fn what_is_accepted_is_json_for_others_too(
            text in r#"([\[\]{}:,]|"a"|"b\\n"|"\\u00e9"|-?[0-9]{1,3}|1e[0-9]|0\.5|true|null| ){1,12}"#,
        ) {
            if let Some(own) = read(text.as_bytes()) {
                let other = serde_json::from_str::<Value>(&text);
                prop_assert!(other.as_ref().is_ok_and(|other| is_same(&own, other)), "{own:?} for {text}");
            }
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if read(&bytes).is_some() {
                prop_assert!(serde_json::from_slice::<Value>(&bytes).is_ok());
            }
        }
    }
}
