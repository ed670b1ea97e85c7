//! The attributes of a user.
//!
//! The core and enterprise attributes are those of SCIM 2.0 (RFC 7643 sections 4.1 and
//! 4.3) with dotted names for sub-attributes; an organization adds typed
//! `custom.<name>` attributes. An attribute's number is stored in documents, so it never
//! changes: core numbers are fixed here, custom numbers are handed out by the store.

/// The number of an attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AttrId(pub u16);

/// The first number of custom attributes.
pub const FIRST_CUSTOM: u16 = 1000;

/// What values an attribute holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttrType {
    /// Unicode text in NFC.
    Text,
    /// `true` or `false`.
    Boolean,
    /// A 64-bit integer.
    Integer,
    /// An exact decimal number.
    Decimal,
    /// `YYYY-MM-DD`.
    Date,
    /// An instant or a local date and time, in ISO 8601.
    Timestamp,
    /// A set of texts, in which each source owns the values that it contributed.
    List,
    /// Another user, by id. A source names it by the key of its record.
    Reference,
}

/// One attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attribute {
    /// Its number.
    pub id: AttrId,
    /// Its name: `userName`, `name.givenName`, `custom.badge`.
    pub name: String,
    /// What it holds.
    pub kind: AttrType,
    json: JsonName,
}

/// An attribute's name as it stands in JSON, made once.
#[derive(Clone, Debug, PartialEq, Eq)]
struct JsonName {
    /// `,"name":{` of `name.givenName`.
    opening: Option<String>,
    /// `"givenName":`
    member: String,
}

impl Attribute {
    /// An attribute of a number and a full name.
    pub fn new(id: AttrId, name: String, kind: AttrType) -> Attribute {
        let quoted = |part: &str| serde_json::Value::from(part).to_string();
        let (prefix, leaf) = match name.split_once('.') {
            Some((prefix, leaf)) => (Some(prefix), leaf),
            None => (None, name.as_str()),
        };
        let json = JsonName {
            opening: prefix.map(|prefix| format!(",{}:{{", quoted(prefix))),
            member: format!("{}:", quoted(leaf)),
        };
        Attribute {
            id,
            name,
            kind,
            json,
        }
    }

    /// What opens the object that the attribute stands in, the same for all that stand in it:
    /// `,"name":{` for `name.givenName`. None for one that stands alone.
    pub fn json_opening(&self) -> Option<&str> {
        self.json.opening.as_deref()
    }

    /// What stands before the value, in that object or alone: `"givenName":`.
    pub fn json_member(&self) -> &str {
        &self.json.member
    }
}

/// The fixed attributes: number, name, type. Names that share a prefix stand together.
const CORE: &[(u16, &str, AttrType)] = &[
    (1, "userName", AttrType::Text),
    (2, "name.formatted", AttrType::Text),
    (3, "name.givenName", AttrType::Text),
    (4, "name.middleName", AttrType::Text),
    (5, "name.familyName", AttrType::Text),
    (6, "name.honorificPrefix", AttrType::Text),
    (7, "name.honorificSuffix", AttrType::Text),
    (8, "displayName", AttrType::Text),
    (9, "nickName", AttrType::Text),
    (10, "title", AttrType::Text),
    (11, "userType", AttrType::Text),
    (12, "preferredLanguage", AttrType::Text),
    (13, "locale", AttrType::Text),
    (14, "timezone", AttrType::Text),
    (15, "active", AttrType::Boolean),
    (16, "email", AttrType::Text),
    (17, "emails", AttrType::List),
    (18, "phoneNumber", AttrType::Text),
    (19, "phoneNumbers", AttrType::List),
    (20, "address.formatted", AttrType::Text),
    (21, "address.streetAddress", AttrType::Text),
    (22, "address.locality", AttrType::Text),
    (23, "address.region", AttrType::Text),
    (24, "address.postalCode", AttrType::Text),
    (25, "address.country", AttrType::Text),
    (26, "roles", AttrType::List),
    (27, "groups", AttrType::List),
    (28, "employeeNumber", AttrType::Text),
    (29, "costCenter", AttrType::Text),
    (30, "organization", AttrType::Text),
    (31, "division", AttrType::Text),
    (32, "department", AttrType::Text),
    (33, "manager", AttrType::Reference),
];

/// `userName`: unique among live users, a match key.
pub const USER_NAME: AttrId = AttrId(1);
/// `name.givenName`.
pub const GIVEN_NAME: AttrId = AttrId(3);
/// `name.familyName`.
pub const FAMILY_NAME: AttrId = AttrId(5);
/// `displayName`.
pub const DISPLAY_NAME: AttrId = AttrId(8);
/// `active`: a mapped `false` is evidence of a leaver, not a value like others.
pub const ACTIVE: AttrId = AttrId(15);
/// `email`: the primary address; unique among live users, a match key.
pub const EMAIL: AttrId = AttrId(16);
/// `roles`: a list; losing one counts against a source's limit.
pub const ROLES: AttrId = AttrId(26);
/// `manager`: another user (`manager.value` of RFC 7643 section 4.3).
pub const MANAGER: AttrId = AttrId(33);

/// All attributes of an organization, by number and by name.
#[derive(Clone, Debug, Default)]
pub struct Attributes {
    custom: Vec<Attribute>,
    core: Vec<Attribute>,
}

impl Attributes {
    /// The fixed attributes and the given custom ones. `custom` names are without the
    /// prefix `custom.`, their numbers come from the store.
    pub fn new(custom: impl IntoIterator<Item = (AttrId, String, AttrType)>) -> Self {
        let core = CORE
            .iter()
            .map(|&(id, name, kind)| Attribute::new(AttrId(id), name.to_owned(), kind))
            .collect();
        let mut custom: Vec<Attribute> = custom
            .into_iter()
            .map(|(id, name, kind)| Attribute::new(id, format!("custom.{name}"), kind))
            .collect();
        custom.sort_by_key(|a| a.id);
        Attributes { custom, core }
    }

    /// An attribute by its full name.
    pub fn by_name(&self, name: &str) -> Option<&Attribute> {
        self.iter().find(|a| a.name == name)
    }

    /// An attribute by its number.
    pub fn get(&self, id: AttrId) -> Option<&Attribute> {
        let within = if id.0 >= FIRST_CUSTOM {
            &self.custom
        } else {
            &self.core
        };
        within
            .binary_search_by_key(&id, |a| a.id)
            .ok()
            .map(|i| &within[i])
    }

    /// All of them in the order of their numbers, which is the order of documents and
    /// events.
    pub fn iter(&self) -> impl Iterator<Item = &Attribute> {
        self.core.iter().chain(&self.custom)
    }
}
