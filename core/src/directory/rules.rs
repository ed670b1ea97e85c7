//! What an organization decided about its directory.

use hashbrown::{HashMap, HashSet};
use smallvec::SmallVec;

use crate::attribute::{ACTIVE, AttrId, AttrType, Attributes, EMAIL, USER_NAME};
use crate::document::Moment;
use crate::id::{MatchHash, SourceId, ValueHash};
use crate::mapped::{Assigned, MappedRow, MappedRows, Strength};
use crate::mapping::fold;
use crate::plan::DueKind;
use crate::staged::{Counting, Remapping};

/// What the end of a record does to its user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum LeaverAction {
    /// The user is deactivated when its last record is gone.
    #[default]
    Deactivate,
    /// Nothing.
    Ignore,
}

/// What the end of a record does to its user, and when. Times are microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaverRules {
    /// What it does at all; with [`LeaverAction::Ignore`] the times mean nothing.
    pub action: LeaverAction,
    /// For so long a user whose record is gone stays as it is.
    pub grace_us: i64,
    /// So long after all its records went an inactive user is deleted; none: never.
    pub delete_after_us: Option<i64>,
    /// So long after it was deleted its id is forgotten too.
    pub purge_after_us: i64,
}

impl Default for LeaverRules {
    /// Deactivated at once, never deleted.
    fn default() -> Self {
        LeaverRules {
            action: LeaverAction::Deactivate,
            grace_us: 0,
            delete_after_us: None,
            purge_after_us: 90 * 24 * 3_600 * 1_000_000,
        }
    }
}

impl LeaverRules {
    /// How long a user stays what it is before this comes; none: for ever.
    pub fn delay_us(&self, kind: DueKind) -> Option<i64> {
        if self.action == LeaverAction::Ignore {
            return None;
        }
        match kind {
            DueKind::Grace => Some(self.grace_us),
            DueKind::Deletion => self.delete_after_us,
            DueKind::Purge => Some(self.purge_after_us),
            DueKind::Pin => None,
        }
    }
}

/// Who decides a field between the sources and the identity side, where neither a pin nor an
/// authority does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// A value that the identity side writes stays until a source changes its own.
    SourceWins,
    /// A value that the identity side writes stays.
    TargetWins,
    /// The newer value wins.
    MostRecent,
    /// Sources give a value only while there is none.
    IfEmpty,
    /// Sources give a value only when the user is made or the record is linked first.
    OnCreate,
    /// A list: all parts count, and everybody takes away only what it gave.
    Merge,
}

/// The rules of one field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldRules {
    /// The sources whose value counts before all but a pinned one, the first one first; the
    /// others follow in the order of the configuration.
    pub authority: Vec<SourceId>,
    /// Who else decides; none for the usual: [`Mode::Merge`] of a list, else
    /// [`Mode::SourceWins`].
    pub mode: Option<Mode>,
    /// How far the clocks of two sides may differ, microseconds.
    pub skew_us: u64,
}

impl FieldRules {
    /// Only an order of sources.
    pub fn of_authority(authority: Vec<SourceId>) -> FieldRules {
        FieldRules {
            authority,
            mode: None,
            skew_us: FieldRules::SKEW_US,
        }
    }

    /// How far clocks may differ where nothing else is said.
    pub const SKEW_US: u64 = 2_000_000;
}

/// The rules of one source.
#[derive(Clone, Debug)]
pub struct SourceRules {
    /// Its number in the store.
    pub id: SourceId,
    /// Its name, which is in the ids of events.
    pub name: String,
    /// Attributes by which its records find their user, in this order.
    pub match_attributes: Vec<AttrId>,
    /// What the end of a record does.
    pub leaver: LeaverRules,
    /// Attributes of which at least one must be as before when a deleted key comes back.
    pub fingerprint: Vec<AttrId>,
    /// What becomes of its changes that are counted against its limit.
    pub counting: Counting,
    /// Which of its changes are counted because the mapping changed.
    pub remapping: Remapping,
    /// Attributes of which nothing is said at present, because the table changed under their
    /// rules.
    pub paused: Vec<AttrId>,
}

impl SourceRules {
    /// A source with the defaults: matched by email, leavers deactivated, fingerprint of
    /// names and email.
    pub fn new(id: SourceId, name: impl Into<String>) -> Self {
        use crate::attribute::{DISPLAY_NAME, FAMILY_NAME, GIVEN_NAME};
        SourceRules {
            id,
            name: name.into(),
            match_attributes: vec![EMAIL],
            leaver: LeaverRules::default(),
            fingerprint: vec![GIVEN_NAME, FAMILY_NAME, DISPLAY_NAME, EMAIL],
            counting: Counting::default(),
            remapping: Remapping::default(),
            paused: Vec::new(),
        }
    }

