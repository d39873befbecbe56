//! Calls in the order of their starts, in any number: sorted in parts, in files, and merged.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    fs::{self, File},
    io::{self, BufReader, BufWriter, Write},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use crate::replay::{
    call::{Call, SIZE},
    recording::{Entry, next_entry},
};

/// Calls in the order of their starts. Beyond a million they are in temporary files of 32 bytes per
/// call, which are removed with this value.
#[derive(Debug, Default)]
pub struct Calls {
    memory: Vec<Call>,
    runs: Vec<Run>,
    count: u64,
}

/// A sorter that takes calls in any order.
#[derive(Debug)]
pub(super) struct Sorter {
    chunk: Vec<Call>,
    limit: usize,
    folder: PathBuf,
    calls: Calls,
}

/// A sorted file.
#[derive(Debug)]
struct Run(PathBuf);

impl Calls {
    /// Returns the number of calls.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Visits all calls, in the order of their starts.
    ///
    /// # Errors
    /// Temporary files fail.
    pub fn each(&self, visit: &mut dyn FnMut(&Call)) -> io::Result<()> {
        if self.runs.is_empty() {
            self.memory.iter().for_each(visit);
            return Ok(());
        }
        let mut readers = Vec::new();
        let mut heads = BinaryHeap::new();
        for (number, run) in self.runs.iter().enumerate() {
            let mut reader = BufReader::with_capacity(BUFFER, File::open(&run.0)?);
            if let Some(call) = next_call(&mut reader)? {
                heads.push(Reverse((call.start, number)));
                readers.push((reader, call));
            }
        }
        while let Some(Reverse((_, number))) = heads.pop() {
            let (reader, call) = &mut readers[number];
            visit(call);
            if let Some(next) = next_call(reader)? {
                *call = next;
                heads.push(Reverse((next.start, number)));
            }
        }
        Ok(())
    }

    /// Returns each call with its time from the first one. A drill sends the recorded traffic if
    /// its `Recorded::at` gets these times. Over HTTP a call is not a request: the closure of
    /// `traffic` makes one, as the [guide](crate::guide::what_if) shows.
    ///
    /// # Errors
    /// Temporary files fail.
    pub fn moments(&self) -> io::Result<Vec<(std::time::Duration, Call)>> {
        let (mut moments, mut first) = (Vec::new(), None);
        self.each(&mut |call| {
            let first = *first.get_or_insert(call.start);
            moments.push((std::time::Duration::from_nanos(call.start - first), *call));
        })?;
        Ok(moments)
    }
}

impl FromIterator<Call> for Calls {
    fn from_iter<T: IntoIterator<Item = Call>>(calls: T) -> Self {
        let mut memory: Vec<_> = calls.into_iter().collect();
        memory.sort_by_key(|call| call.start);
        let count = memory.len() as u64;
        let runs = Vec::new();
        Self {
            memory,
            runs,
            count,
        }
    }
}

impl Sorter {
    /// Makes one that keeps `limit` calls in memory, and the others in this folder.
    pub(super) fn new(limit: usize, folder: &Path) -> Self {
        Self {
            chunk: Vec::new(),
            limit: limit.max(1),
            folder: folder.to_owned(),
            calls: Calls::default(),
        }
    }

    pub(super) fn push(&mut self, call: Call) -> io::Result<()> {
        if self.chunk.len() >= self.limit {
            self.spill()?;
        }
        self.chunk.push(call);
        self.calls.count += 1;
        Ok(())
    }

    pub(super) fn finish(mut self) -> io::Result<Calls> {
        if self.calls.runs.is_empty() {
            self.chunk.sort_by_key(|call| call.start);
            self.calls.memory = self.chunk;
        } else {
            self.spill()?;
        }
        Ok(self.calls)
    }

    fn spill(&mut self) -> io::Result<()> {
        self.chunk.sort_by_key(|call| call.start);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("tower-keep-replay-{}-{number}", std::process::id());
        let path = self.folder.join(name);
        let file = File::options().write(true).create_new(true).open(&path)?;
        self.calls.runs.push(Run(path));
        let mut file = BufWriter::with_capacity(BUFFER, file);
        for call in self.chunk.drain(..) {
            file.write_all(&call.to_bytes())?;
        }
        file.flush()
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        // A file that cannot be removed now is left to the system's cleaning.
        fs::remove_file(&self.0).ok();
    }
}

fn next_call(reader: &mut BufReader<File>) -> io::Result<Option<Call>> {
    match next_entry(reader)? {
        Some(Entry::Call(call)) => Ok(Some(call)),
        None => Ok(None),
        Some(_) => Err(io::Error::other("a temporary file was changed")),
    }
}

/// Relaxed: only the number matters.
static NUMBER: AtomicU64 = AtomicU64::new(0);
const BUFFER: usize = SIZE << 11;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn files_are_merged_as_memory_is_sorted(
            starts in prop::collection::vec(0u64..1000, 0..200), limit in 1usize..50,
        ) {
            let calls = starts.iter().map(|start| Call::new(*start, 1));
            let mut sorter = Sorter::new(limit, &std::env::temp_dir());
            for call in calls.clone() {
                sorter.push(call).unwrap();
            }
            let (merged, sorted) = (sorter.finish().unwrap(), calls.collect::<Calls>());
            prop_assert_eq!(merged.count(), starts.len() as u64);
            prop_assert_eq!(merged.moments().unwrap(), sorted.moments().unwrap());
            let paths: Vec<_> = merged.runs.iter().map(|run| run.0.clone()).collect();
            drop(merged);
            prop_assert!(paths.iter().all(|path| !path.exists()));
        }
    }
}
