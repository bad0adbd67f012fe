//! Short ways to write a row of the settings table: numbers, times and switches, which are stored as they are.

/// A row with a whole number; `$($field).+` is where it goes.
macro_rules! number {
    ($key:literal, $group:ident, $min:expr, $max:expr, $($field:ident).+, $meaning:literal) => {
        $crate::control::config::setting::Setting {
            key: $key,
            group: $crate::control::config::setting::Group::$group,
            meaning: $meaning,
            slot: $crate::control::config::setting::Slot::Number {
                min: $min,
                max: $max,
                read: |config| config.$($field).+ as u64,
                write: |config, number| config.$($field).+ = number as _,
            },
        }
    };
}

/// A row with milliseconds.
macro_rules! millis {
    ($key:literal, $group:ident, $min:expr, $max:expr, $($field:ident).+, $meaning:literal) => {
        $crate::control::config::setting::Setting {
            key: $key,
            group: $crate::control::config::setting::Group::$group,
            meaning: $meaning,
            slot: $crate::control::config::setting::Slot::Number {
                min: $min,
                max: $max,
                read: |config| config.$($field).+.as_millis() as u64,
                write: |config, number| config.$($field).+ = std::time::Duration::from_millis(number),
            },
        }
    };
}

/// A row with a switch.
macro_rules! switch {
    ($key:literal, $group:ident, $($field:ident).+, $meaning:literal) => {
        $crate::control::config::setting::Setting {
            key: $key,
            group: $crate::control::config::setting::Group::$group,
            meaning: $meaning,
            slot: $crate::control::config::setting::Slot::Switch {
                read: |config| config.$($field).+,
                write: |config, on| config.$($field).+ = on,
            },
        }
    };
}

pub(super) use {millis, number, switch};
