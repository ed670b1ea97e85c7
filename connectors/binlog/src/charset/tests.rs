#![allow(clippy::unwrap_used, reason = "tests")]
use proptest::prelude::*;

use super::*;

fn decoded(name: &str, bytes: &[u8]) -> (String, usize) {
    let charset = Charset::by_name(name).unwrap();
    let mut out = Vec::new();
    let invalid = charset.decode(bytes, &mut out);
    (String::from_utf8(out).unwrap(), invalid)
}

#[test]
fn names_mean_what_the_server_means_by_them() {
    // `SELECT CONVERT(_latin1 X'808199FF' USING utf8mb4)` and so on.
    for (name, bytes, text) in [
        ("latin1", &b"\x80\x81\x99\xff"[..], "€\u{81}™ÿ"),
        ("latin5", b"\x80\xdd\xfe", "\u{80}İş"),
        ("cp1251", b"\xcc\xe8\xf0", "Мир"),
        ("swe7", b"{|}[\\]", "äöåÄÖÅ"),
        ("utf8mb4", "aé€😀".as_bytes(), "aé€😀"),
        ("ucs2", b"\x00a\x20\xac", "a€"),
        ("utf16", b"\x00a\xd8\x3d\xde\x00", "a😀"),
        ("utf16le", b"a\x00\x3d\xd8\x00\xde", "a😀"),
        ("utf32", b"\x00\x00\x00a\x00\x01\xf6\x00", "a😀"),
        ("gbk", b"\xc4\xe3\xba\xc3", "你好"),
        ("gb18030", b"\xc4\xe3\x94\x39\xfc\x36", "你😀"),
        ("big5", b"\xa7\x41\xa6\x6e", "你好"),
        ("sjis", b"\x82\xa0\xb1\\", "あｱ\\"),
        ("cp932", b"\x82\xa0\x87\x40", "あ①"),
        ("ujis", b"\xa4\xa2\x8e\xb1\x8f\xb0\xa1", "あｱ丂"),
        ("euckr", b"\xb0\xa1", "가"),
        // Where the servers have other tables than the WHATWG.
        ("sjis", b"\x82\xa0\x81\x60\x82\xa0\x81\x5f", "あ〜あ\\"),
        ("cp932", b"\x81\x60", "～"),
        (
            "ujis",
            b"\xa1\xc1\xa4\xa2\xf5\xa2\x8f\xf5\xa1a",
            "〜あ\u{E001}\u{E3AC}a",
        ),
        ("eucjpms", b"\xa1\xc1\xf9\xa1", "～\u{E178}"),
        ("gb2312", b"\xa1\xa4\xc4\xe3", "・你"),
        ("big5", b"\xc6\xa6\xa7\x41\xa2\x47", "あ你£"),
    ] {
        assert_eq!(decoded(name, bytes), (text.to_owned(), 0), "{name}");
    }
}

#[test]
fn a_byte_that_is_no_character_stays_visible_and_different() {
    for (name, bytes, text) in [
        ("utf8mb4", &b"a\xffb\xfe"[..], "a\u{FFFD}ffb\u{FFFD}fe"),
        ("utf8mb4", b"\xed\xa0\x80", "\u{FFFD}ed\u{FFFD}a0\u{FFFD}80"),
        ("ascii", b"a\x80", "a\u{FFFD}80"),
        ("greek", b"\xff", "\u{FFFD}ff"),
        ("ucs2", b"\xd8\x00\x00", "\u{FFFD}d8\u{FFFD}00\u{FFFD}00"),
        ("utf16", b"\xde\x00\x00a", "\u{FFFD}de\u{FFFD}00a"),
        (
            "utf32",
            b"\x00\x11\x00\x00a",
            "\u{FFFD}00\u{FFFD}11\u{FFFD}00\u{FFFD}00\u{FFFD}61",
        ),
        ("gbk", b"a\xff", "a\u{FFFD}ff"),
        ("sjis", b"\x82", "\u{FFFD}82"),
    ] {
        let (found, invalid) = decoded(name, bytes);
        assert_eq!(found, text, "{name}");
        assert_eq!(invalid, text.matches('\u{FFFD}').count(), "{name}");
    }
}

#[test]
fn collations_of_both_servers_lead_to_their_character_sets() {
    for (id, name) in [
        (8, "latin1"),
        (33, "utf8mb3"),
        (45, "utf8mb4"),
        (63, "binary"),
        (76, "utf8mb3"),
        (83, "utf8mb3"),
        (249, "gb18030"),
        (255, "utf8mb4"),
        (309, "utf8mb4"),
        (323, "utf8mb4"),
        (1046, "koi8u"),
        (1069, "utf8mb4"),
        (1270, "utf8mb4"),
        (2048, "utf8mb3"),
        (2304, "utf8mb4"),
        (3072, "utf32"),
    ] {
        assert_eq!(Charset::of_collation(id), Charset::by_name(name), "{id}");
    }
    for id in [0, 17, 100, 125, 400, 1024, 1087, 4000] {
        // 1087 would be binary without padding, which does not exist; it is bytes either way.
        assert!(
            matches!(Charset::of_collation(id), None | Some(Charset::Binary)),
            "{id}"
        );
    }
}

proptest! {
    #[test]
    fn any_bytes_become_utf8(id in 0u16..3400, bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
        if let Some(charset) = Charset::of_collation(id) {
            let mut out = Vec::new();
            charset.decode(&bytes, &mut out);
            prop_assert!(std::str::from_utf8(&out).is_ok());
            if charset.is_utf8(&bytes) && charset != Charset::Binary {
                prop_assert_eq!(out, bytes);
            }
        }
    }
}
