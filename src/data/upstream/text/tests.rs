//! What is kept of texts, and what is not.

use super::*;

impl Text {
    /// So that a test sees its own alone.
    pub(in crate::data::upstream) fn forget_spares() {
        SPARES.with_borrow_mut(Vec::clear);
    }

    pub(in crate::data::upstream) fn capacity(&self) -> usize {
        self.0.capacity()
    }
}

fn text(value: &[u8]) -> Text {
    let mut text = Text::new();
    text.add(&HeaderName::from_static("x"), value);
    text
}

#[test]
fn the_memory_of_few_and_small_texts_is_kept() {
    Text::forget_spares();
    let kept = || SPARES.with_borrow(Vec::len);
    let texts: Vec<Text> = (0..2 * SPARES_MAX).map(|_| text(b"a")).collect();
    assert_eq!(kept(), 0);
    drop(texts);
    assert_eq!(kept(), SPARES_MAX);
    drop(text(&[b'a'; SPARE_BYTES_MAX]));
    assert_eq!(kept(), SPARES_MAX - 1);
    // What was written to it before is not seen again.
    assert_eq!(text(b"b").bytes(), b"x: b\r\n");
}
