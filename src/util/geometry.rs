//! Points, segments and polygons in the plane. Pictures have their origin at the top left: y grows downwards.

/// Distances up to this count as zero. Coordinates are fractions of a picture, which has far fewer pixels.
const TINY: f64 = 1e-9;

/// A position: fractions of the picture's width and height.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// From the left.
    pub x: f64,
    /// From the top.
    pub y: f64,
}

impl Point {
    /// The distance between two points.
    pub fn distance(self, other: Self) -> f64 {
        (self.x - other.x).hypot(self.y - other.y)
    }
}

/// The distance of a point from the line through `from` and `to`: positive on one side, negative on the other. On a line that goes
/// down the picture the left side is positive; on one that goes to the right the lower side is positive. 0 for a line without
/// length.
pub fn signed_distance(from: Point, to: Point, point: Point) -> f64 {
    let length = from.distance(to);
    if length <= TINY {
        return 0.0;
    }
    turn(from, to, point) / length
}

/// Whether two segments have a point in common. Touching counts.
pub fn segments_meet((a, b): (Point, Point), (c, d): (Point, Point)) -> bool {
    let sides = |p, q, r, s| (signed_distance(p, q, r), signed_distance(p, q, s));
    let (to_c, to_d) = sides(a, b, c, d);
    let (to_a, to_b) = sides(c, d, a, b);
    let are_opposite = |one: f64, other: f64| (one > TINY && other < -TINY) || (one < -TINY && other > TINY);
    (are_opposite(to_c, to_d) && are_opposite(to_a, to_b))
        || is_on_segment((a, b), c)
        || is_on_segment((a, b), d)
        || is_on_segment((c, d), a)
        || is_on_segment((c, d), b)
}

/// Whether the point is inside the polygon or on its edge. The polygon may be concave.
pub fn contains(polygon: &[Point], point: Point) -> bool {
    let mut is_inside = false;
    for (a, b) in edges(polygon) {
        if is_on_segment((a, b), point) {
            return true;
        }
        if (a.y > point.y) != (b.y > point.y) && point.x < a.x + (point.y - a.y) / (b.y - a.y) * (b.x - a.x) {
            is_inside = !is_inside;
        }
    }
    is_inside
}

/// The area of a polygon whose edges do not cross.
pub fn area(polygon: &[Point]) -> f64 {
    let twice: f64 = edges(polygon).map(|(a, b)| a.x * b.y - b.x * a.y).sum();
    twice.abs() / 2.0
}

/// Two edges of the polygon that cross or touch, or that go back over each other; each by the number of its first point, from 0.
pub fn crossing_edges(polygon: &[Point]) -> Option<(usize, usize)> {
    let edges: Vec<_> = edges(polygon).collect();
    let count = edges.len();
    for first in 0..count {
        for second in first + 1..count {
            let (one, other) = (edges[first], edges[second]);
            // Neighbours share a point; they must not share another one.
            let meet = if second == first + 1 {
                is_on_segment(one, other.1) || is_on_segment(other, one.0)
            } else if first == 0 && second == count - 1 {
                is_on_segment(one, other.0) || is_on_segment(other, one.1)
            } else {
                segments_meet(one, other)
            };
            if meet {
                return Some((first, second));
            }
        }
    }
    None
}

fn edges(polygon: &[Point]) -> impl Iterator<Item = (Point, Point)> {
    let next = polygon.iter().cycle().skip(1);
    polygon.iter().copied().zip(next.copied())
}

fn is_on_segment((a, b): (Point, Point), point: Point) -> bool {
    let length = a.distance(b);
    if length <= TINY {
        return a.distance(point) <= TINY;
    }
    let along = ((point.x - a.x) * (b.x - a.x) + (point.y - a.y) * (b.y - a.y)) / length;
    (-TINY..=length + TINY).contains(&along) && signed_distance(a, b, point).abs() <= TINY
}

