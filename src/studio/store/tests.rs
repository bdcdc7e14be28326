use super::*;
use crate::studio::versions::BadVersion;
use std::io::Write;

fn origin() -> ModelOrigin {
    ModelOrigin {
        studio: "http://studio/v1".into(),
        secret_id: "EI_API_KEY".into(),
        secret_name: "ei_api_key".into(),
        impulse_id: None,
    }
}

fn metadata(version: u64) -> ModelMetadata {
    ModelMetadata {
        project_id: 7,
        project: "Cars & bikes".into(),
        owner: "me".into(),
        impulse_id: 1,
        version,
        variant: "float32".into(),
        target: "runner-linux-x86_64".into(),
        engine: "tflite".into(),
        origin: origin(),
    }
}

fn stored(store: &ModelStore, metadata: &ModelMetadata) -> StoredModel {
    let unfinished = store.new_download().unwrap();
    unfinished.writer().unwrap().write_all(b"model").unwrap();
    store.install(unfinished, metadata, "ab".repeat(32)).unwrap()
}

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<_> = entries(directory)
        .iter()
        .map(|path| path.file_name().unwrap().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

#[test]
fn a_model_is_stored_as_an_executable_below_its_project_and_found_again() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let store = ModelStore::new(dir.path());
    assert!(store.find(&metadata(3)).is_none());
    let model = stored(&store, &metadata(3));
    let expected = "models/Cars---bikes-7/v3-float32-runner-linux-x86_64-tflite-impulse1/model.eim";
    assert_eq!(model.path, dir.path().join(expected));
    assert_eq!(fs::metadata(&model.path).unwrap().permissions().mode() & 0o777, 0o755);
    assert_eq!(store.find(&metadata(3)).unwrap().path, model.path);
    assert!(store.find(&metadata(4)).is_none());
}

#[test]
fn a_model_keeps_its_digest_until_it_is_discarded() {
    let dir = tempfile::tempdir().unwrap();
    let store = ModelStore::new(dir.path());
    stored(&store, &metadata(3));
    // A use rewrites the description.
    let model = store.find(&metadata(3)).unwrap();
    let digest = "ab".repeat(32);
    assert_eq!(model.sha256.as_ref(), Some(&digest));
    assert_eq!(store.named(&model.name()).unwrap().sha256, Some(digest));
    // As an earlier version of this component has written it.
    let about = model.path.with_file_name(ABOUT);
    let text = fs::read_to_string(&about).unwrap();
    fs::write(&about, text.replace("sha256", "other")).unwrap();
    assert_eq!(store.find(&metadata(3)).unwrap().sha256, None);
    store.discard(&model).unwrap();
    assert!(store.find(&metadata(3)).is_none());
}

#[test]
fn a_file_of_another_size_is_not_a_model() {
    let dir = tempfile::tempdir().unwrap();
    let store = ModelStore::new(dir.path());
    let model = stored(&store, &metadata(3));
    fs::write(&model.path, b"mod").unwrap();
    assert!(store.find(&metadata(3)).is_none());
    assert!(store.newest(None).is_none());
}

#[test]
fn the_newest_model_is_the_one_that_the_same_origin_used_last() {
    let dir = tempfile::tempdir().unwrap();
    let store = ModelStore::new(dir.path());
    let newest = |origin: Option<&ModelOrigin>| store.newest(origin).map(|model| model.metadata.version);
    stored(&store, &metadata(3));
    stored(&store, &metadata(4));
    assert_eq!(newest(Some(&origin())), Some(4));
    // Studio went back to version 3.
    store.find(&metadata(3)).unwrap();
    assert_eq!(newest(Some(&origin())), Some(3));
    let other = ModelOrigin {
        secret_id: "other".into(),
        ..origin()
    };
    assert_eq!(newest(Some(&other)), None);
    assert_eq!(newest(None), Some(3));
}

#[test]
fn the_last_two_versions_of_a_project_and_those_in_use_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let store = ModelStore::new(dir.path());
    let running = stored(&store, &metadata(1));
    for version in 2..=5 {
        stored(&store, &metadata(version));
    }
    let other = ModelMetadata {
        project_id: 8,
        ..metadata(1)
    };
    stored(&store, &other);
    store.remove_old_versions(7);
    let version = |n: u64| format!("v{n}-float32-runner-linux-x86_64-tflite-impulse1");
    let project = dir.path().join("models/Cars---bikes-7");
    assert_eq!(names(&project), [version(1), version(4), version(5)]);
    drop(running);
    store.remove_old_versions(7);
    assert_eq!(names(&project), [version(4), version(5)]);
    assert_eq!(names(&dir.path().join("models/Cars---bikes-8")), [version(1)]);
}

#[test]
fn an_abandoned_download_leaves_no_file_and_one_of_a_killed_process_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let store = ModelStore::new(dir.path());
    let (abandoned, running) = (store.new_download().unwrap(), store.new_download().unwrap());
    drop(abandoned);
    fs::write(store.root().join(".download-0123"), b"half").unwrap();
    assert_eq!(names(store.root()).len(), 2);
    store.remove_leftovers();
    assert_eq!(names(store.root()).len(), 1, "the running download stays");
    drop(running);
    assert!(names(store.root()).is_empty());
}

#[test]
fn a_project_name_cannot_lead_out_of_the_directory() {
    for (name, expected) in [
        ("../../etc", "etc"),
        ("", "model"),
        ("...", "model"),
        ("ä/ö", "model"),
        ("a b\nc", "a-b-c"),
        ("v1.2_x", "v1.2_x"),
    ] {
        assert_eq!(path_component(name), expected, "{name:?}");
    }
    assert_eq!(path_component(&"x".repeat(1000)).len(), MAX_NAME);
}

#[test]
fn a_version_that_is_needed_is_kept_and_a_bad_one_is_removed_first() {
    let dir = tempfile::tempdir().unwrap();
    let store = ModelStore::new(dir.path());
    let name = |version| metadata(version).name();
    let begin = |version| {
        store
            .versions()
            .change(&origin(), |versions| versions.begin(&name(version), None))
    };
    for version in 1..=5 {
        let model = stored(&store, &metadata(version));
        assert_eq!(model.name(), name(version));
    }
    begin(1).unwrap();
    begin(2).unwrap();
    let bad = BadVersion {
        model: name(5),
        version: 5,
        reason: "it crashes".into(),
        sha256: None,
    };
    store
        .versions()
        .change(&origin(), |versions| versions.mark_bad(bad))
        .unwrap();
    store.remove_old_versions(7);
    let kept: Vec<_> = (1..=5)
        .filter(|version| store.named(&name(*version)).is_some())
        .collect();
    assert_eq!(kept, [1, 2, 3, 4], "the two in use and the last two that are not bad");
}
