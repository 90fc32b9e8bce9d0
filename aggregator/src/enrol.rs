//! Enrolment: an invited member shows its one-time secret and gets its certificate.

use std::sync::Arc;
use std::time::{Duration, Instant};

use fedlora_protocol::crypto::os_rng;
use fedlora_protocol::wire::codec::{self, CodecError};
use fedlora_protocol::wire::session::{JoinRequest, JoinResponse};
use fedlora_protocol::wire::versions::{NoCommonProtocol, Protocols};
use fedlora_transport::connection::CloseCode;
use fedlora_transport::hello::receive_hello;
use fedlora_transport::pki::PkiError;
use fedlora_transport::{Connection, JoinServer, Places};
use tracing::{info, warn};

use crate::blocking::in_place;
use crate::ca::CaError;
use crate::ca::requests::{Requests, Waiting};
use crate::certificates::{MEMBER_DAYS, OwnCertificate, RENEWAL_TICK, renew};
use crate::clock::Clock;
use crate::directory::Opened;
use crate::operators::{self, ActKind, OperatorsError};
use crate::registry::{MemberRecord, Registry, RegistryError};
use crate::server::reticence::Reticence;

/// Joining connections at a time; the oldest makes room for one more. Who guesses at secrets, or says
/// nothing, holds up nobody.
pub(crate) const MAX_JOINING: usize = 128;

/// How long a joining member may take for its request, and for taking the answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Serves the enrolment endpoint until it is closed.
pub(crate) async fn serve(
    (mut endpoint, mut own): (JoinServer, OwnCertificate),
    opened: Arc<Opened>,
    registry: Registry,
    address: String,
    clock: Arc<dyn Clock>,
) {
    let mut tick = tokio::time::interval(RENEWAL_TICK);
    let places = Places::new(MAX_JOINING);
    let complaints = Arc::new(Reticence::default());
    loop {
        let accepted = tokio::select! {
            accepted = endpoint.accept() => accepted,
            _ = tick.tick() => {
                renew(&mut own, |credentials, authority| {
                    endpoint.reconfigure(credentials, authority)
                });
                continue;
            }
        };
        let Some(accepted) = accepted else { break };
        match accepted {
            Ok(connection) => {
                let (opened, registry) = (Arc::clone(&opened), registry.clone());
                let (address, clock) = (address.clone(), Arc::clone(&clock));
                let said = Arc::clone(&complaints);
                let made_room = places.spawn(async move {
                    let operator = (&*opened, &registry, address, &*clock);
                    answer(connection, operator, &said).await;
                });
                if made_room && let Some(more) = complaints.may_say(Instant::now()) {
                    warn!(more, "the oldest joining connection makes room for another");
                }
            }
            Err(error) => {
                if let Some(more) = complaints.may_say(Instant::now()) {
                    warn!(%error, more, "a joining connection failed");
                }
            }
        }
    }
}

/// Answers the request on a joining member's connection.
pub(crate) async fn answer(
    connection: Connection,
    (opened, registry, address, clock): (&Opened, &Registry, String, &dyn Clock),
    complaints: &Reticence,
) {
    let (payload, reply) = match receive_hello(&connection, PATIENCE).await {
        Ok(hello) => hello,
        Err(error) => {
            if let Some(more) = complaints.may_say(Instant::now()) {
                warn!(%error, more, "a joining member sent no request");
            }
            connection.close(CloseCode::Protocol, "no join request");
            return;
        }
    };
    let enrolled = in_place(|| enrol(&payload, opened, registry, address, clock));
    let response = match enrolled {
        Ok(response) => response,
        Err(refusal) => {
            let reason = refusal.to_string();
            if let JoinRefusal::Operators(error) = &refusal {
                warn!(%error, "an invitation does not count");
            }
            if let JoinRefusal::Ca(error) = &refusal {
                warn!(%error, "no certificate can be issued");
            }
            if let Some(more) = complaints.may_say(Instant::now()) {
                let from = connection.remote_address();
                warn!(%reason, %from, more, "refused to let a member join");
            }
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
    clock: &dyn Clock,
) -> Result<JoinResponse, JoinRefusal> {
    let request: JoinRequest = codec::decode(payload)?;
    Protocols::OWN.common(request.protocol)?;
    // The invitation first: who holds none learns nothing of what else would be wrong.
    registry.check(&request.name, &request.secret, clock.now())?;
    let (file, content) = registry.invitation_file(&request.name, &request.secret, clock.now())?;
    operators::of_directory(registry.directory(), &opened.identity.public())?.check(
        ActKind::Admission,
        &file,
        &content,
    )?;
    let proof = JoinRequest::proof_digest(&request.name, &request.certificate_request);
    request
        .identity
        .verify(&proof, &request.proof)
        .map_err(|_| JoinRefusal::Proof)?;
    let requests = Requests::of(registry.directory().root());
    let issued = opened.authority.sign(|authority| {
        authority.issue_member_certificate(
            &request.certificate_request,
            &request.name,
            clock.valid_from(),
            MEMBER_DAYS,
            &mut os_rng(),
        )
    });
    let issued = match issued {
        Err(error) if error.is_waiting() => match requests.joining(&request, clock.now())? {
            Waiting::Signed(issued) => issued,
            Waiting::Waits => return Err(JoinRefusal::Waits),
            Waiting::OtherKeys => {
                return Err(RegistryError::Used { name: request.name }.into());
            }
        },
        issued => issued?,
    };
    let record = MemberRecord {
        name: request.name.clone(),
        identity: request.identity,
        certificate_key: issued.key,
        serial: issued
            .serial
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect(),
        joined: clock.now(),
    };
    registry.redeem(&record, &request.secret, clock.now())?;
    requests.joined(&record.name)?;
    info!(member = %record.name, identity = %record.identity.fingerprint(), "a member joined");
    Ok(JoinResponse::Welcome {
        federation: opened.config.federation.clone(),
        certificate: issued.certificate.as_der().to_vec(),
        address,
        aggregator: opened.identity.public(),
    })
}

/// What a member is told of an error: where the operator's files lie is nobody's business.
fn without_paths(error: &CaError) -> String {
    match error {
        CaError::Pki(error @ (PkiError::Request { .. } | PkiError::AuthorityExpired { .. })) => {
            error.to_string()
        }
        _ => "the authority's key cannot be used: the operator's log says why".to_owned(),
    }
}

/// Whose program has to be upgraded.
pub(crate) fn older(none: &NoCommonProtocol) -> &'static str {
    match none.is_other_older() {
        true => "member's program",
        false => "aggregator's program",
    }
}

/// Why a member may not join. The words go to the member as they stand here.
#[derive(Debug, thiserror::Error)]
enum JoinRefusal {
    /// A malformed request.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// A request of another protocol version.
    #[error(
        "this aggregator speaks protocol {}, the member {}: upgrade the {}",
        .0.own, .0.other, older(.0)
    )]
    Protocol(#[from] NoCommonProtocol),
    /// No open invitation, or a record that cannot be written.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The invitation was not approved by two operators, or nobody can tell.
    #[error("the invitation is not approved by two operators: ask the operator for another one")]
    Operators(#[from] OperatorsError),
    /// The identity key's signature does not verify.
    #[error("the join request is not signed by the identity key in it")]
    Proof,
    /// The operator has yet to sign.
    #[error(
        "the certificate waits for the operator, who does not leave the key for it with the aggregator: \
         join again with the same token, into the same folder, once it is signed"
    )]
    Waits,
    /// The certificate request is refused, or cannot be kept.
    #[error("{}", without_paths(.0))]
    Ca(#[from] CaError),
}
