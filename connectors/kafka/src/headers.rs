//! Names of headers on the wire.
//!
//! The CloudEvents Kafka protocol binding (1.0.2, section 3.2) puts every attribute under
//! `ce_` and its name in binary mode, but for `datacontenttype`, which is the header
//! `content-type`. Names are static and few, so each is worked out once and found again by
//! its address: a header costs no allocation of a name.

/// The names seen so far, in the order in which they came.
#[derive(Default)]
pub(crate) struct WireNames {
    known: Vec<(&'static str, Box<str>)>,
}

impl WireNames {
    /// The name on the wire. `hint` is the header's place in its record: headers mostly
    /// come in the same order, so the name is mostly found there.
    pub(crate) fn of(&mut self, name: &'static str, hint: usize) -> &str {
        let found = match self.known.get(hint) {
            Some((known, _)) if std::ptr::eq(*known, name) => Some(hint),
            _ => self
                .known
                .iter()
                .position(|(known, _)| std::ptr::eq(*known, name) || *known == name),
        };
        let at = found.unwrap_or_else(|| {
            self.known.push((name, wire_name(name)));
            self.known.len() - 1
        });
        &self.known[at].1
    }
}

fn wire_name(name: &str) -> Box<str> {
    match name {
        "content-type" | "datacontenttype" => "content-type".into(),
        attribute => format!("ce_{attribute}").into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_get_the_prefix_of_the_binding_and_the_content_type_does_not() {
        let mut names = WireNames::default();
        for (hint, (name, wire)) in [
            ("id", "ce_id"),
            ("content-type", "content-type"),
            ("type", "ce_type"),
            ("datacontenttype", "content-type"),
            ("id", "ce_id"),
        ]
        .into_iter()
        .enumerate()
        {
            assert_eq!(names.of(name, hint), wire);
        }
    }
}
