//! What a process writes, line by line.

use std::io::{BufRead, BufReader, Read};
use std::sync::{Arc, Mutex};

/// The lines of one stream so far. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Lines(Arc<Mutex<Vec<String>>>);

impl Lines {
    /// Collects until the other end closes, which it does when the process ends.
    pub fn collect(&self, from: impl Read + Send + 'static) {
        let lines = Arc::clone(&self.0);
        each_line(from, move |line| {
            lines.lock().expect("no thread panics holding it").push(line);
        });
    }

    pub fn find_map<T>(&self, look: impl Fn(&str) -> Option<T>) -> Option<T> {
        self.0
            .lock()
            .expect("no thread panics holding it")
            .iter()
            .find_map(|line| look(line))
    }

    pub fn text(&self) -> String {
        self.0.lock().expect("no thread panics holding it").join("\n")
    }

    /// Prints the last lines, each behind a name.
    pub fn print_last(&self, count: usize, name: &str) {
        let lines = self.0.lock().expect("no thread panics holding it");
        for line in lines.iter().skip(lines.len().saturating_sub(count)) {
            eprintln!("{name} | {line}");
        }
    }
}

/// Calls with each line in turn, in a thread of its own, until the other end closes.
pub(crate) fn each_line(from: impl Read + Send + 'static, mut take: impl FnMut(String) + Send + 'static) {
    std::thread::spawn(move || {
        let mut from = BufReader::new(from);
        let mut line = Vec::new();
        while from.read_until(b'\n', &mut line).is_ok_and(|len| len > 0) {
            take(String::from_utf8_lossy(&line).trim_end().to_owned());
            line.clear();
        }
    });
}
