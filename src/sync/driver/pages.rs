//! Pages whose windows are closed, handed over: what is made of their rows first, and by whom.
//!
//! Rows that are to be joined with related ones are joined by the engine, which has these at
//! hand; all others are mapped or hashed here.

use std::sync::Arc;

use rollcall_contract::Pooled;
use rollcall_core::mapping::Mapper;
use rollcall_core::mapping::related::RelatedReader;
use rollcall_store::RelatedWrites;

use super::Ended;
use super::mapping::{hash_rows, on_worker};
use super::session::Session;
use crate::sync::planned::PlannedPage;
use crate::sync::related::RelatedPage;
use crate::sync::window::{HeldPage, Purpose};
use crate::sync::work::{KeysOrder, PageRows, PageWork, Work};

impl Session<'_> {
    pub(super) async fn apply(&mut self, page: HeldPage) -> Result<(), Ended> {
        let by_key = matches!(
            page.purpose,
            Purpose::Sync | Purpose::Repair | Purpose::Plan { .. }
        );
        if !by_key {
            self.scan.applied();
        }
        if page.purpose == Purpose::Changed && page.rows.is_empty() {
            return Ok(());
        }
        if let Some(at) = page.table.index().checked_sub(1) {
            return self.apply_related(page, at).await;
        }
        let is_hashed = match page.purpose {
            Purpose::Scan { .. } => !self.maps_scan,
            Purpose::Changed => true,
            _ => false,
        };
        if self.joining.is_some() {
            return self.apply_unjoined(page, is_hashed).await;
        }
        let mappers = self.mappers_of(&page.rows).await?;
        if is_hashed {
            let hashes = on_worker(&page.rows, || hash_rows(&page.rows, &mappers));
            return self
                .hand_over(page, PageRows::Hashed(hashes), mappers)
                .await;
        }
        let mapped = on_worker(&page.rows, || self.map(&page.rows, &mappers));
        if let Purpose::Plan { page: number } = page.purpose {
            if let Some(plan) = &mut self.plan {
                plan.read(PlannedPage {
                    number,
                    page,
                    mapped,
                    mappers,
                    joins: Vec::new(),
                });
            }
            return Ok(());
        }
        self.hand_over(page, PageRows::Mapped(mapped), mappers)
            .await
    }

    /// A page of the main table that has to be joined first, which the engine does.
    async fn apply_unjoined(&mut self, page: HeldPage, is_hashed: bool) -> Result<(), Ended> {
        let (joins, mappers) = self.joins_of(&page.rows).await?;
        if let Purpose::Plan { page: number } = page.purpose {
            if let Some(plan) = &mut self.plan {
                plan.read(PlannedPage {
                    number,
                    page,
                    mapped: Pooled::default(),
                    mappers,
                    joins,
                });
            }
            return Ok(());
        }
        let rows = PageRows::Unjoined { joins, is_hashed };
        self.hand_over(page, rows, mappers).await
    }

    /// A page of a related table.
    async fn apply_related(&mut self, page: HeldPage, at: usize) -> Result<(), Ended> {
        let Some(spec) = self.driver.mapping.related.get(at) else {
            return Ok(());
        };
        let tables = page.rows.tables().iter();
        let work = Work::RelatedPage(RelatedPage {
            source: self.driver.id,
            table: page.table,
            readers: tables
                .map(|table| RelatedReader::new(spec, &table.schema))
                .collect(),
            is_first: page.purpose == Purpose::Scan { number: 0 },
            page,
        });
        self.driver.engine.send(work).await?;
        Ok(())
    }

    /// Hands a page to the engine.
    async fn hand_over(
        &mut self,
        page: HeldPage,
        mapped: PageRows,
        mappers: Vec<Arc<Mapper>>,
    ) -> Result<(), Ended> {
        let is_sync = page.purpose == Purpose::Sync;
        let source = self.driver.id;
        let page = PageWork {
            source,
            page,
            mapped,
            mappers,
            related: RelatedWrites::default(),
        };
        let work = match self.syncing.take_if(|_| is_sync) {
            Some(KeysOrder { cause, ended, .. }) => Work::Keys { page, cause, ended },
            None => Work::Page(page),
        };
        self.driver.engine.send(work).await?;
        Ok(())
    }
}
