//! Unicode: how text is stored, and how it is compared.
//!
//! Values keep the form that people gave them, in NFC, so that equal texts are equal bytes
//! whatever keyboard or database composed them. Match keys are compared in a second form
//! that forgets what people do not see: case, compatibility variants (full-width letters,
//! ligatures), invisible characters and surrounding white space. It is computed where it
//! is needed and never shown.
//!
//! Nearly all values are ASCII or already in NFC; both are recognised in one pass over the
//! bytes and copied as they are. Everything else goes through the normaliser, whose result
//! is by definition stable: normalising or folding twice gives what once gave (property
//! tests below).

use icu_casemap::{CaseMapper, CaseMapperBorrowed};
use unicode_normalization::char::is_combining_mark;
use unicode_normalization::{IsNormalized, UnicodeNormalization, is_nfc_quick};

const CASES: CaseMapperBorrowed<'static> = CaseMapper::new();

/// Whether text is certainly in NFC; `false` may also mean that only the long check knows.
#[inline]
pub(crate) fn is_plainly_nfc(text: &str) -> bool {
    // Everything below U+0300 is in NFC whatever stands beside it; in UTF-8 that is every
    // lead byte below 0xCC. This covers Latin text without looking at characters.
    text.is_ascii()
        || text.bytes().all(|b| b < 0xCC)
        || is_nfc_quick(text.chars()) == IsNormalized::Yes
}

/// Appends text in NFC.
#[inline]
pub fn push_nfc(text: &str, out: &mut Vec<u8>) {
    if is_plainly_nfc(text) {
        out.extend_from_slice(text.as_bytes());
    } else {
        push_chars(text.nfc(), out);
    }
}

fn push_chars(chars: impl Iterator<Item = char>, out: &mut Vec<u8>) {
    let mut buffer = [0u8; 4];
    for c in chars {
        out.extend_from_slice(c.encode_utf8(&mut buffer).as_bytes());
    }
}

/// Appends the form in which match keys are compared: compatibility caseless matching
/// (definition D146 of the Unicode Standard) brought to NFKC, without default-ignorable
/// characters and surrounding white space. `value` is the attribute's value in its stored
/// form; bytes that are not UTF-8 are compared as they are. An empty result matches nothing.
pub fn fold(value: &[u8], out: &mut impl Extend<u8>) {
    if value.is_ascii() {
        let start = value.iter().position(|&b| !is_ascii_space(b));
        let end = value.iter().rposition(|&b| !is_ascii_space(b));
        if let (Some(start), Some(end)) = (start, end) {
            out.extend(value[start..=end].iter().map(u8::to_ascii_lowercase));
        }
        return;
    }
    match std::str::from_utf8(value) {
        Ok(text) => fold_unicode(text, out),
        Err(_) => out.extend(value.iter().copied()),
    }
}

/// White space as `char::is_whitespace` sees it, within ASCII.
fn is_ascii_space(b: u8) -> bool {
    matches!(b, b'\t'..=b'\r' | b' ')
}

fn fold_unicode(text: &str, out: &mut impl Extend<u8>) {
    // The outer pair repeats the inner one because folding can undo composition and
    // composition can bring back what folding must still change.
    let once: String = text.nfd().collect();
    let once: String = CASES.fold_string(&once).nfkd().collect();
    let twice: String = CASES
        .fold_string(&once)
        .chars()
        .filter(|&c| !is_ignorable(c))
        .nfkc()
        .collect();
    out.extend(twice.trim().bytes());
}

/// The form in which a name is searched for: as match keys are compared, and without accents, so
/// that whoever types `garcia` finds García.
pub fn search_form(text: &str) -> String {
    let mut folded = Vec::with_capacity(text.len());
    fold(text.as_bytes(), &mut folded);
    let folded = String::from_utf8(folded).unwrap_or_default();
    if folded.is_ascii() {
        return folded;
    }
    folded.nfd().filter(|&c| !is_combining_mark(c)).collect()
}

