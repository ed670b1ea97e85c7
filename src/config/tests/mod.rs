#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on fails"
)]

mod bad_files;
mod broken_files;
mod good_files;
mod references;
mod table_of_keys;

use std::collections::BTreeMap;
use std::path::Path;

use super::{Config, ConfigErrors};

/// A small valid file; `{}` takes what a test adds to it.
const SMALL: &str = r#"organization = "acme"

[source.hr]
type = "postgres"
host = "localhost"
database = "hr"
user = "rollcall"
table = "public.employees"
map = { email = "emp_email" }
"#;

/// The same for MySQL.
const MYSQL: &str = r#"organization = "acme"

[source.hr]
type = "mysql"
host = "localhost"
user = "rollcall"
table = "hr.employees"
map = { email = "emp_email" }
"#;

fn parse(text: &str) -> Result<Config, ConfigErrors> {
    parse_with(text, &[])
}

fn parse_with(text: &str, variables: &[(&str, &str)]) -> Result<Config, ConfigErrors> {
    let environment: BTreeMap<String, String> = variables
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    Config::parse(Path::new("rollcall.toml"), text, &environment)
}

fn valid(text: &str) -> Config {
    match parse(text) {
        Ok(config) => config,
        Err(errors) => panic!("a valid file was refused:\n{errors}"),
    }
}

/// The sentences about a file, one a line.
fn refused(text: &str) -> Vec<String> {
    match parse(text) {
        Ok(_) => panic!("this file was taken:\n{text}"),
        Err(errors) => errors.iter().map(ToString::to_string).collect(),
    }
}