    /// Whether a record cannot be told from others: what it is matched by is paused.
    pub(super) fn cannot_match(&self) -> bool {
        self.paused
            .iter()
            .any(|a| self.match_attributes.contains(a))
    }
}

/// Maps a stored shadow again: for records that were held or whose mapping changed.
pub trait Remap {
    /// Appends one row, the mapping of a shadow of this source. When the shadow alone is not
    /// enough (a redacted column is mapped), the row is [`crate::mapped::Outcome::Deferred`]
    /// and the record is read again. Appends nothing when the source is not known.
    fn remap(&self, source: SourceId, shadow: &[u8], out: &mut MappedRows);

    /// When a row says that a field of it was changed: none when the configuration names no
    /// column for that, and none within when the column has no value.
    fn changed(
        &self,
        _source: SourceId,
        _attribute: AttrId,
        _shadow: &[u8],
    ) -> Option<Option<Moment>> {
        None
    }
}

/// What a mapped row is found by.
#[derive(Clone, Debug, Default)]
pub struct RowKeys {
    /// Its userName, email and match keys, under which users are found that have them.
    pub values: SmallVec<[ValueHash; 3]>,
    /// Its match keys, in the order of attributes: for finding duplicates in its source.
    pub matches: SmallVec<[MatchHash; 3]>,
}

/// All rules of an organization.
pub struct Rules {
    /// The organization's name, which is in the ids of events.
    pub organization: String,
    /// Its attributes.
    pub attributes: Attributes,
    /// Maps shadows.
    pub remap: Box<dyn Remap + Send + Sync>,
    /// Match keys that a scan found in several records of a source: nobody with one of them
    /// is written, whichever page they are on. Empty it when the load has ended, and then
    /// call [`super::Resolver::retry`] with them.
    pub known_duplicates: HashSet<MatchHash>,
    sources: Vec<SourceRules>,
    /// Under whose name the identity side writes.
    own: SourceRules,
    fields: HashMap<AttrId, FieldRules>,
    /// Fields in which a source's value is weaker than its rule says.
    weak: Vec<(AttrId, Strength)>,
    /// Fields in which the newer value wins.
    timed: Vec<AttrId>,
    keys: Vec<AttrId>,
    decisive: Vec<AttrId>,
}

impl std::fmt::Debug for Rules {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rules")
            .field("organization", &self.organization)
            .field("sources", &self.sources)
            .field("fields", &self.fields)
            .finish_non_exhaustive()
    }
}

impl Rules {
    /// Rules. `sources` in the order of the configuration; `fields` has those whose rules are
    /// not the usual ones.
    pub fn new(
        organization: impl Into<String>,
        attributes: Attributes,
        sources: Vec<SourceRules>,
        fields: HashMap<AttrId, FieldRules>,
        remap: Box<dyn Remap + Send + Sync>,
    ) -> Self {
        let mut keys: Vec<AttrId> = [USER_NAME, EMAIL]
            .into_iter()
            .chain(
                sources
                    .iter()
                    .flat_map(|s| s.match_attributes.iter().copied()),
            )
            .filter(|&a| {
                let kind = attributes.get(a).map(|a| a.kind);
                kind.is_some_and(|kind| !matches!(kind, AttrType::List | AttrType::Reference))
            })
            .collect();
        keys.sort_unstable();
        keys.dedup();
        let mut decisive = keys.clone();
        decisive.push(ACTIVE);
        decisive.extend(sources.iter().flat_map(|s| s.fingerprint.iter().copied()));
        decisive.sort_unstable();
        decisive.dedup();
        let with = |mode: Mode| {
            let all = fields.iter().filter(move |(_, f)| f.mode == Some(mode));
            all.map(|(attribute, _)| *attribute)
        };
        let on_create = with(Mode::OnCreate).map(|a| (a, Strength::OnCreate));
        let if_empty = with(Mode::IfEmpty).map(|a| (a, Strength::IfEmpty));
        let weak = on_create.chain(if_empty).collect();
        let timed = with(Mode::MostRecent).collect();
        Rules {
            organization: organization.into(),
            attributes,
            remap,
            known_duplicates: HashSet::new(),
            sources,
            own: SourceRules::new(SourceId::OWN, ""),
            fields,
            weak,
            timed,
            keys,
            decisive,
        }
    }

    /// The rules of each source, in the order of the configuration.
    pub fn sources(&self) -> &[SourceRules] {
        &self.sources
    }

    /// The rules of a source, if it is configured.
    pub fn source(&self, id: SourceId) -> Option<&SourceRules> {
        self.sources.iter().find(|s| s.id == id)
    }

    pub(super) fn own(&self) -> &SourceRules {
        &self.own
    }

    /// How a value of a source is used: as its rule says, unless the field's mode makes it
    /// weaker.
    pub(super) fn strength(&self, attribute: AttrId, said: Strength) -> Strength {
        if said != Strength::Always {
            return said;
        }
        let weak = self.weak.iter().find(|(a, _)| *a == attribute);
        weak.map_or(said, |(_, strength)| *strength)
    }

