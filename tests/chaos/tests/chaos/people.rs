//! What becomes of people: changes of a table, as a seed has them.

use crate::dice::Dice;
use crate::server::{Did, EMAIL, KIND, LEVEL, NAME, NOTE, ROLES, Row, Rows, TITLE};

/// Few addresses, so that records meet; few keys, so that they come back.
const ADDRESSES: u64 = 16;
const KEYS: u64 = 24;

fn text(of: impl Into<String>) -> Option<String> {
    Some(of.into())
}

fn row(dice: &mut Dice, id: u64) -> Row {
    // Mostly everybody has an address of their own.
    let address = match dice.one_in(6) {
        true => dice.below(ADDRESSES),
        false => id,
    };
    vec![
        text(id.to_string()),
        text(format!("p{address}@example.com")),
        text(format!("Name {}", dice.below(6))),
        Some(*dice.pick(&["Clerk", "Chief", "Cook"]))
            .filter(|_| !dice.one_in(5))
            .map(str::to_owned),
        text(*dice.pick(&["staff", "staff", "staff", "staff", "contractor", "left"])),
        text(*dice.pick(&["", "dev", "dev,ops", "ops,hr", "hr"])),
        text(match dice.one_in(12) {
            true => "none".to_owned(),
            false => dice.below(9).to_string(),
        }),
        text(format!("note {}", dice.below(1_000))),
    ]
}

fn changed(dice: &mut Dice, id: u64, before: &Row) -> Row {
    let other = row(dice, id);
    let mut after = before.clone();
    after[0] = other[0].clone();
    for column in [EMAIL, NAME, TITLE, KIND, ROLES, LEVEL, NOTE] {
        if dice.one_in(4) {
            after[column].clone_from(&other[column]);
        }
    }
    after
}

/// The changes of one transaction.
pub(crate) fn transaction(dice: &mut Dice, rows: &Rows) -> Vec<Did> {
    let mut rows = rows.clone();
    let mut dids = Vec::new();
    if dice.one_in(60) {
        return vec![Did::Truncate];
    }
    for _ in 0..1 + dice.below(6) {
        let id = 1 + dice.below(KEYS);
        let did = match rows.get(&id) {
            None if dice.one_in(8) => Did::Elsewhere,
            None => Did::Insert(id, row(dice, id)),
            Some(before) => match dice.below(10) {
                0 | 1 => Did::Delete(id),
                2 => {
                    let to = 1 + dice.below(KEYS);
                    match to == id || !rows.contains_key(&to) {
                        true => Did::Update(id, to, changed(dice, to, before)),
                        false => Did::Delete(id),
                    }
                }
                _ => Did::Update(id, id, changed(dice, id, before)),
            },
        };
        match &did {
            Did::Insert(id, row) => drop(rows.insert(*id, row.clone())),
            Did::Update(from, to, row) => {
                rows.remove(from);
                rows.insert(*to, row.clone());
            }
            Did::Delete(id) => drop(rows.remove(id)),
            Did::Truncate | Did::Elsewhere => {}
        }
        dids.push(did);
    }
    dids
}
