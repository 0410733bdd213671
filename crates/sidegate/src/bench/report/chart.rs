//! Results as a picture: for each operation a bar for off and a bar for on, with error bars; SVG, alone or in a page.
//!
//! Each pair of bars has a scale of its own, on which "off" is 1, as operations differ a hundredfold in time. Deliberately
//! absent: scripts, and anything fetched from elsewhere. Colours follow the reader's choice of light or dark.

use std::fmt::Write;

use crate::bench::plan::Mode;
use crate::bench::stats::Estimate;
use crate::bench::summary::{Key, Summary};

const WIDTH: f64 = 860.0;
const LEFT: f64 = 210.0;
/// Where bars end and figures begin.
const RIGHT: f64 = 590.0;
const TOP: f64 = 96.0;
const ROW: f64 = 58.0;
const BAR: f64 = 16.0;
const BELOW: f64 = 46.0;
const NOTE: f64 = 15.0;
/// Half the height of an error bar's ends.
const WHISKER: f64 = 4.0;
/// The least that the scale reaches to.
const SCALE_LEAST: f64 = 1.2;
const STEP: f64 = 0.25;
/// More marks than this cannot be read; the steps become wider.
const MARKS_MOST: f64 = 10.0;

const STYLE: &str = "\
    .ground{fill:#ffffff}.text{fill:#1f2328;font:13px system-ui,sans-serif}.small{fill:#59636e;font:11px system-ui,sans-serif}\
    .title{fill:#1f2328;font:600 16px system-ui,sans-serif}.grid{stroke:#d1d9e0;stroke-width:1}.one{stroke:#59636e;stroke-width:1}\
    .off{fill:#818b98}.on{fill:#0969da}.whisker{stroke:#1f2328;stroke-width:1.5}\
    @media (prefers-color-scheme:dark){.ground{fill:#0d1117}.text,.title{fill:#f0f6fc}.small{fill:#9198a1}.grid{stroke:#3d444d}\
    .one{stroke:#9198a1}.off{fill:#9198a1}.on{fill:#4493f8}.whisker{stroke:#f0f6fc}}";

/// What a chart compares: the second mode against the first.
struct Bars {
    key: Key,
    base: Estimate,
    other: Estimate,
    ratio: Estimate,
}

