//! The file of a recording: a header of 32 bytes, then 32 bytes for each call, in any order.

use std::{
    fs::{File, OpenOptions},
    io::{self, BufWriter, ErrorKind, Read, Seek, SeekFrom, Write},
    path::Path,
};

use crate::replay::call::{Call, SIZE, lost_in, lost_mark};

/// A writer of a recording, like the one of a [`Recorder`](crate::replay::Recorder).
///
/// It is buffered: [`flush`](Self::flush) passes everything to the system.
#[derive(Debug)]
pub struct RecordingWriter<W: Write = File> {
    file: BufWriter<W>,
}

/// One entry of a recording.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Entry {
    Call(Call),
    Lost(u64),
    Broken,
}

impl RecordingWriter {
    /// Opens a file, and appends to the recording in it. Removes a truncated last entry, which a
    /// crash can leave.
    ///
    /// # Errors
    /// The system fails, or the file holds something else.
    pub fn open(path: impl AsRef<Path>) -> io::Result<Self> {
        let path = path.as_ref();
        let options = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path);
        let mut file = options?;
        let length = file.metadata()?.len();
        if length == 0 {
            return Self::new(file);
        }
        let mut head = [0; SIZE];
        file.read_exact(&mut head).ok();
        if head != HEAD {
            let words = format!("{} is no recording: choose another file", path.display());
            return Err(io::Error::new(ErrorKind::InvalidData, words));
        }
        let whole = length - length % SIZE as u64;
        file.set_len(whole)?;
        file.seek(SeekFrom::Start(whole))?;
        Ok(Self {
            file: BufWriter::new(file),
        })
    }
}

impl<W: Write> RecordingWriter<W> {
    /// Starts a recording.
    ///
    /// # Errors
    /// The writer fails.
    pub fn new(file: W) -> io::Result<Self> {
        let mut file = BufWriter::with_capacity(BUFFER, file);
        file.write_all(&HEAD)?;
        Ok(Self { file })
    }

    /// Appends a call.
    ///
    /// # Errors
    /// The writer fails.
    pub fn write(&mut self, call: &Call) -> io::Result<()> {
        self.file.write_all(&call.to_bytes())
    }

    /// Notes that calls are missing, at a time in nanoseconds since 1970.
    ///
    /// # Errors
    /// The writer fails.
    pub fn write_lost(&mut self, count: u64, at: u64) -> io::Result<()> {
        self.file.write_all(&lost_mark(count, at))
    }

    /// Passes everything that was written to the system.
    ///
    /// # Errors
    /// The writer fails.
    pub fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Returns whether a file begins like a recording.
pub(super) fn is_recording(start: &[u8]) -> bool {
    start.starts_with(&HEAD)
}

/// Reads the next entry after the header.
pub(super) fn next_entry(reader: &mut impl Read) -> io::Result<Option<Entry>> {
    let mut bytes = [0; SIZE];
    let mut filled = 0;
    while filled < SIZE {
        match reader.read(&mut bytes[filled..]) {
            Ok(0) if filled == 0 => return Ok(None),
            Ok(0) => return Ok(Some(Entry::Broken)),
            Ok(read) => filled += read,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Some(match (Call::from_bytes(&bytes), lost_in(&bytes)) {
        (Some(call), _) => Entry::Call(call),
        (None, Some(count)) => Entry::Lost(count),
        (None, None) if bytes == HEAD => return next_entry(reader),
        (None, None) => Entry::Broken,
    }))
}

/// The header: a name, version 1 of the format, and the size of an entry.
pub(super) const HEAD: [u8; SIZE] = *b"tower-keep recording\0\0\0\0\x01\0\0\0\x20\0\0\0";
const BUFFER: usize = 1 << 16;
