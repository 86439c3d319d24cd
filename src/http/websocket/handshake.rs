//! The opening handshake, RFC 6455 section 4.2.

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use ring::digest;

use crate::http::authority::Authority;
use crate::http::hosts::NamedHost;
use crate::http::problem::ApiProblem;

/// The subprotocol of MQTT [MQTT-6.0.0-3].
const PROTOCOL: &str = "mqtt";
/// The text that section 1.3 appends to the key.
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

fn refused(status: StatusCode, detail: &str) -> ApiProblem {
    ApiProblem::new(status, detail)
}

/// The answer that opens a WebSocket, or the one that refuses it. A page of another origin than the server's own must be
/// listed in `origins`, and `own` is the host that the request names: otherwise any page on the web could speak MQTT from a browser inside the user's network.
pub(super) fn answer(headers: &HeaderMap, own: &NamedHost, origins: &[String]) -> Result<Response, Box<Response>> {
    let asks = has_token(headers, header::CONNECTION.as_str(), "upgrade")
        && has_token(headers, header::UPGRADE.as_str(), "websocket");
    if !asks {
        let mut response =
            refused(StatusCode::UPGRADE_REQUIRED, "this is MQTT over WebSocket: connect with an MQTT client (ws://)")
                .into_response();
        response.headers_mut().insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        return Err(Box::new(response));
    }
    if headers.get(header::SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        let mut response = refused(StatusCode::UPGRADE_REQUIRED, "WebSocket version 13 is spoken").into_response();
        response.headers_mut().insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        return Err(Box::new(response));
    }
    if !may_connect(headers, own, origins) {
        let detail = "pages of this origin may not speak MQTT; http.websocket_origins lists those that may";
        return Err(Box::new(refused(StatusCode::FORBIDDEN, detail).into_response()));
    }
    if !has_token(headers, header::SEC_WEBSOCKET_PROTOCOL.as_str(), PROTOCOL) {
        let detail = "the subprotocol must be \"mqtt\" (Sec-WebSocket-Protocol)";
        return Err(Box::new(refused(StatusCode::BAD_REQUEST, detail).into_response()));
    }
    let key = headers.get(header::SEC_WEBSOCKET_KEY).map(HeaderValue::as_bytes).unwrap_or_default();
    if BASE64_STANDARD.decode(key).map_or(0, |nonce| nonce.len()) != 16 {
        return Err(Box::new(
            refused(StatusCode::BAD_REQUEST, "Sec-WebSocket-Key must be 16 bytes in base64").into_response(),
        ));
    }
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let answered = response.headers_mut();
    answered.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    answered.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    answered.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(PROTOCOL));
    if let Ok(accept) = HeaderValue::from_str(&accept(key)) {
        answered.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    }
    Ok(response)
}

/// The value of Sec-WebSocket-Accept, which proves that the server understood the handshake (section 4.2.2).
pub(super) fn accept(key: &[u8]) -> String {
    let digest = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, &[key, GUID.as_bytes()].concat());
    BASE64_STANDARD.encode(digest)
}

/// Whether the comma-separated values of a header contain `token`.
fn has_token(headers: &HeaderMap, name: &str, token: &str) -> bool {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|word| word.trim().eq_ignore_ascii_case(token))
}

fn may_connect(headers: &HeaderMap, own: &NamedHost, origins: &[String]) -> bool {
    let Some(origin) = headers.get(header::ORIGIN) else { return true };
    let Ok(origin) = origin.to_str() else { return false };
    // With https the certificate rules DNS rebinding out.
    let is_own = Authority::of_origin(origin)
        .is_some_and(|page| own.authority.as_ref().is_some_and(|own| own.is_of(&page)) && (page.0 || own.is_trusted));
    is_own || origins.iter().any(|known| known == "*" || known.eq_ignore_ascii_case(origin))
}
