//! The newest outbox blocks, shared by all lanes.
//!
//! Only a cache: a lane that needs an older block reads it from the store. The head
//! position is published after the commit, so a lane never sees what could be rolled back.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use rollcall_store::OutboxBlock;
use tokio::sync::watch;

/// At most so many bytes of blocks stay in memory for lanes that keep up.
const KEEP_BYTES: usize = 2 << 20;

struct Recent {
    blocks: VecDeque<Arc<OutboxBlock>>,
    bytes: usize,
}

/// Where the engine puts blocks and lanes find them.
pub struct Hub {
    recent: Mutex<Recent>,
    head: watch::Sender<u64>,
}

impl Hub {
    /// An empty hub whose outbox ends at the given position.
    pub fn new(head: u64) -> Arc<Hub> {
        Arc::new(Hub {
            recent: Mutex::new(Recent {
                blocks: VecDeque::new(),
                bytes: 0,
            }),
            head: watch::Sender::new(head),
        })
    }

    /// Adds a block that was just committed.
    pub fn publish(&self, block: Arc<OutboxBlock>) {
        let end = block.last_position().0;
        {
            let mut recent = self.lock();
            recent.bytes += block.bytes.len();
            recent.blocks.push_back(block);
            while recent.bytes > KEEP_BYTES && recent.blocks.len() > 1 {
                if let Some(old) = recent.blocks.pop_front() {
                    recent.bytes -= old.bytes.len();
                }
            }
        }
        self.head.send_replace(end);
    }

    /// The last position of the outbox, and changes of it.
    pub fn head(&self) -> watch::Receiver<u64> {
        self.head.subscribe()
    }

    /// The block that holds a position, if it is still in memory.
    pub fn block_with(&self, position: u64) -> Option<Arc<OutboxBlock>> {
        let recent = self.lock();
        let at = recent
            .blocks
            .partition_point(|b| b.last_position().0 < position);
        recent
            .blocks
            .get(at)
            .filter(|b| b.first_position.0 <= position)
            .cloned()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Recent> {
        self.recent
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}
