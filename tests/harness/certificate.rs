//! A certificate for servers on this machine, and the authority that clients of them have to trust.

use crate::process::output_of;
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Files in PEM form, made by openssl, good for two days.
#[derive(Debug)]
pub(crate) struct Certificate {
    folder: PathBuf,
}

/// What makes it a server's, for each name that a client may call it by.
const EXTENSIONS: &str = "subjectAltName=DNS:localhost,IP:127.0.0.1
basicConstraints=critical,CA:FALSE
keyUsage=critical,digitalSignature
extendedKeyUsage=serverAuth
";

impl Certificate {
    /// Makes `ca.pem`, `certificate.pem` and `key.pem` in the folder.
    pub(crate) fn make(folder: &Path) -> Self {
        fs::write(folder.join("extensions"), EXTENSIONS).unwrap();
        // What the system's own openssl.cnf adds is not wanted.
        fs::write(folder.join("request"), "[req]\ndistinguished_name=name\n[name]\n").unwrap();
        let key = "-config request -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
        openssl(
            folder,
            &format!(
                "req -x509 {key} -days 2 -subj /CN=authority -keyout ca-key.pem -out ca.pem \
                 -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign"
            ),
        );
        openssl(folder, &format!("req {key} -subj /CN=localhost -keyout key.pem -out request.pem"));
        openssl(
            folder,
            "x509 -req -in request.pem -CA ca.pem -CAkey ca-key.pem -set_serial 1 -days 2 \
             -extfile extensions -out certificate.pem",
        );
        Self { folder: folder.to_owned() }
    }

    /// The authority.
    pub(crate) fn authority(&self) -> PathBuf {
        self.folder.join("ca.pem")
    }

    /// The server's key and, after it, its certificate.
    pub(crate) fn key_and_certificate(&self) -> String {
        ["key.pem", "certificate.pem"]
            .map(|file| fs::read_to_string(self.folder.join(file)).unwrap())
            .concat()
    }
}

fn openssl(folder: &Path, arguments: &str) {
    let mut command = Command::new("openssl");
    command.args(arguments.split_whitespace()).current_dir(folder);
    output_of(&mut command);
}
