//! TLS 1.3 over QUIC: certificates, endpoints, framed streams, chunked bulk transfer.
