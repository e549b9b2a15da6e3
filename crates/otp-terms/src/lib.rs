//! The terms that component and relay share. They stand apart from the domain so that the relay is built without
//! the phone library, whose metadata takes forty crates to compile.

mod breaker;
mod channel;
mod timestamp;

pub use breaker::Breaker;
pub use channel::{Channel, InvalidChannel};
pub use timestamp::Timestamp;
