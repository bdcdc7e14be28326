//! The runtime libraries of Renesas' DRP-AI TVM, which models for RZ/V boards are linked against. They are in a
//! directory of their own.

use std::ffi::OsString;
use std::path::Path;

/// The directory in Renesas' Yocto packages.
pub(super) const HOME: &str = "/usr/drpaitvm/tvm";

/// Environment variables for the model if TVM is installed: in `TVM_HOME` if that is set, else in `home`.
///
/// The directories and their order are those of the script-based component, with `home` added.
pub(super) fn variables(home: &Path, variable: &dyn Fn(&str) -> Option<OsString>) -> Vec<(&'static str, OsString)> {
    let home = variable("TVM_HOME").map_or_else(|| home.to_owned(), Into::into);
    if !home.is_dir() {
        return Vec::new();
    }
    let mut directories = vec![home.join("build_runtime"), home.clone(), "/usr/local/lib".into()];
    let others = variable("LD_LIBRARY_PATH").unwrap_or_default();
    // An empty entry would be the current directory.
    directories.extend(std::env::split_paths(&others).filter(|path| !path.as_os_str().is_empty()));
    let mut variables = vec![("TVM_HOME", home.into_os_string())];
    // Fails only for a directory with a colon in its name, which the linker could not find either.
    variables.extend(
        std::env::join_paths(directories)
            .ok()
            .map(|path| ("LD_LIBRARY_PATH", path)),
    );
    variables
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tvm_libraries_come_first_where_tvm_is_installed() {
        let home = tempfile::tempdir().unwrap();
        let libraries = |name: &str| (name == "LD_LIBRARY_PATH").then(|| "/opt/lib:".into());
        let dir = home.path().display();
        let expected = [
            ("TVM_HOME", format!("{dir}").into()),
            (
                "LD_LIBRARY_PATH",
                format!("{dir}/build_runtime:{dir}:/usr/local/lib:/opt/lib").into(),
            ),
        ];
        assert_eq!(variables(home.path(), &libraries), expected);
        let elsewhere = |name: &str| (name == "TVM_HOME").then(|| home.path().into());
        assert_eq!(variables(Path::new("/nowhere"), &elsewhere)[0], expected[0]);
    }

    #[test]
    fn without_tvm_the_library_path_is_unchanged() {
        assert_eq!(variables(Path::new("/nowhere"), &|_| Some("/also/nowhere".into())), []);
    }
}
