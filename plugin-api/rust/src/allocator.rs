//! The memory of a plugin. Each call brings a handful of texts, and all of them are gone when it ends: the allocator that
//! Rust has for WebAssembly spends as long on that as many a plugin does on its answer. Small blocks are therefore kept by
//! size, and given out again; everything else is left to Rust's own.
//!
//! A block that is free serves what has its size only, so what a plugin once needed of one size it keeps for that.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::UnsafeCell;
use std::ptr::{NonNull, copy_nonoverlapping, null_mut};

/// Sizes are told apart in steps of so many bytes, which is the alignment of each block too.
const STEP: usize = 16;
/// What is larger, or wants more alignment than a step, is Rust's own affair.
const SMALL_BYTES_MAX: usize = 512;
/// So much is asked of Rust's own at a time.
const CHUNK_BYTES: usize = 8192;

/// Keeps what is free of the small sizes.
pub(crate) struct BySize(UnsafeCell<Blocks>);

// SAFETY: a plugin's component has one thread, and nothing in here calls anything that comes back to it.
unsafe impl Sync for BySize {}

struct Blocks {
    /// The free blocks of each size, in steps, each with the next in its first bytes.
    free: [Option<NonNull<Free>>; SMALL_BYTES_MAX / STEP + 1],
    /// What has never been given out of the last chunk.
    rest: *mut u8,
    rest_bytes: usize,
}

struct Free {
    next: Option<NonNull<Free>>,
}

impl BySize {
    /// Nothing kept yet.
    pub(crate) const fn new() -> Self {
        let free = [None; SMALL_BYTES_MAX / STEP + 1];
        Self(UnsafeCell::new(Blocks { free, rest: null_mut(), rest_bytes: 0 }))
    }
}

impl Blocks {
    fn take(&mut self, steps: usize) -> *mut u8 {
        let Some(block) = self.free[steps] else { return self.cut(steps * STEP) };
        // SAFETY: what is in the list was given back, and nobody else writes there.
        self.free[steps] = unsafe { block.as_ref().next };
        block.as_ptr().cast()
    }

    /// SAFETY: `block` was given out for as many steps, and nobody uses it any more.
    unsafe fn give_back(&mut self, block: *mut u8, steps: usize) {
        let block = block.cast::<Free>();
        // SAFETY: a block has at least a step, which `Free` fits into, and its alignment.
        unsafe { block.write(Free { next: self.free[steps] }) };
        self.free[steps] = NonNull::new(block);
    }

    #[cold]
    fn cut(&mut self, bytes: usize) -> *mut u8 {
        if self.rest_bytes < bytes {
            // SAFETY: neither is zero, and the alignment is a power of two.
            let chunk = unsafe { System.alloc(Layout::from_size_align_unchecked(CHUNK_BYTES, STEP)) };
            if chunk.is_null() {
                return chunk;
            }
            if self.rest_bytes > 0 {
                // SAFETY: nobody has it, and it is as many whole steps, fewer than the largest small size.
                unsafe { self.give_back(self.rest, self.rest_bytes / STEP) };
            }
            (self.rest, self.rest_bytes) = (chunk, CHUNK_BYTES);
        }
        let block = self.rest;
        // SAFETY: there is as much left of the chunk.
        self.rest = unsafe { block.add(bytes) };
        self.rest_bytes -= bytes;
        block
    }
}

/// How many steps a block for `layout` has, where it is a small one.
fn small(layout: Layout) -> Option<usize> {
    let is_small = layout.size() <= SMALL_BYTES_MAX && layout.align() <= STEP;
    is_small.then(|| layout.size().div_ceil(STEP))
}

