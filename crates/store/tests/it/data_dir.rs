//! The data directory refuses what would go wrong later.

use greenroom_stdx::secret::Secret;
use greenroom_store::data_dir::{DataDir, DataDirError, ServerInfo, read_server_info};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn a_new_directory_is_private_and_complete() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("deep/data");
    let data_dir = DataDir::open(&path).unwrap();
    assert_eq!(data_dir.path(), path.canonicalize().unwrap());
    for part in [
        path.clone(),
        data_dir.sessions(),
        data_dir.forge(),
        data_dir.sandboxes(),
    ] {
        assert_eq!(mode(&part), 0o700, "{}", part.display());
    }
    data_dir.write_cli_token(&Secret::new("grt_x")).unwrap();
    assert_eq!(mode(&data_dir.cli_token()), 0o600);
    assert_eq!(std::fs::read_to_string(data_dir.cli_token()).unwrap(), "grt_x");
    assert!(data_dir.free_bytes().unwrap() > 0);
}

#[test]
fn a_second_server_is_told_who_the_first_is() {
    let dir = tempfile::tempdir().unwrap();
    let first = DataDir::open(dir.path()).unwrap();
    match DataDir::open(dir.path()) {
        Err(DataDirError::InUse { by: None, .. }) => {}
        other => panic!("{other:?}"),
    }
    let info = ServerInfo {
        pid: 4711,
        url: "http://127.0.0.1:7000".into(),
        started_at_ms: 5,
    };
    first.write_server_info(&info).unwrap();
    assert_eq!(mode(&first.server_json()), 0o600);
    assert_eq!(read_server_info(dir.path()), Some(info.clone()));
    let error = DataDir::open(dir.path()).unwrap_err();
    let problem = error.problem();
    assert_eq!(problem.code, "data_dir_in_use");
    for part in ["4711", "http://127.0.0.1:7000"] {
        assert!(problem.message.contains(part), "{problem:?}");
        assert!(problem.hint.as_ref().unwrap().contains(part), "{problem:?}");
    }

    drop(first);
    let second = DataDir::open(dir.path()).expect("free when the first is gone");
    assert_eq!(
        read_server_info(dir.path()),
        None,
        "what the first said is not true any more"
    );
    second.write_server_info(&info).unwrap();
    second.clear_server_info().unwrap();
    second.clear_server_info().unwrap();
    assert_eq!(read_server_info(dir.path()), None);
}

#[test]
fn places_that_cannot_be_used_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "x").unwrap();
    // Nobody, not even root, can make directories there.
    for (path, code) in [
        (file.as_path(), "data_dir_not_a_directory"),
        (&file.join("below"), "data_dir_not_writable"),
        (Path::new("/proc/greenroom-data"), "data_dir_not_writable"),
    ] {
        let problem = DataDir::open(path).unwrap_err().problem();
        assert_eq!(problem.code, code, "{}", path.display());
        assert!(
            problem.message.contains(&path.display().to_string()),
            "{problem:?}"
        );
        assert!(problem.hint.is_some());
    }
}
