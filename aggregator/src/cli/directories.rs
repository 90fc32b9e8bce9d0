//! `fedlora-aggregator init` and `invite`: the operator's directory and its invitations.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use fedlora_protocol::ids::MemberName;
use fedlora_protocol::wire::token::InviteToken;
use fedlora_shell::values::listening;
use fedlora_shell::{Failure, Printer};
use serde_json::json;

use super::operator::{self, OperatorArgs};
use super::{ca, exits, passphrase};
use crate::clock::{Clock, SystemClock};
use crate::config::{AggregatorConfig, CaConfig, Pkcs11Config};
use crate::directory::Directory;
use crate::operators::{Act, ActKind};
use crate::registry::{InvitationFor, MemberRecord, Registry, RegistryError};

/// Options of `fedlora-aggregator init`.
#[derive(Debug, clap::Args)]
pub(super) struct InitArgs {
    /// The operator's directory.
    #[arg(long, env = "FEDLORA_DIR")]
    dir: PathBuf,
    /// The address where members connect (UDP and TCP).
    #[arg(long, env = "FEDLORA_LISTEN", value_parser = listening)]
    listen: SocketAddr,
    /// The address where invited members join (UDP and TCP) [default: the port above --listen's].
    #[arg(long, env = "FEDLORA_JOIN_LISTEN", value_parser = listening)]
    join_listen: Option<SocketAddr>,
    /// Host by which members reach this machine, with a port where it is not --listen's.
    #[arg(long, env = "FEDLORA_ADVERTISE")]
    advertise: Option<String>,
    /// The same for joining, where it differs [default: --advertise's host, --join-listen's port].
    #[arg(long, env = "FEDLORA_JOIN_ADVERTISE")]
    join_advertise: Option<String>,
    /// The federation's name.
    #[arg(long)]
    name: String,
    /// Seal the key of the certificate authority by a passphrase: 12 characters or more. `serve` then
    /// needs it to let members in and to renew certificates, or `ca sign` does that.
    #[arg(long)]
    seal_ca: bool,
    /// The file with that passphrase; `-` is a line of standard input. By default it is asked for on the
    /// terminal.
    #[arg(long, value_name = "FILE", requires = "seal_ca")]
    passphrase_file: Option<PathBuf>,
    #[command(flatten)]
    token: TokenArgs,
}

/// A PKCS #11 token that holds the key of the certificate authority: all of these, or none.
#[derive(Debug, clap::Args)]
struct TokenArgs {
    /// The PKCS #11 module of a token that holds the key of the certificate authority, on P-256. The
    /// token signs, and `ca.key` is not made. Needs the feature `pkcs11`.
    #[arg(
        long,
        value_name = "FILE",
        requires_all = ["pkcs11_token", "pkcs11_key", "pkcs11_pin_file"],
        conflicts_with = "seal_ca"
    )]
    pkcs11_module: Option<PathBuf>,
    /// The token's label.
    #[arg(long, value_name = "LABEL", requires = "pkcs11_module")]
    pkcs11_token: Option<String>,
    /// The label of the key pair in the token.
    #[arg(long, value_name = "LABEL", requires = "pkcs11_module")]
    pkcs11_key: Option<String>,
    /// The file with the PIN, which `serve` reads too.
    #[arg(long, value_name = "FILE", requires = "pkcs11_module")]
    pkcs11_pin_file: Option<PathBuf>,
}

impl TokenArgs {
    fn config(self) -> Option<CaConfig> {
        let pkcs11 = Pkcs11Config {
            module: self.pkcs11_module?,
            token: self.pkcs11_token?,
            key: self.pkcs11_key?,
            pin_file: self.pkcs11_pin_file?,
        };
        Some(CaConfig {
            pkcs11: Some(pkcs11),
            apart: false,
        })
    }
}

/// Options of `fedlora-aggregator invite`.
#[derive(Debug, clap::Args)]
pub(super) struct InviteArgs {
    /// The operator's directory.
    #[arg(long, env = "FEDLORA_DIR")]
    dir: PathBuf,
    /// The member's name: a-z, 0-9 and '-'.
    member: MemberName,
    /// Hours until the invitation expires.
    #[arg(long, default_value_t = 72, value_parser = clap::value_parser!(u64).range(1..=8760))]
    hours: u64,
    #[command(flatten)]
    operator: OperatorArgs,
}

/// Makes a federation.
pub(super) fn init(args: InitArgs, printer: &Printer) -> Result<(), Failure> {
    let dir = args.dir.clone();
    let passphrase = match args.seal_ca {
        true => Some(passphrase::choose(args.passphrase_file.as_deref())?),
        false => None,
    };
    let config = config(args)?;
    let (clock, passphrase) = (SystemClock, passphrase.as_ref());
    let made = Directory::init_sealed(&dir, &config, clock.valid_from(), passphrase);
    made.map_err(exits::directory)?;
    let (_, opened) = Directory::open(&dir).map_err(exits::directory)?;
    if let Some(passphrase) = passphrase {
        ca::sign_own(&dir, passphrase)?;
    }
    let authority = opened.authority.fingerprint();
    let identity = opened.identity.public().fingerprint();
    let document = json!({
        "federation": config.federation,
        "authority": authority.to_string(),
        "identity": identity.to_string(),
        "ca_key": opened.authority.custody(),
        "listen": config.listen.to_string(),
        "join_listen": config.join_listen.to_string(),
    });
    printer.result(&document, || {
        format!(
            "federation   {}\nauthority    {authority}\nits key      {}\n\
             identity     {identity}\n\
             members at   {} (UDP and TCP)\njoining at   {} (UDP and TCP)",
            config.federation,
            opened.authority.custody().words(),
            config.member_address(),
            config.join_address()
        )
    });
    Ok(())
}

