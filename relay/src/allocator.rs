//! jemalloc in place of the C library's allocator, for SQLite, too.
//!
//! Events come in batches, cross threads and leave together. glibc's allocator has threads wait for each other where they
//! share a heap, and keeps several times the memory where they do not (docs/performance.md has the numbers).

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// jemalloc's options, which it reads at the start; the variable `MALLOC_CONF` overrides them. There is one arena. Each thread
/// caches blocks of up to 4 KiB, and free pages go back to the system within half a second.
#[expect(unsafe_code, reason = "jemalloc takes it by this name only")]
// SAFETY: nothing else has that name, and it is what `const char *malloc_conf` is.
#[unsafe(export_name = "malloc_conf")]
pub(crate) static SETTINGS: &[u8; 63] = b"narenas:1,dirty_decay_ms:500,muzzy_decay_ms:0,lg_tcache_max:12\0";
