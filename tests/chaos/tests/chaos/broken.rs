//! What is found to be wrong, wherever that is.

use std::sync::{Arc, Mutex};

/// The first thing that was found. Cloning shares it.
#[derive(Clone, Default)]
pub(crate) struct Broken(Arc<Mutex<Option<String>>>);

impl Broken {
    pub(crate) fn say(&self, what: String) {
        self.0.lock().unwrap().get_or_insert(what);
    }

    pub(crate) fn found(&self) -> Option<String> {
        self.0.lock().unwrap().clone()
    }
}
