//! What `wit/` says, as Rust traits. The resource is a marker here: what it stands for is made of these types.
#![allow(clippy::all, clippy::pedantic, reason = "generated")]

wasmtime::component::bindgen!({
    path: "../wit",
    world: "uses-sqlite",
    require_store_data_send: true,
});

pub(crate) use spin::sqlite::sqlite;
