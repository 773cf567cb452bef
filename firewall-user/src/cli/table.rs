//! Aligned columns, and numbers as people read them.

use std::io::{self, Write};

/// Rows of cells; columns are as wide as their widest cell.
#[derive(Debug)]
pub(super) struct Table<const COLUMNS: usize> {
    rows: Vec<[String; COLUMNS]>,
    /// By column: numbers go to the right.
    right: [bool; COLUMNS],
}

impl<const COLUMNS: usize> Table<COLUMNS> {
    /// A table with these headings; one that starts with `>` has numbers below it.
    pub(super) fn new(headings: [&str; COLUMNS]) -> Self {
        Self {
            right: headings.map(|heading| heading.starts_with('>')),
            rows: vec![headings.map(|heading| heading.trim_start_matches('>').to_owned())],
        }
    }

    pub(super) fn row(&mut self, cells: [String; COLUMNS]) {
        self.rows.push(cells);
    }

    /// Whether there are no rows below the headings.
    pub(super) fn is_empty(&self) -> bool {
        self.rows.len() == 1
    }

    /// Prints every row after `indent`.
    pub(super) fn print(&self, out: &mut dyn Write, indent: &str) -> io::Result<()> {
        let width = |column: usize| self.rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: [usize; COLUMNS] = std::array::from_fn(width);
        for row in &self.rows {
            let mut line = indent.to_owned();
            for ((cell, width), right) in row.iter().zip(widths).zip(self.right) {
                line += &if right { format!("{cell:>width$}  ") } else { format!("{cell:<width$}  ") };
            }
            writeln!(out, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// Bytes in units of 1024, e.g. `1.4 MiB`.
pub(super) fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let mut value = count as f64 / 1024.0;
    let mut unit = 0;
    // What would read as 1024.0 goes to the next unit.
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// Seconds in at most two units, e.g. `2d 3h`.
pub(super) fn seconds(count: u64) -> String {
    const UNITS: [(&str, u64); 4] = [("d", 86400), ("h", 3600), ("m", 60), ("s", 1)];
    let first = UNITS.iter().position(|(_, length)| count >= *length).unwrap_or(UNITS.len() - 1);
    let (name, length) = UNITS[first];
    let mut text = format!("{}{name}", count / length);
    if let Some((name, next)) = UNITS.get(first + 1)
        && count % length / next > 0
    {
        text += &format!(" {}{name}", count % length / next);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aligns() {
        let mut table = Table::new(["NAME", ">PACKETS", "MODE"]);
        assert!(table.is_empty());
        table.row(["ä-list".into(), "7".into(), "enforce".into()]);
        table.row(["b".into(), "12345678".into(), String::new()]);
        let mut out = Vec::new();
        table.print(&mut out, "  ").unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "  NAME     PACKETS  MODE\n  ä-list         7  enforce\n  b       12345678\n"
        );
    }

    #[test]
    fn counts_bytes() {
        for (count, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1024 * 1024 - 1, "1.0 MiB"),
            (1_500_000, "1.4 MiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(bytes(count), text);
        }
    }

    #[test]
    fn counts_seconds() {
        for (count, text) in
            [(0, "0s"), (59, "59s"), (60, "1m"), (61, "1m 1s"), (3600, "1h"), (3659, "1h"), (183_600, "2d 3h")]
        {
            assert_eq!(seconds(count), text);
        }
    }
}
