//! `spin.toml`, version 2: what this host does of it, and a clear word about what it does not.

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// One application with one component that answers all paths.
#[derive(Debug)]
pub(crate) struct Manifest {
    /// The application's name.
    pub(crate) name: String,
    /// The application's variables.
    pub(crate) variables: BTreeMap<String, Variable>,
    /// The component.
    pub(crate) component: Component,
    /// The component's WebAssembly file.
    pub(crate) source: PathBuf,
    /// The folder that relative paths start from.
    pub(crate) folder: PathBuf,
}

/// A variable of the application.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Variable {
    /// Its value where none is set.
    pub(crate) default: String,
    #[serde(default, rename = "secret")]
    _secret: bool,
    #[serde(default, rename = "description")]
    _description: String,
}

/// The component, as far as this host can give it what it asks for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Component {
    source: String,
    /// The component's own variables: templates over the application's.
    #[serde(default)]
    pub(crate) variables: BTreeMap<String, String>,
    /// Templates of what it may call.
    #[serde(default)]
    pub(crate) allowed_outbound_hosts: Vec<String>,
    /// Labels of the databases that it may open.
    #[serde(default)]
    pub(crate) sqlite_databases: Vec<String>,
    #[serde(default, rename = "description")]
    _description: String,
    #[serde(default, rename = "build")]
    _build: toml::Table,
    #[serde(default, rename = "tool")]
    _tool: toml::Table,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    spin_manifest_version: i64,
    application: Application,
    #[serde(default)]
    variables: BTreeMap<String, Variable>,
    trigger: Triggers,
    component: BTreeMap<String, Component>,
}

#[derive(Deserialize)]
struct Application {
    name: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Triggers {
    http: Vec<HttpTrigger>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HttpTrigger {
    #[serde(default, rename = "id")]
    _id: String,
    route: String,
    component: String,
}

/// The one route that this host serves: all paths.
pub(crate) const ROUTE: &str = "/...";

/// The one database that needs no configuration.
pub(crate) const DEFAULT_DATABASE: &str = "default";

impl Manifest {
    /// Reads and checks the manifest.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| {
            format!("cannot read the manifest {}; name another with --from", path.display())
        })?;
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
            _ => PathBuf::from("."),
        };
        Self::parse(&text, folder).with_context(|| format!("{} is not usable", path.display()))
    }

    pub(crate) fn parse(text: &str, folder: PathBuf) -> Result<Self> {
        let file: File = toml::from_str(text).map_err(|error| {
            let line = error.span().map_or(1, |span| text[..span.start].lines().count().max(1));
            anyhow::anyhow!("line {line}: {}", error.message().replace('\n', " "))
        })?;
        if file.spin_manifest_version != 2 {
            bail!("spin_manifest_version is {}; write 2", file.spin_manifest_version);
        }
        let [trigger] = &file.trigger.http[..] else {
            bail!("it has {} HTTP triggers; this host serves one, use spin", file.trigger.http.len());
        };
        if trigger.route != ROUTE {
            bail!("its route is {:?}; this host serves {ROUTE:?} only, use spin", trigger.route);
        }
        let mut components = file.component;
        let Some(component) = components.remove(&trigger.component) else {
            bail!("the trigger names the component {:?}, and there is no such one", trigger.component);
        };
        for label in &component.sqlite_databases {
            if label != DEFAULT_DATABASE {
                bail!("the database {label:?} needs a runtime configuration; this host has only \"default\"");
            }
        }
        Ok(Self {
            name: file.application.name,
            variables: file.variables,
            source: folder.join(&component.source),
            component,
            folder,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
        spin_manifest_version = 2
        [application]
        name = "app"
        [variables]
        a = { default = "" }
        [[trigger.http]]
        route = "/..."
        component = "otp"
        [component.otp]
        source = "otp.wasm"
        sqlite_databases = ["default"]
        [component.otp.build]
        command = "make"
    "#;

    fn fault(from: &str, to: &str) -> String {
        assert!(GOOD.contains(from));
        let error = Manifest::parse(&GOOD.replace(from, to), ".".into()).unwrap_err();
        format!("{error:#}")
    }

    #[test]
    fn a_manifest_is_read_with_its_paths_relative_to_its_folder() {
        let manifest = Manifest::parse(GOOD, "some/where".into()).unwrap();
        assert_eq!(manifest.name, "app");
        assert_eq!(manifest.source, Path::new("some/where/otp.wasm"));
    }

    #[test]
    fn the_manifest_of_this_project_is_one() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../spin.toml");
        assert_eq!(Manifest::read(&path).unwrap().name, "spin-otp");
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line_or_its_name() {
        for (from, to, said) in [
            ("version = 2", "version = 1", "spin_manifest_version is 1"),
            ("name = \"app\"", "name = ", "line 4"),
            ("sqlite_databases", "key_value_stores", "line 12: unknown field `key_value_stores`"),
            ("/...", "/otp", "its route is \"/otp\""),
            ("component = \"otp\"", "component = \"other\"", "there is no such one"),
            ("[\"default\"]", "[\"other\"]", "the database \"other\""),
            ("a = { default = \"\" }", "a = { description = \"\" }", "line 6: missing field `default`"),
            ("a = { default = \"\" }", "a = { required = true }", "line 6: unknown field `required`"),
            ("[application]", "[spam]", "unknown field `spam`"),
        ] {
            let fault = fault(from, to);
            assert!(fault.contains(said), "{fault}");
            assert_eq!(fault.lines().count(), 1, "{fault}");
        }
    }

    #[test]
    fn a_missing_manifest_says_which_one_and_what_to_do() {
        let error = format!("{:#}", Manifest::read(Path::new("/nowhere/spin.toml")).unwrap_err());
        assert!(error.contains("/nowhere/spin.toml") && error.contains("--from"), "{error}");
    }
}
