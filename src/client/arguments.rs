//! Command line options about reaching the HTTP API: token and trusted authorities.

use std::path::PathBuf;

use clap::Args;
use hyper::header::HeaderValue;

use super::ClientError;
use crate::access::secret_file;

/// Environment variable that holds the token when --token-file is not given. There is no option for the token itself:
/// every user of the machine sees the arguments of a process.
const VARIABLE: &str = "WEIR_TOKEN";

/// Options of every command that asks the HTTP API.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub struct ApiArguments {
    /// File with the token for the HTTP API, as `weir token add` printed it [default: the variable WEIR_TOKEN]
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// PEM file with the certificate authorities to trust, for https://
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
}

impl ApiArguments {
    /// The value of the Authorization header; `None` where there is no token.
    pub(super) fn authorization(&self) -> Result<Option<HeaderValue>, ClientError> {
        let (source, text) = match &self.token_file {
            Some(path) => {
                let text =
                    secret_file::read(path).map_err(|error| ClientError::Token(format!("--token-file: {error}")))?;
                (path.display().to_string(), text)
            }
            // Some tools pass an empty variable for none.
            None => match std::env::var_os(VARIABLE).filter(|text| !text.is_empty()) {
                Some(text) => (VARIABLE.to_owned(), text.to_string_lossy().into_owned()),
                None => return Ok(None),
            },
        };
        bearer(text.trim()).map(Some).ok_or_else(|| {
            let expected = "expected one line as `weir token add` printed it";
            ClientError::Token(format!("{source} does not hold a token; {expected}"))
        })
    }
}

fn bearer(secret: &str) -> Option<HeaderValue> {
    let plain = !secret.is_empty() && secret.bytes().all(|byte| byte.is_ascii_graphic());
    let mut value = HeaderValue::from_str(&format!("Bearer {secret}")).ok().filter(|_| plain)?;
    value.set_sensitive(true);
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_is_one_line_of_a_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        let check = |text: &str| {
            std::fs::write(&path, text).unwrap();
            let arguments = ApiArguments { token_file: Some(path.clone()), ca: None };
            arguments.authorization().map(|value| value.map(|value| value.to_str().unwrap().to_owned()))
        };
        assert_eq!(check(" weir_abc\n").unwrap().as_deref(), Some("Bearer weir_abc"));
        for wrong in ["", "\n", "weir_secret\nweir_secret2", "weir_secret x", "weir_secrét"] {
            let error = check(wrong).unwrap_err().to_string();
            assert!(error.contains("token does not hold a token") && !error.contains("secr"), "{error}");
        }
        let nowhere = ApiArguments { token_file: Some(directory.path().join("nowhere")), ca: None };
        assert!(nowhere.authorization().unwrap_err().to_string().contains("nowhere"));
    }

    #[test]
    fn the_token_is_not_shown() {
        assert!(!format!("{:?}", bearer("weir_abc")).contains("abc"));
    }
}
