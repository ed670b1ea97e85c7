//! The daemon's configuration: eight attributes (one of them computed) and a scope.

use std::path::{Path, PathBuf};

use crate::Result;
use crate::database::Database;

/// The Kafka sink of a configuration.
pub(crate) struct KafkaTarget {
    pub(crate) bootstrap: String,
    /// Topics and transactional id carry it, so that no run meets another one's.
    pub(crate) name: String,
    pub(crate) delivery: &'static str,
}

impl KafkaTarget {
    pub(crate) fn topic(&self) -> String {
        format!("{}.identity", self.name)
    }
}

/// One source with the mapping of all benches. The name is that of the slot, too.
pub(crate) fn source(name: &str, kind: &str, connection: &str) -> String {
    format!(
        "[source.{name}]\ntype = \"{kind}\"\n{connection}\
         scope = \"status != 'contractor'\"\n\
         limit = {{ action = \"off\" }}\n\
         [source.{name}.map]\n\
         userName = \"email\"\n\
         email = \"email\"\n\
         name.givenName = \"first_name\"\n\
         name.familyName = \"last_name\"\n\
         displayName = {{ expr = \"first_name + ' ' + last_name\" }}\n\
         title = {{ column = \"job\", default = \"Employee\" }}\n\
         department = \"department\"\n\
         phoneNumber = \"phone\"\n"
    )
}

/// What stands before the sources.
pub(crate) fn head(store: &Path) -> String {
    format!(
        "organization = \"bench\"\n\
         [store]\npath = \"{}\"\n\
         [log]\nlevel = \"warn\"\n",
        store.display()
    )
}

/// Writes it. The name is that of the file, and of the slot.
pub(crate) fn write_config(
    folder: &Path,
    server: &dyn Database,
    store: &Path,
    name: &str,
    kafka: Option<&KafkaTarget>,
) -> Result<PathBuf> {
    let mut text = head(store) + &source("hr", server.kind(), &server.connection(name));
    if let Some(kafka) = kafka {
        text.push_str(&format!(
            "[sink.events]\ntype = \"kafka\"\nbrokers = [\"{}\"]\ntopic = \"{}\"\n\
             cursors_topic = \"{name}.cursors\"\ntransactional_id = \"{name}\"\n\
             delivery = \"{}\"\n",
            kafka.bootstrap,
            kafka.topic(),
            kafka.delivery,
            name = kafka.name,
        ));
    }
    let path = folder.join(format!("{name}.toml"));
    std::fs::write(&path, text)?;
    Ok(path)
}
