//! What `wit/` says, as Rust traits.

#![expect(clippy::all, missing_debug_implementations, unreachable_pub, reason = "generated")]
#![allow(unsafe_code, reason = "generated")]

wasmtime::component::bindgen!({
    path: "../wit",
    world: "application",
    with: { "spin:sqlite/sqlite.connection": crate::sqlite::Connection },
    require_store_data_send: true,
});

pub(crate) use spin::{sqlite::sqlite, variables::variables};
