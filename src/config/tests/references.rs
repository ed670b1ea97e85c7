//! Credentials come in by reference, and never out.

use std::os::unix::fs::PermissionsExt;

use secrecy::{ExposeSecret, SecretString};

use super::super::Config;
use super::{SMALL, parse_with};
use crate::vault::{Binding, Key, Owner, Vault};

const MARKER: &str = "marker-9d1f";

fn with_password(reference: &str) -> String {
    format!("{SMALL}password = {reference}\n")
}

fn password(config: &Config) -> &str {
    config.sources[0]
        .server
        .password
        .as_ref()
        .unwrap()
        .expose_secret()
}

fn refused(reference: &str, variables: &[(&str, &str)]) -> String {
    let errors = parse_with(&with_password(reference), variables).unwrap_err();
    let text = errors.to_string();
    assert!(!text.contains(MARKER), "{text}");
    assert!(!format!("{errors:?}").contains(MARKER));
    text
}

fn sealed(key: &Key, source: &str) -> String {
    let vault = Vault::new(Key::parse(&key.encode()).unwrap(), Vec::new());
    let binding = Binding {
        organization: "acme",
        owner: Owner::Source(source),
        field: "password",
    };
    let envelope = vault.seal(&binding, &SecretString::from(MARKER)).unwrap();
    format!("{{ sealed = \"{envelope}\" }}")
}

#[test]
fn a_variable_a_file_and_a_sealed_value_resolve() {
    let config = parse_with(&with_password("{ env = \"HR\" }"), &[("HR", MARKER)]).unwrap();
    assert_eq!(password(&config), MARKER);

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secret");
    for end in ["", "\n", "\r\n"] {
        std::fs::write(&path, format!("{MARKER}{end}")).unwrap();
        let reference = format!("{{ file = {path:?} }}");
        let config = parse_with(&with_password(&reference), &[]).unwrap();
        assert_eq!(password(&config), MARKER);
    }

    let key = Key::generate().unwrap();
    let text = with_password(&sealed(&key, "hr"));
    let config = parse_with(&text, &[("ROLLCALL_KEY", &key.encode())]).unwrap();
    assert_eq!(password(&config), MARKER);
    assert!(!format!("{config:?}").contains(MARKER));
}

#[test]
fn a_plain_password_is_refused_with_the_command_that_seals_it() {
    assert_eq!(
        refused(&format!("\"{MARKER}\""), &[]),
        "rollcall.toml:10:12: source.hr.password: found a credential in plain text (not shown), expected a reference: { sealed = \"…\" }, { env = \"…\" } or { file = \"…\" }; fix: seal it with `rollcall secret seal --source hr --field password`, and change it where it is in use if others could read this file"
    );
    for wrong in [
        format!("[\"{MARKER}\"]"),
        format!("{{ plain = \"{MARKER}\" }}"),
        format!("{{ env = \"{MARKER}\" }}"),
        format!("{{ env = \"A\", plain = \"{MARKER}\" }}"),
        format!("{{ sealed = \"{MARKER}\" }}"),
        "{ env = 5 }".to_owned(),
        "5".to_owned(),
    ] {
        refused(
            &wrong,
            &[("ROLLCALL_KEY", &Key::generate().unwrap().encode())],
        );
    }
}

#[test]
fn credentials_in_addresses_are_not_repeated() {
    for text in [
        SMALL.replace("localhost", &format!("u:{MARKER}@localhost")),
        format!("{SMALL}[sink.k]\ntype = \"kafka\"\nbrokers = [\"u:{MARKER}@h:1\"]\n"),
        SMALL.replace("localhost", &format!("host=h password={MARKER}")),
        SMALL.replace(
            "database = \"hr\"",
            &format!("database = \"postgres://u:{MARKER}@h/d\""),
        ),
        format!("{SMALL}tls = \"{MARKER}\"\n"),
        format!(
            "{SMALL}[sink.k]\ntype = \"kafka\"\nbrokers = [\"h:1\"]\nproperties = {{ \"ssl.keystore.password\" = \"{MARKER}\" }}\n"
        ),
    ] {
        let errors = parse_with(&text, &[("S", "s")]).unwrap_err().to_string();
        assert!(errors.contains("not shown"), "{errors}");
        assert!(!errors.contains(MARKER), "{errors}");
    }
}

