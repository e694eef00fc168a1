//! What reading costs, in steps: a frame judged, a byte decoded or copied, a field, cell, type node or map entry read. Counted in
//! tests and fuzz targets (feature `cost`), nothing otherwise.

#[cfg(any(test, feature = "cost"))]
mod counted {
    use std::cell::Cell;

    thread_local! {
        static STEPS: Cell<u64> = const { Cell::new(0) };
    }

    /// So many steps more.
    pub fn steps(count: usize) {
        STEPS.with(|steps| steps.set(steps.get() + count as u64));
    }

    /// The steps of this thread since it was asked last.
    pub fn take() -> u64 {
        STEPS.with(|steps| steps.take())
    }
}

#[cfg(any(test, feature = "cost"))]
pub use counted::{steps, take};

/// So many steps more, if anybody counted.
#[cfg(not(any(test, feature = "cost")))]
#[inline(always)]
pub fn steps(_count: usize) {}