// SAFETY: a block is free, or somebody's; it goes from the one to the other here, by a size that is the same each time,
// because callers name the layout that it was given out for.
unsafe impl GlobalAlloc for BySize {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match small(layout) {
            // SAFETY: there is one thread, and the reference ends here.
            Some(steps) => unsafe { (*self.0.get()).take(steps) },
            // SAFETY: as the caller says.
            None => unsafe { System.alloc(layout) },
        }
    }

    // Not into each of the hundreds of places where something is dropped: a plugin would be a tenth larger.
    #[inline(never)]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        match small(layout) {
            // SAFETY: there is one thread, and the block is what the caller says.
            Some(steps) => unsafe { (*self.0.get()).give_back(block, steps) },
            // SAFETY: as the caller says.
            None => unsafe { System.dealloc(block, layout) },
        }
    }

    #[inline(never)]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        // SAFETY: the caller says that it is a valid size for this alignment.
        let wanted = unsafe { Layout::from_size_align_unchecked(bytes, layout.align()) };
        match (small(layout), small(wanted)) {
            (Some(before), Some(after)) if before == after => block,
            // SAFETY: as the caller says.
            (None, None) => unsafe { System.realloc(block, layout, bytes) },
            _ => {
                // SAFETY: both blocks have as many bytes, and are not the same.
                unsafe {
                    let moved = self.alloc(wanted);
                    if !moved.is_null() {
                        copy_nonoverlapping(block, moved, bytes.min(layout.size()));
                        self.dealloc(block, layout);
                    }
                    moved
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A block, and the byte that it is full of.
    struct Held {
        block: *mut u8,
        layout: Layout,
        byte: u8,
    }

    impl Held {
        fn check(&self) {
            for offset in 0..self.layout.size() {
                // SAFETY: it was filled when it was taken.
                assert_eq!(unsafe { *self.block.add(offset) }, self.byte);
            }
        }
    }

    /// Sizes and alignments that look random, the same each time.
    fn numbers() -> impl FnMut(usize) -> usize {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        move |below| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % below
        }
    }

    #[test]
    fn no_block_is_given_to_two_and_none_loses_what_is_in_it() {
        let allocator = BySize::new();
        let mut next = numbers();
        let mut held: Vec<Held> = Vec::new();
        for round in 0..20_000 {
            let byte = round as u8;
            if held.len() < 200 && next(3) > 0 {
                let layout = Layout::from_size_align(1 + next(700), 1 << next(6)).unwrap();
                // SAFETY: the size is not zero.
                let block = unsafe { allocator.alloc(layout) };
                assert_eq!(block as usize % layout.align(), 0);
                unsafe { block.write_bytes(byte, layout.size()) };
                held.push(Held { block, layout, byte });
            } else if !held.is_empty() && next(2) > 0 {
                let mut one = held.swap_remove(next(held.len()));
                one.check();
                let bytes = 1 + next(700);
                // SAFETY: it is the layout that it was taken with.
                one.block = unsafe { allocator.realloc(one.block, one.layout, bytes) };
                assert_eq!(one.block as usize % one.layout.align(), 0);
                let kept = bytes.min(one.layout.size());
                one.layout = Layout::from_size_align(bytes, one.layout.align()).unwrap();
                Held { layout: Layout::from_size_align(kept, 1).unwrap(), ..one }.check();
                unsafe { one.block.write_bytes(one.byte, bytes) };
                held.push(one);
            } else if !held.is_empty() {
                let one = held.swap_remove(next(held.len()));
                one.check();
                // SAFETY: the same.
                unsafe { allocator.dealloc(one.block, one.layout) };
            }
        }
        held.iter().for_each(Held::check);
    }

    #[test]
    fn what_is_given_back_is_given_out_again() {
        let allocator = BySize::new();
        let layout = Layout::from_size_align(27, 1).unwrap();
        // SAFETY: the layout is the same each time.
        unsafe {
            let first = allocator.alloc(layout);
            allocator.dealloc(first, layout);
            let other = allocator.alloc(Layout::from_size_align(64, 8).unwrap());
            assert_ne!(first, other);
            assert_eq!(allocator.alloc(Layout::from_size_align(32, 8).unwrap()), first);
        }
    }
}
