//! Columns for people: as wide as their widest cell, numbers to the right. Programs take `--json`.

/// Lays out rows under a header. A column in which every cell is a number is aligned to the right.
pub(super) fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let columns = 0..header.len();
    let cells = |column: usize| rows.iter().map(move |row| row[column].as_str());
    let widths: Vec<usize> = columns
        .clone()
        .map(|column| {
            cells(column)
                .chain([header[column]])
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or(0)
        })
        .collect();
    let is_number =
        |cell: &str| cell == "-" || cell.starts_with(|c: char| c.is_ascii_digit()) && cell.parse::<f64>().is_ok();
    let to_right: Vec<bool> = columns
        .map(|column| !rows.is_empty() && cells(column).all(is_number))
        .collect();
    let line = |row: Vec<&str>| {
        let mut line = String::new();
        for (column, cell) in row.into_iter().enumerate() {
            let padding = " ".repeat(widths[column] - cell.chars().count());
            line += &if to_right[column] {
                format!("{padding}{cell}  ")
            } else {
                format!("{cell}{padding}  ")
            };
        }
        line.trim_end().to_owned()
    };
    let body = rows.iter().map(|row| line(row.iter().map(String::as_str).collect()));
    std::iter::once(line(header.to_vec()))
        .chain(body)
        .collect::<Vec<_>>()
        .join("\n")
}

/// Names and values, one a line.
pub(super) fn list(entries: &[(&str, String)]) -> String {
    let width = entries.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    entries
        .iter()
        .map(|(name, value)| format!("{name:width$}  {value}"))
        .collect::<Vec<_>>()
        .join("\n")
}

/// A value that may be missing.
pub(super) fn or_dash(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".into(), |value| value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_numbers_stand_to_the_right() {
        let rows = [["ana", "7", "ready"], ["bertram", "1200", ""]].map(|row| row.map(String::from).to_vec());
        let expected = "NAME     COUNT  STATE\nana          7  ready\nbertram   1200";
        assert_eq!(table(&["NAME", "COUNT", "STATE"], &rows), expected);
        assert_eq!(table(&["NAME"], &[]), "NAME");
        assert_eq!(list(&[("a", "1".into()), ("long", "2".into())]), "a     1\nlong  2");
    }
}
