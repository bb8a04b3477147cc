//! Tells the network where a virtual address is, and finds out whether another host has it, too.
//!
//! Nobody waits for either: the arbiter has decided who serves, and the address is there already.

use std::net::IpAddr;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::sleep;
use tracing::warn;

use super::neighbours;
use crate::config::VirtualIp;

/// Announces the address until it is dropped; `conflict` is called once if another host answers for it.
pub(super) async fn announce(it: &VirtualIp, mut conflict: impl FnMut(String)) {
    for burst in 0..2 {
        for _ in 0..TIMES {
            tell(it).await;
            sleep(EVERY).await;
        }
        if burst == 0 && is_taken(it).await {
            let VirtualIp { address, device, .. } = it;
            conflict(format!("another host on {device} answers for the virtual address {address}"));
        }
        sleep(PAUSE).await;
    }
    loop {
        sleep(REMIND).await;
        tell(it).await;
    }
}

/// Says once where the address is. What cannot be said now is said again later.
async fn tell(it: &VirtualIp) {
    match it.address {
        IpAddr::V4(_) => {
            arping(it, &["-U", "-c", "1"]).await;
        }
        IpAddr::V6(address) => {
            if let Err(error) = neighbours::advertise(address, &it.device) {
                warn!(%address, device = it.device, %error,
                    "the virtual address is not announced: neighbours may look for it on its old card");
            }
        }
    }
}

/// Whether another host answers. A question that cannot be asked has no answer, and nobody asks for an
/// address of IPv6.
async fn is_taken(it: &VirtualIp) -> bool {
    it.address.is_ipv4() && arping(it, &["-D", "-c", "1", "-w", "1"]).await == Some(TAKEN)
}

/// The exit code of `arping -D` if somebody answered. Source: arping(8) of iputils.
const TAKEN: i32 = 1;

async fn arping(it: &VirtualIp, arguments: &[&str]) -> Option<i32> {
    let mut command = Command::new("arping");
    command.arg("-q").args(arguments).args(["-I", &it.device, &it.address.to_string()]);
    command.stdin(std::process::Stdio::null()).kill_on_drop(true);
    command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    command.status().await.ok()?.code()
}

/// Announcements of one burst, and the time between two.
const TIMES: u32 = 5;
const EVERY: Duration = Duration::from_millis(200);
/// Between the two bursts.
const PAUSE: Duration = Duration::from_secs(5);
/// For a switch that forgot.
const REMIND: Duration = Duration::from_mins(1);
