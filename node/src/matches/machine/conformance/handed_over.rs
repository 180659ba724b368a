//! A match goes on in a new process: the image of its guest and the host's part are all that it takes along, and a thousand events
//! later it has said the same and has the same bits in memory as the one that stayed.

use std::process::Command;

use super::super::RingIn;
use super::{
    Applied, COMMITTED, Candidate, HostPart, Match, Path, PathBuf, Play, Stage, Told, candidate, candidates, check,
    random_events, random_script, read,
};
use crate::wasm::Image;
use crate::wasm::module::digest_of;

/// Names the directory in which another process left a match.
const HANDED_OVER: &str = "ROOKERY_CONFORMANCE_MATCH";
/// What the directory holds; the last one is the answer.
const COMPONENT: &str = "component.wasm";
const IMAGE: &str = "image";
const PART: &str = "part";
const REST: &str = "script";
const PLAYED: &str = "played";

#[test]
fn a_match_goes_on_in_a_new_process_as_if_nothing_had_happened() {
    for (index, candidate) in candidates().iter().enumerate() {
        let Candidate { language, module, .. } = candidate;
        // What cannot be captured goes on by `save` and `load`, which another test shows. The committed ones can.
        if let Err(reason) = module.captures() {
            assert!(index >= COMMITTED.len(), "{language}: {reason}");
            println!("{language} goes on by save and load alone: {reason}");
            continue;
        }
        println!("{language} goes on by its image");
        let mut play = Play::of(module, module);
        play.run(&random_script(11, 300));
        play.run("> say ~0 keep a line that outlives its process\n> say ~0 grow 300000\n");
        let rest = random_events(12, 1_000);
        let dir = tempfile::tempdir().unwrap();
        hand_over(candidate, &mut play, &rest, dir.path());
        let module = module_path!().split_once("::").unwrap().1;
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", &format!("{module}::the_new_process"), "--nocapture"])
            .env(HANDED_OVER, dir.path())
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{language}: {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        let played = String::from_utf8(read(&dir.path().join(PLAYED))).unwrap();
        check(language, &played, &play.rest(&rest));
    }
}

fn hand_over(candidate: &Candidate, play: &mut Play<'_>, rest: &str, dir: &Path) {
    let game = &mut play.stage().game;
    let image = game.image(None).unwrap();
    for (file, bytes) in [
        (COMPONENT, candidate.component.clone()),
        (IMAGE, image.encode()),
        (PART, game.encode_part(RingIn::Encoding).to_vec()),
        (REST, rest.as_bytes().to_vec()),
    ] {
        std::fs::write(dir.join(file), bytes).unwrap();
    }
}

/// The other half of the test above, in a process of its own; run without a match that was handed over there is nothing to do.
#[test]
fn the_new_process() {
    let Some(dir) = std::env::var_os(HANDED_OVER).map(PathBuf::from) else {
        return;
    };
    let left = |file: &str| read(&dir.join(file));
    let Candidate { module, .. } = candidate(left(COMPONENT));
    let part = HostPart::decode(&left(PART)).unwrap();
    let image = Image::decode(&left(IMAGE)).unwrap();
    let mut play = Play::of(&module, &module);
    play.told = Told::of(&part);
    play.stage = Some(Stage {
        now_ms: part.now_ms,
        game: Match::from_image(&module, part, &image).unwrap(),
        last: Applied::default(),
    });
    let played = play.rest(&String::from_utf8(left(REST)).unwrap());
    std::fs::write(dir.join(PLAYED), played).unwrap();
}

impl Play<'_> {
    /// Plays on, and says what comes of it and what the match is then: the hashes of its image and of the host's part.
    fn rest(&mut self, script: &str) -> String {
        self.transcript.clear();
        self.run(script);
        let game = &mut self.stage().game;
        let image = game.image(None).unwrap().hash();
        let part = digest_of(&game.encode_part(RingIn::Encoding));
        format!("{}image {image}\npart {part}\n", self.transcript)
    }
}