    /// Whether the newer value of a field wins.
    pub(super) fn is_timed(&self, attribute: AttrId) -> bool {
        self.timed.contains(&attribute)
    }

    /// Whether in any field the newer value wins.
    pub(super) fn has_timed(&self) -> bool {
        !self.timed.is_empty()
    }

    /// Who decides a field.
    pub fn mode(&self, attribute: AttrId) -> Mode {
        let mode = self.fields.get(&attribute).and_then(|f| f.mode);
        mode.unwrap_or_else(|| match self.is_list(attribute) {
            true => Mode::Merge,
            false => Mode::SourceWins,
        })
    }

    pub(super) fn skew_us(&self, attribute: AttrId) -> u64 {
        let field = self.fields.get(&attribute);
        field.map_or(FieldRules::SKEW_US, |f| f.skew_us)
    }

    /// Whether a source has authority over a field.
    pub(super) fn has_authority(&self, attribute: AttrId, source: SourceId) -> bool {
        let field = self.fields.get(&attribute);
        field.is_some_and(|f| f.authority.contains(&source))
    }

    /// From here on this becomes of a source's changes that are counted.
    pub fn set_counting(&mut self, id: SourceId, counting: Counting) {
        if let Some(source) = self.sources.iter_mut().find(|s| s.id == id) {
            source.counting = counting;
        }
    }

    /// From here on these changes of a source are counted because its mapping changed.
    pub fn set_remapping(&mut self, id: SourceId, remapping: Remapping) {
        if let Some(source) = self.sources.iter_mut().find(|s| s.id == id) {
            source.remapping = remapping;
        }
    }

    /// From here on nothing is said of these attributes of a source.
    pub fn set_paused(&mut self, id: SourceId, paused: Vec<AttrId>) {
        if let Some(source) = self.sources.iter_mut().find(|s| s.id == id) {
            source.paused = paused;
        }
    }

    /// The attributes whose folded values are match keys of users: userName, email and
    /// whatever a source matches on.
    pub fn key_attributes(&self) -> &[AttrId] {
        &self.keys
    }

    /// The attributes of a user on which a decision about a record can rest: the match keys,
    /// the sources' fingerprints, and whether the user may work.
    pub(super) fn decisive_attributes(&self) -> &[AttrId] {
        &self.decisive
    }

    /// What a mapped row is found by, in place of what `out` held. Each value is folded once,
    /// since mostly userName and email are the same.
    pub fn keys_of(&self, source: SourceId, row: &MappedRow<'_>, out: &mut RowKeys) {
        out.values.clear();
        out.matches.clear();
        let Some(rules) = self.source(source) else {
            return;
        };
        let mut folded: SmallVec<[u8; 64]> = SmallVec::new();
        let mut last: Option<(&[u8], ValueHash)> = None;
        for field in row.fields() {
            let Assigned::Value(value) = field.assigned else {
                continue;
            };
            if !self.keys.contains(&field.attribute) {
                continue;
            }
            let hash = match last {
                Some((before, hash)) if before == value => hash,
                _ => {
                    folded.clear();
                    fold(value, &mut folded);
                    if folded.is_empty() {
                        continue;
                    }
                    let hash = ValueHash::of(&folded);
                    out.values.push(hash);
                    hash
                }
            };
            last = Some((value, hash));
            if rules.match_attributes.contains(&field.attribute) {
                out.matches.push(hash.under(field.attribute));
            }
        }
    }

    pub(super) fn is_list(&self, attribute: AttrId) -> bool {
        self.attributes
            .get(attribute)
            .is_some_and(|a| a.kind == AttrType::List)
    }

    pub(super) fn is_reference(&self, attribute: AttrId) -> bool {
        let known = self.attributes.get(attribute);
        known.is_some_and(|a| a.kind == AttrType::Reference)
    }

    /// The place of a contribution among those to one attribute: lower wins. A value that is
    /// only meant for the empty field comes after all others; then authority counts, then
    /// the order of the configuration. Rollcall's own value is before every source, until it
    /// is placed ([`super::fold::order`]).
    pub(super) fn rank(
        &self,
        attribute: AttrId,
        source: Option<SourceId>,
        strength: Strength,
    ) -> u32 {
        let Some(source) = source else { return 0 };
        let late = u32::from(strength == Strength::IfEmpty) << 20;
        if let Some(field) = self.fields.get(&attribute)
            && let Some(i) = field.authority.iter().position(|s| *s == source)
        {
            return 1 + late + i as u32;
        }
        let i = self
            .sources
            .iter()
            .position(|s| s.id == source)
            .unwrap_or(self.sources.len());
        1 + late + (1 << 10) + i as u32
    }
}
