//! Lists and texts in bodies that are refused before anything is allocated for them.
//!
//! A length in a body is the peer's word. What serde does by itself with it is bounded, but by a
//! megabyte per list; these are bounded by what the protocol allows.
//!
//! A text is shown to people: in status, in events, on terminals that obey what is in it. So one
//! with control characters is refused, and none is sent.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Longest text for people in a message, in bytes; a longer one is cut when it is sent.
pub(crate) const TEXT_LEN_MAX: usize = 512;
/// Longest name of a cluster, node or resource in a message, in bytes.
pub(super) const NAME_LEN_MAX: usize = 255;

/// A list of at most `MAX` elements.
#[derive(Debug)]
pub(super) struct AtMost<T, const MAX: usize>(pub(super) Vec<T>);

impl<'de, T: Deserialize<'de>, const MAX: usize> Deserialize<'de> for AtMost<T, MAX> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_seq(ListVisitor::<T, MAX>(PhantomData)).map(Self)
    }
}

/// Reads a list of at most `MAX` elements.
pub(crate) fn list_at_most<'de, D, T, const MAX: usize>(from: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    AtMost::<T, MAX>::deserialize(from).map(|list| list.0)
}

/// Reads a list of at most `MAX` elements, or none.
pub(super) fn maybe_list_at_most<'de, D, T, const MAX: usize>(
    from: D,
) -> Result<Option<Vec<T>>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    Option::<AtMost<T, MAX>>::deserialize(from).map(|list| list.map(|list| list.0))
}

struct ListVisitor<T, const MAX: usize>(PhantomData<T>);

impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for ListVisitor<T, MAX> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at most {MAX} elements")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<T>, A::Error> {
        // The format announces the length; without that, nothing is reserved.
        let announced = seq.size_hint().unwrap_or(0);
        if announced > MAX {
            return Err(A::Error::invalid_length(announced, &self));
        }
        let mut list = Vec::with_capacity(announced);
        while let Some(element) = seq.next_element()? {
            if list.len() == MAX {
                return Err(A::Error::invalid_length(MAX + 1, &self));
            }
            list.push(element);
        }
        Ok(list)
    }
}

/// Reads a text of at most `MAX` bytes.
pub(crate) fn text_at_most<'de, D, const MAX: usize>(from: D) -> Result<String, D::Error>
where
    D: Deserializer<'de>,
{
    from.deserialize_str(TextVisitor::<MAX>)
}

struct TextVisitor<const MAX: usize>;

impl<const MAX: usize> Visitor<'_> for TextVisitor<MAX> {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a text of at most {MAX} bytes")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<String, E> {
        if text.len() > MAX {
            return Err(E::invalid_length(text.len(), &self));
        }
        if text.contains(is_control) {
            return Err(E::custom("a control character in a text"));
        }
        Ok(text.to_owned())
    }
}

/// A text for people that was read within its limit.
#[derive(Debug)]
struct Text(String);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        text_at_most::<D, TEXT_LEN_MAX>(from).map(Self)
    }
}

/// Reads a text for people, or none.
pub(super) fn maybe_text<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    Option::<Text>::deserialize(from).map(|text| text.map(|text| text.0))
}

/// Writes a text for people, cut to [`TEXT_LEN_MAX`]: a long explanation must not cost the link,
/// nor must a character that the peer would refuse.
pub(crate) fn cut_text<S: Serializer>(text: &str, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(cut(&shown(text)))
}

/// Writes a text for people, if there is one, cut to [`TEXT_LEN_MAX`].
#[expect(clippy::ref_option, reason = "serde calls it with a reference to the field")]
pub(super) fn maybe_cut_text<S>(text: &Option<String>, to: S) -> Result<S::Ok, S::Error>
where
    S: Serializer,
{
    text.as_deref().map(|text| cut(&shown(text)).to_owned()).serialize(to)
}

/// Whether a terminal may take `c` for an order, or show what follows it elsewhere.
fn is_control(c: char) -> bool {
    let turns_text = matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}');
    let splits_or_isolates = matches!(c, '\u{2028}' | '\u{2029}' | '\u{2066}'..='\u{2069}');
    c.is_control() || turns_text || splits_or_isolates
}

/// `text` with `?` in place of control characters.
fn shown(text: &str) -> Cow<'_, str> {
    if text.contains(is_control) { text.replace(is_control, "?").into() } else { text.into() }
}

fn cut(text: &str) -> &str {
    let end = text.floor_char_boundary(TEXT_LEN_MAX);
    text.get(..end).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_cut_between_characters() {
        assert_eq!(cut("short"), "short");
        let long = format!("{}\u{e9}tail", "x".repeat(TEXT_LEN_MAX - 1));
        assert_eq!(cut(&long), "x".repeat(TEXT_LEN_MAX - 1));
    }

    #[test]
    fn control_characters_are_neither_sent_nor_taken() {
        assert_eq!(shown("two\nlines \u{1b}[2J and \u{202e}back"), "two?lines ?[2J and ?back");
        assert_eq!(shown("na\u{ef}ve \u{2014} fine"), "na\u{ef}ve \u{2014} fine");
        let read = |text: &str| {
            let mut body = Vec::new();
            super::super::body::put(text, &mut body);
            super::super::body::take::<Text>(super::super::Kind::Told, &body).is_ok()
        };
        assert!(read("plain, na\u{ef}ve"));
        for text in ["\n", "a\u{7}", "\u{1b}[31m", "\u{9b}", "\u{202e}", "\u{2028}", "\0"] {
            assert!(!read(text), "{text:?}");
        }
    }
}
