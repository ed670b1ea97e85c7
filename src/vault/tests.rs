#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on fails"
)]

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use proptest::prelude::*;
use secrecy::{ExposeSecret, SecretString};

use super::*;

fn vault() -> Vault {
    Vault::new(Key::generate().unwrap(), Vec::new())
}

fn copy(key: &Key) -> Key {
    Key::parse(&key.encode()).unwrap()
}

fn binding<'a>(organization: &'a str, owner: Owner<'a>, field: &'a str) -> Binding<'a> {
    Binding {
        organization,
        owner,
        field,
    }
}

const PLACE: Binding<'static> = Binding {
    organization: "acme",
    owner: Owner::Source("hr"),
    field: "password",
};

/// Whether what is sealed at one place is refused at another.
fn is_refused(from: &[String; 3], from_sink: bool, to: &[String; 3], to_sink: bool) -> bool {
    let vault = vault();
    let [organization, name, field] = from;
    let place = binding(organization, owner(name, from_sink), field);
    let envelope = vault.seal(&place, &SecretString::from("secret")).unwrap();
    let [organization, name, field] = to;
    let place = binding(organization, owner(name, to_sink), field);
    matches!(
        vault.open(&place, &envelope),
        Err(VaultError::Refused { .. })
    )
}

fn owner(name: &str, is_sink: bool) -> Owner<'_> {
    match is_sink {
        true => Owner::Sink(name),
        false => Owner::Source(name),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn what_is_sealed_opens_at_its_place(
        organization in "[a-z0-9-]{1,20}",
        name in "[a-z][a-z0-9_-]{0,20}",
        field in "[a-z.]{1,20}",
        secret in "\\PC{1,200}",
        is_sink: bool,
    ) {
        let vault = vault();
        let place = binding(&organization, owner(&name, is_sink), &field);
        let envelope = vault.seal(&place, &SecretString::from(secret.clone())).unwrap();
        prop_assert!(!envelope.contains(&secret) || secret.len() < 4);
        let opened = vault.open(&place, &envelope).unwrap();
        prop_assert_eq!(opened.expose_secret(), secret.as_str());
    }

    #[test]
    fn an_envelope_opens_at_no_place_that_differs_in_one_part(
        parts in prop::array::uniform3("[ab.-]{1,4}"),
        other in "[ab.-]{1,4}",
        is_sink: bool,
        changed in 0usize..4,
    ) {
        let mut moved = parts.clone();
        match moved.get_mut(changed) {
            Some(part) => *part = other,
            None => prop_assume!(changed == 3),
        }
        let moved_sink = is_sink ^ (changed == 3);
        prop_assume!(moved != parts || moved_sink != is_sink);
        prop_assert!(is_refused(&parts, is_sink, &moved, moved_sink));
    }

    #[test]
    fn an_envelope_opens_at_no_place_whose_parts_are_cut_elsewhere(
        parts in prop::array::uniform3("[ab.-]{2,4}"),
        is_sink: bool,
    ) {
        let [organization, name, field] = &parts;
        for moved in [
            [organization[1..].to_owned(), format!("{}{name}", &organization[..1]), field.clone()],
            [format!("{organization}{}", &name[..1]), name[1..].to_owned(), field.clone()],
            [organization.clone(), format!("{name}{}", &field[..1]), field[1..].to_owned()],
        ] {
            prop_assume!(moved != parts);
            prop_assert!(is_refused(&parts, is_sink, &moved, is_sink));
        }
    }

    #[test]
    fn an_envelope_with_one_changed_bit_does_not_open(at in any::<prop::sample::Index>(), bit in 0u8..8) {
        let vault = vault();
        let envelope = vault.seal(&PLACE, &SecretString::from("secret")).unwrap();
        let mut bytes = envelope.into_bytes();
        let at = at.index(bytes.len());
        if let Some(byte) = bytes.get_mut(at) {
            *byte ^= 1 << bit;
        }
        if let Ok(changed) = String::from_utf8(bytes) {
            prop_assert!(vault.open(&PLACE, &changed).is_err());
        }
    }

    #[test]
    fn a_cut_or_stretched_envelope_does_not_open(keep in 0usize..60, more in "[A-Za-z0-9_.-]{1,5}") {
        let vault = vault();
        let envelope = vault.seal(&PLACE, &SecretString::from("secret")).unwrap();
        prop_assume!(keep < envelope.len());
        prop_assert!(vault.open(&PLACE, &envelope[..keep]).is_err());
        let stretched = format!("{envelope}{more}");
        prop_assert!(vault.open(&PLACE, &stretched).is_err());
    }

    #[test]
    fn no_text_at_all_makes_it_panic(text in "\\PC{0,80}") {
        prop_assert!(vault().open(&PLACE, &text).is_err());
        prop_assert!(Key::parse(&text).is_err());
    }
}

