//! Tables of patches against texts, and a search for patches that change more than they name.

use super::apply::apply;
use super::parse;
use super::patch::Action;

/// The text of the one updated file after the patch, or why not.
fn patched(text: &str, patch: &str) -> Result<String, String> {
    let files = parse(patch).map_err(|error| error.to_string())?;
    let [file] = files.as_slice() else {
        return Err(format!("{} files", files.len()));
    };
    match &file.action {
        Action::Update { hunks, .. } | Action::Delete { hunks } => {
            apply(text, hunks).map_err(|error| error.to_string())
        }
        Action::Add { content, .. } => Ok(content.clone()),
    }
}

#[track_caller]
fn check(text: &str, patch: &str, expected: Result<&str, &str>) {
    match (patched(text, patch), expected) {
        (Ok(text), Ok(expected)) => assert_eq!(text, expected),
        (Err(error), Err(part)) => assert!(error.contains(part), "{error}"),
        (result, expected) => panic!("{result:?} instead of {expected:?}"),
    }
}

/// Hunks of `f` in both notations' common form.
fn update(hunks: &str) -> String {
    format!("*** Begin Patch\n*** Update File: f\n{hunks}*** End Patch\n")
}

fn diff(hunks: &str) -> String {
    format!("--- a/f\n+++ b/f\n{hunks}")
}

