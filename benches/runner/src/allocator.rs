//! The daemon's allocator, counting.
//!
//! A relaxed addition for each allocation is all that is added, so what a reader with few
//! allocations costs is measured as it is.
#![allow(
    unsafe_code,
    reason = "GlobalAlloc is an unsafe trait; each call is handed on as it came"
)]

use std::alloc::{GlobalAlloc, Layout};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use mimalloc::MiMalloc;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

/// How often memory was asked for since the process began; growing counts too.
pub(crate) fn allocations() -> u64 {
    ALLOCATIONS.load(Relaxed)
}

pub(crate) struct Counting;

// SAFETY: every call goes to `MiMalloc` unchanged, which keeps the contract.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Relaxed);
        // SAFETY: the caller's promise about `layout` is handed on.
        unsafe { MiMalloc.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Relaxed);
        // SAFETY: as above.
        unsafe { MiMalloc.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Relaxed);
        // SAFETY: the pointer came from `MiMalloc` with this layout.
        unsafe { MiMalloc.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the pointer came from `MiMalloc` with this layout.
        unsafe { MiMalloc.dealloc(pointer, layout) }
    }
}
