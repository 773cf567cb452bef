//! The table at the end of the demo.

use crate::judge::Line;

const TITLES: [&str; 8] = ["#", "stage", "family", "what was sent", "expected", "what happened", "rule", "counter"];

pub(crate) fn render(lines: &[Line]) -> String {
    let rows: Vec<[String; 8]> = lines.iter().enumerate().map(|(index, line)| row(index + 1, line)).collect();
    let widths: Vec<usize> = (0..TITLES.len())
        .map(|column| {
            rows.iter().map(|row| width(&row[column])).chain([width(TITLES[column])]).max().unwrap_or_default()
        })
        .collect();
    let mut text = join(&TITLES.map(str::to_owned), &widths);
    text.push_str(&widths.iter().map(|width| "─".repeat(*width)).collect::<Vec<_>>().join("──"));
    text.push('\n');
    for (row, line) in rows.iter().zip(lines) {
        text.push_str(&join(row, &widths));
        for complaint in &line.complaints {
            text.push_str(&format!("    !! not as expected: {complaint}\n"));
        }
    }
    text
}

fn row(number: usize, line: &Line) -> [String; 8] {
    [
        number.to_string(),
        line.stage.to_owned(),
        line.family.to_owned(),
        line.what.clone(),
        line.expected.clone(),
        line.happened.clone(),
        line.by.clone(),
        line.counter.clone(),
    ]
}

fn join(cells: &[String], widths: &[usize]) -> String {
    let padded: Vec<String> =
        cells.iter().zip(widths).map(|(cell, wide)| format!("{cell}{}", " ".repeat(wide - width(cell)))).collect();
    format!("{}\n", padded.join("  ").trim_end())
}

/// In characters. All that is shown here is one column wide.
fn width(text: &str) -> usize {
    text.chars().count()
}
