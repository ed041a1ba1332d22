//! Seeds for the hash tables of the JSON Schema library, which asks `getrandom` for them. They come from the clock:
//! enough that nobody who sends payloads knows them, and nothing here is a secret.

use core::mem::MaybeUninit;

use weirmq_plugin::host;

/// Called by `getrandom` (`.cargo/config.toml` says so).
///
/// # Safety
/// `getrandom` passes `len` bytes at `dest` that nobody else uses meanwhile.
#[unsafe(no_mangle)]
unsafe extern "Rust" fn __getrandom_v03_custom(dest: *mut u8, len: usize) -> Result<(), getrandom::Error> {
    // SAFETY: the caller's promise above.
    let room = unsafe { core::slice::from_raw_parts_mut(dest.cast::<MaybeUninit<u8>>(), len) };
    let mut state = host::now_unix_ms().rotate_left(32) ^ host::monotonic_us();
    for byte in room {
        // SplitMix64.
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        byte.write((mixed >> 56) as u8);
    }
    Ok(())
}
