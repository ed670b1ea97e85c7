//! Two readings of a log, event by event.

use crate::differences::{Difference, Reader, What};
use crate::model::{Cell, Column, Entry, Log, Row};

/// What another reader says otherwise than ours.
pub(crate) fn logs(reader: Reader, ours: &Log, theirs: &Log) -> Vec<Difference> {
    let mut found = Vec::new();
    let mut columns: std::collections::HashMap<String, Vec<Column>> = Default::default();
    let ends: std::collections::BTreeSet<u32> =
        ours.0.keys().chain(theirs.0.keys()).copied().collect();
    for end in ends {
        let none = Vec::new();
        let our = ours.0.get(&end).unwrap_or(&none);
        let their = theirs.0.get(&end).unwrap_or(&none);
        for entry in our {
            if let Entry::Table(table) = entry {
                columns.insert(table.name.clone(), table.columns.clone());
            }
        }
        let is_alike =
            our.len() == their.len() && our.iter().zip(their).all(|(a, b)| a.kind() == b.kind());
        if !is_alike {
            found.push(Difference {
                reader,
                end,
                what: What::Entries {
                    ours: our.clone(),
                    theirs: their.clone(),
                },
            });
            continue;
        }
        for (our, their) in our.iter().zip(their) {
            match (our, their) {
                (Entry::Row(our), Entry::Row(their)) => {
                    let columns = &columns[&our.table];
                    let cells = row(our, their, columns);
                    found.extend(cells.map(|what| Difference { reader, end, what }));
                }
                (Entry::Table(our), Entry::Table(their)) => {
                    let names = |columns: &[Column]| -> Vec<(String, bool)> {
                        let column = |c: &Column| (c.name.clone(), c.is_nullable);
                        columns.iter().map(column).collect()
                    };
                    let is_equal = our.name == their.name
                        && our.key == their.key
                        && names(&our.columns) == names(&their.columns);
                    if !is_equal {
                        found.push(Difference {
                            reader,
                            end,
                            what: What::Entries {
                                ours: vec![Entry::Table(our.clone())],
                                theirs: vec![Entry::Table(their.clone())],
                            },
                        });
                    }
                }
                (our, their) if our == their => {}
                (our, their) => found.push(Difference {
                    reader,
                    end,
                    what: What::Entries {
                        ours: vec![our.clone()],
                        theirs: vec![their.clone()],
                    },
                }),
            }
        }
    }
    found
}

fn row<'r>(
    ours: &'r Row,
    theirs: &'r Row,
    columns: &'r [Column],
) -> impl Iterator<Item = What> + 'r {
    let is_same = ours.table == theirs.table
        && ours.op == theirs.op
        && ours.old.len() == theirs.old.len()
        && ours.new.len() == theirs.new.len();
    let other = (!is_same).then(|| What::Entries {
        ours: vec![Entry::Row(ours.clone())],
        theirs: vec![Entry::Row(theirs.clone())],
    });
    let sides = [
        (false, &ours.old, &theirs.old),
        (true, &ours.new, &theirs.new),
    ];
    let cells = sides.into_iter().flat_map(move |(is_new, our, their)| {
        let pairs = our.iter().zip(their).enumerate();
        pairs
            .filter(|(_, (our, their))| our != their)
            .map(move |(i, (our, their))| What::Cell {
                column: format!("{}.{}", ours.table, columns[i].name),
                is_new,
                ours: our.clone(),
                theirs: their.clone(),
                old: ours.old.get(i).cloned().unwrap_or(Cell::Absent),
            })
    });
    other.into_iter().chain(cells)
}
