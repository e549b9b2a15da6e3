//! Variables: `spin:variables`, and where their values come from.
//!
//! As with Spin, a value is looked for on the command line, in the environment as `SPIN_VARIABLE_NAME`,
//! in the file `.env` of the working folder, and in the manifest's default. Unlike Spin, a variable
//! of that form that the manifest does not declare is an error: it is a typing mistake, and what it was
//! meant to set would silently keep its default.

use crate::manifest::{Manifest, Variable};
use anyhow::{Context, Result, anyhow, bail};
use bindings::variables::{Error, Host, HostWithStore};
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};
use wasmtime::component::{Accessor, HasData, Linker};

mod bindings {
    //! What `wit/` says, as Rust traits.
    #![allow(clippy::all, clippy::pedantic, reason = "generated")]

    wasmtime::component::bindgen!({
        path: "../wit",
        world: "uses-variables",
        require_store_data_send: true,
    });

    pub(crate) use spin::variables::variables;
}

/// How Spin names a variable in the environment.
const PREFIX: &str = "SPIN_VARIABLE_";

/// The values of an application's and its component's variables.
#[derive(Debug)]
pub(crate) struct Variables {
    application: BTreeMap<String, String>,
    /// What the component may ask for, templates filled in.
    component: HashMap<String, String>,
    /// Names of application variables that do not have the manifest's default.
    set: Vec<String>,
}

/// Where values come from, first one first.
#[derive(Debug, Default)]
pub(crate) struct Sources {
    /// `NAME=VALUE` of the command line.
    pub(crate) arguments: Vec<String>,
    /// The process's environment.
    pub(crate) environment: HashMap<String, String>,
    /// The file `.env`.
    pub(crate) dotenv: HashMap<String, String>,
}

impl Sources {
    /// The command line's, the process's own environment, and the working folder's `.env`.
    pub(crate) fn of_process(arguments: &[String]) -> Result<Self> {
        let dotenv = match dotenvy::from_filename_iter(".env") {
            Ok(entries) => entries
                .collect::<Result<_, _>>()
                // The library's own words quote the line, and with it a secret.
                .map_err(|_| {
                    anyhow!(".env is not usable: a line of it is not NAME=VALUE; quote values with spaces")
                })?,
            Err(_) => HashMap::new(),
        };
        let text = |value: std::ffi::OsString| value.into_string().ok();
        let environment =
            std::env::vars_os().filter_map(|(name, value)| Some((text(name)?, text(value)?))).collect();
        Ok(Self { arguments: arguments.to_vec(), environment, dotenv })
    }
}

impl Variables {
    /// Gives every variable of the manifest its value.
    pub(crate) fn resolve(manifest: &Manifest, sources: &Sources) -> Result<Self> {
        let declared = &manifest.variables;
        let mut arguments = HashMap::new();
        for argument in &sources.arguments {
            let (name, value) =
                argument.split_once('=').context("a --variable has no '=': write --variable NAME=VALUE")?;
            known(declared, name, &format!("--variable {name}"))?;
            arguments.insert(name, value);
        }
        for name in sources.environment.keys().chain(sources.dotenv.keys()) {
            if let Some(upper) = name.strip_prefix(PREFIX) {
                known(declared, &upper.to_ascii_lowercase(), name)?;
            }
        }

        let mut application = BTreeMap::new();
        let mut set = Vec::new();
        for (name, variable) in declared {
            let in_environment = format!("{PREFIX}{}", name.to_ascii_uppercase());
            let given = arguments.get(name.as_str()).copied().or_else(|| {
                let sources = [&sources.environment, &sources.dotenv];
                sources.iter().find_map(|source| source.get(&in_environment)).map(String::as_str)
            });
            let value = given.unwrap_or(&variable.default);
            if given.is_some() {
                set.push(name.clone());
            }
            application.insert(name.clone(), value.to_owned());
        }

        let mut resolved = Self { application, component: HashMap::new(), set };
        resolved.component = manifest
            .component
            .variables
            .iter()
            .map(|(name, template)| {
                let value = resolved.fill(template).with_context(|| {
                    format!("the component's variable {name} in the manifest is not usable")
                })?;
                Ok((name.clone(), value))
            })
            .collect::<Result<_>>()?;
        Ok(resolved)
    }

    /// `template` with the values of the application's variables in the place of `{{ name }}`.
    pub(crate) fn fill(&self, template: &str) -> Result<String> {
        let mut filled = String::new();
        let mut rest = template;
        while let Some((literal, tail)) = rest.split_once("{{") {
            let (name, tail) = tail.split_once("}}").context("a '{{' without its '}}'")?;
            filled.push_str(literal);
            let name = name.trim();
            filled.push_str(
                self.application.get(name).with_context(|| format!("there is no variable {name:?}"))?,
            );
            rest = tail;
        }
        filled.push_str(rest);
        Ok(filled)
    }

