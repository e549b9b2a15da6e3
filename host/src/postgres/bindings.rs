//! What `wit/` says, as Rust traits. The resources are markers here: what they stand for is made of these types.
#![allow(clippy::all, clippy::pedantic, reason = "generated")]

wasmtime::component::bindgen!({
    path: "../wit",
    world: "uses-postgres",
    imports: { "spin:postgres/postgres.[constructor]connection-builder": trappable },
    require_store_data_send: true,
});

pub(crate) use spin::postgres::postgres;
