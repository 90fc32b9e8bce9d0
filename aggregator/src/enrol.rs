//! Enrolment: an invited member shows its one-time secret and gets its certificate.

use std::sync::Arc;
use std::time::Duration;

use fedlora_protocol::crypto::os_rng;
use fedlora_protocol::wire::codec;
use fedlora_protocol::wire::session::{JoinRequest, JoinResponse, PROTOCOL};
use fedlora_transport::connection::CloseCode;
use fedlora_transport::hello::receive_hello;
use fedlora_transport::{Connection, JoinServer};
use time::OffsetDateTime;
use tracing::{info, warn};

use crate::directory::Opened;
use crate::registry::{MemberRecord, Registry};
use fedlora_shell::now;

/// How long a member's certificate is valid.
const MEMBER_DAYS: u32 = 365;
/// How long a joining member may take for its request, and for taking the answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Serves the enrolment endpoint until it is closed.
pub(crate) async fn serve(
    mut endpoint: JoinServer,
    opened: Arc<Opened>,
    registry: Registry,
    address: String,
) {
    while let Some(accepted) = endpoint.accept().await {
        match accepted {
            Ok(connection) => {
                let (opened, registry) = (Arc::clone(&opened), registry.clone());
                let address = address.clone();
                tokio::spawn(async move {
                    answer(connection, &opened, &registry, address).await;
                });
            }
            Err(error) => warn!(%error, "a joining connection failed"),
        }
    }
}

async fn answer(connection: Connection, opened: &Opened, registry: &Registry, address: String) {
    let (payload, reply) = match receive_hello(&connection, PATIENCE).await {
        Ok(hello) => hello,
        Err(error) => {
            warn!(%error, "a joining member sent no request");
            connection.close(CloseCode::Protocol, "no join request");
            return;
        }
    };
    let response = match enrol(&payload, opened, registry, address) {
        Ok(response) => response,
        Err(reason) => {
            warn!(%reason, from = %connection.remote_address(), "refused to let a member join");
            JoinResponse::Refused { reason }
        }
    };
    let bytes = codec::encode(&response).expect("a certificate is far below the message limit");
    if let Err(error) = reply.accept(&bytes).await {
        warn!(%error, "a joining member did not take its answer");
    }
    // The member closes once it has read the answer.
    let _ = tokio::time::timeout(PATIENCE, connection.closed()).await;
}

fn enrol(
    payload: &[u8],
    opened: &Opened,
    registry: &Registry,
    address: String,
) -> Result<JoinResponse, String> {
    let request: JoinRequest = codec::decode(payload).map_err(|error| error.to_string())?;
    if request.protocol != PROTOCOL {
        return Err(format!(
            "this aggregator speaks protocol {PROTOCOL}, the member {}: upgrade the older",
            request.protocol
        ));
    }
    // The invitation first: who holds none learns nothing of what else would be wrong.
    registry
        .check(&request.name, &request.secret, now())
        .map_err(|error| error.to_string())?;
    let proof = JoinRequest::proof_digest(&request.name, &request.certificate_request);
    request
        .identity
        .verify(&proof, &request.proof)
        .map_err(|_| "the join request is not signed by the identity key in it".to_owned())?;
    let issued = opened
        .authority
        .issue_member_certificate(
            &request.certificate_request,
            &request.name,
            OffsetDateTime::now_utc(),
            MEMBER_DAYS,
            &mut os_rng(),
        )
        .map_err(|error| error.to_string())?;
    let record = MemberRecord {
        name: request.name.clone(),
        identity: request.identity,
        certificate_key: issued.key,
        serial: issued
            .serial
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect(),
        joined: now(),
    };
    registry
        .redeem(&record, &request.secret, now())
        .map_err(|error| error.to_string())?;
    info!(member = %record.name, identity = %record.identity.fingerprint(), "a member joined");
    Ok(JoinResponse::Welcome {
        federation: opened.config.federation.clone(),
        certificate: issued.certificate.to_vec(),
        address,
        aggregator: opened.identity.public(),
    })
}
