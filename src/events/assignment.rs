//! Assigns detections to tracks so that the sum of their similarities is the highest (the Hungarian method).

use pathfinding::kuhn_munkres::kuhn_munkres;
use pathfinding::matrix::Matrix;

/// Similarities are compared with this precision.
const STEPS: f64 = 1e6;

/// The column of each row; `None`: the row gets none. `similarity` is from -1 to 1; `None`: the two do not belong together.
pub(super) fn assign(
    rows: usize,
    columns: usize,
    similarity: impl Fn(usize, usize) -> Option<f64>,
) -> Vec<Option<usize>> {
    if rows == 0 || columns == 0 {
        return vec![None; rows];
    }
    // A pair that belongs together is better than none, however weak it is.
    let weight = |row: usize, column: usize| {
        similarity(row, column).map_or(0, |similarity| (STEPS + similarity * (STEPS - 1.0)) as i64)
    };
    // The method needs as many columns as rows, or more.
    let is_turned = rows > columns;
    let (short, long) = (rows.min(columns), rows.max(columns));
    let mut weights = Matrix::new(short, long, 0);
    for one in 0..short {
        for other in 0..long {
            weights[(one, other)] = if is_turned {
                weight(other, one)
            } else {
                weight(one, other)
            };
        }
    }
    let (_, assigned) = kuhn_munkres(&weights);
    let mut columns_of = vec![None; rows];
    for (one, other) in assigned.into_iter().enumerate() {
        if weights[(one, other)] > 0 {
            let (row, column) = if is_turned { (other, one) } else { (one, other) };
            columns_of[row] = Some(column);
        }
    }
    columns_of
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_best_sum_wins_over_the_best_single_pair() {
        let similarities = [[0.9, 0.8], [0.8, -0.9]];
        let assigned = assign(2, 2, |row, column| Some(similarities[row][column]));
        assert_eq!(assigned, [Some(1), Some(0)]);
    }

    #[test]
    fn what_does_not_belong_together_is_not_assigned() {
        assert_eq!(assign(2, 1, |row, _| (row == 1).then_some(0.1)), [None, Some(0)]);
        assert_eq!(assign(1, 2, |_, _| None), [None]);
        assert_eq!(assign(2, 0, |_, _| Some(1.0)), [None, None]);
        assert_eq!(assign(0, 2, |_, _| Some(1.0)), []);
    }

    proptest! {
        #[test]
        fn no_column_is_assigned_twice(
            rows in 0..7usize, columns in 0..7usize, values in prop::collection::vec(prop::option::of(-1.0..=1.0f64), 49)
        ) {
            let assigned = assign(rows, columns, |row, column| values[row * 7 + column]);
            let mut taken: Vec<_> = assigned.iter().flatten().collect();
            let count = taken.len();
            taken.sort();
            taken.dedup();
            prop_assert_eq!(taken.len(), count);
            for (row, column) in assigned.iter().enumerate() {
                prop_assert!(column.is_none_or(|column| values[row * 7 + column].is_some()));
            }
        }
    }
}
