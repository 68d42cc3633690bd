//! The process's memory.

/// Gives what the allocator has free back to the system, which may take a tenth of a second. Does nothing where the allocator does that by
/// itself.
pub fn give_back_free() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: may be called at any time from any thread (malloc_trim(3)), and concerns only what nobody has.
    unsafe {
        libc::malloc_trim(0);
    }
}
