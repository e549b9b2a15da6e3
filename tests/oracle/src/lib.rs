//! The contract as a pure function: what a recipient's state is, and what a request may hear in it.
//!
//! It shares no code with the service. The model suite holds the answers of a running service against it, and `otp-core`
//! those of its decisions, in process.

mod heard;
mod model;
mod orders;

pub use heard::{Asked, Heard, Told, seconds_of};
pub use model::{Answer, Delivery, Request, Rules, Span, Who, World, same};
pub use orders::{explained, is_clear, objection};