#[test]
fn another_key_does_not_open_and_the_error_names_the_ids() {
    let (one, other) = (vault(), vault());
    let envelope = one.seal(&PLACE, &SecretString::from("secret")).unwrap();
    let sentence = other.open(&PLACE, &envelope).unwrap_err().to_string();
    assert_eq!(
        sentence,
        format!(
            "it was sealed with key {}, and the keys at hand are {}; fix: name that key in [vault] previous_key_files, or seal the value again",
            one.current(),
            other.current()
        )
    );
}

#[test]
fn an_envelope_under_the_id_of_another_key_does_not_open() {
    let key = Key::generate().unwrap();
    let other = Key::generate().unwrap();
    let sealed = Vault::new(copy(&key), Vec::new())
        .seal(&PLACE, &SecretString::from("secret"))
        .unwrap();
    let renamed = sealed.replace(&key.id().to_string(), &other.id().to_string());
    let both = Vault::new(other, vec![key]);
    assert!(both.open(&PLACE, &sealed).is_ok());
    assert!(matches!(
        both.open(&PLACE, &renamed),
        Err(VaultError::Refused { .. })
    ));
}

#[test]
fn a_key_has_one_id_and_two_seals_of_one_value_differ() {
    let key = Key::generate().unwrap();
    assert_eq!(key.id(), copy(&key).id());
    assert_ne!(key.id(), Key::generate().unwrap().id());
    // AES-256 of the check block under the zero key, as other implementations give it.
    let zero = Key::parse("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=").unwrap();
    assert_eq!(zero.id().to_string(), "8e15622f");
    let vault = Vault::new(key, Vec::new());
    let secret = SecretString::from("secret");
    assert_ne!(
        vault.seal(&PLACE, &secret).unwrap(),
        vault.seal(&PLACE, &secret).unwrap()
    );
}

#[test]
fn nothing_empty_and_nothing_endless_is_sealed() {
    for length in [0, SECRET_MAX_BYTES + 1] {
        let secret = SecretString::from("x".repeat(length));
        assert!(matches!(
            vault().seal(&PLACE, &secret),
            Err(VaultError::SecretLength(n)) if n == length
        ));
    }
}

#[test]
fn debug_shows_no_key() {
    let key = Key::generate().unwrap();
    let text = key.encode().to_string();
    let shown = format!("{key:?} {:?}", Vault::new(copy(&key), vec![copy(&key)]));
    assert!(!shown.contains(&text) && shown.contains(&key.id().to_string()));
}

#[test]
fn a_key_file_is_private_and_never_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    let key = Key::generate().unwrap();
    key.write_new_file(&path).unwrap();
    let mode = std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
    assert_eq!(Key::read_file(&path).unwrap().id(), key.id());
    assert!(Key::generate().unwrap().write_new_file(&path).is_err());
    assert_eq!(Key::read_file(&path).unwrap().id(), key.id());
    for mode in [0o604, 0o640, 0o620] {
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        let error = Key::read_file(&path).unwrap_err();
        assert!(matches!(error, VaultError::KeyFileOpen { .. }), "{error}");
    }
}

/// A file with sealed values in every form that TOML has for them.
fn file(vault: &Vault) -> String {
    let seal = |owner, field| {
        let secret = SecretString::from(format!("secret of {field}"));
        vault.seal(&binding("acme", owner, field), &secret).unwrap()
    };
    format!(
        r#"# the top
organization = "acme"   # ours

[source.hr]
  password = {{ sealed = "{}" }} # rotate in May
user = "rollcall"

[sink.events]
sasl = {{ mechanism = "PLAIN",  password = {{ sealed = '{}' }} }}
[sink.events.tls.key_password]
sealed = "{}"     # three
[sink.events.properties]
"ssl.keystore.password" = {{ sealed = "{}" }}
[sink.other]
sasl.password.env = "OTHER"
"#,
        seal(Owner::Source("hr"), "password"),
        seal(Owner::Sink("events"), "sasl.password"),
        seal(Owner::Sink("events"), "tls.key_password"),
        seal(Owner::Sink("events"), "properties.ssl.keystore.password"),
    )
}