#[track_caller]
fn check_files(patch: &str, expected: Result<&[&str], &str>) {
    let shown = parse(patch).map(|files| {
        files
            .iter()
            .map(|file| match &file.action {
                Action::Add {
                    content,
                    is_executable,
                } => {
                    let mode = if *is_executable { "*" } else { "" };
                    format!("+{}{mode} {content:?}", file.path)
                }
                Action::Delete { .. } => format!("-{}", file.path),
                Action::Update {
                    move_to: Some(to),
                    hunks,
                } => format!("{}>{to} {}", file.path, hunks.len()),
                Action::Update { move_to: None, hunks } => format!("~{} {}", file.path, hunks.len()),
            })
            .collect::<Vec<_>>()
    });
    match (shown, expected) {
        (Ok(files), Ok(expected)) => assert_eq!(files, expected),
        (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
        (result, expected) => panic!("{result:?} instead of {expected:?}"),
    }
}

#[test]
fn envelopes_name_their_files() {
    check_files(
        "*** Begin Patch\n*** Add File: new/a\n+1\n+\n+2\n*** Delete File: b\n*** Update File: ./c\n*** Move to: /workspace/d\n@@\n-x\n+y\n@@\n z\n+w\n*** Update File: e\n*** Move to: g\n*** End Patch",
        Ok(&["+new/a \"1\\n\\n2\\n\"", "-b", "c>d 2", "e>g 0"]),
    );
    check_files(
        "\n*** Begin Patch\n*** Add File: a\n*** End Patch\n\n",
        Ok(&["+a \"\""]),
    );
    check_files(
        "*** Begin Patch\r\n*** Add File: a\r\n+x\r\n*** End Patch\r\n",
        Ok(&["+a \"x\\n\""]),
    );
    for (patch, expected) in [
        ("", "the patch is empty"),
        (" \n\n", "the patch is empty"),
        ("*** Begin Patch\n*** End Patch", "the patch is empty"),
        ("hello", "this is no patch"),
        ("@@ -1 +1 @@\n-a\n+b", "this is no patch"),
        (
            "*** Begin Patch\n*** Add File: a\n+x",
            "`*** End Patch` is missing",
        ),
        (
            "*** Begin Patch\n*** Add File: a\nx\n*** End Patch",
            "patch line 3: every line",
        ),
        (
            "*** Begin Patch\n*** Rename File: a\n*** End Patch",
            "patch line 2: expected",
        ),
        (
            "*** Begin Patch\n*** Update File: a\n*** End Patch",
            "at least one hunk",
        ),
        (
            "*** Begin Patch\n*** Update File: a\n@@ x\n*** End Patch",
            "the hunk is empty",
        ),
        (
            "*** Begin Patch\n*** Update File: a\n@@\nwhat\n*** End Patch",
            "patch line 4: a line of a hunk",
        ),
        (
            "*** Begin Patch\n*** Add File: a\n+x\n*** End Patch\nmore",
            "nothing may follow",
        ),
        ("*** Begin Patch\n*** Delete File: ../a\n*** End Patch", "`..`"),
        (
            "*** Begin Patch\n*** Delete File: /etc/passwd\n*** End Patch",
            "outside the workspace",
        ),
        (
            "*** Begin Patch\n*** Update File: a\n*** Move to: /b\n*** End Patch",
            "outside the workspace",
        ),
        (
            "*** Begin Patch\n*** Delete File:\n*** End Patch",
            "names no file",
        ),
        (
            "*** Begin Patch\n*** Delete File: a\n*** Add File: ./a\n*** End Patch",
            "named twice",
        ),
        (
            "*** Begin Patch\n*** Delete File: a\n*** Update File: b\n*** Move to: a\n*** End Patch",
            "named twice",
        ),
    ] {
        check_files(patch, Err(expected));
    }
}

#[test]
fn diffs_name_their_files() {
    check_files(
        "From 1234\nSubject: x\n\ndiff --git a/n b/n\nnew file mode 100755\nindex 0..1\n--- /dev/null\n+++ b/n\n@@ -0,0 +1,2 @@\n+1\n+2\n\\ No newline at end of file\ndiff --git a/o b/o\ndeleted file mode 100644\n--- a/o\n+++ /dev/null\n@@ -1 +0,0 @@\n-x\ndiff --git a/p b/q\nsimilarity index 90%\nrename from p\nrename to q\n--- a/p\n+++ b/q\n@@ -1 +1 @@\n-x\n+y\ndiff --git a/r b/s\nsimilarity index 100%\nrename from r\nrename to s\n-- \n2.50\n",
        Ok(&["+n* \"1\\n2\"", "-o", "p>q 1", "r>s 0"]),
    );
    check_files(
        "diff --git a/n b/n\nnew file mode 100755\nindex 0..1\n--- /dev/null\n+++ b/n\n@@ -0,0 +1,2 @@\n+1\n+2\n\\ No newline at end of file\ndiff --git a/o b/o\ndeleted file mode 100644\n--- a/o\n+++ /dev/null\n@@ -1 +0,0 @@\n-x\ndiff --git a/r b/s\nsimilarity index 100%\nrename from r\nrename to s\ndiff --git a/e b/e\nnew file mode 100644\nindex 0..0\ndiff --git a/p b/q\nrename from p\nrename to q\n--- a/p\n+++ b/q\n@@ -1 +1 @@\n-x\n+y\n-- \n2.50\n",
        Ok(&["+n* \"1\\n2\"", "-o", "r>s 0", "+e \"\"", "p>q 1"]),
    );
    check_files(
        "--- f\t2026-01-01\n+++ f\t2026-01-02\n@@ -1 +1 @@\n-a\n+b\n",
        Ok(&["~f 1"]),
    );
    check_files(
        "--- \"a/\\303\\251\\t\"\n+++ \"b/\\303\\251\\t\"\n@@ -1 +1 @@\n-a\n+b\n",
        Ok(&["~é\t 1"]),
    );
    check_files(
        "--- a/f\n+++ b/f\n@@ -1 +1 @@\n-a\n+b\n--- a/g\n+++ b/g\n@@ -1 +1 @@\n-a\n+b\n",
        Ok(&["~f 1", "~g 1"]),
    );
    // Numbers that ask for too much do not swallow the next file.
    check_files(
        "--- a/f\n+++ b/f\n@@ -1,9 +1,9 @@\n-a\n+b\n--- a/g\n+++ b/g\n@@ -1 +1 @@\n-a\n+b\n",
        Ok(&["~f 1", "~g 1"]),
    );
    for (patch, expected) in [
        ("--- a/f\n", "must be followed by"),
        ("--- a/f\n+++ b/f\n", "no `@@` hunk"),
        ("--- a/f\n+++ b/g\n@@ -1 +1 @@\n-a\n+b\n", "differ; to move"),
        ("--- a/f\n+++ b/f\n@@ foo\n-a\n+b\n", "is no hunk header"),
        ("--- a/f\n+++ b/f\n@@ -1 +1 @@\n", "the hunk is empty"),
        (
            "--- a/f\n+++ b/f\n@@ -1 +1 @@\n-a\n+b\ngarbage\n",
            "patch line 6: expected",
        ),
        ("--- a/../f\n+++ b/../f\n@@ -1 +1 @@\n-a\n+b\n", "`..`"),
        (
            "--- /dev/null\n+++ /dev/null\n@@ -1 +1 @@\n-a\n+b\n",
            "both sides",
        ),
        ("diff --git a/f b/f\nold mode 100644\nnew mode 100755\n", "chmod"),
        (
            "diff --git a/f b/f\nindex 1..2\nBinary files a/f and b/f differ\n",
            "binary files",
        ),
        ("diff --git a/f b/g\ncopy from f\ncopy to g\n", "cp"),
        (
            "diff --git a/f b/f\nnew file mode 120000\n--- /dev/null\n+++ b/f\n@@ -0,0 +1 @@\n+x\n",
            "ln -s",
        ),
        (
            "--- /dev/null\n+++ b/f\n@@ -1 +1,2 @@\n a\n+b\n",
            "must start with `+`",
        ),
    ] {
        check_files(patch, Err(expected));
    }
}

#[test]
fn hunks_find_their_place() {
    check(
        "a\nb\nc\n",
        &update("@@\n a\n-b\n+x\n+y\n c\n"),
        Ok("a\nx\ny\nc\n"),
    );
    check("a\nb\nc\n", &update("-b\n"), Ok("a\nc\n"));
    check(
        "1\n2\n3\n4\n5\n",
        &update("@@\n-1\n@@\n 4\n+x\n 5\n"),
        Ok("2\n3\n4\nx\n5\n"),
    );
    // Hunks may share context, but not changes.
    check(
        "1\n2\n3\n",
        &update("@@\n-1\n+a\n 2\n@@\n 2\n-3\n+b\n"),
        Ok("a\n2\nb\n"),
    );
    check(
        "1\n2\n3\n",
        &update("@@\n-2\n+a\n@@\n 1\n-2\n+b\n"),
        Err("order of the file"),
    );
    check(
        "1\n2\n3\n",
        &update("@@\n-3\n@@\n-1\n"),
        Err("hunk 2 (patch line 5)"),
    );
    // Order alone can tell places apart.
    check(
        "x\n1\nx\n",
        &update("@@\n-x\n+a\n@@\n 1\n-x\n+b\n"),
        Ok("a\n1\nb\n"),
    );
    check("x\nx\n", &update("@@\n-x\n+a\n@@\n-x\n+b\n"), Ok("a\nb\n"));
    check(
        "x\nx\nx\n",
        &update("@@\n-x\n+a\n@@\n-x\n+b\n"),
        Err("several places, from lines 1, 2, 3"),
    );
    let two = "class A\n  def f\n    x\nclass B\n  def f\n    x\n";
    check(
        two,
        &update("@@\n-    x\n+    y\n"),
        Err("several places, from lines 3, 6"),
    );
    check(two, &update("@@ def f\n-    x\n+    y\n"), Err("several places"));
    check(
        two,
        &update("@@ class B\n-    x\n+    y\n"),
        Ok("class A\n  def f\n    x\nclass B\n  def f\n    y\n"),
    );
    check(
        two,
        &update("@@ class A\n@@   def f\n-    x\n+    y\n"),
        Ok("class A\n  def f\n    y\nclass B\n  def f\n    x\n"),
    );
    check(
        two,
        &update("@@ class C\n-    x\n+    y\n"),
        Err("no line `class C`"),
    );
    check(
        two,
        &update("-    x\n+    y\n*** End of File\n"),
        Ok("class A\n  def f\n    x\nclass B\n  def f\n    y\n"),
    );
    check(
        two,
        &diff("@@ -3 +3 @@\n-    x\n+    y\n"),
        Ok("class A\n  def f\n    y\nclass B\n  def f\n    x\n"),
    );
    check(two, &diff("@@ -4 +4 @@\n-    x\n+    y\n"), Err("several places"));
    check(
        "a\nb\n",
        &diff("@@ -40,2 +40,2 @@ fn f()\n a\n-b\n+c\n"),
        Ok("a\nc\n"),
    );
    check(
        "-- a\n++ b\nc\n",
        &diff("@@ -1,3 +1,2 @@\n--- a\n ++ b\n c\n"),
        Ok("++ b\nc\n"),
    );
}

#[test]
fn hunks_that_do_not_fit_say_why() {
    check(
        "a\nb\n",
        &update("@@\n a\n-c\n"),
        Err(
            "It wants:\n a\n-c\nThe nearest lines of the file, from line 1:\n     1\ta\n     2\tb  [differs]",
        ),
    );
    check(
        "a\n",
        &update("@@\n a\n-c\n"),
        Err("     1\ta\n[end of the file]"),
    );
    check(
        "a\n",
        &update("@@\n-z\n"),
        Err("No line of it is in the file; read the file again"),
    );
    check("", &update("@@\n-z\n"), Err("The file is empty"));
    check(
        "a\nb\n",
        &update("@@\n-a\n*** End of File\n"),
        Err("the file goes on"),
    );
    check("  a\n", &update("@@\n-a\n"), Err("     1\t  a  [differs]"));
    check("a\n", &update("@@\n+b\n"), Err("has no context"));
    check("a\n", &diff("@@ -1,0 +2 @@\n+b\n"), Err("has no context"));
    check("a\n", &update("@@\n a\n"), Err("changes nothing"));
    check("a\r\n", &diff("@@ -1 +1 @@\n-a\r\n+a\n"), Err("changes nothing"));
}

#[test]
fn endings_marks_and_spaces_stay() {
    check(
        "a\r\nb\r\n",
        &update("@@\n a\n-b\n+c\n+d\n"),
        Ok("a\r\nc\r\nd\r\n"),
    );
    check(
        "a\r\nb\r\n",
        &diff("@@ -1,2 +1,2 @@\r\n a\r\n-b\r\n+c\r\n"),
        Ok("a\r\nc\r\n"),
    );
    check("\u{feff}a\nb\n", &update("@@\n-a\n+x\n"), Ok("\u{feff}x\nb\n"));
    check("a\nb", &update("@@\n-b\n+c\n"), Ok("a\nc"));
    check("a\nb", &update("@@\n b\n+c\n"), Ok("a\nb\nc"));
    check("a\nb", &update("@@\n-b\n"), Ok("a"));
    check("a\n", &update("@@\n-a\n"), Ok(""));
    check("a\nb", &update("+c\n*** End of File\n"), Ok("a\nb\nc"));
    check("", &update("@@\n+c\n"), Ok("c\n"));
    check(
        "a\nb",
        &diff("@@ -2 +2 @@\n-b\n\\ No newline at end of file\n+b\n"),
        Ok("a\nb\n"),
    );
    check(
        "a\nb\n",
        &diff("@@ -2 +2 @@\n-b\n+b\n\\ No newline at end of file\n"),
        Ok("a\nb"),
    );
    check(
        "a\nb",
        &diff("@@ -1,2 +1,2 @@\n-a\n+x\n b\n\\ No newline at end of file\n"),
        Ok("x\nb"),
    );
    // Trailing spaces may differ, and context keeps the file's; nothing else may.
    check("a  \nb\n", &update("@@\n a\n-b \n+c\n"), Ok("a  \nc\n"));
    check("a\n\nb\n", &update("@@\n a\n\n-b\n+c\n"), Ok("a\n\nc\n"));
    check("a\n a\n", &update("@@\n-a\n"), Ok(" a\n"));
    check("a \na\n", &update("@@\n-a\n"), Ok("a \n"));
    check("\tb\n", &update("@@\n-    b\n"), Err("does not match"));
    // A blank line in front of the next section is layout.
    check("a\nb\n", &update("@@\n-a\n+x\n\n"), Ok("x\nb\n"));
}

/// A small generator with a fixed seed (Marsaglia's xorshift), so that a failure comes again.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }
}

