//! Query parameters. They are read strictly: a misspelt filter must not silently select everything.

use axum::extract::Query;
use axum::http::Uri;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::http::problem::ApiProblem;

/// Entries in a list where the request gives no limit.
pub(super) const DEFAULT_LIMIT: usize = 100;
/// Entries in a list at most.
pub(super) const MAX_LIMIT: usize = 1_000;

/// The query of a request. Each parameter is known and given once.
#[derive(Debug)]
pub(super) struct Parameters {
    pairs: Vec<(String, String)>,
}

impl Parameters {
    /// Reads the query of `uri`, which may hold the parameters `known`.
    ///
    /// # Errors
    /// The query has another form, an unknown parameter, or a parameter twice.
    pub fn read(uri: &Uri, known: &[&str]) -> Result<Self, ApiProblem> {
        let Query(pairs) = Query::<Vec<(String, String)>>::try_from_uri(uri)
            .map_err(|_| ApiProblem::bad_request("the query is not of the form name=value&name=value"))?;
        for (index, (name, _)) in pairs.iter().enumerate() {
            if !known.contains(&name.as_str()) {
                return Err(ApiProblem::bad_request(match known {
                    [] => format!("there is no parameter {name:?} here; this path takes none"),
                    known => format!("there is no parameter {name:?} here; known are {}", known.join(", ")),
                }));
            }
            if pairs.iter().take(index).any(|(earlier, _)| earlier == name) {
                return Err(ApiProblem::bad_request(format!("the parameter {name:?} is given twice; give it once")));
            }
        }
        Ok(Self { pairs })
    }

    /// The value of a parameter.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.pairs.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// `limit`: entries in the answer at most.
    ///
    /// # Errors
    /// The value is not a number from 1 to [`MAX_LIMIT`].
    pub fn limit(&self) -> Result<usize, ApiProblem> {
        let Some(text) = self.get("limit") else {
            return Ok(DEFAULT_LIMIT);
        };
        let limit = text.parse().ok().filter(|limit| (1..=MAX_LIMIT).contains(limit));
        limit.ok_or_else(|| {
            ApiProblem::bad_request(format!("limit={text} is not a limit; give a whole number from 1 to {MAX_LIMIT}"))
        })
    }

    /// A time: Unix milliseconds or RFC 3339.
    ///
    /// # Errors
    /// The value is neither.
    pub fn time_ms(&self, name: &str) -> Result<Option<i64>, ApiProblem> {
        let Some(text) = self.get(name) else {
            return Ok(None);
        };
        let time = text.parse().ok().or_else(|| rfc3339_ms(text)).or_else(|| {
            // A + that was not written as %2B arrives as a space.
            let (time, zone) = text.rsplit_once(' ')?;
            rfc3339_ms(&format!("{time}+{zone}"))
        });
        time.map(Some).ok_or_else(|| {
            ApiProblem::bad_request(format!(
                "{name}={text} is not a time; give Unix milliseconds or RFC 3339 such as 2026-01-31T12:00:00Z"
            ))
        })
    }

    /// `from` and `to`: a half-open range of time.
    ///
    /// # Errors
    /// A value is not a time, or `from` is after `to`.
    pub fn range_ms(&self) -> Result<(i64, i64), ApiProblem> {
        let (from, to) = (self.time_ms("from")?.unwrap_or(i64::MIN), self.time_ms("to")?.unwrap_or(i64::MAX));
        if from > to {
            return Err(ApiProblem::bad_request("from is after to; exchange them"));
        }
        Ok((from, to))
    }

    /// A switch of the form `name=1`; `None` where it is not given.
    ///
    /// # Errors
    /// The value is neither `1` or `true` nor `0` or `false`.
    pub fn switch(&self, name: &str) -> Result<Option<bool>, ApiProblem> {
        match self.get(name) {
            None => Ok(None),
            Some("1" | "true") => Ok(Some(true)),
            Some("0" | "false") => Ok(Some(false)),
            Some(text) => Err(ApiProblem::bad_request(format!("{name}={text} is not a switch; give 1 or 0"))),
        }
    }
}

fn rfc3339_ms(text: &str) -> Option<i64> {
    text.parse::<jiff::Timestamp>().ok().map(|time| time.as_millisecond())
}

/// Encodes a cursor as the API shows it: opaque, and safe in a query.
pub(super) fn encode_cursor(text: &str) -> String {
    URL_SAFE_NO_PAD.encode(text)
}

/// Decodes the text inside a cursor.
///
/// # Errors
/// The API did not make this cursor.
pub(super) fn decode_cursor(cursor: &str) -> Result<String, ApiProblem> {
    let bytes = URL_SAFE_NO_PAD.decode(cursor).ok();
    bytes.and_then(|bytes| String::from_utf8(bytes).ok()).ok_or_else(invalid_cursor)
}

/// The answer to a cursor that weir did not give out for this list.
pub(super) fn invalid_cursor() -> ApiProblem {
    ApiProblem::bad_request(
        "the cursor is not one of this list; pass next_cursor unchanged and keep the other parameters",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(query: &str) -> Result<Parameters, ApiProblem> {
        let uri = format!("/x?{query}").parse().expect("a URI");
        Parameters::read(&uri, &["limit", "from", "to", "windows"])
    }

    #[track_caller]
    fn refused(result: Result<impl std::fmt::Debug, ApiProblem>, part: &str) {
        let problem = result.expect_err("refused");
        assert!(problem.detail.contains(part), "{}", problem.detail);
    }

    #[test]
    fn unknown_and_repeated_parameters_are_refused() {
        refused(read("limt=1"), "known are limit, from, to, windows");
        refused(read("limit=1&limit=2"), "given twice");
        assert!(read("").is_ok());
    }

    #[test]
    fn limits() {
        let limit = |query| read(query).expect("known").limit();
        assert_eq!(limit(""), Ok(100));
        assert_eq!(limit("limit=1000"), Ok(1000));
        for query in ["limit=0", "limit=1001", "limit=-1", "limit=x", "limit="] {
            refused(limit(query), "from 1 to 1000");
        }
    }

    #[test]
    fn times() {
        let from = |text: &str| read(&format!("from={text}")).expect("known").time_ms("from");
        assert_eq!(from("-5"), Ok(Some(-5)));
        assert_eq!(from("1970-01-01T00:00:01.5Z"), Ok(Some(1_500)));
        assert_eq!(from("1970-01-01T02:00:00%2B02:00"), Ok(Some(0)));
        assert_eq!(from("1970-01-01T02:00:00+02:00"), Ok(Some(0)));
        for text in ["yesterday", "", "1.5", "1970-01-01T00:00:00"] {
            refused(from(text), "RFC 3339");
        }
        refused(read("from=2&to=1").expect("known").range_ms(), "exchange");
    }

    #[test]
    fn switches() {
        let windows = |query| read(query).expect("known").switch("windows");
        assert_eq!(
            (windows(""), windows("windows=1"), windows("windows=false")),
            (Ok(None), Ok(Some(true)), Ok(Some(false)))
        );
        refused(windows("windows=yes"), "give 1 or 0");
    }

    #[test]
    fn cursors_read_back() {
        assert_eq!(decode_cursor(&encode_cursor("gerät/7 &=")).as_deref(), Ok("gerät/7 &="));
        refused(decode_cursor("not a cursor!"), "next_cursor");
    }
}
