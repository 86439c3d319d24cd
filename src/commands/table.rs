//! Tables on standard output.

/// The rows with their columns aligned.
pub fn table<const COLUMNS: usize>(rows: &[[String; COLUMNS]]) -> String {
    let mut widths = [0; COLUMNS];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |row: &[String; COLUMNS]| {
        let cells: Vec<String> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        format!("{}\n", cells.join("  ").trim_end())
    };
    rows.iter().map(line).collect()
}

/// A time in whole seconds; `-` where it is no time.
pub fn time(ms: i64) -> String {
    jiff::Timestamp::from_millisecond(ms).map_or("-".into(), |time| format!("{time:.0}"))
}
