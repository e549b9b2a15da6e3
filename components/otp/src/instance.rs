//! What lives as long as the instance, for it is costly to make: the configuration and the connection.
//!
//! An instance is single-threaded, but requests interleave at every `.await`. Nothing here is held
//! across one; two requests that find a place empty at the same time both fill it, which does no harm.

use crate::{
    config::{Config, Misconfiguration},
    error::ApiError,
    log,
    store::sqlite::Sqlite,
};
use otp_core::ports::Unavailable;
use std::{cell::RefCell, rc::Rc};

thread_local! {
    static CONFIG: RefCell<Option<Result<Rc<Config>, Vec<Misconfiguration>>>> = const { RefCell::new(None) };
    static SQLITE: RefCell<Option<Rc<Sqlite>>> = const { RefCell::new(None) };
}

/// The configuration, read once. Warnings go to the log then.
pub(crate) async fn config() -> Result<Rc<Config>, ApiError> {
    if let Some(config) = CONFIG.with_borrow(Clone::clone) {
        return config.map_err(ApiError::Misconfigured);
    }
    let config = Config::load().await.map(Rc::new);
    match &config {
        Ok(config) if config.warnings.is_empty() => {}
        Ok(config) => log::line(format_args!("warning: {}", config.warnings.join("; "))),
        Err(faults) => faults.iter().for_each(|fault| log::line(format_args!("misconfigured: {fault}"))),
    }
    CONFIG.set(Some(config.clone()));
    config.map_err(ApiError::Misconfigured)
}

/// The connection to SQLite, opened when there is none, with the schema in place.
pub(crate) async fn sqlite() -> Result<Rc<Sqlite>, Unavailable> {
    if let Some(connection) = SQLITE.with_borrow(Clone::clone) {
        return Ok(connection);
    }
    let connection = Rc::new(Sqlite::open().await?);
    SQLITE.set(Some(Rc::clone(&connection)));
    Ok(connection)
}

/// Forgets the connection after a failure: the next request opens a new one.
pub(crate) fn forget_sqlite() {
    SQLITE.set(None);
}