/// Twice the signed area of the triangle.
fn turn(a: Point, b: Point, c: Point) -> f64 {
    (b.x - a.x) * (c.y - a.y) - (b.y - a.y) * (c.x - a.x)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn points(coordinates: &[(f64, f64)]) -> Vec<Point> {
        coordinates.iter().map(|(x, y)| Point { x: *x, y: *y }).collect()
    }

    fn at(x: f64, y: f64) -> Point {
        Point { x, y }
    }

    /// An L, open at the top right.
    fn concave() -> Vec<Point> {
        points(&[(0.0, 0.0), (0.4, 0.0), (0.4, 0.6), (1.0, 0.6), (1.0, 1.0), (0.0, 1.0)])
    }

    #[test]
    fn edges_and_corners_belong_to_the_polygon_and_its_notch_does_not() {
        let polygon = concave();
        for inside in [at(0.2, 0.2), at(0.2, 0.8), at(0.8, 0.8)] {
            assert!(contains(&polygon, inside), "{inside:?}");
        }
        for corner in &polygon {
            assert!(contains(&polygon, *corner), "{corner:?}");
        }
        for edge in [at(0.4, 0.3), at(0.7, 0.6), at(0.0, 0.5), at(0.5, 1.0)] {
            assert!(contains(&polygon, edge), "{edge:?}");
        }
        for outside in [at(0.7, 0.3), at(0.41, 0.59), at(1.1, 0.8), at(-0.1, 0.0), at(0.2, 1.01)] {
            assert!(!contains(&polygon, outside), "{outside:?}");
        }
    }

    #[test]
    fn nothing_is_inside_with_a_coordinate_that_is_no_number() {
        assert!(!contains(&concave(), at(f64::NAN, 0.5)));
        assert!(!contains(&concave(), at(0.2, f64::NAN)));
        assert!(!contains(&[], at(0.2, 0.2)));
        assert!(!segments_meet(
            (at(f64::NAN, 0.0), at(1.0, 1.0)),
            (at(0.0, 1.0), at(1.0, 0.0))
        ));
    }

    #[test]
    fn the_left_side_of_a_line_down_the_picture_is_positive() {
        let (top, bottom) = (at(0.5, 0.0), at(0.5, 1.0));
        assert!((signed_distance(top, bottom, at(0.2, 0.7)) - 0.3).abs() < 1e-12);
        assert!((signed_distance(top, bottom, at(0.9, 0.1)) + 0.4).abs() < 1e-12);
        assert!(signed_distance(at(0.0, 0.5), at(1.0, 0.5), at(0.3, 0.8)) > 0.0);
        assert_eq!(
            signed_distance(top, top, bottom),
            0.0,
            "a line without length has no sides"
        );
    }

    #[test]
    fn segments_meet_where_they_cross_touch_or_overlap() {
        let vertical = (at(0.5, 0.2), at(0.5, 0.8));
        for other in [
            (at(0.0, 0.5), at(1.0, 0.5)),
            (at(0.0, 0.2), at(0.5, 0.2)),
            (at(0.5, 0.5), at(0.5, 2.0)),
            (at(0.5, 0.5), at(0.5, 0.5)),
        ] {
            assert!(
                segments_meet(vertical, other) && segments_meet(other, vertical),
                "{other:?}"
            );
        }
        for other in [
            (at(0.0, 0.1), at(1.0, 0.1)),
            (at(0.0, 0.5), at(0.49, 0.5)),
            (at(0.5, 0.81), at(0.5, 0.9)),
            (at(0.6, 0.6), at(0.6, 0.6)),
        ] {
            assert!(
                !segments_meet(vertical, other) && !segments_meet(other, vertical),
                "{other:?}"
            );
        }
    }

    #[test]
    fn polygons_whose_edges_cross_touch_or_go_back_are_found() {
        assert_eq!(crossing_edges(&concave()), None);
        let bow_tie = points(&[(0.0, 0.0), (1.0, 1.0), (1.0, 0.0), (0.0, 1.0)]);
        assert_eq!(crossing_edges(&bow_tie), Some((0, 2)));
        let touching = points(&[(0.0, 0.0), (1.0, 0.0), (0.5, 0.5), (1.0, 1.0), (0.0, 1.0), (0.5, 0.5)]);
        assert!(crossing_edges(&touching).is_some());
        let spike = points(&[(0.0, 0.0), (1.0, 0.0), (0.5, 0.0), (0.5, 1.0)]);
        assert!(crossing_edges(&spike).is_some());
    }

    proptest! {
        #[test]
        fn a_point_is_inside_a_triangle_as_its_three_sides_say(
            corners in prop::collection::vec((0.0..1.0f64, 0.0..1.0f64), 3), x in 0.0..1.0f64, y in 0.0..1.0f64
        ) {
            let triangle = points(&corners);
            prop_assume!(area(&triangle) > 1e-3);
            let sides: Vec<_> = edges(&triangle).map(|(a, b)| signed_distance(a, b, at(x, y))).collect();
            prop_assume!(sides.iter().all(|side| side.abs() > 1e-6));
            let expected = sides.iter().all(|side| *side > 0.0) || sides.iter().all(|side| *side < 0.0);
            prop_assert_eq!(contains(&triangle, at(x, y)), expected);
        }

        #[test]
        fn points_on_the_edges_of_any_polygon_are_inside(
            corners in prop::collection::vec((0.0..1.0f64, 0.0..1.0f64), 3..12), edge in 0..12usize, along in 0.0..=1.0f64
        ) {
            let polygon = points(&corners);
            let (a, b) = edges(&polygon).nth(edge % polygon.len()).unwrap();
            let point = at(a.x + (b.x - a.x) * along, a.y + (b.y - a.y) * along);
            prop_assert!(contains(&polygon, point));
        }

        #[test]
        fn turning_a_polygon_around_changes_neither_area_nor_inside(
            corners in prop::collection::vec((0.0..1.0f64, 0.0..1.0f64), 3..9), shift in 0..9usize, x in 0.0..1.0f64, y in 0.0..1.0f64
        ) {
            let polygon = points(&corners);
            let mut turned = polygon.clone();
            turned.reverse();
            turned.rotate_left(shift % polygon.len());
            prop_assert_eq!(contains(&polygon, at(x, y)), contains(&turned, at(x, y)));
            prop_assert!((area(&polygon) - area(&turned)).abs() < 1e-12);
        }

        #[test]
        fn any_coordinates_give_an_answer(
            values in prop::collection::vec((any::<f64>(), any::<f64>()), 0..8), x in any::<f64>(), y in any::<f64>()
        ) {
            let polygon = points(&values);
            contains(&polygon, at(x, y));
            crossing_edges(&polygon);
            area(&polygon);
        }
    }
}
