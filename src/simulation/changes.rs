//! The changes of a plan, in a file without a name: there may be as many as there are users, and
//! each holds a person's values before and after.
//!
//! In memory is only where each of them stands, in the order in which they are handed out. The
//! file is private, and gone with the value, also when the process is killed.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;

use serde::de::{IgnoredAny, SeqAccess, Visitor};
use serde::ser::{Error as _, SerializeSeq as _};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::plan::Change;

/// A record's place in the order in which a plan is applied.
pub(super) type Place = (u32, u32);

/// See the module.
#[derive(Debug, Default)]
pub struct Changes {
    file: Option<File>,
    /// Bytes of it.
    len: u64,
    index: Vec<Entry>,
    /// What is not written yet.
    tail: Vec<u8>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    place: Place,
    at: u64,
    len: u32,
}

/// So many bytes are written at once.
const TAIL_BYTES: usize = 256 << 10;

impl Changes {
    /// None yet, in a file that lies in a folder and has no name there.
    ///
    /// # Errors
    /// When it cannot be made.
    pub(crate) fn in_folder(folder: &Path) -> io::Result<Changes> {
        let path = folder.join("changes");
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(0o600);
        let file = options.open(&path)?;
        fs::remove_file(&path)?;
        Ok(Changes {
            file: Some(file),
            ..Changes::default()
        })
    }

    /// Adds one.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn push(&mut self, place: Place, change: &Change) -> io::Result<()> {
        let at = self.len + self.tail.len() as u64;
        let before = self.tail.len();
        serde_json::to_writer(&mut self.tail, change)?;
        let len = (self.tail.len() - before) as u32;
        self.index.push(Entry { place, at, len });
        if self.tail.len() >= TAIL_BYTES {
            self.write()?;
        }
        Ok(())
    }

    fn write(&mut self) -> io::Result<()> {
        if let Some(file) = &mut self.file {
            file.write_all(&self.tail)?;
            self.len += self.tail.len() as u64;
            self.tail.clear();
        }
        Ok(())
    }

    /// Everything is there: from here on they come in the order of their places.
    ///
    /// # Errors
    /// When they cannot be written.
    pub(crate) fn end(&mut self) -> io::Result<()> {
        self.write()?;
        self.tail = Vec::new();
        self.index.sort_by_key(|entry| entry.place);
        Ok(())
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// All of them, read one by one.
    pub fn iter(&self) -> impl Iterator<Item = io::Result<Change>> {
        let mut bytes = Vec::new();
        self.index.iter().map(move |entry| {
            bytes.resize(entry.len as usize, 0);
            match (&self.file, entry.at.checked_sub(self.len)) {
                (Some(file), None) => file.read_exact_at(&mut bytes, entry.at)?,
                (_, behind) => {
                    let from = behind.unwrap_or(entry.at) as usize;
                    bytes.copy_from_slice(&self.tail[from..from + entry.len as usize]);
                }
            }
            Ok(serde_json::from_slice(&bytes)?)
        })
    }
}

impl Serialize for Changes {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut all = to.serialize_seq(Some(self.len()))?;
        for change in self.iter() {
            all.serialize_element(&change.map_err(S::Error::custom)?)?;
        }
        all.end()
    }
}

/// Who applies a plan needs none of them: they are passed over, one by one.
impl<'de> Deserialize<'de> for Changes {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Changes, D::Error> {
        struct PassOver;
        impl<'de> Visitor<'de> for PassOver {
            type Value = Changes;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("changes")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut all: A) -> Result<Changes, A::Error> {
                while all.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Changes::default())
            }
        }
        from.deserialize_seq(PassOver)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::simulation::folder::Folder;
    use crate::simulation::plan::Plan;

    fn change(n: u32) -> Change {
        Change {
            records: vec![n.to_string()],
            user: None,
            user_name: Some("x".repeat(100)),
            action: "created".to_owned(),
            reason: "record_joined".to_owned(),
            counted: None,
            fields: Vec::new(),
        }
    }

    #[test]
    fn changes_come_in_the_order_of_their_places_from_a_file_that_nobody_sees() {
        let folder = Folder::make().map_err(|e| e.sentence).unwrap();
        let mut plan = Plan::new("acme", "hr");
        plan.changes = Changes::in_folder(folder.path()).unwrap();
        for n in (0..9_000).rev() {
            plan.changes.push((n / 7, n % 7), &change(n)).unwrap();
        }
        plan.changes.end().unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        drop(folder);
        let all: Vec<Change> = plan.changes.iter().map(Result::unwrap).collect();
        assert_eq!(plan.changes.len(), 9_000);
        assert!(all.iter().zip(0..).all(|(found, n)| *found == change(n)));

        let text = serde_json::to_vec(&plan).unwrap();
        let value: serde_json::Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(value["changes"][8_999]["records"][0], "8999");
        let read: Plan = serde_json::from_slice(&text).unwrap();
        assert!(read.changes.is_empty(), "who applies it needs none");
    }
}
