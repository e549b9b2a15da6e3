//! `relay check`: whether a relay or the service answers that it is ready, for images that have neither a
//! shell nor curl.

use crate::arguments::Check;
use anyhow::{Context, Result, bail};

/// Asks, and fails unless the answer is a success.
pub(crate) async fn run(arguments: Check) -> Result<()> {
    let Check { url, deadline, .. } = &arguments;
    let client = reqwest::Client::builder()
        .timeout(arguments.deadline())
        .redirect(reqwest::redirect::Policy::none())
        // What is asked is beside the one that asks, and behind nobody.
        .no_proxy()
        .build()?;
    let response = client.get(url.clone()).send().await.map_err(reqwest::Error::without_url);
    let response = response.with_context(|| format!("{url} gave no answer within {deadline} s"))?;
    let status = response.status();
    if !status.is_success() {
        let said = response.text().await.unwrap_or_default();
        bail!("{url} answers {status}: {said}");
    }
    Ok(())
}
