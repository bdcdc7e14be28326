//! Takes up the messages of files that were set aside because they belonged to another user.

use std::fs;
use std::path::Path;

use redb::{Database, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition, TableHandle};

use super::{FIRST_KEY, FORMAT, MESSAGES, create_empty};
use crate::util::damaged_files;
use crate::util::database::{self, DatabaseError};
use crate::util::durable_names;
use crate::util::foreign_files;

/// Names of files whose messages are in this file. A name is here only until its file is removed.
const TAKEN_UP: TableDefinition<&str, ()> = TableDefinition::new("taken_up");

/// Takes up all files that were set aside for `path` and can be read. They come before the messages in `database`, each message
/// once, also after a SIGKILL.
///
/// # Errors
/// Of `database`. A file that cannot be read stays where it is; one that is damaged is renamed and counted in `damaged`.
pub(super) fn all(
    path: &Path,
    mut database: Option<Database>,
    damaged: &mut u64,
) -> Result<Option<Database>, DatabaseError> {
    let set_aside = foreign_files::all_set_aside(path);
    if let Some(database) = &database {
        forget_removed(database, path)?;
    }
    // The newest first, because each is put before the others.
    for aside in set_aside.into_iter().rev() {
        let old = match database::open(&aside, FORMAT).and_then(check_messages) {
            Ok(Some(old)) => old,
            Ok(None) => continue,
            Err(error) if error.is_final() => {
                let kept_as = damaged_files::set_aside(&aside).map(|path| path.display().to_string());
                *damaged += 1;
                tracing::error!(
                    path = %aside.display(), %error, ?kept_as,
                    "A spool of another user is damaged; its messages are not delivered"
                );
                continue;
            }
            Err(error) => {
                tracing::error!(
                    path = %aside.display(), %error, advice = foreign_files::ADVICE,
                    "A spool of another user cannot be read; its messages wait"
                );
                continue;
            }
        };
        let target = match database.take() {
            Some(target) => target,
            None => create_empty(path)?,
        };
        let target = database.insert(target);
        let messages = take_up(target, &old, &name(&aside))?;
        drop(old);
        fs::remove_file(&aside).map_err(DatabaseError::Io)?;
        // Else the file could return after a power cut, and its messages be taken up again.
        durable_names::sync_parent(&aside);
        forget_removed(target, path)?;
        tracing::info!(path = %aside.display(), messages, "The messages in a spool of another user are delivered now");
    }
    Ok(database)
}

/// Reads all messages, so that an error in the file of another user is not taken for one of this file.
fn check_messages(database: Option<Database>) -> Result<Option<Database>, DatabaseError> {
    if let Some(database) = &database {
        database::catch_panics(|| {
            let messages = database.begin_read()?.open_table(MESSAGES)?;
            for entry in messages.iter()? {
                entry?;
            }
            Ok(())
        })?;
    }
    Ok(database)
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Copies the messages and notes the name in one commit. Returns their number; 0 if it was done before.
fn take_up(target: &Database, old: &Database, name: &str) -> Result<u64, DatabaseError> {
    let reading = old.begin_read()?;
    let old = reading.open_table(MESSAGES)?;
    let transaction = target.begin_write()?;
    let count = old.len()?;
    {
        let mut taken_up = transaction.open_table(TAKEN_UP)?;
        if taken_up.insert(name, ())?.is_some() {
            return Ok(0);
        }
        let mut messages = transaction.open_table(MESSAGES)?;
        let lowest = messages.first()?.map_or(FIRST_KEY, |(key, _)| key.value());
        let first = if lowest > count {
            lowest - count
        } else {
            // A file of an earlier version has no keys below its messages.
            let last = messages.last()?.map(|(key, _)| key.value());
            let damaged = || DatabaseError::Damaged(format!("key {}", u64::MAX));
            last.map_or(Some(FIRST_KEY), |last| last.checked_add(1))
                .ok_or_else(damaged)?
        };
        for (key, entry) in (first..).zip(old.iter()?) {
            messages.insert(key, entry?.1.value())?;
        }
    }
    transaction.commit()?;
    Ok(count)
}

/// Forgets the names of files that exist no longer beside `path`: another file may get such a name.
fn forget_removed(target: &Database, path: &Path) -> Result<(), DatabaseError> {
    let is_noted = target
        .begin_read()?
        .list_tables()?
        .any(|table| table.name() == TAKEN_UP.name());
    if is_noted {
        let transaction = target.begin_write()?;
        let is_empty = {
            let mut taken_up = transaction.open_table(TAKEN_UP)?;
            taken_up.retain(|name, ()| path.with_file_name(name).exists())?;
            taken_up.is_empty()?
        };
        if is_empty {
            transaction.delete_table(TAKEN_UP)?;
        }
        transaction.commit()?;
    }
    Ok(())
}

/// Puts a file into the state in which a SIGKILL before the removal of `aside` leaves it.
#[cfg(test)]
pub(in crate::uplink::spool) fn note_as_taken_up(path: &Path, aside: &Path) {
    let target = database::open(path, FORMAT).unwrap().unwrap();
    let transaction = target.begin_write().unwrap();
    transaction
        .open_table(TAKEN_UP)
        .unwrap()
        .insert(&*name(aside), ())
        .unwrap();
    transaction.commit().unwrap();
}
