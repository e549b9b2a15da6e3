//! Whether what is deployed fits what is built. No Docker engine and no cluster is needed: the files are held
//! against the schemas of Compose and Kubernetes and against each other, and what can be run without them is run:
//! the script that writes the keys, the one that makes the databases, and service and relay with the very variables
//! that docker-compose.yml gives them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod compose;
mod declared;
mod dockerfile;
mod flows;
mod images;
mod keys;
mod live;
mod manifests;
mod orchestrated;
mod pages;
mod schema;
mod yaml;
