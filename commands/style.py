"""The report page's style sheet: readable on a phone and a desktop, in light and dark, and on paper."""

CSS = """
:root {
  --paper: #ffffff; --sheet: #f5f6f8; --ink: #1b1f24; --soft: #5b6470; --rule: #dfe3e8;
  --own: #1463b8; --other: #8a94a0; --good: #1f8a54; --bad: #c9473b; --second: #c4680a; --third: #7a4fb5;
  color-scheme: light dark;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #171a1f; --sheet: #0f1114; --ink: #e7eaee; --soft: #9aa4b0; --rule: #2b3138;
    --own: #62a8f0; --other: #77818d; --good: #45b880; --bad: #e8776c; --second: #eda14b; --third: #b392ea;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--sheet); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif;
}
main { max-width: 1080px; margin: 0 auto; padding: 28px 18px 56px; }
header h1 { margin: 0; font-size: 1.9rem; line-height: 1.2; letter-spacing: -0.01em; overflow-wrap: anywhere; }
header p { margin: 6px 0 0; color: var(--soft); overflow-wrap: anywhere; }
h2 { margin: 0 0 4px; font-size: 1.15rem; }
h2 + p, .lead { margin: 0 0 14px; color: var(--soft); font-size: 0.92rem; }
h3 { margin: 0 0 2px; font-size: 0.95rem; font-weight: 600; }
section {
  background: var(--paper); border: 1px solid var(--rule); border-radius: 12px;
  padding: 20px 22px; margin-top: 18px;
}
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 14px; margin-top: 20px; }
.tile { background: var(--paper); border: 1px solid var(--rule); border-radius: 12px; padding: 14px 16px; }
.tile b { display: block; font-size: 1.7rem; line-height: 1.2; font-weight: 650; font-variant-numeric: tabular-nums; }
.tile span { color: var(--soft); font-size: 0.84rem; }
.tile .what {
  display: block; text-transform: uppercase; letter-spacing: 0.05em; font-size: 0.72rem; margin-bottom: 4px;
}
.tile.main b { color: var(--own); }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 400px), 1fr)); gap: 22px 28px; align-items: center; }
.pair > div { min-width: 0; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 0.92rem; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: 6px 14px 6px 0; border-bottom: 1px solid var(--rule); vertical-align: top; }
th { color: var(--soft); font-weight: 500; white-space: nowrap; }
td.n, th.n { text-align: right; white-space: nowrap; }
tr.own td { font-weight: 600; }
tr:last-child td, tr:last-child th { border-bottom: 0; }
.facts td { overflow-wrap: anywhere; }
td:first-child { white-space: nowrap; }
.facts td { white-space: normal; }
.sections { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 420px), 1fr)); gap: 0 18px; }
.sections section { min-width: 0; }
.videos { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 230px), 1fr)); gap: 16px; }
figure { margin: 0; }
figure video, figure img { width: 100%; border-radius: 8px; display: block; background: #20242a; }
figcaption { color: var(--soft); font-size: 0.84rem; margin-top: 5px; }
pre {
  margin: 12px 0 0; padding: 14px; background: var(--sheet); border-radius: 8px; overflow-x: auto;
  font: 0.82rem/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace;
}
details summary { cursor: pointer; font-weight: 600; font-size: 1.05rem; }
footer { color: var(--soft); font-size: 0.82rem; margin-top: 22px; }
.empty { color: var(--soft); font-style: italic; }
svg { width: 100%; height: auto; display: block; font-size: 12px; }
svg text { fill: var(--soft); }
svg .grid { stroke: var(--rule); stroke-width: 1; }
svg .axis { stroke: var(--soft); stroke-width: 1; }
svg .tick { font-size: 11px; font-variant-numeric: tabular-nums; }
svg .name, svg .note { font-size: 13px; }
svg .name.own, svg .note.own { fill: var(--ink); font-weight: 600; }
svg polyline { fill: none; stroke-width: 2; stroke-linejoin: round; }
svg .line-0 { stroke: var(--own); } svg .dot-0 { fill: var(--own); }
svg .line-1 { stroke: var(--second); } svg .dot-1 { fill: var(--second); }
svg .line-2 { stroke: var(--third); } svg .dot-2 { fill: var(--third); }
svg line.line-0, svg line.line-1, svg line.line-2 { stroke-width: 3; }
svg .bar { fill: var(--own); opacity: 0.85; }
svg .good { fill: var(--good); } svg .bad { fill: var(--bad); }
svg .mark { stroke: var(--bad); stroke-width: 1.5; stroke-dasharray: 5 4; }
svg .mark-label { fill: var(--bad); font-size: 12px; }
svg .range { opacity: 0.28; } svg .range.own { fill: var(--own); } svg .range.other { fill: var(--other); }
svg .point.own { fill: var(--own); } svg .point.other { fill: var(--other); }
@media (max-width: 560px) {
  section { padding: 16px 14px; }
  header h1 { font-size: 1.5rem; }
  svg { font-size: 16px; } svg .tick { font-size: 15px; } svg .name, svg .note { font-size: 14px; }
}
@media print { body { background: #fff; } section { break-inside: avoid; } }
"""