    /// The application variables that somebody has set, by name; their values may be secret.
    pub(crate) fn set(&self) -> &[String] {
        &self.set
    }

    fn get(&self, name: &str) -> Result<String, Error> {
        if !is_name(name) {
            return Err(Error::InvalidName(name.to_owned()));
        }
        self.component
            .get(name)
            .cloned()
            .ok_or_else(|| Error::Undefined(format!("no variable {name:?} is declared for this component")))
    }
}

/// Fails if the manifest declares no variable of this name.
fn known(declared: &BTreeMap<String, Variable>, name: &str, written: &str) -> Result<()> {
    if declared.contains_key(name) {
        return Ok(());
    }
    let names: Vec<_> = declared.keys().map(String::as_str).collect();
    bail!("{written}: there is no such variable; the manifest declares {}", names.join(", "));
}

/// Lower case words of letters and digits, joined by single underscores; the first starts with a letter.
fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.split('_').all(|word| {
            !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
        })
}

/// Links the interface to a store that has `get` for it.
pub(crate) fn add_to_linker<T: Send + 'static>(
    linker: &mut Linker<T>,
    get: fn(&mut T) -> &Arc<Variables>,
) -> wasmtime::Result<()> {
    bindings::variables::add_to_linker::<_, VariablesData>(linker, get)
}

/// Gives the linker access to the variables of an instance.
#[derive(Debug)]
struct VariablesData;

impl HasData for VariablesData {
    type Data<'a> = &'a Arc<Variables>;
}

impl Host for &Arc<Variables> {}

impl<T: Send + 'static> HostWithStore<T> for VariablesData {
    async fn get(accessor: &Accessor<T, Self>, name: String) -> Result<String, Error> {
        accessor.with(|mut access| access.get().get(&name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(variables: &str, templates: &str) -> Manifest {
        let text = format!(
            "spin_manifest_version = 2\n[application]\nname = 'app'\n[variables]\n{variables}\n\
             [[trigger.http]]\nroute = '/...'\ncomponent = 'c'\n[component.c]\nsource = 'c.wasm'\n\
             [component.c.variables]\n{templates}"
        );
        Manifest::parse(&text, ".".into()).unwrap()
    }

    fn map(pairs: &[(&str, &str)]) -> HashMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn the_command_line_goes_before_the_environment_before_dotenv_before_the_default() {
        let manifest = manifest("a = { default = 'default' }", "b = '<{{ a }}>'");
        let mut sources = Sources::default();
        let value = |sources: &Sources| Variables::resolve(&manifest, sources).unwrap().get("b").unwrap();
        assert_eq!(value(&sources), "<default>");
        sources.dotenv = map(&[("SPIN_VARIABLE_A", "dotenv"), ("OTHER", "x")]);
        assert_eq!(value(&sources), "<dotenv>");
        sources.environment = map(&[("SPIN_VARIABLE_A", ""), ("PATH", "x")]);
        assert_eq!(value(&sources), "<>", "an empty value is one");
        sources.arguments = vec!["a=x=y".to_owned()];
        assert_eq!(value(&sources), "<x=y>");
    }

    #[test]
    fn an_unknown_variable_is_named_with_those_that_there_are() {
        let manifest = manifest("otp_length = { default = '6' }", "");
        for sources in [
            Sources { environment: map(&[("SPIN_VARIABLE_OPT_LENGTH", "8")]), ..Sources::default() },
            Sources { dotenv: map(&[("SPIN_VARIABLE_OPT_LENGTH", "8")]), ..Sources::default() },
            Sources { arguments: vec!["opt_length=8".to_owned()], ..Sources::default() },
        ] {
            let error = Variables::resolve(&manifest, &sources).unwrap_err().to_string();
            assert!(error.to_lowercase().contains("opt_length") && error.contains("otp_length"), "{error}");
            assert!(!error.contains('8'), "a value may be secret: {error}");
        }
    }

    #[test]
    fn a_template_that_names_no_variable_is_an_error_at_start() {
        for template in ["b = '{{ nobody }}'", "b = '{{ a'"] {
            let manifest = manifest("a = { default = '' }", template);
            assert!(Variables::resolve(&manifest, &Sources::default()).is_err(), "{template}");
        }
    }

    #[test]
    fn the_component_sees_its_own_variables_only() {
        let manifest = manifest("a = { default = '1' }", "b = '{{a}}{{ a }}'");
        let variables = Variables::resolve(&manifest, &Sources::default()).unwrap();
        assert_eq!(variables.get("b").unwrap(), "11");
        assert!(matches!(variables.get("a"), Err(Error::Undefined(_))));
        for bad in ["", "B", "a__b", "_a", "a-b", "1a"] {
            assert!(matches!(variables.get(bad), Err(Error::InvalidName(_))), "{bad}");
        }
    }
}