#[test]
fn what_a_reference_names_has_to_be_there() {
    assert_eq!(
        refused("{ env = \"HR_PASSWORD\" }", &[]),
        "rollcall.toml:10:20: source.hr.password: found the variable \"HR_PASSWORD\", which is not set, expected a variable that holds the credential; fix: set it in the environment of the daemon"
    );
    assert!(refused("{ env = \"HR\" }", &[("HR", "")]).contains("which is empty"));
    assert!(refused("{ file = \"/nowhere/x\" }", &[]).contains("/nowhere/x, which cannot be read"));
}

#[test]
fn a_sealed_value_needs_its_key_and_its_place() {
    let key = Key::generate().unwrap();
    let other = Key::generate().unwrap();
    let here = sealed(&key, "hr");
    let start =
        "rollcall.toml:10:23: source.hr.password: found a sealed value that does not open: ";

    let sentence = refused(&here, &[]);
    assert!(
        sentence.starts_with(&format!("{start}there is no key")),
        "{sentence}"
    );

    let sentence = refused(&here, &[("ROLLCALL_KEY", &other.encode())]);
    assert!(
        sentence.starts_with(&format!("{start}it was sealed with key {}", key.id())),
        "{sentence}"
    );
    assert!(
        sentence
            .ends_with("fix: name that key in [vault] previous_key_files, or seal the value again")
    );

    let sentence = refused(&sealed(&key, "crm"), &[("ROLLCALL_KEY", &key.encode())]);
    assert_eq!(
        sentence,
        format!(
            "{start}it was sealed for another organization, source, sink or field, or was changed since, expected a value that was sealed for this place with a key at hand; fix: seal the value for this place with `rollcall secret seal --source hr --field password`"
        )
    );

    let both = [
        ("ROLLCALL_KEY", other.encode().to_string()),
        ("ROLLCALL_PREVIOUS_KEYS", key.encode().to_string()),
    ];
    let both: Vec<(&str, &str)> = both.iter().map(|(n, v)| (*n, v.as_str())).collect();
    let config = parse_with(&with_password(&here), &both).unwrap();
    assert_eq!(password(&config), MARKER, "a previous key still opens");
}

#[test]
fn keys_come_from_files_and_systemd_credentials() {
    let folder = tempfile::tempdir().unwrap();
    let key = Key::generate().unwrap();
    let path = folder.path().join("rollcall.key");
    key.write_new_file(&path).unwrap();
    let text = with_password(&sealed(&key, "hr"));

    let with_file = format!("{text}[vault]\nkey_file = {path:?}\n");
    assert_eq!(password(&parse_with(&with_file, &[]).unwrap()), MARKER);

    let credentials = folder.path().to_str().unwrap();
    let config = parse_with(&text, &[("CREDENTIALS_DIRECTORY", credentials)]).unwrap();
    assert_eq!(password(&config), MARKER);

    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
    let shown = path.display();
    assert_eq!(
        parse_with(&with_file, &[])
            .unwrap_err()
            .iter()
            .next()
            .unwrap()
            .to_string(),
        format!(
            "rollcall.toml:12:12: vault.key_file: found a key that cannot be used: {shown} can be read by others than its owner (mode 0640), expected 32 bytes in base64 that only the daemon can read; fix: chmod 600 {shown}"
        )
    );
    assert_eq!(
        parse_with(SMALL, &[("ROLLCALL_KEY", MARKER)])
            .unwrap_err()
            .to_string(),
        "rollcall.toml:1:1: ROLLCALL_KEY: found a key that cannot be used: a key is 32 bytes in base64 (44 characters), and this is something else, expected 32 bytes in base64 that only the daemon can read; fix: make a key with `rollcall secret generate-key`"
    );
}