/// Options of `fedlora-aggregator remove`.
#[derive(Debug, clap::Args)]
pub(super) struct RemoveArgs {
    /// The operator's directory.
    #[arg(long, env = "FEDLORA_DIR")]
    dir: PathBuf,
    /// The member's name.
    member: MemberName,
    #[command(flatten)]
    operator: OperatorArgs,
}

/// Removes a member.
pub(super) fn remove(args: &RemoveArgs, printer: &Printer) -> Result<(), Failure> {
    let (directory, opened) = Directory::open_to_change(&args.dir).map_err(exits::directory)?;
    let registry = Registry::new(directory.clone());
    let propose = || -> Result<Act, Failure> {
        let member = args.member.clone();
        let there = registry.member(&member).map_err(exits::registry)?;
        let identity = there.map(|one| one.identity);
        Ok(Act::Remove { member, identity })
    };
    let desk = (&directory, &opened);
    if operator::proposed(desk, ActKind::Removal, propose, &args.operator, printer)? {
        return Ok(());
    }
    let removed = registry.remove(&args.member).map_err(exits::registry)?;
    print_removed(&args.member, removed, printer);
    Ok(())
}

/// Prints who was removed.
pub(super) fn print_removed(member: &MemberName, removed: Option<MemberRecord>, printer: &Printer) {
    let identity = removed.as_ref().map(|one| one.identity.fingerprint());
    let document = json!({
        "member": member,
        "identity": identity.map(|identity| identity.to_string()),
        "serial": removed.map(|one| one.serial),
    });
    printer.result(&document, || match identity {
        Some(identity) => format!("removed      {member}\nidentity     {identity}"),
        None => format!("{member} had not joined: its invitation is withdrawn"),
    });
}

/// Makes an invitation for a new member, or for other keys of one.
pub(super) fn invite(
    args: InviteArgs,
    what: InvitationFor,
    printer: &Printer,
) -> Result<(), Failure> {
    let InviteArgs {
        dir,
        member,
        hours,
        operator,
    } = args;
    let (directory, opened) = Directory::open_to_change(&dir).map_err(exits::directory)?;
    let propose = || -> Result<Act, Failure> {
        let registry = Registry::new(directory.clone());
        let there = registry.member(&member).map_err(exits::registry)?;
        let member = member.clone();
        // What cannot be done is not proposed.
        let replaces = match (what, there) {
            (InvitationFor::NewMember, None) => None,
            (InvitationFor::OtherKeys, Some(there)) => Some(there.identity),
            (InvitationFor::NewMember, Some(_)) => {
                return Err(exits::registry(RegistryError::Joined { name: member }));
            }
            (InvitationFor::OtherKeys, None) => {
                return Err(exits::registry(RegistryError::NotJoined { name: member }));
            }
        };
        Ok(Act::Invite {
            member,
            hours,
            replaces,
        })
    };
    let desk = (&directory, &opened);
    if operator::proposed(desk, ActKind::Admission, propose, &operator, printer)? {
        return Ok(());
    }
    let expires = SystemClock.now().after(Duration::from_secs(hours * 3600));
    let address = opened.config.join_address();
    let token = Registry::new(directory)
        .invite(
            (member, what),
            address,
            opened.authority.fingerprint(),
            expires,
        )
        .map_err(exits::registry)?;
    print_token(&token, hours, printer);
    Ok(())
}

/// Prints an invitation, which is to be handed over.
pub(super) fn print_token(token: &InviteToken, hours: u64, printer: &Printer) {
    let document = json!({
        "member": token.name.to_string(),
        "expires": token.expires,
        "token": token.expose(),
    });
    printer.result(&document, || token.expose());
    if printer.is_text() {
        printer.note(&format!(
            "for {}, once, within {hours} hours: fedlora join TOKEN --dir DIR",
            token.name
        ));
    }
}

fn config(args: InitArgs) -> Result<AggregatorConfig, Failure> {
    let InitArgs {
        listen,
        join_listen,
        advertise,
        join_advertise,
        name,
        token,
        ..
    } = args;
    let mut config = AggregatorConfig::new(&name, listen).or_else(|error| {
        let with_port = |join_listen| AggregatorConfig {
            federation: name.clone(),
            listen,
            join_listen,
            advertise: None,
            join_advertise: None,
            ca: None,
            udp: true,
            store: None,
            retention: None,
        };
        join_listen
            .map(with_port)
            .ok_or(error)
            .map_err(exits::address)
    })?;
    if let Some(join_listen) = join_listen {
        config.join_listen = join_listen;
    }
    config.ca = token.config();
    config
        .advertised(advertise.as_deref(), join_advertise.as_deref())
        .map_err(exits::address)
}
