//! The functional core: attributes, mapping and directory rules, with no I/O.
