//! The table of keys, for people: what `rollcall config --explain` prints and what
//! `docs/configuration.md` holds.

use super::keys::{KEYS, Key, Kind, Presence};
use super::reader::suggest;

/// The keys that a question is about: all of them for none, else those that the question
/// names as a full key (`source.hr.port`), a pattern (`source.*.port`), a table above them
/// (`source.*.tls`) or a last part (`port`).
///
/// # Errors
/// The nearest key that exists, if one is near, when there is no such key.
pub fn explain(question: Option<&str>) -> Result<Vec<&'static Key>, Option<&'static str>> {
    let Some(question) = question else {
        return Ok(KEYS.iter().collect());
    };
    let question = question.trim_matches(['[', ']']);
    let parts: Vec<&str> = question.split('.').collect();
    for dotted in [false, true] {
        let below: Vec<&Key> = KEYS
            .iter()
            .filter(|key| begins(key, &parts, dotted))
            .collect();
        if !below.is_empty() {
            return Ok(below);
        }
    }
    let ending: Vec<&Key> = KEYS
        .iter()
        .filter(|key| {
            key.pattern
                .strip_suffix(question)
                .is_some_and(|above| above.is_empty() || above.ends_with('.'))
        })
        .collect();
    if !ending.is_empty() {
        return Ok(ending);
    }
    let leaf = parts.last().copied().unwrap_or(question);
    let near = suggest(leaf, KEYS.iter().map(Key::leaf).filter(|leaf| *leaf != "*"));
    Err(near)
}

/// Whether the question is this key or a table above it. A name with dots, such as
/// `name.givenName`, is one part of the key then.
fn begins(key: &Key, question: &[&str], dotted: bool) -> bool {
    let mut pattern = key.pattern.split('.');
    for part in question {
        match pattern.next() {
            Some("*") if dotted && key.has_dotted_names() && pattern.clone().next().is_none() => {
                return true;
            }
            Some("*") => {}
            Some(expected) if expected == *part => {}
            _ => return false,
        }
    }
    true
}

impl Key {
    /// Whether the names that the operator chooses may have dots.
    fn has_dotted_names(&self) -> bool {
        matches!(self.kind, Kind::Rule | Kind::Property) || self.table() == "field"
    }

    /// Whether it has to be there, or what counts when it is not, in words.
    pub fn presence_in_words(&self) -> String {
        match self.presence {
            Presence::Required => "required".to_owned(),
            Presence::Optional => "none".to_owned(),
            Presence::Default(text) => text.to_owned(),
            Presence::Depends(sentence) => sentence.to_owned(),
        }
    }
}

const INTRODUCTION: &str = "\
# rollcall.toml

Every key of the configuration file. This page is a copy of the table that the program
itself reads from: `rollcall config --explain [key]` prints the same on a terminal, and
`rollcall config schema` gives it as a JSON Schema for editors.

- A file is checked as a whole. Each error names file, line, column, key, what was found,
  what was expected and the fix; all errors are shown at once. Unknown keys are errors.
- `*` stands for a name that you choose: of a source, a sink, an attribute.
- Durations are whole numbers with one unit of `ms`, `s`, `m`, `h`, `d`; sizes with one of
  `B`, `KiB`, `MiB`, `GiB`.
- Relative paths count from the folder of the file.

## Credentials

A credential is never written in plain text. It is one of:

| reference | read from |
|---|---|
| `{ sealed = \"rc1.…\" }` | the file itself, sealed with AES-256-GCM |
| `{ env = \"HR_PASSWORD\" }` | an environment variable (capitals, digits and `_`) |
| `{ file = \"/run/secrets/hr\" }` | a file; one line end at its end is not part of it |

`rollcall secret seal --source hr --field password` seals a value from standard input or a
prompt without echo. What it prints opens in that field of that source of that organization
and nowhere else.

The key is taken from `ROLLCALL_KEY`, else from `vault.key_file`, else from the systemd
credential `rollcall.key` (`LoadCredential=rollcall.key:/etc/rollcall/key`). Every other key
that is there opens, but does not seal: those of `vault.previous_key_files`, the systemd
credential `rollcall.previous.key`, and `ROLLCALL_PREVIOUS_KEYS` (separated by commas).

To rotate the key while the daemon runs:

1. `rollcall secret generate-key --out /etc/rollcall/key.new`
2. name the new file as `key_file` and the old one in `previous_key_files`
3. `rollcall secret rotate` seals every value in the file again; comments stay
4. remove the old file and `previous_key_files`

## A small file

```toml
";

/// A whole configuration that is valid as it stands.
pub(super) const EXAMPLE: &str = include_str!("example.toml");

/// `docs/configuration.md`.
pub fn markdown() -> String {
    let mut page = format!("{INTRODUCTION}{EXAMPLE}```\n");
    page.push_str("\n## Keys\n");
    let mut tables: Vec<&str> = Vec::new();
    for key in KEYS {
        if !tables.contains(&key.table()) {
            tables.push(key.table());
        }
    }
    for table in tables {
        if !table.is_empty() {
            page.push_str(&format!("\n### `[{table}]`\n"));
        }
        page.push_str("\n| key | type | default | meaning |\n|---|---|---|---|\n");
        for key in KEYS.iter().filter(|key| key.table() == table) {
            page.push_str(&row(key));
        }
    }
    page
}

fn row(key: &Key) -> String {
    let name = key.leaf();
    let only = match key.only {
        [] => String::new(),
        _ => format!(" Only `{}`.", key.only_in_words()),
    };
    let presence = match key.presence {
        Presence::Default(text) => format!("`{text}`"),
        Presence::Optional => String::new(),
        _ => key.presence_in_words(),
    };
    let label = key.kind.label().replace('|', "\\|");
    let example = match key.kind {
        Kind::Table => String::new(),
        _ => format!(" Example: `{}`.", key.example.replace('|', "\\|")),
    };
    let meaning = key.meaning.replace('<', "&lt;");
    let presence = presence.replace('|', "\\|");
    format!("| `{name}` | {label} | {presence} | {meaning}{only}{example} |\n")
}
