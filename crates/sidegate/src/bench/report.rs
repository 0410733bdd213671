//! Results as text, as CSV and as a picture. Deliberately absent: files and standard output.

pub mod chart;
pub mod csv;
pub mod table;

#[cfg(test)]
mod testing;
