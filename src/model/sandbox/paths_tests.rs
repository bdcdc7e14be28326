use super::*;

/// A root with these files, and a model in `/models`.
fn root(files: &[&str]) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for file in files.iter().chain(&["/models/model.eim", "/dev/null"]) {
        let path = root.path().join(&file[1..]);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "").unwrap();
    }
    root
}

fn granted(root: &Path, kind: &ProgramKind, hidden: &[&str], variables: &[(&str, PathBuf)]) -> Vec<(String, Access)> {
    let hidden: Vec<_> = hidden.iter().map(|path| root.join(&path[1..])).collect();
    let variables: Vec<_> = variables
        .iter()
        .map(|(name, value)| ((*name).into(), value.into()))
        .collect();
    let (program, cache, socket_dir) = (root.join("models/model.eim"), root.join("cache"), root.join("run"));
    let confined = Confined {
        program: &program,
        kind,
        socket_dir: &socket_dir,
        cache: &cache,
        hidden: &hidden,
    };
    let relative = |grant: Grant| {
        let path = grant
            .path
            .strip_prefix(root)
            .map_or(grant.path.clone(), |path| Path::new("/").join(path));
        (path.display().to_string(), grant.access)
    };
    grants(&confined, &[], &variables, root)
        .into_iter()
        .map(relative)
        .collect()
}

const NATIVE: ProgramKind = ProgramKind::Native { loader: None };

#[test]
fn a_model_gets_the_nodes_of_accelerators_and_no_cameras_microphones_or_disks() {
    let nodes = [
        "/dev/dri/card0",
        "/dev/nvhost-ctrl",
        "/dev/drpai0",
        "/dev/akida0",
        "/dev/adsprpc-smd",
        "/dev/video10",
    ];
    let others = [
        "/dev/video0",
        "/dev/snd/pcmC0D0c",
        "/dev/sda",
        "/dev/mem",
        "/dev/nvme0n1",
        "/dev/nvram",
    ];
    let root = root(&[nodes, others].concat());
    for (video, name) in [("video0", "HD Pro Webcam C920"), ("video10", "bcm2835-codec-decode")] {
        let class = root.path().join("sys/class/video4linux").join(video);
        fs::create_dir_all(&class).unwrap();
        fs::write(class.join("name"), name).unwrap();
    }
    let granted = granted(root.path(), &NATIVE, &[], &[]);
    let devices: Vec<_> = granted.iter().filter(|(_, access)| *access == Access::Device).collect();
    for node in nodes {
        let is_granted = |(path, _): &&(String, Access)| node.starts_with(path.as_str());
        assert!(devices.iter().any(is_granted), "{node}");
    }
    for node in others {
        assert!(
            !devices.iter().any(|(path, _)| node.starts_with(path.as_str())),
            "{node}"
        );
    }
}

#[test]
fn only_models_of_accelerators_that_unpack_there_get_tmp() {
    let has_tmp =
        |files: &[&str]| granted(root(files).path(), &NATIVE, &[], &[]).contains(&("/tmp".into(), Access::Unpack));
    assert!(!has_tmp(&["/tmp/x", "/dev/dri/card0"]));
    assert!(has_tmp(&["/tmp/x", "/dev/akida0"]));
}

#[test]
fn what_is_hidden_is_left_out_of_the_directories_around_it() {
    let root = root(&[
        "/opt/greengrass/work/spool",
        "/opt/greengrass/lib/a",
        "/opt/vendor/b",
        "/usr/lib/c",
    ]);
    let granted = granted(root.path(), &NATIVE, &["/opt/greengrass/work"], &[]);
    let read: Vec<_> = granted
        .iter()
        .filter(|(_, access)| *access == Access::Read)
        .map(|(path, _)| path)
        .collect();
    for path in ["/opt/greengrass/lib", "/opt/vendor", "/usr"] {
        assert!(read.iter().any(|read| *read == path), "{path}");
    }
    assert!(
        !read
            .iter()
            .any(|read| "/opt/greengrass/work".starts_with(read.as_str())),
        "{read:?}"
    );
}

#[test]
fn directories_in_the_variables_of_accelerators_can_be_read_and_no_others() {
    let root = root(&["/data/tvm/lib", "/data/qnn/lib", "/data/home/file", "/data/work/file"]);
    let at = |path: &str| root.path().join(path);
    let both = format!("{}:{}", at("data/tvm").display(), at("data").display());
    let variables = [
        ("LD_LIBRARY_PATH", both.into()),
        (
            "ADSP_LIBRARY_PATH",
            format!("{};relative", at("data/qnn").display()).into(),
        ),
        ("HOME", at("data/home")),
    ];
    let granted = granted(root.path(), &NATIVE, &["/data/work"], &variables);
    let has = |path: &str| granted.contains(&(path.to_owned(), Access::Read));
    assert!(has("/data/tvm") && has("/data/qnn"));
    assert!(!has("/data") && !has("/data/home"));
}

#[test]
fn a_program_executes_itself_and_its_loader_and_a_script_also_the_programs_beside_it() {
    let root = root(&[
        "/models/model.eim.json",
        "/models/other",
        "/models/tool",
        "/usr/bin/env",
        "/lib/ld.so",
    ]);
    fs::set_permissions(root.path().join("models/tool"), fs::Permissions::from_mode(0o755)).unwrap();
    let loader = ProgramKind::Native {
        loader: Some("/lib/ld.so".into()),
    };
    let executed = |kind: &ProgramKind| -> Vec<String> {
        let granted = granted(root.path(), kind, &[], &[]);
        let mut paths: Vec<_> = granted
            .into_iter()
            .filter(|(_, access)| *access == Access::Execute)
            .map(|(path, _)| path)
            .collect();
        paths.sort();
        paths
    };
    assert_eq!(executed(&loader), ["/lib/ld.so", "/models/model.eim"]);
    assert_eq!(
        executed(&ProgramKind::Script),
        ["/lib", "/models/model.eim", "/models/tool", "/usr/bin"]
    );
    let granted = granted(root.path(), &loader, &[], &[]);
    assert!(granted.contains(&("/models/model.eim.json".into(), Access::Read)));
    assert!(
        !granted
            .iter()
            .any(|(path, _)| path == "/models/other" || path == "/models")
    );
}