fn sealed_in(path: &Path) -> Vec<rotate::Sealed> {
    find_sealed(&std::fs::read_to_string(path).unwrap().parse().unwrap())
}

fn without_envelopes(text: &str) -> String {
    text.split(['"', '\''])
        .map(|part| if part.starts_with("rc1.") { "" } else { part })
        .collect::<Vec<_>>()
        .join("\"")
}

#[test]
fn rotation_seals_everything_again_and_leaves_the_rest_of_the_file_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rollcall.toml");
    let (old, new) = (Key::generate().unwrap(), Key::generate().unwrap());
    let text = file(&Vault::new(copy(&old), Vec::new()));
    std::fs::write(&path, &text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();

    let both = Vault::new(copy(&new), vec![old]);
    let rotation = rotate(&path, "acme", &both).unwrap();
    assert_eq!((rotation.resealed, rotation.current), (4, 0));

    let after = std::fs::read_to_string(&path).unwrap();
    assert_ne!(after, text);
    assert_eq!(without_envelopes(&after), without_envelopes(&text));
    let mode = std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o640);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);

    // The old key may go now.
    let only_new = Vault::new(new, Vec::new());
    let sealed = sealed_in(&path);
    assert_eq!(sealed.len(), 4);
    for sealed in sealed {
        let owner = match sealed.kind {
            "source" => Owner::Source(&sealed.name),
            _ => Owner::Sink(&sealed.name),
        };
        let place = binding("acme", owner, &sealed.field);
        let secret = only_new.open(&place, &sealed.envelope).unwrap();
        assert_eq!(
            secret.expose_secret(),
            format!("secret of {}", sealed.field)
        );
    }
    let again = rotate(&path, "acme", &only_new).unwrap();
    assert_eq!((again.resealed, again.current), (0, 4));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), after);
}

#[test]
fn a_rotation_that_cannot_open_everything_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rollcall.toml");
    let (old, new) = (Key::generate().unwrap(), Key::generate().unwrap());
    let mut text = file(&Vault::new(copy(&old), Vec::new()));
    text.push_str("[source.crm]\npassword.sealed = \"rc1.00000000.AAAA\"\n");
    text.push_str("[source.erp]\npassword.sealed = \"nothing\"\n");
    std::fs::write(&path, &text).unwrap();
    let errors = rotate(&path, "acme", &Vault::new(new, vec![old])).unwrap_err();
    let places: Vec<&str> = errors.iter().map(|(place, _)| place.as_str()).collect();
    assert_eq!(places, ["source.crm.password", "source.erp.password"]);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
}

#[test]
fn a_sealed_value_is_put_where_it_belongs() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rollcall.toml");
    let text = "[source.hr] # people\npassword = \"plain\"  # change me\nuser = \"u\"\n[sink.events]\ntype = \"kafka\"\n";
    std::fs::write(&path, text).unwrap();
    let write = |owner, field| write_sealed(&path, &binding("acme", owner, field), "rc1.x");
    write(Owner::Source("hr"), "password").unwrap();
    write(Owner::Sink("events"), "sasl.password").unwrap();
    write(Owner::Sink("events"), "properties.ssl.keystore.password").unwrap();
    let after = std::fs::read_to_string(&path).unwrap();
    assert!(
        after.contains("password = { sealed = \"rc1.x\" }  # change me\nuser"),
        "{after}"
    );
    assert!(after.starts_with("[source.hr] # people\n"));
    let fields: Vec<String> = sealed_in(&path).into_iter().map(|s| s.field).collect();
    assert_eq!(
        fields,
        [
            "password",
            "sasl.password",
            "properties.ssl.keystore.password"
        ]
    );
    let error = write(Owner::Source("crm"), "password").unwrap_err();
    assert!(error.to_string().ends_with("has no [source.crm]"));
}
