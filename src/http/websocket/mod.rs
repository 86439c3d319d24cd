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
use crate::http::problem::ApiProblem;
use crate::http::state::ApiState;
use crate::http::transport::{HttpTransport, TimedStream};
use crate::mqtt::{Admission, Entrance, Peer};

/// Answers the handshake and hands the connection to the MQTT server.
pub(super) async fn open(extract::State(state): extract::State<ApiState>, mut request: Request) -> Response {
    let origins = &state.resources.config.http.websocket_origins;
    let answer = match handshake::answer(request.headers(), origins) {
        Ok(answer) => answer,
        Err(refused) => return *refused,
    };
    let Some(entrance) = state.resources.mqtt_admission.clone() else {
        return ApiProblem::unavailable("MQTT is not served here").into_response();
    };
    let address = request.extensions().get::<SocketAddr>().map(SocketAddr::ip);
    entrance.opened().await;
    let admission = match entrance.admit(address) {
        Ok(admission) => admission,
        Err(refused) => return ApiProblem::unavailable(refused.to_string()).into_response(),
    };
    let upgrade = hyper::upgrade::on(&mut request);
    let peer = address.map(Peer::at).unwrap_or_default();
    entrance.clone().spawn(async move { serve(upgrade, &entrance, peer, admission).await });
    answer
}

async fn serve(upgrade: OnUpgrade, entrance: &Entrance, peer: Peer, admission: Admission) {
    // The client may be gone before it has the answer.
    let Some(Ok(upgraded)) = entrance.prepare(&admission, upgrade).await else { return };
    match into_websocket::<TcpStream>(upgraded) {
        Ok(stream) => entrance.serve(stream, peer, admission).await,
        Err(upgraded) => {
            if let Ok(stream) = into_websocket::<Box<TlsStream<TcpStream>>>(upgraded) {
                entrance.serve(stream, peer, admission).await;
            }
        }
    }
}

/// The socket itself, without the time limits of HTTP: MQTT has its own.
fn into_websocket<S: HttpTransport>(upgraded: Upgraded) -> Result<WebSocket<S>, Upgraded> {
    let Parts { io, read_buf, .. } = upgraded.downcast::<TokioIo<TimedStream<S>>>()?;
    Ok(WebSocket::new(io.into_inner().into_inner(), read_buf.to_vec()))
}

#[cfg(test)]
mod tests;
