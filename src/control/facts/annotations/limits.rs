//! The rows about limits on requests.

use super::{Annotation, digits, set};

pub(super) const BODY: Annotation = Annotation {
    name: "max-body-bytes",
    range: "1024 to 1099511627776",
    default: "the router's max-body-bytes",
    meaning: "Longest request body; above that 413. Where the router's max-body-bytes is smaller, that one counts, and this one is reported.",
    read: |text, draft| {
        let bytes = digits(text).filter(|bytes| (1024..=1 << 40).contains(bytes));
        set(&mut draft.settings.body_bytes_max, bytes.map(Some))
    },
    keep: |last, draft| draft.settings.body_bytes_max = last.settings.body_bytes_max,
};
