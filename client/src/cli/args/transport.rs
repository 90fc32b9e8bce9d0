//! What the connection to the aggregator runs over.

use fedlora_common::exit::Exit;
use fedlora_shell::{Failure, Printer};
use fedlora_transport::{Proxy, TransportChoice};

use crate::directory::Membership;
use crate::proxy;

/// What a command that connects is told.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct TransportArgs {
    /// What to connect over: QUIC (UDP), TCP, or `auto`, TCP where QUIC is not answered; TCP uses the
    /// proxy in `HTTPS_PROXY` [default: that of fedlora.toml, or auto].
    #[arg(long, env = "FEDLORA_TRANSPORT", value_name = "auto|quic|tcp")]
    transport: Option<TransportChoice>,
}

impl TransportArgs {
    /// Puts the choice into a membership; gives the proxy, if there is one.
    pub(crate) fn apply(
        self,
        membership: &mut Membership,
        printer: &Printer,
    ) -> Result<Option<Proxy>, Failure> {
        let config = &mut membership.config;
        let (transport, proxy) = self.resolve(config.transport, &config.address, printer)?;
        config.transport = transport;
        Ok(proxy)
    }

    /// The choice, `configured` without the option, and the proxy to `address` that the environment
    /// names. One that cannot be used is an error only where nothing else is left.
    pub(crate) fn resolve(
        self,
        configured: TransportChoice,
        address: &str,
        printer: &Printer,
    ) -> Result<(TransportChoice, Option<Proxy>), Failure> {
        let choice = self.transport.unwrap_or(configured);
        let proxy = match proxy::from_environment(address) {
            _ if choice == TransportChoice::Quic => None,
            Ok(proxy) => proxy,
            Err(error) if choice == TransportChoice::Tcp => {
                return Err(Failure::new(Exit::Configuration, error));
            }
            Err(error) => {
                printer.note(&format!("{error}; it is not used"));
                None
            }
        };
        Ok((choice, proxy))
    }
}
