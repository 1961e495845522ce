#include "report/page.h"

#include "report/svg.h"

namespace ektm {
namespace {

constexpr const char* kStyleSheet = R"css(
:root { --ink: #1b2733; --soft: #5b6773; --line: #d5dbe1; --tint: #e6f0f8; }
* { box-sizing: border-box; }
body { margin: 0; background: #fff; color: var(--ink); font: 14px/1.5 "Helvetica Neue", Arial, "Liberation Sans", sans-serif; }
main { max-width: 1248px; margin: 0 auto; padding: 28px 24px 48px; }
h1 { font-size: 27px; line-height: 1.2; margin: 0 0 4px; letter-spacing: -0.01em; }
h2 { font-size: 18px; margin: 38px 0 4px; padding-top: 14px; border-top: 2px solid var(--ink); }
h1.set { font-size: 22px; margin: 56px 0 4px; padding-top: 16px; border-top: 4px double var(--ink); }
h3 { font-size: 14px; margin: 22px 0 6px; }
p { margin: 6px 0 12px; max-width: 86ch; }
.lead { font-size: 15px; }
.soft, .facts { color: var(--soft); }
.warning { border-left: 4px solid #d55e00; background: #fdf1e9; padding: 8px 12px; margin: 12px 0; max-width: none; }
.legend { display: flex; flex-wrap: wrap; gap: 4px 22px; margin: 10px 0 14px; padding: 0; list-style: none; }
.legend li, .run { display: flex; align-items: center; gap: 7px; }
svg { display: block; font-family: inherit; flex: none; }
.run span { width: max-content; max-width: 190px; white-space: normal; overflow-wrap: break-word; line-height: 1.25; }
.panels { display: flex; flex-wrap: wrap; gap: 26px 30px; margin: 12px 0 4px; }
.panels > * { break-inside: avoid; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: 10px 0 6px; }
th, td { padding: 4px 14px 4px 0; text-align: right; vertical-align: middle; white-space: nowrap; }
th { font-weight: 600; white-space: normal; border-bottom: 1.5px solid var(--ink); vertical-align: bottom; }
th.left, td.left { text-align: left; }
tbody.group { break-inside: avoid; }
tbody.group td { border-top: 1px solid #eef1f4; }
td[rowspan] { vertical-align: top; }
tbody.group tr:first-child td { border-top: 1px solid #9aa5b0; }
tbody.plain td { border-bottom: 1px solid #e6eaee; }
td.best { font-weight: 700; }
.value + .aside { margin-left: 6px; }
.best .value { background: var(--tint); padding: 1px 4px; margin: 0 -4px; border-radius: 3px; }
.aside { color: var(--soft); font-weight: 400; font-size: 12px; }
li { max-width: 100ch; margin: 2px 0; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 3px 16px; margin: 10px 0; max-width: 1000px; }
dt { font-weight: 600; } dd { margin: 0; }
svg .title { font-size: 14px; font-weight: 600; fill: #1b2733; }
svg .note, svg .tick { font-size: 11px; fill: #4c5863; }
svg .best { font-weight: 700; fill: #000; }
svg .cell { font-size: 11px; fill: #1b2733; } svg .inverse { fill: #fff; }
svg .grid { stroke: #e3e8ec; } svg .axis { stroke: #6b7782; } svg .zero { stroke: #1b2733; stroke-width: 1.4; }
svg .diagonal { stroke: #6b7782; stroke-dasharray: 5 4; }
footer { margin-top: 40px; color: var(--soft); font-size: 12px; }
@page { size: A4 landscape; margin: 12mm; }
@media print {
  body { font-size: 11px; print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  main { max-width: none; padding: 0; } h2 { break-after: avoid; }
  th, td { padding: 2px 10px 2px 0; } .scroll { overflow: visible; }
}
)css";

}  // namespace

std::string html_page(const std::string& title, const std::string& body) {
  return "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n"
         "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n<title>" +
         escape_html(title) + "</title>\n<style>" + kStyleSheet + "</style>\n</head>\n<body>\n<main>\n" + body + "</main>\n</body>\n</html>\n";
}

}  // namespace ektm
