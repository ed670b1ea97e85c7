//! How the source stands, from the server's side.
//!
//! A server keeps no account of what we have read, so the distance is counted from what was
//! acknowledged here, in bytes of its log's files.

use rollcall_contract::{ConnectorError, SourceStatus};

use crate::lineage::{self, LogFile};
use crate::position::{Gtids, Place, Point};
use crate::server::{self, Server};
use crate::wire::Client;

/// Reads the head of the log.
pub(crate) async fn look(
    client: &mut Client,
    server: &Server,
    durable: Option<&Point>,
) -> Result<SourceStatus, ConnectorError> {
    let head = server::head(client, server).await?;
    let files = lineage::logs(client).await?;
    let mut status = SourceStatus {
        head: Some(match &head.gtids {
            Gtids::None => head.place.to_string(),
            gtids => gtids.to_string(),
        }),
        ..SourceStatus::default()
    };
    // What was right when the log was opened can be changed under it.
    if !matches!(server.setting("binlog_format"), "ROW" | "") {
        status.warnings.push(format!(
            "binlog_format is {} now: what new sessions change is not in the log as rows, and \
             each such change costs reading the table again.",
            server.setting("binlog_format")
        ));
    }
    if server.setting("binlog_row_metadata") != "FULL" {
        status.warnings.push(
            "The log does not name its columns (binlog_row_metadata): an ALTER TABLE that moves \
             them stops the source."
                .to_owned(),
        );
    }
    let Some(point) = durable else {
        return Ok(status);
    };
    if point.gtids == head.gtids && point.gtids != Gtids::None {
        status.lag_bytes = Some(0);
    } else if let Some(place) = &point.place
        && place.server == head.place.server
    {
        status.lag_bytes = bytes_between(&files, place, &head.place);
        if files.len() > 1 && files.first().is_some_and(|f| *f.name == *place.file) {
            status.warnings.push(format!(
                "The file {} that is being read is the oldest that the server still has: when it \
                 is removed before it was read, the table is read again.",
                place.file
            ));
        }
    }
    Ok(status)
}

/// Bytes of the log between two places; none when the first one is gone.
fn bytes_between(files: &[LogFile], from: &Place, to: &Place) -> Option<u64> {
    let first = files.iter().position(|f| *f.name == *from.file)?;
    let last = files.iter().position(|f| *f.name == *to.file)?;
    let before_last: u64 = files.get(first..last)?.iter().map(|f| f.size_bytes).sum();
    Some((before_last + to.position).saturating_sub(from.position))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_distance_counts_whole_files_between() {
        let file = |name: &str, size_bytes| LogFile {
            name: name.to_owned(),
            size_bytes,
        };
        let files = [file("b.1", 100), file("b.2", 50), file("b.3", 70)];
        let at = |name: &str, position| Place::new("s", name, position);
        assert_eq!(
            bytes_between(&files, &at("b.1", 90), &at("b.3", 60)),
            Some(10 + 50 + 60)
        );
        assert_eq!(
            bytes_between(&files, &at("b.3", 20), &at("b.3", 60)),
            Some(40)
        );
        assert_eq!(bytes_between(&files, &at("b.0", 4), &at("b.3", 60)), None);
    }
}
