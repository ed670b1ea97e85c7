//! The tables that the account can see, and what stands against following them.

use rollcall_contract::{ConnectorError, DiscoveredTable};

use crate::check;
use crate::schema::{self, Table};
use crate::wire::Client;

/// Lists them.
pub(crate) async fn tables(client: &mut Client) -> Result<Vec<DiscoveredTable>, ConnectorError> {
    let found = schema::all(client).await?;
    Ok(found.into_iter().map(described).collect())
}

fn described(table: Table) -> DiscoveredTable {
    let obstacle = check::obstacle(&table).map(|obstacle| obstacle.sentence);
    DiscoveredTable {
        obstacle,
        generated: Vec::new(),
        kind: table.kind,
        estimated_rows: table.estimated_rows,
        schema: std::sync::Arc::unwrap_or_clone(table.schema),
    }
}
