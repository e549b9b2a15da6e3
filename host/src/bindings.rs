//! What `wit/` says, as Rust traits.

#![allow(clippy::all, clippy::pedantic, reason = "generated")]

wasmtime::component::bindgen!({
    path: "../wit",
    world: "application",
    with: {
        "spin:redis/redis.connection": crate::redis::Connection,
        "spin:sqlite/sqlite.connection": crate::sqlite::Connection,
    },
    require_store_data_send: true,
});

pub(crate) use spin::{redis::redis, sqlite::sqlite, variables::variables};
