//! The text format of `COPY … TO STDOUT`, taken apart in place.
//!
//! Each `CopyData` message of the server is one row: fields parted by tabs, a line feed at
//! the end. Tabs, line feeds and backslashes inside of a value are escaped, so a raw tab
//! is always a boundary, and `\N` alone is a null (an actual `\N` is sent as `\\N`); see
//! "COPY", section "Text Format", of PostgreSQL's documentation. Unescaping only ever
//! shortens a value, so it is done where the value lies.

/// One field: where its unescaped bytes lie, or null.
pub(crate) type Field = Option<(usize, usize)>;

/// Finds and unescapes the fields of the row that fills `data` from `from` on. `fields` is
/// cleared first. `false` when the row is not well formed.
pub(crate) fn split_row(data: &mut [u8], from: usize, fields: &mut Vec<Field>) -> bool {
    fields.clear();
    let mut end = data.len();
    if end > from && data[end - 1] == b'\n' {
        end -= 1;
    } else {
        return false;
    }
    let mut start = from;
    if memchr::memchr(b'\\', &data[from..end]).is_none() {
        // Nothing is escaped, and nothing is null.
        for tab in memchr::memchr_iter(b'\t', &data[from..end]) {
            fields.push(Some((start, from + tab - start)));
            start = from + tab + 1;
        }
        fields.push(Some((start, end - start)));
        return true;
    }
    loop {
        let stop = memchr::memchr(b'\t', &data[start..end]).map_or(end, |n| start + n);
        if data[start..stop] == *b"\\N" {
            fields.push(None);
        } else {
            let Some(len) = unescape(&mut data[start..stop]) else {
                return false;
            };
            fields.push(Some((start, len)));
        }
        if stop == end {
            return true;
        }
        start = stop + 1;
    }
}

/// Unescapes in place; the new length, or `None` for a backslash at the end.
fn unescape(field: &mut [u8]) -> Option<usize> {
    let Some(first) = memchr::memchr(b'\\', field) else {
        return Some(field.len());
    };
    let (mut read, mut write) = (first, first);
    while read < field.len() {
        let mut byte = field[read];
        read += 1;
        if byte == b'\\' {
            byte = match *field.get(read)? {
                b'b' => 8,
                b'f' => 12,
                b'n' => b'\n',
                b'r' => b'\r',
                b't' => b'\t',
                b'v' => 11,
                other => other,
            };
            read += 1;
        }
        field[write] = byte;
        write += 1;
    }
    Some(write)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

    use proptest::prelude::*;

    use super::*;

    /// As `CopyAttributeOutText` in the server's copyto.c writes it.
    fn write(row: &[Option<String>]) -> Vec<u8> {
        let mut out = Vec::new();
        for (i, field) in row.iter().enumerate() {
            if i > 0 {
                out.push(b'\t');
            }
            match field {
                None => out.extend_from_slice(b"\\N"),
                Some(text) => {
                    for b in text.bytes() {
                        match b {
                            8 => out.extend_from_slice(b"\\b"),
                            12 => out.extend_from_slice(b"\\f"),
                            b'\n' => out.extend_from_slice(b"\\n"),
                            b'\r' => out.extend_from_slice(b"\\r"),
                            b'\t' => out.extend_from_slice(b"\\t"),
                            11 => out.extend_from_slice(b"\\v"),
                            b'\\' => out.extend_from_slice(b"\\\\"),
                            b => out.push(b),
                        }
                    }
                }
            }
        }
        out.push(b'\n');
        out
    }

    proptest! {
        #[test]
        fn what_the_server_writes_is_read_back(
            row in proptest::collection::vec(
                proptest::option::of("[a-zé\\\\N\t\n\r\u{8}\u{b}\u{c}]{0,12}"), 1..6),
            before in 0usize..9,
        ) {
            let mut data = vec![b'\\'; before];
            data.extend(write(&row));
            let mut fields = Vec::new();
            prop_assert!(split_row(&mut data, before, &mut fields));
            let read: Vec<Option<String>> = fields
                .iter()
                .map(|f| f.map(|(s, n)| String::from_utf8(data[s..s + n].to_vec()).unwrap()))
                .collect();
            prop_assert_eq!(read, row);
        }
    }

    #[test]
    fn a_row_that_is_cut_is_refused() {
        let mut fields = Vec::new();
        assert!(!split_row(&mut b"a\tb".to_vec(), 0, &mut fields));
        assert!(!split_row(&mut b"a\\\n".to_vec(), 0, &mut fields));
        assert!(!split_row(&mut Vec::new(), 0, &mut fields));
    }
}
