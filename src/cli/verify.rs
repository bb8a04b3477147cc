//! `hotpair verify`: starts the comparison, shows how far it is, and says what it found.

use std::time::Duration;

use super::args::Verify;
use super::client::{Client, path_of};
use super::failure::Failure;
use super::progress::Bar;
use super::say::{self, GOOD};
use super::{status, table};
use crate::control::VerifyBody;
use crate::control::status::{LastVerify, ResourceStatus};
use crate::replica::Answer;
use crate::units::{BLOCK_LEN, Role};

/// Time between two looks at how far it is.
const LOOK_AGAIN: Duration = Duration::from_millis(300);

pub(super) async fn verify(client: &Client, verify: &Verify) -> Result<(), Failure> {
    let name = &verify.resource;
    let answer = wait(client, verify).await?;
    let found = status::of_resource(client, name).await?;
    let Some(last) = &found.last_verify else {
        // That it ended is known; that nothing differs is not, and must not look like it.
        let why = format!("{}, and what was found is not known here", answer.text);
        return Err(Failure::refused(why, format!("on {}: hotpair status {name}", client.peer)));
    };
    if verify.json {
        say::json(last)?;
    } else {
        show(name, &found, last)?;
    }
    match (last.differences, verify.repair) {
        (0, _) => Ok(()),
        (_, true) => {
            say::talk(&format!(
                "{name}: what differs is sent to {} again: hotpair status {name} --watch",
                secondary_of(client, &found)
            ));
            Ok(())
        }
        (count, false) => Err(Failure::refused(
            format!("{} of {}", table::count(count, "different block"), say::size(BLOCK_LEN)),
            format!(
                "to make the copy of {} like that of the primary: hotpair verify {name} --repair",
                secondary_of(client, &found)
            ),
        )),
    }
}

/// Waits for the end, with a bar.
async fn wait(client: &Client, verify: &Verify) -> Result<Answer, Failure> {
    let path = path_of(&verify.resource, "verify");
    let body = VerifyBody { repair: verify.repair };
    let mut end = std::pin::pin!(client.order_without_limit(&path, &body));
    let bar = Bar::new(&verify.resource);
    loop {
        tokio::select! {
            biased;
            answer = &mut end => return answer,
            () = tokio::time::sleep(LOOK_AGAIN) => {}
        }
        // That it cannot be asked now is for the order itself to find out.
        if let Ok(found) = status::of_resource(client, &verify.resource).await
            && let Some(progress) = found.verify
        {
            bar.show(progress.done_bytes, progress.total_bytes);
        }
    }
}

fn secondary_of<'a>(client: &'a Client, found: &ResourceStatus) -> &'a str {
    if found.role == Role::Primary { &client.peer } else { &client.node }
}

fn show(name: &str, found: &ResourceStatus, last: &LastVerify) -> Result<(), Failure> {
    let size = found.size_bytes.map_or_else(|| "all".to_owned(), say::size);
    if last.differences == 0 {
        return say::result(&format!(
            "{name}: {GOOD}no differences{GOOD:#}, {size} compared with {}",
            found.peer.node
        ));
    }
    for range in &last.ranges {
        let end = range.start_bytes + range.len_bytes;
        say::result(&format!("{name}: bytes {} to {end} differ", range.start_bytes))?;
    }
    let shown: u64 = last.ranges.iter().map(|range| range.len_bytes.div_ceil(BLOCK_LEN)).sum();
    if let Some(more) = last.differences.checked_sub(shown).filter(|more| *more > 0) {
        say::result(&format!("{name}: and {} more", table::count(more, "block")))?;
    }
    Ok(())
}
