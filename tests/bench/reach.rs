//! What the figures are held against.

/// Figures with what was to be reached.
#[derive(Default)]
pub struct Reach(Vec<(String, f64, f64, bool)>);

impl Reach {
    pub fn at_least(&mut self, what: impl Into<String>, figure: f64, least: f64) {
        self.0.push((what.into(), figure, least, true));
    }

    pub fn at_most(&mut self, what: impl Into<String>, figure: f64, most: f64) {
        self.0.push((what.into(), figure, most, false));
    }

    pub fn print(&self) {
        println!("\nWhat was to be reached\n");
        println!("| what | figure | reach | reached |\n| --- | --- | --- | --- |");
        for (what, figure, limit, at_least) in &self.0 {
            let (sign, reached) = if *at_least {
                ("at least", figure >= limit)
            } else {
                ("at most", figure <= limit)
            };
            let reached = if reached { "yes" } else { "no" };
            println!("| {what} | {} | {sign} {limit} | {reached} |", short(*figure));
        }
    }
}

/// Three digits that mean something.
pub fn short(figure: f64) -> String {
    match figure.abs() {
        size if size >= 100.0 => format!("{figure:.0}"),
        size if size >= 10.0 => format!("{figure:.1}"),
        size if size >= 1.0 => format!("{figure:.2}"),
        _ => format!("{figure:.3}"),
    }
}
