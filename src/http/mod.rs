//! HTTP: API, health, metrics, live stream.