/// Default_Ignorable_Code_Point (Unicode Character Database, DerivedCoreProperties): what
/// a reader cannot see, and what copying from a document leaves in e-mail addresses.
fn is_ignorable(c: char) -> bool {
    matches!(c,
        '\u{AD}' | '\u{34F}' | '\u{61C}' | '\u{115F}'..='\u{1160}' | '\u{17B4}'..='\u{17B5}'
        | '\u{180B}'..='\u{180F}' | '\u{200B}'..='\u{200F}' | '\u{202A}'..='\u{202E}'
        | '\u{2060}'..='\u{206F}' | '\u{3164}' | '\u{FE00}'..='\u{FE0F}' | '\u{FEFF}'
        | '\u{FFA0}' | '\u{FFF0}'..='\u{FFF8}' | '\u{1BCA0}'..='\u{1BCA3}'
        | '\u{1D173}'..='\u{1D17A}' | '\u{E0000}'..='\u{E0FFF}')
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        reason = "a failed test should stop at once"
    )]
    use super::*;
    use proptest::prelude::*;

    fn nfc(text: &str) -> String {
        let mut out = Vec::new();
        push_nfc(text, &mut out);
        String::from_utf8(out).unwrap()
    }

    fn folded(text: &str) -> String {
        let mut out = Vec::new();
        fold(text.as_bytes(), &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn what_people_do_not_see_is_not_compared() {
        for (a, b) in [
            ("Ann@Example.ORG", "ann@example.org"),
            ("  ann@example.org\t", "ann@example.org"),
            ("Jose\u{301}@x.org", "jos\u{e9}@x.org"),
            ("ＡＮＮ@x.org", "ann@x.org"),
            ("STRASSE", "straße"),
            ("ann\u{200b}@x.org\u{feff}", "ann@x.org"),
            ("\u{a0}ann@x.org\u{3000}", "ann@x.org"),
            ("ΣΊΣΥΦΟΣ", "σίσυφος"),
            ("\u{fb01}nance@x.org", "finance@x.org"),
            ("\u{345}\u{3b1}", "\u{399}α"),
        ] {
            assert_eq!(folded(a), folded(b));
        }
        assert_ne!(folded("jose@x.org"), folded("jos\u{e9}@x.org"));
        assert_eq!(folded(" \t\r\n"), "");
    }

    #[test]
    fn bytes_that_are_not_text_are_compared_as_they_are() {
        let mut out = Vec::new();
        fold(&[0xff, b'A'], &mut out);
        assert_eq!(out, [0xff, b'A']);
    }

    #[test]
    fn composed_and_decomposed_text_are_stored_alike() {
        assert_eq!(nfc("Jose\u{301}"), "Jos\u{e9}");
        assert_eq!(nfc("\u{212a}"), "K");
        assert_eq!(nfc("\u{1112}\u{1161}\u{11ab}"), "\u{d55c}");
    }

    #[test]
    fn a_name_is_found_in_any_case_form_and_without_its_accents() {
        for typed in ["José", "Jose\u{301}", "JOSÉ", "jose", " Jose "] {
            assert_eq!(search_form(typed), "jose", "{typed}");
        }
        assert_eq!(search_form("Straße"), search_form("STRASSE"));
        assert_eq!(search_form("Иван"), search_form("ИВАН"));
    }

    proptest! {
        #[test]
        fn nfc_is_what_the_normaliser_says(text in any::<String>()) {
            prop_assert_eq!(nfc(&text), text.nfc().collect::<String>());
        }

        #[test]
        fn nfc_is_stable(text in any::<String>()) {
            let once = nfc(&text);
            prop_assert_eq!(nfc(&once), once);
        }

        #[test]
        fn folding_is_stable(text in any::<String>()) {
            let once = folded(&text);
            prop_assert_eq!(folded(&once), once);
        }

        #[test]
        fn folding_does_not_see_composition(text in any::<String>()) {
            let decomposed: String = text.nfd().collect();
            let composed: String = text.nfc().collect();
            prop_assert_eq!(folded(&decomposed), folded(&composed));
        }

        #[test]
        fn the_short_way_for_ascii_gives_what_the_long_way_gives(text in "[ -~\t]{0,20}") {
            let mut long = Vec::new();
            fold_unicode(&text, &mut long);
            prop_assert_eq!(folded(&text).into_bytes(), long);
        }
    }
}
