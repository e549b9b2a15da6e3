//! jemalloc in place of the C library's allocator, for SQLite, too.
//!
//! Events come in batches, cross threads and leave together. glibc's allocator has threads wait for each other where they
//! share a heap, and keeps several times the memory where they do not (docs/performance.md has the numbers).

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// How jemalloc is set up, as it looks for it when the program starts; the variable `MALLOC_CONF` goes before it. One heap:
/// threads have their caches before it, of small pieces only, and what is free goes back to the system within half a second.
#[expect(unsafe_code, reason = "jemalloc takes it by this name only")]
// SAFETY: nothing else has that name, and it is what `const char *malloc_conf` is.
#[unsafe(export_name = "malloc_conf")]
pub(crate) static SETTINGS: &[u8; 63] = b"narenas:1,dirty_decay_ms:500,muzzy_decay_ms:0,lg_tcache_max:12\0";