/// The picture alone. `notes` say what was measured.
///
/// # Errors
/// None in practice: a string takes all that is written to it.
pub fn svg(summary: &Summary, notes: &[String]) -> Result<String, std::fmt::Error> {
    let (base, other) = compared(summary);
    let bars: Vec<Bars> = summary.keys().filter_map(|key| bars(summary, key, base, other)).collect();
    let scale = Scale::of(&bars);
    let rows = ROW * bars.len() as f64;
    let height = TOP + rows + BELOW + NOTE * notes.len() as f64;
    let mut svg = String::new();
    writeln!(
        svg,
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" role="img" aria-labelledby="title description">"#
    )?;
    let title = format!("Time of a request: {} against {}", words(other), words(base));
    writeln!(svg, r#"<title id="title">{}</title>"#, escaped(&title))?;
    writeln!(svg, r#"<desc id="description">{}</desc>"#, escaped(&description(&bars, base, other)))?;
    writeln!(svg, r#"<style>{STYLE}</style><rect class="ground" width="{WIDTH}" height="{height}"/>"#)?;
    text(&mut svg, "title", (16.0, 28.0), &title)?;
    legend(&mut svg, base, other)?;
    scale.draw(&mut svg, TOP + rows)?;
    let mut y = TOP;
    for one in &bars {
        draw(&mut svg, &scale, y, one)?;
        y += ROW;
    }
    y += BELOW;
    for note in notes {
        text(&mut svg, "small", (16.0, y), note)?;
        y += NOTE;
    }
    svg.push_str("</svg>\n");
    Ok(svg)
}

/// A page with the picture and the tables.
///
/// # Errors
/// As [`svg`].
pub fn html(summary: &Summary, notes: &[String], tables: &str) -> Result<String, std::fmt::Error> {
    Ok(format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"color-scheme\" content=\"light dark\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<title>Sidegate: benchmark</title>\n\
         <style>body{{margin:2rem;font-family:system-ui,sans-serif}}svg{{max-width:100%;height:auto}}pre{{overflow-x:auto}}</style>\n\
         </head>\n<body>\n<h1>Benchmark</h1>\n{}<pre>{}</pre>\n</body>\n</html>\n",
        svg(summary, notes)?,
        escaped(tables)
    ))
}

/// On against off; of targets, the second against the first.
fn compared(summary: &Summary) -> (Mode, Mode) {
    let last = summary.comparisons().last().copied();
    last.map_or((crate::bench::plan::OFF_OFF, crate::bench::plan::ON_ON), |(of, to)| (to, of))
}

fn bars(summary: &Summary, key: Key, base: Mode, other: Mode) -> Option<Bars> {
    Some(Bars {
        key,
        base: summary.time(key, base)?,
        other: summary.time(key, other)?,
        ratio: summary.ratio(key, other, base)?,
    })
}

fn words(mode: Mode) -> String {
    match mode {
        Mode::Pair { sign: true, verify: true } => "authorization on".into(),
        Mode::Pair { sign: false, verify: false } => "off".into(),
        other => other.to_string(),
    }
}

fn description(bars: &[Bars], base: Mode, other: Mode) -> String {
    let one = |bars: &Bars| {
        let Key { class, operation, protocol, requests, connections } = bars.key;
        format!(
            "{} ({}, {}, {requests} requests, {connections} connections): {:.3} ms and {:.3} ms, ratio {}.",
            class.label(),
            operation.load(),
            protocol.label(),
            bars.base.median,
            bars.other.median,
            ratio(bars.ratio)
        )
    };
    format!(
        "Medians with {} and with {}. {}",
        words(base),
        words(other),
        bars.iter().map(one).collect::<Vec<_>>().join(" ")
    )
}

fn legend(svg: &mut String, base: Mode, other: Mode) -> std::fmt::Result {
    for (x, class, mode) in [(16.0, "off", base), (150.0, "on", other)] {
        writeln!(svg, r#"<rect class="{class}" x="{x}" y="44" width="12" height="12"/>"#)?;
        text(svg, "text", (x + 18.0, 55.0), &words(mode))?;
    }
    let meaning = "Bars: median times, the upper one of each pair being 1. Lines: 95 % confidence, where there are enough repetitions.";
    text(svg, "small", (16.0, 76.0), meaning)
}

fn draw(svg: &mut String, scale: &Scale, top: f64, bars: &Bars) -> std::fmt::Result {
    let Key { class, operation, protocol, requests, connections } = bars.key;
    let mixed = if operation.load() == "mixed" { ", mixed load" } else { "" };
    text(svg, "text", (16.0, top + 20.0), &format!("{}, {}{mixed}", class.label(), protocol.label()))?;
    text(svg, "small", (16.0, top + 36.0), &format!("{requests} requests, {connections} connections"))?;
    let own = bars.base.interval.map(|(low, high)| (low / bars.base.median, high / bars.base.median));
    bar(svg, scale, "off", top + 6.0, 1.0, own)?;
    bar(svg, scale, "on", top + 6.0 + BAR + 4.0, bars.ratio.median, bars.ratio.interval)?;
    text(svg, "text", (RIGHT + 16.0, top + 19.0), &format!("{:.3} ms", bars.base.median))?;
    let result = format!("{:.3} ms · × {}", bars.other.median, ratio(bars.ratio));
    text(svg, "text", (RIGHT + 16.0, top + 39.0), &result)
}

fn bar(
    svg: &mut String,
    scale: &Scale,
    class: &str,
    y: f64,
    value: f64,
    interval: Option<(f64, f64)>,
) -> std::fmt::Result {
    let width = scale.x(value) - LEFT;
    writeln!(svg, r#"<rect class="{class}" x="{LEFT}" y="{y}" width="{width:.1}" height="{BAR}"/>"#)?;
    let Some((low, high)) = interval else { return Ok(()) };
    let (low, high, middle) = (scale.x(low), scale.x(high), y + BAR / 2.0);
    let (above, below) = (middle - WHISKER, middle + WHISKER);
    writeln!(
        svg,
        r#"<path class="whisker" d="M{low:.1} {above}V{below}M{low:.1} {middle}H{high:.1}M{high:.1} {above}V{below}"/>"#
    )
}

/// From a ratio to a place.
struct Scale {
    most: f64,
    step: f64,
}

impl Scale {
    fn of(bars: &[Bars]) -> Self {
        let own = bars.iter().filter_map(|bars| Some(bars.base.interval?.1 / bars.base.median));
        let others = bars.iter().map(|bars| bars.ratio.interval.map_or(bars.ratio.median, |(_, high)| high));
        let most = own.chain(others).filter(|value| value.is_finite()).fold(SCALE_LEAST, f64::max);
        let step = STEP * (most / STEP / MARKS_MOST).ceil();
        Self { most: (most / step).ceil() * step, step }
    }

    fn x(&self, value: f64) -> f64 {
        LEFT + (RIGHT - LEFT) * (value / self.most).clamp(0.0, 1.0)
    }

    fn draw(&self, svg: &mut String, bottom: f64) -> std::fmt::Result {
        let mut mark = 0.0;
        while mark <= self.most + self.step / 2.0 {
            let x = self.x(mark);
            let class = if (mark - 1.0).abs() < self.step / 2.0 { "one" } else { "grid" };
            writeln!(svg, r#"<path class="{class}" d="M{x:.1} {TOP}V{bottom}"/>"#)?;
            text(svg, "small", (x - 8.0, bottom + 16.0), &format!("{mark:.2}"))?;
            mark += self.step;
        }
        Ok(())
    }
}

fn ratio(ratio: Estimate) -> String {
    match ratio.interval {
        Some((low, high)) => format!("{:.3} [{low:.3}, {high:.3}]", ratio.median),
        None => format!("{:.3}", ratio.median),
    }
}

fn text(svg: &mut String, class: &str, (x, y): (f64, f64), text: &str) -> std::fmt::Result {
    writeln!(svg, r#"<text class="{class}" x="{x:.1}" y="{y:.1}">{}</text>"#, escaped(text))
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::plan::{OFF_OFF, ON_ON, Operation, Protocol};
    use crate::bench::report::testing::{measured, run};

    fn summary() -> Summary {
        let mut outcomes = Vec::new();
        for repetition in 1..=8 {
            for (operation, time) in [(Operation::Light, 0.2), (Operation::Heavy, 33.0)] {
                let drift = time * (1.0 + f64::from(repetition) / 50.0);
                outcomes.push(measured(run(operation, OFF_OFF, Protocol::Native, repetition), drift));
                outcomes.push(measured(run(operation, ON_ON, Protocol::Native, repetition), drift * 1.5));
            }
        }
        Summary::of(&outcomes)
    }

    #[test]
    fn each_operation_has_two_bars_as_long_as_its_figures() {
        let svg = svg(&summary(), &["a < b & c".into()]).unwrap();
        let document = roxmltree::Document::parse(&svg).unwrap();
        let widths = |class: &str| {
            let rects = document.descendants().filter(|node| node.has_tag_name("rect"));
            let bars =
                rects.filter(|node| node.attribute("class") == Some(class) && node.attribute("height") == Some("16"));
            bars.map(|node| node.attribute("width").unwrap().parse::<f64>().unwrap()).collect::<Vec<_>>()
        };
        let (off, on) = (widths("off"), widths("on"));
        assert_eq!((off.len(), on.len()), (2, 2));
        for (off, on) in off.iter().zip(on) {
            assert!((on / off - 1.5).abs() < 0.01, "{on} to {off}");
        }
        let whiskers = document.descendants().filter(|node| node.attribute("class") == Some("whisker")).count();
        assert_eq!(whiskers, 4, "an error bar for each bar");
        assert!(!svg.contains("<script"));
        assert!(svg.contains("prefers-color-scheme:dark") && svg.contains("a &lt; b &amp; c"));
    }

    #[test]
    fn a_page_holds_picture_and_tables() {
        let page = html(&summary(), &[], "1 < 2").unwrap();
        assert!(page.contains("<svg") && page.contains("<pre>1 &lt; 2</pre>") && !page.contains("<script"));
    }

    #[test]
    fn without_figures_there_is_still_a_picture() {
        let svg = svg(&Summary::default(), &[]).unwrap();
        assert!(roxmltree::Document::parse(&svg).is_ok(), "{svg}");
    }

    #[test]
    fn a_wide_range_has_marks_that_can_be_told_apart() {
        let estimate = |median| Estimate { median, interval: None, count: 1 };
        let key = summary().keys().next().unwrap();
        let bars = Bars { key, base: estimate(1.0), other: estimate(100.0), ratio: estimate(100.0) };
        let scale = Scale::of(&[bars]);
        assert!(scale.most >= 100.0 && scale.most / scale.step <= MARKS_MOST + 1.0);
    }
}
