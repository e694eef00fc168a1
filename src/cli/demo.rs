//! `cqlgate demo`: its flags.

use std::net::{IpAddr, SocketAddr};

use clap::Args;

use crate::config::Listen;
use crate::demo;

/// The same names as `run`'s.
#[derive(Clone, Debug, Args)]
pub struct DemoArgs {
    /// One address and at least three ports.
    #[arg(long, value_name = "IP:FIRST-LAST", default_value = "127.0.0.1:9042-9044")]
    listen: Listen,
    /// What clients dial [default: the address of --listen].
    #[arg(long, value_name = "IP")]
    advertise: Option<IpAddr>,
    /// Where /metrics, /livez, /readyz, /topology and /log-level are served.
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:9180")]
    admin: SocketAddr,
}

pub(super) fn demo(args: &DemoArgs) -> anyhow::Result<()> {
    let options = demo::Options { listen: args.listen, admin: args.admin, advertise: args.advertise };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(demo::run(options))
}
