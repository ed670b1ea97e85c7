//! The functional core: attributes, mapping and directory rules, with no I/O.
//!
//! Time, randomness and ids are passed in; what is stored is asked for through
//! [`state::State`] and what should be stored is returned as a [`plan::Plan`]. Everything
//! here can therefore be tested by tables and properties, and the same code serves the
//! live stream, a scan and a simulation.

pub mod attribute;
pub mod conflict;
pub mod directory;
pub mod document;
pub mod event;
pub mod id;
pub mod mapped;
pub mod mapping;
pub mod plan;
pub mod reason;
pub mod staged;
pub mod state;
pub mod undo;
