//! A file whose reading moves a progress bar and ends at a signal.

use std::fs::File;
use std::io::{self, BufReader, Read};

use crate::cancel::Interrupt;
use crate::progress::Bar;

#[derive(Debug)]
pub(crate) struct Watched {
    file: BufReader<File>,
    interrupt: Interrupt,
    bar: Bar,
}

impl Watched {
    pub(crate) fn new(file: File, interrupt: Interrupt, bar: Bar) -> Self {
        Self { file: BufReader::with_capacity(256 << 10, file), interrupt, bar }
    }
}

impl Read for Watched {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.interrupt.check().map_err(|_| io::Error::other("cancelled"))?;
        let count = self.file.read(buffer)?;
        self.bar.add(count as u64);
        Ok(count)
    }
}
