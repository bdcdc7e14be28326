//! The link to the binary in `ei_bindir`, for users of the command line.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::machine::Host;
use super::nucleus::COMPONENTS;
use super::report::StepReport;

const NAME: &str = "ei-greengrass";

/// Creates the link, or replaces one to an earlier version of the component. Returns the link if it is there.
pub(super) fn create(machine: &Host, report: &mut StepReport, bin_dir: &str, binary: &Path) -> Option<PathBuf> {
    if !bin_dir.starts_with('/') {
        report.warning(format_args!(
            "ei_bindir '{bin_dir}' is not an absolute path, so no link is made"
        ));
        return None;
    }
    let path = Path::new(bin_dir).join(NAME);
    let at = machine.path(&path);
    let link = path.display();
    match fs::read_link(&at) {
        Ok(target) if target == binary => {
            report.skipped(format_args!("{link}: links here"));
            return Some(at);
        }
        Ok(target) if !is_of_the_component(&target) => {
            report.warning(format_args!(
                "{link} links to {}, which is not ours, and is left alone",
                target.display()
            ));
            return None;
        }
        Err(_) if at.exists() => {
            report.warning(format_args!("{link} exists and is no link of ours; it is left alone"));
            return None;
        }
        _ => {}
    }
    let made = if machine.is_dry_run() {
        Ok(())
    } else {
        replace(&at, binary)
    };
    match made {
        Ok(()) => report.done(format_args!("{link} links to {}", binary.display())),
        Err(error) => {
            report.warning(format_args!(
                "{link} could not be made ({error}); call the binary by its full path"
            ));
            return None;
        }
    }
    Some(at)
}

/// `.../<component>/<version>/ei-greengrass`
fn is_of_the_component(target: &Path) -> bool {
    let component = target.ancestors().nth(2).and_then(Path::file_name);
    target.file_name().is_some_and(|name| name == NAME)
        && component.is_some_and(|name| COMPONENTS.iter().any(|known| name == *known))
}

fn replace(link: &Path, binary: &Path) -> io::Result<()> {
    if let Some(directory) = link.parent() {
        fs::create_dir_all(directory)?;
    }
    let unfinished = link.with_file_name(format!(".{NAME}.{}", std::process::id()));
    symlink(binary, &unfinished)?;
    fs::rename(&unfinished, link).inspect_err(|_| {
        let _ = fs::remove_file(&unfinished);
    })
}