#[test]
fn diffs_of_any_two_texts_lead_from_one_to_the_other() {
    let mut numbers = Numbers(0x9E37_79B9_7F4A_7C15);
    let mut fitted = 0;
    for _ in 0..4000 {
        let text = |numbers: &mut Numbers| -> String {
            let count = numbers.below(12);
            let mut text: String = (0..count)
                .map(|_| format!("{}\n", ["a", "b", "c", "", "-- x"][numbers.below(5)]))
                .collect();
            if numbers.below(3) == 0 {
                text.pop();
            }
            text
        };
        let (old, new) = (text(&mut numbers), text(&mut numbers));
        if old == new || old.is_empty() || new.is_empty() {
            continue;
        }
        let shown = similar::TextDiff::from_lines(old.as_str(), new.as_str())
            .unified_diff()
            .context_radius(numbers.below(3) + 1)
            .header("a/f", "b/f")
            .to_string();
        assert_eq!(
            patched(&old, &shown).as_deref(),
            Ok(new.as_str()),
            "{old:?}\n{shown}"
        );
        fitted += 1;
    }
    assert!(fitted > 2000, "{fitted}");
}

#[test]
fn only_named_lines_change() {
    let mut numbers = Numbers(0x2545_F491_4F6C_DD1D);
    let (mut fitted, mut refused) = (0, 0);
    for _ in 0..4000 {
        let words = ["a", "b", "c", "a ", "d\r"];
        let lines: Vec<&str> = (0..numbers.below(10) + 1)
            .map(|_| words[numbers.below(5)])
            .collect();
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        // One hunk: a line before, a line that goes, one that comes. It may fit nowhere, once or often.
        let (before, gone) = (
            ["a", "b", "c"][numbers.below(3)],
            ["a", "b", "d"][numbers.below(3)],
        );
        let bare: Vec<&str> = lines.iter().map(|line| line.trim_end_matches('\r')).collect();
        let places = |is_equal: fn(&str, &str) -> bool| -> Vec<usize> {
            (1..bare.len())
                .filter(|at| is_equal(bare[at - 1], before) && is_equal(bare[*at], gone))
                .collect()
        };
        let mut places_found = places(|line, old| line == old);
        if places_found.is_empty() {
            places_found = places(|line, old| line.trim_end() == old);
        }
        let result = patched(&text, &update(&format!("@@\n {before}\n-{gone}\n+NEW\n")));
        match places_found.as_slice() {
            [at] => {
                let changed = result.unwrap();
                let after: Vec<&str> = changed.split_inclusive('\n').collect();
                let former: Vec<&str> = text.split_inclusive('\n').collect();
                assert_eq!(after.len(), former.len());
                for (index, (after, former)) in after.iter().zip(&former).enumerate() {
                    if index == *at {
                        assert_eq!(after.trim_end(), "NEW");
                    } else {
                        assert_eq!(after, former, "line {index} of {text:?}");
                    }
                }
                fitted += 1;
            }
            _ => {
                assert!(result.is_err(), "{text:?}: {result:?}");
                refused += 1;
            }
        }
    }
    assert!(fitted > 300 && refused > 300, "{fitted} {refused}");
}
