//! What goes on while parts end and are started again under load, and while what they depend on is slow or
//! away: no accepted request is lost, nobody waits for long, and nothing piles up.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod balancer;
mod line;
mod overload;
mod proxy;
mod rolling;
mod shutdown;
mod slow;
mod slow_delivery;
