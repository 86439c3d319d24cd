//! `/mqtt`: MQTT over WebSocket, RFC 6455 and section 6 of MQTT 5.0.

mod frame;
mod handshake;
mod stream;

use std::net::SocketAddr;

use axum::extract::{self, Request};
use axum::response::{IntoResponse, Response};
use hyper::upgrade::{OnUpgrade, Parts, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use self::stream::WebSocket;
use crate::admission::{CONNECTION_BYTES, TLS_BYTES};
use crate::http::hosts::NamedHost;
use crate::http::problem::ApiProblem;
use crate::http::state::ApiState;
use crate::http::transport::{HttpTransport, TimedStream};
use crate::mqtt::{AdmissionControl, ConnectionPermit, Peer};
use crate::tls::HandshakeStream;

/// Answers the handshake and hands the connection to the MQTT server.
pub(super) async fn open(extract::State(state): extract::State<ApiState>, mut request: Request) -> Response {
    let origins = &state.resources.config.http.websocket_origins;
    let own = request.extensions().get::<NamedHost>().cloned().unwrap_or_default();
    let answer = match handshake::answer(request.headers(), &own, origins) {
        Ok(answer) => answer,
        Err(refused) => return *refused,
    };
    let Some(admission) = state.resources.mqtt_admission.clone() else {
        return ApiProblem::unavailable("MQTT is not served here").into_response();
    };
    let address = request.extensions().get::<SocketAddr>().map(SocketAddr::ip);
    admission.opened().await;
    let permit = match admission.admit(address) {
        Ok(permit) => permit,
        Err(refused) => return ApiProblem::unavailable(refused.to_string()).into_response(),
    };
    let upgrade = hyper::upgrade::on(&mut request);
    let peer = address.map(Peer::at).unwrap_or_default();
    admission.clone().spawn(async move { serve(upgrade, &admission, peer, permit).await });
    answer
}

async fn serve(upgrade: OnUpgrade, admission: &AdmissionControl, peer: Peer, permit: ConnectionPermit) {
    // The client may disconnect before it has the answer.
    let Some(Ok(upgraded)) = admission.prepare(&permit, upgrade).await else { return };
    match into_websocket::<TcpStream>(upgraded) {
        Ok(stream) => serve_stream(stream, 0, admission, peer, permit).await,
        Err(upgraded) => {
            if let Ok(stream) = into_websocket::<Box<TlsStream<HandshakeStream<TcpStream>>>>(upgraded) {
                serve_stream(stream, TLS_BYTES, admission, peer, permit).await;
            }
        }
    }
}

async fn serve_stream<S: HttpTransport>(
    stream: WebSocket<S>,
    tls_bytes: usize,
    admission: &AdmissionControl,
    peer: Peer,
    permit: ConnectionPermit,
) {
    let bytes = CONNECTION_BYTES + tls_bytes + stream.input_bytes();
    if permit.held().set_transport(bytes).is_ok() {
        admission.serve(stream, peer, permit).await;
    }
}

/// Takes the socket out of the HTTP connection, without HTTP's time limits: MQTT has limits of its own.
fn into_websocket<S: HttpTransport>(upgraded: Upgraded) -> Result<WebSocket<S>, Upgraded> {
    let Parts { io, read_buf, .. } = upgraded.downcast::<TokioIo<TimedStream<S>>>()?;
    Ok(WebSocket::new(io.into_inner().into_inner(), read_buf.to_vec()))
}

#[cfg(test)]
mod tests;
